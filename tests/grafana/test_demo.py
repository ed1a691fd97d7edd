"""scripts/demo to its end: the shipped routes.yaml, the embedded model, and Prometheus where it is installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.prometheus import tool
from tests.transcript import matches, steps

ROOT = Path(__file__).parent.parent.parent


def demo(path: str) -> str:
    command = [sys.executable, str(ROOT / "scripts" / "demo.py"), "--once"]
    env = {**os.environ, "PATH": path}
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=280, check=False)
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def test_the_demo_shows_the_savings_query_with_its_answer() -> None:
    tool("prometheus")
    told = demo(os.environ["PATH"])
    saved = re.search(r"> sum\(gateway_savings_usd_total\).*\n +(-?)\$([\d.]+)", told)
    each = [float(usd) for usd in re.findall(r"saved \$(-?[\d.]+)", told)]
    assert saved, told
    assert len(each) == 2
    assert float(saved[1] + saved[2]) == pytest.approx(sum(each), abs=1e-9), "as the ledger has it"
    headline = re.search(r"> all:gateway_headline_saving_usd_per_hour:rate5m\n +(-?)\$([\d.]+) an hour", told)
    assert headline, told
    assert matches(steps((ROOT / "docs/quickstart.md").read_text())[0].shows, told), "as the quick start shows it"
    # At most what the two saved, twelve times an hour; at least the machine's hours unused.
    assert -0.05 <= float(headline[1] + headline[2]) <= 12 * 2 * sum(each)


@pytest.mark.full
def test_the_demo_goes_on_without_prometheus(tmp_path: Path) -> None:
    told = demo(str(tmp_path))
    assert "not installed (Debian: apt-get install prometheus)" in told
    assert "Where to look next" in told
