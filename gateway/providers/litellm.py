"""litellm in a process of its own, behind OpenAI's API on a loopback port. Run by `litellm_server.py`, never by hand.

    python -P -m gateway.providers.litellm

The only importer of litellm, whose import takes seconds of CPU and holds up whatever shares its interpreter
(docs/decisions/0018-litellm-in-a-process-of-its-own.md). The first line of stdin is JSON: api_key, port (0: any free
one), accounts; each later line adds or removes an account: {"add": {...}} or {"remove": id}. The only line on stdout is
the server's URL, written once litellm is there. It ends when stdin does: the kernel closes the pipe when the gateway is
gone, however it went.

A request says whose account it is by an id; keys come through the pipe alone. No deadlines and no retries here: both
are the gateway's, which ends a call by closing its connection.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

from aiohttp import web

from gateway.providers.litellm_calls import (
    ACCOUNT,
    DROPPED,
    FAILURE,
    Arguments,
    Said,
    Unsupported,
    chat_arguments,
    embedding_arguments,
    header_of,
    said_by,
)

# Before the import: prices from the wheel rather than from the network; no fetching of images by a client's URLs.
os.environ.update(
    LITELLM_LOCAL_MODEL_COST_MAP="True",
    LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS="True",
    LITELLM_LOCAL_BLOG_POSTS="True",
    LITELLM_LOCAL_POLICY_TEMPLATES="True",
    LITELLM_MODE="PRODUCTION",  # no .env file is read
    LITELLM_LOG="ERROR",
    MAX_IMAGE_URL_DOWNLOAD_SIZE_MB="0",
)

import httpx
import litellm

CONNECT_SECONDS = 10.0
NO_LIMIT = 24 * 3600.0  # seconds: the gateway has the deadlines
WAIT_FOR_ACCOUNT = 5.0  # seconds: a worker may know of a new configuration a moment before its parent has told us
BODY_LIMIT = 256 * 1024 * 1024  # bytes; the gateway has the limit that clients see
PASSED_ON = ("anthropic-", "openai-beta", "traceparent", "tracestate")

_SECRET = 8  # characters: what is shorter is no secret, and would blot out words

Account = Mapping[str, Any]


class Accounts:
    """Those in force, by id. Told by another thread, asked on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, first: list[Account]) -> None:
        self._loop = loop
        self._known = {str(each["id"]): each for each in first}
        self._changed = asyncio.Event()

    def take(self, line: Mapping[str, Any]) -> None:
        def change() -> None:
            if (new := line.get("add")) is not None:
                self._known[str(new["id"])] = new
            self._known.pop(str(line.get("remove")), None)
            self._changed.set()
            self._changed = asyncio.Event()

        self._loop.call_soon_threadsafe(change)

    async def find(self, name: str) -> Account | None:
        try:
            async with asyncio.timeout(WAIT_FOR_ACCOUNT):
                while name not in self._known:
                    await self._changed.wait()
        except TimeoutError:
            return None
        return self._known[name]


class Answering:
    """The HTTP side."""

    def __init__(self, api_key: str, accounts: Accounts) -> None:
        self._authorization = f"Bearer {api_key}".encode()
        self._accounts = accounts

    def app(self) -> web.Application:
        app = web.Application(client_max_size=BODY_LIMIT)
        app.router.add_get("/health", self.health)
        app.router.add_get("/v1/models", self.health)
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_post("/v1/embeddings", self.embeddings)
        return app

    async def health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        account = await self._account(request)
        if account is None:
            return _refusal(Said(502, "the account is not known to the litellm process", None, "connect"))
        body = await request.json()
        dropped: tuple[str, ...] = ()
        try:
            provider = account["provider"]
            supported = litellm.get_supported_openai_params(model=body["model"], custom_llm_provider=provider) or []
            passed, dropped = chat_arguments(body, provider, supported)
            given = {**_common(account, body["model"], request), **passed}
            if body.get("stream"):
                streamed = await litellm.acompletion(stream=True, stream_options={"include_usage": True}, **given)
                return await _stream(request, account, streamed, dropped)
            answer = await litellm.acompletion(**given)
        except Unsupported as error:
            return _refusal(Said(400, str(error), "unsupported_parameter"), error.param)
        except Exception as error:  # noqa: BLE001 - whatever it is, it becomes an answer
            return _failed(error, account)
        return _whole(answer, dropped)

    async def embeddings(self, request: web.Request) -> web.StreamResponse:
        account = await self._account(request)
        if account is None:
            return _refusal(Said(502, "the account is not known to the litellm process", None, "connect"))
        body = await request.json()
        try:
            arguments = _embedding(body, account["provider"])
            given = {**_common(account, body["model"], request), **arguments.passed}
            answer = await litellm.aembedding(**given)
        except Unsupported as error:
            return _refusal(Said(400, str(error), "unsupported_parameter"), error.param)
        except Exception as error:  # noqa: BLE001 - as above
            return _failed(error, account)
        return _whole(answer, arguments.dropped)

    async def _account(self, request: web.Request) -> Account | None:
        if not hmac.compare_digest(request.headers.get("authorization", "").encode(), self._authorization):
            raise web.HTTPUnauthorized
        return await self._accounts.find(request.headers.get(ACCOUNT, ""))


def _embedding(body: Mapping[str, Any], provider: str) -> Arguments:
    asked = {"model": body["model"], "custom_llm_provider": provider, "request_type": "embeddings"}
    return embedding_arguments(body, cast("Any", litellm.get_supported_openai_params)(**asked) or [])


