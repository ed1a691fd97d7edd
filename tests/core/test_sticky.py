"""Which conversation a call belongs to, whether its model must stay, and what a plan makes of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.call import Call, Endpoint, Principal, parse
from gateway.core.routing import Candidate, Plan, Route, Rules, Signals, plan
from gateway.core.rules import Standing
from gateway.core.sticky import conversation_key, must_stick, roll_of, session_key
from gateway.core.tasks import Task
from gateway.wire import CODEC

from .models import MODELS

TOOLS = [{"type": "function", "function": {"name": "f"}}]
SYSTEM = {"role": "system", "content": "You help."}
USER = {"role": "user", "content": 'Say "hello" é'}
SAID = {"role": "assistant", "content": "Hello."}
CALLED = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {}}]}


def call(*messages: dict[str, Any], session: str = "", indent: int | None = None, **more: Any) -> Call:
    body = {"model": "auto", "messages": messages or (USER,), **more}
    headers = [(b"x-session-id", session.encode())] if session else []
    return parse(Endpoint.CHAT, headers, json.dumps(body, indent=indent, ensure_ascii=False).encode(), CODEC)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ((SYSTEM, USER), (SYSTEM, USER, SAID, USER), True),
        ((USER,), (USER, CALLED, {"role": "tool", "tool_call_id": "1", "content": "x"}), True),
        ((SYSTEM, USER), (USER,), False),
        ((SYSTEM, USER), ({**SYSTEM, "role": "developer"}, USER), False),
        ((USER,), ({**USER, "content": "Bye."},), False),
        ((SYSTEM,), (SYSTEM,), True),
        ((SAID, USER, SAID), (SAID, USER), True),
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_a_conversation_is_known_by_how_it_began(one: Any, other: Any, same: bool, indent: int | None) -> None:
    keys = [session_key(call(*messages, indent=indent)) for messages in (one, other)]
    assert (keys[0] == keys[1]) is same
    assert len(keys[0]) == 32


def test_the_clients_own_id_goes_first() -> None:
    assert session_key(call(USER, session="s-1")) == "s-1"


def test_responses_are_known_by_how_they_began_too() -> None:
    def key(given: Any) -> str:
        return session_key(parse(Endpoint.RESPONSES, [], json.dumps({"model": "m", "input": given}).encode(), CODEC))

    call_item = {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}
    assert key([USER]) == key([USER, call_item, {"type": "function_call_output", "call_id": "1", "output": "x"}])
    assert key([USER]) != key([{**USER, "content": "Bye."}])
    assert key("Hi") != key("Bye")


def test_what_is_no_chat_has_no_conversation_without_an_id() -> None:
    for endpoint, member in ((Endpoint.EMBEDDINGS, "input"), (Endpoint.COMPLETIONS, "prompt")):
        body = json.dumps({"model": "m", member: "x"}).encode()
        assert session_key(parse(endpoint, [], body, CODEC)) == ""
        assert session_key(parse(endpoint, [(b"x-session-id", b"s")], body, CODEC)) == "s"


@pytest.mark.parametrize("opening", ["x" * 100_000, "x" * 65_000, [[[[]]]] * 40_000])
def test_a_long_opening_is_looked_at_in_part(opening: Any) -> None:
    first = {"role": "user", "content": opening}
    assert session_key(call(first)) == session_key(call(first, SAID, USER))
    assert session_key(call(first)) != session_key(call(USER, first))


@given(st.lists(st.sampled_from([SYSTEM, SAID, CALLED]), max_size=3), st.text(), st.lists(st.just(SAID), max_size=3))
def test_the_key_never_changes_as_the_conversation_goes_on(before: list[Any], text: str, after: list[Any]) -> None:
    opening = [*before, {"role": "user", "content": text}]
    assert session_key(call(*opening)) == session_key(call(*opening, *after, USER))


SIGNED = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}


@pytest.mark.parametrize(
    ("message", "sticks"),
    [
        (USER, False),
        (SYSTEM, False),
        (SAID, False),
        ({**SAID, "tool_calls": None, "refusal": None}, False),
        ({**SAID, "tool_calls": []}, False),
        ({**SAID, "content": [{"type": "text", "text": '"tool_calls": [{}]'}]}, False),
        ({**SAID, "reasoning_content": "Hm."}, False),
        ({**SAID, "thinking": "Hm."}, False),
        ({**SAID, "content": [{"type": "thinking", "thinking": "Hm."}]}, False),
        ({**SAID, "content": [{"type": "text", "text": "x", "signature": "of no thinking"}]}, False),
        ({"role": "user", "content": [{"type": "image", "data": "x"}]}, False),
        (CALLED, True),
        ({**SAID, "function_call": {"name": "f", "arguments": "{}"}}, True),
        ({"role": "tool", "content": "x"}, True),
        ({"role": "function", "name": "f", "content": "x"}, True),
        ({**SAID, "content": [{"type": "text", "text": "x"}, {"type": "tool_use", "id": "1"}]}, True),
        ({**SAID, "content": [SIGNED]}, True),
        ({**SAID, "content": [{"type": "redacted_thinking", "data": "ZW5j"}]}, True),
        ({**SAID, "thinking_blocks": [SIGNED]}, True),
        ({**SAID, "reasoning_details": [{"type": "reasoning.encrypted", "data": "ZW5j"}]}, True),
        ({**SAID, "reasoning_details": [{"type": "reasoning.text", "text": "Hm.", "signature": "c2ln"}]}, True),
        ({**SAID, "reasoning_details": [{"type": "reasoning.summary", "summary": "Hm.", "signature": None}]}, False),
        ({**SAID, "extra_content": {"google": {"thought_signature": "c2ln"}}}, True),
        ({**SAID, "thinking": [[[[[[[[[]]]]]]]]]}, False),
    ],
)
def test_what_ties_a_conversation_to_its_model(message: dict[str, Any], sticks: bool) -> None:
    assert must_stick(call(USER, message, USER)) is sticks


def test_rolls_of_conversations_are_even() -> None:
    rolls = [roll_of(conversation_key(Principal(), "r", str(number))) for number in range(4000)]
    assert all(0.0 <= roll < 1.0 for roll in rolls)
    assert sum(roll < 0.25 for roll in rolls) == pytest.approx(1000, abs=140)
    assert roll_of(b"\xff" * 16) < 1.0


def test_keys_tell_callers_and_routes_apart() -> None:
    keys = [conversation_key(Principal(key), route, "1") for key in ("", "a", "b") for route in ("r", "q")]
    assert len(set(keys)) == len(keys)
    assert {len(key) for key in keys} == {16}


CALLER = Principal("caller")


def planned(route: Route, it: Call, kept: tuple[str, str] | None = None, **signals: Any) -> Plan:
    rules = Rules(MODELS, (), (route,), Route("direct", ()))
    memory = {} if kept is None else {conversation_key(CALLER, route.name, session_key(it)): kept}
    return plan(rules, it, Task("default", 1.0, "why"), CALLER, Signals(kept=memory, **signals))


def route(*names: str, **more: Any) -> Route:
    return Route("r", tuple(map(Candidate, names)), **more)


LISTED = route("a", fallback=("b",))
STICKY = route("a", fallback=("b",), sticky=True)
OPEN = Standing("breaker open")


@pytest.mark.parametrize(
    ("it", "by", "kept", "standing", "models"),
    [
        (call(), LISTED, ("b", "default"), {}, "ab"),
        (call(), STICKY, None, {}, "ab"),
        (call(), STICKY, ("b", "default"), {}, "ba"),
        (call(), STICKY, ("gone", "default"), {}, "ab"),
        (call(), STICKY, ("b", "default"), {("b", "default"): OPEN}, "a"),
        (call(), STICKY, ("b", "default"), {("a", "default"): OPEN}, "b"),
        (call(), STICKY, ("b", "default"), {("a", "default"): Standing(share=0.5)}, "ba"),
        (call(), STICKY, ("b", "default"), {("b", "default"): Standing(share=0.1)}, "ba"),
        (call(USER, CALLED), LISTED, None, {}, "ab"),
        (call(USER, CALLED), LISTED, ("b", "default"), {}, "ba"),
        (call(USER, CALLED, session="s"), LISTED, ("b", "default"), {}, "ba"),
    ],
)
def test_the_model_that_served_it_goes_first(
    it: Call, by: Route, kept: tuple[str, str] | None, standing: dict[tuple[str, str], Standing], models: str
) -> None:
    found = planned(by, it, kept, standing=standing).targets
    assert "".join(target.model.name for target in found) == models
    if models[0] == "b" and len(models) == 2:
        assert found[0].why == "kept for this conversation"


def test_others_conversations_are_not_ones_own() -> None:
    it = call(session="1")
    rules = Rules(MODELS, (), (STICKY,), Route("direct", ()))
    memory = {conversation_key(Principal("other"), "r", "1"): ("b", "default")}
    found = plan(rules, it, Task("default", 1.0, "why"), CALLER, Signals(kept=memory))
    assert found.targets[0].model.name == "a"


def test_a_kept_model_keeps_its_replica() -> None:
    by = route("a", "two", sticky=True)
    it = call(session="s")
    for name in "xy":
        found = planned(by, it, ("two", name)).targets
        assert [(target.model.name, target.replica.name) for target in found[:2]] == [
            ("two", name),
            ("two", "yx"["xy".index(name)]),
        ]
        assert found[0].why == f"kept for this conversation, replica {name}: kept for this conversation"


def test_a_kept_replica_does_not_keep_the_model_where_the_route_is_not_sticky() -> None:
    found = planned(route("a", "two"), call(session="s"), ("two", "y")).targets
    assert [(target.model.name, target.replica.name) for target in found] == [
        ("a", "default"),
        ("two", "y"),
        ("two", "x"),
    ]


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20), st.floats(0, 0.99))
def test_weights_draw_a_sticky_conversation_once(session: str, roll: float) -> None:
    by = route("a", "b", order="weighted", sticky=True)
    first = planned(by, call(session=session), roll=roll).targets
    assert planned(by, call(USER, SAID, USER, session=session), roll=0.5).targets[0] == first[0]


def test_weights_are_kept_over_many_sticky_conversations() -> None:
    by = Route("r", (Candidate("a", 3), Candidate("b")), order="weighted", sticky=True)
    firsts = [planned(by, call(session=f"s{number}")).targets[0].model.name for number in range(1000)]
    assert firsts.count("a") == pytest.approx(750, abs=70)


@pytest.mark.parametrize(
    ("it", "by", "known", "anew"),
    [
        (call(), route("a"), None, ""),
        (call(), route("a", sticky=True), None, ""),  # there is nothing else to move to
        (call(), LISTED, None, ""),
        (call(tools=TOOLS), LISTED, False, "a"),
        (call(tools=TOOLS), route("a", "b", order="weighted"), False, ""),
        (call(), route("a", "thinks"), False, "a"),
        (call(USER, CALLED), LISTED, True, "a"),
        (call(USER, CALLED), route("a", "b", order="cheapest"), True, ""),
        (call(), STICKY, True, "a"),
        (call(), route("two"), True, "two"),
        (call(), route("two", order="least_busy"), True, "two"),
    ],
)
def test_what_is_to_be_remembered(it: Call, by: Route, known: bool | None, anew: str) -> None:
    """`known`: whether the conversation had to be worked out; None where nothing is remembered."""
    found = planned(by, it).conversation
    assert (None if found is None else bool(found.key)) is known
    assert found is None or found.anew == anew
