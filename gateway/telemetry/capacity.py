"""Metrics of self-hosted hardware: what it costs, and what a window of traffic made of that (docs/cost.md).

Computed when somebody asks, from what the counters were at some moments of the last hour; a request costs nothing
here. What is undefined has no series: without traffic there is no price of a token. A NaN or an infinity would show as
a value in dashboards and spoil every sum.
"""

from __future__ import annotations

import operator
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from gateway.config.types import Config
from gateway.core.capacity import (
    Served,
    Traffic,
    break_even,
    capacity_cost,
    effective_price,
    per_hour,
    with_served,
)
from gateway.core.loads import Reading, grown
from gateway.core.pricing import Machine, Price, price_at
from gateway.core.rules import Model, Route
from gateway.core.usage import Usage
from gateway.telemetry import families
from gateway.telemetry.events import ServerLost, ServerRead
from gateway.telemetry.families import MICRO, Family, Labels

WINDOW = 3600.0  # seconds that prices and mixes are taken from; less while the gateway is younger
STEP = 15.0  # seconds between the moments that are remembered
RATE_SECONDS = 30.0  # that a server's tokens per second are averaged over
TYPES = ("input", "cached_input", "cache_write", "output", "reasoning")  # in the order of Usage

Cells = Mapping[Labels, list[int]]
Key = tuple[str, str]  # model and endpoint


class Hourly(NamedTuple):
    """A model whose machines are paid by the hour, at some time at least."""

    price: Price
    endpoints: tuple[str, ...]
    versus: Mapping[str, Price]  # the API-hosted models of its routes, and their baselines, that have a price


class _Now(NamedTuple):
    """What it costs at this moment."""

    machine: Machine
    endpoints: int
    versus: Mapping[str, Price]

    @property
    def nano_per_hour(self) -> int:
        return per_hour(self.machine, self.endpoints)


def hourly_of(config: Config) -> dict[str, Hourly]:
    """By model, of those that are awake. A baseline needs a price, not a key, so it is there while it sleeps."""
    models = config.rules.models
    found = {}
    for model in models.values():
        if model.disabled or model.price is None or not _has_machine(model.price):
            continue
        versus: dict[str, Price] = {}
        for route in (*config.rules.routes, config.rules.direct):
            versus |= {each.name: each.price for each in _alternatives(route, model, models) if each.price}
        found[model.name] = Hourly(model.price, tuple(each.name for each in model.replicas), versus)
    return found


def _has_machine(price: Price) -> bool:
    return any(each.machine for each in (price, *price.later))


def _alternatives(route: Route, model: Model, models: Mapping[str, Model]) -> Iterator[Model]:
    named = [*(candidate.model for candidate in route.use), *route.fallback]
    if route.use and model.name not in named:
        return
    awake = [models[name] for name in named if name in models and not models[name].disabled]
    baseline = [models[route.baseline]] if route.baseline in models else []
    yield from (each for each in (*awake, *baseline) if each.hosting == "api")


class _Counts(NamedTuple):
    """What a model had come to at a moment."""

    usage: tuple[int, ...] = (0, 0, 0, 0, 0)  # by TYPES
    answers: int = 0
    served: tuple[int, int] | None = None  # tokens in and out by its servers' own count; None: some do not say


