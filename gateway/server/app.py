"""The public listener: `/v1/*` and `/healthz`, as raw ASGI."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Coroutine
from typing import Any, NamedTuple

from starlette.types import Message, Receive, Scope, Send

from gateway.core.call import Endpoint, Principal, parse
from gateway.core.forms import FORMS
from gateway.core.multipart import parse_form
from gateway.core.passing import why_not
from gateway.core.routing import visible_models
from gateway.core.traces import Parent, read_parent
from gateway.errors import GatewayError, Overloaded, RequestError
from gateway.flight import Request, new_id
from gateway.keyring import Keyring
from gateway.runtime import Gateway, Runtime
from gateway.server.auth import ANONYMOUS, Authenticator
from gateway.server.client import AsgiClient
from gateway.server.errors import ANTHROPIC, ERRORS, OPENAI, Errors
from gateway.server.options import Sizes
from gateway.server.passing import Found, find_passage
from gateway.server.protocol import BoundedHttpProtocol, connection_of
from gateway.server.uploads import FormReader, Room, Spool, boundary_of, read_form, too_large
from gateway.wire import CODEC

ENDPOINTS = {"/v1" + endpoint.value: endpoint for endpoint in Endpoint if endpoint is not Endpoint.PASSTHROUGH}
MODELS = "/v1/models"
HEALTHZ = "/healthz"
KEPT = "/v1/responses/"  # a response by its id: to be read, deleted or cancelled
MADE = ("compact", "input_tokens")  # below it, what is no id: platform.openai.com/docs/api-reference/responses
REQUEST_ID_LIMIT = 128  # characters, as in `gateway.core.hints`
WATCH_AFTER = 0.05  # seconds; a call that is answered sooner needs no watch for a client that hangs up

log = logging.getLogger("gateway")


class PublicApp:
    """One application for every worker. Nothing here decides anything: it reads, authenticates, and hands over."""

    def __init__(self, gateway: Gateway, keyring: Keyring, sizes: Sizes) -> None:
        self._gateway = gateway
        self._keyring = keyring
        self._max_body, self._max_upload = sizes
        self._room = Room()
        self._door: tuple[Runtime, int, Authenticator] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = connection_of(scope)
        client = AsgiClient(send, connection.flow, connection.abort)
        runtime = self._gateway.enter()
        try:
            await self._serve(runtime, scope, receive, client)
        except asyncio.CancelledError:
            await _end(connection, client)
        except Exception:  # the boundary: whatever broke in here, the client gets an envelope and the log the trace
            log.exception("a defect: the request failed inside the gateway")
            if not client.started:
                await client.fail(GatewayError("The gateway failed; its log says why."), client.identity)
        finally:
            self._gateway.leave(runtime)

    async def _serve(self, runtime: Runtime, scope: Scope, receive: Receive, client: AsgiClient) -> None:
        path: str = scope["path"]
        if path == HEALTHZ and scope["method"] in ("GET", "HEAD"):
            await _answer(client, {"status": "ok"})
            return
        arrived = time.monotonic()
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        endpoint = ENDPOINTS.get(path)
        client.errors = _errors_of(path, headers) if endpoint is None else ERRORS.get(endpoint, OPENAI)
        request = Request(endpoint.value if endpoint is not None else "other", *_identity(headers), arrived, new_id())
        client.request_id = request.client_request_id or request.id
        principal = ANONYMOUS
        try:
            principal = self._authenticator(runtime).identify(headers)
            if endpoint is None:
                if (passage := find_passage(runtime.config, scope, principal, receive)) is not None:
                    await self._let_through(runtime, passage, request, principal, client)
                    return
                await self._other(runtime, scope, principal, client)
                return
            _require(scope, "POST")
            if FORMS[endpoint].multipart and (boundary := _boundary(headers)) is not None:
                await self._serve_form(runtime, boundary, Asked(endpoint, request, principal, scope), receive, client)
                return
            body = await self._read_body(scope, receive)
            call = parse(endpoint, headers, body, CODEC)
        except (RequestError, Overloaded) as error:
            flight = runtime.engine.begin(request, principal)
            stranger = error.status == 401 or not path.startswith("/v1/")
            await runtime.engine.refuse(flight, client, error, keep=not stranger)
            return
        flight = runtime.engine.begin(request, principal)
        await _until_hangup(receive, client, runtime.engine.run(call, flight, client))

    async def _let_through(
        self, runtime: Runtime, found: Found, request: Request, principal: Principal, client: AsgiClient
    ) -> None:
        flight = runtime.engine.begin(request._replace(endpoint=Endpoint.PASSTHROUGH.value), principal)
        call = found.passage.call
        await _until_hangup(found.rest, client, runtime.engine.run(call, flight, client, found.passage))

    async def _serve_form(
        self, runtime: Runtime, boundary: bytes, asked: Asked, receive: Receive, client: AsgiClient
    ) -> None:
        """Raises RequestError, Overloaded before the call has begun."""
        self._check_head(asked.scope, self._max_upload, too_large(self._max_upload))
        spool = Spool(self._room)
        try:
            parts = await read_form(FormReader(boundary), spool, self._punctual(asked.scope, receive), self._max_upload)
            call = parse_form(asked.endpoint, asked.scope["headers"], parts, CODEC)
            flight = runtime.engine.begin(asked.request, asked.principal)
            flight.upload = spool
            await _until_hangup(receive, client, runtime.engine.run(call, flight, client))
        finally:
            spool.close()

    def _punctual(self, scope: Scope, receive: Receive) -> Receive:
        """`receive` that ends where a body does not come in time. Raises RequestError 408."""
        connection = connection_of(scope)

        async def next_message() -> Message:
            message = await receive()
            if connection.too_slow:
                raise RequestError("The body did not come in time.", status=408)
            return message

        return next_message

    def _check_head(self, scope: Scope, limit: int, error: RequestError) -> None:
        """Raises RequestError where a request's head shows that its body is not for us."""
        for name, value in scope["headers"]:
            if name == b"content-length" and int(value) > limit:
                raise error
            if name == b"content-encoding" and value.lower() != b"identity":
                raise RequestError("Send the body without content-encoding.", status=415)

    def _authenticator(self, runtime: Runtime) -> Authenticator:
        door, version = self._door, self._keyring.version
        if door is None or door[0] is not runtime or door[1] != version:
            door = self._door = (runtime, version, Authenticator(runtime.config, self._keyring))
        return door[2]

    async def _other(self, runtime: Runtime, scope: Scope, principal: Principal, client: AsgiClient) -> None:
        path: str = scope["path"]
        if path == HEALTHZ:
            _require(scope, "GET")
        if path.startswith(KEPT) and path.removeprefix(KEPT) not in MADE:
            raise RequestError("Responses are not kept here: ask the provider that made it.", status=404)
        if path != MODELS and not path.startswith(MODELS + "/"):
            served = f"There is no {path[:200]!r} here. Served: {', '.join(sorted(ENDPOINTS))}, {MODELS}."
            raise RequestError(why_not(path.removeprefix("/v1")) or served, status=404)
        _require(scope, "GET")
        models = visible_models(runtime.config.rules, principal)
        if path == MODELS:
            await _answer(client, {"object": "list", "data": [_model(runtime, name) for name in models]})
            return
        name = path.removeprefix(MODELS + "/")
        if name not in models:
            message = f"There is no model {name[:200]!r} that this key may use."
            raise RequestError(message, status=404, code="model_not_found", param="model")
        await _answer(client, _model(runtime, name))

    async def _read_body(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body. Raises RequestError 413, where it can before the body has been taken in, and 408."""
        self._check_head(scope, self._max_body, self._too_large())
        message = await receive()
        parts: list[bytes] = [message.get("body", b"")]
        size = len(parts[0])
        while message.get("more_body") and size <= self._max_body:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RequestError("The body ended before it was whole.")
            if connection_of(scope).too_slow:
                raise RequestError("The body did not come in time.", status=408)
            parts.append(message.get("body", b""))
            size += len(parts[-1])
        if size > self._max_body:
            raise self._too_large()
        return b"".join(parts)

    def _too_large(self) -> RequestError:
        message = f"The body is larger than {self._max_body} bytes (`gateway serve --max-body`)."
        return RequestError(message, status=413, code="request_too_large")


class Asked(NamedTuple):
    """What is known of a request before its body."""

    endpoint: Endpoint
    request: Request
    principal: Principal
    scope: Scope


def _errors_of(path: str, headers: list[tuple[bytes, bytes]]) -> Errors:
    """Of what is not served: Anthropic's where its API was called, as its SDKs say with every request."""
    theirs = path.startswith("/v1/messages/") or any(name == b"anthropic-version" for name, _ in headers)
    return ANTHROPIC if theirs else OPENAI


def _boundary(headers: list[tuple[bytes, bytes]]) -> bytes | None:
    """Of a form with files. Raises RequestError."""
    return boundary_of(next((value.decode("latin-1") for name, value in headers if name == b"content-type"), ""))


async def _end(connection: BoundedHttpProtocol, client: AsgiClient) -> None:
    """Ends a request that was cancelled, which happens for two reasons, and neither is an error of this process.

    Either the drain time is over: the client is told, by a 503 or by its stream's last event, if it can be. Or the
    exchange has given up on a client that does not read: what is unsent is dropped.
    """
    task = asyncio.current_task()
    if task is None or not task.cancelling() or not connection.reading or client.in_pieces:
        connection.abort()
        return
    task.uncancel()
    if not client.finished:
        await client.fail(Overloaded("The gateway is going down; send the request again."), client.identity)


async def _until_hangup(receive: Receive, client: AsgiClient, run: Coroutine[Any, Any, None]) -> None:
    """Runs a call and cancels it when its client goes away. The watch starts late: most fast calls never need it."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    watch: asyncio.Task[None] | None = None
    hung_up = False

    async def look() -> None:
        nonlocal hung_up
        while (await receive())["type"] != "http.disconnect":
            pass
        if not client.finished:
            hung_up = True
            task.cancel()

    def start_watch() -> None:
        nonlocal watch
        watch = loop.create_task(look())

    timer = loop.call_later(WATCH_AFTER, start_watch)
    try:
        await run
    except asyncio.CancelledError:
        if not hung_up:
            raise
        task.uncancel()
    finally:
        timer.cancel()
        if watch is not None:
            watch.cancel()


def _identity(headers: list[tuple[bytes, bytes]]) -> tuple[str, Parent | None]:
    """The client's `x-request-id` to echo, empty where it has none or one that `parse` will refuse; and its trace."""
    request_id = ""
    parents: list[bytes] = []
    states: list[bytes] = []
    for name, value in headers:
        if name == b"x-request-id" and len(value) <= REQUEST_ID_LIMIT and value.isascii():
            given = value.decode("ascii")
            request_id = request_id or (given if given.isprintable() else "")
        elif name == b"traceparent":
            parents.append(value)
        elif name == b"tracestate":
            states.append(value)
    return request_id, read_parent(parents, states) if parents else None


def _require(scope: Scope, method: str) -> None:
    if scope["method"] != method:
        headers = {"allow": method}
        raise RequestError(f"Use {method} for {scope['path'][:200]}.", status=405, headers=headers)


def _model(runtime: Runtime, name: str) -> dict[str, object]:
    """OpenAI's model object. A route's literal name is owned by the gateway, a model by its provider."""
    model = runtime.config.rules.models.get(name)
    owner = model.provider if model is not None else "open-model-gateway"
    return {"id": name, "object": "model", "created": runtime.created, "owned_by": owner}


async def _answer(client: AsgiClient, value: object) -> None:
    body = json.dumps(value).encode()
    content = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await client.start(200, client.identity + content)
    await client.send(body, more=False)
