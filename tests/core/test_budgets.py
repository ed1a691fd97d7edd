"""Which budgets a call touches, in which window, and what their thresholds ask for."""

from __future__ import annotations

import datetime
import itertools
import math
import zoneinfo
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.budgets import (
    NO_VERDICT,
    Account,
    Action,
    Budget,
    BudgetIndex,
    Periods,
    Threshold,
    Touched,
    Window,
    began,
    verdict,
)
from gateway.core.call import Call, Endpoint, Principal, parse
from gateway.core.limits import Limit, LimitIndex
from gateway.core.purse import Purse, Seen, calm
from gateway.core.rules import Match, Model, Target, Timeouts
from gateway.core.scopes import GuardIndex
from gateway.core.tasks import Task
from gateway.core.verdicts import ruled
from gateway.wire import CODEC

USD = 10**9
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
KOLKATA = zoneinfo.ZoneInfo("Asia/Kolkata")
BEIRUT = zoneinfo.ZoneInfo("Asia/Beirut")  # its clocks go forward at midnight
NOW = datetime.datetime(2026, 11, 23, 2, 30, tzinfo=datetime.UTC).timestamp()


def at(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("window", "now", "start", "end"),
    [
        (Window("hour"), "2026-11-23T02:30:00Z", "2026-11-23T02:00:00Z", "2026-11-23T03:00:00Z"),
        (Window("day"), "2026-11-23T02:30:00Z", "2026-11-23T00:00:00Z", "2026-11-24T00:00:00Z"),
        (Window("week"), "2026-11-22T23:59:59Z", "2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z"),
        (Window("month"), "2026-11-23T02:30:00Z", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"),
        (Window("month"), "2024-02-29T12:00:00Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"),
        (Window("month"), "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        # The zone's calendar, not UTC's.
        (Window("day", BERLIN), "2026-11-22T23:30:00Z", "2026-11-23T00:00:00+01:00", "2026-11-24T00:00:00+01:00"),
        (Window("month", BERLIN), "2026-03-31T22:30:00Z", "2026-04-01T00:00:00+02:00", "2026-05-01T00:00:00+02:00"),
        # Days of 25 and 23 hours, and the hour that comes twice.
        (Window("day", BERLIN), "2026-10-25T12:00:00Z", "2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00"),
        (Window("day", BERLIN), "2026-03-29T12:00:00Z", "2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"),
        (Window("hour", BERLIN), "2026-10-25T00:30:00Z", "2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z"),
        (Window("hour", BERLIN), "2026-10-25T01:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"),
        # Half an hour beside UTC; a midnight that does not exist.
        (Window("hour", KOLKATA), "2026-11-23T02:35:00Z", "2026-11-23T08:00:00+05:30", "2026-11-23T09:00:00+05:30"),
        (Window("day", BEIRUT), "2026-03-29T12:00:00Z", "2026-03-28T22:00:00Z", "2026-03-29T21:00:00Z"),
    ],
)
def test_windows(window: Window, now: str, start: str, end: str) -> None:
    assert window.bounds(at(now)) == (at(start), at(end))


def test_a_total_never_ends() -> None:
    assert Window("total").bounds(NOW) == (0.0, math.inf)
    assert Window("total").name(0.0) == "total"
    assert began("total") == 0.0


zones = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Beirut", "Pacific/Apia"])
windows = st.builds(Window, st.sampled_from(["hour", "day", "week", "month", "total"]), zones.map(zoneinfo.ZoneInfo))


@given(windows, st.floats(at("2000-01-01T00:00:00Z"), at("2060-01-01T00:00:00Z")))
def test_windows_follow_one_another_without_a_gap(window: Window, now: float) -> None:
    start, end = window.bounds(now)
    assert start <= now < end
    assert window.bounds(start) == (start, end)
    if window.kind != "total":
        after, _ = window.bounds(end)
        assert after == end
        assert window.name(start) != window.name(end)
        assert began(window.name(start)) == start


TASK = Task("support", 1.0, "")
CHEAP = Model("qwen", "vllm", "qwen3", hosting="self")
DEAR = Model("gpt", "openai", "gpt-5")


def call(**members: object) -> Call:
    body = {"model": "auto", "messages": [{"role": "user", "content": "hi"}], **members}
    return parse(Endpoint.CHAT, [], CODEC.dumps(body), CODEC)


def budget(name: str, limit: int = USD, **given: object) -> Budget:
    return Budget(name, limit)._replace(**given)  # type: ignore[arg-type]  # a table's shorthand


def scopes(touched: Touched, model: Model = DEAR) -> list[tuple[str, str]]:
    return [(touch.budget.name, touch.account.scope) for touch in touched.by("support", model)]


@pytest.mark.parametrize(
    ("per", "scope"),
    [
        ("", "all"),
        ("key", "key ci"),
        ("team", "team none"),
        ("user", "user someone"),
        ("task", "task support"),
        ("route", "route support"),
        ("model", "model gpt"),
        ("provider", "provider openai"),
    ],
)
def test_scopes(per: str, scope: str) -> None:
    index = BudgetIndex([budget("b", per=per)])
    touched = index.touched(call(user="someone"), TASK, Principal(key="ci"), NOW)
    assert scopes(touched) == [("b", scope)]


@pytest.mark.parametrize(
    ("principal", "expected"),
    [
        (Principal(), ["company"]),
        (Principal(key="ci", team="search"), ["company", "by-glob", "of-search", "of-ci"]),
        (Principal(key="ci", team="other"), ["company", "of-ci"]),
        (Principal(key="x", team="search", budgets=(budget("key:x"),)), ["company", "by-glob", "of-search", "key:x"]),
    ],
)
def test_only_what_matches_is_touched(principal: Principal, expected: list[str]) -> None:
    index = BudgetIndex(
        [
            budget("company"),
            budget("of-search", match=Match(team=("search",))),
            budget("by-glob", match=Match(team=("sea*",))),
            budget("of-ci", match=Match(key=("ci", "ci-2"))),
            budget("other-task", match=Match(task=("coding",))),
            budget("both", match=Match(key=("ci",), task=("coding",))),
        ]
    )
    touched = index.touched(call(), TASK, principal, NOW)
    assert sorted(name for name, _ in scopes(touched)) == sorted(expected)


def test_self_hosted_models_count_only_where_the_budget_says_so() -> None:
    index = BudgetIndex([budget("money"), budget("all", counts="all"), budget("models", per="model", counts="all")])
    touched = index.touched(call(), TASK, Principal(), NOW)
    assert scopes(touched, CHEAP) == [("all", "all"), ("models", "model qwen")]
    assert scopes(touched, DEAR) == [("money", "all"), ("all", "all"), ("models", "model gpt")]


def test_a_window_that_ends_is_another_account_and_a_new_limit_is_not() -> None:
    hourly = budget("b", window=Window("hour"))
    index = BudgetIndex([hourly])
    accounts = [
        index.touched(call(), TASK, Principal(), NOW + minutes * 60).of_request[0].account for minutes in (0, 29, 30)
    ]
    assert accounts[0] == accounts[1] != accounts[2]
    larger = BudgetIndex([hourly._replace(limit_nano=2 * USD)])
    assert larger.touched(call(), TASK, Principal(), NOW).of_request[0].account == accounts[0]
    daily = BudgetIndex([hourly._replace(window=Window("day"))])
    assert daily.touched(call(), TASK, Principal(), NOW).of_request[0].account != accounts[0]


STEPS = (
    Threshold(50, Action.ALERT),
    Threshold(80, Action.PREFER_SELF_HOSTED),
    Threshold(90, Action.SELF_HOSTED_ONLY),
    Threshold(100, Action.REJECT),
)


@pytest.mark.parametrize(
    ("settled", "action"),
    [
        (0, Action.ALLOW),
        (USD // 2 - 1, Action.ALLOW),
        (USD // 2, Action.ALERT),
        (USD * 8 // 10, Action.PREFER_SELF_HOSTED),
        (USD * 9 // 10, Action.SELF_HOSTED_ONLY),
        (USD - 1, Action.SELF_HOSTED_ONLY),
        (USD, Action.REJECT),
        (3 * USD, Action.REJECT),
    ],
)
def test_thresholds(settled: int, action: Action) -> None:
    assert budget("b", at=STEPS).action(settled) is action
    assert budget("b", limit=0).action(0) is Action.REJECT


@given(st.lists(st.tuples(st.integers(0, 2 * USD), st.permutations(STEPS)), max_size=5))
def test_the_strictest_budget_decides(settled: list[tuple[int, Sequence[Threshold]]]) -> None:
    budgets = [budget(f"b{i}", at=tuple(sorted(steps))) for i, (_, steps) in enumerate(settled)]
    spent = {f"b{i}": nano for i, (nano, _) in enumerate(settled)}
    touches = BudgetIndex(budgets).touched(call(), TASK, Principal(), NOW).of_request
    found = verdict(touches, lambda account: spent[account.budget])
    actions = [each.action(spent[each.name]) for each in budgets]
    assert found.action == max(actions, default=Action.ALLOW)
    assert (found.touch is None) == (found.action is Action.ALLOW)
    assert verdict((), lambda _: 0) == NO_VERDICT


def target(model: Model) -> Target:
    return Target(model, model.upstream_name, None, Timeouts(), fallback=False, why="listed")


def left(budgets: Sequence[Budget], settled: Mapping[str, int]) -> tuple[list[str], list[str], Action]:
    touched = BudgetIndex(budgets).touched(call(), TASK, Principal(), NOW)

    def spent(account: Account) -> int:
        return settled.get(f"{account.budget} {account.scope}", 0)

    targets, skipped, asked = ruled("support", [target(DEAR), target(CHEAP)], touched, spent)
    return [each.model.name for each in targets], [each.what for each in skipped], asked.action


@pytest.mark.parametrize(
    ("settled", "expected"),
    [
        (0.0, (["gpt", "qwen"], [], Action.ALLOW)),
        (0.5, (["gpt", "qwen"], [], Action.ALERT)),
        (0.8, (["qwen", "gpt"], [], Action.PREFER_SELF_HOSTED)),
        (0.9, (["qwen"], ["gpt"], Action.SELF_HOSTED_ONLY)),
        (1.0, ([], ["gpt", "qwen"], Action.REJECT)),
    ],
)
def test_what_a_threshold_does_to_the_targets(settled: float, expected: object) -> None:
    assert left([budget("b", at=STEPS)], {"b all": int(settled * USD)}) == expected


def test_a_spent_model_or_provider_budget_skips_its_targets_only() -> None:
    for per, scope in (("model", "model gpt"), ("provider", "provider openai")):
        assert left([budget("b", per=per)], {f"b {scope}": USD}) == (["qwen"], ["gpt"], Action.REJECT)
    assert left([budget("b", per="model")], {"b model kimi": USD}) == (["gpt", "qwen"], [], Action.ALLOW)


def test_why_it_was_left_out_names_the_budget_and_no_amount() -> None:
    touched = BudgetIndex([budget("team", per="team", limit=1234 * USD)]).touched(
        call(), TASK, Principal(team="search"), NOW
    )
    _, skipped, _ = ruled("support", [target(DEAR)], touched, lambda _: 5678 * USD)
    assert skipped[0].why == (
        "budget team (team search, month 2026-11-01T00:00:00+00:00): nothing more until it starts anew"
    )
    assert not any(number in skipped[0].why for number in ("1234", "5678"))


@given(
    st.integers(0, 300),
    st.lists(
        st.tuples(st.integers(1, 100), st.sampled_from(Action)), min_size=1, max_size=4, unique_by=lambda each: each[0]
    ),
    st.tuples(st.integers(0, 300), st.integers(0, 300), st.sampled_from([0, 0, 1]), st.sampled_from([0, 0, 1])),
)
def test_where_all_is_calm_no_threshold_asks_for_anything(
    limit: int, steps: list[tuple[int, Action]], nano: tuple[int, int, int, int]
) -> None:
    """And only there: who serves does not ask the thresholds then."""
    one = budget("b", limit, at=tuple(Threshold(*each) for each in sorted(steps)))
    touched = Periods().touch(one, "", NOW)
    purse = Purse(touched.account, one, touched.ends)
    settled, held, purse.spent, purse.telling = nano
    purse.seen = Seen(settled, held)
    reached = any(purse.settled * 100 >= percent * limit for percent, _ in steps)
    assert calm([purse]) == (not reached)
    if calm([purse]):
        assert verdict([touched], lambda _: purse.settled) == NO_VERDICT


GUARDS = [
    budget("company"),
    budget("hourly", window=Window("hour", KOLKATA)),
    budget("teams", per="team", counts="all"),
    budget("users", per="user"),
    budget("tasks", per="task", window=Window("day", BERLIN)),
    budget("models", per="model", window=Window("hour")),
    budget("of-a", match=Match(team=("a*",))),
    budget("of-k", match=Match(key=("k",)), per="key"),
    budget("tagged", match=Match(tag=("t",))),
    budget("long", match=Match(min_input_tokens=50)),
]
CALLERS = [
    Principal(),
    Principal("k", "a"),
    Principal("l", "a", "ada"),
    Principal("l", "b", budgets=(budget("key:l"),)),
    Principal("m", "ab", tags=frozenset({"t"})),
]
ASKED = st.tuples(
    st.sampled_from(CALLERS),
    st.sampled_from(
        [call(), call(user="bob"), call(user="eve"), call(messages=[{"role": "user", "content": "x" * 400}])]
    ),
    st.sampled_from([TASK, Task("coding", 1.0, "")]),
    st.floats(-2000, 100_000),  # seconds later: clocks may be set back
)


@given(st.sets(st.sampled_from(range(len(GUARDS)))), st.lists(ASKED, max_size=30))
def test_what_is_remembered_of_a_caller_is_what_a_fresh_look_would_say(
    chosen: set[int], asked: list[tuple[Principal, Call, Task, float]]
) -> None:
    budgets = [GUARDS[number] for number in sorted(chosen)]
    limits = [Limit(each.name, each.match, each.per, 1) for each in budgets if each.per != "model"]
    index, quotas, now = BudgetIndex(budgets), LimitIndex(limits), NOW
    for who, what, task, later in asked:
        now += later
        touched = index.touched(what, task, who, now)
        fresh = BudgetIndex(budgets).touched(what, task, who, now)
        for model in (CHEAP, DEAR):
            assert touched.by("r", model) == fresh.by("r", model)
        assert quotas.touched(what, task, who) == LimitIndex(limits).touched(what, task, who)
        if all(each.match in (Match(), Match(team=("a*",)), Match(key=("k",))) for each in budgets):
            assert index.touched(what, task, who, now) is touched, "it is remembered where it can be"


def test_ten_thousand_budgets_of_others_are_not_looked_at() -> None:
    many = [budget(f"team-{i}", match=Match(team=(f"team-{i}",))) for i in range(10_000)]
    looked = GuardIndex(many)._candidates(Principal(team="team-7"))
    assert [each.name for each in itertools.islice(looked, 5)] == ["team-7"]
