"""Thousands of requests while a fifth of all upstream answers is bad: nothing is lost, counted twice, or left over.

.venv/bin/python -m pytest tests/full/test_soak.py -m full -s      20,000 requests; prints its figures
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import replies
from tests.full.load import Ask, Got, descriptors, play, resident_mb
from tests.replies import DONE, END, Tokens, words_then
from tests.servers import Gateway, until
from tests.upstream import CUT, Received, Reply, Step, Upstream

CLIENTS = 50
FAULTS = 0.25  # chance of a bad answer; with the next line a fifth of all
IN_A_ROW = 1  # bad answers of a model: five would open its breaker, and most requests would be refused at once
LEAVING = 0.1  # of the clients
ROUTES = """
version: 1
providers:
  up: {base_url: "@BASE@"}
models:
  a: {provider: up, price: {input: 1, output: 2}, supports: [prefill]}
  b: {provider: up, price: {input: 3, output: 4}, supports: [prefill]}
  c: {provider: up, price: {input: 5, output: 6}, supports: [prefill]}
  closed: {provider: up, price: {input: 10, output: 30}}
defaults:
  timeout: {connect: 1s, attempt: 300ms, first_token: 300ms, idle: 300ms, total: 5s}
  baseline: closed
routes:
  - {name: pair, match: {model: pair}, use: [a], fallback: [b], retries: 0}
  - {name: again, match: {model: again}, use: [b], fallback: [c], retries: 1}
  - {name: three, match: {model: three}, use: [a, b, c], order: weighted, retries: 1, max_attempts: 5}
  - {name: only, match: {model: only}, use: [c], retries: 1}
  - {name: goes-on, match: {model: goes-on}, use: [a], fallback: [b, c], retries: 0, mid_stream: continue}
  - {name: hedged, match: {model: hedged}, use: [a], fallback: [b], retries: 0, hedge: {after: 100ms}}
