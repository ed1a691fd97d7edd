"""What is under way at self-hosted servers beside this process's own requests, for `least_busy` and hedges.

One process of a machine reads the servers (`server/meters.py`) and tells every process that serves calls. A server
counts all its clients; what this process had in flight there at that moment is taken away, and what it has in flight
now is known better here. So a plan adds `elsewhere` to `in_flight`, both by the same names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gateway.core.loads import Load, elsewhere
from gateway.core.replicas import load_key


class Loads:
    """One for each process that serves calls; belongs to one event loop."""

    def __init__(self, in_flight: Mapping[str, int]) -> None:
        """`in_flight`: the process's own, as in Signals."""
        self._in_flight = in_flight
        self._by_model: dict[str, dict[str, Load]] = {}
        self.elsewhere: dict[str, int] = {}  # by model, and by "model@replica" for models with several; never 0

    def take(self, told: Iterable[Load]) -> None:
        """New readings, in place of what was said of the same replicas before."""
        for load in told:
            of_model = self._by_model.setdefault(load.model, {})
            if load.running is None:
                of_model.pop(load.replica, None)
            else:
                of_model[load.replica] = load
            key = load_key(load.model, load.replica) if load.several else load.model
            self._set(key, elsewhere(load, self._in_flight.get(key, 0)))
            if load.several:
                keys = (load_key(load.model, replica) for replica in of_model)
                self._set(load.model, sum(self.elsewhere.get(each, 0) for each in keys))
            if not of_model:
                del self._by_model[load.model]

    def queues(self, model: str, replica: str) -> bool:
        """Whether requests wait at the server, as far as it says."""
        load = self._by_model.get(model, {}).get(replica)
        return load is not None and bool(load.waiting)

    def _set(self, key: str, count: int) -> None:
        if count:
            self.elsewhere[key] = count
        else:
            self.elsewhere.pop(key, None)
