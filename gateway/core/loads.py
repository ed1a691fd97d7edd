"""What a self-hosted server says of itself: how many requests it has, from whomever, and the tokens it has served."""

from __future__ import annotations

from typing import NamedTuple


class Reading(NamedTuple):
    """A server's own figures at one moment."""

    running: int  # requests
    waiting: int  # requests in its queue
    input_tokens: int | None = None  # since it started; None: it does not say
    output_tokens: int | None = None


class Load(NamedTuple):
    """Requests at one replica's server. Both None: it no longer tells."""

    model: str
    replica: str
    several: bool  # whether the model has more replicas than this one
    running: int | None
    waiting: int | None


def elsewhere(load: Load, ours: int) -> int:
    """Requests at the server that are not ours. `ours`: what we had in flight there when it said so.

    Never negative: a request of ours may not have arrived there yet.
    """
    return max(0, (load.running or 0) + (load.waiting or 0) - ours)


def grown(before: int, now: int) -> int:
    """By how much a counter grew. One that is lower than before began anew, with its server."""
    return now - before if now >= before else now