def _common(account: Account, model: str, request: web.Request) -> dict[str, Any]:
    """What every call of an account has. `api_base` and the rest only where the configuration has them."""
    headers = {name: value for name, value in request.headers.items() if name.lower().startswith(PASSED_ON)}
    given: dict[str, Any] = {
        "model": f"{account['provider']}/{model}",
        "timeout": httpx.Timeout(NO_LIMIT, connect=CONNECT_SECONDS),
        "max_retries": 0,
        "num_retries": 0,
        "_skip_mcp_handler": True,  # tools are the client's to call, and nobody's else
        **account["options"],
    }
    for ours, theirs in (("api_key", "api_key"), ("base_url", "api_base")):
        if account[ours]:
            given[theirs] = account[ours]
    if headers := {**headers, **account["headers"]}:
        given["extra_headers"] = headers
    return given


def _whole(answer: Any, dropped: tuple[str, ...]) -> web.Response:  # noqa: ANN401 - litellm's own types
    headers = _headers(getattr(answer, "_hidden_params", None), dropped)
    return web.Response(body=answer.model_dump_json().encode(), content_type="application/json", headers=headers)


async def _stream(
    request: web.Request, account: Account, chunks: AsyncIterator[Any], dropped: tuple[str, ...]
) -> web.StreamResponse:
    """Headers go out with the first chunk: until then an error has a status of its own."""
    answer = web.StreamResponse(headers={"content-type": "text/event-stream", **_headers(chunks, dropped)})
    try:
        async for chunk in chunks:
            data = _event(chunk)
            if not answer.prepared:
                await answer.prepare(request)
            await answer.write(b"data: " + data + b"\n\n")
    except Exception as error:  # noqa: BLE001 - as in `chat`
        if not answer.prepared:
            return _failed(error, account)
        said = said_by(error, _secrets(account))
        await answer.write(b"data: " + json.dumps(_envelope(said, None)).encode() + b"\n\n")
        return answer
    finally:
        if (close := getattr(chunks, "aclose", None)) is not None:
            await close()
    if not answer.prepared:
        await answer.prepare(request)
    await answer.write(b"data: [DONE]\n\n")
    return answer


def _event(chunk: Any) -> bytes:  # noqa: ANN401 - litellm's own types
    """A chunk as OpenAI would send it: usage comes alone, with no choices."""
    value = chunk.model_dump(mode="json", exclude_none=True, exclude_unset=True)
    if value.get("usage") and not any(_shows(choice) for choice in value.get("choices", ())):
        value["choices"] = []
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _shows(choice: Mapping[str, Any]) -> bool:
    delta = choice.get("delta") or {}
    return bool(choice.get("finish_reason") or any(value for name, value in delta.items() if name != "role"))


def _headers(hidden: Any, dropped: tuple[str, ...]) -> dict[str, str]:  # noqa: ANN401 - litellm's own types
    if not isinstance(hidden, Mapping):
        hidden = getattr(hidden, "_hidden_params", None) or {}
    theirs = hidden.get("additional_headers") or {}
    wanted = ("llm_provider-request-id", "llm_provider-x-request-id", "llm_provider-x-amzn-requestid")
    name = next((str(theirs[each]) for each in wanted if theirs.get(each)), "")
    headers = {"x-request-id": name} if name.isascii() and name.isprintable() and name else {}
    return headers | ({DROPPED: header_of(dropped)} if dropped else {})


def _failed(error: BaseException, account: Account) -> web.Response:
    answer = _refusal(said_by(error, _secrets(account)))
    theirs = getattr(error, "litellm_response_headers", None) or getattr(
        getattr(error, "response", None), "headers", None
    )
    for name in ("retry-after", "retry-after-ms", "request-id", "x-request-id"):
        if theirs and (value := theirs.get(name)) and str(value).isascii() and str(value).isprintable():
            answer.headers[name] = str(value)
    return answer


def _refusal(said: Said, param: str | None = None) -> web.Response:
    answer = web.json_response(_envelope(said, param), status=said.status)
    if said.kind:
        answer.headers[FAILURE] = said.kind
    return answer


def _envelope(said: Said, param: str | None) -> dict[str, Any]:
    kind = "invalid_request_error" if said.status < 500 else "upstream_error"
    return {"error": {"message": said.message, "type": kind, "param": param, "code": said.code}}


def _secrets(account: Account) -> list[str]:
    found = (account["api_key"], *account["headers"].values(), *account["options"].values())
    return [each for each in found if isinstance(each, str) and len(each) >= _SECRET]


def _silence() -> None:
    """litellm's records and prints hold keys and content: nobody gets to read them."""
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    litellm.turn_off_message_logging = True
    litellm.drop_params = False
    litellm.num_retries = 0
    litellm.disable_streaming_logging = True
    logging.disable(logging.CRITICAL)


async def _serve(options: dict[str, Any]) -> None:
    accounts = Accounts(asyncio.get_running_loop(), options["accounts"])
    threading.Thread(target=_listen, args=(accounts,), daemon=True).start()
    app = Answering(options["api_key"], accounts).app()
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, keepalive_timeout=3600)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", options["port"])
    await site.start()
    port = runner.addresses[0][1]
    with os.fdopen(options["report"], "w") as report:
        report.write(f"http://127.0.0.1:{port}\n")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # nothing that libraries print is read by anybody
    await asyncio.Event().wait()


def _listen(accounts: Accounts) -> None:
    for line in sys.stdin.buffer:
        accounts.take(json.loads(line))
    os._exit(0)


def main() -> None:
    # The gateway stops this process after its last answer. Ctrl-C and systemd's SIGTERM reach the whole group at once.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    options = json.loads(sys.stdin.buffer.readline())
    options["report"] = os.dup(1)
    os.dup2(2, 1)
    _silence()
    asyncio.run(_serve(options))


if __name__ == "__main__":
    main()
