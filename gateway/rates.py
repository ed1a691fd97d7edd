"""Limits on traffic, held for all processes of a machine: the meters of `core.limits` in memory that they share.

No I/O and no message: an entry costs a lock of the shared file and a few additions. A table has a fixed number of
meters; one that has counted nothing for a minute is given to whoever needs one. Where a limit has more scopes in use
than there is room for (users are the client's own word), the rest share the meter of the scope `other`.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import mmap
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gateway.core import limits
from gateway.core.limits import Limit, Meter, Quota, Quotas, Row, Rows, Standings
from gateway.errors import RequestError

METERS = 16_384  # about 16 MB, of which only what is in use takes memory
OTHER = "other"
_KEY = 16  # bytes: which quota a meter belongs to
_TRIES = 32  # places in which a quota's meter may stand
_NUMBER = 8  # bytes
_KNOWN = METERS  # quotas whose key is remembered, and sets of quotas whose meters are
_NOBODY = bytes(_KEY)
_REMAINING = (b"x-ratelimit-remaining-requests", b"x-ratelimit-remaining-tokens")
_RESETS = [[(b"x-ratelimit-reset-" + kind, told) for told in limits.CLOCK] for kind in (b"requests", b"tokens")]


def memory(processes: int) -> int:
    """The descriptor of a table for so many processes; it is closed by its owner."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("gateway-limits", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, _size(processes))
    return descriptor


def _size(processes: int) -> int:
    """Bytes: one number, the keys, the meters."""
    return _NUMBER + METERS * (_KEY + _NUMBER * limits.size_of(processes))


class Passed(NamedTuple):
    """A request that was let in, and what was counted for it."""

    rows: Rows
    tokens: int
    came: float
    headers: list[tuple[bytes, bytes]]  # `x-ratelimit-*`, as it stands now


