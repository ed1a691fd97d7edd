"""What servers say of their load decides who gets the next request: one process, and several workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests import replies
from tests.expositions import asked, telling, vllm
from tests.servers import Gateway, until
from tests.upstream import Upstream

ROUTES = """
version: 1
providers:
  farm: {}
  one: {base_url: "@ONE@", api_key: "sk-one"}
  two: {base_url: "@TWO@"}
  quiet: {base_url: "@TWO@", metrics: off}
  api: {base_url: "@ONE@"}
defaults: {retries: 0}
models:
  pair:
    provider: farm
    model: pair-up
    hosting: self
    price: {gpu_hour_usd: 1.50, gpus: 2, tokens_per_second: {input: 1000, output: 100}}
    endpoints: [{url: "@ONE@"}, {url: "@TWO@"}]
  left: {provider: one, model: left-up, hosting: self, price: unmetered}
  right: {provider: two, model: right-up, hosting: self, price: unmetered}
  silent: {provider: quiet, model: silent-up, hosting: self, price: unmetered}
  paid: {provider: api, model: paid-up, price: {input: 1, output: 4}}
routes:
  - {name: least, match: {model: least}, use: [left, right], order: least_busy}
  - {name: hedged, match: {model: hedged}, use: [right], fallback: [left], hedge: {after: 50ms}}
  - {name: priced, match: {model: priced}, use: [pair], fallback: [paid]}
