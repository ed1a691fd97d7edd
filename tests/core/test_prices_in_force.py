"""Which of a model's prices holds: by date, hour, service tier and length; and what it then costs."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.call import Call, Endpoint, Principal, parse
from gateway.core.ceiling import Ceiling, Unbounded, ceiling, input_bound
from gateway.core.hours import DAY, Window
from gateway.core.pricing import (
    Hours,
    Machine,
    MoreRates,
    Price,
    Rates,
    Tier,
    baseline_cost,
    cost,
    price_at,
    source_of,
    sources,
)
from gateway.core.routing import Candidate, Route, Rules, Signals, plan
from gateway.core.rules import Model, Target, Timeouts
from gateway.core.strategies import highest_cost
from gateway.core.tasks import Task
from gateway.core.usage import More, Usage
from gateway.wire import CODEC

USD = 10**9
RICH = 10**18


def rates(input_: int, output: int, more: MoreRates | None = None) -> Rates:
    return Rates(input_ * USD, input_ * USD, input_ * USD, output * USD, output * USD, more)


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


USUAL = Price("file", rates(8, 80), (Tier(1000, rates(16, 160), "file, above 1000 input tokens"),))
FLEX = Price("file, flex", rates(4, 40), (Tier(1000, rates(6, 60), "file, flex, above 1000 input tokens"),))
PRIORITY = Price("file, priority", rates(20, 200))
NIGHT = Price("file, night", rates(1, 10))
SERVED = USUAL._replace(services={"flex": FLEX, "priority": PRIORITY})
CLOCKED = USUAL._replace(
    hours=(Hours((Window(16 * 3600 + 1800, DAY), Window(0, 1800)), NIGHT._replace(others=(USUAL,))),), others=(NIGHT,)
)
NEXT_YEAR = Price("file, from 2027-01-01", rates(2, 20), starts=at("2027-01-01T00:00Z"))
DATED = USUAL._replace(later=(NEXT_YEAR,))


@pytest.mark.parametrize(
    ("usage", "nano", "source"),
    [
        (Usage(1000, output=1), 8_000_000 + 80_000, "file"),
        (Usage(1001, output=1), 16_016_000 + 160_000, "file, above 1000 input tokens"),
        (Usage(1000, more=More("flex")), 4_000_000, "file, flex"),
        (Usage(1001, more=More("flex")), 6_006_000, "file, flex, above 1000 input tokens"),
        (Usage(1001, more=More("priority")), 20_020_000, "file, priority"),  # as the book has it: no tier of its own
        (Usage(1000, more=More("scale")), 8_000_000, "file"),  # not known: the usual price
    ],
)
def test_service_tier_and_length(usage: Usage, nano: int, source: str) -> None:
    assert (cost(usage, SERVED), source_of(usage, SERVED)) == (nano, source)


@pytest.mark.parametrize(
    ("price", "when", "found"),
    [
        (USUAL, "1970-01-01T00:00Z", USUAL),
        (CLOCKED, "2026-11-25T16:29:59Z", CLOCKED),
        (CLOCKED, "2026-11-25T16:30:00Z", CLOCKED.hours[0].price),
        (CLOCKED, "2026-11-26T00:29:59Z", CLOCKED.hours[0].price),
        (CLOCKED, "2026-11-26T00:30:00Z", CLOCKED),
        (DATED, "2026-12-31T23:59:59.999Z", DATED),
        (DATED, "2027-01-01T00:00:00Z", NEXT_YEAR),
        (NEXT_YEAR, "2026-12-31T23:59:59Z", None),
        (NEXT_YEAR, "2027-01-01T00:00:00Z", NEXT_YEAR),
    ],
)
def test_the_price_in_force(price: Price, when: str, found: Price | None) -> None:
    assert price_at(price, at(when)) == found


def test_no_price_is_none_at_any_time() -> None:
    assert price_at(None, 0.0) is None


def test_a_later_price_has_hours_of_its_own() -> None:
    price = USUAL._replace(later=(NEXT_YEAR._replace(hours=(Hours((Window(0, 60),), NIGHT),)),))
    assert price_at(price, at("2026-12-31T00:00:00Z")) == price
    assert price_at(price, at("2027-01-01T00:00:59Z")) == NIGHT
    assert [*sources(price)] == [
        "file", "file, above 1000 input tokens", "file, from 2027-01-01", "file, night",
    ]  # fmt: skip


SOUND = MoreRates(
    *(12 * USD, 32 * USD, 2 * USD, 5 * USD, 3 * USD, 64 * USD, 40 * USD),
    images=40_000_000 * 10**6,  # USD 0.04 each
    milliseconds=100_000 * 1000,  # USD 0.0001 a second
    characters=15_000 * 10**6,  # USD 0.000015 each
    searches=10_000_000 * 10**6,  # USD 0.01 each
)


@pytest.mark.parametrize(
    ("usage", "nano"),
    [
        (Usage(input=100, more=More(audio_input=40)), 60 * 8_000 + 40 * 32_000),
        (Usage(cached_input=100, more=More(cached_audio_input=40)), 60 * 8_000 + 40 * 2_000),
        (Usage(input=100, more=More(image_input=100)), 100 * 5_000),
        (Usage(cached_input=10, more=More(cached_image_input=10)), 10 * 3_000),
        (Usage(cache_write=10, more=More(cache_write_1h=4)), 6 * 8_000 + 4 * 12_000),
        (
            Usage(output=10, reasoning=5, more=More(audio_output=4, image_output=3)),
            8 * 80_000 + 4 * 64_000 + 3 * 40_000,
        ),
        (Usage(more=More(images=3)), 120_000_000),
        (Usage(more=More(milliseconds=1_500)), 150_000),
        (Usage(more=More(characters=7)), 105_000),
        (Usage(more=More(searches=2)), 20_000_000),
    ],
)
def test_what_has_a_price_of_its_own(usage: Usage, nano: int) -> None:
    assert cost(usage, Price("x", rates(8, 80, SOUND))) == nano


def test_sound_costs_what_text_does_where_it_has_no_price() -> None:
    usage = Usage(100, 100, 100, 100, 100, more=More("", 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11))
    assert cost(usage, USUAL) == cost(usage._replace(more=None), USUAL)


def test_a_machine_counts_every_token() -> None:
    price = Price("hour", machine=Machine(3_600 * USD, 1000.0, 100.0))
    usage = Usage(1000, output=100, more=More("flex", audio_input=500, audio_output=10))
    assert cost(usage, price) == 2 * USD
    assert source_of(usage, price) == "hour"


def test_the_baseline_is_asked_at_its_usual_price() -> None:
    usage = Usage(100, cache_write=10, output=10, reasoning=900, more=More("flex", cache_write_1h=10, audio_input=50))
    expected = Usage(110, output=10, more=More(audio_input=50))
    price = Price("x", rates(8, 80, SOUND), services={"flex": FLEX})
    assert baseline_cost(usage, price) == cost(expected, price) == 60 * 8_000 + 50 * 32_000 + 10 * 80_000


# Ceilings: whatever the hour, the service tier and the kinds of token, no bill is above what was held.


def chat(**members: Any) -> Call:
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 100, **members}
    return parse(Endpoint.CHAT, [], json.dumps(body).encode(), CODEC)


def target(price: Price, **model: Any) -> Target:
    made = Model("gpt", "openai", "gpt-5", price=price, **model)
    return Target(made, "gpt-5", price, Timeouts(), fallback=False, why="")


def held(price: Price, call: Call, **model: Any) -> int:
    found = ceiling(call, target(price, **model), RICH, None, clamp=True)
    assert isinstance(found, Ceiling)
    return found.nano


def most(call: Call, price: Price, above: Rates | None = None) -> int:
    read = input_bound(call, target(price))
    rates = above or price.rates
    assert rates is not None
    return -(-(read * rates.input + 100 * rates.output) // 10**6)


SHORT = USUAL._replace(tiers=())
ALL_SERVED = SHORT._replace(
    services={"flex": Price("f", rates(4, 40)), "priority": PRIORITY, "batch": Price("b", rates(4, 40))}
)


@pytest.mark.parametrize(
    ("asked", "model", "dearest"),
    [
        ({}, {}, PRIORITY),  # the account may be set to it
        ({"service_tier": "auto"}, {}, PRIORITY),
        ({"service_tier": None}, {}, PRIORITY),
        ({"service_tier": "default"}, {}, SHORT),
        ({"service_tier": "flex"}, {}, SHORT),  # it may be served as usual
        ({"service_tier": "priority"}, {}, PRIORITY),
        ({"service_tier": "priority"}, {"set": {"service_tier": "default"}}, SHORT),
        ({"service_tier": "default"}, {"drop": frozenset({"service_tier"})}, PRIORITY),
    ],
)
def test_what_is_held_for_a_service_tier(asked: Any, model: Any, dearest: Price) -> None:
    call = chat(**asked)
    assert held(ALL_SERVED, call, **model) == most(call, dearest)


@pytest.mark.parametrize("asked", ["scale", "ultrafast", 5, ["priority"]])
def test_a_service_tier_without_a_price_has_no_bound(asked: object) -> None:
    found = ceiling(chat(service_tier=asked), target(ALL_SERVED), RICH, None, clamp=True)
    assert isinstance(found, Unbounded)
    assert "`service_tier`" in found.why


def test_the_dearest_hour_is_held() -> None:
    call = chat()
    price = CLOCKED._replace(tiers=())
    night = price_at(CLOCKED, at("2026-11-25T20:00Z"))
    assert night is not None
    assert held(price, call) == most(call, USUAL)
    assert held(night, call) == most(call, USUAL)


@pytest.mark.parametrize(
    ("asked", "model", "first"),
    [
        ({}, {}, "plain"),
        ({"service_tier": "auto"}, {}, "plain"),
        ({"service_tier": "flex"}, {}, "served"),
        ({}, {"set": {"service_tier": "flex"}}, "served"),
        ({"service_tier": "flex"}, {"drop": frozenset({"service_tier"})}, "plain"),
    ],
)
def test_the_cheapest_at_the_service_tier_that_is_asked_for(asked: Any, model: Any, first: str) -> None:
    """`served` costs 8 and 80, in flex 4 and 40; `plain` 6 and 60, always."""
    plain = Model("plain", "p", "plain", price=Price("x", rates(6, 60)))
    served = Model("served", "p", "served", price=ALL_SERVED, **model)
    route = Route("r", (Candidate("served"), Candidate("plain")), order="cheapest")
    rules = Rules({"plain": plain, "served": served}, (), (route,), Route("direct", ()))
    call = chat(**asked)
    found = plan(rules, call, Task("default", 1.0, ""), Principal(), Signals())
    assert found.targets[0].model.name == first


def test_the_client_s_limit_counts_the_service_tier_that_it_asks_for() -> None:
    call = chat(service_tier="priority")
    dear, usual = highest_cost(target(ALL_SERVED), call), highest_cost(target(ALL_SERVED), chat())
    assert dear is not None
    assert usual is not None
    assert (dear - usual) == cost(Usage(call.estimated_input, output=100), PRIORITY) - cost(
        Usage(call.estimated_input, output=100), SHORT
    )


def test_an_answer_in_sound_needs_a_price_for_sound() -> None:
    call = chat(modalities=["text", "audio"], audio={"voice": "alloy", "format": "wav"})
    assert isinstance(ceiling(call, target(SHORT), RICH, None, clamp=True), Unbounded)
    price = Price("x", rates(8, 20, SOUND))
    assert held(price, call) == -(-(input_bound(call, target(price)) * 12 * USD + 100 * 64 * USD) // 10**6)


RATE = st.integers(0, 100 * USD)
MORE = st.none() | st.builds(MoreRates, *[RATE] * 7)
RATES = st.builds(Rates, *[RATE] * 5, MORE)
TIERS = st.lists(st.builds(Tier, st.integers(1, 2000), RATES), max_size=2, unique_by=lambda tier: tier.above)
FLAT = st.builds(lambda rates, tiers: Price("x", rates, tuple(sorted(tiers, key=lambda t: t.above))), RATES, TIERS)
NAMES = ("flex", "priority", "batch")
SERVICES = st.dictionaries(st.sampled_from(NAMES), FLAT)
WINDOWS = st.tuples(st.integers(0, DAY // 2), st.integers(DAY // 2 + 1, DAY), st.sets(st.integers(1, 7))).map(
    lambda parts: (Window(parts[0], parts[1], frozenset(parts[2])),)
)


@st.composite
def prices(draw: st.DrawFn) -> Price:
    """As the configuration puts them together: each with its services, each knowing the others."""
    services = draw(SERVICES)
    plain = draw(FLAT)._replace(services=services)
    others = [each._replace(services=services) for each in draw(st.lists(FLAT, max_size=2))]
    every = [plain, *others]
    hours = tuple(
        Hours(draw(WINDOWS), each._replace(others=tuple(other for other in every if other is not each)))
        for each in others
    )
    return plain._replace(hours=hours, others=tuple(others))


@st.composite
def usages(draw: st.DrawFn, read: int, written: int, *, sound: bool) -> Usage:
    def upto(most: int) -> int:
        return draw(st.integers(0, most))

    fresh = upto(read)
    cached = upto(read - fresh)
    kept = upto(read - fresh - cached)
    shown = upto(written)
    audio, cached_audio = (upto(fresh), upto(cached)) if sound else (0, 0)
    images, cached_images = (upto(fresh - audio), upto(cached - cached_audio)) if sound else (0, 0)
    spoken = upto(shown)
    more = More(
        draw(st.sampled_from(("", "scale", *NAMES))),
        *(upto(kept), audio, cached_audio, images, cached_images, spoken, upto(shown - spoken)),
    )
    return Usage(fresh, cached, kept, shown, upto(written - shown), more=draw(st.none() | st.just(more)))


@settings(deadline=None)  # a shared machine pauses at will
@given(prices(), st.floats(0, 4e9), st.floats(0, 4e9), st.booleans(), st.data())
def test_no_bill_is_above_the_ceiling(
    price: Price, when: float, billed: float, sound: bool, data: st.DataObject
) -> None:
    """`billed`: the time that the upstream meters by, whichever that is."""
    parts = [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}] if sound else "hello"
    call = chat(messages=[{"role": "user", "content": parts}])
    planned, metered = price_at(price, when), price_at(price, billed)
    assert planned is not None
    assert metered is not None
    on = target(planned, context_window=2000)
    found = ceiling(call, on, RICH, None, clamp=True)
    assert isinstance(found, Ceiling)
    usage = data.draw(usages(input_bound(call, on), 100, sound=sound))
    assert 0 <= cost(usage, metered) <= found.nano


@settings(deadline=None)  # a shared machine pauses at will
@given(FLAT, st.data())
def test_a_bill_is_the_sum_of_its_parts(price: Price, data: st.DataObject) -> None:
    """Each kind of token at its own rate, all of them disjoint: rounded once."""
    usage = data.draw(usages(3000, 500, sound=True))._replace(estimated=False)
    more = usage.more or More()
    price = price._replace(services={})
    rates = price.rates
    for tier in price.tiers:
        rates = tier.rates if usage.total_input > tier.above else rates
    assert rates is not None
    of = rates.all_tokens
    counts = {
        "input": usage.input - more.audio_input - more.image_input,
        "cached_input": usage.cached_input - more.cached_audio_input - more.cached_image_input,
        "cache_write": usage.cache_write - more.cache_write_1h,
        "output": usage.output - more.audio_output - more.image_output,
        "reasoning": usage.reasoning,
        **{kind: getattr(more, kind) for kind in MoreRates._fields[:7]},
    }
    assert min(counts.values()) >= 0
    assert sum(counts.values()) == usage.total_input + usage.total_output
    exact = sum(count * of[kind] for kind, count in counts.items())
    assert cost(usage, price) == (2 * exact + 10**6) // (2 * 10**6)


@settings(deadline=None)  # a shared machine pauses at will
@given(prices(), st.floats(0, 4e9), st.data())
def test_a_source_is_one_of_a_known_few(price: Price, when: float, data: st.DataObject) -> None:
    found = price_at(price, when)
    assert found is not None
    assert source_of(data.draw(usages(3000, 500, sound=True)), found) in set(sources(price))