class Rates:
    """One process's view of the table. Belongs to one thread; `clock` is monotonic and the same for all."""

    def __init__(
        self,
        descriptor: int | None = None,
        *,
        process: int = 0,
        processes: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`descriptor`: of `memory(processes)`, where other processes count too; `process`: which one this is."""
        self._lock = threading.Lock() if descriptor is None else _Lock(descriptor)
        self._process = process
        self._clock = clock
        size = limits.size_of(processes)
        whole = memoryview(mmap.mmap(-1 if descriptor is None else descriptor, _size(processes)))
        self._moved = whole[:_NUMBER].cast("q")  # how often a meter was given to another quota
        self._keys = whole[_NUMBER : _NUMBER + METERS * _KEY]
        numbers = whole[_NUMBER + METERS * _KEY :].cast("q")
        self._meter: Callable[[int], Meter] = lambda at: numbers[at * size : (at + 1) * size]
        if descriptor is None:  # lists are faster
            own: dict[int, Meter] = {}
            self._meter = lambda at: own.setdefault(at, [0] * size)
        self._known: dict[tuple[str, str, str], tuple[bytes, int]] = {}
        self._found: dict[int, tuple[Quotas, list[Row]]] = {}  # by identity, as long as no meter moves
        self._seen = self._moved[0]
        self._forget_the_dead()

    def enter(self, quotas: Quotas, tokens: int) -> Passed:
        """Lets a request in, in all quotas or in none. `tokens`: its estimated input.

        Raises RequestError 429 `rate_limit_exceeded`.
        """
        with self._lock:
            now = self._clock()
            rows = self._rows(quotas, now)
            standings = limits.admit(rows, self._process, tokens, now)
            if standings is None:
                raise _too_much(limits.refusals(quotas, rows, tokens, now), limits.standings(rows, now))
        return Passed(rows, tokens, now, _headers(standings))

    def leave(self, passed: Passed, billed: int) -> None:
        """`billed`: tokens of input and output of all its attempts."""
        with self._lock:
            times = passed.came, self._clock()
            limits.leave(passed.rows, self._process, (passed.tokens, billed), times)

    def usage(self, quota: Quota) -> limits.Usage:
        with self._lock:
            now = self._clock()
            return limits.usage(self._meter(self._at(quota, now)[0]), now)

    def _rows(self, quotas: Quotas, now: float) -> list[Row]:
        """Remembered where each has its own: requests of a key bring the very same quotas."""
        if self._moved[0] != self._seen:
            self._found.clear()
            self._seen = self._moved[0]
        known = self._found.get(id(quotas))
        if known is not None and known[0] is quotas:
            return known[1]
        rows: list[Row] = []
        taken: list[int] = []
        remembers = True
        for quota in quotas:
            at, own = self._at(quota, now, taken)
            taken.append(at)
            remembers = remembers and own
            rows.append(limits.row_of(quota, self._meter(at)))
        if len(self._found) >= _KNOWN:
            self._found.clear()
        if remembers and self._moved[0] == self._seen:
            self._found[id(quotas)] = quotas, rows
        return rows

    def _at(self, quota: Quota, now: float, taken: Sequence[int] = ()) -> tuple[int, bool]:
        """The place of a quota's meter, and whether it is its own; that of its limit's `other` scope where the table
        has no room. `taken`: by other quotas of the request, which has not been counted there yet.
        """
        at = self._place(quota.limit, quota.scope, now, taken)
        if at is not None:
            return at, True
        at = self._place(quota.limit, OTHER, now, taken)
        if at is None:  # not even that: the first place is shared with a stranger, which is too strict for both
            at = self._key(quota.limit, OTHER)[1]
        return at, False

    def _place(self, limit: Limit, scope: str, now: float, taken: Sequence[int]) -> int | None:
        key, first = self._key(limit, scope)
        free: int | None = None
        for step in range(_TRIES):
            at = (first + step) % METERS
            found = bytes(self._keys[at * _KEY : (at + 1) * _KEY])
            if found == key:
                return at
            if found == _NOBODY:
                free = at if free is None else free
                break
            if free is None and at not in taken and limits.idle(self._meter(at), now):
                free = at
        if free is not None:
            self._moved[0] += self._keys[free * _KEY : (free + 1) * _KEY] != _NOBODY
            self._keys[free * _KEY : (free + 1) * _KEY] = key
        return free

    def _key(self, limit: Limit, scope: str) -> tuple[bytes, int]:
        """By what a quota's meter is known, and the first place in which it may stand."""
        name = (limit.name, limit.per, scope)
        known = self._known.get(name)
        if known is None:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            key = hashlib.blake2b("\0".join(name).encode(errors="surrogatepass"), digest_size=_KEY).digest()
            known = self._known[name] = key, int.from_bytes(key[:8], "little") % METERS
        return known

    def _forget_the_dead(self) -> None:
        """The process that had this one's number before is gone, and its requests with it."""
        with self._lock:
            for at in range(METERS):
                if self._keys[at * _KEY : (at + 1) * _KEY] != _NOBODY:
                    limits.gone(self._meter(at), self._process)


class _Lock:
    """While it is held nobody else changes a meter. A process that dies gives it back. It is taken twice for each
    request, which is why it is no `contextmanager`.
    """

    __slots__ = ("_shared",)

    def __init__(self, shared: int) -> None:
        self._shared = shared

    def __enter__(self) -> None:
        fcntl.lockf(self._shared, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.lockf(self._shared, fcntl.LOCK_UN)


def _headers(standings: Standings) -> list[tuple[bytes, bytes]]:
    """`x-ratelimit-*` (contract section 1)."""
    requests, tokens = standings
    headers: list[tuple[bytes, bytes]] = []
    if requests is not None:
        limit, left, reset = requests
        headers += _limit(b"requests", limit), (_REMAINING[0], b"%d" % left), _RESETS[0][reset]
    if tokens is not None:
        limit, left, reset = tokens
        headers += _limit(b"tokens", limit), (_REMAINING[1], b"%d" % left), _RESETS[1][reset]
    return headers


@functools.lru_cache(1024)
def _limit(kind: bytes, limit: int) -> tuple[bytes, bytes]:
    return b"x-ratelimit-limit-" + kind, b"%d" % limit


def _too_much(refused: Sequence[limits.Refusal], standings: Standings) -> RequestError:
    told = {name.decode(): value.decode() for name, value in _headers(standings)}
    never = [each for each in refused if not each.seconds]
    worst = never[0] if never else max(refused, key=lambda each: each.seconds)
    message = f"The limit {worst.quota.told} is reached: {worst.why}."
    if never:
        told["x-should-retry"] = "false"
    else:
        told["retry-after"] = str(worst.seconds)
        message += f" Try again in {worst.seconds} s."
    return RequestError(message, status=429, type="rate_limit_error", code="rate_limit_exceeded", headers=told)
