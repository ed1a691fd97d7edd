"""What one process remembers of conversations, for how long, and what it tells the others."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import sessions as module
from gateway.core.call import Call, Endpoint, Principal, parse
from gateway.core.replicas import favourite
from gateway.core.routing import Candidate, Plan, Route, Rules, Signals, plan
from gateway.core.rules import Target
from gateway.core.tasks import Task
from gateway.sessions import IDLE, MOST, TELL_AGAIN, Sessions
from gateway.wire import CODEC
from tests.core.models import MODELS, PAIR

TOOLS = [{"type": "function", "function": {"name": "f"}}]
CALLED = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {}}]}
CALLER = Principal("caller")
LISTED = Route("listed", (Candidate("a"), Candidate("b")))
STICKY = Route("sticky", (Candidate("a"), Candidate("b")), sticky=True)
DRAWN = Route("drawn", (Candidate("a"), Candidate("b")), order="weighted")
BUSY = Route("busy", (Candidate("a"), Candidate("b")), order="least_busy", sticky=True)
TWO = Route("two", (Candidate("two"),))
THINKS = Route("thinks", (Candidate("thinks"), Candidate("a")), order="cheapest")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Worker:
    """One process: its memory, and what it told."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.told: list[bytes] = []
        self.sessions = Sessions(self.told.append, self.clock)

    def plan(self, route: Route, it: Call, principal: Principal = CALLER) -> Plan:
        rules = Rules(MODELS, (), (route,), Route("direct", ()))
        return plan(rules, it, Task("default", 1.0, "why"), principal, Signals(kept=self.sessions))

    def serve(self, route: Route, it: Call, fail: int = 0, principal: Principal = CALLER) -> str:
        """Plans, lets that many targets fail, remembers; who answered."""
        planned = self.plan(route, it, principal)
        target: Target = planned.targets[fail]
        self.sessions.answered(planned, it, principal, target)
        return f"{target.model.name}/{target.replica.name}"

    def take(self) -> list[bytes]:
        told, self.told[:] = list(self.told), []
        return told


@pytest.fixture
def worker() -> Worker:
    return Worker()


def call(*history: dict[str, Any], session: str = "", **more: Any) -> Call:
    body = {"model": "auto", "messages": [{"role": "user", "content": "hi"}, *history], **more}
    headers = [(b"x-session-id", session.encode())] if session else []
    return parse(Endpoint.CHAT, headers, json.dumps(body).encode(), CODEC)


@pytest.mark.parametrize(
    ("route", "it", "fail", "remembered", "told"),
    [
        (LISTED, call(), 1, False, False),
        (LISTED, call(session="s"), 1, False, False),
        (LISTED, call(tools=TOOLS), 0, False, False),  # any worker would choose it
        (LISTED, call(tools=TOOLS), 1, True, True),
        (LISTED, call(CALLED), 0, True, False),
        (LISTED, call(CALLED), 1, True, True),
        (DRAWN, call(), 0, False, False),
        (DRAWN, call(tools=TOOLS), 0, True, True),
        (THINKS, call(), 0, True, True),
        (THINKS, call(), 1, False, False),  # its thinking is not signed
        (STICKY, call(), 0, True, False),
        (STICKY, call(), 1, True, True),
        (BUSY, call(), 0, True, True),
        (TWO, call(session="s"), 0, False, False),
        (TWO, call(session="s"), 1, True, True),
    ],
)
def test_what_is_remembered_and_what_is_told(
    worker: Worker, route: Route, it: Call, fail: int, remembered: bool, told: bool
) -> None:
    worker.serve(route, it, fail)
    assert len(worker.sessions) == remembered
    assert len(worker.told) == told


@pytest.mark.parametrize(
    ("route", "first", "later"),
    [
        (STICKY, call(session="s"), call(CALLED, session="s")),
        (STICKY, call(), call(CALLED)),
        (BUSY, call(), call()),
        (LISTED, call(tools=TOOLS), call(CALLED, tools=TOOLS)),
        (TWO, call(session="s"), call(session="s")),
    ],
)
def test_after_a_failure_a_conversation_moves_and_stays(worker: Worker, route: Route, first: Call, later: Call) -> None:
    moved = worker.serve(route, first, 1)
    assert [worker.serve(route, later) for _ in range(3)] == [moved] * 3
    back = worker.serve(route, later, 1)
    assert back != moved
    assert worker.serve(route, later) == back


