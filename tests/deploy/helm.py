"""Helm 4 itself, through its Python SDK: requests as JSON on stdin, answers on stdout. Run in .venv-clients/deploy.

A request: {"chart": folder, "values": {...}}. Its answer: {"lint": [...], "files": {template: text}, "error": why not}.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import helm_python


def answer(request: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"lint": [], "files": {}, "error": ""}
    report = helm_python.lint(request["chart"], request["values"], strict=True)
    found["lint"] = [each for each in report["messages"] if each["severity"] > 1] + report["errors"]
    try:
        with helm_python.Chart.load(request["chart"]) as chart:
            chart.validate_schema(request["values"])
            found["files"] = chart.render(request["values"], name="demo", namespace="models")
    except helm_python.HelmError as error:
        found["error"] = str(error)
    return found


if __name__ == "__main__":
    json.dump([answer(request) for request in json.load(sys.stdin)], sys.stdout)
