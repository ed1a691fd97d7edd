"""Kept answers in SQLite: what comes back, what has ended, and what goes when there are too many."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.core.caching import Kept
from gateway.errors import StoreUnavailable
from gateway.stores.cache import PRUNE_EVERY, SqliteCache

ANSWER = Kept("text/event-stream", b"data: {}\n\n\x00\xff", "m", "p", "self", 12)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[SqliteCache]:
    store = SqliteCache(f"sqlite:///{tmp_path / 'cache.db'}", most_bytes=1000)
    yield store
    store.close()


def test_what_was_kept_comes_back_until_it_ends(cache: SqliteCache) -> None:
    cache.put(b"k", ANSWER, 100.0, 60.0)
    assert cache.get(b"k", 159.9) == ANSWER
    assert cache.get(b"k", 160.0) is None
    assert cache.get(b"other", 100.0) is None


def test_another_process_sees_it(cache: SqliteCache) -> None:
    other = SqliteCache(f"sqlite:///{cache.path}")
    cache.put(b"k", ANSWER, 0.0, 60.0)
    assert other.get(b"k", 1.0) == ANSWER
    other.close()
    assert cache.path.stat().st_mode & 0o077 == 0, "nobody else may read answers"


def test_what_ends_first_goes_when_there_is_too_much(cache: SqliteCache) -> None:
    for number in range(PRUNE_EVERY + 2):  # the first and the last one look after the others
        cache.put(b"%d" % number, ANSWER._replace(body=b"x" * 100), 0.0, 1.0 + number)
    left = [number for number in range(PRUNE_EVERY + 2) if cache.get(b"%d" % number, 0.5)]
    assert left == list(range(PRUNE_EVERY - 8, PRUNE_EVERY + 2))


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"cache\.db"):
        SqliteCache(f"sqlite:///{tmp_path / 'none' / 'cache.db'}")
