"""The retry and fallback policy: what happened so far -> what to do next."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.attempts import RETRIED, Continue, Fail, Past, Step, Try, Wait, next_step
from gateway.core.failures import DEFAULT_FALLBACK_ON, Kind
from gateway.core.routing import Model, Plan, Target, Timeouts
from gateway.core.tasks import Task

START = 1000.0
NAMES = ("qwen", "gpt", "kimi")


def plan(targets: int = 2, **changes: object) -> Plan:
    models = tuple(
        Target(Model(name, "p", name), name, None, Timeouts(), fallback=index > 0, why="")
        for index, name in enumerate(NAMES)
    )
    base = Plan("support", Task("default", 1.0, ""), models[:targets], (), (), total=60.0)
    return base._replace(**changes)  # type: ignore[arg-type]  # each test names real fields


def failed(kind: Kind, target: int = 0, at: float = 1.0, after: float | None = None, **more: object) -> Past:
    """A failure `at` seconds after the start, with a Retry-After of `after` seconds."""
    past = Past(target, kind, "refused", START + at, retry_after=after)
    return past._replace(**more)  # type: ignore[arg-type]  # each test names real fields


def step(plan: Plan, *history: Past, now: float | None = None, roll: float = 0.0, no_fallback: bool = False) -> Step:
    """`now`: seconds after the start; otherwise at once after the last failure."""
    if now is None:
        now = history[-1].ended - START if history else 0.0
    return next_step(plan, history, started=START, now=START + now, no_fallback=no_fallback, roll=roll)


K = Kind
RETRY = Try(0, "retry")

# what, plan, history, what to do (the dice show 0: no jitter)
POLICY: list[tuple[str, Plan, list[Past], Step]] = [
    ("the first target first", plan(), [], Try(0, "first")),
    # --- once more on the same target, for what may pass
    ("connect", plan(), [failed(K.CONNECT)], RETRY),
    ("server_error", plan(), [failed(K.SERVER_ERROR)], RETRY),
    ("rate_limited", plan(), [failed(K.RATE_LIMITED)], RETRY),
    ("empty", plan(), [failed(K.EMPTY)], RETRY),
    ("malformed", plan(), [failed(K.MALFORMED)], RETRY),
    ("stream_cut", plan(), [failed(K.STREAM_CUT)], RETRY),
    # --- straight to the next target, for what would be the same again
    ("timeout", plan(), [failed(K.TIMEOUT)], Try(1, "timeout")),
    ("account", plan(), [failed(K.ACCOUNT)], Try(1, "account")),
    ("context_length", plan(), [failed(K.CONTEXT_LENGTH)], Try(1, "context_length")),
    (
        "content_filter, where it is on",
        plan(fallback_on=frozenset(Kind)),
        [failed(K.CONTENT_FILTER)],
        Try(1, "content_filter"),
    ),
    # --- retries are counted for each target
    ("the retry failed too", plan(), [failed(K.CONNECT)] * 2, Try(1, "connect")),
    ("no retries", plan(retries=0), [failed(K.CONNECT)], Try(1, "connect")),
    ("the next target has its own", plan(), [*[failed(K.CONNECT)] * 2, failed(K.EMPTY, 1)], Try(1, "retry")),
    ("another kind does not reset the count", plan(), [failed(K.CONNECT), failed(K.EMPTY)], Try(1, "empty")),
    ("three targets in order", plan(3), [failed(K.TIMEOUT), failed(K.ACCOUNT, 1)], Try(2, "account")),
    # --- Retry-After
    ("a short one is waited", plan(), [failed(K.RATE_LIMITED, after=2.0)], Wait(2.0)),
    (
        "a longer one is not, where another target is left",
        plan(),
        [failed(K.RATE_LIMITED, after=2.1)],
        Try(1, "rate_limited"),
    ),
    ("but is where none is", plan(1), [failed(K.RATE_LIMITED, after=5.0)], Wait(5.0)),
    ("and at a 503 as well", plan(1), [failed(K.SERVER_ERROR, after=3.0)], Wait(3.0)),
    ("it must fit the deadline", plan(total=3.0), [failed(K.RATE_LIMITED, after=2.0)], Try(1, "rate_limited")),
    ("zero means now", plan(), [failed(K.RATE_LIMITED, after=0.0)], RETRY),
    # --- the breaker, which this failure may have opened
    ("it opened: nobody is let in after a pause", plan(), [failed(K.SERVER_ERROR, rest=5.0)], Try(1, "server_error")),
    (
        "it stays open for longer than a Retry-After",
        plan(),
        [failed(K.RATE_LIMITED, after=2.0, rest=3.1)],
        Try(1, "rate_limited"),
    ),
    ("a rest that the Retry-After was taken for", plan(), [failed(K.RATE_LIMITED, after=2.0, rest=2.0)], Wait(2.0)),
    ("the same, rounded up", plan(), [failed(K.RATE_LIMITED, after=1.25, rest=2.0)], Wait(1.25)),
]

ENDS: list[tuple[str, Plan, list[Past], int, str]] = [
    ("a kind that is not in fallback_on", plan(), [failed(K.CONTENT_FILTER)], 502, "upstream_error"),
    ("the same for a retry", plan(fallback_on=frozenset({K.EMPTY})), [failed(K.CONNECT)], 503, "no_healthy_upstream"),
    ("after commit", plan(), [failed(K.STREAM_CUT, committed=True)], 502, "upstream_error"),
    ("after commit, a stall", plan(), [failed(K.TIMEOUT, committed=True)], 504, "upstream_timeout"),
    ("max_attempts", plan(max_attempts=1), [failed(K.SERVER_ERROR)], 502, "upstream_error"),
    ("nothing left, the last was a timeout", plan(1), [failed(K.TIMEOUT)], 504, "upstream_timeout"),
    ("nothing left, all unreachable", plan(1), [failed(K.CONNECT)] * 2, 503, "no_healthy_upstream"),
    (
        "nothing left, all too busy",
        plan(),
        [failed(K.RATE_LIMITED, 0, 1, 9), failed(K.RATE_LIMITED, 1, 2, 9)],
        503,
        "no_healthy_upstream",
    ),
    ("nothing left, one of each", plan(retries=0), [failed(K.CONNECT), failed(K.EMPTY, 1)], 502, "upstream_error"),
    ("nothing left, the breaker opened", plan(1), [failed(K.SERVER_ERROR, rest=5.0)], 502, "upstream_error"),
    ("a Retry-After too long, alone", plan(1), [failed(K.RATE_LIMITED, after=5.1)], 503, "no_healthy_upstream"),
    ("the deadline has passed", plan(), [failed(K.CONNECT, at=60.0)], 504, "upstream_timeout"),
    ("no targets", plan(0), [], 503, "no_healthy_upstream"),
]


@pytest.mark.parametrize(("plan", "history", "expected"), [row[1:] for row in POLICY], ids=[row[0] for row in POLICY])
def test_policy(plan: Plan, history: list[Past], expected: Step) -> None:
    assert step(plan, *history) == expected


@pytest.mark.parametrize(("plan", "history", "status", "code"), [row[1:] for row in ENDS], ids=[row[0] for row in ENDS])
def test_ends(plan: Plan, history: list[Past], status: int, code: str) -> None:
    end = step(plan, *history)
    assert isinstance(end, Fail)
    assert (end.status, end.code) == (status, code)


def test_every_kind_is_decided() -> None:
    assert RETRIED | {K.TIMEOUT, K.ACCOUNT, K.CONTEXT_LENGTH, K.CONTENT_FILTER} == frozenset(Kind)


def test_no_fallback_retries_the_first_target_only() -> None:
    assert step(plan(), failed(K.CONNECT), no_fallback=True) == RETRY
    assert isinstance(step(plan(), *[failed(K.CONNECT)] * 2, no_fallback=True), Fail)
    assert step(plan(), failed(K.RATE_LIMITED, after=4.0), no_fallback=True) == Wait(4.0)


@pytest.mark.parametrize(
    ("failures", "roll", "seconds"), [(1, 0.5, 0.125), (2, 0.5, 0.25), (3, 1.0, 1.0), (6, 1.0, 8.0), (40, 1.0, 8.0)]
)
def test_jitter_is_full_doubles_and_is_capped(failures: int, roll: float, seconds: float) -> None:
    patient = plan(1, retries=50, max_attempts=50)
    assert step(patient, *[failed(K.CONNECT)] * failures, roll=roll) == Wait(seconds)


def test_a_wait_is_followed_by_the_retry() -> None:
    history = (failed(K.RATE_LIMITED, at=1.0, after=2.0),)
    assert step(plan(), *history, now=1.0) == Wait(2.0)
    assert step(plan(), *history, now=2.5) == Wait(0.5)
    assert step(plan(), *history, now=2.9995) == RETRY  # a sleeper that woke a little early
    assert step(plan(), *history, now=3.5) == RETRY


def test_the_message_lists_each_attempt() -> None:
    end = step(
        plan(),
        failed(K.CONNECT, detail="refused"),
        failed(K.SERVER_ERROR, detail="503 from the upstream:\n  loading", status=503),
        failed(K.TIMEOUT, 1, detail=""),
    )
    assert end == Fail(
        504,
        "upstream_timeout",
        "Route support: no upstream answered: 1. qwen: connect: refused; "
        "2. qwen: server_error: 503 from the upstream: loading; 3. gpt: timeout",
    )


def test_the_message_of_a_broken_stream() -> None:
    end = step(plan(), failed(K.STREAM_CUT, detail="connection lost", committed=True))
    assert isinstance(end, Fail)
    assert end.message == "Route support: the answer broke off: 1. qwen: stream_cut: connection lost"


def test_the_message_of_a_deadline() -> None:
    assert step(plan(total=2.5), now=3.0) == Fail(
        504, "upstream_timeout", "Route support: no upstream answered within 2.5 s: none was tried"
    )


@pytest.mark.parametrize(("status", "line"), [(401, "1. qwen: account: 401"), (None, "1. qwen: account")])
def test_the_message_says_nothing_of_our_account(status: int | None, line: str) -> None:
    end = step(plan(1), failed(K.ACCOUNT, detail="Incorrect API key: sk-ab**yz of org-42", status=status))
    assert isinstance(end, Fail)
    assert end.message == f"Route support: no upstream answered: {line}"


def test_the_message_is_bounded() -> None:
    end = step(plan(1), failed(K.EMPTY, detail="x" * 10_000), failed(K.EMPTY, detail="x" * 10_000))
    assert isinstance(end, Fail)
    assert len(end.message) < 600


OUTCOMES = st.tuples(
    st.sampled_from(Kind),
    st.floats(0, 30),  # seconds that the attempt takes
    st.none() | st.floats(0, 100),  # Retry-After
    st.integers(0, 9).map(lambda dice: dice == 0),  # committed
    st.floats(0, 0.999),  # the dice
    st.just(0.0) | st.floats(0, 60),  # seconds that the breaker stays open
)
PLANS = st.builds(
    lambda targets, retries, most, total, on: plan(
        targets, retries=retries, max_attempts=most, total=total, fallback_on=on
    ),
    st.integers(0, 3),
    st.integers(0, 5),
    st.integers(1, 8),
    st.floats(0.1, 120),
    st.sampled_from([frozenset(Kind), DEFAULT_FALLBACK_ON, frozenset({Kind.CONNECT})]),
)


@settings(deadline=None)
@given(PLANS, st.lists(OUTCOMES, min_size=8, max_size=8), st.booleans())
def test_any_history_ends(
    plan: Plan, outcomes: list[tuple[Kind, float, float | None, bool, float, float]], no_fallback: bool
) -> None:
    """Plays the engine: every attempt fails, in any way, after any time."""
    history: list[Past] = []
    now, roll = START, 0.0
    while True:
        move = next_step(plan, history, started=START, now=now, no_fallback=no_fallback, roll=roll)
        if isinstance(move, Fail):
            break
        assert not (history and history[-1].committed)
        assert not history or history[-1].kind in plan.fallback_on
        if isinstance(move, Wait):
            assert now + move.seconds < START + plan.total
            assert history[-1].rest <= now + move.seconds - history[-1].ended + 1.0 + 1e-6
            now += move.seconds
            move = next_step(plan, history, started=START, now=now, no_fallback=no_fallback, roll=roll)
            assert isinstance(move, Try)
        assert now < START + plan.total
        assert len(history) < plan.max_attempts
        assert move.target == 0 or not no_fallback
        tries = sum(past.target == move.target for past in history)
        assert tries <= plan.retries
        assert (move.reason == "retry") == (tries > 0)
        kind, takes, retry_after, committed, roll, rest = outcomes[len(history)]
        now += takes
        history.append(Past(move.target, kind, "", now, None, retry_after, committed, rest=rest))
    assert str(len(history)) + ". " in move.message or not history


# --- after commit, and targets that were not even tried

PREFILL = frozenset({"prefill"})


def goes_on(targets: int = 2, *, able: tuple[int, ...] = (0, 1, 2), **changes: object) -> Plan:
    """A plan of a route that says `mid_stream: continue`; `able`: the targets that support prefill."""
    base = plan(targets, mid_stream="continue", retries=2, **changes)
    changed = (
        target._replace(model=target.model._replace(supports=PREFILL if index in able else frozenset()))
        for index, target in enumerate(base.targets)
    )
    return base._replace(targets=tuple(changed))


def broke_off(kind: Kind = K.STREAM_CUT, target: int = 0, **more: object) -> Past:
    past = failed(kind, target, committed=True, resumable=True)
    return past._replace(**more)  # type: ignore[arg-type]  # each test names real fields


AFTER_COMMIT: list[tuple[str, Plan, list[Past], Step | str]] = [
    ("the next target goes on", goes_on(), [broke_off()], Continue(1, "stream_cut")),
    ("also after a stall", goes_on(), [broke_off(K.TIMEOUT)], Continue(1, "timeout")),
    ("one that cannot is passed over", goes_on(3, able=(2,)), [broke_off()], Continue(2, "stream_cut")),
    ("nobody can", goes_on(3, able=(0,)), [broke_off()], "broke off"),
    ("never on the same target", goes_on(1), [broke_off()], "broke off"),
    ("not where it cannot be resumed", goes_on(), [broke_off(resumable=False)], "broke off"),
    ("not where the route says error", plan(3), [broke_off()], "broke off"),
    ("not for a kind without fallback", goes_on(fallback_on=frozenset({K.CONNECT})), [broke_off()], "broke off"),
    ("not beyond max_attempts", goes_on(max_attempts=1), [broke_off()], "broke off"),
    ("and on, when that one breaks off", goes_on(3), [broke_off(), broke_off(target=1)], Continue(2, "stream_cut")),
    ("to the end", goes_on(2), [broke_off(), broke_off(target=1)], "broke off"),
    ("a model that was not tried goes to the next", plan(), [failed(K.CONNECT, skipped="open")], Try(1, "connect")),
    ("and costs no attempt", plan(max_attempts=1), [failed(K.CONNECT, skipped="open")], Try(1, "connect")),
    ("nor a retry", plan(1), [failed(K.CONNECT, skipped="open")], "qwen: not tried: open"),
]


@pytest.mark.parametrize(("what", "plan", "history", "expected"), AFTER_COMMIT, ids=[row[0] for row in AFTER_COMMIT])
def test_after_commit(what: str, plan: Plan, history: list[Past], expected: Step | str) -> None:
    found = step(plan, *history)
    if isinstance(expected, str):
        assert isinstance(found, Fail), what
        assert expected in found.message
    else:
        assert found == expected


def test_no_fallback_does_not_continue_elsewhere() -> None:
    assert isinstance(step(goes_on(), broke_off(), no_fallback=True), Fail)


@pytest.mark.parametrize("kind", [K.CONTEXT_LENGTH, K.CONTENT_FILTER])
def test_another_replica_cannot_cure_what_is_the_models(kind: Kind) -> None:
    base = plan(3, fallback_on=frozenset(Kind))
    first, _, other = base.targets
    twice = base._replace(targets=(first, first, other))
    assert step(twice, failed(kind)) == Try(2, kind.value)
    assert step(twice, failed(K.ACCOUNT)) == Try(1, "account"), "each replica has its own key"


def test_a_retry_goes_to_another_replica_and_the_last_attempt_to_another_model() -> None:
    base = plan(3)
    first, _, other = base.targets
    replicas = base._replace(targets=(first, first, first, other), max_attempts=3)
    assert step(replicas, failed(K.CONNECT)) == Try(1, "connect")
    assert step(replicas, failed(K.CONNECT), failed(K.CONNECT, 1)) == Try(3, "connect")


def test_no_fallback_may_use_the_models_other_replicas() -> None:
    base = plan(2)
    first, other = base.targets
    replicas = base._replace(targets=(first, first, other))
    assert step(replicas, failed(K.CONNECT), no_fallback=True) == Try(1, "connect")
    assert isinstance(step(replicas, failed(K.TIMEOUT), failed(K.TIMEOUT, 1), no_fallback=True), Fail)


def refused(target: int = 0, code: str = "insufficient_quota") -> Past:
    """A budget had no room for it."""
    return failed(K.RATE_LIMITED, target, skipped="budget team: too little is left", code=code, budget="team")


BUDGETS: list[tuple[str, list[Past], Step | tuple[int, str]]] = [
    ("the next target, and why", [refused()], Try(1, "budget")),
    ("none is left", [refused(), refused(1)], (429, "insufficient_quota")),
    (
        "others' holds are in the way of one",
        [refused(), refused(1, "rate_limit_exceeded")],
        (429, "rate_limit_exceeded"),
    ),
    ("one has no price", [refused(code="unpriced_model"), refused(1)], (429, "insufficient_quota")),
    ("none has a price", [refused(code="unpriced_model"), refused(1, "unpriced_model")], (400, "unpriced_model")),
    ("the other failed", [refused(), failed(K.ACCOUNT, 1)], (502, "upstream_error")),
    ("the other is not there", [refused(), failed(K.CONNECT, 1, skipped="open")], (503, "no_healthy_upstream")),
    ("the other is full", [refused(), failed(K.RATE_LIMITED, 1, skipped="full")], (503, "overloaded")),
    ("the other ran into a limit", [refused(), failed(K.TIMEOUT, 1)], (504, "upstream_timeout")),
]


@pytest.mark.parametrize(("what", "history", "expected"), BUDGETS, ids=[row[0] for row in BUDGETS])
def test_budgets(what: str, history: list[Past], expected: Step | tuple[int, str]) -> None:
    found = step(plan(retries=0), *history)
    if isinstance(found, Fail):
        assert (found.status, found.code) == expected, what
        assert "not tried: budget team: too little is left" in found.message
    else:
        assert found == expected


# --- any route: replicas, targets that cannot continue, answers that break off, targets that were not even tried

ROUTES = st.lists(st.tuples(st.sampled_from("ABC"), st.booleans()), min_size=1, max_size=5)  # model, supports prefill
Broken = tuple[Kind, bool, bool, bool]
BREAKS = st.tuples(
    st.sampled_from(Kind),
    st.booleans(),  # committed
    st.booleans(),  # resumable
    st.integers(0, 3).map(lambda dice: dice == 0),  # skipped
)


def route_of(targets: list[tuple[str, bool]], **changes: object) -> Plan:
    made = tuple(
        Target(
            Model(name, "p", name, supports=PREFILL if able else frozenset()),
            *(name, None, Timeouts()),
            fallback=index > 0,
            why="",
        )
        for index, (name, able) in enumerate(targets)
    )
    return plan(1, mid_stream="continue", **changes)._replace(targets=made)


@settings(deadline=None)
@given(ROUTES, st.integers(0, 3), st.integers(1, 8), st.booleans(), st.lists(BREAKS, min_size=20, max_size=20))
def test_any_history_of_a_route_that_continues_ends(
    targets: list[tuple[str, bool]],
    retries: int,
    most: int,
    no_fallback: bool,
    ends: list[Broken],
) -> None:
    route = route_of(targets, retries=retries, max_attempts=most, fallback_on=frozenset(Kind))
    history: list[Past] = []
    while not isinstance(move := step(route, *history, no_fallback=no_fallback), Fail):
        assert not isinstance(move, Wait)
        last = history[-1] if history else None
        name = targets[move.target][0]
        assert sum(not past.skipped for past in history) < most
        assert name == targets[0][0] or not no_fallback
        begun = last is not None and last.committed
        assert isinstance(move, Continue) == begun, "what the client has begun to read is never begun anew"
        if begun:
            assert last is not None
            assert last.resumable
            assert targets[move.target][1]
        tried = [past for past in history if past.target == move.target]
        assert len(tried) <= retries
        assert not any(past.skipped for past in tried), "what was not tried is not retried"
        assert not (begun and tried), "an answer is never continued where it broke off"
        kind, committed, resumable, skipped = ends[len(history)]
        committed = begun or (committed and not skipped)
        why = "breaker open" if skipped else ""
        history.append(failed(kind, move.target, committed=committed, resumable=committed and resumable, skipped=why))
    assert len(history) <= most + len(targets)
