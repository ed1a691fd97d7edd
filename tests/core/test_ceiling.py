"""What one attempt can cost at most: input, output, and what has no bound."""

from __future__ import annotations

import json
import unicodedata
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.call import Call, Endpoint, parse
from gateway.core.ceiling import LONG, TEMPLATE_TOKENS, TOOL_TOKENS, Ceiling, Unbounded, ceiling, input_bound
from gateway.core.pricing import Machine, Price, Rates, Tier, cost
from gateway.core.rules import Model, Target, Timeouts
from gateway.core.usage import Usage
from gateway.wire import CODEC

USD = 10**9
RICH = 10**15
IN, OUT = 2 * USD, 8 * USD  # nano-USD per million tokens
PRICE = Price("routes.yaml", Rates(IN, IN // 10, IN, OUT, OUT))
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
REMOTE = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}
HELLO = {"role": "user", "content": "hello"}
# What a tool showed, in the responses API.
SHOWN = {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image", "file_id": "file-1"}]}
PLAIN = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "https://a.b says so"}}
SCREEN = {"type": "computer_call_output", "output": {"type": "computer_screenshot", "image_url": "https://example.com"}}


def chat(*parts: object, **members: Any) -> Call:
    message = {"role": "user", "content": list(parts)} if parts else HELLO
    body = json.dumps({"model": "m", "messages": [message], **members}).encode()
    return parse(Endpoint.CHAT, [], body, CODEC)


def other(endpoint: Endpoint, **members: Any) -> Call:
    return parse(endpoint, [], json.dumps({"model": "m", **members}).encode(), CODEC)


def target(price: Price | None = PRICE, **model: Any) -> Target:
    made = Model("gpt", "openai", "gpt-5", price=price, **model)
    return Target(made, "gpt-5", price, Timeouts(), fallback=False, why="")


