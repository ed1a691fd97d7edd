"""Health of one process, and of several that share it: with a clock that the test turns."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.config.types import Config
from gateway.core.breaker import Ended, Phase
from gateway.core.routing import Rules
from gateway.core.rules import Model, Replica, Route, Standing
from gateway.health import Health, Watch
from gateway.server.sharing import BATCH, GRACE, GRANT, HealthDesk, WorkerHealth
from gateway.telemetry.events import BreakerChanged, Event

MODELS = (
    Model("qwen", "vllm", "Qwen", "self", replicas=(Replica("a:1", provider="vllm@a"), Replica("b:1"))),
    Model("gpt", "openai", "gpt-5"),
    Model("openai/*", "openai", ""),
    Model("asleep", "openai", "gpt-4", disabled="no key"),
)


def config(models: tuple[Model, ...] = MODELS) -> Config:
    rules = Rules({model.name: model for model in models}, (), (), Route("direct", ()))
    return Config(Path("routes.yaml"), "", {}, rules, False, (), "", "reject", (), "", frozenset())


class Clock:
    def __init__(self) -> None:
        self.now = 1000.25

    def __call__(self) -> float:
        return self.now


class Machine:
    def __init__(self) -> None:
        self.clock = Clock()
        self.told: list[tuple[str, str, str]] = []
        self.health = Health(self.emit, clock=self.clock, dice=lambda: 0.5)
        self.health.configure(config())

    def emit(self, event: Event) -> None:
        assert isinstance(event, BreakerChanged)
        self.told.append((event.model, event.endpoint, event.state))

    def fail(self, model: str = "gpt", replica: str = "default", result: str = "connect", times: int = 5) -> None:
        for _ in range(times):
            self.health.report(model, replica, Ended(result))

    def due(self) -> list[tuple[str, str]]:
        return [(due.key[0], due.provider) for due in self.health.due()]


def test_while_all_is_fine_there_is_nothing_to_see() -> None:
    machine = Machine()
    view = machine.health.view()
    for _ in range(100):
        machine.clock.now += 0.1
        assert machine.health.enter("gpt", "default") == ""
        machine.health.report("gpt", "default", Ended("ok"))
        machine.health.report("gpt", "default", Ended("cancelled"))
        assert machine.health.view() is view
    assert not view
    assert machine.told == []


def test_from_failure_to_recovery() -> None:
    machine = Machine()
    health, clock = machine.health, machine.clock
    machine.fail(times=4)
    assert health.enter("gpt", "default") == ""
    machine.fail(times=1, result="timeout")
    reason = "breaker open: 5 failures in a row, last timeout"
    assert health.enter("gpt", "default") == reason
    assert health.view() == {("gpt", "default"): Standing(reason, 1.0, 5.0)}
    clock.now += 5
    assert health.view() == {("gpt", "default"): Standing()}
    assert health.enter("gpt", "default") == ""
    assert "half-open" in health.enter("gpt", "default")
    health.report("gpt", "default", Ended("cancelled"))  # the trial's client hung up: the next may try
    assert health.enter("gpt", "default") == ""
    health.report("gpt", "default", Ended("ok"))
    assert health.view()["gpt", "default"].share == pytest.approx(0.1)
    clock.now += 5
    assert health.view()["gpt", "default"].share == pytest.approx(0.55)
    clock.now += 5
    assert health.view() == {}
    assert [state for _, _, state in machine.told] == ["open", "half_open", "closed"]


def test_successes_that_were_only_counted_belong_to_the_error_rate() -> None:
    machine = Machine()
    for _ in range(11):
        machine.health.report("gpt", "default", Ended("ok"))
    for _ in range(10):
        machine.fail(times=1)
        machine.health.report("gpt", "default", Ended("ok"))
    assert machine.told == []
    machine.fail(times=11)
    assert machine.told == [("gpt", "default", "open")]


def test_breakers_belong_to_model_and_replica() -> None:
    machine = Machine()
    machine.fail("qwen", "a:1")
    assert set(machine.health.view()) == {("qwen", "a:1")}
    assert machine.health.enter("qwen", "b:1") == ""


def test_a_rest_leaves_the_breaker_alone() -> None:
    machine = Machine()
    machine.health.report("gpt", "default", Ended("rate_limited", 30.0))
    assert machine.health.view()["gpt", "default"].blocked == "rests for 30 s: rate limited (429)"
    machine.clock.now += 30
    assert machine.health.view() == {}
    assert machine.told == []


def test_nobody_opens_a_wildcard_by_asking_for_what_does_not_exist() -> None:
    machine = Machine()
    machine.fail("openai/*", result="account", times=50)
    assert machine.told == []
    machine.fail("openai/*", result="server_error")
    assert machine.told == [("openai/*", "default", "open")]


def test_a_reload_keeps_what_is_still_there_and_forgets_the_rest() -> None:
    machine = Machine()
    machine.fail("gpt")
    machine.fail("qwen", "a:1")
    machine.health.configure(config(MODELS[1:]))
    assert set(machine.health.view()) == {("gpt", "default")}
    assert machine.told[-1] == ("qwen", "a:1", "closed")
    machine.fail("qwen", "a:1")  # calls that were under way
    machine.fail("unheard of")
    assert set(machine.health.view()) == {("gpt", "default")}


def test_what_is_probed_and_when() -> None:
    machine = Machine()
    clock, health = machine.clock, machine.health
    assert machine.due() == []
    clock.now += 10
    assert machine.due() == [("qwen", "vllm@a"), ("qwen", "vllm")]  # self-hosted and unused
    assert machine.due() == []  # these are under way
    for replica in ("a:1", "b:1"):
        health.probed(("qwen", replica), alive=True)
    clock.now += 9
    health.report("qwen", "a:1", Ended("ok"))
    clock.now += 1
    assert machine.due() == [("qwen", "vllm")]
    health.probed(("qwen", "b:1"), alive=False)
    clock.now += 10
    assert machine.due() == [("qwen", "vllm@a"), ("qwen", "vllm")]
    assert machine.told == []
    health.probed(("qwen", "b:1"), alive=False)
    assert machine.told == [("qwen", "b:1", "open")]
    machine.fail("gpt")
    clock.now += 1
    assert machine.due() == [("qwen", "vllm"), ("gpt", "openai")]
    health.probed(("gpt", "default"), alive=True)
    assert health.phase("gpt", "default") is Phase.HALF_OPEN
    health.probed(("qwen", "b:1"), alive=None)  # there was no way to ask
    clock.now += 4
    machine.due()
    assert health.phase("qwen", "b:1") is Phase.HALF_OPEN


class Office(Machine):
    """A parent and two workers; frames arrive when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.desk = HealthDesk(self.health, clock=self.clock)
        self.mail: list[tuple[int, bytes]] = []
        self.workers = {number: self.worker(number) for number in (0, 1)}

    def worker(self, number: int) -> WorkerHealth:
        return WorkerHealth(lambda payload: self.mail.append((number, payload)), clock=self.clock)

    def deliver(self) -> int:
        """Reports up, news down: how many pieces of news."""
        mail, self.mail = self.mail, []
        for number, payload in mail:
            self.desk.take(number, payload)
        news = list(self.desk.news(self.workers.keys()))
        for number, payload in news:
            self.workers[number].update(payload)
        return len(news)

    def entered(self) -> list[int]:
        """The workers that were let through."""
        return [number for number, worker in self.workers.items() if not enter(worker)]

    async def succeed(self, number: int) -> None:
        self.workers[number].report("gpt", "default", Ended("relayed"))
        await asyncio.sleep(2 * BATCH)

    def open_and_wait(self) -> None:
        self.fail()
        self.clock.now += 5
        self.deliver()


