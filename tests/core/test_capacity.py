"""What hardware costs and what its traffic makes of it: at any load, from none to more than it was rated for."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.core.capacity import (
    Served,
    Traffic,
    break_even,
    capacity_cost,
    effective_price,
    idle,
    per_hour,
    rated_speed,
    utilisation,
    with_served,
)
from gateway.core.pricing import NANO_PER_USD, Machine, Price, Rates, Tier, baseline_cost, cost
from gateway.core.usage import Usage

HOUR = 3600.0
MACHINE = Machine(2_400_000_000, 20_000.0, 2_400.0)  # contract section 2: USD 2.40 an hour
DEEPSEEK = Price("page", rates=Rates(280_000_000, 28_000_000, 280_000_000, 420_000_000, 420_000_000))

machines = st.builds(
    Machine,
    st.integers(1, 10**6).map(lambda cents: cents * NANO_PER_USD // 100),
    st.floats(1, 1e6),
    st.floats(1, 1e5),
)
endpoints = st.integers(1, 64)
seconds = st.floats(HOUR, 30 * 86400)
tokens = st.integers(0, 10**9)
usages = st.builds(Usage, tokens, tokens, tokens, tokens, tokens)
loads = st.floats(0, 3)  # 1 is rated speed; above it the rates are set too low


def flat(nano: int) -> Rates:
    return Rates(nano, nano, nano, nano, nano)


def at_load(machine: Machine, count: int, time: float, load: float) -> Usage:
    """The tokens of a time at a load, half of it spent on reading and half on writing."""
    share = load * count * time / 2
    return Usage(
        input=round(share * machine.input_tokens_per_second), output=round(share * machine.output_tokens_per_second)
    )


@given(machines, endpoints, seconds, loads)
def test_utilisation_is_the_load_and_idle_is_the_rest(machine: Machine, count: int, time: float, load: float) -> None:
    capacity = capacity_cost(per_hour(machine, count), time)
    charged = cost(at_load(machine, count, time, load), Price("machine", machine=machine))
    used = utilisation(capacity, charged)
    assume(capacity > 10**6)  # else rounding to nano-USD shows
    assert used == pytest.approx(load, rel=1e-3, abs=2e-3)
    assert idle(capacity, charged) + charged == capacity
    if load > 1.01:
        assert idle(capacity, charged) < 0, "the rated speeds are set too low"
    if load < 0.99:
        assert idle(capacity, charged) > 0


@given(machines, st.integers(1, 50), st.lists(usages, min_size=1, max_size=20))
def test_what_is_charged_does_not_depend_on_the_load(machine: Machine, count: int, requests: list[Usage]) -> None:
    """Nor on how many endpoints share the work: each request is charged its seconds of one of them."""
    price = Price("machine", machine=machine)
    together = cost(
        Usage(sum(each.total_input for each in requests), output=sum(each.total_output for each in requests)), price
    )
    assert abs(sum(cost(each, price) for each in requests) - together) <= len(requests)
    assert per_hour(machine, count) == count * machine.nano_usd_per_hour


@given(machines, endpoints, seconds, st.floats(0.05, 1))
def test_a_tokens_price_is_its_price_at_full_load_divided_by_the_utilisation(
    machine: Machine, count: int, time: float, load: float
) -> None:
    """arXiv:2606.11690: whoever assumes full use understates the cost by 1 / U."""
    capacity = capacity_cost(per_hour(machine, count), time)
    usage, full = at_load(machine, count, time, load), at_load(machine, count, time, 1.0)
    assume(min(usage[0], usage[3]) > 1000)
    real = effective_price(capacity, usage.total_input + usage.total_output)
    best = effective_price(capacity, full.total_input + full.total_output)
    assert real is not None
    assert best is not None
    assert real == pytest.approx(best / load, rel=5e-3, abs=2)


def test_without_traffic_there_is_no_price_no_mix_and_no_end_of_the_bill() -> None:
    nothing = Traffic(HOUR, Usage())
    capacity = capacity_cost(per_hour(MACHINE, 2), HOUR)
    assert capacity == 4_800_000_000
    assert (idle(capacity, 0), utilisation(capacity, 0)) == (capacity, 0)
    assert effective_price(capacity, 0) is None
    assert rated_speed(MACHINE, 2, Usage()) is None
    assert break_even(per_hour(MACHINE, 2), nothing, DEEPSEEK) is None
    assert utilisation(0, 0) is None


@given(machines, endpoints, usages, st.integers(1, 10**12), st.integers(0, 10**6))
def test_at_the_break_even_the_api_bills_what_the_machines_cost(
    machine: Machine, count: int, usage: Usage, dollar_rate: int, mean: int
) -> None:
    price = Price("page", rates=Rates(dollar_rate, dollar_rate // 10, dollar_rate, dollar_rate * 4, dollar_rate * 4))
    hourly = per_hour(machine, count)
    traffic = Traffic(HOUR, usage, mean)
    speed = break_even(hourly, traffic, price)
    bill = baseline_cost(usage, price)
    if speed is None:
        assert bill <= 1
        return
    assume(bill > 10**6)
    hours = (usage.total_input + usage.total_output) / speed / 3600  # that this traffic takes at this speed
    assert bill / hours == pytest.approx(hourly, rel=1e-5)
    for factor in (0.5, 2.0):  # below it the API is cheaper, above it the machines are
        assert (bill / hours * factor < hourly) is (factor < 1)


def test_an_api_that_bills_nothing_is_never_dearer() -> None:
    traffic = Traffic(HOUR, Usage(1000, 0, 0, 100))
    free = Price("page", rates=Rates(0, 0, 0, 0, 0))
    assert break_even(per_hour(MACHINE, 1), traffic, free) is None
    assert break_even(per_hour(MACHINE, 1), traffic, Price("unmetered")) is None
    assert break_even(per_hour(MACHINE, 1), traffic, Price("machine", machine=MACHINE)) is None
    only_thoughts = Traffic(HOUR, Usage(reasoning=500))
    assert break_even(per_hour(MACHINE, 1), only_thoughts, DEEPSEEK) is None


def test_an_api_may_be_cheaper_at_any_load_the_machines_can_bear() -> None:
    mix = Usage(1000, 0, 0, 240)
    cheap, dear = DEEPSEEK, Price("page", rates=flat(10_000_000_000))
    rated = rated_speed(MACHINE, 1, mix)
    assert rated is not None
    assert rated == pytest.approx(1240 / 0.15)
    against_cheap, against_dear = (
        break_even(per_hour(MACHINE, 1), Traffic(HOUR, mix, 1000), it) for it in (cheap, dear)
    )
    assert against_cheap is not None
    assert against_dear is not None
    assert against_dear < rated
    assert against_cheap < rated
    half_price = Price("page", rates=Rates(20_000_000, 0, 0, 20_000_000, 20_000_000))
    never = break_even(per_hour(MACHINE, 1), Traffic(HOUR, mix, 1000), half_price)
    assert never is not None
    assert never > rated
    assert against_dear > 0, "without traffic no API is dearer"


def test_the_api_is_billed_at_the_tier_of_a_usual_request_not_of_all_tokens_together() -> None:
    tiered = DEEPSEEK._replace(tiers=(Tier(32_000, flat(5_000_000_000)),))
    mix = Usage(10**8, 0, 0, 10**6)
    short, long = (break_even(per_hour(MACHINE, 1), Traffic(HOUR, mix, mean), tiered) for mean in (4_000, 40_000))
    assert short == break_even(per_hour(MACHINE, 1), Traffic(HOUR, mix), DEEPSEEK)
    assert short is not None
    assert long is not None
    assert long < short / 10


def test_thoughts_are_traffic_that_no_api_is_billed_for() -> None:
    plain, thinking = (Traffic(HOUR, Usage(1000, 0, 0, 200, thoughts)) for thoughts in (0, 800))
    a, b = (break_even(per_hour(MACHINE, 1), traffic, DEEPSEEK) for traffic in (plain, thinking))
    assert a is not None
    assert b == pytest.approx(a * 2000 / 1200)


@given(usages, tokens, tokens)
def test_what_servers_count_is_taken_where_it_is_more(usage: Usage, read: int, written: int) -> None:
    found = with_served(Traffic(HOUR, usage, 7), Served(read, written)).usage
    assert found.total_input == max(usage.total_input, read)
    assert found.total_output == max(usage.total_output, written)
    assert min(found[:5]) >= 0
    if usage.total_input and read > usage.total_input:
        assert found.cached_input / read == pytest.approx(usage.cached_input / usage.total_input, abs=1 / read)
    if usage.total_output and written > usage.total_output:
        assert found.reasoning / written == pytest.approx(usage.reasoning / usage.total_output, abs=1 / written)


def test_servers_that_others_use_too_have_our_mix_where_we_have_one() -> None:
    assert with_served(Traffic(HOUR, Usage()), Served(1000, 100)).usage == Usage(1000, 0, 0, 100)
    ours = Usage(10, 30, 0, 5, 15)
    assert with_served(Traffic(HOUR, ours), Served(400, 200)).usage == Usage(100, 300, 0, 50, 150)
