"""A server of ours in a child process: started, supervised, found again after a restart.

`ChildServer` owns the process: whoever makes it (the parent of all workers) starts and stops it. To everybody else it
is one more OpenAI-dialect server at `base_url` with `api_key`, which `ChildProvider` follows wherever it moves.

The child gets what it needs as lines of JSON on stdin, the first of which holds its key and port; the only line on
its stdout is its address. The key is new with every gateway; the port is the kernel's choice, and is kept over
restarts as long as nobody else takes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from gateway.config.types import ProviderConfig
from gateway.core.answers import Seen
from gateway.core.call import Call
from gateway.errors import UpstreamFailure
from gateway.providers.base import Attempt, Upstream
from gateway.providers.http import HttpClient
from gateway.providers.openai import CONNECT_SECONDS, OpenAIProvider
from gateway.views import VIEWS, read_answer

HEALTHY_SECONDS = 10.0  # a process that lived longer than this had started well
DEATHS = 5  # quick deaths in a row before it is given up
PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds before the first restart, doubled each time

# A child needs no secret of the gateway's environment.
ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", "HOME")


class ChildServer:
    """The child process and its supervisor. Belongs to one event loop; starts once and stops once."""

    what = "the child"  # in messages
    log = logging.getLogger("gateway.child")
    module = ""  # that is run
    load_seconds = 120.0  # until it serves

    def __init__(self) -> None:
        self.base_url = ""  # known once it is ready; the same after a restart unless the port has been taken
        self.api_key = secrets.token_urlsafe(32)
        self.pid = 0  # 0: no process
        self.restarts = 0
        self.failure = ""  # why it was given up; empty while there is hope
        self._port = 0
        self._ready = asyncio.Event()
        self._settled = asyncio.Event()  # ready, or given up
        self._task: asyncio.Task[None] | None = None
        self._stopped = False
        self._stdin: asyncio.StreamWriter | None = None
        self._last_words: deque[str] = deque(maxlen=5)

    def missing(self) -> str:
        """Why it cannot run here, and what to do about it; empty where it can."""
        return ""

    def first_line(self) -> Mapping[str, Any]:
        """What the process is told beside its key and port."""
        return {}

    def environment(self) -> Mapping[str, str]:
        return {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}

    def add(self, config: ProviderConfig) -> None:
        """A provider begins to use it."""

    def remove(self, config: ProviderConfig) -> None:
        """A provider no longer does; each `add` ends in one."""

    def tell(self, line: Mapping[str, Any]) -> None:
        """One more line for the process, where there is one; what it must know after a restart is in `first_line`."""
        if self._stdin is not None:
            self._stdin.write(json.dumps(line).encode() + b"\n")

    @property
    def ready(self) -> bool:
        return self._ready.is_set()

    async def start(self) -> None:
        """Begins to start the process and returns at once; `wait_ready` tells when it serves."""
        if self._task is None and not self._stopped:
            self._task = asyncio.create_task(self._supervise(), name=self.what)

    async def stop(self) -> None:
        """Ends the process and returns when it is gone. It keeps no state, so nothing is lost by killing it."""
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def wait_ready(self, timeout: float) -> bool:  # noqa: ASYNC109  # one number is the whole need
        """Returns when it serves, was given up, or `timeout` seconds have passed; says whether it serves."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._settled.wait()
        return self.ready

    async def _supervise(self) -> None:
        loop = asyncio.get_running_loop()
        self.failure = self.missing()
        deaths = 0
        while not self.failure:
            began = loop.time()
            how = await self._run()
            deaths = 1 if loop.time() - began > HEALTHY_SECONDS else deaths + 1
            self.log.warning("%s %s; last words: %s", self.what, how, " | ".join(self._last_words) or "none")
            if deaths >= DEATHS:
                self.failure = f"{self.what} {how}, {deaths} times in a row: {' | '.join(self._last_words)}"
                break
            await asyncio.sleep(min(PAUSE * 2 ** (deaths - 1), LONGEST_PAUSE))
            self.restarts += 1
        self.log.error("%s", self.failure)
        self._settled.set()

    async def _run(self) -> str:
        """One life of the process. Says how it ended."""
        self._last_words.clear()
        try:
            process = await self._spawn()
        except OSError as error:
            return f"could not be started: {error}"
        self.pid = process.pid
        logs = asyncio.create_task(self._read_logs(process))
        try:
            if not await self._serves(process):
                self._port = 0  # it may have been taken
                if process.returncode is None:
                    return f"was not ready within {self.load_seconds:g} s"
                return f"ended while it started (exit status {process.returncode})"
            self._ready.set()
            self._settled.set()
            self.log.info("%s serves at %s (process %d)", self.what, self.base_url, process.pid)
            return f"ended (exit status {await process.wait()})"
        finally:
            self._ready.clear()
            self._settled.clear()
            self._stdin = None
            self.pid = 0
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            await logs

    async def _spawn(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-P", "-m", self.module),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(self.environment()),
            start_new_session=True,
        )

    async def _serves(self, process: asyncio.subprocess.Process) -> bool:
        """Hands over the options and returns when /health is 200; False when the process ended or took too long."""
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the process was made without pipes")
        try:
            async with asyncio.timeout(self.load_seconds):
                self._stdin = process.stdin
                self.tell({"api_key": self.api_key, "port": self._port, **self.first_line()})
                address = (await process.stdout.readline()).decode().strip()
                if not address:
                    await process.wait()
                    return False
                await self._healthy(process, address)
        except (TimeoutError, ConnectionError):
            return False
        self.base_url = f"{address}/v1"
        self._port = int(address.rpartition(":")[2])
        return process.returncode is None

    async def _healthy(self, process: asyncio.subprocess.Process, address: str) -> None:
        """Polls /health: 503 while it is loading."""
        client = HttpClient(address, max_idle=1)
        try:
            while process.returncode is None:
                with contextlib.suppress(UpstreamFailure):
                    answer = await client.get("/health", [], connect_timeout=1.0)
                    answer.close()
                    if answer.status == 200:
                        return
                await asyncio.sleep(0.05)
        finally:
            await client.close()

    async def _read_logs(self, process: asyncio.subprocess.Process) -> None:
        """The child's warnings and errors: for people who debug, and to say why it died."""
        if process.stderr is None:
            raise RuntimeError("the process was made without pipes")
        rest = b""
        while data := await process.stderr.read(8192):
            *lines, rest = (rest[-8192:] + data).split(b"\n")
            for line in lines:
                text = line.decode(errors="replace").strip()
                if text:
                    self.log.debug("%s: %s", self.what, text)
                    self._last_words.append(text[-300:])


