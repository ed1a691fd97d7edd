"""`/v1/messages/count_tokens`: how many tokens a request would have. It costs nothing and touches no budget.

The server of the first target is asked where it has the endpoint (Anthropic, vLLM since vllm-project/vllm#35588,
llama.cpp); where it has none, or does not answer, the gateway's own estimate is the answer and a header says so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from gateway.client import Client, content
from gateway.core.call import Call, Json
from gateway.core.routing import Plan, Target
from gateway.errors import UpstreamFailure
from gateway.flight import AttemptEnd, Flight
from gateway.observed import NOTHING, Observed
from gateway.providers.base import Attempt, Provider

SECONDS = 5.0  # that a server has to count
LIMIT = 64 * 1024  # bytes of its answer


class Counting:
    def __init__(self, providers: Mapping[str, Provider], json: Json) -> None:
        self._providers = providers
        self._json = json

    async def answer(self, call: Call, plan: Plan, flight: Flight, client: Client) -> None:
        body = None
        target = plan.targets[0]
        if call.form.api in target.model.apis:
            began = time.monotonic()
            body = await self._ask(call, target, flight)
            flight.book(began, time.monotonic())
        headers = flight.headers()
        if body is None:
            body = self._json.dumps({"input_tokens": call.estimated_input})
            headers.append((b"x-gateway-usage", b"estimated"))
        flight.outcome, flight.status = "ok", 200
        await client.start(200, headers + content("application/json", body))
        await client.send(body, more=False)

    async def _ask(self, call: Call, target: Target, flight: Flight) -> bytes | None:
        """The server's own answer, byte for byte; None where it gives none. An attempt like any other, but free."""
        provider = self._providers[target.replica.provider or target.model.provider]
        seen, started = Observed(), time.monotonic()
        seen.reported = NOTHING
        flight.tries += 1
        status, body, detail = 0, b"", "no count of tokens"
        try:
            async with asyncio.timeout(min(SECONDS, _seconds(target))):
                upstream = await provider.open(Attempt(call, target))
                try:
                    status, body = upstream.status, await upstream.read(LIMIT)
                finally:
                    upstream.close()
        except (UpstreamFailure, TimeoutError) as error:
            detail = str(error) or f"no answer within {SECONDS:g} s"
        counted = status == 200 and self._holds_a_count(body)
        end = AttemptEnd(
            *("ok" if counted else "malformed", "first", "answer", status, started),
            detail="" if counted else detail,
            committed=counted,
        )
        flight.end_attempt(target, seen, end)
        return body if counted else None

    def _holds_a_count(self, body: bytes) -> bool:
        try:
            value = self._json.loads(body)
        except ValueError:
            return False
        return isinstance(value, dict) and type(value.get("input_tokens")) is int


def _seconds(target: Target) -> float:
    """That a call may take in all, as its client and its route say."""
    return target.timeouts.total or SECONDS
