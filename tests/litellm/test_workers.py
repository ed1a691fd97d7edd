"""One litellm process for all workers, begun by a reload: each worker finds it, and ends with the gateway."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tests.litellm import apis
from tests.litellm.conftest import KEY
from tests.servers import Gateway, until
from tests.upstream import Upstream

BEFORE = 'version: 1\nproviders: {up: {base_url: "http://127.0.0.1:9/v1"}}\nmodels: {m: {provider: up}}\n'
AFTER = """
version: 1
providers: {anthropic: {dialect: litellm, litellm_provider: anthropic, base_url: "@BASE@", api_key: "@KEY@"}}
models: {claude: {provider: anthropic, model: claude-sonnet-4-5, price: unmetered}}
"""
OTHER_KEY = "sk-ant-another-secret-0123456789"


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"


def test_a_reload_brings_it_to_all_workers(tmp_path: Path) -> None:
    with Upstream(apis.anthropic({"type": "text", "text": "Hello."})) as upstream:
        after = AFTER.replace("@BASE@", f"http://127.0.0.1:{upstream.port}").replace("@KEY@", KEY)
        with Gateway(tmp_path, BEFORE, args=["--workers", "2"]) as gateway:
            gateway.reload(after)
            until("the litellm process", lambda: "the litellm process serves" in gateway.log or None, timeout=240)
            until("an answer", lambda: gateway.chat("claude").status_code == 200)
            assert all(gateway.chat("claude").status_code == 200 for _ in range(8))

            gateway.reload(after.replace(KEY, OTHER_KEY))
            until("the new key", lambda: gateway.chat("claude") and upstream.calls[-1].header("x-api-key") == OTHER_KEY)
            found = re.findall(r"the litellm process serves at \S+ \(process (\d+)\)", gateway.log)
            assert len(found) == 1, "a reload does not start it again"
            gateway.stop()
        until("its end", lambda: gone(int(found[0])))