class Server(Protocol):
    """What a provider needs to know of a server, whichever process runs it."""

    base_url: str
    api_key: str
    failure: str

    @property
    def ready(self) -> bool: ...

    async def wait_ready(self, timeout: float) -> bool: ...  # noqa: ASYNC109  # one number is the whole need


class ChildProvider:
    """Implements `gateway.providers.base.Provider` for a server of ours.

    With a `server` it follows that server; without, `config.base_url` and `config.api_key` say where somebody else's
    process keeps one, as in a worker.
    """

    what = "the child"  # in messages
    max_idle = 256  # connections kept

    def __init__(self, config: ProviderConfig, server: Server | None = None) -> None:
        self._config = config
        self._server = server
        self.on_close: Callable[[], Awaitable[None]] | None = None  # gives up the server, where it was made for this
        self._inner = self.reached(config) if server is None and config.base_url else None

    def missing(self) -> str:
        """Why it is not running, where that can be told."""
        return ""

    def reached(self, config: ProviderConfig) -> OpenAIProvider:
        """Where the server is now, as an upstream. `config` has its address and key."""
        return OpenAIProvider(config, max_idle=self.max_idle)

    async def open(self, attempt: Attempt) -> Upstream:
        """Waits for a server that is loading, as long as a connection may take."""
        if self._server is not None and (not self._server.ready or self._config.base_url != self._server.base_url):
            limit = attempt.target.timeouts.connect
            await self._follow(self._server, CONNECT_SECONDS if limit is None else limit)
        if self._inner is None:
            raise UpstreamFailure("connect", self.missing() or f"{self.what} is not running")
        return await self._inner.open(attempt)

    def read_answer(self, call: Call, body: bytes) -> Seen | None:
        return read_answer(call, body)

    def read_chunk(self, call: Call, data: bytes) -> Seen | None:
        return VIEWS[call.endpoint].chunk(data)

    async def alive(self, timeout: float) -> bool:  # noqa: ASYNC109  # as in the protocol
        if self._server is not None:
            return self._server.ready
        return self._inner is not None and await self._inner.alive(timeout)

    async def close(self) -> None:
        """Closes connections. The server is left to its owner."""
        if self._inner is not None:
            await self._inner.close()
        if self.on_close is not None:
            await self.on_close()

    async def _follow(self, server: Server, limit: float) -> None:
        """Waits until the server is ready, and turns to where it is now."""
        if not await server.wait_ready(limit):
            raise UpstreamFailure("connect", server.failure or f"{self.what} is still loading")
        if self._config.base_url == server.base_url:
            return
        self._config = self._config._replace(base_url=server.base_url, api_key=server.api_key)
        old, self._inner = self._inner, self.reached(self._config)
        if old is not None:
            await old.close()