class Capacity:
    """Of one process: the one that renders. `clock` is monotonic, `date` tells unix seconds, for prices."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, date: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._date = date
        self._hourly: Mapping[str, Hourly] = {}
        self._servers: dict[Key, _Server] = {}
        self._moments: deque[tuple[float, dict[str, _Counts]]] = deque()

    def configure(self, hourly: Mapping[str, Hourly], endpoints: Iterable[Key]) -> None:
        self._hourly = hourly
        known = set(endpoints)
        self._servers = {key: server for key, server in self._servers.items() if key in known}

    def observe(self, event: ServerRead | ServerLost) -> None:
        key = (event.model, event.endpoint)
        server = self._servers.get(key)
        if isinstance(event, ServerLost):
            if server is not None:
                server.lose()
        elif server is None:
            self._servers[key] = _Server(event)
        else:
            server.read(event)

    def remember(self, tokens: Cells, attempts: Cells) -> None:
        """Keeps the counters of this moment. To be called every STEP seconds."""
        now = self._clock()
        self._moments.append((now, self._counts(tokens, attempts)))
        while len(self._moments) > 1 and self._moments[1][0] <= now - WINDOW:
            self._moments.popleft()

    def cells(self, family: Family, tokens: Cells, attempts: Cells) -> dict[Labels, list[int]]:
        """The series of one of the families in CAPACITY."""
        if family is families.CAPACITY:
            return {(name,): [each.nano_per_hour] for name, each in self._current().items()}
        if family is families.RATED:
            return dict(self._rated())
        if family is families.SERVER_REQUESTS:
            return {
                (*key, state): [count] for key, each in self._servers.items() for state, count in each.requests.items()
            }
        if family is families.SERVER_TOKENS:
            return {(*key, kind): [rate] for key, each in self._servers.items() for kind, rate in each.rates().items()}
        found: dict[Labels, list[int]] = {}
        current = self._current()
        for name, traffic in self._window(tokens, attempts):
            hourly = current.get(name)
            if hourly is None:
                continue
            if family is families.BREAK_EVEN:
                for other, price in hourly.versus.items():
                    speed = break_even(hourly.nano_per_hour, traffic, price)
                    found |= {} if speed is None else {(name, other): [round(speed * MICRO)]}
                continue
            cost = capacity_cost(hourly.nano_per_hour, traffic.seconds)
            nano = effective_price(cost, traffic.usage.total_input + traffic.usage.total_output)
            found |= {} if nano is None else {(name,): [nano]}
        return found

    def _rated(self) -> Iterator[tuple[Labels, list[int]]]:
        for name, each in self._current().items():
            for kind, speed in (
                ("input", each.machine.input_tokens_per_second),
                ("output", each.machine.output_tokens_per_second),
            ):
                yield (name, kind), [round(speed * each.endpoints * MICRO)]

    def _current(self) -> dict[str, _Now]:
        """Without those that are not paid by the hour just now."""
        date = self._date()
        found = {}
        for name, (written, endpoints, others) in self._hourly.items():
            price = price_at(written, date)
            if price is not None and price.machine is not None:
                versus = {other: now for other, each in others.items() if (now := price_at(each, date))}
                found[name] = _Now(price.machine, len(endpoints), versus)
        return found

    def _window(self, tokens: Cells, attempts: Cells) -> Iterator[tuple[str, Traffic]]:
        """What each model did since the first moment of the window in which it was known."""
        now = self._clock()
        for name, counts in self._counts(tokens, attempts).items():
            first = next(((at, known[name]) for at, known in self._moments if name in known), None)
            if first is None:
                continue
            began, before = first
            fresh, cached, written, output, reasoning = map(operator.sub, counts.usage, before.usage)
            usage = Usage(fresh, cached, written, output, reasoning)
            answers = counts.answers - before.answers
            traffic = Traffic(now - began, usage, usage.total_input // answers if answers else 0)
            if counts.served is not None:  # what they served before they were first read is not known
                served = (late - early for late, early in zip(counts.served, before.served or (0, 0), strict=True))
                traffic = with_served(traffic, Served(*served))
            yield name, traffic

    def _counts(self, tokens: Cells, attempts: Cells) -> dict[str, _Counts]:
        used = {name: [0] * len(TYPES) for name in self._hourly}
        answers = dict.fromkeys(self._hourly, 0)
        for (_, _, model, _, kind), cell in tokens.items():
            if model in used:
                used[model][TYPES.index(kind)] += cell[0]
        for (model, _, result), cell in attempts.items():
            if model in answers and result == "ok":
                answers[model] += cell[0]
        return {name: _Counts(tuple(used[name]), answers[name], self._served(name)) for name in self._hourly}

    def _served(self, name: str) -> tuple[int, int] | None:
        """None unless each of its servers tells, and serves nothing else."""
        servers = [self._servers.get((name, endpoint)) for endpoint in self._hourly[name].endpoints]
        told = [server for server in servers if server is not None and server.countable]
        if len(told) < len(servers):
            return None
        return sum(server.tokens[0] for server in told), sum(server.tokens[1] for server in told)


class _Server:
    """One endpoint's own figures since it was first read."""

    def __init__(self, event: ServerRead) -> None:
        self.tokens = [0, 0]  # in and out; their counters may begin anew, these do not
        self._last = event.reading
        self._alone = event.alone
        self._lost = False
        self._past = deque([(event.when, 0, 0)])

    @property
    def countable(self) -> bool:
        return (
            not self._lost
            and self._alone
            and self._last.input_tokens is not None
            and self._last.output_tokens is not None
        )

    @property
    def requests(self) -> dict[str, int]:
        return {} if self._lost else {"running": self._last.running, "waiting": self._last.waiting}

    def lose(self) -> None:
        self._lost = True
        self._past.clear()

    def read(self, event: ServerRead) -> None:
        for index, (before, now) in enumerate(zip(_tokens(self._last), _tokens(event.reading), strict=True)):
            if before is not None and now is not None:
                self.tokens[index] += grown(before, now)
        self._last, self._alone, self._lost = event.reading, event.alone, False
        self._past.append((event.when, self.tokens[0], self.tokens[1]))
        while len(self._past) > 2 and self._past[1][0] <= event.when - RATE_SECONDS:
            self._past.popleft()

    def rates(self) -> dict[str, int]:
        """Millionths of tokens a second; nothing before the second reading."""
        if len(self._past) < 2:
            return {}
        (began, *first), (ended, *last) = self._past[0], self._past[-1]
        if ended <= began:
            return {}
        speeds = (round((late - early) * MICRO / (ended - began)) for early, late in zip(first, last, strict=True))
        told = _tokens(self._last)
        named = zip(("input", "output"), speeds, told, strict=True)
        return {kind: speed for kind, speed, said in named if said is not None}


def _tokens(reading: Reading) -> tuple[int | None, int | None]:
    return reading.input_tokens, reading.output_tokens
