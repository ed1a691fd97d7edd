"""A real model that calls tools, in a process of its own (`tests/tool_server.py`)."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import httpx

from tests.servers import free_port, until


@contextlib.contextmanager
def tool_model() -> Iterator[str]:
    """Its base URL."""
    port = free_port()
    server = subprocess.Popen([sys.executable, "-m", "tests.tool_server", str(port)], stderr=subprocess.DEVNULL)
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
