"""`scripts/dashboards`: writes grafana/dashboards/*.json. With `--check` it only says what would change."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana.source import budgets, cost, itself, routing

HOME: Final = Path(__file__).parent.parent / "dashboards"
DASHBOARDS: Final[Mapping[str, Callable[[], Dashboard]]] = {
    "cost.json": cost.build,
    "routing.json": routing.build,
    "budgets.json": budgets.build,
    "itself.json": itself.build,
}


def text(name: str) -> str:
    dashboard = DASHBOARDS[name]().build()
    for number, panel in enumerate(dashboard.panels or (), 1):
        panel.id_val = number
    return JSONEncoder(sort_keys=True, indent=2).encode(dashboard) + "\n"


def main(args: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/dashboards", description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 where a file is not what it should be")
    check = parser.parse_args(args).check
    stale = 0
    for name in DASHBOARDS:
        path, now = HOME / name, text(name)
        if path.exists() and path.read_text() == now:
            continue
        stale += 1
        sys.stderr.write(f"{'stale' if check else 'written'}: grafana/dashboards/{name}\n")
        if not check:
            path.write_text(now)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
