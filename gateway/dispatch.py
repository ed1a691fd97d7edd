"""Carries out one step of the attempt loop: one attempt, or two that race where the route hedges."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from gateway.admission import Admission
from gateway.binary import BinaryExchange
from gateway.caching import Answers
from gateway.charging import Charging, Refused
from gateway.client import Client
from gateway.config.types import ProviderConfig
from gateway.core.attempts import Continue, Past, Try, others_left
from gateway.core.breaker import Ended
from gateway.core.call import Call, Json
from gateway.core.failures import Kind
from gateway.core.hedging import HEDGE, Hedging, hedging
from gateway.core.purse import FREE, Hold
from gateway.core.resume import Partial, resumed
from gateway.core.routing import Plan, Target
from gateway.core.traces import Sampling
from gateway.exchange import Exchange, Surroundings
from gateway.flight import Flight
from gateway.health import Watch
from gateway.loads import Loads
from gateway.outputs import Outputs
from gateway.owners import Owners
from gateway.pace import Pace
from gateway.providers.base import Provider
from gateway.race import Race
from gateway.rates import Rates
from gateway.sessions import Sessions
from gateway.spending import Spending
from gateway.telemetry.events import Event, RequestEnded, RequestStarted


class Shared(NamedTuple):
    """What outlives a reload: calls under the old and the new configuration use the same."""

    emit: Callable[[Event], None]
    json: Json
    in_flight: dict[str, int]  # by model, and by "model@replica" for models with several
    pace: Pace
    health: Watch
    admission: Admission
    sessions: Sessions
    spending: Spending
    outputs: Outputs
    rates: Rates
    loads: Loads
    answers: Answers
    owners: Owners
    sampling: Sampling | None = None  # which requests are traced; None: no traces are recorded


class Dispatcher:
    """Makes attempts. What failed comes back as history for `next_step`; nothing does when the client is served."""

    def __init__(
        self, providers: Mapping[str, Provider], shared: Shared, accounts: Mapping[str, ProviderConfig]
    ) -> None:
        self._providers = providers
        self._accounts = accounts
        self._emit = shared.emit
        self._json = shared.json
        self._in_flight = shared.in_flight
        self._pace = shared.pace
        self._health = shared.health
        self._loads = shared.loads
        self._admission = shared.admission
        self._charging = Charging(shared.spending, shared.outputs)

    async def dispatch(self, plan: Plan, step: Try | Continue, flight: Flight, client: Client) -> list[Past]:
        """The failures, in the order of their ends; empty: the client has been answered."""
        if isinstance(step, Continue):
            return _listed(await self._attempt(plan, step, flight, _Given(client, partial=flight.partial)))
        if plan.hedge is not None and not flight.history and flight.call is not None:
            pace = self._pace.of(plan.route, stream=flight.call.stream)
            pace.came()
            second = hedging(plan, flight.call, p95=pace.p95)
            began = time.monotonic()
            if second is not None:
                failures = await self._race(plan, second, flight, client)
            else:
                failures = _listed(await self._attempt(plan, step, flight, _Given(client)))
            if flight.answered_by is not None:  # a refusal that is relayed says nothing about how fast it answers
                pace.began(flight.first_token or time.monotonic() - began)
            return failures
        return _listed(await self._attempt(plan, step, flight, _Given(client)))

    async def _attempt(self, plan: Plan, step: Try | Continue, flight: Flight, given: _Given) -> Past | None:
        """One try of one target. None: the client has been answered. Otherwise how it failed, or was not tried."""
        began = time.monotonic()
        target = plan.targets[step.target]
        model, replica = target.model, target.replica.name
        committed = given.partial is not None
        waits = step.reason != HEDGE and not others_left(plan, flight.history, step.target, flight.no_fallback)
        deadline = flight.start + plan.total if waits else 0.0
        if busy := await self._admission.enter_model(model, deadline - time.monotonic()):
            return _not_tried(step, Kind.RATE_LIMITED, busy, committed=committed)
        charge = FREE
        try:
            held = await self._charging.reserve(plan, target, _outgoing(flight, given), deadline - time.monotonic())
            if isinstance(held, Refused):
                past = _not_tried(step, Kind.RATE_LIMITED, held.why, committed=committed)
                return past._replace(code=held.code, budget=held.budget)
            charge = held
            if blocked := self._health.enter(model.name, replica):
                return _not_tried(step, Kind.CONNECT, blocked, committed=committed)
            failure = await self._exchange(step, target, flight, given._replace(charge=charge, began=began))
            return failure and failure._replace(rest=self._rest(model.name, replica))
        finally:
            if charge.open:
                self._charging.settle(charge, 0)
            self._admission.leave_model(model.name)

    def _rest(self, model: str, replica: str) -> float:
        """Seconds that its breaker stays open. A worker among several may learn that it opened a moment later."""
        standing = self._health.view().get((model, replica))
        return standing.retry_after if standing is not None and standing.blocked else 0.0

    async def _exchange(self, step: Try | Continue, target: Target, flight: Flight, given: _Given) -> Past | None:
        """Talks to the upstream, and tells everybody who counts."""
        name = target.model.name
        at = target.replica.provider or target.model.provider
        assert flight.call is not None
        kind = BinaryExchange if flight.call.form.binary else Exchange
        around = Surroundings(self._providers[at], json=self._json, account=self._accounts[at], **given._asdict())
        exchange = kind(flight, step, around)
        self._count(target, 1)
        self._emit(RequestStarted(name))
        try:
            return await exchange.talk()
        finally:
            self._charging.settle(given.charge, exchange.cost_nano)
            self._health.report(
                name, target.replica.name, Ended(exchange.verdict, exchange.retry_after, exchange.started)
            )
            self._count(target, -1)
            self._emit(RequestEnded(name))

    async def _race(self, plan: Plan, second: Hedging, flight: Flight, client: Client) -> list[Past]:
        """The first attempt, and a second beside it if the first shows nothing for too long; one of them may speak."""
        race = Race()
        tasks = [self._start(plan, Try(0, "first"), flight, _Given(client, race))]
        tasks[0].add_done_callback(lambda _: race.first_over.set())
        try:
            await asyncio.wait(tasks, timeout=second.after)
            if not tasks[0].done() and race.winner is None and self._may_hedge(plan, second, flight):
                tasks.append(self._start(plan, Try(second.target, HEDGE), flight, _Given(client, race)))
                await self._until_decided(tasks, race)
            return await self._outcome(tasks, race)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _may_hedge(self, plan: Plan, second: Hedging, flight: Flight) -> bool:
        """Never where requests already wait for the second target: one more would make all of them slower."""
        assert flight.call is not None
        target = plan.targets[second.target]
        if self._loads.queues(target.model.name, target.replica.name):
            return False
        return self._pace.of(plan.route, stream=flight.call.stream).take_hedge()

    def _start(self, plan: Plan, step: Try, flight: Flight, given: _Given) -> asyncio.Task[Past | None]:
        return asyncio.get_running_loop().create_task(self._attempt(plan, step, flight, given))

    async def _until_decided(self, tasks: list[asyncio.Task[Past | None]], race: Race) -> None:
        """Returns when one attempt has something for the client, or all have failed."""
        decided = asyncio.ensure_future(race.decided.wait())
        try:
            left: set[asyncio.Future[object]] = {decided, *tasks}  # type: ignore[arg-type]  # invariant in its result
            while race.winner is None and not all(task.done() for task in tasks):
                _, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            decided.cancel()

    async def _outcome(self, tasks: list[asyncio.Task[Past | None]], race: Race) -> list[Past]:
        """Ends the loser and waits for the winner, whose cancellation is the call's; where nobody has won, for all."""
        winner: asyncio.Task[Past | None] | None = None
        if race.winner is not None:
            winner = tasks[1] if race.winner.reason == HEDGE else tasks[0]
        failures: list[Past] = []
        losers = [task for task in tasks if winner is not None and task is not winner]
        for task in losers:  # before the winner is waited for: they cost money and hold places
            task.cancel()
        if losers:
            await asyncio.wait(losers)
        for task in tasks:
            if task in losers:
                past = None if task.cancelled() or task.exception() is not None else task.result()
            else:
                past = await task
                if past is None:
                    return []
            # A hedge that found no place was not tried: its target is still there to fall back on.
            if past is not None and not (past.skipped and task is not tasks[0]):
                failures.append(past)
        return sorted(failures, key=lambda past: past.ended)

    def _count(self, target: Target, change: int) -> None:
        name = target.model.name
        self._in_flight[name] = self._in_flight.get(name, 0) + change
        if len(target.model.replicas) > 1:
            name = f"{name}@{target.replica.name}"
            self._in_flight[name] = self._in_flight.get(name, 0) + change


class _Given(NamedTuple):
    client: Client
    race: Race | None = None
    partial: Partial | None = None
    charge: Hold = FREE
    began: float = 0.0  # when the attempt asked for its place


def _outgoing(flight: Flight, given: _Given) -> Call:
    """The call as it goes upstream: a continuation carries what the client has seen."""
    assert flight.call is not None
    return flight.call if given.partial is None else resumed(flight.call, given.partial)


def _not_tried(step: Try | Continue, kind: Kind, reason: str, *, committed: bool) -> Past:
    """`kind` tells the policy what it comes to: no capacity, or nobody there."""
    return Past(step.target, kind, reason, time.monotonic(), committed=committed, resumable=committed, skipped=reason)


def _listed(failure: Past | None) -> list[Past]:
    return [] if failure is None else [failure]
