"""Ledgers of made-up traffic, decided and recorded by the code that serves: only the upstreams are dice.

`make` writes what a gateway would have written that took one request after another: failures, retries, races, answers
that break off, clients that hang up, models out of order, budgets that run dry.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from gateway.config import load
from gateway.config.types import Config
from gateway.core.attempts import Continue, Fail, Past, Try, Wait, next_step
from gateway.core.budgets import Account, Touch
from gateway.core.call import Call, Endpoint, parse
from gateway.core.ceiling import Ceiling, ceiling
from gateway.core.failures import Kind
from gateway.core.hedging import HEDGE
from gateway.core.record import Record
from gateway.core.routing import Plan, Signals, Target, plan
from gateway.core.rules import Standing
from gateway.core.tasks import classify
from gateway.core.usage import Usage
from gateway.errors import GatewayError, QuotaExceeded, RouteExhausted
from gateway.flight import AttemptEnd, Flight, Request
from gateway.observed import Observed
from gateway.stores.schema import connect
from gateway.stores.sqlite import write
from gateway.wire import CODEC

ROUTES = """\
version: 1
defaults: {baseline: gpt}
providers:
  vllm: {base_url: "http://127.0.0.1:9/v1"}
  deepseek: {base_url: "http://127.0.0.1:9/v1", api_key: k}
  openai: {base_url: "http://127.0.0.1:9/v1", api_key: k}
models:
  qwen:
    provider: vllm
    model: Qwen/Qwen3-32B
    hosting: self
    price: {gpu_hour_usd: 2.40, gpus: 1, tokens_per_second: {input: 20000, output: 2400}}
    context_window: 32768
    max_output_tokens: 8192
    supports: [tools, json_schema, prefill]
  deepseek:
    {provider: deepseek, model: d, price: {input: 0.28, cached_input: 0.028, output: 0.42}, supports: [tools, prefill]}
  gpt: {provider: openai, model: g, price: {input: 1.25, cached_input: 0.125, output: 10}, max_output_tokens: 16384}
  mini: {provider: openai, model: m, price: {input: 0.25, cached_input: 0.025, output: 2}, supports: [tools, prefill]}
tasks:
  coding: {when: [{last_message: "(?i)traceback"}]}
  vision: {when: [{has: images}]}
  long: {when: [{min_input_tokens: 4000}]}
routes:
  - {name: coding, match: {task: coding}, use: [deepseek, mini], fallback: [gpt], mid_stream: continue}
  - {name: vision, match: {task: vision}, use: [gpt]}
  - {name: long, match: {task: long, model: [auto, "gpt-*"]}, use: [qwen, deepseek], order: cheapest, fallback: [gpt],
     mid_stream: continue}
  - name: split
    match: {team: growth, model: [auto, "gpt-*"]}
    use: [{model: deepseek, weight: 3}, mini]
    order: weighted
  - {name: default, match: {model: [auto, "gpt-*"]}, use: [qwen], fallback: [deepseek, gpt], hedge: {after: 2s}}
budgets:
  - {name: company, limit_usd: 100000, window: month}
  - {name: growth, match: {team: growth}, limit_usd: @GROWTH@, window: day}
keys:
  - {name: app, value: key-of-the-app-0123456789, team: platform}
  - {name: bot, value: key-of-the-bot-0123456789, team: growth}
  - {name: ide, value: key-of-the-ide-0123456789, team: platform, tags: [dev]}
