"""Servers that tell Prometheus of their load: pages after the servers' documents (`tests/data/exposition`), served."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from tests import replies
from tests.upstream import Received, Reply, Step, Upstream

FOLDER = Path(__file__).parent / "data/exposition"
Page = Callable[[], str]


def page(name: str) -> str:
    return (FOLDER / name).read_text()


def vllm(running: int = 0, waiting: int = 0, read: int = 0, written: int = 0) -> str:
    """vLLM's four figures, of one engine."""
    counts = {"num_requests_running": running, "num_requests_waiting": waiting}
    counts |= {"prompt_tokens_total": read, "generation_tokens_total": written}
    return "".join(f'vllm:{name}{{engine="0",model_name="m"}} {count:.1f}\n' for name, count in counts.items())


def telling(text: str | Page, otherwise: Reply | None = None) -> Reply:
    """Answers GET /metrics with a page, and all else as `otherwise`."""
    rest = otherwise or replies.ok()

    def reply(received: Received) -> Iterable[Step]:
        if received.path != "/metrics":
            return rest(received)
        body = text if isinstance(text, str) else text()
        return [replies.http(200, body.encode(), {"content-type": "text/plain; version=0.0.4; charset=utf-8"})]

    return reply


def asked(upstream: Upstream) -> list[Received]:
    """The times it was asked for its metrics."""
    return [probe for probe in list(upstream.probes) if probe.path == "/metrics"]
