"""The invariant of contract section 5, to the nano-dollar: what an upstream billed = the ledger = the counters."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests import replies
from tests.replies import Tokens
from tests.servers import Gateway, until
from tests.upstream import Billed, Received, Reply, Step, Upstream

from .conftest import ROUTES, SECRET

# Nano-USD a token, as the prices in ROUTES: USD 1 per million tokens is 1,000.
RATES = {"a": Billed("a", 1000, 100, 1000, 2000, 4000), "b": Billed("b", 3000, 3000, 3000, 6000, 6000)}
TYPES = ("input", "cached_input", "cache_write", "output", "reasoning")
REQUESTS = 300


def nano(billed: Billed) -> int:
    rates = RATES[billed.model]
    return sum(getattr(billed, kind) * getattr(rates, kind) for kind in TYPES)


def mixed(seed: int) -> Reply:
    """Good answers of all sorts and failures that cost nothing, from a fixed dice."""
    dice = random.Random(seed)  # noqa: S311 - repeatable traffic, not a secret

    def reply(received: Received) -> Iterator[Step]:
        if dice.random() < 0.15:
            yield from dice.choice([replies.status(500), replies.rate_limited("0"), replies.status(401)])(received)
            return
        tokens = Tokens(dice.randrange(1, 900), dice.randrange(0, 400), dice.randrange(1, 300), dice.randrange(0, 90))
        place = dice.choice(["end", "choice", "finish", "zero"] if received.stream else ["end", "zero"])
        yield from replies.ok("So it is.", tokens=tokens, usage=place)(received)  # type: ignore[arg-type]  # one of its words

    return reply


def traffic(gateway: Gateway) -> list[httpx.Response]:
    dice = random.Random(7)  # noqa: S311 - as above

    def one(index: int) -> httpx.Response:
        model = ("pair", "again", "a", "b", "auto")[index % 5]
        path = ("/v1/chat/completions", "/v1/chat/completions", "/v1/completions", "/v1/embeddings")[index % 4]
        body: dict[str, object] = {
            "model": model,
            "prompt": "x",
            "input": "x",
            "messages": [{"role": "user", "content": "x"}],
        }
        if "embeddings" not in path and stream[index]:
            body["stream"] = True
        return gateway.post(path, json=body)

    stream = [dice.random() < 0.5 for _ in range(REQUESTS)]
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(one, range(REQUESTS)))


@pytest.mark.parametrize("args", [[], ["--workers", "2"]], ids=["one process", "two workers"])
def test_billed_equals_ledger_equals_counters(tmp_path: Path, args: list[str]) -> None:
    with Upstream(replies.ok()) as upstream:
        routes = ROUTES.replace("@BASE@", upstream.base_url).replace("@DEAD@", "9")
        upstream.always("a-up", mixed(1))
        upstream.always("b-up", mixed(2))
        with Gateway(tmp_path, routes, env={"UP_KEY": SECRET}, args=args) as gateway:
            answers = traffic(gateway)
            rows = gateway.wait_rows(REQUESTS)
            attempts = gateway.rows("SELECT * FROM attempts")
            until("all counted", lambda: gateway.metric("gateway_requests_total") == REQUESTS)
            counters = gateway.samples()
    billed = [entry._replace(model=entry.model.removesuffix("-up")) for entry in upstream.billed]

    assert len(rows) == REQUESTS
    assert len(billed) > REQUESTS / 2
    assert sorted(row["status"] for row in rows) == sorted(answer.status_code for answer in answers)
    expected = Counter[tuple[str, str]]()
    for entry in billed:
        expected.update({(entry.model, kind): getattr(entry, kind) for kind in TYPES})
        expected.update({(entry.model, "nano"): nano(entry)})

    ledger = Counter[tuple[str, str]]()
    for row in attempts:
        ledger.update({(row["model"], kind): row[f"{kind}_tokens"] for kind in TYPES})
        ledger.update({(row["model"], "nano"): row["cost_nano"]})
    assert +ledger == +expected
    assert sum(row["cost_nano"] for row in rows) == sum(map(nano, billed))

    counted = Counter[tuple[str, str]]()
    for sample in counters:
        if sample.name == "gateway_tokens_total":
            counted[sample.labels["model"], sample.labels["type"]] += int(sample.value)
        elif sample.name == "gateway_cost_usd_total":
            counted[sample.labels["model"], "nano"] += round(sample.value * 1e9)
    assert +counted == +expected


def test_baseline_and_saving(tmp_path: Path) -> None:
    """Contract section 5: input and visible output at the baseline's prices, reasoning left out."""
    with Upstream(replies.ok()) as upstream:
        routes = ROUTES.replace("@BASE@", upstream.base_url).replace("@DEAD@", "9")
        upstream.always("a-up", replies.ok(tokens=Tokens(100, 20, 30, 40)))
        with Gateway(tmp_path, routes, env={"UP_KEY": SECRET}) as gateway:
            gateway.chat("auto")
            row = gateway.wait_rows(1)[0]
            cost = 100 * 1000 + 20 * 100 + 30 * 2000 + 40 * 4000
            baseline = 120 * 10_000 + 30 * 30_000  # `closed` has no cached price of its own: the input price
            assert (row["cost_nano"], row["baseline_nano"], row["baseline_model"]) == (cost, baseline, "closed")
            saved = until("the counter", lambda: gateway.metric("gateway_savings_usd_total", route="default"))
            assert round(saved * 1e9) == baseline - cost
            assert round(gateway.metric("gateway_baseline_cost_usd_total") * 1e9) == baseline


def test_usage_that_is_missing_is_estimated_and_marked(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script("a-up", replies.ok("word " * 40, usage="absent"))
    before = len(gateway.rows())
    gateway.chat("a", stream=True)
    row = gateway.wait_rows(before + 1)[-1]
    assert row["usage_estimated"] == 1
    assert 20 <= row["output_tokens"] <= 120
    until("the counter", lambda: gateway.metric("gateway_usage_estimated_total", model="a") == 1)


def test_an_explicit_zero_is_no_estimate(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script("a-up", replies.ok(usage="zero"))
    before = len(gateway.rows())
    gateway.chat("a")
    row = gateway.wait_rows(before + 1)[-1]
    assert (row["usage_estimated"], row["input_tokens"], row["output_tokens"], row["cost_nano"]) == (0, 0, 0, 0)
