"""Metrics of a window: with a clock that the test turns, on one process and on several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.config.types import Config, ProviderConfig
from gateway.core.loads import Reading
from gateway.core.pricing import Machine, Price, Rates
from gateway.core.routing import Candidate, Model, Route, Rules
from gateway.core.rules import Replica
from gateway.core.usage import Usage
from gateway.telemetry import capacity
from gateway.telemetry.events import RequestFinished, ServerLost, ServerRead
from gateway.telemetry.labels import LabelSets
from gateway.telemetry.metrics import Metrics
from tests.stores.records import ATTEMPT, record
from tests.telemetry.test_metrics import samples

MACHINE = Machine(2_400_000_000, 20_000.0, 2_400.0)
DEEPSEEK = Price("page", rates=Rates(280_000_000, 28_000_000, 280_000_000, 420_000_000, 420_000_000))
GPT = Price("page", rates=Rates(1_250_000_000, 125_000_000, 1_250_000_000, 10_000_000_000, 10_000_000_000))
TWO = (Replica("a:1", provider="qwen@a:1"), Replica("b:1", provider="qwen@b:1"))
MODELS = (
    Model("qwen", "vllm", "Qwen", "self", Price("machine", machine=MACHINE), replicas=TWO),
    Model("lone", "vllm", "Lone", "self", Price("machine", machine=MACHINE)),
    Model("deepseek", "api", "deepseek-chat", price=DEEPSEEK),
    Model("free", "api", "free", price=Price("page", rates=Rates(0, 0, 0, 0, 0))),
    Model("unpriced", "api", "x"),
    Model("gpt", "api", "gpt-5", price=GPT, disabled="OPENAI_API_KEY is not set"),
    Model("kimi", "api", "kimi-k2", price=GPT, disabled="KIMI_API_KEY is not set"),
)
ROUTES = (
    Route(
        "chat",
        (Candidate("qwen"), Candidate("kimi"), Candidate("free")),
        fallback=("deepseek", "unpriced"),
        baseline="gpt",
    ),
    Route("other", (Candidate("gpt"),), fallback=("lone",)),
)
CONFIG = Config(
    path=Path("routes.yaml"),
    hash="0123456789ab",
    providers={name: ProviderConfig(name, "openai", "http://x", "") for name in ("vllm", "api")},
    rules=Rules({model.name: model for model in MODELS}, (), ROUTES, Route("direct", ())),
    keys_declared=False,
    keys=(),
    ledger="",
    on_full="reject",
    warnings=(),
    price_book="",
    teams=frozenset(),
)
EFFECTIVE = "gateway_effective_price_usd_per_million_tokens"
BREAK_EVEN = "gateway_break_even_tokens_per_second"


class Process:
    """The one that renders."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.metrics = Metrics()
        self.date = 1_764_000_000.0
        self.metrics.capacity = capacity.Capacity(lambda: self.now, lambda: self.date)
        self.metrics.configure(LabelSets.of(CONFIG))
        self.metrics.remember()

    def serve(self, usage: Usage, model: str = "qwen", times: int = 1) -> None:
        for _ in range(times):
            self.metrics.observe(answered(model, usage))

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds / capacity.STEP)):
            self.now += capacity.STEP
            self.metrics.remember()

    def read(self, endpoint: str, reading: Reading, *, model: str = "qwen", alone: bool = True) -> None:
        self.metrics.observe(ServerRead(model, endpoint, reading, self.now, alone))

    def shown(self, name: str) -> dict[Any, float]:
        """By the values of all labels but `model`, of qwen."""
        found = samples(self.metrics, zeros=True)
        return {
            tuple(value for key, value in sorted(labels) if key != "model"): value
            for (each, labels), value in found.items()
            if each == name and ("model", "qwen") in labels
        }

    @property
    def price(self) -> float | None:
        return self.shown(EFFECTIVE).get(())


def answered(model: str, usage: Usage) -> RequestFinished:
    attempt = ATTEMPT._replace(model=model, provider="vllm", hosting="self", result="ok", usage=usage, cost_nano=1)
    return RequestFinished(record("r", attempt)._replace(route="chat"))


def test_capacity_and_rated_speed_are_of_all_endpoints() -> None:
    process = Process()
    assert process.shown("gateway_capacity_usd_per_hour") == {(): 4.8}
    assert process.shown("gateway_rated_tokens_per_second") == {("input",): 40_000, ("output",): 4_800}


