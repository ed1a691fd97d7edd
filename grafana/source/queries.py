"""What the queries of several panels share."""

from __future__ import annotations

PLACE = 'route=~"$route",team=~"$team"'  # of metrics without a model, and of what is set against them
ALL = f'{PLACE},model=~"$model"'

CAPACITY = "model:gateway_capacity_usd_per_hour:max"  # grafana/prometheus/recording.yaml


def over_range(metric: str, where: str = "") -> str:
    return f"increase({metric}{{{where}}}[$__range])"


def per_second(metric: str, where: str = "") -> str:
    return f"rate({metric}{{{where}}}[$__rate_interval])"


COST = over_range("gateway_cost_usd_total", PLACE)
BASELINE = over_range("gateway_baseline_cost_usd_total", PLACE)


def hours(where: str = "") -> str:
    """From the first sight of a machine within the range to the last: it costs money while nobody looks, too."""
    seen = f"timestamp(gateway_capacity_usd_per_hour{{{where}}})[$__range:$__interval]"
    first, last = f"min by (model) (min_over_time({seen}))", f"max by (model) (max_over_time({seen}))"
    return f"({last} - {first}) / 3600"


def hardware(where: str = "") -> str:
    """What machines cost in those hours. The rate is the mean of what was recorded of all replicas of the gateway: one
    that began after a change of the price does not speak for the time before.
    """
    rate = f"avg_over_time({CAPACITY}{{{where}}}[$__range])"
    return f"({rate} * ({hours(where)}))"


MACHINES = f"count_over_time({CAPACITY}[$__range])"  # models that have some


def charged(where: str = "") -> str:
    """What requests were charged of it, by model."""
    return f"(sum by (model) ({over_range('gateway_cost_usd_total', where)}) and on (model) {MACHINES})"


# What really went out: hours of machines, and of everything else what was charged. For the whole gateway.
WHOLE_BASELINE = over_range("gateway_baseline_cost_usd_total")
WHOLE_PAID = f"(sum by (model, provider) ({over_range('gateway_cost_usd_total')}) unless on (model) {MACHINES})"
NET = f"sum(sum by (route) ({WHOLE_BASELINE}) or -{WHOLE_PAID} or -{hardware()})"


def quantile(q: float, metric: str, where: str = "", by: str = "le") -> str:
    """Of the last while; NaN where nothing was seen is left out."""
    return f"histogram_quantile({q}, sum by ({by}) ({per_second(metric + '_bucket', where)})) >= 0"


def quantile_over_range(q: float, metric: str, where: str = "") -> str:
    return f"histogram_quantile({q}, sum by (le) ({over_range(metric + '_bucket', where)}))"
