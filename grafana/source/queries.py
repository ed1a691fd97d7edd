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

# Hours that were seen, not hours of the range: a gateway that began at noon owes nothing for the morning.
HARDWARE = f'sum_over_time({CAPACITY}{{model=~"$model"}}[$__range:$__interval]) * $__interval_ms / 3600000'
CHARGED = (
    "sum by (model) (" + over_range("gateway_cost_usd_total", 'model=~"$model"') + ") "
    f"and on (model) count_over_time({CAPACITY}[$__range])"
)

# What really went out: hours of machines, and of everything else what was charged. For the whole gateway.
WHOLE_HARDWARE = f"sum_over_time({CAPACITY}[$__range:$__interval]) * $__interval_ms / 3600000"
WHOLE_BASELINE = over_range("gateway_baseline_cost_usd_total")
WHOLE_PAID = (
    "(sum by (model, provider) ("
    + over_range("gateway_cost_usd_total")
    + f") unless on (model) count_over_time({CAPACITY}[$__range]))"
)
NET = f"sum(sum by (route) ({WHOLE_BASELINE}) or -{WHOLE_PAID} or -({WHOLE_HARDWARE}))"


def quantile(q: float, metric: str, where: str = "", by: str = "le") -> str:
    """Of the last while; NaN where nothing was seen is left out."""
    return f"histogram_quantile({q}, sum by ({by}) ({per_second(metric + '_bucket', where)})) >= 0"


def quantile_over_range(q: float, metric: str, where: str = "") -> str:
    return f"histogram_quantile({q}, sum by (le) ({over_range(metric + '_bucket', where)}))"
