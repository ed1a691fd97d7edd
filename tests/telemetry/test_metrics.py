"""Metrics: equal to a naive count of the events and to the ledger, on any number of workers, to the nano-dollar."""

from __future__ import annotations

import datetime
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gateway import __version__
from gateway.config.types import Config, Key, ProviderConfig
from gateway.core.call import Principal
from gateway.core.pricing import Machine, Price
from gateway.core.record import AttemptStages, Record, Stages
from gateway.core.routing import Candidate, Match, Model, Route, Rules
from gateway.core.tasks import TaskRule
from gateway.core.usage import Usage
from gateway.stores.reader import sums
from gateway.telemetry.events import (
    BreakerChanged,
    BudgetBalance,
    BudgetBalances,
    ConfigReloaded,
    Event,
    LedgerState,
    RequestEnded,
    RequestFinished,
    RequestStarted,
)
from gateway.telemetry.families import FAMILIES
from gateway.telemetry.labels import MOST_COMBINATIONS, STAGES, BudgetLabels, LabelSets
from gateway.telemetry.metrics import Metrics
from tests.stores.records import ATTEMPT, keep, record, records

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

QWEN = Model("qwen", "vllm", "Qwen/Qwen3-32B", "self", Price("machine", machine=Machine(2_400_000_000, 20_000, 2_400)))
GPT = Model("gpt", "openai", "gpt-5")
ASLEEP = Model("kimi", "moonshot", "kimi-k2", disabled="KIMI_API_KEY is not set")
CONFIG = Config(
    path=Path("routes.yaml"),
    hash="0123456789ab",
    providers={name: ProviderConfig(name, "openai", "http://x", "") for name in ("vllm", "openai", "moonshot")},
    rules=Rules(
        models={model.name: model for model in (QWEN, GPT, ASLEEP)},
        tasks=(TaskRule("support", ()),),
        routes=(
            Route(
                "support", (Candidate("qwen"), Candidate("kimi")), Match(task=("support", "mail")), fallback=("gpt",)
            ),
        ),
        direct=Route("direct", ()),
    ),
    keys_declared=True,
    keys=(Key(b"", Principal("ci", "platform"), datetime.datetime.max.replace(tzinfo=datetime.UTC)),),
    ledger="sqlite:////tmp/x.db",
    on_full="reject",
    warnings=(),
    price_book="",
    teams=frozenset({"platform"}),
)


def configured() -> Metrics:
    metrics = Metrics()
    metrics.configure(LabelSets.of(CONFIG))
    return metrics


def observed(*events: Event) -> Metrics:
    metrics = configured()
    for event in events:
        metrics.observe(event)
    return metrics


def samples(metrics: Metrics, *, zeros: bool = False) -> Samples:
    text, _ = metrics.render(OPENMETRICS)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse_openmetrics(text.decode())  # type: ignore[no-untyped-call]  # prometheus_client types it half
        for sample in family.samples
        if sample.value or zeros
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """None where there is no such series."""
    return samples(metrics, zeros=True).get((name, frozenset((k.rstrip("_"), v) for k, v in labels.items())))


# A naive reference


