"""The SQLite ledger: what is put is there, once, whatever happens to the disk or the process."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.record import AttemptRecord, Record
from gateway.core.usage import Usage
from gateway.errors import StoreUnavailable
from gateway.stores import LEDGERS, open_ledger
from gateway.stores.columns import ATTEMPT_COLUMNS, REQUEST_COLUMNS, TEXT_OR_NULL, Column, added
from gateway.stores.reader import PAGE, read_requests, sums
from gateway.stores.schema import MIGRATIONS, connect
from gateway.stores.sqlite import SqliteLedger
from tests.stores.records import ATTEMPT, keep, record, records

MICROS = 1_790_000_000_250_000  # when `record` starts
ROOT = Path(__file__).parents[2]


def run(made: Coroutine[object, object, None]) -> None:
    asyncio.run(made)


def lock(path: Path) -> sqlite3.Connection:
    """Another program that holds the write lock until it is closed."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other


async def failed(ledger: SqliteLedger) -> None:
    """Returns after the next try that fails: the writer's thread tells nobody but the log."""
    before = ledger.failures
    async with asyncio.timeout(60):
        while ledger.failures == before:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.005)


class Impatient(SqliteLedger):
    room_seconds = 0.2
    busy_seconds = 0.02
    close_seconds = 0.3


# What is put is there

# For traces and metrics alone.
TOLD_ELSEWHERE = frozenset({"content", "span", "span_id", "stages", "upstream_model", "response_model", "finish"})