"""
NAMES = ("pair", "again", "three", "only", "goes-on", "hedged", "a")
BAD: tuple[tuple[Reply, int], ...] = (  # and how often, relative to each other
    (replies.status(500), 6),
    (replies.status(503), 3),
    (replies.rate_limited("0"), 2),
    (replies.reset(), 4),
    (replies.error_in_200(), 4),
    (replies.html_in_200(), 2),
    (replies.truncated(), 4),
    (replies.empty(), 2),
    (replies.no_choices(), 2),
    (replies.context_too_long(), 1),
    (replies.hang(), 1),
)
BAD_STREAMS: tuple[tuple[Reply, int], ...] = (
    *BAD,
    (words_then([CUT]), 8),
    (words_then([END]), 4),
    (replies.error_after(2), 4),
    (words_then([replies.event(replies.ERROR) + DONE + END]), 2),
)


def mixed(seed: int) -> Reply:
    dice = random.Random(seed)  # noqa: S311 - repeatable traffic, not a secret
    in_a_row = Counter[str]()

    def reply(received: Received) -> Iterator[Step]:
        bad = dice.random() < FAULTS and in_a_row[received.model] < IN_A_ROW
        in_a_row[received.model] = in_a_row[received.model] + 1 if bad else 0
        if bad:
            choices, weights = zip(*(BAD_STREAMS if received.stream else BAD), strict=True)
            yield from dice.choices(choices, weights)[0](received)
            return
        tokens = Tokens(dice.randrange(1, 900), dice.randrange(0, 400), dice.randrange(1, 300), dice.randrange(0, 90))
        pause = dice.choice((0.0, 0.0, 0.0, 0.005))
        yield from replies.ok("So it is, and so it was.", tokens=tokens, pause=pause)(received)

    return reply


def requests(count: int) -> list[Ask]:
    dice = random.Random(3)  # noqa: S311 - as above
    return [
        Ask(
            f"soak-{index}",
            dice.choice(NAMES),
            dice.random() < 0.5,
            leave_after=dice.uniform(0.001, 0.03) if dice.random() < LEAVING else None,
        )
        for index in range(count)
    ]


class Watch:
    """Memory on the way, at these counts of answers."""

    def __init__(self, pid: int, at: set[int]) -> None:
        self.resident: dict[int, float] = {}
        self._pid = pid
        self._at = at

    async def seen(self, count: int) -> None:
        if count in self._at:
            self.resident[count] = resident_mb(self._pid)


def soak(directory: Path, count: int) -> tuple[dict[int, float], float]:
    """Everything that must hold after `count` requests; returns memory by the number of answers, and the seconds."""
    with (
        Upstream(mixed(1)) as upstream,
        Gateway(directory, ROUTES.replace("@BASE@", upstream.base_url)) as gateway,
    ):
        before = fewest(gateway, upstream)
        watch = Watch(gateway.pid, {count // 4, count})
        began = time.monotonic()
        got = asyncio.run(play(gateway.port, requests(count), CLIENTS, watch.seen))
        took = time.monotonic() - began
        check_answers(got, count)
        rows = gateway.wait_rows(count, 30)
        until("every request counted", lambda: gateway.metric("gateway_requests_total") == count, 20)
        check_ledger(gateway, rows, got)
        until("nothing left in flight", lambda: gateway.metric("gateway_requests_in_flight") == 0)
        until("no descriptor left over", lambda: held(gateway, upstream) <= before, 20)
        assert upstream.open_connections <= CLIENTS * 2
        stopping = time.monotonic()
        assert gateway.stop() == 0
        assert time.monotonic() - stopping < 5  # a call that was left over would hold it for the drain's 30 s
        results = Counter(row["result"] for row in gateway.rows("SELECT result FROM attempts"))
        bad = 1 - (results["ok"] + results["cancelled"]) / results.total()
        assert bad > FAULTS * 0.6  # a slow machine adds timeouts
        report(rows, took, bad, watch.resident)
        return watch.resident, took


def held(gateway: Gateway, upstream: Upstream) -> int:
    """Descriptors of the gateway that are not kept connections to the upstream.

    Nor the database file's own: when a connection to it is closed, SQLite keeps the descriptor for the next one as long
    as others of the process are open (closing it would drop their locks: sqlite.org/howtocorrupt, 2.2). So there are as
    many as were ever open at once. A connection that was forgotten shows by its descriptor of the write-ahead log.
    """
    database = str(gateway.directory / "gateway.db")
    return sum(to != database for to in descriptors(gateway.pid)) - upstream.open_connections


def fewest(gateway: Gateway, upstream: Upstream) -> int:
    """Within a time in which whatever looks at the store now and then was seen without it."""
    gateway.client.close()
    ends = time.monotonic() + 2
    least = held(gateway, upstream)
    while time.monotonic() < ends:
        time.sleep(0.02)
        least = min(least, held(gateway, upstream))
    return least


def check_answers(got: list[Got], count: int) -> None:
    assert len(got) == count
    assert [each for each in got if each.broken] == []
    for each in got:
        if not each.left:
            assert each.status in (200, 400, 502, 503, 504), each
            assert each.status != 200 or each.whole or each.error_event, each


def check_ledger(gateway: Gateway, rows: list[dict[str, object]], got: list[Got]) -> None:
    assert len(rows) == len(got)
    assert {row["client_request_id"] for row in rows} == {each.ask.id for each in got}
    by_id = {row["client_request_id"]: row for row in rows}
    for each in got:
        if not each.left:
            assert by_id[each.ask.id]["status"] == each.status
            assert (by_id[each.ask.id]["outcome"] == "ok") == each.whole, each
    attempts = gateway.rows("SELECT * FROM attempts")
    samples = gateway.samples()
    counted = Counter[str]()
    for sample in samples:
        name, labels = sample.name, sample.labels
        if name == "gateway_requests_total":
            counted[f"outcome {labels['outcome']}"] += int(sample.value)
        elif name == "gateway_attempts_total":
            counted[f"attempt {labels['model']} {labels['result']}"] += int(sample.value)
        elif name == "gateway_tokens_total":
            counted[f"tokens {labels['model']} {labels['type']}"] += int(sample.value)
        elif name == "gateway_cost_usd_total":
            counted[f"nano-USD {labels['model']}"] += round(sample.value * 1e9)
    ledger = Counter[str](f"outcome {row['outcome']}" for row in rows)
    for attempt in attempts:
        ledger[f"attempt {attempt['model']} {attempt['result']}"] += 1
        ledger[f"nano-USD {attempt['model']}"] += attempt["cost_nano"]
        for kind in ("input", "cached_input", "cache_write", "output", "reasoning"):
            ledger[f"tokens {attempt['model']} {kind}"] += attempt[f"{kind}_tokens"]
    assert +counted == +ledger


def report(rows: list[dict[str, object]], took: float, bad: float, resident: dict[int, float]) -> None:
    count = len(rows)
    outcomes = ", ".join(f"{name} {number}" for name, number in Counter(row["outcome"] for row in rows).most_common())
    memory = ", ".join(f"{mb:.1f} MB after {at}" for at, mb in sorted(resident.items()))
    speed = f"in {took:.1f} s ({count / took:.0f}/s)"
    print(f"\nsoak: {count} requests {speed}, {bad:.0%} of the attempts bad; {outcomes}; resident {memory}")


def test_a_short_soak(tmp_path: Path) -> None:
    soak(tmp_path, 2000)


@pytest.mark.full
def test_twenty_thousand_requests(tmp_path: Path) -> None:
    resident, _ = soak(tmp_path, 20_000)
    early, late = resident[5000], resident[20_000]
    assert late < 1.1 * early