def naive(made: Iterable[Record]) -> Counter[tuple[str, frozenset[tuple[str, str]]]]:  # noqa: C901 - one line a metric
    """What the counters must be, in integers: written for reading, not for speed."""
    total: Counter[tuple[str, frozenset[tuple[str, str]]]] = Counter()

    def label(name: str, text: str) -> str:
        known = {"route": {"support", "direct"}, "task": {"support", "mail", "default"}, "team": {"platform"}}
        known |= {"model": {"qwen", "gpt", "kimi"}, "provider": {"vllm", "openai", "moonshot"}}
        allowed = known.get({"from": "model", "to": "model"}.get(name, name))
        return text if allowed is None or text in allowed else "other" if text else "none"

    def add(name: str, count: int, **labels: str) -> None:
        named = ((key.rstrip("_"), text) for key, text in labels.items())
        total[name, frozenset((key, label(key, text)) for key, text in named)] += count

    for r in made:
        place = {"route": r.route, "task": r.task, "team": r.team}
        add("gateway_requests_total", 1, **place, model=r.model, provider=r.provider, outcome=r.outcome)
        stream = str(r.stream).lower()
        add("gateway_request_duration_seconds_count", 1, route=r.route, model=r.model, stream=stream)
        add("gateway_overhead_seconds_count", 1)
        if r.first_token is not None:
            add("gateway_time_to_first_token_seconds_count", 1, route=r.route, model=r.model)
        if r.rejection:
            add("gateway_rejections_total", 1, reason=r.rejection)
        if r.unpriced:
            add("gateway_unpriced_requests_total", 1, model=r.model)
        add("gateway_stream_lines_dropped_total", r.lines_dropped, model=r.model)
        if r.outcome == "ok" and r.baseline_model and not r.unpriced:
            add("gateway_baseline_cost_usd_total", r.baseline_nano, **place)
            add("gateway_savings_usd_total", max(0, r.baseline_nano - r.cost_nano), **place)
            add("gateway_extra_cost_usd_total", max(0, r.cost_nano - r.baseline_nano), **place)
        for before, a in zip((None, *r.attempts), r.attempts, strict=False):
            where = {**place, "model": a.model}
            add("gateway_attempts_total", 1, model=a.model, provider=a.provider, result=a.result)
            paid = {"provider": a.provider, "hosting": a.hosting, "purpose": a.purpose}
            add("gateway_cost_usd_total", a.cost_nano, **where, **paid)
            for kind in ("input", "cached_input", "cache_write", "output", "reasoning"):
                add("gateway_tokens_total", getattr(a.usage, kind), **where, type=kind)
            if a.usage.estimated:
                add("gateway_usage_estimated_total", 1, model=a.model)
            if a.reason == "hedge" and len(r.attempts) > 1:
                add("gateway_hedges_total", 1, route=r.route, won=str(a.result == "ok").lower())
            if before and before.model != a.model and a.reason not in ("first", "retry", "hedge"):
                add("gateway_fallbacks_total", 1, route=r.route, from_=before.model, to=a.model, reason=a.reason)
    return +total


def in_integers(found: Samples, names: Iterable[str]) -> dict[tuple[str, frozenset[tuple[str, str]]], int]:
    scale = {name: 1_000_000_000 if "_usd" in name else 1 for name in names}
    return {key: round(number * scale[key[0]]) for key, number in found.items() if key[0] in scale}


COUNTED = (
    *("gateway_requests_total", "gateway_rejections_total", "gateway_tokens_total", "gateway_cost_usd_total"),
    *("gateway_baseline_cost_usd_total", "gateway_savings_usd_total", "gateway_extra_cost_usd_total"),
    *("gateway_attempts_total", "gateway_fallbacks_total", "gateway_usage_estimated_total"),
    "gateway_hedges_total",
    *("gateway_unpriced_requests_total", "gateway_stream_lines_dropped_total", "gateway_overhead_seconds_count"),
    *("gateway_request_duration_seconds_count", "gateway_time_to_first_token_seconds_count"),
)


@given(st.lists(st.tuples(records, st.integers(0, 2), st.booleans()), max_size=8, unique_by=lambda item: item[0].id))
@settings(max_examples=40, deadline=None)
def test_counters_are_the_events_and_the_ledger(made: list[tuple[Record, int, bool]]) -> None:
    one, parent = bare(), bare()
    workers = [bare() for _ in range(3)]
    for finished, worker, sends in made:
        one.observe(RequestFinished(finished))
        workers[worker].observe(RequestFinished(finished))
        if sends:
            parent.merge(workers[worker].take(), str(worker))
    for i, worker_metrics in enumerate(workers):
        parent.merge(worker_metrics.take(), str(i))
        assert not any(name in COUNTED for name, _ in samples(worker_metrics)), "taken is no longer there"
    put = [finished for finished, _, _ in made]
    assert in_integers(samples(one), COUNTED) == naive(put)
    assert seen(parent) == seen(one), "sums of histograms too, to the nanosecond"
    against_the_ledger(put, in_integers(samples(one), COUNTED))


def bare() -> Metrics:
    """Without the series that are shown from the start: pages are short."""
    metrics = Metrics()
    metrics.configure(LabelSets.of(CONFIG)._replace(pairs=()))
    return metrics


def seen(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], list[int]]:
    """All that is not zero, in integers."""
    return {
        (family.name, labels): cell
        for family, series in metrics.series()
        for labels, cell in series.items()
        if any(cell)
    }