@given(st.lists(records, max_size=5, unique_by=lambda made: made.id))
@settings(max_examples=40, deadline=None)
def test_every_field_comes_back(put: list[Record]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gateway.db"
        keep(put, path)
        expected = sorted(put, key=lambda made: (made.started, made.id))
        assert list(read_requests(path, attempts=True)) == expected
        assert list(read_requests(path)) == [made._replace(attempts=()) for made in expected]


@pytest.mark.parametrize(
    ("columns", "fields"), [(REQUEST_COLUMNS, Record._fields), (ATTEMPT_COLUMNS, AttemptRecord._fields)]
)
def test_every_field_has_a_column(columns: tuple[Column, ...], fields: tuple[str, ...]) -> None:
    expected = {field for field in fields if field not in {"attempts", "usage", *TOLD_ELSEWHERE}}
    assert {column.field for column in columns} == expected | {f"usage.{field}" for field in Usage._fields}


def test_columns_are_typed_and_absence_is_null(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"

    async def story() -> None:
        ledger = open_ledger(f"sqlite:///{path}", "reject")
        ledger.put(record("r1"))
        ledger.put(record("r2")._replace(team="", tags=(), first_token=None))
        await ledger.close()

    run(story())
    with closing(sqlite3.connect(path)) as db:
        row = "SELECT started, team, tags, first_token, input_tokens, max_output FROM requests WHERE id = ?"
        assert db.execute(row, ["r1"]).fetchone() == (MICROS, "platform", '["a","b"]', 0.126, 100, None)
        assert db.execute(row, ["r2"]).fetchone() == (MICROS, None, "[]", None, 100, None)
        assert db.execute("SELECT count(*) FROM requests, json_each(tags) WHERE value = 'a'").fetchone() == (1,)
        with pytest.raises(sqlite3.IntegrityError, match="cannot store TEXT"):
            db.execute("UPDATE requests SET cost_nano = 'much'")


@pytest.mark.parametrize(
    ("question", "index"),
    [
        ("started >= 5 AND started < 9", "requests_by_time"),
        ("team = 'a' AND started > 5", "requests_by_team"),
        ("model = 'a' AND started > 5", "requests_by_model"),
    ],
)
def test_questions_of_reports_use_an_index(tmp_path: Path, question: str, index: str) -> None:
    with closing(connect(tmp_path / "gateway.db", busy_seconds=1)) as db:
        plan = db.execute(f"EXPLAIN QUERY PLAN SELECT * FROM requests WHERE {question}").fetchall()  # noqa: S608 - the table above
    assert index in plan[0][3]


def test_reading_by_time_and_by_id(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    put = [record(f"r{i:04}")._replace(started=float(1000 + i // 3)) for i in range(2 * PAGE + 50)]

    async def story() -> None:
        ledger = SqliteLedger(path)
        for made in put:
            ledger.put(made)
        await ledger.close()

    run(story())
    assert [made.id for made in read_requests(path)] == [made.id for made in put]
    assert [made.id for made in read_requests(path, since=1100, until=1101)] == ["r0300", "r0301", "r0302"]
    wanted = [made.id for made in put[::2]]
    assert [made.id for made in read_requests(path, ids=reversed(wanted), until=1010)] == wanted[:15]
    assert sums(path).tokens == Usage(len(put) * 100, len(put) * 20, len(put) * 3, len(put) * 50, len(put) * 7)


def test_a_request_is_written_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "gateway.db"

    async def story() -> None:
        ledger = SqliteLedger(path)
        ledger.put(record("same"))
        ledger.put(record("same", ATTEMPT, ATTEMPT))  # in one batch
        ledger.put(record("other"))
        await ledger.flush()
        ledger.put(record("same", ATTEMPT, ATTEMPT))  # in a later one
        await ledger.close()
        assert (ledger.duplicates, ledger.failures, ledger.dropped) == (2, 0, 0)

    run(story())
    assert sums(path)[:2] == (2, 2 * 1234)
    assert sums(path).attempts == 2
    assert caplog.text.count("same was put into the ledger twice") == 2


def test_odd_values_cost_no_row(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "gateway.db"

    async def story() -> None:
        ledger = SqliteLedger(path)
        ledger.put(record("surrogate")._replace(user="\ud800!", tags=("\udfff",)))
        ledger.put(record("huge")._replace(estimated_input=1 << 70))
        ledger.put(record("hopeless")._replace(duration=None))  # type: ignore[arg-type]  # a mistake of our own
        ledger.put(record("plain"))
        await ledger.close()
        assert ledger.dropped == 1

    run(story())
    kept = {made.id: made for made in read_requests(path)}
    assert kept.keys() == {"surrogate", "huge", "plain"}
    assert (kept["surrogate"].user, kept["surrogate"].tags) == ("?!", ("?",))
    assert kept["huge"].estimated_input == (1 << 63) - 1
    assert "hopeless cannot be kept" in caplog.text


def test_the_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    with closing(connect(path, busy_seconds=1)) as db:
        db.execute("PRAGMA user_version = 1")
        assert {made.name: made.stat().st_mode & 0o777 for made in tmp_path.iterdir()} == dict.fromkeys(
            ("gateway.db", "gateway.db-wal", "gateway.db-shm"), 0o600
        )


@pytest.mark.parametrize(
    ("dsn", "says"),
    [
        ("redis://localhost", "no ledger is called 'redis'; there are: sqlite"),
        ("sqlite:////nowhere/gateway.db", "cannot open the ledger /nowhere/gateway.db"),
        (f"sqlite:///{__file__}", "file is not a database"),
    ],
)
def test_what_cannot_be_opened_says_so(dsn: str, says: str) -> None:
    with pytest.raises(StoreUnavailable, match=says):
        open_ledger(dsn, "reject")
    assert list(LEDGERS) == ["sqlite"]


# Disks that fail


def test_a_locked_file_delays_but_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"

    async def story() -> None:
        ledger = Impatient(path, batch_seconds=0, batch_rows=2)
        with closing(lock(path)):
            for i in range(5):
                ledger.put(record(f"r{i}"))
            await failed(ledger)
            assert ledger.depth == 5
        await ledger.flush()
        assert ledger.depth == 0
        await ledger.close()

    run(story())
    with closing(sqlite3.connect(path)) as db:
        assert [row[0] for row in db.execute("SELECT id FROM requests ORDER BY rowid")] == [f"r{i}" for i in range(5)]


def test_a_disk_that_comes_back(tmp_path: Path) -> None:
    """The folder is a file for a while: even for root, nothing can be opened there."""
    folder = tmp_path / "disk"
    folder.mkdir()

    async def story() -> None:
        ledger = Impatient(folder / "gateway.db", batch_seconds=0)
        ledger.put(record("before"))
        await ledger.flush()
        with closing(lock(folder / "gateway.db")):  # makes the ledger let go of its connection
            ledger.put(record("during"))
            await failed(ledger)
            folder.rename(tmp_path / "unplugged")
            folder.touch()
        await failed(ledger)
        folder.unlink()
        (tmp_path / "unplugged").rename(folder)
        ledger.close_seconds = 60  # a busy machine may take its time to write
        await ledger.close()

    run(story())
    assert [made.id for made in read_requests(folder / "gateway.db")] == ["before", "during"]


def test_close_gives_up_on_a_disk_that_stays_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "gateway.db"

    async def story() -> None:
        ledger = Impatient(path, batch_seconds=0, batch_rows=2)
        with closing(lock(path)):
            for i in range(5):
                ledger.put(record(f"r{i}"))
            await ledger.close()
            assert (ledger.depth, ledger.dropped) == (0, 5)

    run(story())
    assert "closed with 5 requests unwritten" in caplog.text


# Queues that are full


def test_reject_waits_for_room_then_refuses(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"

    async def story() -> None:
        ledger = Impatient(path, capacity=3, batch_seconds=0, on_full="reject")
        await ledger.room()
        with closing(lock(path)):
            for i in range(4):  # what was admitted is never lost, even above the capacity
                ledger.put(record(f"r{i}"))
            with pytest.raises(StoreUnavailable) as refused:
                await ledger.room()
            assert (refused.value.status, refused.value.headers) == (503, {"retry-after": "1"})
        ledger.room_seconds = ledger.close_seconds = 60
        await ledger.room()
        await ledger.close()
        assert ledger.dropped == 0

    run(story())
    assert sums(path).requests == 4


def test_who_is_refused_for_want_of_room_takes_none(tmp_path: Path) -> None:
    """While a disk is full for hours, clients that are told to come again do so."""
    path = tmp_path / "gateway.db"

    async def story() -> None:
        ledger = Impatient(path, capacity=3, batch_seconds=0)
        with closing(lock(path)):
            for i in range(3):
                ledger.put(record(f"r{i}"))
            for i in range(100):
                ledger.put(record(f"refused{i}")._replace(outcome="rejected", attempts=(), cost_nano=0))
            ledger.put(record("cost-something")._replace(outcome="rejected"))
            assert (ledger.depth, ledger.dropped) == (4, 0)
        ledger.room_seconds = ledger.close_seconds = 60
        await ledger.room()
        ledger.put(record("refused")._replace(outcome="rejected", attempts=(), cost_nano=0))
        await ledger.close()

    run(story())
    assert {made.id for made in read_requests(path)} == {"r0", "r1", "r2", "cost-something", "refused"}


def test_room_returns_as_soon_as_there_is_some(tmp_path: Path) -> None:
    async def story() -> None:
        ledger = SqliteLedger(tmp_path / "gateway.db", capacity=1, batch_seconds=60)
        ledger.put(record("r"))
        began = time.monotonic()
        await ledger.room()  # hurries the writer
        assert time.monotonic() - began < 30  # it would write by itself after 60
        await ledger.close()

    run(story())


def test_drop_counts_what_it_leaves_out(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"

    async def story() -> None:
        ledger = SqliteLedger(path, capacity=3, batch_seconds=60, on_full="drop")
        for i in range(5):
            ledger.put(record(f"r{i}"))
        await ledger.room()
        assert (ledger.depth, ledger.dropped) == (3, 2)
        await ledger.close()

    run(story())
    assert [made.id for made in read_requests(path)] == ["r0", "r1", "r2"]


# Several processes, and the end of one

WRITER = """
import asyncio, sys, time
from gateway.stores.sqlite import SqliteLedger
from tests.stores.records import record

async def main(path, name, rows, pause):
    ledger = SqliteLedger(path, batch_seconds=0.05)
    for i in range(rows):
        await ledger.room()
        ledger.put(record(f"{name}-{i}"))
        if pause:
            sys.stdout.write(f"{i} {time.monotonic()}\\n")
            sys.stdout.flush()
            await asyncio.sleep(pause)
    await ledger.close()
    assert not ledger.failures, "waiting for the other processes is no failure"

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
"""


def start(path: Path, name: str, rows: int, pause: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", WRITER, str(path), name, str(rows), str(pause)]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE)


def test_four_processes_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    writers = [start(path, name, 2_000, 0) for name in "abcd"]
    for writer in writers:
        writer.communicate(timeout=180)
        assert writer.returncode == 0
    found = sums(path)
    assert (found.requests, found.attempts, found.cost_nano) == (8_000, 8_000, 8_000 * 1234)
    assert len({made.id for made in read_requests(path)}) == 8_000


@pytest.mark.parametrize("alive", [0.02, 1.2, 3.0])
def test_kill_9_loses_only_the_last_moment(tmp_path: Path, alive: float) -> None:
    path = tmp_path / "gateway.db"
    writer = start(path, "k", 100_000, 0.001)
    assert writer.stdout
    writer.stdout.readline()  # it has begun
    time.sleep(alive)  # the moment is the experiment
    killed = time.monotonic()
    os.kill(writer.pid, signal.SIGKILL)
    put = [line.split() for line in writer.communicate()[0].splitlines() if line.count(b" ") == 1]
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    kept = {int(made.id.removeprefix("k-")) for made in read_requests(path)}
    assert kept == set(range(len(kept))), "a gap: something was lost in the middle"
    slack = max(0.3, alive / 2)  # for a busy machine: the bound is batch_seconds and the commit under way
    safe = {int(i) for i, at in put if float(at) < killed - 0.05 - slack}
    assert safe <= kept
    assert safe or alive < 0.5, "the experiment showed nothing"


# Older and newer files


def test_a_file_from_an_older_version_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    with closing(sqlite3.connect(path)) as empty:  # version 0: an empty database
        empty.execute("PRAGMA user_version = 0")

    async def story() -> None:
        ledger = SqliteLedger(path)
        ledger.put(record("old"))
        await ledger.close()

    run(story())
    version = len(MIGRATIONS) + 1
    later = (*MIGRATIONS, added({"requests": [Column("mood", TEXT_OR_NULL, since=version)]}, version))
    with closing(connect(path, busy_seconds=1, migrations=later)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (version,)
        assert db.execute("SELECT id, mood FROM requests").fetchall() == [("old", None)]


def test_a_migration_is_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    connect(path, busy_seconds=1).close()
    with pytest.raises(sqlite3.OperationalError):
        connect(
            path, busy_seconds=1, migrations=(*MIGRATIONS, ("ALTER TABLE requests ADD COLUMN mood TEXT", "NONSENSE"))
        )
    with closing(connect(path, busy_seconds=1)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert "mood" not in {row[1] for row in db.execute("PRAGMA table_info(requests)")}


def test_a_file_of_a_later_release_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(StoreUnavailable, match="schema version"):
        SqliteLedger(path)


def test_put_is_cheap(tmp_path: Path) -> None:
    """1.5 us on a quiet machine; ten times that here, so that only a change of kind (I/O, say) fails."""

    async def story() -> None:
        ledger = SqliteLedger(tmp_path / "gateway.db")
        rows = [record(f"r{i}") for i in range(2_000)]
        began = time.perf_counter()
        for made in rows:
            ledger.put(made)
        each = (time.perf_counter() - began) / len(rows)
        await ledger.close()
        logging.getLogger("test").info("put: %.2f us", each * 1e6)
        assert each < 15e-6

    run(story())
