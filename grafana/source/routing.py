"""Routing and reliability: who answers, what fails, what is done about it and what that costs."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from grafana.source.frame import frame, section
from grafana.source.panels import (
    BLUE,
    GREEN,
    ORANGE,
    PER_SECOND,
    PLAIN,
    RATIO,
    RED,
    SECONDS,
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
from grafana.source.queries import ALL, over_range, per_second, quantile, quantile_over_range

REQUESTS = over_range("gateway_requests_total", ALL)
ANSWERED = over_range("gateway_requests_total", f'{ALL},outcome="ok"')
ROUTE, MODEL = 'route=~"$route"', 'model=~"$model"'
WHERE = f"{ROUTE},{MODEL}"
AWAY = 'route=~"$route",from=~"$model"'
BAD = 'model=~"$model",result!~"ok|relayed|cancelled"'
ATTEMPTS = over_range("gateway_attempts_total", MODEL)
FELL = over_range("gateway_fallbacks_total", AWAY)
HEDGES = over_range("gateway_hedges_total", ROUTE)
WON = over_range("gateway_hedges_total", f'{ROUTE},won="true"')
WASTED = f'{ALL},purpose!="answer"'


def build() -> dashboard.Dashboard:
    page = frame(
        "gateway-routing",
        "Which models answer which tasks, what fails, and what fallbacks, retries and hedges make of it.",
        *("team", "route", "model"),
    )
    section(page, "Headline", *_headline())
    section(page, "Who answers", *_shares())
    section(page, "Time", *_time())
    section(page, "What fails, and what is done about it", *_failures())
    section(page, "Over the range", *_tables())
    return page


def _headline() -> list[Panel]:
    served = over_range("gateway_requests_total", f'{ALL},outcome=~"ok|upstream_error"')
    failed = over_range("gateway_attempts_total", BAD)
    requests = over_range("gateway_requests_total", ROUTE)
    return [
        number(
            About("Requests", "That came to an end, whatever it was.", PLAIN, 3, 4, decimals=0),
            Query(f"sum({REQUESTS})"),
        ),
        number(
            About(
                "Answered",
                "Of the requests that an upstream should have answered, those that one did. What clients got wrong or "
                "gave up, and what the gateway refused, does not count.",
                *(RATIO, 3, 4, ((None, RED), (0.99, YELLOW), (0.999, GREEN)), 2),
            ),
            Query(f"sum({ANSWERED}) / (sum({served}) > 0)"),
        ),
        number(
            About(
                "First token, 95%",
                "So long after they had come in whole, 95% of requests had their first useful content. Of all teams.",
                *(SECONDS, 3, 4, ((None, GREEN), (2.5, YELLOW), (10, RED)), 2),
            ),
            Query(quantile_over_range(0.95, "gateway_time_to_first_token_seconds", WHERE)),
        ),
        number(
            About(
                "Fallbacks per 100",
                "Moves to another model, away from the chosen models, for each 100 requests of the chosen routes. Of "
                "all teams.",
                *(PLAIN, 3, 4, ((None, GREEN), (5, YELLOW), (20, RED)), 1),
            ),
            Query(f"100 * sum({FELL}) / (sum({requests}) > 0)"),
        ),
        number(
            About(
                "Failed attempts",
                "Share of the tries of an upstream that failed; a request may survive several. By model.",
                *(RATIO, 3, 4, ((None, GREEN), (0.02, YELLOW), (0.1, RED)), 1),
            ),
            Query(f"sum({failed}) / (sum({ATTEMPTS}) > 0)"),
        ),
        number(
            About(
                "Breakers open",
                "Replicas that get no requests now, or only a trial one. By model.",
                *(PLAIN, 3, 4, ((None, GREEN), (1, RED)), 0),
            ),
            Query('sum(max by (model, endpoint) (gateway_breaker_state{model=~"$model"}) > bool 0)'),
        ),
        number(
            About(
                "Hedges that won",
                "Of the second attempts made because the first was slow to begin, those that answered first. By route.",
                *(RATIO, 3, 4, ((None, BLUE),), 0),
            ),
            Query(f"sum({WON}) / (sum({HEDGES}) > 0)"),
        ),
        number(
            About(
                "Wasted",
                "Cost of retries, hedges and other attempts than the one that answered.",
                *(USD, 3, 4),
            ),
            Query(f"sum({over_range('gateway_cost_usd_total', WASTED)})"),
        ),
    ]


def _shares() -> list[Panel]:
    answers = per_second("gateway_requests_total", f'{ALL},outcome="ok"')
    return [
        trend(
            About("Requests by outcome", "Finished requests a second, by how they ended.", PER_SECOND, 8),
            Query(f"sum by (outcome) ({per_second('gateway_requests_total', ALL)})", "{{outcome}}"),
            stack="normal",
        ),
        trend(
            About("Share of answers by model", "Which models answered.", PER_SECOND, 8),
            Query(f"sum by (model) ({answers})", "{{model}}"),
            stack="percent",
        ),
        trend(
            About("Share of answers by task", "What the answered requests were about.", PER_SECOND, 8),
            Query(f"sum by (task) ({answers})", "{{task}}"),
            stack="percent",
        ),
    ]


def _time() -> list[Panel]:
    first, per_token = "gateway_time_to_first_token_seconds", "gateway_time_per_output_token_seconds"
    return [
        trend(
            About(
                "Time to the first token, 95% by model",
                "95% of requests had their first useful content sooner. Of all teams.",
                *(SECONDS, 8),
            ),
            Query(quantile(0.95, first, WHERE, "le, model"), "{{model}}"),
        ),
        trend(
            About(
                "Duration, 95% by route",
                "From the whole request, its body read, to the end of its answer; 95% were sooner. Of all teams.",
                *(SECONDS, 8),
            ),
            Query(quantile(0.95, "gateway_request_duration_seconds", WHERE, "le, route"), "{{route}}"),
        ),
        trend(
            About(
                "Time per output token, median by model",
                "Of streams that ended well: the pace after the first token. Of all routes and teams.",
                *(SECONDS, 8),
            ),
            Query(quantile(0.5, per_token, MODEL, "le, model"), "{{model}}"),
        ),
    ]


def _failures() -> list[Panel]:
    failed, fell = per_second("gateway_attempts_total", BAD), per_second("gateway_fallbacks_total", AWAY)
    hedges, wasted = per_second("gateway_hedges_total", ROUTE), per_second("gateway_cost_usd_total", WASTED)
    return [
        trend(
            About("Failed attempts by kind", "Tries of an upstream that failed, a second. By model.", PER_SECOND, 8),
            Query(f"sum by (result) ({failed})", "{{result}}"),
            stack="normal",
        ),
        trend(
            About(
                "Fallbacks by reason",
                "Moves to another model, a second, by the failure that led there. By route, and by the model that "
                "failed.",
                *(PER_SECOND, 8),
            ),
            Query(f"sum by (reason) ({fell})", "{{reason}}"),
            stack="normal",
        ),
        trend(
            About(
                "Breakers",
                "0 closed: requests go to the replica. 1 half-open: one at a time. 2 open: none.",
                *(PLAIN, 8, 8, ((None, GREEN), (1, YELLOW), (2, RED)), 0),
            ),
            Query('max by (model, endpoint) (gateway_breaker_state{model=~"$model"})', "{{model}} at {{endpoint}}"),
            bounds=(0, 2),
        ),
        trend(
            About(
                "Hedges",
                "Second attempts, a second, because the first was slow to begin; `won`: they answered first. By route.",
                *(PER_SECOND, 8),
            ),
            Query(f"sum by (won) ({hedges})", "won: {{won}}"),
            stack="normal",
        ),
        trend(
            About(
                "Wasted, per hour",
                "Cost of retries, hedges and other attempts than the one that answered.",
                *(USD, 8),
            ),
            Query(f"3600 * sum by (purpose) ({wasted})", "{{purpose}}"),
            stack="normal",
        ),
        trend(
            About(
                "Refused by the gateway",
                "Requests that were never sent upstream, a second, by reason. Whole gateway: who is refused may have "
                "no route, team or model.",
                *(PER_SECOND, 8),
            ),
            Query(f"sum by (reason) ({per_second('gateway_rejections_total')})", "{{reason}}"),
            stack="normal",
        ),
    ]


def _tables() -> list[Panel]:
    by = "sum by (route, task, model)"
    return [
        rows(
            About(
                "Who answered what", "Requests by route, task and the model that answered or was tried last.", PLAIN, 12
            ),
            {"route": "Route", "task": "Task", "model": "Model"},
            {
                "Requests": Column(f"{by} ({REQUESTS}) > 0", PLAIN),
                "Answered": Column(
                    f"{by} ({ANSWERED}) / ({by} ({REQUESTS}) > 0)",
                    RATIO,
                    ((None, RED), (0.95, YELLOW), (0.99, GREEN)),
                ),
            },
        ),
        rows(
            About(
                "Fallbacks",
                "From which model to which, and why. By route, and by the model that failed; of all teams.",
                *(PLAIN, 12),
            ),
            {"route": "Route", "from": "From", "to": "To", "reason": "Reason"},
            {"Fallbacks": Column(f"sum by (route, from, to, reason) ({FELL}) > 0", PLAIN)},
        ),
        rows(
            About("Attempts", "How tries of each model ended; `ok` is an answer. Of all routes and teams.", PLAIN, 12),
            {"model": "Model", "result": "Result"},
            {
                "Attempts": Column(f"sum by (model, result) ({ATTEMPTS}) > 0", PLAIN),
                "Share of the model's": Column(
                    f"sum by (model, result) ({ATTEMPTS}) / on (model) group_left () sum by (model) ({ATTEMPTS}) > 0",
                    RATIO,
                ),
            },
        ),
        bars(
            About(
                "Usage estimated",
                "Attempts whose tokens had to be estimated because the upstream reported none: their cost is an "
                "estimate too. Of all routes and teams.",
                *(PLAIN, 6, 8, ((None, BLUE), (1, ORANGE)), 0),
            ),
            Query(f"sum by (model) ({over_range('gateway_usage_estimated_total', MODEL)})", "{{model}}"),
        ),
        bars(
            About(
                "Unpriced",
                "Requests that used tokens at a price nobody knows: their cost is missing everywhere. Of all routes "
                "and teams.",
                *(PLAIN, 6, 8, ((None, BLUE), (1, RED)), 0),
            ),
            Query(f"sum by (model) ({over_range('gateway_unpriced_requests_total', MODEL)})", "{{model}}"),
        ),
    ]
