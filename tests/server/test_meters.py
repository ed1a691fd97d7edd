"""The reader of servers' own metrics: loopback servers, asked as often as they deserve and as long as configured."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.config.types import Config, ProviderConfig
from gateway.core.loads import Load, Reading
from gateway.core.routing import Route, Rules
from gateway.core.rules import Model, Replica
from gateway.providers.local import LocalServer
from gateway.server import meters
from gateway.server.meters import Meters
from gateway.telemetry.events import Event, ServerLost, ServerRead
from tests import replies
from tests.expositions import asked, telling, vllm
from tests.servers import free_port
from tests.upstream import Upstream


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "READ_EVERY", 0.02)


def provider(name: str, url: str, **more: str) -> ProviderConfig:
    return ProviderConfig(name, "openai", url, more.get("api_key", ""), metrics=more.get("metrics", ""))


def model(name: str, *providers: str, hosting: str = "self") -> Model:
    replicas = tuple(Replica(each, provider=each) for each in providers) if len(providers) > 1 else (Replica(),)
    return Model(name, providers[0], name, "self" if hosting == "self" else "api", replicas=replicas)


def config(models: Sequence[Model], *providers: ProviderConfig) -> Config:
    rules = Rules({each.name: each for each in models}, (), (), Route("direct", ()))
    by_name = {each.name: each for each in providers}
    return Config(Path("routes.yaml"), "", by_name, rules, False, (), "", "reject", (), "", frozenset())


class Story:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.told: list[Load] = []
        self.local: LocalServer | None = None
        self.meters = Meters(self.events.append, self.told.extend, lambda _: self.local)

    async def until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not what():  # noqa: ASYNC110 - what a task of its own does without announcing it
                await asyncio.sleep(0.005)

    def last(self, name: str, replica: str = "default") -> Event | None:
        of = [
            e
            for e in self.events
            if isinstance(e, ServerRead | ServerLost) and (e.model, e.endpoint) == (name, replica)
        ]
        return of[-1] if of else None

    def reading(self, name: str, replica: str = "default") -> Reading | None:
        last = self.last(name, replica)
        return last.reading if isinstance(last, ServerRead) else None


@asynccontextmanager
async def running(of: Config) -> AsyncIterator[Story]:
    story = Story()
    story.meters.configure(of)
    task = asyncio.create_task(story.meters.run())
    try:
        yield story
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_each_server_is_read_once_for_all_who_are_on_it() -> None:
    async def story(one: Upstream, two: Upstream) -> None:
        models = [model("a", "x", "y"), model("b", "x-again")]
        given = config(
            models, provider("x", one.base_url), provider("y", two.base_url), provider("x-again", one.base_url)
        )
        async with running(given) as it:
            await it.until(lambda: it.reading("a", "x") is not None and it.reading("b") is not None)
            await it.until(lambda: it.reading("a", "y") is not None)
            assert it.reading("a", "x") == it.reading("b") == Reading(4, 1, 70, 7)
            assert it.reading("a", "y") == Reading(0, 0, 0, 0)
            alone = {(e.model, e.endpoint): e.alone for e in it.events if isinstance(e, ServerRead)}
            assert alone == {("a", "x"): False, ("b", "default"): False, ("a", "y"): True}
            reads = sum(isinstance(e, ServerRead) and e.model == "b" for e in it.events)
            assert len(asked(one)) - reads in (0, 1)
            known = {Load("a", "x", True, 4, 1), Load("a", "y", True, 0, 0), Load("b", "default", False, 4, 1)}
            assert set(it.meters.known) == known
            assert it.told.count(Load("a", "y", True, 0, 0)) == 1, "that nothing is under way is told once"
            assert it.told.count(Load("a", "x", True, 4, 1)) > 0

    with Upstream(telling(vllm(4, 1, 70, 7))) as one, Upstream(telling(vllm())) as two:
        asyncio.run(story(one, two))


def test_what_is_not_self_hosted_or_switched_off_is_never_asked() -> None:
    async def story(upstream: Upstream, watched: Upstream) -> None:
        models = [model("api", "p", hosting="api"), model("off", "q"), model("seen", "r")]
        off = provider("q", upstream.base_url, metrics="off")
        async with running(
            config(models, provider("p", upstream.base_url), off, provider("r", watched.base_url))
        ) as it:
            await it.until(lambda: len(asked(watched)) > 5)
        assert not upstream.probes

    with Upstream(telling(vllm(1))) as upstream, Upstream(telling(vllm(1))) as watched:
        asyncio.run(story(upstream, watched))


def test_a_server_without_such_a_page_is_asked_ever_more_rarely() -> None:
    async def story(upstream: Upstream, watched: Upstream) -> None:
        given = config(
            [model("m", "p"), model("w", "q")], provider("p", upstream.base_url), provider("q", watched.base_url)
        )
        async with running(given) as it:
            await it.until(lambda: len(asked(watched)) >= 40)
            assert it.events
            assert it.last("m") is None
        assert len(asked(upstream)) <= 8, "pauses that double"
        assert all(load.model == "w" for load in it.told)

    with Upstream(replies.status(404)) as upstream, Upstream(telling(vllm(2))) as watched:
        asyncio.run(story(upstream, watched))


def test_a_server_that_falls_silent_is_believed_for_a_while_and_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "LONGEST_PAUSE", 0.05)
    port = free_port()

    async def story() -> None:
        given = config([model("m", "p")], provider("p", f"http://127.0.0.1:{port}/v1"))
        async with running(given) as it:
            with Upstream(telling(vllm(5, 1)), port) as first:
                await it.until(lambda: it.reading("m") == Reading(5, 1, 0, 0))
                del first
            await it.until(lambda: isinstance(it.last("m"), ServerLost))
            assert it.told[-1] == Load("m", "default", False, None, None)
            assert it.meters.known == []
            with Upstream(telling(vllm(6)), port):
                await it.until(lambda: it.reading("m") == Reading(6, 0, 0, 0))
            assert it.told[-1] == Load("m", "default", False, 6, 0)

    asyncio.run(story())


def test_one_slow_answer_is_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "LONGEST_PAUSE", 0.02)
    with Upstream(telling(vllm(5))) as upstream:

        async def story() -> None:
            async with running(config([model("m", "p")], provider("p", upstream.base_url))) as it:
                await it.until(lambda: it.reading("m") is not None)
                for _ in range(5):
                    upstream.script("", replies.reset())
                    count = len(it.events)
                    await it.until(lambda: len(it.events) >= count + 2)  # noqa: B023 - awaited at once
                assert not [event for event in it.events if isinstance(event, ServerLost)]

        asyncio.run(story())


def test_a_reload_ends_and_begins_readings() -> None:
    async def story(one: Upstream, two: Upstream) -> None:
        first = config([model("m", "p")], provider("p", one.base_url, api_key="first"))
        async with running(first) as it:
            await it.until(lambda: it.reading("m") == Reading(1, 0, 0, 0))
            it.meters.configure(config([model("n", "q")], provider("q", two.base_url)))
            await it.until(lambda: it.reading("n") == Reading(2, 0, 0, 0))
            assert isinstance(it.last("m"), ServerLost)
            before = len(asked(one))
            it.meters.configure(
                config([model("n", "q"), model("m", "p")], provider("q", two.base_url), *first.providers.values())
            )
            await it.until(lambda: it.reading("m") == Reading(1, 0, 0, 0))
            assert len(asked(one)) > before
            assert asked(one)[-1].header("authorization") == "Bearer first"

    with Upstream(telling(vllm(1))) as one, Upstream(telling(vllm(2))) as two:
        asyncio.run(story(one, two))
