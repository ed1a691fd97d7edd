"""Every error of the gateway, in one tree.

::

    GatewayError(status, type, code, param)
      ConfigError(problems)   only at start, `check` and reload; never answers a request
      RequestError            the client's side: 400 malformed, 401, 403, 404 unknown model, 413, 429, 431
        QuotaExceeded         429 insufficient_quota: a budget is spent; SDKs do not retry
      UpstreamFailure(kind)   a value for the attempt loop; never leaves the engine
      RouteExhausted          502 / 503 / 504: no target answered; the message lists each attempt
      Overloaded              503 with retry-after
      StoreUnavailable        503 with retry-after

A class exists only if someone catches it or it has a status of its own. `server/errors.py` renders them in the
client's dialect (contract section 1, "Errors"). A client that hangs up is an outcome, not an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class GatewayError(Exception):
    """An error with a place in the client's envelope: ``{"error": {message, type, param, code}}``."""

    status: int = 500
    type: str = "server_error"
    code: str | None = None

    def __init__(self, message: str, *, param: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.headers: dict[str, str] = dict(headers or {})
        self.route = ""  # the route that had been chosen, for the record


WHOLE_FILE = "(file)"  # the path of a problem that is not about one setting


class Problem(NamedTuple):
    """One thing wrong in a configuration file."""

    line: int  # 1-based; 0 where the file as a whole is meant
    path: str  # dotted, e.g. "routes[0].use[1].model"; or WHOLE_FILE
    message: str  # what is wrong, and a did-you-mean where there is one


class ConfigError(GatewayError):
    """A configuration that cannot be used: every problem at once.

    Raised only at start, by `gateway check`, and at reload (where the old configuration stays).
    """

    def __init__(self, file: str, problems: list[Problem]) -> None:
        self.file = file
        self.problems = sorted(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = [f"{file}: {count}"]
        lines += [f"  {_place(file, p)}: {p.message}" for p in self.problems]
        super().__init__("\n".join(lines))


def _place(file: str, problem: Problem) -> str:
    """As compilers write it, so that editors find it."""
    place = f"{file}:{problem.line}" if problem.line else file
    return place if problem.path == WHOLE_FILE else f"{place}: {problem.path}"


class RequestError(GatewayError):
    """The request cannot be served as it stands, and the client can see why."""

    status = 400
    type = "invalid_request_error"

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        type: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, param=param, headers=headers)
        self.status = status
        self.type = type
        self.code = code


class QuotaExceeded(RequestError):
    """A budget has no room for this call before its window ends, so SDKs must not retry it."""

    def __init__(self, message: str, *, budget: str) -> None:
        """`budget`: its name, for the record."""
        super().__init__(
            message,
            status=429,
            type="insufficient_quota",
            code="insufficient_quota",
            headers={"x-should-retry": "false"},
        )
        self.budget = budget


class UpstreamFailure(GatewayError):
    """An upstream did not do its part. A provider raises it, the engine turns it into the attempt's history.

    `kind` is one of the names in `gateway.core.failures.Kind` (the fallback kinds of contract section 2).
    """

    status = 502
    type = "upstream_error"

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


class RouteExhausted(GatewayError):
    """No target of the route gave an answer. SDKs must not retry what the gateway already retried."""

    type = "upstream_error"

    def __init__(self, message: str, *, status: int, code: str) -> None:
        super().__init__(message, headers={"x-should-retry": "false"})
        self.status = status
        self.code = code


class Overloaded(GatewayError):
    """Too much in flight; come back after `retry_after` seconds."""

    status = 503
    type = "overloaded_error"
    code = "overloaded"

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message, headers={"retry-after": str(retry_after)})


class StoreUnavailable(GatewayError):
    """The ledger (or a counter) cannot be written, and rows are not allowed to be lost."""

    status = 503
    code = "store_unavailable"

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message, headers={"retry-after": str(retry_after)})
