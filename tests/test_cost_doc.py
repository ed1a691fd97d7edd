"""docs/cost.md: the figures of its example are what the code computes from its routes.yaml; its metrics exist."""

from __future__ import annotations

import re
from pathlib import Path

from gateway.config.load import load
from gateway.core.capacity import (
    Traffic,
    break_even,
    capacity_cost,
    effective_price,
    idle,
    per_hour,
    rated_speed,
    utilisation,
)
from gateway.core.pricing import NANO_PER_USD, baseline_cost, cost
from gateway.core.usage import Usage
from gateway.telemetry.families import FAMILIES
from tests.prometheus import RULES
from tests.test_docs import ROOT, blocks

PAGE = (ROOT / "docs/cost.md").read_text()
DAY = 86400.0
REQUESTS = 300_000
ONE = Usage(input=1_500, output=250)


def example(folder: Path) -> dict[str, str]:
    """The rows of "A day of it", computed."""
    (routes,) = (block.code for block in blocks("cost.md", PAGE) if block.language == "yaml")
    (folder / "routes.yaml").write_text(routes)
    models = load(folder / "routes.yaml", {}).rules.models
    qwen, apis = models["qwen"], {name: models[name].price for name in ("deepseek", "gpt")}
    assert qwen.price is not None
    machine = qwen.price.machine
    assert machine is not None
    endpoints = len(qwen.replicas)
    used = Usage(input=ONE.input * REQUESTS, output=ONE.output * REQUESTS)
    tokens = used.input + used.output
    hourly = per_hour(machine, endpoints)
    capacity, charged = capacity_cost(hourly, DAY), cost(used, qwen.price)
    share, price, at_rated = (
        utilisation(capacity, charged),
        effective_price(capacity, tokens),
        effective_price(charged, tokens),
    )
    speed = rated_speed(machine, endpoints, used)
    assert share is not None
    assert price is not None
    assert at_rated is not None
    assert speed is not None
    rows = {
        "one request takes, of one endpoint at rated speed": f"{1_500 / 20_000 + 250 / 2_400:.6f} s",
        "and is charged": f"${cost(ONE, qwen.price) / NANO_PER_USD:.9f}",
        "charged": usd(charged),
        "capacity": usd(capacity),
        "idle": usd(idle(capacity, charged)),
        "utilisation": f"{share:.1%}",
        "price of a million tokens at rated speed": f"${at_rated / NANO_PER_USD:.4f}",
        "effective price of a million tokens": f"${price / NANO_PER_USD:.4f}",
        "traffic": f"{tokens / DAY:,.0f} tokens/s",
        "rated speed at this mix": f"{speed:,.0f} tokens/s",
    }
    tenth = Usage(input=used.input // 10, output=used.output // 10)
    for name, api in apis.items():
        assert api is not None
        traffic = break_even(hourly, Traffic(DAY, used, ONE.input), api)
        assert traffic is not None
        rows[f"break-even against {name}"] = f"{traffic:,.0f} tokens/s"
        rows[f"headline saving against {name}"] = usd(baseline_cost(used, api) - capacity)
        rows[f"the same with a tenth of the traffic, against {name}"] = usd(baseline_cost(tenth, api) - capacity)
    return rows


def usd(nano: int) -> str:
    return f"{'-' if nano < 0 else ''}${abs(nano) / NANO_PER_USD:,.2f}"


def test_the_example(tmp_path: Path) -> None:
    section = PAGE.partition("## A day of it")[2].partition("\n## ")[0]
    written = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", section, re.MULTILINE))
    assert written == example(tmp_path)
    assert f"serve {REQUESTS:,} requests of {ONE.input:,} tokens in and {ONE.output} out in 24 hours" in section


def test_its_metrics_exist_with_these_labels() -> None:
    found = set(re.findall(r"(?<!:)\b(gateway_\w+)(?:\{([\w,]+)\})?", PAGE))
    assert len(found) > 8
    for name, labels in found:
        assert name in FAMILIES, name
        if labels and "=" not in labels:
            assert tuple(labels.split(",")) == FAMILIES[name].labels


def test_its_rules_are_recorded() -> None:
    """That they say what its queries say is asked of a real Prometheus, in tests/grafana/test_recording_rules.py."""
    named = set(re.findall(r"\b\w+:gateway_\w+:\w+", PAGE))
    recorded = {line.partition("record: ")[2] for line in (RULES / "recording.yaml").read_text().splitlines()}
    assert named
    assert named <= recorded
