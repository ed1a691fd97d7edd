"""Changes of content, and nothing else, are noticed."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.config.watch import changes

INTERVAL = 0.01


def in_place(path: Path) -> None:
    path.write_text("changed")


def replaced(path: Path) -> None:
    other = path.with_suffix(".new")
    other.write_text("changed")
    other.rename(path)


def same_size_and_time(path: Path) -> None:
    before = path.stat()
    path.write_text("CHANGED!"[: before.st_size])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def gone_and_back(path: Path) -> None:
    path.unlink()
    path.write_text("changed")


def config_map(path: Path) -> None:
    """As the kubelet does it: `..data` is a link to a folder, and is swapped for another."""
    data = path.parent / "..data"
    new = path.parent / "..2"
    new.mkdir()
    (new / "routes.yaml").write_text("changed")
    (path.parent / "..tmp").symlink_to(new)
    (path.parent / "..tmp").rename(data)


def mounted(folder: Path) -> Path:
    old = folder / "..1"
    old.mkdir()
    (old / "routes.yaml").write_text("as it was")
    (folder / "..data").symlink_to(old)
    (folder / "routes.yaml").symlink_to("..data/routes.yaml")
    return folder / "routes.yaml"


async def next_change(path: Path, act: Callable[[Path], None], within: float) -> bytes | None:
    """The first change seen after `act`, None where none comes in time."""
    stream = changes(path, interval=INTERVAL)
    waiting: Awaitable[bytes] = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)  # the first look
    act(path)
    try:
        return await asyncio.wait_for(waiting, within)
    except TimeoutError:
        return None
    finally:
        await stream.aclose()


@pytest.mark.parametrize("act", [in_place, replaced, same_size_and_time, gone_and_back])
def test_a_changed_content_is_noticed(act: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text("as it was"[:7])
    seen = asyncio.run(next_change(path, act, within=60))
    assert seen == hashlib.sha256(path.read_bytes()).digest()


def test_a_config_map_is_noticed(tmp_path: Path) -> None:
    seen = asyncio.run(next_change(mounted(tmp_path), config_map, within=60))
    assert seen == hashlib.sha256(b"changed").digest()


def touched(path: Path) -> None:
    os.utime(path)


def rewritten(path: Path) -> None:
    path.write_text(path.read_text())


def removed(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("act", [touched, rewritten, removed])
def test_nothing_else_is(act: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text("as it was")
    assert asyncio.run(next_change(path, act, within=10 * INTERVAL)) is None
