"""What changes while workers start reaches them too; and what they cannot do without is said, in one line."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests import replies
from tests.servers import Gateway, until
from tests.upstream import Upstream

ROUTES = """
version: 1
providers: {up: {base_url: "@BASE@"}}
models: {@NAME@: {provider: up, model: up, price: unmetered}}
"""


def test_a_file_that_is_saved_before_the_workers_are_up(tmp_path: Path) -> None:
    with Upstream(replies.ok()) as upstream:
        text = ROUTES.replace("@BASE@", upstream.base_url)
        gateway = Gateway(tmp_path, text.replace("@NAME@", "before"), args=["--workers", "2"])
        gateway.start()
        try:
            until("the parent to serve", lambda: "serving on" in gateway.log, 60)
            gateway.reload(text.replace("@NAME@", "after"))
            gateway.signal(signal.SIGHUP)
            gateway.wait_ready(60)

            def known_to_all() -> bool:
                asked = [gateway.chat("after", headers={"connection": "close"}) for _ in range(12)]
                return all(answer.is_success for answer in asked)

            until("both workers to know the new file", known_to_all)
        finally:
            gateway.__exit__(None, None, None)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_ledger_that_cannot_be_opened_ends_the_start(tmp_path: Path, workers: str) -> None:
    text = ROUTES.replace("@BASE@", "http://127.0.0.1:9/v1").replace("@NAME@", "m")
    text += f"stores: {{ledger: 'sqlite:///{tmp_path}/nowhere/gateway.db'}}\n"
    gateway = Gateway(tmp_path, text, args=["--workers", workers])
    try:
        assert gateway.run_to_end() == 1
        assert "cannot serve: cannot open the ledger" in gateway.log
        assert "serving on" not in gateway.log
        assert "Traceback" not in gateway.log
    finally:
        gateway.__exit__(None, None, None)


def test_a_worker_says_that_the_ledger_has_gone_and_another_takes_its_place(tmp_path: Path) -> None:
    text = ROUTES.replace("@BASE@", "http://127.0.0.1:9/v1").replace("@NAME@", "m")
    ledger = tmp_path / "ledger.db"
    text += f"stores: {{ledger: 'sqlite:///{ledger}'}}\n"
    with Gateway(tmp_path, text, args=["--workers", "2"]) as gateway:
        ledger.rename(tmp_path / "elsewhere.db")
        ledger.mkdir()
        os.kill(workers_of(gateway.pid)[0], signal.SIGKILL)
        until("the next worker's word", lambda: "cannot serve: cannot open the ledger" in gateway.log)
        assert "Traceback" not in gateway.log
        ledger.rmdir()
        (tmp_path / "elsewhere.db").rename(ledger)
        until("the one after it", lambda: gateway.ops.get("/readyz").is_success)


def workers_of(pid: int) -> list[int]:
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [child for child in children if "gateway.server.worker" in Path(f"/proc/{child}/cmdline").read_text()]