def against_the_ledger(put: list[Record], found: Mapping[tuple[str, frozenset[tuple[str, str]]], int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gateway.db"
        keep(put, path)
        kept = sums(path)
    total: Counter[str] = Counter()
    for (name, labels), count in found.items():
        total[name] += count
        total[dict(labels).get("type", "")] += count
    assert total["gateway_requests_total"] == kept.requests
    assert total["gateway_attempts_total"] == kept.attempts
    assert total["gateway_cost_usd_total"] == kept.cost_nano == kept.attempts_cost_nano
    assert [total[kind] for kind in Usage._fields[:5]] == list(kept.tokens[:5])


@given(st.integers(0, 2 * 10**15))
@settings(deadline=None)
def test_money_is_exact_when_shown(nano: int) -> None:
    metrics = bare()
    metrics.observe(RequestFinished(record("r", ATTEMPT._replace(cost_nano=nano))))
    [cost] = [
        found for (name, _), found in samples(metrics, zeros=True).items() if name == "gateway_cost_usd_total" and found
    ] or [0]
    assert round(cost * 1e9) == nano


# What each event adds

ANSWERED = record("r")
FELL_BACK = record(
    "r", ATTEMPT._replace(result="timeout", cost_nano=0, usage=Usage()), ATTEMPT._replace(model="gpt", reason="timeout")
)
PLACE = {"route": "support", "task": "support", "team": "platform"}


@pytest.mark.parametrize(
    ("events", "name", "labels", "expected"),
    [
        ([RequestStarted("qwen")] * 3 + [RequestEnded("qwen")], "gateway_requests_in_flight", {"model": "qwen"}, 2),
        ([RequestStarted("junk")], "gateway_requests_in_flight", {"model": "other"}, 1),
        ([ConfigReloaded("ok", "beef")], "gateway_config_info", {"hash": "beef"}, 1),
        ([ConfigReloaded("ok", "beef")], "gateway_config_info", {"hash": "0123456789ab"}, None),
        ([ConfigReloaded("rejected", "0123456789ab")], "gateway_config_reloads_total", {"result": "rejected"}, 1),
        ([ConfigReloaded("rejected", "x")], "gateway_config_last_reload_successful", {}, 0),
        ([ConfigReloaded("rejected", "x"), ConfigReloaded("ok", "y")], "gateway_config_last_reload_successful", {}, 1),
        ([], "gateway_config_last_reload_successful", {}, 1),
        ([], "gateway_build_info", {"version": __version__}, 1),
        ([], "gateway_capacity_usd_per_hour", {"model": "qwen"}, 2.4),
        ([], "gateway_capacity_usd_per_hour", {"model": "gpt"}, None),
        ([LedgerState(7, 1, 0), LedgerState(4, 3, 2)], "gateway_ledger_queue_depth", {}, 4),
        ([LedgerState(7, 1, 0), LedgerState(4, 3, 2)], "gateway_ledger_write_failures_total", {}, 3),
        ([LedgerState(7, 1, 0), LedgerState(4, 3, 2)], "gateway_ledger_rows_dropped_total", {}, 2),
        ([LedgerState(0, 5, 0), LedgerState(0, 2, 0)], "gateway_ledger_write_failures_total", {}, 7),  # a new ledger
        ([RequestFinished(ANSWERED)], "gateway_savings_usd_total", PLACE, (5000 - 1234) / 1e9),
        ([RequestFinished(ANSWERED._replace(outcome="cancelled"))], "gateway_baseline_cost_usd_total", PLACE, 0),
        ([RequestFinished(ANSWERED._replace(unpriced=True))], "gateway_baseline_cost_usd_total", PLACE, 0),
        ([RequestFinished(ANSWERED._replace(baseline_nano=1000))], "gateway_extra_cost_usd_total", PLACE, 234 / 1e9),
        (
            [RequestFinished(FELL_BACK)],
            "gateway_fallbacks_total",
            {"route": "support", "from_": "qwen", "to": "gpt", "reason": "timeout"},
            1,
        ),
        ([RequestFinished(ANSWERED)], "gateway_time_per_output_token_seconds_sum", {"model": "qwen"}, 0.375 / 56),
        ([RequestFinished(ANSWERED)], "gateway_overhead_seconds_bucket", {"le": "0.0005"}, 1),
        ([RequestFinished(ANSWERED)], "gateway_overhead_seconds_bucket", {"le": "0.00025"}, 0),
        (
            [RequestFinished(ANSWERED)],
            "gateway_request_duration_seconds_bucket",
            {"route": "support", "model": "qwen", "stream": "true", "le": "600.0"},
            1,
        ),
    ],
)
def test_each_event(events: list[Event], name: str, labels: dict[str, str], expected: float | None) -> None:
    found = value(observed(*events), name, **labels)
    assert found == (None if expected is None else pytest.approx(expected, abs=1e-9))


# Labels


def test_series_exist_before_the_first_request() -> None:
    shown = samples(configured(), zeros=True)
    before = {key for key in shown if not key[0].startswith(("gateway_build", "gateway_config"))}
    failed, taken = FELL_BACK.attempts
    moved = FELL_BACK._replace(attempts=(failed, taken._replace(provider="openai", hosting="api")))
    made = (ANSWERED, moved._replace(model="gpt", provider="openai"), ANSWERED._replace(route="direct", team=""))
    after = samples(observed(*map(RequestFinished, made)), zeros=True)
    assert {key for key in after if after[key]} <= set(shown), "nothing appears with its first event"
    assert all(shown[key] == 0 for key in before if not key[0].startswith(("gateway_capacity", "gateway_rated")))
    models = {dict(labels).get("model") for _, labels in shown}
    assert models == {None, "none", "qwen", "gpt"}, "a model that is asleep is not shown"


def test_labels_come_from_the_configuration_alone() -> None:
    junk = [record(f"r{i}")._replace(route=f"r{i}", task=f"t{i}", model=f"m{i}", team=f"x{i}") for i in range(500)]
    metrics = observed(*map(RequestFinished, junk))
    one = observed(RequestFinished(junk[0]))
    assert samples(metrics, zeros=True).keys() == samples(one, zeros=True).keys()
    assert value(metrics, "gateway_request_duration_seconds_count", route="other", model="other", stream="true") == 500
    assert not metrics._places, "what clients make up is not remembered"


def test_a_task_that_a_route_asks_for_by_name_is_configured() -> None:
    assert LabelSets.of(CONFIG).tasks == {"support", "mail", "default"}


def test_a_huge_configuration_makes_no_huge_page() -> None:
    models = {f"m{i}": GPT._replace(name=f"m{i}") for i in range(MOST_COMBINATIONS)}
    route = Route("r", tuple(Candidate(name) for name in models))
    rules = CONFIG.rules._replace(models=models, routes=(route,))
    config = CONFIG._replace(rules=rules, teams=frozenset(f"t{i}" for i in range(50)))
    metrics = Metrics()
    metrics.configure(LabelSets.of(config))
    shown = {family.name: len(series) for family, series in metrics.series()}
    assert MOST_COMBINATIONS * 5 < shown["gateway_requests_total"] <= MOST_COMBINATIONS * 7
    assert shown["gateway_request_duration_seconds"] == MOST_COMBINATIONS * 2 + 6  # `none` of three routes
    assert shown["gateway_fallbacks_total"] == MOST_COMBINATIONS


def test_each_move_that_a_route_may_make_is_shown_from_the_start() -> None:
    models = {name: GPT._replace(name=name) for name in "abcde"}
    route = Route("r", (Candidate("a"), Candidate("b"), Candidate("asleep")), Match(), fallback=("b", "c", "d"))
    moves = LabelSets.of(CONFIG._replace(rules=CONFIG.rules._replace(models=models, routes=(route,)))).moves
    assert sorted(left + taken for _, left, taken in moves) == ["ab", "ac", "ad", "ba", "bc", "bd", "cd"]


def test_counters_survive_a_reconfiguration() -> None:
    metrics = observed(RequestFinished(ANSWERED))
    metrics.configure(LabelSets.of(CONFIG)._replace(routes=frozenset({"new"}), models=frozenset({"new"}), pairs=()))
    metrics.observe(RequestFinished(ANSWERED))  # it was under way
    metrics.observe(RequestFinished(ANSWERED._replace(route="new", model="new")))
    counts = {"outcome": "ok", "provider": "vllm", "task": "support", "team": "platform"}
    assert value(metrics, "gateway_requests_total", **counts, route="support", model="qwen") == 2
    assert value(metrics, "gateway_requests_total", **counts, route="new", model="new") == 1


# Several workers


def test_gauges_add_up_and_a_dead_worker_takes_its_own_along() -> None:
    parent, left, right = configured(), configured(), configured()
    for worker, source, calls in ((left, "1", 2), (right, "2", 3)):
        for _ in range(calls):
            worker.observe(RequestStarted("qwen"))
        worker.observe(LedgerState(depth=calls, failures=1, dropped=0))
        parent.merge(worker.take(), source)
    right.observe(RequestEnded("qwen"))
    parent.merge(right.take(), "2")
    assert value(parent, "gateway_requests_in_flight", model="qwen") == 4
    assert value(parent, "gateway_ledger_queue_depth") == 5
    parent.forget("1")
    parent.forget("unknown")
    assert value(parent, "gateway_requests_in_flight", model="qwen") == 2
    assert value(parent, "gateway_ledger_queue_depth") == 3
    assert value(parent, "gateway_ledger_write_failures_total") == 2, "what it counted stays"


def test_breakers() -> None:
    metrics = configured()
    assert value(metrics, "gateway_breaker_state", model="kimi", endpoint="default") is None, "it is asleep"
    for state, shown in (("closed", 0), ("open", 2), ("half_open", 1), ("open", 2), ("closed", 0)):
        metrics.observe(BreakerChanged("qwen", "default", state, "because"))
        assert value(metrics, "gateway_breaker_state", model="qwen", endpoint="default") == shown
        assert value(metrics, "gateway_breaker_state", model="gpt", endpoint="default") == 0
    metrics.observe(BreakerChanged("unheard of", "default", "open", "because"))
    assert value(metrics, "gateway_breaker_state", model="unheard of", endpoint="default") is None


def test_windows_of_budgets() -> None:
    metrics = configured()
    budgets = {name: BudgetLabels(5_000_000_000, per) for name, per in (("b", ""), ("people", "user"), ("ever", ""))}
    metrics.configure(LabelSets.of(CONFIG)._replace(budgets=budgets))
    start, end = 1_793_491_200.0, 1_796_083_200.0
    users = [BudgetBalance("people", f"user {name}", 1_000_000_000, 0, start, end) for name in ("ann", "ben")]
    balances = (BudgetBalance("b", "all", 2_000_000_000, 0, start, end), *users, BudgetBalance("ever", "all", 1, 0))
    metrics.observe(BudgetBalances(balances))
    for name, expected in (("start", start), ("end", end)):
        shown = f"gateway_budget_window_{name}_timestamp_seconds"
        assert value(metrics, shown, budget="b", scope="all") == expected
        assert value(metrics, shown, budget="people", scope="other") == expected, "not twice for two users"
        assert value(metrics, shown, budget="ever", scope="all") is None
    assert value(metrics, "gateway_budget_settled_usd", budget="people", scope="other") == 2


def test_what_is_taken_is_counted_once_and_what_follows_too() -> None:
    """The same request before and after each `take`: where it is counted must not be remembered across one."""
    one, parent, worker = bare(), bare(), bare()
    for _ in range(3):
        one.observe(RequestFinished(ANSWERED))
        worker.observe(RequestFinished(ANSWERED))
        parent.merge(worker.take())
    assert seen(parent) == seen(one)


def test_a_worker_tells_of_a_reload() -> None:
    parent, worker = configured(), configured()
    worker.observe(ConfigReloaded("ok", "beef"))
    parent.merge(worker.take())
    parent.merge(worker.take())
    assert value(parent, "gateway_config_info", hash="beef") == 1
    assert value(parent, "gateway_config_reloads_total", result="ok") == 1


# The exposition


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/html", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain;version=nonsense", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;version=x.y", "text/plain; version=0.0.4; charset=utf-8"),
        (OPENMETRICS, "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"),
    ],
)
def test_formats(accept: str, content_type: str) -> None:
    text, found = observed(RequestFinished(FELL_BACK)).render(accept)
    assert found == content_type
    parse = parse_openmetrics if "openmetrics" in found else parse_text
    names = {family.name for family in parse(text.decode())}
    expected = {name.removesuffix("_total") for name in FAMILIES}
    assert names == ({name.removesuffix("_info") for name in expected} if "openmetrics" in found else expected)


