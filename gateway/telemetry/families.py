"""Every metric as one row of a table (contract section 5): its name, what it means, its kind, labels and buckets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

NANO = 1_000_000_000
"""Money is kept in nano-USD, time in nanoseconds: integers add up the same in any order, on any number of workers."""

MICRO = 1_000_000
"""Speeds are kept in millionths of tokens a second."""

Labels = tuple[str, ...]


class Family(NamedTuple):
    name: str
    kind: Literal["counter", "gauge", "histogram", "info"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()  # upper bounds in seconds, ascending, without +Inf
    unit: int = 1  # what the value is divided by when it is shown


REQUEST_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)
FIRST_TOKEN_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5)
STAGE_SECONDS = (10e-6, 50e-6, 100e-6, 500e-6, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30, 120)
OVERHEAD_SECONDS = (50e-6, 100e-6, 250e-6, 500e-6, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)

TEAM = ("route", "task", "team")

REQUESTS = Family(
    "gateway_requests_total",
    "counter",
    "Finished requests.",
    ("route", "task", "model", "provider", "team", "outcome"),
)
REJECTIONS = Family(
    "gateway_rejections_total", "counter", "Requests the gateway itself refused, by reason.", ("reason",)
)
DURATION = Family(
    "gateway_request_duration_seconds",
    "histogram",
    "From the whole request, its body read, to the end of its answer. What its upload took is the stage read.",
    ("route", "model", "stream"),
    REQUEST_SECONDS,
    NANO,
)
FIRST_TOKEN = Family(
    "gateway_time_to_first_token_seconds",
    "histogram",
    "From the whole request, its body read, to the first useful content.",
    ("route", "model"),
    FIRST_TOKEN_SECONDS,
    NANO,
)
PER_TOKEN = Family(
    "gateway_time_per_output_token_seconds",
    "histogram",
    "Of streams that ended well: time after the first token by each further token that the upstream reported.",
    ("model",),
    TOKEN_SECONDS,
    NANO,
)
OVERHEAD = Family(
    "gateway_overhead_seconds",
    "histogram",
    "The gateway's own part of each request's duration.",
    (),
    OVERHEAD_SECONDS,
    NANO,
)
STAGES = Family(
    "gateway_stage_seconds",
    "histogram",
    "Of a request: read (head to parsed body), admit (a place in the process), decide (task, limits, plan). "
    "Of each attempt: reserve (place and budget), connect (a connection), first_byte (sent to the answer's head).",
    ("stage",),
    STAGE_SECONDS,
    NANO,
)
TOKENS = Family(
    "gateway_tokens_total",
    "counter",
    "Tokens billed, of all attempts; the types are disjoint.",
    ("route", "task", "model", "team", "type"),
)
COST = Family(
    "gateway_cost_usd_total",
    "counter",
    "Cost of all attempts, self-hosted ones at their rate.",
    ("route", "task", "model", "provider", "hosting", "team", "purpose"),
    unit=NANO,
)
BASELINE = Family(
    "gateway_baseline_cost_usd_total",
    "counter",
    "What the baseline model would have cost for the requests that were answered.",
    TEAM,
    unit=NANO,
)
SAVINGS = Family(
    "gateway_savings_usd_total", "counter", "Where a request cost less than its baseline: by how much.", TEAM, unit=NANO
)
EXTRA = Family(
    "gateway_extra_cost_usd_total",
    "counter",
    "Where a request cost more than its baseline: by how much.",
    TEAM,
    unit=NANO,
)
CAPACITY = Family(
    "gateway_capacity_usd_per_hour",
    "gauge",
    "What a self-hosted model's machines cost an hour, busy or idle; every replica says the same: take max by (model).",
    ("model",),
    unit=NANO,
)
EFFECTIVE_PRICE = Family(
    "gateway_effective_price_usd_per_million_tokens",
    "gauge",
    "What a self-hosted model's tokens of the last hour came to, idle machines included; absent without tokens.",
    ("model",),
    unit=NANO,
)
BREAK_EVEN = Family(
    "gateway_break_even_tokens_per_second",
    "gauge",
    "The traffic at which an API of the same route would cost what the machines do, at the last hour's mix.",
    ("model", "versus"),
    unit=MICRO,
)
RATED = Family(
    "gateway_rated_tokens_per_second",
    "gauge",
    "What a self-hosted model's machines can do by their price's tokens_per_second, all endpoints together.",
    ("model", "type"),
    unit=MICRO,
)
SERVER_REQUESTS = Family(
    "gateway_server_requests",
    "gauge",
    "Requests at a self-hosted server, from whomever, as it says itself; absent where it does not.",
    ("model", "endpoint", "state"),
)
SERVER_TOKENS = Family(
    "gateway_server_tokens_per_second",
    "gauge",
    "Tokens that a self-hosted server read and wrote lately, for whomever, as it says itself.",
    ("model", "endpoint", "type"),
    unit=MICRO,
)
ATTEMPTS = Family("gateway_attempts_total", "counter", "Tries of an upstream.", ("model", "provider", "result"))
FALLBACKS = Family(
    "gateway_fallbacks_total",
    "counter",
    "Moves from one model to the next, by the failure that led there.",
    ("route", "from", "to", "reason"),
)
HEDGES = Family(
    "gateway_hedges_total",
    "counter",
    "Second attempts made because the first was slow to begin, and whether they answered first.",
    ("route", "won"),
)
IN_FLIGHT = Family("gateway_requests_in_flight", "gauge", "Attempts under way.", ("model",))
ESTIMATED = Family(
    "gateway_usage_estimated_total",
    "counter",
    "Attempts whose tokens had to be estimated: none were reported.",
    ("model",),
)
UNPRICED = Family(
    "gateway_unpriced_requests_total", "counter", "Requests that used tokens at a price nobody knows.", ("model",)
)
CACHE_HITS = Family(
    "gateway_cache_hits_total", "counter", "Requests that were given an earlier request's answer.", ("route",)
)
CACHE_SAVED = Family(
    "gateway_cache_saved_usd_total",
    "counter",
    "What the answers that were given again cost when they were made.",
    ("route",),
    unit=NANO,
)
LINES_DROPPED = Family(
    "gateway_stream_lines_dropped_total", "counter", "Lines of streams left out because they were not JSON.", ("model",)
)
BREAKER = Family(
    "gateway_breaker_state",
    "gauge",
    "Whether requests may go to a replica: 0 closed (they may), 1 half-open (one at a time), 2 open (none).",
    ("model", "endpoint"),
)
BUDGET_LIMIT = Family(
    "gateway_budget_limit_usd", "gauge", "What may be spent in each window.", ("budget", "scope"), unit=NANO
)
BUDGET_SETTLED = Family(
    "gateway_budget_settled_usd", "gauge", "Spent in the window in force.", ("budget", "scope"), unit=NANO
)
BUDGET_RESERVED = Family(
    "gateway_budget_reserved_usd",
    "gauge",
    "Held for calls under way, and leased to workers: not spent, and nobody else's.",
    ("budget", "scope"),
    unit=NANO,
)
BUDGET_STARTS = Family(
    "gateway_budget_window_start_timestamp_seconds",
    "gauge",
    "When the window in force began; not for windows without an end.",
    ("budget", "scope"),
)
BUDGET_ENDS = Family(
    "gateway_budget_window_end_timestamp_seconds",
    "gauge",
    "When the window in force ends and the next one begins; not for windows without an end.",
    ("budget", "scope"),
)
BUDGET_REJECTIONS = Family(
    "gateway_budget_rejections_total", "counter", "Requests refused because a budget had no room.", ("budget",)
)
BUDGET_OVERRUN = Family(
    "gateway_budget_overrun_usd_total",
    "counter",
    "What attempts were billed above the most that they were held to cost; settled in full.",
    ("budget",),
    unit=NANO,
)
LEDGER_DEPTH = Family("gateway_ledger_queue_depth", "gauge", "Requests waiting to be written to the ledger.")
LEDGER_FAILURES = Family(
    "gateway_ledger_write_failures_total",
    "counter",
    "Tries to write a batch to the ledger that failed; they are repeated.",
)
LEDGER_DROPPED = Family(
    "gateway_ledger_rows_dropped_total", "counter", "Requests missing from the ledger (stores.on_full: drop)."
)
TRACES_LOST = Family(
    "gateway_traces_lost_total", "counter", "Requests whose spans found no place in the queue or were not delivered."
)
CONFIG = Family("gateway_config_info", "info", "The configuration in force.", ("hash",))
RELOADS = Family("gateway_config_reloads_total", "counter", "Reloads of routes.yaml.", ("result",))
RELOADED = Family(
    "gateway_config_last_reload_successful", "gauge", "1 unless the last change of routes.yaml was rejected."
)
BUILD = Family("gateway_build_info", "info", "The gateway's version.", ("version",))

FAMILIES: Final[Mapping[str, Family]] = {
    family.name: family
    for family in (
        REQUESTS,
        REJECTIONS,
        DURATION,
        FIRST_TOKEN,
        PER_TOKEN,
        OVERHEAD,
        STAGES,
        TOKENS,
        COST,
        BASELINE,
        SAVINGS,
        EXTRA,
        CAPACITY,
        EFFECTIVE_PRICE,
        BREAK_EVEN,
        RATED,
        SERVER_REQUESTS,
        SERVER_TOKENS,
        ATTEMPTS,
        FALLBACKS,
        HEDGES,
        IN_FLIGHT,
        ESTIMATED,
        UNPRICED,
        CACHE_HITS,
        CACHE_SAVED,
        LINES_DROPPED,
        BREAKER,
        BUDGET_LIMIT,
        BUDGET_SETTLED,
        BUDGET_RESERVED,
        BUDGET_STARTS,
        BUDGET_ENDS,
        BUDGET_REJECTIONS,
        BUDGET_OVERRUN,
        LEDGER_DEPTH,
        LEDGER_FAILURES,
        LEDGER_DROPPED,
        TRACES_LOST,
        CONFIG,
        RELOADS,
        RELOADED,
        BUILD,
    )
}

OF_CAPACITY: Final = (CAPACITY, EFFECTIVE_PRICE, BREAK_EVEN, RATED, SERVER_REQUESTS, SERVER_TOKENS)
"""Made by `capacity.py`."""
