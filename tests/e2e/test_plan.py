"""What `gateway plan` foretells of a changed file is what a gateway then does under it, given the same requests."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests import replies
from tests.replies import Tokens
from tests.servers import BIN, Gateway
from tests.upstream import Upstream

HEAD = """\
version: 1
defaults: {baseline: gpt}
providers: {up: {base_url: "@BASE@", api_key: k}}
models:
  gpt: {provider: up, model: g, price: {input: 2, cached_input: 1, output: @OUTPUT@, reasoning: 12},
        supports: [tools, images, reasoning], max_output_tokens: 1000}
  mid: {provider: up, model: m, price: {input: 1, output: 4}, supports: [tools, images], max_output_tokens: 1000}
  cheap: {provider: up, model: c, price: {input: 0.5, cached_input: 0.1, output: 1}, supports: [tools],
          max_output_tokens: 1000}
  sick: {provider: up, model: s, price: {input: 0.1, output: 0.2}}
  own: {provider: up, model: o, hosting: self, max_output_tokens: 1000,
        price: {gpu_hour_usd: 2.4, gpus: 1, tokens_per_second: {input: 20000, output: 2400}}}
keys: [{name: a, value: key-of-a-0123456789, team: red}, {name: b, value: key-of-b-0123456789, team: blue}]
tasks: {vision: {when: [{has: images}]}, big: {when: [{min_input_tokens: 300}]}}
"""
BEFORE = (
    HEAD.replace("@OUTPUT@", "10")
    + """\
routes:
  - {name: vision, match: {task: vision, model: auto}, use: [gpt]}
  - {name: big, match: {task: big, model: auto}, use: [gpt], fallback: [mid]}
  - {name: blue, match: {team: blue, model: auto}, use: [sick], fallback: [gpt]}
  - {name: all, match: {model: auto}, use: [gpt], fallback: [cheap]}
"""
)
# Another price, orders, candidates, fallbacks, a baseline, and a budget that a picture has no bound in.
AFTER = (
    HEAD.replace("@OUTPUT@", "8")
    + """\
routes:
  - {name: vision, match: {task: vision, model: auto}, use: [cheap, mid], fallback: [gpt]}
  - {name: big, match: {task: big, model: auto}, use: [gpt, mid, cheap], order: cheapest}
  - {name: blue, match: {team: blue, model: auto}, use: [gpt], fallback: [mid], retries: 0, baseline: mid}
  - {name: all, match: {model: auto}, use: [own], fallback: [cheap]}
budgets: [{name: reds, match: {team: red}, limit_usd: 0.009, window: total, counts: all, at: {50%: prefer_self_hosted}}]
"""
)
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
CONTENTS: tuple[Any, ...] = ("short", "x" * 3000, [{"type": "text", "text": "what is it?"}, PICTURE])


def requests() -> Iterator[tuple[str, dict[str, Any]]]:
    """Who asks, and what."""
    for who, content, model, most in itertools.product("ab", CONTENTS, ("auto", "gpt"), (100, 400)):
        yield who, {"model": model, "max_tokens": most, "messages": [{"role": "user", "content": content}]}


class Served(NamedTuple):
    cost: int
    baseline: int
    by_model: Counter[str]
    refused: int


def serve(folder: Path, routes: str, upstream: Upstream) -> Served:
    with Gateway(folder, routes.replace("@BASE@", upstream.base_url)) as gateway:
        for number, (who, body) in enumerate(requests(), 1):
            gateway.post(json=body, headers={"authorization": f"Bearer key-of-{who}-0123456789"})
            if "budgets:" in routes:  # what one has cost counts for the next, as it is foretold
                gateway.wait_rows(number)
        rows = gateway.wait_rows(number)
    return Served(
        sum(row["cost_nano"] for row in rows),
        sum(row["baseline_nano"] for row in rows),
        Counter(row["model"] for row in rows if row["outcome"] == "ok"),
        sum(row["rejection"] == "budget" for row in rows),
    )


def test_what_is_foretold_comes_true(tmp_path: Path) -> None:
    folders = [tmp_path / "before", tmp_path / "after"]
    with Upstream(replies.ok(tokens=Tokens(300, 50, 80, 40))) as upstream:
        upstream.always("s", replies.status(402))
        for folder in folders:
            folder.mkdir()
        before, after = (serve(*each, upstream) for each in zip(folders, (BEFORE, AFTER), strict=True))
    assert before.refused == 0 < after.refused
    assert set(after.by_model) == {"gpt", "mid", "cheap", "own"}
    command = [str(BIN), "plan", "--routes", "../after/routes.yaml", "--since", "1d", "--json"]
    ended = subprocess.run(command, cwd=folders[0], capture_output=True, text=True, timeout=300, check=True)
    totals = json.loads(ended.stdout)["totals"]
    for side, served in (("before", before), ("after", after)):
        foretold = Served(
            round(totals["cost_usd"][side] * 1e9),
            round(totals["baseline_usd"][side] * 1e9),
            Counter({model: found[side] for model, found in totals["models"].items() if found[side]}),
            totals["rejected_by_budget"][side],
        )
        assert foretold == served