"""
START = 1_793_577_600.0  # 2026-11-02T00:00:00Z, a Monday
_FAILURES = (
    (0.015, Kind.SERVER_ERROR),
    (0.01, Kind.RATE_LIMITED),
    (0.008, Kind.TIMEOUT),
    (0.006, Kind.STREAM_CUT),
    (0.004, Kind.CONNECT),
    (0.002, Kind.EMPTY),
)


def routes(growth_usd: str = "0.12") -> str:
    return ROUTES.replace("@GROWTH@", growth_usd)


def make(folder: Path, rows: int, *, days: float = 7.0, seed: int = 1, text: str = "") -> Path:
    """Writes routes.yaml and its ledger, of requests spread over the days from START on. Returns the file."""
    file = folder / "routes.yaml"
    file.write_text(text or routes())
    config = load(file)
    with closing(connect(folder / "gateway.db", busy_seconds=5)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        traffic = Traffic(config, random.Random(seed))  # noqa: S311 - for traffic, not for secrets
        records = traffic.records(rows, days * 86_400 / rows)
        while some := list(islice(records, 2000)):
            assert not write(connection, some)
    return file


def multiply(path: Path, copies: int, *, days: int) -> None:
    """The same again, so many days later each time: windows of a day make each copy what would have been written."""
    with closing(connect(path, busy_seconds=5)) as db:
        db.execute("PRAGMA synchronous = OFF")
        for table, renamed in (("attempts", "request_id"), ("requests", "id")):
            names = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            shifted = {renamed: f"replace(t.{renamed}, 'req_', printf('req_%d_', c.value))"}
            if table == "requests":
                shifted["started"] = f"t.started + c.value * {days * 86_400_000_000}"
            columns = ", ".join(f'"{name}"' for name in names)
            values = ", ".join(shifted.get(name, f't."{name}"') for name in names)
            numbers = str([*range(1, copies)])
            insert = f"INSERT INTO {table} ({columns}) SELECT {values} FROM json_each(?) AS c, {table} AS t"  # noqa: S608
            db.execute(insert, (numbers,))


class _End(NamedTuple):
    """How an attempt goes."""

    result: str
    usage: Usage | None
    committed: bool
    letters: int = 0


class Traffic:
    def __init__(self, config: Config, dice: random.Random) -> None:
        self._config = config
        self._dice = dice
        self._settled: dict[Account, int] = {}
        self._principals = [key.principal for key in config.keys]
        self._sick = ""  # a model that is out of order at the moment
        self._bodies: dict[int, bytes] = {}

    def records(self, rows: int, apart: float) -> Iterator[Record]:
        for number in range(rows):
            if number % 500 == 0:
                self._sick = self._dice.choice(["", "", "", "qwen", "deepseek"])
            yield self._record(START + number * apart)

    def _record(self, began: float) -> Record:
        dice, rules = self._dice, self._config.rules
        who = dice.choice(self._principals)
        flight = Flight(Request("/chat/completions"), who, began=began, start=time.monotonic())
        flight.id = f"req_{dice.getrandbits(96):024x}"
        if dice.random() < 0.003:
            flight.outcome, flight.rejection, flight.status = "rejected", "rate_limit", 429
            return flight.record(time.monotonic(), self._config.hash)
        call = self._call()
        flight.call = call
        flight.task = classify(call, rules.tasks, known=rules.known_tasks)
        touched = rules.guards.touched(call, flight.task, who, began)
        standing = {(self._sick, "default"): Standing("breaker open")} if self._sick else {}
        signals = Signals(roll=dice.random(), standing=standing, touched=touched, settled=self._of)
        try:
            flight.plan = plan(rules, call, flight.task, who, signals)
            flight.route = flight.plan.route
            self._attempts(flight, flight.plan, call)
        except GatewayError as error:
            flight.route = error.route or flight.route
            flight.status = error.status
            if isinstance(error, RouteExhausted):
                flight.outcome = "upstream_error"
            else:
                flight.outcome = "rejected"
                flight.budget = error.budget if isinstance(error, QuotaExceeded) else ""
                flight.rejection = "budget" if flight.budget else "invalid"
        return flight.record(time.monotonic() + dice.lognormvariate(0, 0.7), self._config.hash)

    def _of(self, account: Account) -> int:
        return self._settled.get(account, 0)

    def _call(self) -> Call:
        """A real body; long ones are made once."""
        dice = self._dice
        size = min(int(dice.lognormvariate(5.7, 1.2)) // 8 * 8, 20_000)
        if size not in self._bodies:
            self._bodies[size] = b"x" * (4 * size)
        text = b"Traceback: " + self._bodies[size] if dice.random() < 0.15 else self._bodies[size]
        body = b'{"model":"%s","messages":[{"role":"user","content":"%s"}]' % (
            dice.choice((b"auto", b"auto", b"gpt-4o", b"deepseek")),
            text or b"hi",
        )
        if dice.random() < 0.3:
            body += b',"max_tokens":%d' % dice.choice((256, 1024, 4096))
        if dice.random() < 0.5:
            body += b',"stream":true'
        headers = [(b"x-gateway-no-fallback", b"true")] if dice.random() < 0.02 else []
        return parse(Endpoint.CHAT, headers, body + b"}", CODEC)

    def _attempts(self, flight: Flight, plan: Plan, call: Call) -> None:
        now = 0.0
        if plan.hedge is not None and len(plan.targets) > 1 and self._dice.random() < 0.03:
            self._race(flight, plan)
            return
        while True:
            step = next_step(plan, flight.history, started=0.0, now=now, no_fallback=flight.no_fallback, roll=0.5)
            match step:
                case Wait(seconds):
                    now += seconds
                case Fail():
                    if step.status < 500:
                        flight.budget = flight.history[0].budget
                        raise QuotaExceeded(step.message, budget=flight.budget)
                    flight.status = step.status
                    return
                case Try() | Continue():
                    failed = self._attempt(flight, plan, step, call)
                    if failed is None:
                        return
                    flight.history.append(failed._replace(ended=now))

    def _attempt(self, flight: Flight, plan: Plan, step: Try | Continue, call: Call) -> Past | None:
        target = plan.targets[step.target]
        touches = plan.touched.by(plan.route, target.model)
        held: int | None = None
        if touches:
            lefts = [touch.budget.limit_nano - self._of(touch.account) for touch in touches]
            left = min(lefts)
            bound = ceiling(call, target, left, None, clamp=plan.clamp)
            assert isinstance(bound, Ceiling)
            if bound.nano > left:
                full = Past(step.target, Kind.RATE_LIMITED, "", 0.0, skipped="budget", code="insufficient_quota")
                return full._replace(budget=touches[lefts.index(left)].budget.name)
            held = bound.nano
        end = self._end(call)
        committed = end.committed or isinstance(step, Continue)
        return self._close(flight, target, step, (end._replace(committed=committed), touches, held))

    def _close(
        self, flight: Flight, target: Target, step: Try | Continue, how: tuple[_End, tuple[Touch, ...], int | None]
    ) -> Past | None:
        end, touches, held = how
        seen = Observed()
        seen.sent_at = time.monotonic()
        seen.reported = end.usage
        seen.text_bytes = end.letters
        failed = end.result not in ("ok", "relayed", "cancelled", HEDGE)
        purpose = "answer" if end.committed or not failed else "retry"
        lost = end.result == HEDGE
        began = time.monotonic() - self._dice.uniform(0.1, 5)
        result, purpose = ("cancelled", HEDGE) if lost else (end.result, purpose)
        done = AttemptEnd(
            *(result, step.reason, purpose, 0 if failed else 200, began),
            *(None, "", end.committed and not lost, tuple(touch.budget.name for touch in touches), held),
        )
        record = flight.end_attempt(target, seen, done)
        for touch in touches:
            self._settled[touch.account] = self._settled.get(touch.account, 0) + record.cost_nano
        if not failed:
            if not lost:
                words = {"ok": ("ok", 200), "relayed": ("client_error", 400), "cancelled": ("cancelled", 499)}
                flight.outcome, flight.status = words[end.result]
            return None
        return Past(
            *(step.target, Kind(end.result), "", 0.0, None, None, end.committed),
            resumable=end.committed,
        )

    def _race(self, flight: Flight, plan: Plan) -> None:
        """Both answer; the second wins half of the races."""
        call = flight.call
        assert call is not None
        second_wins = self._dice.random() < 0.5
        for index, reason, loses in ((0, "first", second_wins), (1, HEDGE, not second_wins)):
            target = plan.targets[index]
            touches = plan.touched.by(plan.route, target.model)
            won = _End("ok", self._usage(call), committed=True)
            end = _End(HEDGE, None, committed=False, letters=120) if loses else won
            self._close(flight, target, Try(index, reason), (end, touches, 10**9 if touches else None))

    def _end(self, call: Call) -> _End:
        roll = self._dice.random()
        for share, kind in _FAILURES:
            if roll < share:
                cut = kind is Kind.STREAM_CUT and call.stream
                return _End(str(kind), None, committed=cut, letters=400 if cut else 0)
            roll -= share
        if roll < 0.01:
            return _End("relayed", None, committed=False)
        if roll < 0.02:
            return _End("cancelled", None, committed=call.stream, letters=200)
        return _End("ok", self._usage(call), committed=True)

    def _usage(self, call: Call) -> Usage:
        read = call.estimated_input + self._dice.randrange(20)
        cached = read // 2 if self._dice.random() < 0.2 else 0
        output = min(int(self._dice.lognormvariate(5.3, 0.9)) + 1, call.max_output or 8000)
        return Usage(read - cached, cached, 0, output)
