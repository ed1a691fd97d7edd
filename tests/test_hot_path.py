"""What a key, limits and two budgets add to every request, in CPU time; and that they ask no store.

.venv/bin/python -m pytest tests/test_hot_path.py -s      prints the figures; scripts/bench has those of whole processes
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from gateway.charging import Charging
from gateway.config import load
from gateway.config.types import Config
from gateway.core.call import Call, Endpoint, outgoing_body, parse
from gateway.core.pricing import cost
from gateway.core.purse import Hold, calm
from gateway.core.routing import Plan, Signals, plan
from gateway.core.tasks import classify
from gateway.core.usage import read_usage
from gateway.keyring import Keyring
from gateway.outputs import Outputs
from gateway.rates import Rates
from gateway.server.auth import Authenticator
from gateway.spending import Spending
from gateway.stores.counters import SqliteCounters
from gateway.wire import CODEC

KEY = "bench-key-0123456789abcdef"
ROUTES = """
version: 1
providers: {up: {base_url: "http://127.0.0.1:9/v1"}}
models:
  small: {provider: up, model: small-up, price: {input: 0.28, cached_input: 0.028, output: 0.42}}
  large: {provider: up, model: large-up, price: {input: 1.25, output: 10}}
routes:
  - {name: default, match: {model: [auto, "gpt-*"]}, use: [small], fallback: [large], baseline: large}
"""
GUARDS = f"""
keys:
  - name: bench
    value: "{KEY}"
    team: bench
    limits: {{requests_per_minute: 100000000, tokens_per_minute: 1000000000, max_in_flight: 1000}}
limits:
  - {{requests_per_minute: 100000000}}
budgets:
  - {{name: company, limit_usd: 1000000}}
  - {{name: teams, per: team, limit_usd: 100000}}
"""
BODY = b'{"model":"auto","messages":[{"role":"user","content":"Say hello."}]}'
ANSWER = b'{"usage":{"prompt_tokens":20,"completion_tokens":20,"total_tokens":40}}'
HEADERS = [(b"host", b"bench"), (b"content-type", b"application/json"), (b"authorization", b"Bearer " + KEY.encode())]
BATCH, SLICES, BATCHES = 10, 20, 30
MOST = 120.0  # us: three times the 40 that we want, as others on the machine's cores slow this down too

T = TypeVar("T")


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of what has nothing to wait for, as an `await` of it would give it."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # T, by the coroutine's own type
    raise AssertionError("it asked the store: there should have been a lease")


class Road:
    """What a request passes on its way to the first attempt and after it, as `Engine.run` and `Dispatcher` have it.

    Both roads do what every request needs, so that neither runs on a processor that is warm for it alone.
    """

    def __init__(self, config: Config) -> None:
        self.rules = config.rules
        self._keys = Authenticator(config, Keyring())
        self._rates = Rates()
        self.spending = Spending(lambda: SqliteCounters(config.counters))
        self._charging = Charging(self.spending, Outputs())

    async def plain(self) -> None:
        began = time.time()
        principal = self._keys.identify(HEADERS)
        call = parse(Endpoint.CHAT, HEADERS, BODY, CODEC)
        task = classify(call, self.rules.tasks, known=self.rules.known_tasks)
        made = plan(self.rules, call, task, principal, Signals({}, 0.5))
        self._answered(call, made)
        assert began

    async def guarded(self) -> Hold:
        began, rules = time.time(), self.rules
        principal = self._keys.identify(HEADERS)
        call = parse(Endpoint.CHAT, HEADERS, BODY, CODEC)
        task = classify(call, rules.tasks, known=rules.known_tasks)
        passed = self._rates.enter(rules.quotas.touched(call, task, principal), call.estimated_input)
        accounts = rules.guards.touched(call, task, principal, began)
        purses = self.spending.purses(accounts.of_request)
        if (looking := self.spending.asked(purses)) is not None:
            await looking
        settled = None if calm(purses) else self.spending.settled
        made = plan(rules, call, task, principal, Signals({}, 0.5, touched=accounts, settled=settled))
        charge = await self._charging.reserve(made, made.targets[0], call, 0.0)
        assert isinstance(charge, Hold)
        self._charging.settle(charge, self._answered(call, made))
        if charge.open:
            self._charging.settle(charge, 0)
        self._rates.leave(passed, 40)
        return charge

    def _answered(self, call: Call, made: Plan) -> int:
        target = made.targets[0]
        body = outgoing_body(call, model=target.upstream_name, set={}, drop=frozenset(), ask_usage=True)
        usage = read_usage(CODEC.loads(ANSWER)["usage"])
        assert body
        assert call.estimated_input  # of the request's row
        assert usage is not None
        assert target.price is not None
        return cost(usage, target.price)


async def measure(directory: Path) -> tuple[list[float], list[float]]:
    """us a request, by batch: on the plain road, and on the guarded one."""
    (directory / "plain.yaml").write_text(ROUTES)
    (directory / "guarded.yaml").write_text(ROUTES + GUARDS)
    without, within = Road(load(directory / "plain.yaml")), Road(load(directory / "guarded.yaml"))
    first = await within.guarded()  # which asks the store, and comes back with a lease
    assert first.budgets == ("company", "teams")
    plain, guarded = [], []
    for _ in range(BATCHES):
        await asyncio.sleep(0.12)  # what was spent is told, and the lease made good
        await within.guarded()
        for _ in range(SLICES):
            times = [time.thread_time()]
            for _ in range(BATCH):
                at_once(without.plain())
            times.append(time.thread_time())
            for _ in range(BATCH):
                at_once(within.guarded())
            times.append(time.thread_time())
            plain.append(1e6 * (times[1] - times[0]) / BATCH)
            guarded.append(1e6 * (times[2] - times[1]) / BATCH)
    await within.spending.close()
    return plain, guarded


def test_a_key_limits_and_two_budgets_are_cheap(tmp_path: Path) -> None:
    plain, guarded = asyncio.run(measure(tmp_path))
    added, usual = min(guarded) - min(plain), statistics.median(guarded) - statistics.median(plain)
    print(f"\nkey, limits and two budgets: {added:.1f} us where nothing else runs, {usual:.1f} us in the middle")
    assert added < MOST
