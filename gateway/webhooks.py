"""Tells others when something happens: `webhooks:` of routes.yaml. Off the path of any request.

A delivery is a POST of JSON, signed as Standard Webhooks asks (github.com/standard-webhooks, spec/standard-webhooks.md:
`webhook-id`, `webhook-timestamp`, `webhook-signature: v1,<base64 HMAC-SHA256 of id.timestamp.body>`). The id stays the
same over retries, so that a receiver can tell a repetition. What cannot be delivered within the retries, or when the
gateway ends, is a line in the log.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import datetime
import hashlib
import hmac
import json
import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tenacity import AsyncRetrying, RetryError, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from gateway.config.types import Webhook
from gateway.core.breaker import Phase
from gateway.core.pricing import NANO_PER_USD
from gateway.telemetry.events import BreakerChanged, BudgetCrossed, ConfigReloaded, Event

if TYPE_CHECKING:
    import httpx

SECONDS = 10.0  # for one delivery
TRIES = 8
FIRST_WAIT, LONGEST_WAIT = 1.0, 300.0  # seconds between tries: doubling, with full jitter
MOST_WAITING = 1_000  # deliveries; more are left out, with a line in the log
ENDING = 2.0  # seconds at the end for what waits

log = logging.getLogger("gateway")


class Webhooks:
    """Consumes events. Belongs to one event loop."""

    def __init__(self, hooks: Sequence[Webhook] = ()) -> None:
        self._hooks = tuple(hooks)
        self._client: httpx.AsyncClient | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def configure(self, hooks: Sequence[Webhook]) -> None:
        self._hooks = tuple(hooks)

    def observe(self, event: Event) -> None:
        """Never blocks and never raises."""
        told = _told(event) if self._hooks else None
        if told is None:
            return
        kind, data = told
        for hook in self._hooks:
            if kind not in hook.events:
                continue
            if len(self._tasks) >= MOST_WAITING:
                log.error("webhooks: %d deliveries wait; this %s is told to nobody", MOST_WAITING, kind)
                continue
            task = asyncio.get_running_loop().create_task(self._deliver(hook, kind, data))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Gives what waits a moment more."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=ENDING)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    async def _deliver(self, hook: Webhook, kind: str, data: Mapping[str, object]) -> None:
        import httpx  # noqa: PLC0415 - a tenth of a second at start, and most gateways tell nobody

        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        body = json.dumps({"type": kind, "timestamp": now, "data": data}).encode()
        name = f"msg_{secrets.token_hex(12)}"
        tries = AsyncRetrying(
            retry=retry_if_exception_type(httpx.HTTPError),
            wait=wait_random_exponential(FIRST_WAIT, LONGEST_WAIT),
            stop=stop_after_attempt(TRIES),
        )
        try:
            async for attempt in tries:
                with attempt:
                    await self._send(hook, name, body)
        except RetryError as error:
            log.error("webhooks: %s was not delivered: %s", kind, _reason(error.last_attempt.exception()))
        except asyncio.CancelledError:
            log.error("webhooks: %s was not delivered before the gateway ended", kind)
            raise

    async def _send(self, hook: Webhook, name: str, body: bytes) -> None:
        import httpx  # noqa: PLC0415 - as above

        if self._client is None:
            self._client = httpx.AsyncClient(timeout=SECONDS, follow_redirects=False)
        at = str(int(time.time()))
        headers = {"content-type": "application/json", "webhook-id": name, "webhook-timestamp": at}
        if hook.secret:
            headers["webhook-signature"] = sign(hook.secret, name, at, body)
        answer = await self._client.post(hook.url, content=body, headers=headers)
        if not answer.is_success:
            raise httpx.HTTPStatusError(f"{answer.status_code}", request=answer.request, response=answer)


def sign(secret: str, name: str, at: str, body: bytes) -> str:
    """`secret`: as Standard Webhooks writes it, `whsec_` and base64; any other text is taken as it stands."""
    key = secret.encode()
    if secret.startswith("whsec_"):
        try:
            key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except binascii.Error:
            key = secret.encode()
    digest = hmac.new(key, b".".join((name.encode(), at.encode(), body)), hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def _told(event: Event) -> tuple[str, dict[str, object]] | None:
    """The kind of an event that webhooks are about, and what is told of it."""
    if isinstance(event, BudgetCrossed):
        data = event._asdict()
        settled, limit = data.pop("settled_nano"), data.pop("limit_nano")
        return "budget_threshold", {**data, "settled_usd": settled / NANO_PER_USD, "limit_usd": limit / NANO_PER_USD}
    if isinstance(event, BreakerChanged) and event.state == Phase.OPEN:
        return "breaker_opened", {"model": event.model, "endpoint": event.endpoint, "reason": event.reason}
    if isinstance(event, ConfigReloaded) and event.result == "rejected":
        return "config_rejected", {"in_force": event.hash}
    return None


def _reason(error: BaseException | None) -> str:
    """Without the address, which may hold a secret (Slack's do)."""
    answer = getattr(error, "response", None)
    return type(error).__name__ if answer is None else f"answered {answer.status_code}"
