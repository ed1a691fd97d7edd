"""What budgets, limits and keys may not say together."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import load
from gateway.errors import ConfigError

ROUTES = """
version: 1
providers: {up: {base_url: "http://127.0.0.1:9/v1"}}
models: {m: {provider: up, price: unmetered}}
"""


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        (
            "budgets: [{name: b, limit_usd: 1, counts: all, at: {90%: self_hosted_only}}]",
            'budgets[0].at["90%"]',
            "needs `counts: api`",
        ),
        (
            'keys: [{name: k, value: "0123456789abcdef",'
            " budget: {limit_usd: 1, counts: all, at: {9%: self_hosted_only}}}]",
            'keys[0].budget.at["9%"]',
            "needs `counts: api`",
        ),
        ("budgets: [{name: b, limit_usd: 1}, {name: b, limit_usd: 2}]", "budgets[1].name", "budgets[0] is called `b`"),
        ("budgets: [{name: 'key:x', limit_usd: 1}]", "budgets[0].name", "the keys' own budgets"),
        ("budgets: [{name: b, limit_usd: 1, match: {task: codin}}]", "budgets[0].match.task", "no task is called"),
        ("budgets: [{name: b, limit_usd: 1, at: {101%: alert}}]", "budgets[0].at", "from 1% to 100%"),
        (
            "budgets: [{name: b, limit_usd: 1, timezone: Europe/Berln}]",
            "budgets[0].timezone",
            "did you mean `Europe/Berlin`",
        ),
        ("limits: [{per: key}]", "limits[0]", "limits nothing"),
    ],
)
def test_what_does_not_fit_together_is_said(tmp_path: Path, text: str, path: str, says: str) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text(ROUTES + text)
    with pytest.raises(ConfigError) as caught:
        load(file)
    (problem,) = caught.value.problems
    assert path in problem.path
    assert says in problem.message