def test_without_traffic_there_are_no_series() -> None:
    process = Process()
    process.pass_time(600)
    assert process.price is None
    assert process.shown(BREAK_EVEN) == {}
    assert "nan" not in process.metrics.render("")[0].decode().lower()


def test_what_the_tokens_of_the_window_came_to() -> None:
    process = Process()
    process.serve(Usage(1_000, 500, 0, 300, 200), times=100)
    process.pass_time(1800)
    assert process.price == pytest.approx(2.40 / 0.2)  # half an hour of USD 4.80, 200,000 tokens
    process.pass_time(1800)
    assert process.price == pytest.approx(4.80 / 0.2)
    process.serve(Usage(600_000))
    process.pass_time(1800)  # the first tokens are as old as the window's beginning now, or older
    assert process.price == pytest.approx(4.80 / 0.6)
    process.pass_time(3600)
    assert process.price is None


def test_the_break_even_is_against_each_priced_api_of_its_routes_and_their_baselines() -> None:
    process = Process()
    process.serve(Usage(3_000, 0, 0, 1_000), times=10)
    process.pass_time(60)
    blends = {"deepseek": (3 * 0.28 + 0.42) / 4, "gpt": (3 * 1.25 + 10) / 4}  # USD per million tokens of this mix
    expected = {(name,): pytest.approx(4.80 / 3600 / blend * 1e6, rel=1e-6) for name, blend in blends.items()}
    assert process.shown(BREAK_EVEN) == expected
    process.pass_time(1200)
    assert process.shown(BREAK_EVEN) == expected, "the volume makes no difference, the mix does"


def test_only_models_paid_by_the_hour_have_any() -> None:
    process = Process()
    process.serve(Usage(1_000), "deepseek")
    process.serve(Usage(1_000), "lone")
    process.pass_time(60)
    models = {dict(labels)["model"] for (name, labels) in samples(process.metrics) if name == EFFECTIVE}
    assert models == {"lone"}
    versus = {dict(labels)["versus"] for (name, labels) in samples(process.metrics) if name == BREAK_EVEN}
    assert versus == set(), "its route has no API that is awake, and no baseline"


def test_workers_are_counted_together() -> None:
    process, one, two = Process(), Metrics(), Metrics()
    for worker in (one, two):
        worker.configure(LabelSets.of(CONFIG))
        worker.observe(answered("qwen", Usage(40_000, 0, 0, 10_000)))
        process.metrics.merge(worker.take())
    process.pass_time(3600)
    assert process.price == pytest.approx(4.80 / 0.1)


def test_servers_know_of_everybodys_tokens() -> None:
    process = Process()
    for endpoint in ("a:1", "b:1"):
        process.read(endpoint, Reading(0, 0, 5_000_000, 1_000_000))  # since they started, before anybody looked
    process.serve(Usage(90_000, 0, 0, 10_000))
    process.pass_time(600)
    for endpoint in ("a:1", "b:1"):
        process.read(endpoint, Reading(0, 0, 5_300_000, 1_100_000))
    process.pass_time(3000)
    assert process.price == pytest.approx(4.80 / 0.8)
    blend = (3 * 0.28 + 0.42) / 4
    assert process.shown(BREAK_EVEN)["deepseek",] == pytest.approx(4.80 / 3600 / blend * 1e6, rel=1e-6)


def test_a_server_that_starts_anew_and_one_that_falls_silent() -> None:
    process = Process()
    for endpoint in ("a:1", "b:1"):
        process.read(endpoint, Reading(0, 0, 1_000, 0))
    process.read("a:1", Reading(0, 0, 101_000, 0))
    process.read("a:1", Reading(0, 0, 100_000, 0))  # began anew
    process.pass_time(3600)
    assert process.price == pytest.approx(4.80 / 0.2)
    process.metrics.observe(ServerLost("qwen", "b:1"))
    assert process.price is None, "half of the truth is none, and we sent nothing"
    process.read("b:1", Reading(0, 0, 201_000, 0))
    assert process.price == pytest.approx(4.80 / 0.4)


def test_a_server_with_other_models_on_it_cannot_say_whose_its_tokens_are() -> None:
    process = Process()
    for tokens in (0, 500_000):
        process.read("a:1", Reading(0, 0, tokens, 0), alone=False)
        process.read("b:1", Reading(0, 0, tokens, 0))
    process.serve(Usage(200_000))
    process.pass_time(3600)
    assert process.price == pytest.approx(4.80 / 0.2)


