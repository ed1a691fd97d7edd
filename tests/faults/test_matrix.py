"""Each row of the failure table (`table.py`) under each policy, on a real gateway: client, ledger and metrics agree."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gateway.core.attempts import RETRIED
from gateway.core.failures import Kind
from tests.faults.drive import NANO_INPUT, NANO_OUTPUT, PLAYS, Outcome, Play, Policy, play_all
from tests.faults.faulty import CONTENT, Port
from tests.faults.page import note
from tests.faults.table import Charge, Mode, Phase, Seen
from tests.servers import Sample

SPARE = "Hello there."  # what the fallback answers
ESTIMATED_INPUT = 3  # tokens of "Say hello."
REPORTED_INPUT = 12  # of `replies.TOKENS`
# What is left to say when nobody else may be asked. `context_length` and `content_filter` are about the request: the
# upstream's own words are relayed.
ALONE = {
    Kind.CONNECT: (503, "no_healthy_upstream"),
    Kind.TIMEOUT: (504, "upstream_timeout"),
    Kind.RATE_LIMITED: (503, "no_healthy_upstream"),
    Kind.SERVER_ERROR: (502, "upstream_error"),
    Kind.ACCOUNT: (502, "upstream_error"),
    Kind.EMPTY: (502, "upstream_error"),
    Kind.MALFORMED: (502, "upstream_error"),
    Kind.STREAM_CUT: (502, "upstream_error"),
}


class Tried(NamedTuple):
    """An attempt's row."""

    model: str
    purpose: str
    reason: str
    result: str


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[Mode, tuple[dict[Play, Outcome], list[Sample]]]:
    return {mode: play_all(tmp_path_factory.mktemp(mode.name), mode) for mode in Mode}


@pytest.fixture
def result(
    request: pytest.FixtureRequest, played: dict[Mode, tuple[dict[Play, Outcome], list[Sample]]]
) -> Iterator[Outcome]:
    """What was seen; leaves a note for `scripts/failures` when the test has passed."""
    play: Play = request.node.callspec.params["play"]
    failures = request.session.testsfailed
    yield played[play.row.mode][0][play]
    if directory := os.environ.get("FAILURES_RESULTS"):
        note(Path(directory), play, passed=request.session.testsfailed == failures)


def expected_attempts(play: Play) -> list[Tried]:
    row, name, kind = play.row, play.name, str(play.row.kind)
    if row.seen is Seen.ANSWER:
        return [Tried(name, "answer", "first", "ok")]
    if row.seen is Seen.EVENT:
        broken = Tried(name, "answer", "first", kind)  # it is what the client got
        return [broken, Tried("spare", "answer", kind, "ok")] if play.policy is Policy.CONTINUE else [broken]
    if row.phase is Phase.BODY and row.kind is Kind.CONTENT_FILTER and play.policy is Policy.KIND_OFF:
        return [Tried(name, "answer", "first", "ok")]  # the provider's filter has the last word
    failed = [Tried(name, "retry", "first", kind)]
    if play.policy in (Policy.KIND_OFF, Policy.NO_FALLBACK):
        return failed
    if play.policy is Policy.RETRY and row.kind in RETRIED:
        if not isinstance(row.how, Port):  # it answers the second time
            return [*failed, Tried(name, "answer", "retry", "ok")]
        failed.append(Tried(name, "retry", "retry", kind))
    return [*failed, Tried("spare", "answer", kind, "ok")]


@pytest.mark.parametrize("play", PLAYS, ids=str)
def test_play(play: Play, result: Outcome) -> None:
    row = play.row
    tried = expected_attempts(play)
    assert not result.broken
    assert [Tried(a["model"], a["purpose"], a["reason"], a["result"]) for a in result.attempts] == tried
    assert len(result.rows) == 1
    request = result.rows[0]
    assert request["cost_nano"] == sum(attempt["cost_nano"] for attempt in result.attempts)
    assert request["status"] == result.status
    if not isinstance(row.how, Port):
        assert result.calls == sum(each.model == play.name for each in tried)
    if play.policy is Policy.CONTINUE and row.seen is Seen.EVENT:
        check_continued(play, result)
        assert request["outcome"] == "ok"
    elif tried[-1].result == "ok":
        check_answer(play, result, tried)
        assert request["outcome"] == "ok"
    elif row.seen is Seen.EVENT:
        check_error_event(result)
        assert request["outcome"] == "upstream_error"
    else:
        check_error(play, result)
    check_charge(row.charge, result.attempts[0])


