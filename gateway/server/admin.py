"""The admin API: `/admin/*` on the operations listener, for whoever has `GATEWAY_ADMIN_TOKEN`; 404 without one.

Everything it does is in `gateway/operations.py`, as at the command line; here is what a request says and what an answer
looks like. Its description is served as OpenAPI 3.1 (`admin_openapi.py`).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from gateway import operations
from gateway.config.types import Config
from gateway.core.breaker import Phase
from gateway.core.explain import explain
from gateway.core.routing import Signals
from gateway.errors import GatewayError, RequestError
from gateway.health import Health
from gateway.operations import Impossible
from gateway.server.admin_openapi import LONGEST_OVERLAP, MOST, document
from gateway.server.errors import envelope
from gateway.stores import audit
from gateway.stores.audit import Change
from gateway.stores.reader import latest

TOKEN = "GATEWAY_ADMIN_TOKEN"  # noqa: S105 - the variable's name
SHORTEST = 16  # characters of a token
BODY_LIMIT = 1024 * 1024  # bytes

log = logging.getLogger("gateway")

T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]


class Reach(NamedTuple):
    """What the API can see and do in the process that serves it."""

    config: Callable[[], Config]
    reload: Callable[[], str]  # "ok", "rejected" or "unchanged"
    health: Health
    changed: Callable[[], None]  # a breaker was set by hand: tell the workers


def admin_routes(token: str, reach: Reach) -> list[Mount]:
    """Raises ValueError for a token that could be guessed. No token, no routes."""
    if not token:
        return []
    if len(token) < SHORTEST:
        raise ValueError(f"{TOKEN} is too short: use {SHORTEST} characters or more")
    admin = _Admin(reach)
    paths: Mapping[str, Mapping[str, Handler]] = {
        "/openapi.json": {"GET": admin.openapi},
        "/keys": {"GET": admin.list_keys, "POST": admin.create_key},
        "/keys/{name}/rotate": {"POST": admin.rotate_key},
        "/keys/{name}/revoke": {"POST": admin.revoke_key},
        "/budgets": {"GET": admin.list_budgets},
        "/budgets/{name}/adjust": {"POST": admin.change_budget},
        "/budgets/{name}/reset": {"POST": admin.change_budget},
        "/breakers": {"GET": admin.list_breakers, "POST": admin.set_breaker},
        "/config": {"GET": admin.show_config},
        "/config/reload": {"POST": admin.reload},
        "/requests": {"GET": admin.list_requests},
        "/audit": {"GET": admin.list_audit},
        "/explain": {"POST": admin.explain},
    }
    guard = _Guard(token)
    routes = [Route(path, guard.around(_by_method(each)), methods=list(each)) for path, each in paths.items()]
    return [Mount("/admin", routes=routes)]


def _by_method(handlers: Mapping[str, Handler]) -> Handler:
    """One route a path, so that a 405 names all of its methods."""

    async def handle(request: Request) -> Response:
        return await handlers["GET" if request.method == "HEAD" else request.method](request)

    return handle


_UNAUTHORIZED = RequestError(
    "Send 'Authorization: Bearer <the admin token>'.",
    status=401,
    type="authentication_error",
    code="invalid_api_key",
    headers={"www-authenticate": "Bearer"},
)


class _Guard:
    """Lets in whoever shows the token, compared by digest and in constant time; answers errors as JSON."""

    def __init__(self, token: str) -> None:
        self._sha256 = hashlib.sha256(token.encode()).digest()

    def around(self, handler: Handler) -> Handler:
        async def guarded(request: Request) -> Response:
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            digest = hashlib.sha256(given.strip().encode()).digest()
            if scheme.lower() != "bearer" or not hmac.compare_digest(digest, self._sha256):
                return _error(_UNAUTHORIZED)
            try:
                return await handler(request)
            except GatewayError as error:
                return _error(error)
            except Exception:  # the boundary: the log says what the answer does not
                log.exception("a defect: %s %s failed", request.method, request.url.path)
                return _error(GatewayError("The gateway failed; its log says why."))

        return guarded


class _Admin:
    def __init__(self, reach: Reach) -> None:
        self._reach = reach

    @property
    def _config(self) -> Config:
        return self._reach.config()

    async def openapi(self, _: Request) -> Response:
        return JSONResponse(document())

    # Keys.

    async def list_keys(self, request: Request) -> Response:
        asked = request.query_params.get("all", "false")
        if asked not in ("true", "false"):
            raise Impossible("all must be true or false", status=400)
        every = asked == "true"
        return _shown({"keys": await _thread(lambda: operations.list_keys(self._config, all=every))})

    async def create_key(self, request: Request) -> Response:
        asked = await _body(request)
        change = _change(request, "keys.create", _text(asked, "name"), asked)
        written = {name: value for name, value in asked.items() if name != "reason"}
        value = await _thread(lambda: operations.create_key(self._config, written, change))
        return _shown({"name": change.subject, "value": value}, status=201)

    async def rotate_key(self, request: Request) -> Response:
        asked = await _body(request)
        overlap = asked.get("overlap_seconds", 0)
        if isinstance(overlap, bool) or not isinstance(overlap, int | Decimal) or not 0 <= overlap <= LONGEST_OVERLAP:
            raise Impossible(f"overlap_seconds must be a number of seconds from 0 to {LONGEST_OVERLAP}", status=400)
        change = _change(request, "keys.rotate", request.path_params["name"], asked)
        value = await _thread(lambda: operations.rotate_key(self._config, float(overlap), change))
        return _shown({"name": change.subject, "value": value})

    async def revoke_key(self, request: Request) -> Response:
        change = _change(request, "keys.revoke", request.path_params["name"], await _body(request))
        revoked = await _thread(lambda: operations.revoke_key(self._config, change))
        return _shown({"name": change.subject, "revoked": revoked})

    # Budgets.

    async def list_budgets(self, _: Request) -> Response:
        return _shown({"budgets": await _thread(lambda: operations.list_budgets(self._config))})

    async def change_budget(self, request: Request) -> Response:
        asked = await _body(request)
        action = request.url.path.rpartition("/")[2]
        by = operations.amount(asked.get("by_usd")) if action == "adjust" else None
        change = _change(request, f"budgets.{action}", request.path_params["name"], asked)
        return _shown(await _thread(lambda: operations.change_budget(self._config, _text(asked, "scope"), by, change)))

    # Breakers.

    async def list_breakers(self, _: Request) -> Response:
        return _shown({"breakers": self._breakers()})

    async def set_breaker(self, request: Request) -> Response:
        """`open` keeps requests away until somebody says `closed`, or the gateway is started again."""
        asked = await _body(request)
        model, endpoint, state = (_text(asked, name) for name in ("model", "endpoint", "state"))
        known = {(row["model"], row["endpoint"]): row for row in self._breakers()}
        if not endpoint and sum(name == model for name, _ in known) == 1:
            endpoint = next(place for name, place in known if name == model)
        before = known.get((model, endpoint))
        if before is None:
            there = ", ".join(f"{name}@{place}" for name, place in known)
            raise Impossible(f"there is no such model and endpoint; there are: {there}", status=404)
        if state not in (Phase.OPEN, Phase.CLOSED):
            raise Impossible("state must be open or closed", status=400)
        who = _change(request, f"breakers.{state}", f"{model}@{endpoint}", asked)
        after = {"state": state}
        await self._record(who._replace(before={"state": before["state"]}, after=after))  # first: else nothing is done
        self._reach.health.set(model, endpoint, is_open=state == Phase.OPEN)
        self._reach.changed()
        return _shown({"model": model, "endpoint": endpoint, **after})

    def _breakers(self) -> list[dict[str, Any]]:
        health, view = self._reach.health, self._reach.health.view()
        return [
            {
                "model": model,
                "endpoint": endpoint,
                "state": health.phase(model, endpoint),
                "blocked": view[model, endpoint].blocked if (model, endpoint) in view else "",
            }
            for model, endpoint in health.known()
        ]

    # Configuration, ledger, audit trail, decisions.

    async def show_config(self, _: Request) -> Response:
        config = self._config
        rules = config.rules
        return _shown(
            {
                "hash": config.hash,
                "file": config.path.name,
                "warnings": list(config.warnings),
                "price_book": config.price_book,
                "models": {
                    model.name: {
                        "provider": model.provider,
                        "hosting": model.hosting,
                        "price_from": model.price.source if model.price else None,
                        "disabled": model.disabled or None,
                        "endpoints": [replica.name for replica in model.replicas],
                    }
                    for model in rules.models.values()
                },
                "routes": [
                    {"name": route.name, "use": [each.model for each in route.use], "fallback": list(route.fallback)}
                    for route in rules.routes
                ],
                "budgets": [budget.name for budget in rules.budgets],
                "limits": [limit.name for limit in rules.limits],
            }
        )

    async def reload(self, request: Request) -> Response:
        change = _change(request, "config.reload", self._config.path.name, await _body(request))
        before = self._config.hash
        result = self._reach.reload()
        after = {"result": result, "hash": self._config.hash}
        await self._record(change._replace(before={"hash": before}, after=after))
        return _shown(after, status=409 if result == "rejected" else 200)

    async def list_requests(self, request: Request) -> Response:
        asked = dict(request.query_params)
        most = _most(asked.pop("limit", "100"))
        config = self._config
        try:
            rows = await _thread(lambda: latest(config.ledger, most, asked))
        except KeyError as error:
            raise Impossible(f"requests cannot be picked by {error.args[0]!r}", status=400) from None
        return _shown({"requests": rows})

    async def list_audit(self, request: Request) -> Response:
        most = _most(request.query_params.get("limit", "100"))
        config = self._config

        def read() -> list[Change]:
            with operations.store(config) as connection:
                return audit.read(connection, most)

        return _shown({"changes": [change._asdict() for change in await _thread(read)]})

    async def explain(self, request: Request) -> Response:
        """The body is a request as a client would send it; `?key=NAME` says whose; headers count as the client's."""
        body = await _bytes(request)
        headers = [(name, value) for name, value in request.headers.raw if name.startswith(b"x-gateway-")]
        view = self._reach.health.view()
        signals = Signals(roll=random.random(), standing=view, now=time.time())  # noqa: S311 - for weights, not for secrets
        key = request.query_params.get("key", "")
        found = await _thread(lambda: operations.decide(self._config, key, headers, body, signals))
        return _shown(explain(found.call, found.plan, found.principal, view, found.balance))

    async def _record(self, change: Change) -> None:
        config = self._config

        def write() -> None:
            with operations.store(config) as connection:
                audit.write(connection, change)

        await _thread(write)