def test_names_and_labels_of_the_contract() -> None:
    contract = (Path(__file__).parent / "contract_metrics.txt").read_text().split("\n")
    expected = {
        line.partition("{")[0]: tuple(filter(None, line.partition("{")[2].rstrip("}").split(",")))
        for line in contract
        if line
    }
    assert {name: family.labels for name, family in FAMILIES.items()} == expected


def test_promtool_finds_nothing_wrong() -> None:
    promtool = shutil.which("promtool")
    if not promtool:
        pytest.skip("promtool is not installed (Debian package `prometheus`)")
    text, _ = observed(RequestFinished(FELL_BACK), RequestStarted("qwen")).render("")
    found = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (0, b"", b"")


def test_observing_is_cheap() -> None:
    """5 us on a quiet machine; ten times that here, so that only a change of kind fails."""
    metrics = configured()
    event = RequestFinished(ANSWERED)
    began = time.thread_time()
    for _ in range(5_000):
        metrics.observe(event)
    assert (time.thread_time() - began) / 5_000 < 50e-6


# Exemplars and stages

TRACED = ANSWERED._replace(trace_id="4bf92f3577b34da6a3ce929d0e0e4736")


def exemplars(metrics: Metrics) -> dict[tuple[str, str], tuple[dict[str, str], float, float]]:
    """By sample and its `le`."""
    text, _ = metrics.render(OPENMETRICS)
    return {
        (sample.name, sample.labels["le"]): (
            sample.exemplar.labels,
            sample.exemplar.value,
            float(sample.exemplar.timestamp),
        )
        for family in parse_openmetrics(text.decode())  # type: ignore[no-untyped-call]  # as above
        for sample in family.samples
        if sample.exemplar
    }


