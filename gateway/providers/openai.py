"""Any server with OpenAI's API: the client's bytes go up, the upstream's bytes come back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from gateway import __version__
from gateway.config.types import ProviderConfig
from gateway.core.answers import Seen
from gateway.core.call import Call, Endpoint, outgoing_body
from gateway.core.dialects import adapted
from gateway.core.multipart import Parts
from gateway.core.traces import Header
from gateway.errors import UpstreamFailure
from gateway.providers.account import as_anthropics, is_anthropics, key_headers
from gateway.providers.base import REFUSAL_LIMIT, REFUSAL_SECONDS, Attempt, Upstream
from gateway.providers.http import HttpClient
from gateway.providers.streamed import Streamed, form_body
from gateway.providers.translated import open_translated
from gateway.views import VIEWS, read_answer

CONNECT_SECONDS = 10.0  # where a target names no limit
MAX_IDLE = 256  # connections kept
REMEMBERED = 1024  # upstream models; a wildcard entry lets clients choose the names
TRACE = frozenset({"traceparent", "tracestate"})
PASSED_ON = frozenset({"openai-beta", *TRACE})  # of the client's headers; and anthropic-*


class Held:
    """An answer whose body has been read already, or could not be: then reading it raises `failure`."""

    def __init__(
        self, status: int, headers: Mapping[str, str], body: bytes, failure: UpstreamFailure | None = None
    ) -> None:
        self.status = status
        self.headers = headers
        self._body = body
        self._failure = failure

    async def read(self, limit: int) -> bytes:
        if self._failure is not None:
            raise self._failure
        if len(self._body) > limit:
            raise UpstreamFailure("malformed", f"the answer has more than the {limit} bytes allowed")
        return await self.chunk()

    async def chunk(self) -> bytes:
        body, self._body = self._body, b""
        return body

    def close(self) -> None:
        """The connection went back when the body had been read."""


class OpenAIProvider:
    """Implements `gateway.providers.base.Provider`.

    Raises ValueError for a base URL, key or header that cannot be sent, OSError for a `ca_file` that cannot be read;
    neither shows a secret.
    """

    def __init__(self, config: ProviderConfig, *, max_idle: int = MAX_IDLE) -> None:
        """`max_idle`: connections that are kept for later requests."""
        self._azure = str(config.options.get("api_version", ""))  # Azure's paths and key header where it is given
        self._client = HttpClient(config.base_url, ca_file=config.ca_file, max_idle=max_idle)
        fixed = {"content-type": "application/json", "user-agent": f"open-model-gateway/{__version__}"}
        fixed |= key_headers(config)
        fixed |= {name.lower(): value for name, value in config.headers.items()}
        self._fixed = frozenset(fixed)
        headers = [sendable(config.name, name, value) for name, value in fixed.items()]
        self._plain: list[Header] = headers if "accept" in fixed else [*headers, (b"accept", b"application/json")]
        self._stream: list[Header] = headers if "accept" in fixed else [*headers, (b"accept", b"text/event-stream")]
        self._any: list[Header] = headers if "accept" in fixed else [*headers, (b"accept", b"*/*")]
        # At its own address Anthropic has OpenAI's chat, too, with OpenAI's headers.
        self._anthropic = config if is_anthropics(config) else None
        self._without_usage: dict[str, None] = {}  # upstream models known to reject `stream_options`, oldest first

    async def open(self, attempt: Attempt) -> Upstream:
        return await open_translated(attempt, self._open)

    async def _open(self, attempt: Attempt) -> Upstream:
        call = attempt.call
        model = attempt.target.upstream_name
        asks = call.stream and model not in self._without_usage
        answer = await self._send(attempt, ask_usage=asks)
        if not asks or answer.status not in (400, 422):
            return answer
        try:
            async with asyncio.timeout(REFUSAL_SECONDS):
                body = await answer.read(REFUSAL_LIMIT)
        except TimeoutError:
            late = UpstreamFailure("malformed", f"the reason did not come within {REFUSAL_SECONDS:g} s")
            return Held(answer.status, answer.headers, b"", late)
        except UpstreamFailure as failure:
            return Held(answer.status, answer.headers, b"", failure)
        finally:
            answer.close()
        if b"stream_options" not in body and b"include_usage" not in body:
            return Held(answer.status, answer.headers, body)
        again = await self._send(attempt, ask_usage=False)
        if again.status < 400 and _asks_nothing_else(call):
            self._remember(model)
        return again

    def read_answer(self, call: Call, body: bytes) -> Seen | None:
        return read_answer(call, body)

    def read_chunk(self, call: Call, data: bytes) -> Seen | None:
        return VIEWS[call.endpoint].chunk(data)

    async def alive(self, timeout: float) -> bool:  # noqa: ASYNC109  # one number is the whole need
        """Any answer below 500 to GET /models counts: not every server has the list, nor may every key see it.

        So does a 501 or a 505, which say that the server knows no such request (RFC 9110, 15.6), not that it is ill.
        """
        try:
            async with asyncio.timeout(timeout):
                answer = await self._ask(timeout)
        except (UpstreamFailure, TimeoutError):
            return False
        answer.close()
        return answer.status < 500 or answer.status in (501, 505)

    async def models(self, timeout: float) -> Held:  # noqa: ASYNC109  # one number is the whole need
        """The whole answer to GET /models, which costs no tokens. Raises UpstreamFailure."""
        try:
            async with asyncio.timeout(timeout):
                answer = await self._ask(timeout)
                try:
                    return Held(answer.status, answer.headers, await answer.read(REFUSAL_LIMIT))
                except UpstreamFailure as failure:
                    return Held(answer.status, answer.headers, b"", failure)
                finally:
                    answer.close()
        except TimeoutError:
            raise UpstreamFailure("timeout", f"no whole answer within {timeout:g} s") from None

    async def close(self) -> None:
        await self._client.close()

    async def _ask(self, timeout: float) -> Upstream:  # noqa: ASYNC109  # as above
        headers = self._plain if self._anthropic is None else as_anthropics(self._plain, self._anthropic)
        return await self._client.get(self._path("/models"), headers, connect_timeout=timeout)

    async def _send(self, attempt: Attempt, *, ask_usage: bool) -> Upstream:
        call, target, cap, on_sending, trace, upload = attempt
        model = target.model
        ours = model.set
        if cap is not None:
            ours = {**ours, model.cap_name if call.endpoint is Endpoint.CHAT else call.form.caps[-1]: cap}
        headers = self.headers(call, trace)
        body: bytes | Streamed
        if upload is not None and call.parts is not None:
            body = form_body(call, target, upload)
            headers = [*(each for each in headers if each[0] not in _OF_FORMS), *_of_form(call.parts)]
        else:
            changes = adapted(call, model, target.upstream_name).edits if model.server else {}
            body = outgoing_body(
                call, model=target.upstream_name, set=ours, drop=model.drop, ask_usage=ask_usage, adapt=changes
            )
        limit = target.timeouts.connect
        limit = CONNECT_SECONDS if limit is None else limit
        path = self._path(call.endpoint.value, target.upstream_name)
        return await self._client.request(path, headers, body, connect_timeout=limit, on_sending=on_sending)

    def _path(self, path: str, model: str = "") -> str:
        """Azure's names the deployment: learn.microsoft.com/azure/ai-foundry/openai/reference."""
        if not self._azure:
            return path
        deployment = f"/deployments/{quote(model, safe='')}" if model else ""
        return f"/openai{deployment}{path}?api-version={quote(self._azure, safe='')}"

    def headers(self, call: Call, trace: tuple[Header, ...] | None) -> Sequence[Header]:
        """Ours, and the few of the client's that the contract lets through; a configured header wins."""
        ours: Sequence[Header] = self._stream if call.stream else self._any if call.form.binary else self._plain
        if self._anthropic is not None and call.form.api != "chat":
            ours = as_anthropics(ours, self._anthropic, call.headers)
        passed: list[Header] = []
        if trace is not None:
            passed += [header for header in trace if header[0].decode() not in self._fixed]
        for name, value in call.headers.items():
            if trace is not None and name in TRACE:
                continue
            known = name in PASSED_ON or name.startswith("anthropic-")
            if known and name not in self._fixed and is_clean(name, value):
                passed.append((name.encode("latin-1"), value.encode("latin-1")))
        return [*ours, *passed] if passed else ours

    def _remember(self, model: str) -> None:
        while len(self._without_usage) >= REMEMBERED:
            del self._without_usage[next(iter(self._without_usage))]
        self._without_usage[model] = None


_OF_FORMS = frozenset({b"content-type", b"accept"})


def _of_form(parts: Parts) -> tuple[Header, ...]:
    return (b"content-type", parts.content_type), (b"accept", b"*/*")


def _asks_nothing_else(call: Call) -> bool:
    """Whether the `stream_options` that were refused were ours: a client's own odd ones prove nothing for others."""
    ours = {"include_usage": True}
    return bool(json.loads(call.merged("stream_options", ours)) == ours)


def is_clean(name: str, value: str) -> bool:
    """Whether a client's header can be sent as one header: no line break, null or letter beyond latin-1."""
    return not any(bad in text for text in (name, value) for bad in "\r\n\0")


def sendable(provider: str, name: str, value: str) -> Header:
    """Raises ValueError, which shows no secret."""
    if not (name.isascii() and value.isascii() and is_clean(name, value)):
        raise ValueError(f"provider {provider}: the header {name!r} holds a line break or a letter that is not ASCII")
    return name.encode("ascii"), value.encode("ascii")
