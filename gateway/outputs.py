"""How long the answers of routes are: observed by each process for itself."""

from __future__ import annotations

from collections import deque

SAMPLES = 500  # of the latest answers of a route
ENOUGH = 100  # below this a percentile is a guess
REFRESH = 25  # samples between two sortings


class Outputs:
    """Bounded by the number of routes in the configuration."""

    def __init__(self) -> None:
        self._routes: dict[str, _RouteOutputs] = {}

    def p99(self, route: str) -> int | None:
        """Output tokens of the longest but one in a hundred; None while too few were seen."""
        known = self._routes.get(route)
        return known.p99 if known is not None else None

    def ended(self, route: str, tokens: int) -> None:
        """An answer of the route ended by itself."""
        known = self._routes.get(route)
        if known is None:
            known = self._routes[route] = _RouteOutputs()
        known.add(tokens)


class _RouteOutputs:
    def __init__(self) -> None:
        self._tokens: deque[int] = deque(maxlen=SAMPLES)
        self._since = 0
        self.p99: int | None = None

    def add(self, tokens: int) -> None:
        self._tokens.append(tokens)
        self._since += 1
        if len(self._tokens) >= ENOUGH and (self._since >= REFRESH or self.p99 is None):
            self._since = 0
            self.p99 = sorted(self._tokens)[int(len(self._tokens) * 0.99)]
