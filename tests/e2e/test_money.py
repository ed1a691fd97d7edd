"""The invariant of contract section 5, to the nano-dollar: what an upstream billed = the ledger = the counters."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests import replies
from tests.replies import Tokens
from tests.servers import Gateway, until
from tests.upstream import STALL, Billed, Received, Reply, Step, Upstream

from .conftest import ROUTES, SECRET

# Nano-USD a token, as the prices in ROUTES and MORE: USD 1 per million tokens is 1,000.
RATES = {"a": Billed("a", 1000, 100, 1000, 2000, 4000), "b": Billed("b", 3000, 3000, 3000, 6000, 6000)}
RATES |= {name: Billed(name, 7000, 7000, 7000, 11000, 11000) for name in ("first", "second")}
RATES |= {name: Billed(name, 500, 500, 500, 900, 900) for name in ("silent", "endless", "breaks", "goes-on")}
MORE = """
  - {name: hedged, match: {model: hedged}, use: [first], fallback: [second], retries: 0, hedge: {after: 50ms}, timeout: {attempt: 3s}}
  - {name: continued, match: {model: continued}, use: [breaks], fallback: [goes-on], retries: 0, mid_stream: continue}
"""  # noqa: E501 - a line a route
TYPES = ("input", "cached_input", "cache_write", "output", "reasoning")
REQUESTS = 300
PATHS = ("chat/completions", "messages", "completions", "embeddings", "chat/completions", "messages", "responses")
OTHERS = 24  # of each kind whose bill is an estimate
HEDGED = 160

PROMPT = "x"  # one token, by the rule for what nobody reported: a token for each four characters begun
SAID = "word0 word1 "


def nano(billed: Billed) -> int:
    rates = RATES[billed.model]
    return sum(getattr(billed, kind) * getattr(rates, kind) for kind in TYPES)


def estimated(received: Received, said: str) -> Billed:
    """An upstream that charges by the rule of contract section 3: estimated input and the output seen."""
    return Billed(received.model, input=-(-len(PROMPT) // 4), output=-(-len(said) // 4))


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


def silent(received: Received) -> Iterator[Step]:
    """A good stream that never says what it used."""
    yield estimated(received, SAID)
    yield from (step for step in replies.ok(SAID, usage="absent")(received) if not isinstance(step, Billed))


def says_then(ending: Step) -> Reply:
    def reply(received: Received) -> Iterator[Step]:
        yield estimated(received, SAID)
        yield from replies.words_then([ending], words=2)(received)

    return reply


def often_broken(received: Received) -> Iterator[Step]:
    """One stream in four ends in the middle: fewer than open its breaker."""
    breaks = received.json["user"] % 4 == 3
    yield from (says_then(replies.END) if breaks else replies.ok(tokens=Tokens(9, 3, 7, 2)))(received)


def sometimes_slow(received: Received) -> Iterator[Step]:
    """One in forty embeddings does not come at all. Whoever loses a race has read one token, and charges it."""
    if received.json["user"] % 40 == 39:
        yield Billed(received.model, input=1)
        yield STALL
    yield from replies.ok(tokens=Tokens(1))(received)


def traffic(gateway: Gateway) -> list[int]:
    """The statuses that clients saw."""
    dice = random.Random(7)  # noqa: S311 - as above

    def one(index: int) -> int:
        model = ("pair", "again", "a", "b", "auto")[index % 5]
        path = "/v1/" + PATHS[index % 7]  # seven and five have no factor in common: every model sees every path
        body: dict[str, object] = {"model": model, "prompt": PROMPT, "input": PROMPT, **chat()}
        if "responses" in path:
            body = {"model": model, "input": PROMPT}
        if "embeddings" not in path and stream[index]:
            body["stream"] = True
        return gateway.post(path, json=body).status_code

    def hedged(index: int) -> int:
        return gateway.post("/v1/embeddings", json={"model": "hedged", "input": PROMPT, "user": index}).status_code

    def streamed(index: int) -> int:
        model = ("silent", "continued")[index % 2]
        answer = gateway.post(json={"model": model, "stream": True, "user": index // 2, **chat()})
        assert "error" not in answer.text
        return answer.status_code

    def left(_: int) -> int:
        """Reads all there is, which is no whole answer, and goes."""
        body = {"model": "endless", "stream": True, **chat()}
        with gateway.client.stream("POST", "/v1/chat/completions", json=body) as answer:
            seen = ""
            for text in answer.iter_text():
                seen += text
                if "word1" in seen:
                    return answer.status_code
        raise AssertionError("the answer ended")

    stream = [dice.random() < 0.5 for _ in range(REQUESTS)]
    with ThreadPoolExecutor(8) as pool:
        kinds = [
            pool.map(one, range(REQUESTS)),
            pool.map(hedged, range(HEDGED)),
            pool.map(left, range(OTHERS)),
            pool.map(streamed, range(2 * OTHERS)),
        ]
        return [status for kind in kinds for status in kind]


def chat() -> dict[str, object]:
    return {"messages": [{"role": "user", "content": PROMPT}]}


def priced(base: str) -> str:
    """ROUTES, and what it takes for every kind of bill."""
    price = "price: {input: 0.5, output: 0.9}"
    models = "".join(f"  {name}: {{provider: up, model: {name}-up, price: {{input: 7, output: 11}}}}\n"
                     for name in ("first", "second"))  # fmt: skip
    models += "".join(f"  {name}: {{provider: up, model: {name}-up, {price}, supports: [prefill]}}\n"
                      for name in ("silent", "endless", "breaks", "goes-on"))  # fmt: skip
    return ROUTES.replace("tasks:", f"{models}tasks:").replace("@BASE@", base).replace("@DEAD@", "9") + MORE


@pytest.mark.parametrize("args", [[], ["--workers", "4"]], ids=["one process", "four workers"])
def test_billed_equals_ledger_equals_counters(tmp_path: Path, args: list[str]) -> None:
    """Streams, retries, fallbacks, races, broken and continued answers, clients that leave, usage nobody reports."""
    total = REQUESTS + HEDGED + 3 * OTHERS
    with Upstream(replies.ok()) as upstream:
        for model, reply in (("a", mixed(1)), ("b", mixed(2)), ("silent", silent), ("endless", says_then(STALL)),
                             ("breaks", often_broken), ("first", sometimes_slow),
                             ("second", replies.ok(tokens=Tokens(1)))):  # fmt: skip
            upstream.always(f"{model}-up", reply)
        with Gateway(tmp_path, priced(upstream.base_url), env={"UP_KEY": SECRET}, args=args) as gateway:
            statuses = traffic(gateway)
            rows = gateway.wait_rows(total, 30)
            attempts = gateway.rows("SELECT * FROM attempts")
            until("all counted", lambda: gateway.metric("gateway_requests_total") == total)
            counters = gateway.samples()
    billed = [entry._replace(model=entry.model.removesuffix("-up")) for entry in upstream.billed]

    assert len(rows) == total
    assert sorted(row["status"] for row in rows) == sorted(statuses)
    everything_happened(rows, attempts)
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


def everything_happened(rows: list[dict[str, Any]], attempts: list[dict[str, Any]]) -> None:
    """The sums below prove little where the traffic was not what it is meant to be."""
    outcomes = Counter(row["outcome"] for row in rows)
    assert outcomes["cancelled"] == OTHERS
    assert outcomes["ok"] > REQUESTS / 2 + HEDGED + 2 * OTHERS
    assert len([row for row in rows if row["fallback_reason"] and row["stream"]]) > OTHERS / 4
    purposes = Counter(attempt["purpose"] for attempt in attempts)
    assert purposes["hedge"] >= 1
    assert purposes["retry"] > 10
    reasons = Counter(attempt["reason"] for attempt in attempts)
    assert reasons["retry"] >= 1
    assert reasons["stream_cut"] >= 2
    assert len([attempt for attempt in attempts if attempt["usage_estimated"]]) > 2 * OTHERS


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


def saying(text: str, usage: dict[str, object]) -> Reply:
    """A good answer with this usage."""

    def reply(received: Received) -> Iterator[Step]:
        if received.stream:
            yield replies.stream_head() + replies.chunk(received, {"content": text}, "stop", usage=usage)
            yield replies.DONE + replies.END
        else:
            yield replies.http(200, json.dumps(replies.body_of(received, text, usage, {})).encode())

    return reply


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_half_that_is_missing_is_estimated_and_marked(gateway: Gateway, upstream: Upstream, *, stream: bool) -> None:
    """A count that is none (null, negative, half a token) says nothing: it is not 0."""
    said: list[tuple[dict[str, object], range, range]] = [
        ({"prompt_tokens": 1000, "completion_tokens": None}, range(1000, 1001), range(20, 120)),
        ({"prompt_tokens": 1000, "completion_tokens": -7}, range(1000, 1001), range(20, 120)),
        ({"prompt_tokens": 0.5, "completion_tokens": 900}, range(1, 100), range(900, 901)),
    ]
    before = len(gateway.rows())
    for usage, _, _ in said:
        upstream.script("a-up", saying("word " * 40, usage))
        asked: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        answer = gateway.chat("a", **asked)
        assert ('"cost"' in answer.text) is not stream  # the cost in a stream's event would be that of a half
    rows = gateway.wait_rows(before + len(said))[before:]
    for row, (_, read, written) in zip(rows, said, strict=True):
        assert row["usage_estimated"] == 1
        assert row["input_tokens"] in read
        assert row["output_tokens"] in written
        assert row["cost_nano"] == row["input_tokens"] * 1000 + row["output_tokens"] * 2000


def test_an_explicit_zero_is_no_estimate(gateway: Gateway, upstream: Upstream) -> None:
    upstream.script("a-up", replies.ok(usage="zero"))
    before = len(gateway.rows())
    gateway.chat("a")
    row = gateway.wait_rows(before + 1)[-1]
    assert (row["usage_estimated"], row["input_tokens"], row["output_tokens"], row["cost_nano"]) == (0, 0, 0, 0)
