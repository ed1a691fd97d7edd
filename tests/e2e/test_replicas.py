"""Two servers of one model, and conversations that stay where they are: with loopback upstreams as endpoints."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import replies
from tests.servers import Gateway, until
from tests.upstream import Gate, Upstream

ROUTES = """
version: 1
providers:
  farm: {api_key: shared}
  api: {base_url: "@ONE@"}
models:
  qwen: {provider: farm, model: qwen-up, price: unmetered, endpoints: [{url: "@ONE@"}, {url: "@TWO@", api_key: own}]}
  uneven: {provider: farm, model: uneven-up, price: unmetered, endpoints: [{url: "@ONE@", weight: 3}, {url: "@TWO@"}]}
  left: {provider: api, model: left-up, price: unmetered}
  right: {provider: api, model: right-up, price: unmetered}
routes:
  - {name: chat, match: {model: auto}, use: [qwen], retries: 0}
  - {name: kept, match: {model: kept}, use: [left, right], order: weighted, sticky: session, retries: 0}
  - {name: drawn, match: {model: drawn}, use: [left, right], order: weighted, retries: 0}
"""
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
Pair = tuple[Upstream, Upstream]


@pytest.fixture(scope="module")
def both() -> Iterator[Pair]:
    with Upstream(replies.ok()) as one, Upstream(replies.ok()) as two:
        yield one, two


def routes_of(pair: Pair) -> str:
    return ROUTES.replace("@ONE@", pair[0].base_url).replace("@TWO@", pair[1].base_url)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, both: Pair) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("gateway"), routes_of(both)) as started:
        yield started


@pytest.fixture
def pair(both: Pair) -> Pair:
    for each in both:
        each.forget()
    return both


def ask(gateway: Gateway, text: str, model: str = "auto", session: str = "", **more: Any) -> httpx.Response:
    """Over a connection of its own, so that any worker may get it."""
    body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
    headers = {"connection": "close", **({"x-session-id": session} if session else {})}
    return gateway.post(json=body, headers=headers)


def served_by(pair: Pair, gateway: Gateway, text: str = "Hello.", session: str = "") -> int:
    """Which of the two answered; the request must be answered at once."""
    before = [len(each.billed) for each in pair]
    answer = ask(gateway, text, session=session)
    assert answer.status_code == 200, answer.text
    grown = [len(each.billed) - count for each, count in zip(pair, before, strict=True)]
    assert sorted(grown) == [0, 1]
    return grown.index(1)


def test_a_session_always_goes_to_the_same_server(gateway: Gateway, pair: Pair) -> None:
    seen = {f"s{n}": {served_by(pair, gateway, f"turn {n}", f"s{n}") for _ in range(3)} for n in range(24)}
    assert all(len(places) == 1 for places in seen.values())
    assert set.union(*seen.values()) == {0, 1}
    keys = [{request.header("authorization") for request in each.requests} for each in pair]
    assert keys == [{"Bearer shared"}, {"Bearer own"}]


def test_without_an_id_a_conversation_is_known_by_how_it_began(gateway: Gateway, pair: Pair) -> None:
    for number in range(12):
        opening = {"role": "user", "content": f"Question {number}"}
        later = [opening, {"role": "assistant", "content": "Hm."}, {"role": "user", "content": "Go on."}]
        first, second = (ask(gateway, "", messages=messages) for messages in ([opening], later))
        assert (first.status_code, second.status_code) == (200, 200)
    asked = [{tuple(request.json["messages"][0].values()) for request in each.requests} for each in pair]
    assert not asked[0] & asked[1]
    assert asked[0]
    assert asked[1]


def test_without_a_session_the_load_follows_the_weights(gateway: Gateway, pair: Pair) -> None:
    for _ in range(200):
        assert gateway.post("/v1/embeddings", json={"model": "uneven", "input": "x"}).status_code == 200
    assert 120 <= len(pair[0].requests) <= 178  # 150 expected, five standard deviations either way


def test_what_comes_meanwhile_goes_where_nothing_is_under_way(gateway: Gateway, pair: Pair) -> None:
    gate = Gate()
    for each in pair:
        each.always("qwen-up", replies.ok(gate=gate))
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(gateway.post, "/v1/embeddings", json={"model": "qwen", "input": "x"}) for _ in range(4)]
        pair[0].wait_for(lambda one: len(one.requests) == 2)
        pair[1].wait_for(lambda two: len(two.requests) == 2)
        gate.open()
    assert [each.result().status_code for each in asked] == [200] * 4


def test_after_a_failure_a_session_moves_and_stays(gateway: Gateway, pair: Pair) -> None:
    home = served_by(pair, gateway, session="mover")
    pair[home].script("qwen-up", replies.reset())
    moved = served_by(pair, gateway, session="mover")
    assert moved == 1 - home
    pair[home].forget()
    assert {served_by(pair, gateway, session="mover") for _ in range(5)} == {moved}
    assert not pair[home].requests


def test_when_a_server_dies_its_sessions_move_and_others_stay(tmp_path: Path) -> None:
    with Upstream(replies.ok()) as one, ExitStack() as stack:
        pair = (one, stack.enter_context(Upstream(replies.ok())))
        with Gateway(tmp_path, routes_of(pair)) as gateway:
            homes = {f"s{n}": served_by(pair, gateway, session=f"s{n}") for n in range(12)}
            assert set(homes.values()) == {0, 1}
            stack.close()
            for _ in range(2):
                assert {served_by(pair, gateway, session=session) for session in homes} == {0}


def test_a_sticky_session_keeps_its_model_until_it_fails(gateway: Gateway, pair: Pair) -> None:
    def model(session: str) -> str:
        return ask(gateway, "Hi.", "kept", session).headers["x-gateway-model"]

    seen = {f"s{n}": {model(f"s{n}") for _ in range(4)} for n in range(16)}
    assert all(len(models) == 1 for models in seen.values())
    assert set.union(*seen.values()) == {"left", "right"}
    (first,) = seen["s0"]
    pair[0].script(f"{first}-up", replies.reset())
    (other,) = {"left", "right"} - {first}
    assert [model("s0") for _ in range(5)] == [other] * 5


def test_a_history_of_tool_calls_is_not_moved_by_weight(gateway: Gateway, pair: Pair) -> None:
    del pair
    firsts = set()
    for number in range(24):
        messages: list[dict[str, Any]] = [{"role": "user", "content": f"Look at {number}."}]
        models = []
        for turn in range(3):
            answer = ask(gateway, "", "drawn", messages=messages, tools=TOOLS)
            models.append(answer.headers["x-gateway-model"])
            call = {"id": f"call_{turn}", "type": "function", "function": {"name": "look", "arguments": "{}"}}
            messages += [
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": f"call_{turn}", "content": "seen"},
            ]
        assert models == models[:1] * 3
        firsts.add(models[0])
    assert firsts == {"left", "right"}


def test_workers_tell_each_other_who_moved(tmp_path: Path, pair: Pair) -> None:
    with Gateway(tmp_path, routes_of(pair), args=["--workers", "2"]) as gateway:
        home = served_by(pair, gateway, session="mover")
        pair[home].script("qwen-up", replies.reset())
        assert served_by(pair, gateway, session="mover") == 1 - home
        pair[home].forget()

        def settled() -> bool:
            return {served_by(pair, gateway, session="mover") for _ in range(20)} == {1 - home}

        until("both workers to know", settled)


def test_check_and_explanations_show_them(gateway: Gateway, pair: Pair) -> None:
    names = [f"127.0.0.1:{each.port}" for each in pair]
    answer = gateway.chat("auto", headers={"x-gateway-dry-run": "true"})
    targets = answer.json()["targets"]
    assert sorted(target["replica"] for target in targets) == sorted(names)
    assert targets[0]["why"] == f"listed 1st, replica {targets[0]['replica']}: favourite of this conversation"


def test_attempts_name_their_replica(gateway: Gateway, pair: Pair) -> None:
    at = served_by(pair, gateway, session="named")
    answer = ask(gateway, "x", session="named")
    name = answer.headers["x-request-id"]
    (attempt,) = until("its row", lambda: gateway.rows("SELECT replica FROM attempts WHERE request_id = ?", name))
    assert attempt["replica"] == f"127.0.0.1:{pair[at].port}"
