"""Cost and savings: what was spent, what the closed model would have cost, and what idle hardware leaves of that."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from grafana.source.frame import frame, section
from grafana.source.panels import (
    BLUE,
    GREEN,
    HOURS,
    ORANGE,
    PLAIN,
    RATIO,
    RED,
    TOKENS,
    TOKENS_PER_SECOND,
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
from grafana.source.queries import (
    ALL,
    BASELINE,
    CAPACITY,
    COST,
    NET,
    PLACE,
    WHOLE_BASELINE,
    charged,
    hardware,
    hours,
    over_range,
    per_second,
)

HOURLY_BASELINE = "all:gateway_baseline_cost_usd_per_hour:rate5m"
MODEL = 'model=~"$model"'
HARDWARE, CHARGED = hardware(MODEL), charged(MODEL)
SIGN = ((None, RED), (0, GREEN))  # a saving, or a loss


def build() -> dashboard.Dashboard:
    page = frame(
        "gateway-cost",
        "What the gateway's requests cost, what the closed model of each route would have cost, and what idle "
        "hardware takes.",
        *("team", "route", "model"),
    )
    section(page, "Headline: the first four by team and route, the others for the whole gateway", *_headline())
    section(page, "Trends: USD per hour", *_money())
    section(page, "Your own hardware", *_hardware())
    section(page, "Tokens", *_tokens())
    section(page, "Over the range", *_tables())
    return page


def _headline() -> list[Panel]:
    return [
        number(
            About(
                "Spent",
                "What all attempts were charged, failed ones, retries and hedges included; self-hosted models at "
                "their rate at rated speed. By team and route, of all models.",
                *(USD, 3, 4),
            ),
            Query(f"sum({COST})"),
        ),
        number(
            About(
                "Would have cost",
                "What each route's baseline model would have charged for the requests that were answered: input and "
                "visible output at its prices. By team and route.",
                *(USD, 3, 4),
            ),
            Query(f"sum({BASELINE})"),
        ),
        number(
            About(
                "Saved",
                "Would have cost - spent. Below 0 where the requests cost more than their baseline. Idle hardware is "
                "not in it: see the last two figures.",
                *(USD, 3, 4, SIGN),
            ),
            Query(f"sum({BASELINE}) - sum({COST})"),
        ),
        number(
            About(
                "Saved, share",
                "Saved as a share of what they would have cost.",
                *(RATIO, 3, 4, SIGN, 1),
            ),
            Query(f"(sum({BASELINE}) - sum({COST})) / (sum({BASELINE}) > 0)"),
        ),
        number(
            About(
                "Hardware",
                "What the machines of self-hosted models cost, busy or idle, from the first time they were seen "
                "within the range to the last. Whole gateway.",
                *(USD, 3, 4),
            ),
            Query(f"sum({hardware()})"),
        ),
        number(
            About(
                "Idle hardware",
                "The part of it that no request was charged for. Below 0 where a machine does more than its rated "
                "speed: then the rate in routes.yaml is set too low. Whole gateway.",
                *(USD, 3, 4, ((None, BLUE), (0, ORANGE))),
            ),
            Query(f"sum({hardware()}) - sum({charged()})"),
        ),
        number(
            About(
                "Net saving",
                "The headline: would have cost - API cost - hardware, busy or idle. Whole gateway, whatever team, "
                "route and model are chosen: idle hours belong to nobody's request. May be below 0.",
                *(USD, 3, 4, SIGN),
            ),
            Query(NET),
        ),
        number(
            About(
                "Net saving, share",
                "The headline as a share of what the closed models would have cost. Whole gateway.",
                *(RATIO, 3, 4, SIGN, 1),
            ),
            Query(f"{NET} / (sum({WHOLE_BASELINE}) > 0)"),
        ),
    ]


def _money() -> list[Panel]:
    cost, baseline = per_second("gateway_cost_usd_total", ALL), per_second("gateway_baseline_cost_usd_total", PLACE)
    return [
        trend(
            About(
                "Spent against the baseline, per hour",
                "Spent and would have cost, by team and route, of all models. The distance between the lines is what "
                "requests save.",
                *(USD, 12),
            ),
            Query(f"3600 * sum({per_second('gateway_cost_usd_total', PLACE)})", "spent"),
            Query(f"3600 * sum({baseline})", "would have cost"),
        ),
        trend(
            About(
                "Saved per hour, whole gateway",
                "On requests, and net of idle hardware (averages over 5 minutes). Below the dashed 0 the gateway "
                "costs more than the closed models.",
                *(USD, 12, 8, SIGN),
            ),
            Query(f"{HOURLY_BASELINE} - all:gateway_cost_usd_per_hour:rate5m", "on requests"),
            Query("all:gateway_headline_saving_usd_per_hour:rate5m", "net of idle hardware"),
            bounds=(None, None),
            limit=True,
        ),
        *(
            trend(
                About(f"Spent per hour by {label}", f"Charged to requests, stacked by {label}.{more}", USD, 6),
                Query(f"3600 * sum by ({label}) ({cost})", "{{" + label + "}}"),
                stack="normal",
            )
            for label, more in (
                ("task", ""),
                ("team", " `none`: the key has no team."),
                ("model", ""),
                ("hosting", " `self`: your own machines, at their rate; `api`: money that leaves."),
            )
        ),
    ]


def _hardware() -> list[Panel]:
    return [
        trend(
            About(
                "Utilisation",
                "What requests were charged of a machine's hourly cost: 100% is all it can do at its rated speed. "
                "Averages over 5 minutes. Above 100% the rated speed in routes.yaml is too low.",
                *(RATIO, 12, 8, ((None, ORANGE), (0.3, YELLOW), (0.6, GREEN))),
            ),
            Query('model:gateway_utilisation:ratio_rate5m{model=~"$model"}', "{{model}}"),
        ),
        trend(
            About(
                "Hardware and its idle part, per hour",
                "What each model's machines cost an hour, and what of it no request was charged for.",
                *(USD, 12),
            ),
            Query(CAPACITY + '{model=~"$model"}', "{{model}}: all"),
            Query('model:gateway_idle_usd_per_hour:rate5m{model=~"$model"}', "{{model}}: idle"),
            bounds=(None, None),
        ),
        trend(
            About(
                "Price of a million tokens on your own hardware",
                "What the last hour's tokens came to, idle machines included: compare it with the APIs' prices. No "
                "value without tokens. Where several gateways use the same machines and these do not say what they "
                "served, each knows its own tokens alone: the lowest of their prices is shown, which may be too high.",
                *(USD, 12),
            ),
            Query(f"min by (model) (gateway_effective_price_usd_per_million_tokens{{{MODEL}}})", "{{model}}"),
        ),
        trend(
            About(
                "Traffic against break-even",
                "Tokens a second that a model serves, and from how many on its machines are cheaper than each API of "
                "its routes, at the last hour's mix of tokens.",
                *(TOKENS_PER_SECOND, 12),
            ),
            Query(
                f"sum by (model) ({per_second('gateway_tokens_total', MODEL)}) and on (model) {CAPACITY}",
                "{{model}}: served",
            ),
            Query(
                f"max by (model, versus) (gateway_break_even_tokens_per_second{{{MODEL}}})",
                "{{model}}: break-even with {{versus}}",
            ),
        ),
        rows(
            About(
                "Machines over the range",
                "Hours: from the first time that the gateway said what a machine costs to the last, within the range.",
                *(PLAIN, 24, 5),
            ),
            {"model": "Model"},
            {
                "Hardware": Column(HARDWARE, USD),
                "Charged to requests": Column(CHARGED, USD),
                "Idle": Column(f"{HARDWARE} - ({CHARGED})", USD),
                "Utilisation": Column(
                    f"({CHARGED}) / {HARDWARE}",
                    RATIO,
                    ((None, ORANGE), (0.3, YELLOW), (0.6, GREEN)),
                ),
                "Hours": Column(
                    hours(MODEL),
                    HOURS,
                ),
            },
        ),
    ]


def _tokens() -> list[Panel]:
    tokens = per_second("gateway_tokens_total", ALL)
    return [
        trend(
            About("Tokens by type", "Billed tokens of all attempts; the types are disjoint.", TOKENS_PER_SECOND, 12),
            Query(f"sum by (type) ({tokens})", "{{type}}"),
            stack="normal",
        ),
        trend(
            About("Tokens by model", "Billed tokens of all types, of all attempts.", TOKENS_PER_SECOND, 12),
            Query(f"sum by (model) ({tokens})", "{{model}}"),
            stack="normal",
        ),
    ]


def _tables() -> list[Panel]:
    cost, tokens = over_range("gateway_cost_usd_total", ALL), over_range("gateway_tokens_total", ALL)
    return [
        *(
            rows(
                About(
                    f"By {label}",
                    f"Each {label}'s requests against their baseline, of all models; idle hardware is not in it.",
                    *(PLAIN, 12, 8),
                ),
                {label: label.capitalize()},
                {
                    "Spent": Column(f"sum by ({label}) ({COST})", USD),
                    "Would have cost": Column(f"sum by ({label}) ({BASELINE})", USD),
                    "Saved": Column(f"sum by ({label}) ({BASELINE}) - sum by ({label}) ({COST})", USD, SIGN),
                    "Share": Column(
                        f"1 - sum by ({label}) ({COST}) / (sum by ({label}) ({BASELINE}) > 0)", RATIO, SIGN
                    ),
                    "Requests": Column(f"sum by ({label}) ({over_range('gateway_requests_total', PLACE)})", PLAIN),
                },
            )
            for label in ("task", "team")
        ),
        rows(
            About(
                "By model",
                "What each model was charged, for how many tokens, and what a million of them came to. A self-hosted "
                "model's price here is its rate at rated speed, without idle hours.",
                *(PLAIN, 18, 8),
            ),
            {"model": "Model", "hosting": "Hosting"},
            {
                "Spent": Column(f"sum by (model, hosting) ({cost})", USD),
                "Tokens": Column(
                    f"sum by (model) ({tokens}) * on (model) group_right () "
                    f"(sum by (model, hosting) ({cost}) >= bool 0)",
                    TOKENS,
                ),
                "USD per million tokens": Column(
                    f"1e6 * sum by (model, hosting) ({cost}) "
                    f"/ on (model) group_left () (sum by (model) ({tokens}) > 0)",
                    USD,
                ),
            },
        ),
        bars(
            About("By hosting", "`self`: your own machines, at their rate; `api`: money that leaves.", USD, 6),
            Query(f"sum by (hosting) ({cost})", "{{hosting}}"),
        ),
    ]