def enter(watch: Watch) -> str:
    return watch.enter("gpt", "default")


def test_one_workers_failures_keep_all_away() -> None:
    office = Office()
    assert office.deliver() == 0
    for _ in range(5):
        assert enter(office.workers[0]) == ""
        office.workers[0].report("gpt", "default", Ended("connect"))
    assert office.deliver() == 2
    reason = "breaker open: 5 failures in a row, last connect"
    for worker in office.workers.values():
        assert enter(worker) == reason
        assert worker.view()["gpt", "default"] == Standing(reason, 1.0, 5.0)
    assert office.deliver() == 0
    assert office.mail == []  # what is open costs the workers nothing


def test_the_trial_goes_to_one_worker_and_its_success_to_all() -> None:
    office = Office()
    office.open_and_wait()
    assert office.entered() == [0]
    assert office.entered() == []
    office.deliver()
    assert office.entered() == []
    asyncio.run(office.succeed(0))
    office.deliver()
    assert [state for _, _, state in office.told] == ["open", "half_open", "closed"]
    shares = [worker.view()["gpt", "default"].share for worker in office.workers.values()]
    assert shares == [0.1, 0.1]
    assert office.entered() == [0, 1]
    office.clock.now += 10
    office.deliver()
    assert [len(worker.view()) for worker in office.workers.values()] == [0, 0]


def test_a_grant_that_is_not_used_goes_on_to_the_next_worker() -> None:
    office = Office()
    office.open_and_wait()
    office.clock.now += GRANT
    assert office.entered() == []
    office.clock.now += GRACE
    office.deliver()
    assert office.entered() == [1]


def test_a_taken_grant_is_not_taken_twice_by_news_that_is_late() -> None:
    office = Office()
    office.open_and_wait()
    worker = office.workers[0]
    assert enter(worker) == ""
    office.mail, late = [], office.mail
    office.health.report("qwen", "a:1", Ended("rate_limited", 9.0))  # something else to tell
    office.deliver()
    assert office.entered() == []
    assert worker.view()["gpt", "default"].blocked
    office.mail = late
    office.deliver()
    assert office.entered() == []


def test_a_worker_that_dies_on_trial_leaves_it_to_the_others() -> None:
    office = Office()
    office.open_and_wait()
    assert office.entered() == [0]
    office.deliver()
    office.desk.gone(0)
    del office.workers[0]
    office.deliver()
    assert office.entered() == [1]


def test_a_worker_that_starts_late_is_told_what_is_open() -> None:
    office = Office()
    office.fail()
    office.deliver()
    office.workers[2] = office.worker(2)
    assert office.deliver() == 1
    assert enter(office.workers[2]) != ""


def test_successes_go_up_in_batches() -> None:
    async def story() -> list[tuple[int, bytes]]:
        office = Office()
        for _ in range(3):
            office.workers[0].report("gpt", "default", Ended("ok"))
        office.workers[0].report("qwen", "a:1", Ended("cancelled"))
        assert office.mail == []
        await asyncio.sleep(2 * BATCH)
        mail = office.mail
        office.deliver()
        return mail

    expected = b'[["gpt", "default", 3, "ok", null, Infinity], ["qwen", "a:1", 1, "cancelled", null, Infinity]]'
    assert asyncio.run(story()) == [(0, expected)]


def test_a_rest_reaches_all_workers_and_stops_no_retry() -> None:
    office = Office()
    office.workers[0].report("gpt", "default", Ended("rate_limited", 30.0))
    office.deliver()
    assert office.workers[1].view()["gpt", "default"].blocked == "rests for 30 s: rate limited (429)"
    assert office.entered() == [0, 1]
