"""The stores' files: whether they open, are sound, have the schema of this release, and have room.

They are opened to be read only. SQLite itself makes -wal and -shm beside one that it reads, with its mode and owner.

A store that is not there yet is made at the first start, so what counts then is its directory.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

from gateway.cli.doctor.findings import Finding, failure, ok, skipped, warning
from gateway.config.types import Config
from gateway.stores import cache, keys
from gateway.stores.keys import StoredKey
from gateway.stores.schema import MIGRATIONS, connect_read_only

STORE, DISK = "store", "disk"
RESTORE = "stop the gateway and put the newest backup in its place (docs/operations.md)"
LEAST_FREE = 64 * 1024**2  # bytes: a busy hour's rows
LITTLE_FREE = 512 * 1024**2
_STEPS = 10_000  # of SQLite's virtual machine between two looks at the clock: some 100 us
_LINES = 3  # of an integrity check that are shown


def stores_of(config: Config) -> dict[str, str]:
    """What each store is for ("ledger, counters"), by its DSN."""
    wanted = [("ledger", config.ledger), ("counters", config.counters)]
    if any(route.cache is not None for route in (*config.rules.routes, config.rules.direct)):
        wanted.append(("cache", config.cache))
    found: dict[str, str] = {}
    for purpose, dsn in wanted:
        found[dsn] = f"{found[dsn]}, {purpose}" if dsn in found else purpose
    return found


def look(purpose: str, dsn: str, seconds: float) -> list[Finding]:
    """Blocks, for about `seconds` at most; a hung file system excepted."""
    scheme = dsn.partition(":")[0]
    if scheme not in LOOKS:
        return [skipped(STORE, purpose, f"this doctor knows nothing of {scheme} stores")]
    return list(LOOKS[scheme](purpose, dsn, seconds))


def _sqlite(purpose: str, dsn: str, seconds: float) -> Iterator[Finding]:
    path = Path(dsn.removeprefix("sqlite:///"))
    if (unwritable := _directory(purpose, path)) is not None:
        yield unwritable
        return
    yield free(path.parent, shutil.disk_usage(path.parent).free)
    if not path.exists():
        yield ok(STORE, purpose, f"{path.name} is not there yet: `gateway serve` makes it")
    elif path.is_dir():
        fix = f"name a file in it, `sqlite:///{path}/gateway.db` say, or elsewhere"
        yield failure(STORE, purpose, f"{path} is a directory", fix)
    elif not os.access(path, os.R_OK | os.W_OK):
        yield failure(STORE, purpose, f"{path} cannot be written by {_user()}",
                      f"serve as the user that owns it, or: chown {os.geteuid()} {path}*")  # fmt: skip
    else:
        yield from _file(purpose, path, seconds)


LOOKS: Mapping[str, Callable[[str, str, float], Iterator[Finding]]] = {"sqlite": _sqlite}


def _directory(purpose: str, path: Path) -> Finding | None:
    """SQLite makes files beside its own (-wal, -shm), so the directory must be writable, and not full."""
    try:
        with tempfile.TemporaryFile(dir=path.parent, buffering=0) as probe:
            probe.write(b"\0" * 4096)
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
        fix = f"give {_user()} a directory to write to, with room: chown or chmod it, free the disk, or set `stores:`"
        if not path.parent.is_dir():
            fix = f"mkdir -p {path.parent}, or set `stores:` in routes.yaml to a place that is there"
        return failure(STORE, purpose, f"nothing can be written in {path.parent}: {why}", fix)
    return None


def free(directory: Path, room: int) -> Finding:
    """`room`: bytes."""
    shown = f"{room / 1024**3:.1f} GiB" if room >= 1024**3 else f"{room / 1024**2:.0f} MiB"
    found = f"{shown} free in {directory}"
    fix = f"make room on the disk of {directory}: without it requests wait, then get 503 (stores.on_full)"
    if room >= LITTLE_FREE:
        return ok(DISK, "free space", found, {"free_bytes": float(room)})
    make = failure if room < LEAST_FREE else warning
    return make(DISK, "free space", found, fix)._replace(measured={"free_bytes": float(room)})


def _file(purpose: str, path: Path, seconds: float) -> Iterator[Finding]:
    newest = len(cache.MIGRATIONS if purpose == "cache" else MIGRATIONS)
    fix = "delete it: a cache may be lost" if purpose == "cache" else RESTORE
    try:
        with closing(connect_read_only(path)) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if (wrong := schema(purpose, path, (version, newest), tables)) is not None:
                yield wrong
                if wrong.state == "failure":
                    return
            yield _sound(purpose, path, connection, seconds, fix)
    except sqlite3.OperationalError as error:
        fix = "end what holds it locked, or let the gateway's user read and write it and its directory"
        yield failure(STORE, purpose, f"{path.name} does not open: {error}", fix)
    except sqlite3.DatabaseError as error:
        yield failure(STORE, purpose, f"{path.name} is damaged: {error}", fix)


def schema(purpose: str, path: Path, versions: tuple[int, int], tables: int) -> Finding | None:
    """`versions`: the file's, and this release's. None where they are the same."""
    has, newest = versions
    if has > newest:
        return failure(STORE, purpose, f"{path.name} has schema version {has}; this release knows up to {newest}",
                       "install the release that wrote it, or a newer one; or restore the backup from before it "
                       "(docs/operations.md)")  # fmt: skip
    if has == 0 and tables:
        return failure(STORE, purpose, f"{path.name} is another program's database",
                       "set `stores:` in routes.yaml to a file of the gateway's own")  # fmt: skip
    if 0 < has < newest:
        return warning(STORE, purpose, f"{path.name} has schema version {has}; the next start brings it to {newest}, "
                       "and older releases then cannot open it",
                       "make a backup before that (docs/operations.md)")  # fmt: skip
    return None


def _sound(purpose: str, path: Path, connection: sqlite3.Connection, seconds: float, fix: str) -> Finding:
    """quick_check (sqlite.org/pragma.html): all but whether indices match their tables, in a fraction of the time."""
    until = time.monotonic() + seconds
    connection.set_progress_handler(lambda: int(time.monotonic() > until), _STEPS)
    try:
        told = [str(line) for (line,) in connection.execute(f"PRAGMA quick_check({_LINES})")]
    except sqlite3.OperationalError as error:
        if "interrupt" not in str(error):
            raise
        return skipped(STORE, purpose, f"{path.name} opens; it is too large to be checked in {seconds:g} s",
                       "say --timeout 5m to check it whole")  # fmt: skip
    finally:
        connection.set_progress_handler(None, 0)
    if told != ["ok"]:
        return failure(STORE, purpose, f"{path.name} is damaged: {'; '.join(told)}", fix)
    size = path.stat().st_size
    return ok(STORE, purpose, f"{path.name} opens and is sound, {size / 1024**2:.1f} MiB", {"bytes": float(size)})


def keys_made(dsn: str) -> list[StoredKey]:
    """All that were ever made in this store, the ended ones too; nothing is made or migrated for the question."""
    path = Path(dsn.removeprefix("sqlite:///"))
    try:
        with closing(connect_read_only(path)) as connection:
            return keys.stored(connection)
    except (sqlite3.Error, OSError):  # not there, too old to have any, or damaged, which `look` says
        return []


def _user() -> str:
    return f"user {os.geteuid()}"