def written(found: Ceiling | Unbounded, call: Call, target: Target) -> float:
    """How many tokens of output a ceiling has room for."""
    assert isinstance(found, Ceiling)
    return (found.nano - input_bound(call, target) * IN // 1_000_000) * 1_000_000 / OUT


@pytest.mark.parametrize(
    ("members", "model", "room", "clamp", "expected"),
    [
        # the client's cap, never lowered
        ({"max_tokens": 100}, {}, (0, None), True, (100, None)),
        ({"max_completion_tokens": 100}, {}, (0, None), True, (100, None)),
        ({"max_completion_tokens": 100, "max_tokens": 700}, {}, (0, None), True, (700, None)),
        ({"max_tokens": 100, "n": 3}, {}, (0, None), True, (300, None)),
        ({"max_tokens": 100_000}, {"max_output_tokens": 8192}, (0, None), True, (100_000, None)),
        # none: the model's longest answer where a hundred of them fit
        ({}, {"max_output_tokens": 8192}, (RICH, None), True, (8192, None)),
        ({"n": 2}, {"max_output_tokens": 8192}, (RICH, None), True, (16384, None)),
        ({}, {}, (RICH, None), True, (4096, None)),
        # else a cap: four times what is usual, at least 4,096
        ({}, {"max_output_tokens": 65536}, (USD, None), True, (4096, 4096)),
        ({}, {"max_output_tokens": 65536}, (USD, 500), True, (4096, 4096)),
        ({}, {"max_output_tokens": 65536}, (USD, 5000), True, (20000, 20000)),
        ({}, {"max_output_tokens": 65536}, (USD, 60000), True, (65536, None)),
        ({}, {"max_output_tokens": 2048}, (USD, None), True, (2048, None)),
        ({}, {}, (0, 3000), True, (12000, 12000)),
        # clamp: false
        ({}, {"max_output_tokens": 65536}, (USD, None), False, (65536, None)),
        ({}, {}, (0, None), False, (4096, None)),
        # what the model's own settings make of it
        ({"max_tokens": 100}, {"set": {"max_tokens": 700}}, (0, None), True, (700, None)),
        (
            {"max_tokens": 100},
            {"drop": frozenset({"max_tokens"}), "max_output_tokens": 8192},
            (0, 1),
            True,
            (8192, None),
        ),
        ({"max_tokens": 100}, {"set": {"n": 4}}, (0, None), True, (400, None)),
    ],
)
def test_output(
    members: Any, model: Any, room: tuple[int, int | None], clamp: bool, expected: tuple[int, int | None]
) -> None:
    """`room`: what is left in the budget, and the route's 99th percentile; expected: tokens, and the cap to send."""
    call, on = chat(**members), target(**model)
    found = ceiling(call, on, *room, clamp=clamp)
    assert isinstance(found, Ceiling)
    assert (round(written(found, call, on)), found.cap) == expected


@pytest.mark.parametrize(
    ("call", "answers"),
    [
        (other(Endpoint.COMPLETIONS, prompt="x", max_tokens=10), 1),
        (other(Endpoint.COMPLETIONS, prompt=["x", "y", "z"], max_tokens=10), 3),
        (other(Endpoint.COMPLETIONS, prompt=[1, 2, 3], max_tokens=10), 1),
        (other(Endpoint.COMPLETIONS, prompt=[[1, 2], [3]], max_tokens=10, n=2), 4),
        (other(Endpoint.COMPLETIONS, prompt="x", max_tokens=10, n=2, best_of=5), 5),
        (other(Endpoint.EMBEDDINGS, input=["x", "y"]), 0),
    ],
)
def test_each_answer_that_is_made_is_billed(call: Call, answers: int) -> None:
    assert written(ceiling(call, target(), 0, None, clamp=True), call, target()) == pytest.approx(answers * 10, abs=1)


def test_input() -> None:
    call = chat()
    assert input_bound(call, target()) == len(call.body) + TEMPLATE_TOKENS
    assert input_bound(call, target(context_window=50)) == 50
    tools = [{"type": "function", "function": {"name": "f"}}]
    with_tools = chat(tools=tools)
    assert input_bound(with_tools, target()) >= len(with_tools.body) + TEMPLATE_TOKENS + TOOL_TOKENS


@pytest.mark.parametrize(
    ("call", "model", "says"),
    [
        (chat(REMOTE), {}, "only an address"),
        (chat(REMOTE), {"context_window": 1000}, "only an address"),
        (chat(IMAGE), {}, "without a known context window"),
        (chat({"type": "file", "file": {"file_id": "file-1"}}), {"context_window": 9}, "only an address"),
        (chat({"type": "audio_url", "audio_url": {"url": "https://example.com/a.wav"}}), {}, "only an address"),
        (chat({"type": "video", "video": ["https://example.com/1.jpg"]}), {"context_window": 9}, "only an address"),
        (chat({"type": "document_url", "document_url": "https://example.com/a.pdf"}), {}, "only an address"),
        (chat({"image_url": "https://example.com/a.png"}), {"context_window": 9}, "only an address"),
        (chat({"type": "text", "uuid": "1", "audio_url": "https://example.com/a"}), {}, "only an address"),
        (chat({"type": "input_audio", "input_audio": {"type": "text", "data": "https://a.b"}}), {}, "only an address"),
        (chat({**PLAIN, "file_data": "https://example.com/a.pdf"}), {"context_window": 9}, "only an address"),
        (chat({"type": "image_embeds", "image_embeds": "AAAA", "uuid": "1"}), {"context_window": 9}, "only an address"),
        (chat(models=["large"]), {}, "`models`"),
        (other(Endpoint.MESSAGES, messages=[HELLO], max_tokens=9, fallbacks=[{"model": "x"}]), {}, "`fallbacks`"),
        (other(Endpoint.RESPONSES, input=[SHOWN]), {"context_window": 9}, "only an address"),
        (other(Endpoint.RESPONSES, input=[SCREEN]), {"context_window": 9}, "only an address"),
        (chat(web_search_options={}), {}, "`web_search_options`"),
        (chat(tools=[{"type": "web_search"}]), {}, "a tool that the provider runs"),
        (chat(tools=[{"type": "builtin_function", "function": {"name": "$web_search"}}]), {}, "the provider runs"),
        (chat(service_tier="priority"), {}, "`service_tier`"),
        (chat(prediction={"type": "content", "content": "x"}), {}, "`prediction`"),
        (chat(enable_search=True), {}, "`enable_search`"),
    ],
)
def test_what_has_no_bound_needs_max_extra_usd(call: Call, model: Any, says: str) -> None:
    found = ceiling(call, target(**model), RICH, None, clamp=True)
    assert isinstance(found, Unbounded)
    assert says in found.why
    assert "`max_extra_usd`" in found.why
    with_extra = ceiling(call, target(max_extra_nano=5 * USD, **model), RICH, None, clamp=True)
    assert isinstance(with_extra, Ceiling)
    assert with_extra.nano > 5 * USD


@pytest.mark.parametrize(
    "call",
    [
        chat(service_tier="auto"),
        chat(service_tier=None, web_search_options=None),
        chat(enable_search=False, plugins=[], models=[]),
        chat({"type": "text", "text": "x", "image_url": None}),
        chat(tools=[{"type": "function", "function": {"name": "f"}}, {"type": "custom", "custom": {"name": "g"}}]),
    ],
)
def test_what_costs_nothing_more_needs_nothing(call: Call) -> None:
    assert isinstance(ceiling(call, target(), RICH, None, clamp=True), Ceiling)


def test_what_a_model_drops_costs_nothing() -> None:
    dropped = frozenset({"models", "tools", "web_search_options"})
    call = chat(models=["large"], tools=[{"type": "web_search"}], web_search_options={})
    assert isinstance(ceiling(call, target(), RICH, None, clamp=True), Unbounded)
    assert isinstance(ceiling(call, target(drop=dropped), RICH, None, clamp=True), Ceiling)
    assert isinstance(ceiling(call, target(drop=dropped - {"tools"}), RICH, None, clamp=True), Unbounded)


def test_an_image_may_fill_the_context_window() -> None:
    call, on = chat(IMAGE), target(context_window=100_000)
    assert input_bound(call, on) == 100_000
    assert isinstance(ceiling(call, on, RICH, None, clamp=True), Ceiling)


def test_a_text_that_begins_with_an_address_is_none() -> None:
    call = other(Endpoint.MESSAGES, messages=[{"role": "user", "content": [PLAIN]}], max_tokens=9)
    assert not call.remote
    assert isinstance(ceiling(call, target(context_window=100_000), RICH, None, clamp=True), Ceiling)


def test_prices() -> None:
    unpriced = ceiling(chat(), target(None), RICH, None, clamp=True)
    assert isinstance(unpriced, Unbounded)
    assert unpriced.code == "unpriced_model"
    assert "`price: {input: ..., output: ...}`" in unpriced.why
    assert ceiling(chat(max_tokens=9), target(Price("unmetered")), 0, None, clamp=True) == Ceiling(0)


rates = st.builds(Rates, *[st.integers(0, 100 * USD)] * 5)
tiers = st.lists(st.builds(Tier, st.integers(1, 5000), rates), max_size=2, unique_by=lambda tier: tier.above)
machines = st.builds(Machine, st.integers(0, 100 * USD), st.floats(0.5, 1e6), st.floats(0.5, 1e6))
prices = st.builds(lambda rates, tiers: Price("x", rates, tuple(sorted(tiers))), rates, tiers) | machines.map(
    lambda machine: Price("x", machine=machine)
)


@given(prices, st.data(), st.integers(1, 5000), st.integers(1, 4))
def test_no_bill_is_above_the_ceiling(price: Price, data: st.DataObject, most: int, n: int) -> None:
    call, on = chat(max_tokens=most, n=n), target(price)
    found = ceiling(call, on, 0, None, clamp=True)
    assert isinstance(found, Ceiling)
    bound = input_bound(call, on)
    cached = data.draw(st.integers(0, bound))
    fresh = data.draw(st.integers(0, bound - cached))
    kept = data.draw(st.integers(0, bound - cached - fresh))
    thought = data.draw(st.integers(0, most * n))
    shown = data.draw(st.integers(0, most * n - thought))
    assert cost(Usage(fresh, cached, kept, shown, thought), price) <= found.nano


FORMS: tuple[Literal["NFC", "NFD", "NFKC", "NFKD"], ...] = ("NFC", "NFD", "NFKC", "NFKD")


def said(text: str, *, escaped: bool) -> Call:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}, ensure_ascii=escaped)
    return parse(Endpoint.CHAT, [], body.encode(), CODEC)