def test_a_traced_request_is_the_exemplar_of_its_buckets() -> None:
    metrics = observed(RequestFinished(TRACED), RequestFinished(ANSWERED._replace(duration=0.7, trace_id="")))
    traced = {"trace_id": TRACED.trace_id}
    at = TRACED.started + 0.6
    assert exemplars(metrics) == {
        ("gateway_request_duration_seconds_bucket", "1.0"): (traced, 0.6, at),
        ("gateway_time_to_first_token_seconds_bucket", "0.25"): (traced, 0.126, at),
    }
    assert TRACED.trace_id not in metrics.render("")[0].decode(), "the Prometheus text has no place for them"


def test_of_a_bucket_the_last_exemplar_stays_also_of_several_workers() -> None:
    parent, left, right = configured(), configured(), configured()
    later = TRACED._replace(trace_id="b" * 32, started=TRACED.started + 5)
    slow = TRACED._replace(trace_id="c" * 32, duration=9_999.0)
    left.observe(RequestFinished(later))
    left.observe(RequestFinished(slow))
    for _ in range(1_000):
        right.observe(RequestFinished(TRACED))
    parent.merge(left.take(), "1")
    parent.merge(right.take(), "2")
    parent.merge(left.take(), "1")
    shown = {le: labels["trace_id"] for (name, le), (labels, _, _) in exemplars(parent).items() if "duration" in name}
    assert shown == {"1.0": "b" * 32, "+Inf": "c" * 32}
    assert not exemplars(right), "taken is no longer there"


def test_stages() -> None:
    stages = AttemptStages(reserve=0.0002, connect=0.003, first_byte=None)
    made = record("r", ATTEMPT._replace(stages=stages), ATTEMPT._replace(stages=stages))
    metrics = observed(RequestFinished(made._replace(stages=Stages(read=0.25, admit=0.0, decide=1e-5))))
    counts = {stage: value(metrics, "gateway_stage_seconds_count", stage=stage) for stage in STAGES}
    assert counts == {"read": 1, "admit": 1, "decide": 1, "reserve": 2, "connect": 2, "first_byte": 0}
    assert value(metrics, "gateway_stage_seconds_sum", stage="connect") == pytest.approx(0.006)
    assert value(metrics, "gateway_stage_seconds_bucket", stage="decide", le="1e-05") == 1
