"""The operations listener: `/metrics`, `/healthz`, `/readyz`, the public API's description, and the admin API where
there is a token for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.errors import RequestError
from gateway.server.errors import envelope
from gateway.server.openapi import document
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.processes import Pids, Processes


def ops_app(metrics: Metrics, not_ready: Callable[[], str], pids: Pids, admin: Sequence[BaseRoute] = ()) -> Starlette:
    """`not_ready` says why the gateway is not ready; empty when it is. Upstreams do not count (contract section 1)."""
    processes = Processes(pids)

    async def show_metrics(request: Request) -> Response:
        body, content_type = metrics.render(request.headers.get("accept", ""), [processes])
        return Response(body, media_type=None, headers={"content-type": content_type})

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        reason = not_ready()
        if reason:
            return JSONResponse({"status": "not ready", "reason": reason}, status_code=503)
        return JSONResponse({"status": "ready"})

    async def openapi(_: Request) -> Response:
        return JSONResponse(document())

    shown = {"/metrics": show_metrics, "/healthz": healthz, "/readyz": readyz, "/openapi.json": openapi}
    routes = [*(Route(path, show) for path, show in shown.items()), *admin]
    return Starlette(routes=routes, exception_handlers={HTTPException: _refuse})


async def _refuse(request: Request, error: Exception) -> Response:
    """Starlette's own 404 and 405, in the envelope of every other error."""
    assert isinstance(error, HTTPException)
    said = f"There is no {request.url.path[:200]!r} here."
    if error.status_code == 405:
        said = f"{request.url.path[:200]!r} has another method: {(error.headers or {}).get('Allow', '')}."
    refusal = RequestError(said, status=error.status_code)
    return Response(envelope(refusal), error.status_code, error.headers, "application/json")