def check_answer(play: Play, result: Outcome, tried: list[Tried]) -> None:
    """Whole, from one target, and without a sign of what happened before but for the headers."""
    assert result.status == 200
    last = tried[-1].model
    fallback = str(play.row.kind) if last == "spare" else None
    assert result.headers["x-gateway-model"] == last
    assert result.headers["x-gateway-attempts"] == str(len(tried))
    assert result.headers.get("x-gateway-fallback-reason") == fallback
    assert result.rows[0]["fallback_reason"] == fallback
    assert not result.errors
    if play.policy is Policy.KIND_OFF:
        assert b"content_filter" in result.body
        return
    if play.row.seen is Seen.ANSWER:
        assert result.text == CONTENT
        return
    assert result.text == SPARE
    if play.row.mode is Mode.STREAM:
        assert result.done == 1
        assert result.events[-1].data == "[DONE]"
        assert {event.json["id"] for event in result.events[:-1]} == {"cmpl-1"}
        assert {event.json["model"] for event in result.events[:-1]} == {f"{last}-2026"}


def check_continued(play: Play, result: Outcome) -> None:
    """One stream under the first id and model name, with nothing between its two halves."""
    assert result.status == 200
    assert result.headers["x-gateway-model"] == play.name
    assert result.text == CONTENT + SPARE
    assert not result.errors
    assert result.done == 1
    assert result.events[-1].data == "[DONE]"
    chunks = [event.json for event in result.events[:-1]]
    assert {chunk["id"] for chunk in chunks} == {"cmpl-1"}
    assert {chunk["model"] for chunk in chunks} == {f"{play.name}-2026"}
    finishes = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
    assert [finish for finish in finishes if finish] == ["stop"]


def check_error_event(result: Outcome) -> None:
    """What had come, then one error as the last event, and no [DONE]."""
    assert result.status == 200
    assert result.text == CONTENT
    assert len(result.errors) == 1
    assert result.errors == [json.loads(result.events[-1].data)] or result.events[-1].name == "error"
    assert result.done == 0


def check_error(play: Play, result: Outcome) -> None:
    """An HTTP error that says what happened, or the upstream's own words where they are about the request."""
    if play.row.kind not in ALONE:
        assert result.status == result.attempts[0]["status"]
        assert result.rows[0]["outcome"] == ("ok" if result.status == 200 else "client_error")
        return
    error: dict[str, Any] = json.loads(result.body)["error"]
    assert (result.status, error["code"]) == ALONE[play.row.kind]
    assert error["type"] == "upstream_error"
    assert f"1. {play.name}: {play.row.kind}" in error["message"]
    assert result.headers["x-should-retry"] == "false"
    assert result.rows[0]["outcome"] == "upstream_error"


def check_charge(charge: Charge, attempt: dict[str, Any]) -> None:
    fresh, output, estimated = attempt["input_tokens"], attempt["output_tokens"], bool(attempt["usage_estimated"])
    assert attempt["cost_nano"] == fresh * NANO_INPUT + output * NANO_OUTPUT
    match charge:
        case Charge.NOTHING:
            assert attempt["cost_nano"] == 0
        case Charge.INPUT:
            assert (fresh, output, estimated) == (ESTIMATED_INPUT, 0, True)
        case Charge.OUTPUT:
            assert (fresh, output > 0, estimated) == (ESTIMATED_INPUT, True, True)
        case Charge.USAGE:
            assert (fresh, estimated) == (REPORTED_INPUT, False)


@pytest.mark.parametrize("mode", Mode)
def test_the_counters_say_the_same(played: dict[Mode, tuple[dict[Play, Outcome], list[Sample]]], mode: Mode) -> None:
    outcomes, samples = played[mode]
    attempts = {(s.labels["model"], s.labels["result"]): s.value for s in samples if s.name == "gateway_attempts_total"}
    fallbacks = {
        (s.labels["route"], s.labels["from"], s.labels["to"], s.labels["reason"]): s.value
        for s in samples
        if s.name == "gateway_fallbacks_total"
    }
    for play in outcomes:
        tried = expected_attempts(play)
        own = [each for each in tried if each.model == play.name]
        for result in {each.result for each in own}:
            assert attempts[play.name, result] == sum(each.result == result for each in own), play
        if tried[-1].model == "spare":
            assert fallbacks[play.name, play.name, "spare", str(play.row.kind)] == 1, play
    assert sum(s.value for s in samples if s.name == "gateway_requests_in_flight") == 0
