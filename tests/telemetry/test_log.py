"""One line a request: readable, complete, impossible to forge, and never in the way."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import re
import time
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.record import Record
from gateway.core.usage import Usage
from gateway.telemetry.events import BreakerChanged, ConfigReloaded, Event, RequestFinished, RequestStarted
from gateway.telemetry.lines import LONGEST, JsonLines, TextLines, clean
from gateway.telemetry.log import Log
from tests.stores.records import ATTEMPT, record, records

FORGED = 'x" status=200\n2026-11-22T00:00:00.000Z INFO \x1b[31m\u202e\u2028 cost=$0'


def written(format: Literal["text", "json"], *events: Event) -> str:
    stream = io.BytesIO()

    async def story() -> None:
        log = Log(stream, format)
        for event in events:
            log.observe(event)
        await log.close()

    asyncio.run(story())
    return stream.getvalue().decode()


def as_json(made: Record) -> dict[str, Any]:
    found = json.loads(JsonLines().request(0.0, made))
    assert isinstance(found, dict)
    return found


def test_text() -> None:
    made = record(
        "r1", ATTEMPT._replace(result="timeout", cost_nano=0), ATTEMPT._replace(model="gpt", reason="timeout")
    )
    assert written("text", RequestFinished(made)) == (
        "2026-09-21T14:13:20.850Z INFO    200 ok             support      support    gpt                  600ms"
        "    123 in     57 out  $0.000001234  ttft=126ms baseline=$0.000005 tried=qwen:timeout,gpt:ok id=r1"
        " requested_model=auto provider=vllm key=ci team=platform tags=a,b\n"
    )


def test_json() -> None:
    [line] = written("json", RequestStarted("qwen"), RequestFinished(record("r1"))).splitlines()
    assert json.loads(line) == {
        "time": "2026-09-21T14:13:20.850Z",
        "level": "info",
        "event": "request",
        "id": "r1",
        "status": 200,
        "outcome": "ok",
        "endpoint": "/chat/completions",
        "stream": True,
        "input_tokens": 123,
        "cached_input_tokens": 20,
        "output_tokens": 57,
        "reasoning_tokens": 7,
        "cost_usd": 1.234e-6,
        "baseline_model": "gpt",
        "baseline_usd": 5e-6,
        "duration_seconds": 0.6,
        "first_token_seconds": 0.126,
        "overhead_seconds": 0.0004,
        "config": "0123456789ab",
        "requested_model": "auto",
        "route": "support",
        "task": "support",
        "model": "qwen",
        "provider": "vllm",
        "key": "ci",
        "team": "platform",
        "tags": ["a", "b"],
        "attempts": [
            {
                "model": "qwen",
                "provider": "vllm",
                "reason": "first",
                "result": "ok",
                "status": 200,
                "duration_seconds": 0.5,
                "cost_usd": 1.234e-6,
            }
        ],
    }


@pytest.mark.parametrize(
    ("result", "level", "text"), [("ok", "info", "INFO    reload ok"), ("rejected", "error", "ERROR   reload rejected")]
)
def test_reloads(result: str, level: str, text: str) -> None:
    assert f"{text} config=beef\n" in written("text", ConfigReloaded(result, "beef"))
    found = json.loads(written("json", ConfigReloaded(result, "beef")))
    assert (found["event"], found["level"], found["result"], found["config"]) == ("reload", level, result, "beef")


def test_a_rejected_file_s_problems_stand_below_it_and_pass_for_nothing_else() -> None:
    rejected = ConfigReloaded("rejected", "beef", "routes.yaml:3: no\n2026-11-26 INFO \x1b[1mforged")
    head, *below = written("text", rejected).splitlines()
    assert head.endswith("ERROR   reload rejected config=beef stays in force")
    assert below == ["    routes.yaml:3: no", "    2026-11-26 INFO \\u001b[1mforged"]
    assert "problems" not in json.loads(written("json", ConfigReloaded("ok", "beef")))
    assert json.loads(written("json", rejected))["problems"].startswith("routes.yaml:3: no\\n2026")


@pytest.mark.parametrize(("state", "level"), [("open", "warning"), ("half_open", "info"), ("closed", "info")])
def test_breakers(state: str, level: str) -> None:
    change = BreakerChanged("qwen", "vllm-0:8000", state, "5 failures in a row, last connect")
    expected = f'breaker {state} model=qwen endpoint=vllm-0:8000 reason="5 failures in a row, last connect"\n'
    text = written("text", change)
    assert text.endswith(expected)
    assert level.upper() in text
    found = json.loads(written("json", change))
    assert found.pop("time")
    assert found == {"level": level, "event": "breaker", **change._asdict()}


def test_a_refused_request_shows_why_and_zeros_stay() -> None:
    made = record("r1")._replace(
        outcome="rejected",
        rejection="auth",
        status=401,
        route="",
        task="",
        model="",
        usage=Usage(),
        attempts=(),
        cost_nano=0,
    )
    found = as_json(made)
    assert (found["rejection"], found["input_tokens"], found["cost_usd"], found["attempts"]) == ("auth", 0, 0.0, [])
    line = TextLines().request(0.0, made)
    assert "401 rejected       -            -          -" in line
    assert "rejection=auth" in line


# Nobody can write lines of his own


@pytest.mark.parametrize(
    "field", ["client_request_id", "requested_model", "user", "task", "key", "team", "route", "model"]
)
def test_forged_fields(field: str) -> None:
    made = Record(**{**record("r1")._asdict(), field: FORGED})
    text = TextLines().request(0.0, made)
    assert text.splitlines(keepends=True) == [text]
    assert '\\" status=200\\n2026' in text, "quotes are closed by us alone"
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e\u2028]", text)
    assert as_json(made)[field] == clean(FORGED)


@settings(deadline=None)  # a shared machine pauses at will
@given(records)
def test_a_request_is_one_line(made: Record) -> None:
    text = TextLines().request(0.0, made)
    assert len(text.splitlines()) == 1
    assert text[:-1].isprintable()
    line = JsonLines().request(0.0, made)
    assert len(line.splitlines()) == 1
    json.loads(line)


@settings(deadline=None)  # a shared machine pauses at will
@given(st.text())
def test_cleaned_text_prints_and_is_unambiguous(text: str) -> None:
    assert clean(text).isprintable()
    if len(text) <= LONGEST:
        assert re.sub(r"\\(u[0-9a-f]{4}|U[0-9a-f]{8}|.)", _unescape, clean(text)) == text


def _unescape(found: re.Match[str]) -> str:
    code = found[1]
    return chr(int(code[1:], 16)) if len(code) > 1 else {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}[code]


def test_long_and_many_values_are_cut() -> None:
    made = record("r1")._replace(user="u" * 100_000, tags=tuple("t" * 10_000 for _ in range(1_000)))
    assert len(JsonLines().request(0.0, made)) < 10_000
    assert len(TextLines().request(0.0, made)) < 2_000
    assert as_json(made)["user"] == "u" * LONGEST + "..."


def test_what_the_program_logs_goes_the_same_way() -> None:
    def through(format: Literal["text", "json"]) -> str:
        stream = io.BytesIO()

        async def story() -> None:
            log = Log(stream, format)
            logger = logging.getLogger("gateway.test")
            logger.propagate = False
            logger.addHandler(handler := log.handler())
            logger.warning("two lines:\n2026 INFO %s", "\x1b[2J")
            logger.removeHandler(handler)
            await log.close()

        asyncio.run(story())
        return stream.getvalue().decode()

    first, second = through("text").splitlines()
    assert first.endswith("WARNING gateway.test: two lines:")
    assert second == "    2026 INFO \\u001b[2J"
    found = json.loads(through("json"))
    assert (found["level"], found["logger"]) == ("warning", "gateway.test")
    assert found["message"] == "two lines:\\n2026 INFO \\u001b[2J"


# Never in the way


def test_a_full_pipe_blocks_nobody_and_is_told_of() -> None:
    reading, writing = os.pipe()

    async def story() -> list[str]:
        stream = os.fdopen(writing, "wb", buffering=0)
        log = Log(stream, "json", capacity=100)
        log.flush_seconds = 0.001
        event = RequestFinished(record("r1"))
        began = time.monotonic()
        while not log.dropped:  # nobody reads: the pipe fills up, then the queue
            log.observe(event)
            await asyncio.sleep(0)
        log.observe(event)
        assert time.monotonic() - began < 30
        log.close_seconds = 0.05
        began = time.monotonic()
        await log.close()
        assert time.monotonic() - began < 30, "close does not wait for ever either"
        dropped = log.dropped
        lines = await asyncio.to_thread(_drain, reading, f"{dropped} log lines were left out")
        log.close_seconds = 5
        await log.close()
        stream.close()
        os.close(reading)
        return lines

    lines = asyncio.run(story())
    messages = [found["message"] for found in map(json.loads, lines) if found["event"] == "message"]
    assert len(messages) == 1
    assert all(found["id"] == "r1" for found in map(json.loads, lines) if found["event"] == "request")


def _drain(reading: int, until: str) -> list[str]:
    data = b""
    while until.encode() not in data or not data.endswith(b"\n"):
        data += os.read(reading, 65536)
    return data.decode().splitlines()


def test_a_closed_stream_is_survived() -> None:
    async def story() -> None:
        stream = io.BytesIO()
        log = Log(stream, "text")
        stream.close()
        log.observe(RequestFinished(record("r1")))
        await log.close()
        assert log.dropped == 1

    asyncio.run(story())