@given(st.text(), st.booleans())
def test_the_bound_covers_every_byte_however_it_is_written_and_normalised(text: str, escaped: bool) -> None:
    """One token a byte is the worst a byte-level tokenizer can do, of whatever it has made of the text before."""
    text = text.encode("utf-8", "ignore").decode()
    longest = max(len(form.encode()) for form in (text, *(unicodedata.normalize(form, text) for form in FORMS)))
    assert input_bound(said(text, escaped=escaped), target()) >= longest + TEMPLATE_TOKENS


@pytest.mark.parametrize("escaped", [False, True])
@pytest.mark.parametrize(
    ("text", "factor"),
    [
        ("\ufdfa", 33),  # NFKC makes eleven times the bytes of it
        ("각", 9),  # NFD: three letters
        ("é", 3),
        ("中", 3),  # nothing
        ("\U0001f469", 4),  # a pair of escapes
    ],
)
def test_what_a_character_comes_to(text: str, factor: int, escaped: bool) -> None:
    empty = input_bound(said("", escaped=escaped), target())
    assert input_bound(said(text * 100, escaped=escaped), target()) == empty + factor * 100


def test_of_a_very_long_text_the_worst_is_assumed() -> None:
    """It is not looked at character by character."""
    for escaped in (False, True):
        call = said("\ufdfa" * (LONG // 3), escaped=escaped)
        assert input_bound(call, target()) >= 33 * (LONG // 3)


def test_tools_may_be_written_in_ascii() -> None:
    """By the template: six bytes for a character of three."""
    tools = [{"type": "function", "function": {"name": "f", "description": "天" * 1000}}]
    written = json.dumps({"model": "m", "messages": [HELLO], "tools": tools}, ensure_ascii=False).encode()
    assert input_bound(parse(Endpoint.CHAT, [], written, CODEC), target()) >= 6000 + TOOL_TOKENS
    called = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "天" * 1000}}
    history = [HELLO, {"role": "assistant", "tool_calls": [called]}]
    written = json.dumps({"model": "m", "messages": history}, ensure_ascii=False).encode()
    assert input_bound(parse(Endpoint.CHAT, [], written, CODEC), target()) >= 6000


@pytest.mark.full
def test_composition_never_makes_utf8_longer() -> None:
    """So the bytes of NFC and NFKC are never more than those of NFD and NFKD."""
    for code in range(0x110000):
        character = chr(code)
        if not 0xD800 <= code <= 0xDFFF and unicodedata.normalize("NFC", character) == character:
            assert len(character.encode()) <= len(unicodedata.normalize("NFD", character).encode())
