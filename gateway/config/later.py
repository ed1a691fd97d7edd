"""Settings of the contract that are not available yet: an error that says so, never accepted and ignored.

Each line goes when its feature comes. In a path `*` is any name and `[]` any item of a list; a line with values is
about those values only (globs).
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple

from gateway.config.problems import Data, Path, Problems


class Later(NamedTuple):
    path: str
    instead: str = "remove it"
    values: tuple[str, ...] = ()


LATER = (
    Later("providers.*.proxy"),
    Later("models.*.endpoints[].requests_per_minute"),
    Later("models.*.endpoints[].tokens_per_minute"),
    Later("tasks.*.examples"),
    Later("routes[].order", "use listed, cheapest, weighted or least_busy", ("fastest", "best_quality", "cascade")),
    Later("routes[].quality_floor"),
    Later("routes[].canary"),
    Later("routes[].shadow"),
    Later("defaults.order", "use listed, cheapest, weighted or least_busy", ("fastest", "best_quality", "cascade")),
    Later("defaults.quality_floor"),
    Later("defaults.canary"),
    Later("defaults.shadow"),
    Later("stores.counters", "use sqlite:///gateway.db", ("postgres*", "redis*")),
    Later("stores.ledger", "use sqlite:///gateway.db", ("postgres*", "redis*")),
)


def take_out(data: Data, problems: Problems) -> None:
    """Reports what is not available yet and removes it from `data`, so that nothing else is said about it."""
    for later in LATER:
        for holder, path in list(_holders(data, later.path.replace("[]", ".[]").split("."), ())):
            key = str(path[-1])
            value = holder[key]
            if later.values and not (isinstance(value, str) and any(fnmatchcase(value, each) for each in later.values)):
                continue
            shown = f"{key}: {value}" if later.values and "://" not in value else str(key)
            if later.values and "://" in value:
                shown = f"{key}: {value.partition(':')[0]}://"  # the rest may hold a password
            problems.add(path, f"`{shown}` is not available yet in this version; {later.instead}")
            del holder[key]


def _holders(value: Data, parts: list[str], path: Path) -> Iterator[tuple[dict[str, Data], Path]]:
    """The mappings that hold the last of `parts`, each with the whole path to it."""
    first, rest = parts[0], parts[1:]
    if first == "[]":
        for index, item in enumerate(value if isinstance(value, list) else ()):
            yield from _holders(item, rest, (*path, index))
    elif isinstance(value, dict):
        for key in list(value) if first == "*" else [first] if first in value else []:
            if rest:
                yield from _holders(value[key], rest, (*path, key))
            else:
                yield value, (*path, key)
