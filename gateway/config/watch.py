"""Notices that the content of routes.yaml changed: saved in place, replaced, or swapped under it by a ConfigMap's link.

Polls, because no notification covers all three on every file system: one `stat` a round, and the file is read only when
that differs.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import NamedTuple


class _Seen(NamedTuple):
    stamp: tuple[int, ...]  # device, inode, size, times: differs whenever the content may
    digest: bytes  # empty: the file is not there


async def changes(path: Path, interval: float = 1.0) -> AsyncGenerator[bytes]:
    """The SHA-256 of each new content, from the moment the iteration starts; `interval` in seconds.

    A file that is gone for a while (between two links, say) is waited for; it counts as changed only if it comes back
    with another content.
    """
    seen = _look(path, _Seen((), b""))
    while True:
        await asyncio.sleep(interval)
        now = _look(path, seen)
        if now.digest and now.digest != seen.digest:
            yield now.digest
        if now.digest:
            seen = now


def _look(path: Path, before: _Seen) -> _Seen:
    """Small and local, hence on the event loop's thread: a stat is a microsecond, a read happens once a change."""
    try:
        stat = path.stat()  # follows links, `..data` of a ConfigMap included
        stamp = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        if stamp == before.stamp:
            return before
        return _Seen(stamp, hashlib.sha256(path.read_bytes()).digest())
    except OSError:
        return _Seen((), b"")
