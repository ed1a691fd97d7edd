"""A real model in a process of its own (`tests/tool_server.py`): one that calls tools, unless asked for another."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.servers import free_port, until


@contextlib.contextmanager
def tool_model(template: str = "tools", *weights: Path) -> Iterator[str]:
    """Its base URL. It is called as its template."""
    port = free_port()
    command = [sys.executable, "-m", "tests.tool_server", str(port), template, *map(str, weights)]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        until("the model", lambda: server.poll() is None and _ready(port), 60)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()
        server.wait()


def _ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
