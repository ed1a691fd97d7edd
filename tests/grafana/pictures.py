"""Pictures of the dashboards, of a working day: `scripts/dashboards --render`.

A real gateway serves six hours of traffic in a few minutes: what came in two minutes is asked at once, its exposition
is read while half of it is under way, and that reading gets the time of day of those two minutes. So the day has the
same shape on a busy machine and an idle one. What is measured in seconds of a machine (its CPU, start, and the price
of a token on it) is stretched alike. `promtool` makes blocks of the readings, a real Prometheus answers every query
of every panel from them, and Chromium draws the answers with Grafana's component library: rendered with it, never run
in Grafana. Recorded series are asked as the rules' own expressions, because rules are not evaluated backwards.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from tqdm import tqdm

from tests import replies
from tests.grafana.dashboards import FILES, GRAFANA, VARIABLE, read
from tests.prometheus import Prometheus, tool
from tests.replies import Tokens
from tests.servers import Gateway
from tests.upstream import Received, Reply, Step, Upstream

ROOT = GRAFANA.parent
RENDERER = ROOT / ".venv-render"
TURNS = 180
STEP = 120  # seconds of a turn, on the day's clock
DAY = TURNS * STEP
END = datetime.datetime(2026, 11, 25, 14, 58, tzinfo=datetime.UTC).timestamp()

ROUTES = """
version: 1
defaults: {baseline: gpt, retries: 0, timeout: {total: 30s}}
providers:
  vllm: {base_url: "@BASE@"}
  deepseek: {base_url: "@BASE@"}
  openai: {base_url: "@BASE@"}
models:
  qwen:
    provider: vllm
    model: qwen-up
    hosting: self
    price: {gpu_hour_usd: 2.40, gpus: 1, tokens_per_second: {input: 2000, output: 160}}
  deepseek: {provider: deepseek, model: deepseek-up, price: {input: 0.28, cached_input: 0.028, output: 0.42}}
  gpt: {provider: openai, model: gpt-up, price: {input: 1.25, cached_input: 0.125, output: 10}}
tasks:
  support: {when: [{header: {x-app: helpdesk}}]}
  coding: {when: [{header: {x-app: editor}}]}
  extract: {when: [{header: {x-app: pipeline}}]}
routes:
  - {name: support, match: {task: support}, use: [qwen], fallback: [deepseek, gpt], hedge: {after: 250ms}}
  - {name: coding, match: {task: coding}, use: [deepseek], fallback: [gpt], retries: 1}
  - {name: extract, match: {task: extract}, use: [qwen], fallback: [deepseek]}
  - {name: default, match: {model: auto}, use: [gpt], fallback: [deepseek]}
keys:
  - {name: shop, value: a-key-of-the-shop-for-pictures, team: shop}
  - {name: apps, value: a-key-of-the-apps-for-pictures, team: apps}
  - {name: data, value: a-key-of-the-data-for-pictures, team: data}
  - {name: lab, value: a-key-of-the-lab-for-pictures, team: research}
budgets:
  - {name: company, limit_usd: 40, window: month, counts: all}
  - {name: teams, per: team, match: {team: [shop, apps, data]}, limit_usd: 12, window: month, counts: all}
  - {name: experiments, match: {team: research}, limit_usd: 0.7, window: month, counts: all}
