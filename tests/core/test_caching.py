"""Which answers may be given again, and to whom."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.core.caching import Policy, key, policy
from gateway.core.call import Call, Endpoint, Principal, parse
from gateway.wire import CODEC

HELLO = [{"role": "user", "content": "Hello"}]
REMOTE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]}]


def call(endpoint: Endpoint = Endpoint.CHAT, headers: dict[str, str] | None = None, **members: Any) -> Call:
    content: dict[Endpoint, dict[str, Any]] = {
        Endpoint.CHAT: {"messages": HELLO},
        Endpoint.MESSAGES: {"messages": HELLO},
        Endpoint.COMPLETIONS: {"prompt": "x"},
    }
    body = {"model": "auto", **content.get(endpoint, {"input": "x"}), **members}
    given = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    return parse(endpoint, given, json.dumps(body).encode(), CODEC)


@pytest.mark.parametrize(
    ("asked", "why_not"),
    [
        (call(temperature=0), ""),
        (call(temperature=0.0, stream=True), ""),
        (call(Endpoint.COMPLETIONS, temperature=0), ""),
        (call(Endpoint.MESSAGES, temperature=0), ""),
        (call(Endpoint.EMBEDDINGS), ""),
        (call(Endpoint.RESPONSES, temperature=0, store=False), ""),
        (call(), "temperature is not 0"),
        (call(temperature=None), "temperature is not 0"),
        (call(temperature=False), "temperature is not 0"),
        (call(temperature=0.1), "temperature is not 0"),
        (call(temperature=0, n=2), "several answers are asked for"),
        (call(temperature=0, messages=REMOTE), "an image or file is only an address"),
        (call(temperature=0, web_search_options={}), "`web_search_options`"),
        (call(temperature=0, tools=[{"type": "web_search"}]), "a tool that the provider runs"),
        (call(temperature=0, tools=[{"type": "function", "function": {"name": "f"}}]), ""),
        (
            call(Endpoint.RESPONSES, temperature=0),
            "the provider keeps it under an id (`store` is not false)",
        ),
        (call(Endpoint.RESPONSES, temperature=0, store=False, previous_response_id="r"), "`previous_response_id`"),
        (call(headers={"cache-control": "no-store"}, temperature=0), "cache-control: no-store"),
    ],
)
def test_policy(asked: Call, why_not: str) -> None:
    assert policy(asked) == Policy(read=not why_not, keep=not why_not, why_not=why_not)


@pytest.mark.parametrize("value", ["no-cache", "max-age=0", "max-age=0, No-Cache", "max-age=0,no-transform"])
def test_a_wish_for_a_fresh_answer(value: str) -> None:
    assert policy(call(headers={"cache-control": value}, temperature=0)) == Policy(False, True)


@pytest.mark.parametrize("values", [("no-store", "max-age=60"), ("max-age=60", "no-store")])
def test_a_header_in_two_lines_is_one(values: tuple[str, str]) -> None:
    headers = [(b"Cache-Control", value.encode()) for value in values]
    asked = parse(Endpoint.CHAT, headers, call(temperature=0).body, CODEC)
    assert policy(asked) == Policy(False, False, "cache-control: no-store")


def test_everything_that_matters_is_in_the_key() -> None:
    plain = call(temperature=0)
    team, other = Principal("a", team="t"), Principal("b")
    keys = [
        key(plain, Principal(), "r", "c"),
        key(plain, team, "r", "c"),
        key(plain, other, "r", "c"),
        key(plain, Principal("t"), "r", "c"),  # a key that is called like a team
        key(plain, Principal(), "r2", "c"),
        key(plain, Principal(), "r", "c2"),
        key(plain, Principal(), "rc", ""),  # nothing runs into its neighbour
        key(call(temperature=0, stream=True), Principal(), "r", "c"),
        key(call(temperature=0.0, seed=1), Principal(), "r", "c"),
        key(call(Endpoint.MESSAGES, temperature=0), Principal(), "r", "c"),
        key(call(headers={"openai-beta": "x"}, temperature=0), Principal(), "r", "c"),
        key(call(headers={"anthropic-user-profile": "x"}, temperature=0), Principal(), "r", "c"),
        key(call(headers={"x-gateway-no-fallback": "true"}, temperature=0), Principal(), "r", "c"),
        key(call(headers={"x-gateway-max-cost-usd": "1"}, temperature=0), Principal(), "r", "c"),
    ]
    assert len(set(keys)) == len(keys)


def test_members_of_a_team_share() -> None:
    asked = call(temperature=0)
    assert key(asked, Principal("a", team="t"), "r", "c") == key(asked, Principal("b", team="t"), "r", "c")
    assert key(asked, Principal("a"), "r", "c") == key(
        call(headers={"x-request-id": "1"}, temperature=0), Principal("a"), "r", "c"
    )
