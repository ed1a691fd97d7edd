"""W3C trace context (https://www.w3.org/TR/trace-context/): what came with a request, and what goes upstream with it.

Vocabulary: a **trace** is everything that happened because of one request, in whatever process; a **span** is one part
of it with a beginning and an end. The gateway makes one span a request and one an attempt. Ids are lower-case hex.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

Header = tuple[bytes, bytes]

SAMPLED = 0x01
_KNOWN_FLAGS = 0x03  # sampled, and level 2's random-trace-id; others must not be passed on
MOST_MEMBERS = 32  # of a tracestate
LONGEST_STATE = 8192  # characters of it: 32 members of the longest kind would be twice that, and nobody has them

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_MEMBER = re.compile(
    r"([a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    r"=([\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e])"
)


class Parent(NamedTuple):
    """The context that a client sent."""

    trace_id: str  # 32 digits
    span_id: str  # 16 digits, the client's own span
    flags: int
    state: str = ""  # tracestate, as one header


class Span(NamedTuple):
    """The span of a request, as far as it is known at its beginning."""

    trace_id: str
    span_id: str
    parent_id: str = ""  # empty: the trace begins here
    flags: int = 0
    state: str = ""

    @property
    def sampled(self) -> bool:
        """Whether it is recorded and sent."""
        return bool(self.flags & SAMPLED)


class Sampling(NamedTuple):
    """Which traces are recorded: OTEL_TRACES_SAMPLER."""

    follows: bool = True  # the client's decision, where it sent one
    bound: int = 1 << 64  # of the trace id's last 64 bits; those below are taken


def read_parent(traceparents: Sequence[bytes], tracestates: Sequence[bytes]) -> Parent | None:
    """The client's context; None where there is none or it is not valid, which is the same (section 4.3).

    A tracestate that is not valid is left out; the rest counts all the same.
    """
    if len(traceparents) != 1:
        return None
    found = _PARENT.fullmatch(traceparents[0].decode("latin-1").strip(" \t"))
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more is not None):  # a later version may have more to say
        return None
    if not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return Parent(trace_id, span_id, int(flags, 16) & _KNOWN_FLAGS, _read_state(tracestates))


def _read_state(headers: Sequence[bytes]) -> str:
    if not headers or sum(map(len, headers)) > LONGEST_STATE:
        return ""
    text = b",".join(headers).decode("latin-1")
    members = [member.strip(" \t") for member in text.split(",")]
    members = [member for member in members if member]
    keys = [found[1] for found in map(_MEMBER.fullmatch, members) if found]
    valid = len(keys) == len(members) == len(set(keys)) and len(keys) <= MOST_MEMBERS
    return ",".join(members) if valid else ""


def read_sampling(environment: Mapping[str, str]) -> Sampling:
    """OTEL_TRACES_SAMPLER and its _ARG (OpenTelemetry, SDK environment variables). Raises ValueError for others."""
    name = environment.get("OTEL_TRACES_SAMPLER", "").strip().lower() or "parentbased_always_on"
    follows = name.startswith("parentbased_")
    match name.removeprefix("parentbased_"):
        case "always_on":
            return Sampling(follows)
        case "always_off":
            return Sampling(follows, 0)
        case "traceidratio":
            given = environment.get("OTEL_TRACES_SAMPLER_ARG", "").strip() or "1"
            try:
                ratio = float(given)
            except ValueError:
                ratio = -1.0
            if not 0.0 <= ratio <= 1.0:
                raise ValueError(f"OTEL_TRACES_SAMPLER_ARG: {given!r} is not a number from 0 to 1")
            return Sampling(follows, round(ratio * (1 << 64)))
    known = "always_on, always_off, traceidratio, or one of them with parentbased_ before it"
    raise ValueError(f"OTEL_TRACES_SAMPLER: {name!r} is not known; there are: {known}")


def begin(parent: Parent | None, sampling: Sampling, dice: bytes) -> Span:
    """The span of a request. `dice`: 24 random bytes, for the ids."""
    span_id = dice[16:24].hex()
    if parent is None:
        taken = int.from_bytes(dice[8:16]) < sampling.bound
        return Span(dice[:16].hex(), span_id, flags=SAMPLED if taken else 0)
    if sampling.follows:
        flags = parent.flags
    else:
        taken = int(parent.trace_id[16:], 16) < sampling.bound
        flags = parent.flags & ~SAMPLED | (SAMPLED if taken else 0)
    return Span(parent.trace_id, span_id, parent.span_id, flags, parent.state)


def outgoing(span: Span, attempt_id: str) -> tuple[Header, ...]:
    """The headers that make an attempt's span the parent of what its upstream records."""
    headers = ((b"traceparent", f"00-{span.trace_id}-{attempt_id}-{span.flags:02x}".encode()),)
    return (*headers, (b"tracestate", span.state.encode())) if span.state else headers