"""

KEYS = {"shop": 5, "apps": 4, "data": 3, "lab": 1}  # how often each asks
APPS = {"shop": ["helpdesk"] * 5 + [""], "apps": ["editor"] * 4 + [""], "data": ["pipeline"], "lab": ["", "editor"]}


class Day:
    """What happens when: `at` is the share of the day that has passed."""

    at = 0.0

    def requests(self) -> int:
        """Of a turn: more towards noon, fewer at noon itself."""
        return round(7 + 8 * math.sin(math.pi * self.at) ** 2 - 5 * math.exp(-(((self.at - 0.5) / 0.06) ** 2)))

    def fails(self, model: str) -> float:
        if model == "deepseek-up" and 0.30 < self.at < 0.36:
            return 0.8  # an outage
        return {"qwen-up": 0.03, "deepseek-up": 0.02}.get(model, 0.005)


def answers(day: Day, model: str, seed: int) -> Reply:
    dice = random.Random(seed)  # noqa: S311 - repeatable traffic, not a secret
    bad = [replies.status(503), replies.empty(), replies.rate_limited("0"), replies.html_in_200()]
    pause = {"qwen-up": 0.003, "deepseek-up": 0.006, "gpt-up": 0.009}[model]

    def reply(received: Received) -> Iterator[Step]:
        if dice.random() < day.fails(model):
            yield from dice.choice(bad)(received)
            return
        asked = len(received.body) // 4
        cached = int(asked * 0.4 * dice.random())
        written = min(2_900, int((900 if model == "qwen-up" else 700) * dice.lognormvariate(0, 0.6)))
        thought = written // 4 if model == "gpt-up" else 0
        yield min(2.0, pause * 8 * dice.lognormvariate(0, 0.9))
        tokens = Tokens(asked - cached, cached, written - thought, thought)
        good = replies.ok("So it is, I think.", tokens=tokens, pause=pause)
        yield from (replies.with_bad_line() if received.stream and dice.random() < 0.004 else good)(received)

    return reply


class Reading(NamedTuple):
    at: float  # Unix seconds, of the day
    stretch: float  # seconds of the day for each of the machine, since the turn before
    took: float  # seconds of the machine since the first
    text: str


def play(gateway: Gateway, upstream: Upstream) -> Iterator[Reading]:
    """A reading for each turn."""
    day, dice = Day(), random.Random(9)  # noqa: S311 - as above
    for seed, model in enumerate(("qwen-up", "deepseek-up", "gpt-up")):
        upstream.always(model, answers(day, model, seed))

    def ask() -> Callable[[], object]:
        [who] = dice.choices(list(KEYS), list(KEYS.values()))
        app, stranger = dice.choice(APPS[who]), dice.random() < 0.01
        size = int({"helpdesk": 20_000, "pipeline": 30_000}.get(app, 9_000) * dice.lognormvariate(0, 0.4))
        headers = {"authorization": f"Bearer a-key-of-the-{'stranger' if stranger else who}-for-pictures"}
        said = [{"role": "user", "content": "and so on " * (size // 10)}]
        body = {"model": "auto", "stream": dice.random() < 0.7, "max_tokens": 3000, "messages": said}
        return lambda: gateway.post(json=body, headers=headers | ({"x-app": app} if app else {}))

    before = began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        for turn in tqdm(range(TURNS), desc="a day of traffic", unit="turn", disable=None):
            day.at = turn / TURNS
            asked = [pool.submit(ask()) for _ in range(day.requests())]
            for under_way in asked[: len(asked) // 2]:
                under_way.result()
            text, now = gateway.ops.get("/metrics").raise_for_status().text, time.monotonic()
            yield Reading(END - (TURNS - 1 - turn) * STEP, STEP / (now - before), now - began, text)
            before = now
            wait(asked)


SAMPLE = re.compile(r"^(\w+)(\{.*\})? (\S+)$")


def stretched(found: Iterable[Reading]) -> Iterator[str]:
    """OpenMetrics lines with timestamps. A series that rests at 0 is told every other time only."""
    spent: dict[str, tuple[float, float]] = {}  # CPU seconds by process: of the machine, and of the day
    for turn, reading in enumerate(found):
        for line in reading.text.splitlines():
            if line.startswith("#") or not (sample := SAMPLE.match(line)):
                continue
            name, labels, value = sample[1], sample[2] or "", float(sample[3])
            if value == 0 and turn % 2:
                continue
            if name == "process_cpu_seconds_total":
                real, shown = spent.get(labels, (value, value))
                spent[labels] = value, shown + (value - real) * reading.stretch
                value = spent[labels][1]
            elif name == "process_start_time_seconds":
                value = END - DAY
            elif name == "gateway_effective_price_usd_per_million_tokens":
                value *= (turn + 1) * STEP / max(reading.took, 1e-3)
            told = (labels[:-1] + "," if labels else "{") + 'instance="gateway-1:9464",job="gateway"}'
            yield f"{name}{told} {value!r} {reading.at}\n"
    yield "# EOF\n"


def record(directory: Path) -> Path:
    """Plays the day; the file that `promtool` makes blocks of."""
    path = directory / "day.om"
    with (
        Upstream(replies.ok()) as upstream,
        Gateway(directory, ROUTES.replace("@BASE@", upstream.base_url)) as gateway,
        path.open("w") as file,
    ):
        file.writelines(stretched(play(gateway, upstream)))
    return path


# Rules' expressions in place of what they record


def rules() -> dict[str, str]:
    groups = yaml.safe_load((GRAFANA / "prometheus" / "recording.yaml").read_text())["groups"]
    return {rule["record"]: rule["expr"] for group in groups for rule in group["rules"]}


RULES = rules()
RECORDED = re.compile(
    rf"\b({'|'.join(sorted(map(re.escape, RULES), key=len, reverse=True))})(\{{[^}}]*\}})?(\[[^]:]*\])?"
)


def expanded(expr: str) -> str:
    """For variables at All only: matchers on a recorded series are left out. Rates of 5 minutes become such of 10."""

    def put(found: re.Match[str]) -> str:
        span = f"[{found[3][1:-1]}:{STEP}s]" if found[3] else ""
        return f"({expanded(RULES[found[1]].replace('[5m]', '[10m]'))}){span}"

    return RECORDED.sub(put, expr)


def asked(expr: str) -> str:
    values = {"__range": f"{DAY}s", "__rate_interval": f"{5 * STEP}s", "__interval": f"{STEP}s"}
    return expanded(VARIABLE.sub(lambda found: values.get(found[1], ".*"), expr))


class Given(NamedTuple):
    """What the page draws one dashboard from."""

    dashboard: dict[str, Any]
    answers: dict[int, dict[str, Any]]

    def write(self, path: Path) -> None:
        times = {"from": (END - DAY) * 1000, "to": END * 1000, "step": STEP * 1000}
        path.write_text(json.dumps({"dashboard": self.dashboard, "answers": self.answers, **times}))


def given(prometheus: Prometheus, dashboard: dict[str, Any]) -> Given:
    answers: dict[int, dict[str, Any]] = {}
    for panel in dashboard["panels"]:
        answers[panel["id"]] = {}
        for target in panel.get("targets", ()):
            query = asked(target["expr"])
            if target["instant"]:
                found = prometheus.get("/api/v1/query", query=query, time=str(END))
            else:
                span = {"start": str(END - DAY + STEP), "end": str(END), "step": str(STEP)}
                found = prometheus.get("/api/v1/query_range", query=query, **span)
            answers[panel["id"]][target["refId"]] = found["result"]
    return Given(dashboard, answers)


class Drawn(NamedTuple):
    """What Chromium says of one dashboard."""

    said: list[str]  # by the console, and what could not be found
    panels: list[dict[str, Any]]


def draw(source: Path, picture: Path) -> Drawn:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "chromium is not installed (Debian: apt-get install chromium)"
    command = ["node", "shoot.mjs", str(source), str(picture)]
    env = {**os.environ, "CHROMIUM": chromium}
    ended = subprocess.run(command, cwd=RENDERER, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return Drawn(**json.loads(ended.stdout))


def render(target: Path, directory: Path) -> dict[str, Drawn]:
    """Pictures of all dashboards, in `target`. `directory` is for what is needed on the way."""
    day = record(directory)
    command = [tool("promtool"), "tsdb", "create-blocks-from", "openmetrics", str(day), str(directory / "prometheus")]
    made = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert made.returncode == 0, made.stderr[-3000:]
    drawn = {}
    with Prometheus(directory, [], rules=[]) as prometheus:
        for path in FILES:
            source = directory / path.name
            given(prometheus, read(path)).write(source)
            drawn[path.stem] = draw(source, target / f"{path.stem}.png")
    return drawn


def main(args: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/dashboards --render", description=__doc__)
    parser.add_argument("target", type=Path, help="the directory of the pictures")
    target = parser.parse_args(args).target.absolute()
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        drawn = render(target, Path(directory))
    for name, each in drawn.items():
        for line in each.said:
            sys.stderr.write(f"{name}: {line}\n")
    return 1 if any(each.said for each in drawn.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
