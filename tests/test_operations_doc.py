"""docs/operations.md, followed from the first block to the last beside a gateway that serves requests meanwhile.

The backup is really made while rows are written, and really restored: its rows are the ledger's, column by column.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tests import replies
from tests.servers import free_port, until
from tests.transcript import Shell, Step, steps
from tests.upstream import Received, Upstream
from tests.upstream import Step as Sent

PAGE = Path(__file__).parent.parent / "docs/operations.md"
ROUTES = """version: 1
providers: {{own: {{base_url: "{url}"}}}}
models: {{small: {{provider: own, hosting: self, price: {{input: 1, output: 2}}}}}}
routes: [{{name: default, match: {{model: auto}}, use: [small]}}]
budgets: [{{name: all, limit_usd: 100, counts: all}}]
"""


def serves(received: Received) -> Iterator[Sent]:
    if received.method == "GET":
        yield replies.http(200, json.dumps({"data": [{"id": "small"}]}).encode())
    else:
        yield from replies.ok()(received)


def rows(ledger: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Requests and attempts, with all columns; by table and key."""
    with contextlib.closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        found = {("requests", row["id"]): dict(row) for row in connection.execute("SELECT * FROM requests")}
        for row in connection.execute("SELECT * FROM attempts"):
            found["attempts", f"{row['request_id']} {row['number']}"] = dict(row)
        return found


class Traffic:
    """One client that asks again and again, from `with` to its end."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.answered = 0

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join(60)

    def _ask(self) -> None:
        with httpx.Client(trust_env=False, timeout=60) as client:
            while not self._enough.is_set():
                self.answered += ask(client, self._url)


def ask(client: httpx.Client, url: str) -> int:
    body = {"model": "auto", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 20}
    return int(client.post(f"{url}/v1/chat/completions", json=body).is_success)


def follow_to(shell: Shell, left: list[Step], word: str) -> Step:
    """Follows the steps before the one that holds `word`, and returns that."""
    while word not in left[0].code:
        shell.follow(left.pop(0))
    return left.pop(0)


def test_the_page(tmp_path: Path) -> None:
    public, operations = free_port(), free_port()
    url = f"http://127.0.0.1:{public}"
    listening = f"--listen 127.0.0.1:{public} --ops-listen 127.0.0.1:{operations}"
    swap = [
        (".venv/bin/gateway serve", f".venv/bin/gateway serve {listening}"),
        (".venv/bin/gateway doctor", f".venv/bin/gateway doctor {listening}"),
        ("127.0.0.1:9464", f"127.0.0.1:{operations}"),
    ]
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    ledger, backup = tmp_path / "gateway.db", tmp_path / "backup.db"
    env = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "NO_PROXY": "127.0.0.1"}
    with Upstream(serves) as upstream, Shell(tmp_path, env, swap) as shell:
        (tmp_path / "routes.yaml").write_text(ROUTES.format(url=upstream.base_url))
        left = steps(PAGE.read_text())
        making = follow_to(shell, left, "VACUUM INTO")
        with Traffic(url) as traffic:
            until("rows before the backup", lambda: len(rows(ledger)) >= 20)
            before = rows(ledger)
            asked = traffic.answered
            shell.follow(making)
            until("requests after the backup", lambda: traffic.answered > asked)
        saved = rows(backup)
        assert saved.items() >= before.items()
        assert stat.S_IMODE(backup.stat().st_mode) == 0o600
        shell.follow(follow_to(shell, left, "cp backup.db gateway.db"))
        assert rows(ledger) == saved  # nothing more: what came after the backup is gone
        assert stat.S_IMODE(ledger.stat().st_mode) == 0o600
        with httpx.Client(trust_env=False, timeout=60) as client:
            assert ask(client, url) == 1
        until("a row in what was restored", lambda: len(rows(ledger)) == len(saved) + 2)
        assert rows(ledger).items() >= saved.items()
        while left:
            shell.follow(left.pop(0))
