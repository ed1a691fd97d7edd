"""What is not served under /v1: what a provider's `passthrough:` lets through, and what is left for later and why."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from gateway.core.globs import fits

ROUTE = "passthrough"  # the route's label
MODEL = "none"  # the model's: nobody here knows what is asked of whom
GRANT = "passthrough:"  # begins what a key's `allow` must hold, before the provider's name
REST = "**"  # as a last segment: whatever follows

# Unreserved characters and sub-delimiters (RFC 3986, 3.3): where nothing is encoded, nothing is read in two ways.
_SEGMENT = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@-]+")

_BATCHES = "they are charged a day later, so no budget could hold what they may cost"
POSTPONED: Mapping[str, str] = {
    "batches": _BATCHES,
    "messages/batches": _BATCHES,
    "files": "they are for batches, fine-tuning and assistants, which are not served",
    "uploads": "they are for batches, fine-tuning and assistants, which are not served",
    "fine_tuning": "it is charged by what it reads over hours, so no budget could hold what it may cost",
    "realtime": "its sessions are charged as they go on, so no budget could hold what they may cost",
    "assistants": "their runs are charged as they go on, so no budget could hold what they may cost",
    "threads": "their runs are charged as they go on, so no budget could hold what they may cost",
    "vector_stores": "they are charged by the day, so no budget could hold what they may cost",
    "videos": "they are charged after the answer, so no budget could hold what they may cost",
}
"""First segment of a path, or its first two -> why there is nothing."""


def is_plain(path: str) -> bool:
    """Whether every server reads a path alike: no encoded signs, no empty segments, no way up."""
    segments = path.removeprefix("/").split("/")
    return all(_SEGMENT.fullmatch(segment) and segment not in (".", "..") for segment in segments)


def lets_through(path: str, globs: Sequence[str]) -> bool:
    """`path` and globs as below /v1: `/files/*` is `/files/abc`, not `/files/abc/content`; `/files/**` is both."""
    return any(_fits(path.split("/"), glob.split("/")) for glob in globs)


def may_pass(allow: Sequence[str], provider: str) -> bool:
    """Whether a key's `allow` grants it by name: `*` is about models, and lets nothing through."""
    return any(glob.startswith(GRANT) and fits(GRANT + provider, glob) for glob in allow)


def why_not(path: str) -> str:
    """Of a path below /v1 that is not served: that it is postponed, and why. Empty: nothing is known of it."""
    segments = path.removeprefix("/").split("/")
    why = POSTPONED.get(segments[0]) or POSTPONED.get("/".join(segments[:2]))
    if why is None:
        return ""
    return f"{path[:200]!r} is postponed: {why}. A provider's `passthrough:` can let it through, outside of budgets."


def _fits(segments: Sequence[str], wanted: Sequence[str]) -> bool:
    if wanted[-1] == REST:
        head = len(wanted) - 1
        return len(segments) > head and _fits(segments[:head], wanted[:head])
    return len(segments) == len(wanted) and all(map(fits, segments, wanted))
