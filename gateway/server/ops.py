"""The operations listener: `/metrics`, `/healthz`, `/readyz`, and the admin API where there is a token for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

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

    shown = {"/metrics": show_metrics, "/healthz": healthz, "/readyz": readyz}
    return Starlette(routes=[*(Route(path, show) for path, show in shown.items()), *admin])
