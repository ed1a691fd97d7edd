"""What changes while workers start reaches them too."""

from __future__ import annotations

import signal
from pathlib import Path

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
