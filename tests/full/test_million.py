"""`gateway plan` and `gateway report` on a ledger of a million requests: time, memory, and the same sums."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.stores.reader import sums
from tests import ledgers
from tests.servers import BIN

ROWS, COPIES = 50_000, 20
MEGABYTE = 1024  # of getrusage's kilobytes
PERIOD = ("--since", "2026-11-01", "--until", "2026-12-31")

# In a process of its own, so that its children's peak is that of the command alone.
MEASURE = """
import json, resource, subprocess, sys
code = subprocess.run(sys.argv[2:], stdout=open(sys.argv[1], "wb")).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([code, used.ru_utime + used.ru_stime, used.ru_maxrss]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("million")
    ledgers.make(made, ROWS, days=1, text=ledgers.routes(growth_usd="1.5"))
    ledgers.multiply(made / "gateway.db", COPIES, days=1)
    return made


def measured(folder: Path, *command: str, most: float = 60) -> dict[str, Any]:
    """Held to processor time, because other work on the machine is not the command's; the wall is printed."""
    began = time.monotonic()
    line = [sys.executable, "-c", MEASURE, str(folder / "out"), str(BIN), *command]
    code, seconds, kilobytes = json.loads(subprocess.run(line, cwd=folder, capture_output=True, check=True).stdout)
    wall = time.monotonic() - began
    memory = kilobytes / MEGABYTE
    print(f"{command[0]}: {wall:.1f} s, {seconds:.1f} s of processor, {memory:.0f} MB; load {os.getloadavg()}")
    assert code == 0
    assert seconds < most
    assert kilobytes < 200 * MEGABYTE
    found: dict[str, Any] = json.loads((folder / "out").read_text())
    return found


def planned(folder: Path, routes: str, most: float) -> dict[str, Any]:
    return measured(folder, "plan", "--json", *PERIOD, "--routes", routes, most=most)["totals"]  # type: ignore[no-any-return]


@pytest.mark.full
def test_a_million_requests(folder: Path) -> None:
    kept = sums(folder / "gateway.db")
    assert kept.requests == ROWS * COPIES
    same = planned(folder, "routes.yaml", 60)
    assert round(same["cost_usd"]["after"] * 1e9) == kept.cost_nano == kept.attempts_cost_nano
    assert round(same["baseline_usd"]["after"] * 1e9) == kept.baseline_nano
    assert same["rejected_by_budget"]["before"] == same["rejected_by_budget"]["after"] > 0
    text = (folder / "routes.yaml").read_text()
    text = text.replace("use: [qwen], fallback: [deepseek", "use: [deepseek], fallback: [qwen")
    (folder / "changed.yaml").write_text(text)
    changed = planned(folder, "changed.yaml", 120)  # four in ten are lived through again
    assert round(changed["cost_usd"]["before"] * 1e9) == kept.cost_nano
    assert changed["cost_usd"]["change"] > 0
    report = measured(folder, "report", "--json", *PERIOD, "--by", "team,model,day")
    assert round(report["totals"]["cost_usd"] * 1e9) == kept.cost_nano
    assert sum(round(group["cost_usd"] * 1e9) for group in report["groups"]) == kept.cost_nano
