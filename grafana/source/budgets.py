"""Budgets: what is left, how fast it goes, when it will be gone, and what was refused meanwhile."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from grafana.source.frame import frame, section
from grafana.source.panels import (
    BLUE,
    GREEN,
    HOURS,
    ORANGE,
    PER_SECOND,
    PLAIN,
    RATIO,
    RED,
    USD,
    YELLOW,
    About,
    Column,
    Panel,
    Query,
    bars,
    number,
    rows,
    trend,
)
from grafana.source.queries import ALL, over_range, per_second

BUDGET = 'budget=~"$budget"'
USE = ((None, GREEN), (0.8, YELLOW), (0.9, ORANGE), (1, RED))
SOON = ((None, RED), (24, YELLOW), (168, GREEN))  # hours

LIMIT = f"budget_scope:gateway_budget_limit_usd:max{{{BUDGET}}}"
SETTLED = f"budget_scope:gateway_budget_settled_usd:max{{{BUDGET}}}"
RESERVED = f"budget_scope:gateway_budget_reserved_usd:max{{{BUDGET}}}"
LEFT = f"budget_scope:gateway_budget_left_usd:max{{{BUDGET}}}"
USED = f"budget_scope:gateway_budget_used:ratio{{{BUDGET}}}"
PACE = f"budget_scope:gateway_budget_settled_usd_per_hour:deriv1h{{{BUDGET}}}"
FORECAST = f"budget_scope:gateway_budget_exhausted_hours:forecast1h{{{BUDGET}}}"
NAME = "{{budget}}, {{scope}}"


def build() -> dashboard.Dashboard:
    page = frame(
        "gateway-budgets",
        "What is left of each budget, how fast it goes, when it will be gone, and what was refused meanwhile.",
        *("budget", "team", "route", "model"),
    )
    section(page, "Headline: the chosen budgets, now", *_headline())
    section(page, "How much is used", *_used())
    section(page, "When it will be gone", *_forecast())
    section(page, "What did not fit", *_refused())
    section(page, "Who spends: by team, route and model, whatever budget is chosen", *_spenders())
    return page


def _headline() -> list[Panel]:
    return [
        number(
            About(
                "Fullest budget",
                "The greatest share of its limit that any account has spent in the window in force.",
                *(RATIO, 4, 4, USE, 1),
            ),
            Query(f"max({USED})"),
        ),
        number(
            About(
                "First to run out",
                "Hours until the first account is spent, if the last hour's pace goes on. No value: none is being "
                "spent.",
                *(HOURS, 4, 4, SOON, 1),
            ),
            Query(f"min({FORECAST})"),
        ),
        number(
            About(
                "Accounts at their limit",
                "Accounts that are spent: 100% of the limit is settled, or more.",
                *(PLAIN, 4, 4, ((None, GREEN), (1, RED)), 0),
            ),
            Query(f"sum({USED} >= bool 1)"),
        ),
        number(
            About(
                "Held now",
                "Reserved for calls under way and leased to workers: not spent, but nobody else's.",
                *(USD, 4, 4),
            ),
            Query(f"sum({RESERVED})"),
        ),
        number(
            About(
                "Refused",
                "Requests refused over the range because a budget had no room for them.",
                *(PLAIN, 4, 4, ((None, GREEN), (1, ORANGE)), 0),
            ),
            Query(f"sum({over_range('gateway_budget_rejections_total', BUDGET)})"),
        ),
        number(
            About(
                "Overrun",
                "What attempts were billed above the most that they were held to cost, over the range; settled in "
                "full. Above 0, an upstream bills more than its price in routes.yaml says.",
                *(USD, 4, 4, ((None, GREEN), (0.000001, RED))),
            ),
            Query(f"sum({over_range('gateway_budget_overrun_usd_total', BUDGET)})"),
        ),
    ]


def _used() -> list[Panel]:
    return [
        bars(
            About(
                "Used of the limit",
                "Spent in the window in force, as a share of the limit, by account. `all`: one account for everybody.",
                *(RATIO, 8, 9, USE, 1),
            ),
            Query(USED, NAME),
        ).max(1),
        trend(
            About(
                "Burn-down",
                "What is left of each account: limit - spent. It jumps up when a window begins anew or the limit is "
                "raised.",
                *(USD, 8, 9),
            ),
            Query(LEFT, NAME),
            bounds=(None, None),
        ),
        trend(
            About(
                "Used of the limit over time",
                "Dashed at 80%, 90% and 100%, where thresholds usually stand.",
                *(RATIO, 8, 9, USE, 0),
            ),
            Query(USED, NAME),
            limit=True,
        ),
    ]


def _forecast() -> list[Panel]:
    return [
        trend(
            About(
                "Pace, USD per hour",
                "How fast each account is spent: the slope of the last hour. Below 0 for an hour after a window has "
                "begun anew.",
                *(USD, 8, 9),
            ),
            Query(PACE, NAME),
            bounds=(None, None),
        ),
        rows(
            About(
                "Accounts",
                "Runs out in: time until the account is spent if the last hour's pace goes on; empty where nothing is "
                "being spent. A window that ends before that begins anew. Where gateways keep budgets "
                "each for itself, those of the fullest.",
                *(PLAIN, 16, 9),
            ),
            {"budget": "Budget", "scope": "Scope"},
            {
                "Used": Column(USED, RATIO, USE),
                "Limit": Column(LIMIT, USD),
                "Spent": Column(SETTLED, USD),
                "Held": Column(RESERVED, USD),
                "Left": Column(LEFT, USD),
                "Per hour": Column(PACE, USD),
                "Runs out in": Column(FORECAST, HOURS, SOON),
            },
        ),
    ]


def _refused() -> list[Panel]:
    return [
        trend(
            About("Refused by budget", "Requests a second that a budget had no room for.", PER_SECOND, 8),
            Query(f"sum by (budget) ({per_second('gateway_budget_rejections_total', BUDGET)})", "{{budget}}"),
        ),
        trend(
            About("Held for calls under way", "Reserved and leased, by account.", USD, 8),
            Query(RESERVED, NAME),
            stack="normal",
        ),
        trend(
            About(
                "Overrun, per hour",
                "Billed above the most that an attempt was held to cost. It should be 0.",
                *(USD, 8, 8, ((None, BLUE),)),
            ),
            Query(
                f"3600 * sum by (budget) ({per_second('gateway_budget_overrun_usd_total', BUDGET)})",
                "{{budget}}",
            ),
        ),
    ]


def _spenders() -> list[Panel]:
    cost = over_range("gateway_cost_usd_total", ALL)
    return [
        *(
            bars(
                About(f"Spent by {label}", f"Over the range, charged to requests, by {label}.", USD, 8),
                Query(f"sum by ({label}) ({cost}) > 0", "{{" + label + "}}"),
            )
            for label in ("team", "route", "model")
        )
    ]
