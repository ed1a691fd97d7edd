"""Commands that only look, beside a store of another release: as before an upgrade is under way."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from gateway.cli import main
from gateway.stores import keys
from gateway.stores.audit import Change
from gateway.stores.schema import ACCOUNTS_SINCE, MIGRATIONS, connect

ROUTES = """version: 1
providers: {a: {base_url: "http://127.0.0.1:1/v1"}}
models: {m: {provider: a, price: {input: 1, output: 2}}}
routes: [{name: default, match: {model: auto}, use: [m]}]
budgets: [{name: all, limit_usd: 100}]
"""
LOOKS = (
    ["check"],
    ["keys", "list", "--json"],
    ["budgets", "list"],
    ["explain", "--prompt", "hello", "--key", "web"],
    ["ledger", "list"],
)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("routes.yaml").write_text(ROUTES)
    return tmp_path / "gateway.db"


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


@pytest.mark.parametrize("older", range(ACCOUNTS_SINCE, len(MIGRATIONS)))
def test_a_store_of_an_older_release_stays_as_it_is(
    store: Path, older: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """A gateway of that release may be at work on it, and could not open it any more."""
    with closing(connect(store, busy_seconds=1, migrations=MIGRATIONS[:older])) as connection:
        made = keys.StoredKey(b"0" * 32, "web", {}, time.time())
        keys.create(connection, made, Change(time.time(), "test", "keys.create", "web"))
    for command in LOOKS:
        assert main(command) == 0, capsys.readouterr().err
    assert version(store) == older
    capsys.readouterr()
    assert main(["keys", "list", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["web"]
    assert main(["keys", "create", "other"]) == 0  # a change brings it up to date
    assert version(store) == len(MIGRATIONS)


def test_a_store_from_before_there_were_keys(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    connect(store, busy_seconds=1, migrations=MIGRATIONS[: ACCOUNTS_SINCE - 1]).close()
    assert main(["keys", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert version(store) == ACCOUNTS_SINCE - 1


def test_a_store_of_a_later_release_is_not_guessed_at(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    connect(store, busy_seconds=1).close()
    with closing(sqlite3.connect(store)) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    for command in (["keys", "list"], ["budgets", "list"]):
        assert main(command) == 1
        assert f"knows versions up to {len(MIGRATIONS)}" in capsys.readouterr().err
