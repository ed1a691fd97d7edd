"""Records: one plain example, and every one that Hypothesis can think of."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from hypothesis import strategies as st

from gateway.core.failures import Kind
from gateway.core.record import NO_ATTEMPT_STAGES, NO_STAGES, AttemptRecord, Record
from gateway.core.usage import More, Usage
from gateway.stores.sqlite import SqliteLedger

USAGE = Usage(input=100, cached_input=20, cache_write=3, output=50, reasoning=7)
ATTEMPT = AttemptRecord(
    model="qwen",
    provider="vllm",
    hosting="self",
    purpose="answer",
    reason="first",
    result="ok",
    status=200,
    started=0.001,
    duration=0.5,
    first_token=0.125,
    usage=USAGE,
    price_source="routes.yaml",
    cost_nano=1234,
)


def record(id: str, *attempts: AttemptRecord) -> Record:
    """An ordinary request, answered by the last of its attempts."""
    tried = attempts or (ATTEMPT,)
    return Record(
        id=id,
        client_request_id="",
        started=1_790_000_000.25,
        key="ci",
        team="platform",
        user="",
        tags=("a", "b"),
        endpoint="/chat/completions",
        requested_model="auto",
        stream=True,
        route="support",
        task="support",
        task_why="header x-gateway-task",
        model=tried[-1].model,
        provider=tried[-1].provider,
        hosting=tried[-1].hosting,
        outcome="ok",
        rejection="",
        status=200,
        fallback_reason="",
        usage=tried[-1].usage,
        cost_nano=sum(attempt.cost_nano for attempt in tried),
        baseline_nano=5000,
        baseline_model="gpt",
        unpriced=False,
        duration=0.6,
        first_token=0.126,
        overhead=0.0004,
        has=("tools",),
        estimated_input=120,
        max_output=None,
        lines_dropped=0,
        config_hash="0123456789ab",
        attempts=tried,
    )


texts = st.text(max_size=8)
names = st.sampled_from(["", "qwen", "gpt", "support", "default", "direct", "vllm", "openai", "platform", "made-up"])
tokens = st.integers(0, 2_000_000)
nano = st.integers(0, 10**13)  # up to 10,000 USD a request
seconds = st.floats(0, 700, allow_subnormal=False)
mores = st.builds(More, st.sampled_from(["", "flex", "priority"]), *[tokens] * 11).filter(any)
usages = st.builds(Usage, tokens, tokens, tokens, tokens, tokens, st.booleans(), st.none() | mores)
attempts = st.builds(
    AttemptRecord,
    model=names,
    provider=names,
    hosting=st.sampled_from(["self", "api"]),
    purpose=st.sampled_from(["answer", "retry"]),
    reason=st.sampled_from(["first", "retry", "hedge", *Kind]),
    result=st.sampled_from(["ok", "relayed", "cancelled", *Kind]),
    status=st.sampled_from([0, 200, 400, 503]),
    started=seconds,
    duration=seconds,
    first_token=st.none() | seconds,
    usage=usages,
    price_source=texts,
    cost_nano=nano,
    reserved_nano=st.none() | nano,
    retry_after=st.none() | seconds,
    upstream_request_id=texts,
    detail=texts,
    **{name: st.just("") for name in ("span_id", "upstream_model", "response_model", "finish")},  # nor these
    stages=st.just(NO_ATTEMPT_STAGES),
)


def _with_its_cost(made: Record) -> Record:
    return made._replace(cost_nano=sum(attempt.cost_nano for attempt in made.attempts))


records = st.builds(
    Record,
    id=st.uuids().map(str),
    client_request_id=texts,
    started=st.integers(10**15, 4 * 10**15).map(lambda micros: micros / 1e6),
    key=texts,
    team=names,
    user=texts,
    tags=st.lists(texts, max_size=3).map(tuple),
    endpoint=texts,
    requested_model=texts,
    stream=st.booleans(),
    route=names,
    task=names,
    task_why=texts,
    model=names,
    provider=names,
    hosting=st.sampled_from(["", "self", "api"]),
    outcome=st.sampled_from(["ok", "client_error", "rejected", "upstream_error", "cancelled"]),
    rejection=st.sampled_from(["", "auth", "budget"]),
    status=st.integers(200, 599),
    fallback_reason=texts,
    usage=usages,
    cost_nano=nano,
    baseline_nano=nano,
    baseline_model=names,
    unpriced=st.booleans(),
    duration=seconds,
    first_token=st.none() | seconds,
    overhead=seconds,
    has=st.lists(texts, max_size=2).map(tuple),
    estimated_input=tokens,
    max_output=st.none() | tokens,
    lines_dropped=st.integers(0, 9),
    config_hash=st.text("0123456789abcdef", min_size=12, max_size=12),
    n=st.integers(1, 128),
    no_fallback=st.booleans(),
    max_cost_nano=st.none() | nano,
    cache_saved_nano=nano,
    timeout=st.none() | seconds,
    asked_task=texts,
    body_bytes=st.none() | tokens,
    trace_id=st.sampled_from(["", "4bf92f3577b34da6a3ce929d0e0e4736"]),
    span=st.none(),  # this and the stages are not for the ledger
    stages=st.just(NO_STAGES),
    content=st.none(),
    attempts=st.lists(attempts, max_size=3).map(tuple),
).map(_with_its_cost)


def keep(put: Iterable[Record], path: Path) -> None:
    """Writes them into a ledger at `path`."""

    async def story() -> None:
        ledger = SqliteLedger(path, batch_seconds=0)
        for made in put:
            ledger.put(made)
        await ledger.close()

    asyncio.run(story())
