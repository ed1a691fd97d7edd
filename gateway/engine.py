"""One call, start to finish: the only place where decisions meet I/O.

`Engine.run` is the story of one request. What to do is decided in `gateway.core`; an `Exchange` holds the conversation
with one upstream; what happened is kept in a `Flight`, which makes the one record of the call, however it ends.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from typing import NamedTuple

from gateway.admission import RETRY_AFTER
from gateway.caching import Keeping
from gateway.client import Client, Recording, content, relay
from gateway.config.types import Config
from gateway.core.attempts import Continue, Fail, Try, Wait, next_step
from gateway.core.caching import key, policy
from gateway.core.call import Call, Principal
from gateway.core.capture import Assembly
from gateway.core.explain import explain
from gateway.core.failures import RELAYED
from gateway.core.passing import MODEL, ROUTE
from gateway.core.purse import calm
from gateway.core.routing import Model, Plan, Signals, route_of
from gateway.core.routing import plan as plan_for
from gateway.core.tasks import classify
from gateway.counting import Counting
from gateway.dispatch import Dispatcher, Shared
from gateway.errors import GatewayError, Overloaded, QuotaExceeded, RequestError, RouteExhausted
from gateway.flight import Flight, Request
from gateway.owners import Remembering
from gateway.passage import Through
from gateway.providers.base import Passage, Passing, Provider
from gateway.rates import Passed
from gateway.stores.base import Ledger
from gateway.telemetry.events import RequestFinished


class Parts(NamedTuple):
    """What the runtime gives an engine."""

    config: Config
    providers: Mapping[str, Provider]
    ledger: Ledger
    shared: Shared
    passing: Mapping[str, Passing] = {}  # providers with `passthrough:`


class Engine:
    """Serves calls under one configuration. A reload makes a new engine; calls in flight finish on theirs."""

    def __init__(self, parts: Parts) -> None:
        self.config = parts.config
        self._shared = parts.shared
        self._passing = parts.passing
        self._counting = Counting(parts.providers, parts.shared.json)
        self._dispatcher = Dispatcher(parts.providers, parts.shared, parts.config.providers)
        self._ledger = parts.ledger
        self._dice = random.Random()  # noqa: S311 - for jitter and weights, not for secrets

    async def run(self, call: Call, flight: Flight, client: Client, passage: Passage | None = None) -> None:
        """Serves one call, or lets it through where it is a `passage`.

        Every error is answered; only cancellation (the client hung up) comes out.
        """
        flight.call = call
        admitted = False
        passed: Passed | None = None
        try:
            await self._ledger.room()
            await self._shared.admission.enter()
            admitted = True
            flight.admitted = time.monotonic()
            flight.task = classify(call, self.config.rules.tasks, known=self.config.rules.known_tasks)
            passed = self._pass_limits(call, flight)
            if passage is not None:
                self._refuse_under_budgets(call, passage, flight)
                await Through(passage, self._passing[passage.provider], self.config.rules.direct.timeouts).run(
                    flight, client
                )
                return
            if self.config.rules.caches and not call.form.free and await self._answer_again(call, flight, client):
                return
            plan = await self._decide(call, flight)
            flight.decided = time.monotonic()
            if call.hints.dry_run:
                await self._explain(plan, flight, client)
            elif call.form.free:
                await self._counting.answer(call, plan, flight, client)
            else:
                await self._attempts(plan, flight, client)
        except asyncio.CancelledError:
            flight.outcome, flight.status = "cancelled", flight.status or 499
            raise
        except GatewayError as error:
            await self._fail(flight, client, error)
        finally:
            if admitted:
                self._shared.admission.leave()
            if passed is not None:
                self._shared.rates.leave(passed, flight.tokens)
            self._finish(flight)

    def _refuse_under_budgets(self, call: Call, passage: Passage, flight: Flight) -> None:
        """Raises RequestError where a budget is about it: nobody knows what it costs."""
        rules = self.config.rules
        flight.route = ROUTE
        if not (rules.budgets or flight.principal.budgets):
            return
        assert flight.task is not None
        found = rules.guards.touched(call, flight.task, flight.principal, flight.began)
        touches = found.by(ROUTE, Model(MODEL, passage.provider, ""))
        if touches:
            flight.budget = touches[0].budget.name
            said = f"what it costs is not known, and budget {flight.budget} is about it: it is not let through"
            raise RequestError(said, code="unpriced_model")

    def begin(self, request: Request, principal: Principal) -> Flight:
        """Opens the account of a request."""
        flight = Flight(request, principal, began=time.time(), start=time.monotonic())
        if self._shared.sampling is not None:
            flight.trace(self._shared.sampling)
        return flight

    async def refuse(self, flight: Flight, client: Client, error: GatewayError, *, keep: bool) -> None:
        """Answers a request that never became a call. `keep`: whether it gets a row (a stranger's does not)."""
        try:
            await self._fail(flight, client, error)
        finally:
            self._finish(flight, keep=keep)

    def _pass_limits(self, call: Call, flight: Flight) -> Passed | None:
        """Counts the call in every limit that is about it; what asks no model, as a request without tokens.

        Raises RequestError 429 where one has no room.
        """
        rules, principal = self.config.rules, flight.principal
        if not (rules.limits or principal.limits):
            return None
        assert flight.task is not None
        quotas = rules.quotas.touched(call, flight.task, principal)
        if not quotas:
            return None
        asks_nobody = call.form.free or call.hints.dry_run
        passed = self._shared.rates.enter(quotas, 0 if asks_nobody else call.estimated_input)
        flight.quota_headers = passed.headers
        return passed

    async def _answer_again(self, call: Call, flight: Flight, client: Client) -> bool:
        """Gives the answer to an earlier request once more, where the route does that and has one."""
        assert flight.task is not None
        route = route_of(self.config.rules, call, flight.task, flight.principal)
        if route.cache is None or call.hints.dry_run:
            return False
        wished = policy(call)
        flight.cached = "miss" if wished.keep else "bypass"
        if wished.keep:
            flight.cache_key = key(call, flight.principal, route.name, self.config.hash)
        kept = await self._shared.answers.get(flight.cache_key) if wished.read else None
        if kept is None:
            return False
        flight.cached, flight.kept, flight.route = "hit", kept, route.name
        flight.outcome, flight.status = "ok", 200
        if call.stream:  # as of answers that are made: of a whole one there is no first token
            flight.first_token = time.monotonic() - flight.start
        await client.start(200, flight.hit_headers(kept) + content(kept.content_type, kept.body))
        await client.send(kept.body, more=False)
        return True

    async def _decide(self, call: Call, flight: Flight) -> Plan:
        """The plan under the budgets as they stand; only balances that nobody has asked for lately cost a look."""
        rules, shared = self.config.rules, self._shared
        assert flight.task is not None
        touched = settled = None
        if (rules.budgets or flight.principal.budgets) and not call.form.free:
            touched = rules.guards.touched(call, flight.task, flight.principal, flight.began)
            purses = shared.spending.purses(touched.of_request)
            if (looking := shared.spending.asked(purses)) is not None:
                await looking
                purses = shared.spending.purses(touched.of_request)
            if touched.of_target or not calm(purses):
                settled = shared.spending.settled
        signals = Signals(
            shared.in_flight,
            self._dice.random(),
            shared.health.view(),
            shared.sessions,
            touched,
            settled,
            flight.began,
            shared.loads.elsewhere,
            shared.owners,
        )
        plan = self._plan(call, flight, signals)
        if plan.touched.of_target:
            touches = [touch for target in plan.targets for touch in plan.touched.by(plan.route, target.model)]
            if (looking := shared.spending.asked(shared.spending.purses(touches))) is not None:
                await looking
                plan = self._plan(call, flight, signals)
        return plan

    def _plan(self, call: Call, flight: Flight, signals: Signals) -> Plan:
        assert flight.task is not None
        try:
            flight.plan = plan_for(self.config.rules, call, flight.task, flight.principal, signals)
        except GatewayError as error:
            flight.route = error.route
            raise
        flight.route = flight.plan.route
        return flight.plan

    async def _explain(self, plan: Plan, flight: Flight, client: Client) -> None:
        assert flight.call is not None
        body = self._shared.json.dumps(explain(flight.call, plan, flight.principal, self._shared.health.view()))
        flight.outcome, flight.status = "ok", 200
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await client.start(200, flight.headers() + headers)
        await client.send(body, more=False)

    async def _attempts(self, plan: Plan, flight: Flight, client: Client) -> None:
        """Asks what to do next, does it, remembers how it went, until the client has its answer."""
        assert flight.call is not None
        if plan.capture is not None:
            flight.assembly = Assembly(plan.capture, self._shared.json)
            client = Recording(client, flight.assembly)
        if flight.call.form.kept:
            client = Remembering(client, flight, self._shared.owners, self._shared.json)
        keeping = Keeping(client) if flight.cache_key else None
        client = client if keeping is None else keeping
        no_fallback = flight.no_fallback
        roll = self._dice.random()
        while True:
            now = time.monotonic()
            match next_step(plan, flight.history, started=flight.start, now=now, no_fallback=no_fallback, roll=roll):
                case Try() | Continue() as step:
                    failures = await self._dispatcher.dispatch(plan, step, flight, client)
                    if not failures:
                        if flight.answered_by is not None:
                            self._remember(plan, flight, keeping)
                        return
                    flight.history += failures
                    roll = self._dice.random()
                case Wait(seconds):
                    await asyncio.sleep(seconds)
                    flight.book(now, time.monotonic())
                case Fail() as end:
                    await self._give_up(end, flight, client)
                    return

    def _remember(self, plan: Plan, flight: Flight, keeping: Keeping | None) -> None:
        """What an answer tells for later calls. One that a budget cut short is not given again."""
        assert flight.call is not None
        assert flight.answered_by is not None
        self._shared.outputs.ended(plan.route, flight.usage.total_output)
        self._shared.sessions.answered(plan, flight.call, flight.principal, flight.answered_by)
        if keeping is not None and plan.cache is not None and flight.cap is None:
            model = flight.answered_by.model
            kept = keeping.kept(
                model=model.name, provider=model.provider, hosting=model.hosting, cost_nano=flight.cost_nano
            )
            if kept is not None:
                self._shared.answers.put(flight.cache_key, kept, plan.cache)

    async def _give_up(self, end: Fail, flight: Flight, client: Client) -> None:
        """No attempt is left. Where the last upstream spoke of the request itself, its words are relayed."""
        last = flight.history[-1] if flight.history else None
        if last is not None and last.kind in RELAYED and flight.refusal is not None and not last.committed:
            await relay(flight, client, flight.refusal)
            return
        if end.code == Overloaded.code:
            raise Overloaded(end.message, retry_after=RETRY_AFTER)
        if end.status < 500:
            flight.budget = flight.history[0].budget
            raise _out_of_budget(end, flight.budget)
        raise RouteExhausted(end.message, status=end.status, code=end.code)

    async def _fail(self, flight: Flight, client: Client, error: GatewayError) -> None:
        """The answer is an error. After commit the status stays 200 and the error is the stream's last event."""
        if isinstance(error, RouteExhausted):
            flight.outcome = "upstream_error"
        else:
            flight.budget = error.budget if isinstance(error, QuotaExceeded) else flight.budget
            flight.outcome, flight.rejection = "rejected", "budget" if flight.budget else _rejection(error)
        committed = flight.status != 0
        flight.status = flight.status or error.status
        sending = time.monotonic()
        if committed and flight.binary:
            client.cut()
        elif flight.error_told:
            await client.send(b"", more=False)
        else:
            await client.fail(error, [] if committed else flight.headers())
        flight.book(sending, time.monotonic())

    def _finish(self, flight: Flight, *, keep: bool = True) -> None:
        """Makes the one record of the request and hands it out. Synchronous, so that nothing can come between."""
        record = flight.record(time.monotonic(), self.config.hash)
        if keep:
            said = None if flight.assembly is None or flight.call is None else flight.assembly.content(flight.call.body)
            self._ledger.put(record if said is None else record._replace(content=said))
        self._shared.emit(RequestFinished(record))


def _out_of_budget(end: Fail, budget: str) -> RequestError:
    """No target fits the budgets: for good, for a moment, or for want of a price."""
    if end.code == "insufficient_quota":
        return QuotaExceeded(end.message, budget=budget)
    if end.code == "unpriced_model":
        return RequestError(end.message, code=end.code, param="model")
    headers = {"retry-after": str(RETRY_AFTER)}
    return RequestError(end.message, status=end.status, type="rate_limit_error", code=end.code, headers=headers)


def _rejection(error: GatewayError) -> str:
    """The `reason` label of gateway_rejections_total."""
    if isinstance(error, RequestError):
        reasons = {
            401: "auth",
            403: "permission",
            404: "not_found",
            413: "too_large",
            429: "rate_limit",
            431: "too_large",
        }
        return reasons.get(error.status, "invalid")
    return "overload" if isinstance(error, Overloaded) else error.code or "internal"
