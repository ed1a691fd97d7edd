"""The kinds of upstream failure (contract section 2, "Fallback kinds") and how each is recognised."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """What went wrong with an attempt. The names are those of `fallback_on` in routes.yaml."""

    CONNECT = "connect"
    TIMEOUT = "timeout"
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    ACCOUNT = "account"
    CONTEXT_LENGTH = "context_length"
    EMPTY = "empty"
    MALFORMED = "malformed"
    STREAM_CUT = "stream_cut"
    CONTENT_FILTER = "content_filter"


DEFAULT_FALLBACK_ON = frozenset(Kind) - {Kind.CONTENT_FILTER}