def _change(request: Request, what: str, subject: str, asked: Mapping[str, Any]) -> Change:
    """`asked`: the body, with its reason. Raises Impossible, and so comes before whatever is changed."""
    reason = operations.reason_of(_text(asked, "reason"))
    client = request.client.host if request.client is not None else "unknown"
    return Change(time.time(), f"admin:{client}", what, subject, reason=reason)


async def _thread(work: Callable[[], T]) -> T:
    """Off the loop: the store may have to wait for other writers."""
    return await asyncio.to_thread(work)


async def _bytes(request: Request) -> bytes:
    """The body. Raises Impossible as soon as it is too long."""
    size = 0
    parts = []
    async for part in request.stream():
        size += len(part)
        if size > BODY_LIMIT:
            raise Impossible(f"the body has more than {BODY_LIMIT} bytes", status=413)
        parts.append(part)
    return b"".join(parts)


async def _body(request: Request) -> dict[str, Any]:
    """A JSON object, or nothing. Raises Impossible."""
    body = await _bytes(request)
    if not body:
        return {}
    try:
        found = json.loads(body, parse_float=Decimal)
    except (ValueError, RecursionError, ArithmeticError):  # the last: an exponent that no Decimal has
        raise Impossible("the body is no JSON", status=400) from None
    if not isinstance(found, dict):
        raise Impossible("the body must be a JSON object", status=400)
    return found


def _text(asked: Mapping[str, Any], name: str) -> str:
    value = asked.get(name, "")
    if not isinstance(value, str):
        raise Impossible(f"{name} must be a text", status=400)
    return value


def _most(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST:
        raise Impossible(f"limit must be a number from 1 to {MOST}", status=400)
    return int(text)


def _shown(value: object, status: int = 200) -> Response:
    body = json.dumps(value, default=float).encode()
    return Response(body, status_code=status, media_type="application/json", headers={"cache-control": "no-store"})


def _error(error: GatewayError) -> Response:
    return Response(envelope(error), error.status, error.headers, "application/json")
