"""Which models are tried for a request, in which order, and why."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.call import Call, Endpoint, Principal, parse
from gateway.core.pricing import Machine, Price, Rates
from gateway.core.routing import (
    Candidate,
    Match,
    Model,
    Plan,
    Route,
    Rules,
    Signals,
    Skipped,
    Timeouts,
    plan,
    visible_models,
)
from gateway.core.tasks import Task
from gateway.errors import RequestError, RouteExhausted
from gateway.wire import CODEC


def priced(input_: int, output: int) -> Price:
    return Price("routes.yaml", Rates(input_ * 10**9, input_ * 10**9, input_ * 10**9, output * 10**9, output * 10**9))


MODELS = {
    model.name: model
    for model in (
        Model("small", "vllm", "S", "self", Price("unmetered"), context_window=1000, supports=frozenset({"tools"})),
        Model(
            "machine", "vllm", "M", "self", Price("hour", machine=Machine(2 * 10**9, 20000, 2000)), max_output_tokens=64
        ),
        Model("cheap", "deepseek", "D", price=priced(1, 2), timeouts=Timeouts(attempt=30.0, total=90.0)),
        Model("dear", "openai", "gpt-5", price=priced(10, 40), supports=frozenset({"tools", "images", "reasoning"})),
        Model("unpriced", "openai", "U"),
        Model("asleep", "openai", "A", disabled="OPENAI_API_KEY is not set"),
        Model("openai/*", "openai", "", prices={"gpt-9": priced(9, 9)}),
        Model("openai/eu/*", "eu", "", price=priced(7, 7)),
    )
}
DIRECT = Route("direct", (), timeouts=Timeouts(total=100.0, idle=7.0), retries=3, baseline="dear")


def rules(*routes: Route) -> Rules:
    return Rules(MODELS, (), routes, DIRECT)


def use(*names: str, name: str = "r", **more: Any) -> Route:
    return Route(name, tuple(map(Candidate, names)), **more)


def call(model: str = "auto", text: str = "hi", headers: dict[str, str] | None = None, **members: Any) -> Call:
    body = {"model": model, "messages": [{"role": "user", "content": text}], **members}
    raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    return parse(Endpoint.CHAT, raw, json.dumps(body).encode(), CODEC)


ANYBODY = Principal()


def planned(
    rules: Rules, it: Call | None = None, who: Principal = ANYBODY, task: str = "default", **signals: Any
) -> Plan:
    return plan(rules, it or call(), Task(task, 1.0, "why"), who, Signals(**signals))


def names(plan: Plan) -> list[str]:
    return [target.model.name for target in plan.targets]


OPTED_IN = use("cheap", name="opted", match=Match(model=("dear", "auto")))
GLOB = use("cheap", name="glob", match=Match(model=("*",)))
TASKED = use("small", name="tasked", match=Match(task=("coding",)))


@pytest.mark.parametrize(
    ("routes", "model", "task", "route", "first", "upstream"),
    [
        ((GLOB,), "dear", "default", "direct", "dear", "gpt-5"),
        ((GLOB,), "auto", "default", "glob", "cheap", "D"),
        ((OPTED_IN,), "dear", "default", "opted", "cheap", "D"),
        ((TASKED, OPTED_IN), "dear", "coding", "tasked", "small", "S"),
        ((TASKED, GLOB), "dear", "coding", "direct", "dear", "gpt-5"),
        ((TASKED, OPTED_IN, GLOB), "auto", "default", "opted", "cheap", "D"),
        ((GLOB, OPTED_IN), "auto", "default", "glob", "cheap", "D"),
        ((OPTED_IN._replace(match=Match(model=("dear",), team=("x",))),), "dear", "default", "direct", "dear", "gpt-5"),
        ((GLOB,), "openai/gpt-9", "default", "direct", "openai/*", "gpt-9"),
        ((GLOB,), "openai/eu/x/y", "default", "direct", "openai/eu/*", "x/y"),
        ((GLOB,), "openai/", "default", "glob", "cheap", "D"),
        ((use("openai/*", match=Match(model=("openai/a",))),), "openai/a", "default", "r", "openai/*", "a"),
        ((use("openai/b"),), "auto", "default", "r", "openai/*", "b"),
    ],
)
def test_what_model_may_be(
    routes: tuple[Route, ...], model: str, task: str, route: str, first: str, upstream: str
) -> None:
    it = planned(rules(*routes), call(model), task=task)
    assert (it.route, it.targets[0].model.name, it.targets[0].upstream_name) == (route, first, upstream)


def test_a_direct_plan_follows_the_defaults() -> None:
    it = planned(rules(GLOB), call("openai/gpt-9"))
    (target,) = it.targets
    assert (it.retries, it.baseline, it.total) == (3, MODELS["dear"], 100.0)
    assert (target.price, target.why, target.fallback) == (priced(9, 9), "named by the client", False)
    assert list(it.passed_over) == [Skipped("glob", "the client named a model that this route does not name literally")]
    assert planned(rules(), call("openai/eu/x")).targets[0].price == priced(7, 7)
    assert planned(rules(), call("openai/new")).targets[0].price is None


@pytest.mark.parametrize(
    ("match", "holds", "unmet"),
    [
        (Match(), True, ""),
        (Match(model=("auto", "x")), True, ""),
        (Match(model=("a*",)), True, ""),
        (Match(model=("A*", "b")), False, "model is auto, not A* or b"),
        (Match(task=("cod*",)), True, ""),
        (Match(task=("support",)), False, "task is coding, not support"),
        (Match(key=("ci",), team=("plat*",)), True, ""),
        (Match(key=("ci",), team=("other",)), False, "team is platform, not other"),
        (Match(key=("other",)), False, "key is ci, not other"),
        (Match(tag=("x", "header")), True, ""),
        (Match(tag=("of-k*",)), True, ""),
        (Match(tag=("x",)), False, "tag is header or of-key, not x"),
        (Match(has=frozenset({"images", "tools"})), True, ""),
        (Match(has=frozenset({"images", "audio"})), False, "has is tools, not audio or images"),
        (Match(min_input_tokens=10, max_input_tokens=1000), True, ""),
        (Match(min_input_tokens=1000), False, "min_input_tokens is 1000, the input has about 106"),
        (Match(max_input_tokens=99), False, "max_input_tokens is 99, the input has about 106"),
    ],
)
def test_match(match: Match, holds: bool, unmet: str) -> None:
    who = Principal("ci", "platform", tags=frozenset({"of-key"}))
    it = call(text="x" * 400, tools=[{"type": "function"}], headers={"x-gateway-tags": "header"})
    found = planned(rules(use("dear", name="first", match=match), use("dear", name="last")), it, who, task="coding")
    assert found.route == ("first" if holds else "last")
    assert [tuple(each) for each in found.passed_over] == ([] if holds else [("first", unmet)])
    assert len(found.passed_over) == len(tuple(found.passed_over)) == (0 if holds else 1)


NAMES = st.sampled_from(["a", "b", "c", "b*", "*"])


@given(st.lists(st.tuples(*[st.none() | st.lists(NAMES, min_size=1, max_size=2)] * 2), max_size=6), NAMES, NAMES)
def test_the_index_finds_the_first_match(
    matches: list[tuple[list[str] | None, list[str] | None]], model: str, task: str
) -> None:
    def hold(wanted: list[str] | None, name: str) -> bool:
        return wanted is None or "*" in wanted or name in wanted or ("b*" in wanted and name.startswith("b"))

    routes = [
        use("cheap", name=f"r{place}", match=Match(model=models and tuple(models), task=tasks and tuple(tasks)))  # type: ignore[arg-type] # None or a tuple
        for place, (models, tasks) in enumerate(matches)
    ]
    routes.append(use("cheap", name="else"))
    expected = [
        f"r{place}" for place, (models, tasks) in enumerate(matches) if hold(models, model) and hold(tasks, task)
    ]
    assert planned(rules(*routes), call(model), task=task).route == [*expected, "else"][0]


def test_a_key_may_use_only_what_it_allows() -> None:
    who = Principal("ci", allow=("auto", "ch*"))
    assert planned(rules(GLOB), call("auto"), who).route == "glob"
    with pytest.raises(RequestError) as error:
        planned(rules(GLOB), call("dear"), who)
    assert (error.value.status, error.value.type, error.value.code) == (403, "permission_error", "permission_denied")
    assert visible_models(rules(GLOB, OPTED_IN), who) == ["auto", "cheap"]


def test_visible_models() -> None:
    everything = ["auto", "cheap", "dear", "machine", "small", "unpriced"]
    assert visible_models(rules(GLOB, OPTED_IN), Principal()) == everything


def test_an_unknown_model_is_404_with_what_the_key_may_use() -> None:
    with pytest.raises(RequestError, match="'chaep' does not exist; did you mean cheap") as error:
        planned(rules(OPTED_IN), call("chaep"))
    assert (error.value.status, error.value.code, error.value.param) == (404, "model_not_found", "model")
    with pytest.raises(RequestError, match=r"'chaep' does not exist$"):
        planned(rules(OPTED_IN), call("chaep"), Principal(allow=("chaep", "auto")))


@pytest.mark.parametrize(
    ("order", "expected", "why"),
    [
        ("listed", ["dear", "unpriced", "cheap", "machine", "small"], "listed 1st"),
        ("cheapest", ["small", "machine", "cheap", "dear", "unpriced"], "cheapest: unmetered"),
        ("least_busy", ["unpriced", "cheap", "small", "dear", "machine"], "0 in flight"),
    ],
)
def test_orders(order: str, expected: list[str], why: str) -> None:
    route = use("dear", "unpriced", "cheap", "machine", "small", order=order)
    it = planned(rules(route), in_flight={"dear": 1, "machine": 2})
    assert names(it) == expected
    assert it.targets[0].why == why


def test_cheapest_counts_the_input_and_the_capped_output() -> None:
    reader = Model("reader", "p", "r", price=priced(1, 10))
    writer = Model("writer", "p", "w", price=priced(10, 1))
    short = Model("short", "p", "s", price=priced(1, 50), max_output_tokens=10)
    it = Rules(
        {each.name: each for each in (reader, writer, short)},
        (),
        (use("writer", "reader", "short", order="cheapest"),),
        DIRECT,
    )
    assert names(planned(it, call(text="x" * 4000, max_tokens=10))) == ["reader", "short", "writer"]
    assert names(planned(it, call(text="x" * 40, max_tokens=1000))) == ["short", "writer", "reader"]
    assert names(planned(it, call(text="x" * 40))) == ["short", "writer", "reader"]
    for n, usd in ((1, "0.0002"), (3, "0.0004")):
        first = planned(it, call(text="x" * 40, max_tokens=100, n=n)).targets[0]
        assert (first.model.name, first.why) == ("writer", f"cheapest: ${usd} expected for this request")


def test_weights_decide_every_place() -> None:
    route = Route(
        "r",
        (Candidate("dear", 1), Candidate("cheap", 3), Candidate("small", 0), Candidate("machine", 6)),
        order="weighted",
    )
    rolls = 10_000
    shuffles = Counter(tuple(names(planned(rules(route), roll=roll / rolls))) for roll in range(rolls))
    assert {shuffle[-1] for shuffle in shuffles} == {"small"}
    for shuffle, count in shuffles.items():
        weights = [{"dear": 1, "cheap": 3, "machine": 6}[name] for name in shuffle[:3]]
        share = weights[0] / 10 * weights[1] / (10 - weights[0])
        assert count == pytest.approx(share * rolls, abs=2)
    assert len(shuffles) == 6


@given(st.floats(0, 1, exclude_max=True), st.lists(st.floats(0.001, 1000), min_size=1, max_size=5))
def test_weighted_keeps_every_candidate(roll: float, weights: list[float]) -> None:
    listed = ["dear", "cheap", "small", "machine", "unpriced"][: len(weights)]
    route = Route("r", tuple(map(Candidate, listed, weights)), order="weighted")
    assert sorted(names(planned(rules(route), roll=roll))) == sorted(listed)


def test_fallbacks_follow_and_what_cannot_serve_is_skipped() -> None:
    route = use(
        "small", "asleep", "dear", match=Match(), order="cheapest", fallback=("dear", "cheap", "small", "unpriced")
    )
    picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    it = planned(rules(route), call(messages=picture))
    assert [(target.model.name, target.fallback) for target in it.targets] == [
        ("dear", False),
        ("cheap", True),
        ("unpriced", True),
    ]
    assert it.targets[1].why == "fallback 2nd"
    assert it.skipped == (
        Skipped("asleep", "disabled: OPENAI_API_KEY is not set"),
        Skipped("dear", "given twice"),
        Skipped("small", "given twice"),
        Skipped("small", "does not support images"),
    )


@pytest.mark.parametrize(("characters", "fits"), [(4000, True), (4001, False)])
def test_the_context_window(characters: int, fits: bool) -> None:
    it = planned(rules(use("small", "cheap")), call(text="x" * characters))
    assert names(it) == (["small", "cheap"] if fits else ["cheap"])
    assert fits or it.skipped == (Skipped("small", "context window of 1000 tokens is too small for about 1001"),)


SCHEMA = {"response_format": {"type": "json_schema"}}


@pytest.mark.parametrize(
    ("route", "members", "code", "param", "parts"),
    [
        (use("small"), SCHEMA, None, "response_format", ["small: does not support JSON schemas"]),
        (
            use("small", "dear"),
            {"modalities": ["audio"]},
            None,
            "messages",
            ["small: does", "dear: does not support audio"],
        ),
        (use("small"), {"text": "x" * 5000}, "context_length_exceeded", "messages", ["of 1000 tokens", "about 1250"]),
        (use("small", "dear"), {"text": "x" * 5000, **SCHEMA}, None, "response_format", ["small", "dear"]),
        (
            use("asleep", "small"),
            SCHEMA,
            None,
            "response_format",
            ["asleep: disabled: OPENAI_API_KEY is not set", "small"],
        ),
        (use("openai/*"), {}, None, "model", ["openai/*: the requested name does not fit it"]),
    ],
)
def test_no_model_can(route: Route, members: dict[str, Any], code: str | None, param: str, parts: list[str]) -> None:
    with pytest.raises(RequestError) as error:
        planned(rules(route), call(**members))
    assert (error.value.status, error.value.type, error.value.code) == (400, "invalid_request_error", code)
    assert error.value.param == param
    assert all(part in error.value.message for part in parts)


def test_all_are_disabled() -> None:
    for it in (planned, lambda r: planned(r, call("asleep"))):
        with pytest.raises(RouteExhausted, match="asleep: disabled: OPENAI_API_KEY is not set") as error:
            it(rules(use("asleep")))
        assert (error.value.status, error.value.code) == (503, "no_healthy_upstream")


def test_timeouts_route_then_model_then_defaults_then_built_in() -> None:
    route = use("cheap", "dear", timeouts=Timeouts(connect=1.0, attempt=20.0))
    it = planned(rules(route))
    assert it.targets[0].timeouts == Timeouts(connect=1.0, attempt=20.0, first_token=60.0, idle=7.0, total=90.0)
    assert it.targets[1].timeouts == Timeouts(connect=1.0, attempt=20.0, first_token=600.0, idle=7.0, total=100.0)
    assert it.total == 100.0
    assert planned(rules(), call("cheap")).targets[0].timeouts == Timeouts(3.0, 30.0, 60.0, 7.0, 90.0)


@pytest.mark.parametrize(("header", "total"), [("2.5", 2.5), ("9999", 100.0)])
def test_the_clients_timeout_only_shortens(header: str, total: float) -> None:
    it = planned(rules(use("dear")), call(headers={"x-gateway-timeout": header}))
    assert (it.total, it.targets[0].timeouts.total) == (total, total)


def test_known_tasks_are_those_that_routes_name_literally() -> None:
    routes = (use("cheap", match=Match(task=("billing", "cod*"))), use("cheap", match=Match(task=("support",))))
    assert rules(*routes).known_tasks == {"billing", "support"}


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("0.01", ["dear", "cheap"]), ("0.0000015", ["cheap"]), ("0.0000001", None)],
)
def test_a_client_may_limit_the_cost(limit: str, expected: list[str] | None) -> None:
    """1,000 tokens out: $0.000004 on the dear one, $0.000001 on the cheap one."""
    body = b'{"model": "auto", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1000}'
    asked = parse(Endpoint.CHAT, [(b"x-gateway-max-cost-usd", limit.encode())], body, CODEC)
    prices = {
        name: Price("", rates=Rates(0, 0, 0, rate, rate)) for name, rate in (("dear", 4 * 10**6), ("cheap", 10**6))
    }
    models = {name: Model(name, "p", name, price=price) for name, price in prices.items()}
    models["unknown"] = Model("unknown", "p", "unknown")
    route = Route("r", use=(Candidate("dear"), Candidate("unknown"), Candidate("cheap")))
    rules = Rules(models, (), (route,), Route("direct", use=()))
    task = Task("default", 1.0, "")
    if expected is None:
        with pytest.raises(RequestError) as raised:
            plan(rules, asked, task, Principal(), Signals())
        assert (raised.value.status, raised.value.code) == (400, "max_cost_exceeded")
        assert raised.value.param == "x-gateway-max-cost-usd"
    else:
        found = plan(rules, asked, task, Principal(), Signals())
        assert [target.model.name for target in found.targets] == expected
        assert "unknown" in [skipped.what for skipped in found.skipped]