def test_a_conversation_that_returns_home_is_told_too(worker: Worker) -> None:
    other = Worker()
    for fail in (1, 1):
        worker.serve(STICKY, call(session="s"), fail)
    for payload in worker.take():
        other.sessions.take(payload)
    assert other.serve(STICKY, call(session="s")) == worker.serve(STICKY, call(session="s")) == "a/default"


@pytest.mark.parametrize("route", [STICKY, BUSY, TWO])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_an_answer_that_was_under_way_does_not_move_it_back(worker: Worker, route: Route, elsewhere: bool) -> None:
    it = call(session="s")
    planned = worker.plan(route, it)
    other = Worker() if elsewhere else worker
    moved = other.serve(route, it, 1)
    for payload in other.take() if elsewhere else ():
        worker.sessions.take(payload)
    worker.take()
    worker.sessions.answered(planned, it, CALLER, planned.targets[0])
    assert worker.take() == []
    assert worker.serve(route, it) == moved


@pytest.mark.parametrize("route", [STICKY, BUSY, DRAWN, TWO])
def test_other_workers_know_who_moved(worker: Worker, route: Route) -> None:
    it = call(CALLED, session="s", tools=TOOLS)
    moved = worker.serve(route, it, 1)
    other = Worker()
    for payload in worker.take():
        other.sessions.take(payload)
    assert other.serve(route, it) == moved
    assert not other.told  # it is no news


def test_others_are_reminded_before_they_forget(worker: Worker) -> None:
    for _ in range(6):
        worker.serve(STICKY, call(session="s"), 0 if worker.told else 1)
        worker.clock.now += TELL_AGAIN / 2
    assert len(worker.told) == 3


@pytest.mark.parametrize("payload", [b"", b"short", b"k" * 16, b"k" * 16 + b"no separator", b"k" * 16 + b"\xff\xfe"])
def test_what_is_no_news_is_passed_over(worker: Worker, payload: bytes) -> None:
    worker.sessions.take(payload)
    assert len(worker.sessions) == 0


def test_sessions_of_different_keys_never_mix(worker: Worker) -> None:
    worker.serve(STICKY, call(session="1"), 1, Principal("one"))
    assert worker.plan(STICKY, call(session="1"), Principal("one")).targets[0].model.name == "b"
    assert worker.plan(STICKY, call(session="1"), Principal("two")).targets[0].model.name == "a"


def test_what_is_idle_is_forgotten(worker: Worker) -> None:
    worker.serve(STICKY, call(session="s"), 1)
    worker.clock.now += IDLE - 1
    assert worker.serve(STICKY, call(session="s")) == "b/default"
    worker.clock.now += IDLE - 1
    assert worker.serve(STICKY, call(session="s")) == "b/default"  # the answer began the hour anew
    worker.clock.now += IDLE
    assert worker.serve(STICKY, call(session="s")) == "a/default"
    for number in range(3):
        worker.clock.now += IDLE
        worker.serve(STICKY, call(session=f"later {number}"))
    assert len(worker.sessions) == 1  # what is forgotten takes no room


def test_the_memory_is_bounded(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST == 100_000
    monkeypatch.setattr(module, "MOST", 10)
    for number in range(25):
        worker.serve(STICKY, call(session=str(number)), 1)
        worker.serve(STICKY, call(session="often"))
    assert len(worker.sessions) == 10
    found = [worker.plan(STICKY, call(session=str(number))).targets[0].model.name for number in range(25)]
    assert found == ["a"] * 16 + ["b"] * 9  # the latest, and the one that is used all the time


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), st.booleans()), max_size=40))
def test_two_workers_agree_where_a_conversation_is(events: list[tuple[int, int, bool]]) -> None:
    """Requests of four conversations arrive at either of two workers; first targets may fail; news travel at once."""
    workers = (Worker(), Worker())
    homes: dict[int, str] = {}
    for number, turn, fails in events:
        it = call(session=f"s{number}")
        before = workers[turn].serve(TWO, it, 1 if fails else 0)
        if not fails and number in homes:
            assert before == homes[number]
        homes[number] = before
        for payload in workers[turn].take():
            workers[1 - turn].sessions.take(payload)
    for number, home in homes.items():
        assert workers[0].serve(TWO, call(session=f"s{number}")) == home
        assert home.split("/")[1] == favourite(PAIR, f"caller\0s{number}").name or len(workers[1].sessions)
