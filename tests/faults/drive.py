"""Plays the failure table on real gateways, one for each mode: every row under each policy, all at once.

Each play has a route and a model of its own, so that a breaker or a rest that one of them causes concerns no other.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from gateway.core.failures import Kind
from tests import replies
from tests.faults.faulty import Port, faulty_ports
from tests.faults.table import ROWS, Mode, Row, Seen
from tests.servers import Gateway, Sample, until
from tests.upstream import Upstream

ROUTES = """
version: 1
providers:
  up: {base_url: "@BASE@"}
  @PORTS@
models:
  spare: {provider: up, model: spare, price: {input: 1, output: 1}, supports: [prefill]}
  @MODELS@
defaults:
  timeout: {connect: 1500ms, attempt: 10s, first_token: 10s, idle: 10s, total: 60s}
  retries: 0
routes:
  @ROUTES@
"""
SOON = ", timeout: {attempt: 2500ms, first_token: 2500ms, idle: 2500ms}"  # of plays in which somebody stalls
NANO_INPUT, NANO_OUTPUT = 1000, 2000  # nano-USD a token of the models that fail
PLAYERS = 8
LARGE = "x" * 8_000_000  # more than the buffers of two sockets hold


class Policy(Enum):
    """What the route says, or the client."""

    FALLBACK = "retries: 0"
    RETRY = "retries: 1"
    KIND_OFF = "fallback_on without the kind"
    NO_FALLBACK = "x-gateway-no-fallback"
    CONTINUE = "mid_stream: continue"


class Play(NamedTuple):
    number: int
    row: Row
    policy: Policy

    @property
    def name(self) -> str:
        return f"r{self.number}-{self.policy.name.lower().replace('_', '-')}"

    def __str__(self) -> str:
        row = self.row
        words = (row.kind, row.phase.value, row.mode.value, row.what, self.policy.value)
        return ": ".join(words).replace(" ", "-")


BEFORE_CONTENT = (Policy.FALLBACK, Policy.RETRY, Policy.KIND_OFF, Policy.NO_FALLBACK)
AFTER_CONTENT = (Policy.FALLBACK, Policy.RETRY, Policy.CONTINUE)
PLAYS = tuple(
    Play(number, row, policy)
    for number, row in enumerate(ROWS)
    for policy in (BEFORE_CONTENT if row.seen is Seen.FALLBACK else AFTER_CONTENT)
)


class Event(NamedTuple):
    """One server-sent event as a client reads it."""

    name: str
    data: str

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.data))


class Outcome(NamedTuple):
    """What was seen of a play: by the client, in the ledger, at the upstream."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    events: tuple[Event, ...]
    broken: str  # the transport error that the client saw; none is ever right
    rows: tuple[dict[str, Any], ...]
    attempts: tuple[dict[str, Any], ...]
    calls: int  # requests that reached the upstream whole, for the model that fails

    @property
    def text(self) -> str:
        if not self.events:
            message = json.loads(self.body)["choices"][0]["message"]
            return message["content"] or ""
        chunks = [event.json for event in self.events if event.data != "[DONE]"]
        deltas = [choice["delta"] for chunk in chunks for choice in chunk.get("choices", ())]
        return "".join(delta.get("content") or "" for delta in deltas)

    @property
    def errors(self) -> list[dict[str, Any]]:
        """Error events."""
        return [e.json for e in self.events if e.data != "[DONE]" and (e.name == "error" or "error" in e.json)]

    @property
    def done(self) -> int:
        return sum(event.data == "[DONE]" for event in self.events)


def read_events(body: bytes) -> Iterator[Event]:
    for block in body.decode().split("\n\n"):
        name, data = "", []
        for line in block.split("\n"):
            field, _, value = line.partition(": ")
            name = value if field == "event" else name
            data += [value] if field == "data" else []
        if data:
            yield Event(name, "\n".join(data))


def play_all(directory: Path, mode: Mode) -> tuple[dict[Play, Outcome], list[Sample]]:
    """Every play of a mode, and the gateway's metrics after the last."""
    plays = [play for play in PLAYS if play.row.mode is mode]
    with Upstream(replies.ok()) as upstream, faulty_ports() as ports:
        for play in plays:
            if not isinstance(play.row.how, Port):
                upstream.script(play.name, play.row.how)
        with Gateway(directory, _routes(plays, upstream.base_url, ports)) as gateway:
            with ThreadPoolExecutor(PLAYERS) as pool:
                answers = list(pool.map(lambda play: _ask(gateway, play), plays))
            gateway.wait_rows(len(plays))
            until("every request counted", lambda: gateway.metric("gateway_requests_total") == len(plays))
            samples = gateway.samples()
            rows, attempts = gateway.rows(), gateway.rows("SELECT * FROM attempts ORDER BY request_id, number")
        calls = Counter(request.model for request in upstream.requests)
        outcomes: dict[Play, Outcome] = {}
        for play, answer in zip(plays, answers, strict=True):
            own = tuple(row for row in rows if row["client_request_id"] == play.name)
            tried = tuple(a for a in attempts if a["request_id"] in {row["id"] for row in own})
            outcomes[play] = answer._replace(rows=own, attempts=tried, calls=calls[play.name])
    return outcomes, samples


def _routes(plays: list[Play], base_url: str, ports: Mapping[Port, str]) -> str:
    models, routes = [], []
    for play in plays:
        how = play.row.how
        provider = how.name.lower() if isinstance(how, Port) else "up"
        models.append(f"{play.name}: {{provider: {provider}, model: {play.name}, price: {{input: 1, output: 2}}}}")
        on = [kind.value for kind in Kind if play.policy is not Policy.KIND_OFF or kind is not play.row.kind]
        more = {Policy.RETRY: ", retries: 1", Policy.CONTINUE: ", mid_stream: continue"}.get(play.policy, "")
        if play.row.kind is Kind.TIMEOUT:
            more += SOON
        routes.append(
            f"- {{name: {play.name}, match: {{model: ask-{play.name}}}, use: [{play.name}], fallback: [spare], "
            f"fallback_on: [{', '.join(on)}]{more}}}"
        )
    providers = [f'{port.name.lower()}: {{base_url: "{url}"}}' for port, url in ports.items()]
    text = ROUTES.replace("@BASE@", base_url)
    for place, lines in (("@PORTS@", providers), ("@MODELS@", models), ("@ROUTES@", routes)):
        text = text.replace(place, "\n  ".join(lines))
    return text


def _ask(gateway: Gateway, play: Play) -> Outcome:
    large = isinstance(play.row.how, Port) and play.row.how.large
    headers = {"x-request-id": play.name}
    if play.policy is Policy.NO_FALLBACK:
        headers["x-gateway-no-fallback"] = "true"
    body = {
        "model": f"ask-{play.name}",
        "stream": play.row.mode is Mode.STREAM,
        "messages": [{"role": "user", "content": LARGE if large else "Say hello."}],
    }
    status, seen, answer, broken = 0, httpx.Headers(), b"", ""
    with contextlib.ExitStack() as stack:
        try:
            response = stack.enter_context(
                gateway.client.stream("POST", "/v1/chat/completions", json=body, headers=headers)
            )
            status, seen = response.status_code, response.headers
            for piece in response.iter_bytes():
                answer += piece
        except httpx.TransportError as error:
            broken = repr(error)
    streamed = "text/event-stream" in seen.get("content-type", "")
    return Outcome(status, seen, answer, tuple(read_events(answer)) if streamed else (), broken, (), (), 0)
