"""The exchanges of `tests/data/dialects`, as a server that replays them and as entries of a routes.yaml.

Each folder's `about.json` says where the exchange stands and on what day it was noted, from what is known of the page;
`read`, which few have, is the day on which the page was read for it. None was recorded from the service itself:
`verified` is `documentation`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.replies import END, chunked, http, stream_head
from tests.upstream import Received, Step

DATA = Path(__file__).parent / "data" / "dialects"
NAMES = sorted(path.name for path in DATA.iterdir())
PRICE = "{input: 1, cached_input: 0.1, output: 2}"
KEY = "sk-0123456789abcdef"


def about(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DATA / name / "about.json").read_text())
    return found


ABOUT = {name: about(name) for name in NAMES}
CALLS = [name for name in NAMES if ABOUT[name]["expect"]["tool_calls"]]


def replay(received: Received) -> Iterator[Step]:
    """The exchange that the path begins with."""
    folder = DATA / received.path.split("/")[1]
    if received.stream:
        yield stream_head()
        for event in (folder / "stream.sse").read_bytes().removesuffix(b"\n\n").split(b"\n\n"):
            yield chunked(event + b"\n\n")
        yield END
    else:
        yield http(200, (folder / "whole.json").read_bytes())


def providers(port: int, names: Iterable[str] = NAMES) -> str:
    """Lines below `providers:`, one an exchange, on the server that replays them."""
    return "\n".join(f"  {name}: {_provider(f'http://127.0.0.1:{port}/{name}', name)}" for name in names)


def _provider(base: str, name: str) -> str:
    dialect = ABOUT[name]["dialect"]
    if dialect == "azure":
        return f'{{base_url: "{base}", api_key: {KEY}, api_version: "2024-10-21"}}'
    return f'{{base_url: "{base}/v1", api_key: {KEY}, server: {dialect}}}'


def models(names: Iterable[str] = NAMES) -> str:
    """Lines below `models:`, each called as its exchange."""
    return "\n".join(f"  {name}: {{{_model(name)}, price: {PRICE}}}" for name in names)


def _model(name: str) -> str:
    return f'provider: {name}, model: "{ABOUT[name]["model"]}"'