def test_a_server_that_leaves_out_cached_input_does_not_raise_the_price() -> None:
    process = Process()
    for read, written in ((0, 0), (10_000, 10_000)):
        for endpoint in ("a:1", "b:1"):
            process.read(endpoint, Reading(0, 0, read, written))
    process.serve(Usage(20_000, 160_000, 0, 20_000))
    process.pass_time(3600)
    assert process.price == pytest.approx(4.80 / 0.2)


def test_load_and_speed_of_servers() -> None:
    process = Process()
    process.read("a:1", Reading(3, 2, 1_000, 100))
    assert process.shown("gateway_server_requests") == {("a:1", "running"): 3, ("a:1", "waiting"): 2}
    assert process.shown("gateway_server_tokens_per_second") == {}
    process.now += 10
    process.read("a:1", Reading(0, 0, 6_000, 350))
    assert process.shown("gateway_server_requests") == {("a:1", "running"): 0, ("a:1", "waiting"): 0}
    assert process.shown("gateway_server_tokens_per_second") == {("a:1", "input"): 500, ("a:1", "output"): 25}
    for _ in range(20):
        process.now += 10
        process.read("a:1", Reading(0, 0, 6_000, 350))
    assert process.shown("gateway_server_tokens_per_second") == {("a:1", "input"): 0, ("a:1", "output"): 0}
    process.metrics.observe(ServerLost("qwen", "a:1"))
    assert process.shown("gateway_server_requests") == {}
    assert process.shown("gateway_server_tokens_per_second") == {}


def test_a_reload_forgets_endpoints_that_are_gone_and_begins_with_models_that_are_new() -> None:
    process = Process()
    process.read("a:1", Reading(3, 2, 1_000, 100))
    process.serve(Usage(100_000), "lone")
    process.pass_time(1800)
    moved = MODELS[0]._replace(replicas=(Replica("c:1", provider="qwen@c:1"),))
    fewer = {model.name: model for model in (moved, *MODELS[1:])}
    process.metrics.configure(LabelSets.of(CONFIG._replace(rules=CONFIG.rules._replace(models=fewer))))
    assert process.shown("gateway_server_requests") == {}
    assert process.shown("gateway_capacity_usd_per_hour") == {(): 2.4}
    without = {name: model for name, model in fewer.items() if name != "qwen"}
    process.metrics.configure(LabelSets.of(CONFIG._replace(rules=Rules(without, (), (), Route("direct", ())))))
    assert process.shown("gateway_capacity_usd_per_hour") == {}
    process.pass_time(7200)
    process.metrics.configure(LabelSets.of(CONFIG))
    process.serve(Usage(100_000))
    assert process.price is None, "its window has not begun"
    process.pass_time(900)
    process.serve(Usage(100_000))
    assert process.price == pytest.approx(4.80 * 885 / 3600 / 0.1), "since it was first remembered"


def test_prices_are_those_of_the_moment() -> None:
    process = Process()
    dearer = Price("machine", machine=MACHINE._replace(nano_usd_per_hour=4_800_000_000), starts=process.date + 3600)
    cheaper = Price("page", rates=Rates(100_000_000, 0, 0, 100_000_000, 0), starts=process.date + 3600)
    changed = {model.name: model for model in MODELS}
    for name, later in (("qwen", dearer), ("deepseek", cheaper)):
        price = changed[name].price
        assert price is not None
        changed[name] = changed[name]._replace(price=price._replace(later=(later,)))
    process.metrics.configure(LabelSets.of(CONFIG._replace(rules=CONFIG.rules._replace(models=changed))))
    process.serve(Usage(3_000, 0, 0, 1_000))
    process.pass_time(60)
    blend = (3 * 0.28 + 0.42) / 4
    assert process.shown("gateway_capacity_usd_per_hour") == {(): 4.8}
    assert process.shown(BREAK_EVEN)["deepseek",] == pytest.approx(4.80 / 3600 / blend * 1e6, rel=1e-6)
    process.date += 3600
    assert process.shown("gateway_capacity_usd_per_hour") == {(): 9.6}
    assert process.shown(BREAK_EVEN)["deepseek",] == pytest.approx(9.60 / 3600 / 0.1 * 1e6, rel=1e-6)


def test_what_is_remembered_is_bounded() -> None:
    process = Process()
    process.pass_time(4 * capacity.WINDOW)
    assert len(process.metrics.capacity._moments) <= capacity.WINDOW / capacity.STEP + 2
    for _ in range(1000):
        process.now += 1
        process.read("a:1", Reading(0, 0, 0, 0))
    assert len(process.metrics.capacity._servers["qwen", "a:1"]._past) <= capacity.RATE_SECONDS + 2
