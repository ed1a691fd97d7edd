"""Who keeps a response: for how long that is remembered, what the other workers are told, what a plan makes of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway import owners as module
from gateway.core.call import Call, Endpoint, Principal, parse
from gateway.core.failures import Kind, Refusal
from gateway.core.routing import Candidate, Plan, Route, Rules, Signals, plan
from gateway.core.rules import Model, Replica, Target, Timeouts
from gateway.core.stored import judged, owner_key, response_id, stored
from gateway.core.tasks import Task
from gateway.errors import RequestError
from gateway.owners import KEPT, Owners
from gateway.wire import CODEC

NATIVE = frozenset({"responses"})
MODELS = {
    "chat": Model("chat", "p", "chat-up"),
    "a": Model("a", "p", "a-up", apis=NATIVE, replicas=(Replica("one"), Replica("two"))),
    "b": Model("b", "p", "b-up", apis=NATIVE),
}
RULES = Rules(MODELS, (), (Route("r", (Candidate("chat"), Candidate("a")), fallback=("b",)),), Route("direct", ()))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def call(**more: Any) -> Call:
    return parse(Endpoint.RESPONSES, [], json.dumps({"model": "auto", "input": "Hi", **more}).encode(), CODEC)


def target(model: str, replica: int = 0) -> Target:
    return Target(MODELS[model], "", None, Timeouts(), False, "", MODELS[model].replicas[replica])


def planned(owners: Owners, **more: Any) -> Plan:
    return plan(RULES, call(**more), Task("default", 1.0, "why"), Principal(), Signals(owners=owners))


def test_other_workers_are_told() -> None:
    told: list[bytes] = []
    here, there = Owners(told.append), Owners()
    here.made("resp_1", target("a", 1))
    there.take(told[0])
    there.take(b"nonsense")
    assert here.get(owner_key("resp_1")) == there.get(owner_key("resp_1")) == ("a", "two")
    assert there.get(owner_key("resp_2")) is None
    assert len(there) == 1


def test_what_is_old_or_too_much_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 10)
    clock = Clock()
    owners = Owners(clock=clock)
    for number in range(100):
        owners.made(f"resp_{number}", target("b"))
    assert len(owners) == 10
    assert owners.get(owner_key("resp_89")) is None
    assert owners.get(owner_key("resp_90")) == ("b", "default")
    clock.now = KEPT + 1
    assert owners.get(owner_key("resp_99")) is None
    owners.made("resp_new", target("b"))
    owners.made("resp_newer", target("b"))
    assert len(owners) == 8, "two of the old ones for each that came"


@pytest.mark.parametrize("replica", [0, 1])
def test_the_owner_alone_is_asked(replica: int) -> None:
    owners = Owners()
    owners.made("resp_1", target("a", replica))
    made = planned(owners, previous_response_id="resp_1")
    assert [(each.model.name, each.replica.name) for each in made.targets] == [("a", ("one", "two")[replica])]
    assert "keeps the previous response" in made.targets[0].why
    owners.made("resp_2", target("b"))
    (only,) = planned(owners, previous_response_id="resp_2").targets
    assert only.model.name == "b"
    assert not only.fallback


def test_an_owner_that_the_route_does_not_have() -> None:
    owners = Owners()
    owners.made("resp_1", target("b"))
    rules = Rules(MODELS, (), (Route("r", (Candidate("a"),)),), Route("direct", ()))
    with pytest.raises(RequestError, match="kept by the model b") as caught:
        plan(rules, call(previous_response_id="resp_1"), Task("d", 1.0, ""), Principal(), Signals(owners=owners))
    assert (caught.value.status, caught.value.param, caught.value.route) == (400, "previous_response_id", "r")


def test_nobody_knows_the_owner() -> None:
    for more in ({"previous_response_id": "resp_1"}, {"conversation": {"id": "conv_1"}}, {"prompt": {"id": "pmpt_1"}}):
        made = planned(Owners(), **more)
        assert [each.model.name for each in made.targets] == ["a"]
        assert {skipped.what for skipped in made.skipped} == {"chat", "b"}
    assert len(planned(Owners()).targets) == 4, "nothing is kept: every model and endpoint may answer"


def test_what_refers_to_something_that_is_kept() -> None:
    assert stored(call()) == ()
    assert stored(call(previous_response_id=None, input=[{"role": "user", "content": "Hi"}])) == ()
    assert stored(call(conversation="c")) == ("conversation",)
    drawn = {"type": "image_generation_call", "id": "x"}
    for item in ({"type": "item_reference", "id": "x"}, {"id": "x"}, drawn):
        assert stored(call(input=[item])) == ("input: item_reference",)
    assert stored(call(input=[{**drawn, "result": "AAAA"}])) == ()


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"output":[{"id":"msg_1"}],"id":"resp_1"}', "resp_1"),
        (b'event: x\ndata: {"type":"x","response":{"id":"resp_1"}}\n\n', "resp_1"),
        (b': ping\n\ndata: {"type":"y"}\n\ndata: {"response":{"id":"resp_1"}}\n\n', "resp_1"),
        (b'{"id":7}', ""),
        (b"<html>", ""),
        (b"data: [DONE]\n\n", ""),
    ],
)
def test_the_id_of_a_response(body: bytes, found: str) -> None:
    assert response_id(body, CODEC) == found


@pytest.mark.parametrize(
    ("message", "status", "kind"),
    [
        ("Response with id 'resp_abcdef' not found.", 404, None),
        ("Item with id 'rs_abcdef' not found.", 404, Kind.ACCOUNT),  # an id that the client did not send
        ("The model `gpt_unknown` does not exist", 404, Kind.ACCOUNT),
        ("Response with id 'resp_abcdef' not found.", 500, Kind.SERVER_ERROR),
    ],
)
def test_whose_fault_a_404_is(message: str, status: int, kind: Kind | None) -> None:
    asked = call(previous_response_id="resp_abcdef", model="gpt_unknown")
    assert judged(asked, status, {}, Refusal(message)) is kind
