"""litellm costs nobody anything who does not use it (decision 0018)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.servers import Gateway

HEAVY = ("litellm", "aiohttp", "boto3", "botocore", "openai")
ROUTES = 'version: 1\nproviders: {up: {base_url: "http://127.0.0.1:9/v1"}}\nmodels: {m: {provider: up}}\n'


def test_a_gateway_imports_none_of_it() -> None:
    code = "import sys, gateway.cli.serve, gateway.server.single, gateway.server.supervisor, gateway.server.worker\n"
    code += f"print([name for name in {HEAVY} if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.strip() == "[]"


def test_without_such_a_provider_there_is_no_process(tmp_path: Path) -> None:
    with Gateway(tmp_path, ROUTES) as gateway:
        children = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text()
        assert children.split() == []
        assert "litellm process" not in gateway.log
