"""What to do next with a call: `next_step(plan, history, now)` -> Try | Wait | Fail, as a value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gateway.core.failures import Kind
from gateway.core.routing import Plan


class Past(NamedTuple):
    """One finished attempt that did not answer the client."""

    target: int  # index into plan.targets
    kind: Kind
    detail: str  # for people: "503 from the upstream: model is loading"
    ended: float  # seconds on the caller's monotonic clock
    status: int | None = None  # the upstream's, where it gave one
    retry_after: float | None = None  # seconds, from `ended`, as the upstream asked
    committed: bool = False  # content had reached the client


class Try(NamedTuple):
    target: int
    reason: str  # "first", "retry", or the kind of failure that led to this fallback


class Wait(NamedTuple):
    """Sleep, then ask again."""

    seconds: float


class Fail(NamedTuple):
    """No attempt is left: the answer is an error."""

    status: int  # 502, 503 or 504
    code: str
    message: str  # lists each attempt and why it failed


Step = Try | Wait | Fail


def next_step(plan: Plan, history: Sequence[Past], *, started: float, now: float, no_fallback: bool, roll: float) -> Step:
    """The whole retry and fallback policy.

    `started`, `now`: the caller's monotonic clock, seconds. `roll`: uniform in [0, 1), the dice for full jitter.
    """
    raise NotImplementedError