"""


class Load:
    """What a server will say of itself the next time."""

    def __init__(self) -> None:
        self.running = self.waiting = self.read = self.written = 0

    def page(self) -> str:
        return vllm(self.running, self.waiting, self.read, self.written)


class Farm(NamedTuple):
    one: Upstream
    two: Upstream
    load_one: Load
    load_two: Load


@pytest.fixture
def farm() -> Iterator[Farm]:
    one, two = Load(), Load()
    with Upstream(telling(one.page)) as first, Upstream(telling(two.page)) as second:
        yield Farm(first, second, one, two)


@pytest.fixture(params=["1", "2"], ids=["one process", "two workers"])
def gateway(tmp_path: Path, farm: Farm, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    text = ROUTES.replace("@ONE@", farm.one.base_url).replace("@TWO@", farm.two.base_url)
    with Gateway(tmp_path, text, args=["--workers", request.param]) as started:
        yield started


def ask(gateway: Gateway, model: str, headers: dict[str, str] | None = None) -> httpx.Response:
    """Over a connection of its own, so that any worker may get it."""
    return gateway.chat(model, headers={"connection": "close"} | (headers or {}))


def always(gateway: Gateway, model: str, header: str, value: str) -> None:
    """Every worker comes to choose so."""
    until(f"{value} for {model}", lambda: {ask(gateway, model).headers[header] for _ in range(12)} == {value})


def running(gateway: Gateway, model: str) -> float:
    return gateway.metric("gateway_server_requests", model=model, state="running")


def test_the_least_busy_is_so_with_all_of_its_clients(gateway: Gateway, farm: Farm) -> None:
    farm.load_one.running, farm.load_one.waiting = 6, 2
    always(gateway, "least", "x-gateway-model", "right")
    farm.load_one.running, farm.load_one.waiting = 0, 0
    farm.load_two.running = 3
    always(gateway, "least", "x-gateway-model", "left")

    def why() -> list[str]:
        dry = ask(gateway, "least", {"x-gateway-dry-run": "true"}).json()["targets"]
        return [target["why"] for target in dry]

    # Readings come one by one, and what was in flight from here when one was made is not counted as from elsewhere.
    until("the reasons", lambda: why() == ["0 in flight", "3 in flight, 3 of them from elsewhere"])
    assert running(gateway, "right") == 3
    # `pair` has a replica at the same address, whose provider has no key: its looks show none.
    assert {probe.header("authorization") for probe in asked(farm.one)} == {"Bearer sk-one", None}
    assert {probe.header("authorization") for probe in asked(farm.two)} == {None}


def test_the_replica_that_others_leave_alone_is_taken(gateway: Gateway, farm: Farm) -> None:
    names = [f"127.0.0.1:{upstream.port}" for upstream in (farm.one, farm.two)]
    for busy, free in ((farm.load_one, 1), (farm.load_two, 0)):
        farm.load_one.running = farm.load_two.running = 0
        busy.running = 40

        def settled(free: int = free) -> bool:
            answers = [ask(gateway, "pair", {"x-gateway-dry-run": "true"}) for _ in range(8)]
            return {answer.json()["targets"][0]["replica"] for answer in answers} == {names[free]}

        until("the free one", settled)


def test_a_server_that_is_switched_off_is_taken_to_be_idle(gateway: Gateway, farm: Farm) -> None:
    farm.load_two.running = 9

    def read() -> set[str]:
        return {sample.labels["model"] for sample in gateway.samples() if sample.name == "gateway_server_requests"}

    until("the others to be read", lambda: running(gateway, "right") == 9 and read() >= {"pair", "left", "right"})
    assert read() == {"pair", "left", "right"}
    assert ask(gateway, "silent").is_success


def test_no_hedge_joins_a_queue(gateway: Gateway, farm: Farm) -> None:
    farm.load_one.waiting = 1  # of `left`, the second target
    until(
        "the queue to be seen",
        lambda: gateway.metric("gateway_server_requests", model="left", state="waiting") == 1,
        30,
    )
    for _ in range(60):  # which earns three hedges, of one worker or the other
        assert ask(gateway, "hedged").is_success
    farm.two.always("right-up", replies.after(0.3, replies.ok()))
    for _ in range(4):
        assert ask(gateway, "hedged").headers["x-gateway-model"] == "right"
    assert not farm.one.seen("left-up")
    farm.load_one.waiting = 0

    def hedged() -> bool:
        return ask(gateway, "hedged").headers["x-gateway-model"] == "left"

    until("a hedge", hedged)


def test_what_hardware_costs_and_what_its_traffic_makes_of_that(gateway: Gateway, farm: Farm) -> None:
    assert gateway.metric("gateway_capacity_usd_per_hour", model="pair") == 6, "two endpoints of two GPUs"
    farm.one.always("pair-up", replies.ok(tokens=replies.Tokens(input=900, output=100)))
    farm.two.always("pair-up", replies.ok(tokens=replies.Tokens(input=900, output=100)))
    for _ in range(10):
        assert ask(gateway, "priced").headers["x-gateway-model"] == "pair"
    name = "gateway_effective_price_usd_per_million_tokens"
    until("the tokens", lambda: gateway.metric("gateway_tokens_total", model="pair") == 10_000)
    first = gateway.metric(name, model="pair")
    assert first > 0, "a few seconds of capacity, by 10,000 tokens"
    assert until("idle hardware makes it dearer", lambda: gateway.metric(name, model="pair") > first)
    blend = (0.9 * 1 + 0.1 * 4) / 1e6  # USD for a token of this mix from the API
    found = gateway.metric("gateway_break_even_tokens_per_second", model="pair", versus="paid")
    assert found == pytest.approx(6 / 3600 / blend, rel=1e-6)
    charged = gateway.metric("gateway_cost_usd_total", model="pair", hosting="self")
    assert charged == pytest.approx(10 * 3 / 3600 * (900 / 1000 + 100 / 100), rel=1e-6)


def test_tokens_per_second_of_a_server(gateway: Gateway, farm: Farm) -> None:
    name = "gateway_server_tokens_per_second"
    until("a first reading", lambda: running(gateway, "right") == 0 and asked(farm.two))

    def grow() -> bool:
        farm.load_two.read += 1000
        farm.load_two.written += 100
        return gateway.metric(name, model="right", type="output") > 0

    until("its speed", grow)
    ratio = gateway.metric(name, model="right", type="input") / gateway.metric(name, model="right", type="output")
    assert ratio == pytest.approx(10, rel=0.2)
