"""How fast routes begin to answer, and how many of their requests were hedged: observed by each process for itself."""

from __future__ import annotations

from collections import deque

SAMPLES = 500  # of the latest answers of a route
ENOUGH = 200  # below this a percentile is a guess
REFRESH = 25  # samples between two sortings
SHARE = 0.05  # of a route's requests that may be hedged
SAVED = 5.0  # hedges that a quiet time may save up


class Pace:
    """Of one route, streams and whole answers apart. Bounded by the number of routes in the configuration."""

    def __init__(self) -> None:
        self._routes: dict[tuple[str, bool], _RoutePace] = {}

    def of(self, route: str, *, stream: bool) -> _RoutePace:
        key = (route, stream)
        pace = self._routes.get(key)
        if pace is None:
            pace = self._routes[key] = _RoutePace()
        return pace


class _RoutePace:
    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=SAMPLES)
        self._since = 0
        self._p95: float | None = None
        self._credit = 0.0

    @property
    def p95(self) -> float | None:
        """Seconds until the first content of a stream, or the whole of an answer; None below `ENOUGH` samples."""
        return self._p95

    def began(self, seconds: float) -> None:
        """An answer began so many seconds after its attempt did."""
        self._seconds.append(seconds)
        self._since += 1
        if len(self._seconds) >= ENOUGH and (self._since >= REFRESH or self._p95 is None):
            self._since = 0
            self._p95 = sorted(self._seconds)[int(len(self._seconds) * 0.95)]

    def came(self) -> None:
        """A request came: it earns its share of a hedge."""
        self._credit = min(SAVED, self._credit + SHARE)

    def take_hedge(self) -> bool:
        """Whether one more hedge keeps within `SHARE`; if so it is taken."""
        if self._credit < 1.0:
            return False
        self._credit -= 1.0
        return True
