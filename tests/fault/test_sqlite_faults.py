"""Full disks, cancelled callers, failing commits, killed processes: what the caller is told is what happened.

S18, I-1, F-3, F-9, F-16, F-17.
"""

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from events.errors import AppendOutcomeUnknownError, ConfigurationError, LogFullError, TransientError
from events.ids import CommandId
from events.keeping.verify import verify
from events.limits import WRITE_LOCK_S
from events.log_directory import create_log, read_identity, shard_path
from events.sqlite.sqlite_library import SqliteConnection, has_wal_reset_fix, library_fault, on_thread, require_safe_library
from events.sqlite.sqlite_library import library as sqlite
from events.sqlite.store_sqlite import SqliteShard
from events.store import Committed, Conflict
from tests.support.logs import SqliteLogUnderTest, append_one, command, deposited, group, stream_in, timer

A = stream_in(0, 1, "a")
B = stream_in(0, 1, "b")


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[SqliteLogUnderTest]:
    opened = SqliteLogUnderTest(1, tmp_path / "log")
    yield opened
    await opened.close()


async def opened(log: SqliteLogUnderTest) -> SqliteShard:
    store = await log.shard()
    assert isinstance(store, SqliteShard)
    return store


class Failing:
    """A connection whose statement `at` fails once, before or after it took effect."""

    def __init__(self, connection: SqliteConnection, at: str, *, after: bool, name: str) -> None:
        self._connection = connection
        self._at = at
        self._after = after
        self._name = name
        self.armed = True

    def execute(self, sql: str, *args: Any) -> Any:
        if not (self.armed and sql.startswith(self._at)):
            return self._connection.execute(sql, *args)
        self.armed = False
        if self._after:
            self._connection.execute(sql, *args)
        error = sqlite.OperationalError("disk I/O error")
        error.sqlite_errorname = self._name
        raise error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def fail_once(store: SqliteShard, at: str, *, after: bool = False, name: str = "SQLITE_IOERR_FSYNC") -> None:
    assert store._writing is not None
    failing: Any = Failing(store._writing._conn, at, after=after, name=name)
    store._writing._connection = failing


# Full disks


async def test_a_full_file_refuses_the_append_whole_and_works_again_when_there_is_room(log: SqliteLogUnderTest) -> None:
    """F-16, S18."""
    store = await opened(log)
    await append_one(store, A, 0, deposited())
    assert store._writing is not None

    def limit(connection: SqliteConnection, pages: int) -> None:
        connection.execute(f"PRAGMA max_page_count={pages}").fetchall()

    await on_thread(store._writing, limit, 1)
    big = deposited(1, summary="x" * 100_000)
    for _ in range(3):
        with pytest.raises(LogFullError):
            await store.append([group(A, 1, big, inbox=command(A, "c1")), group(B, 0, deposited())])
    assert await store.inbox(A, CommandId("c1")) is None
    assert (await store.info()).position == 1
    await on_thread(store._writing, limit, 1_000_000)
    outcomes = await store.append([group(A, 1, big, inbox=command(A, "c1")), group(B, 0, deposited())])
    assert [type(outcome) for outcome in outcomes] == [Committed, Committed]
    await store.close()
    assert verify(log.directory) == []


# Unknown outcomes


@pytest.mark.parametrize("written", [True, False])
async def test_a_commit_that_raised_is_unknown_and_the_truth_is_found_by_the_command_id(log: SqliteLogUnderTest, written: bool) -> None:
    """S18, F-17: reopened before its next use; found = its reply, absent = run once."""
    store = await opened(log)
    await append_one(store, A, 0, deposited())
    fail_once(store, "COMMIT", after=written)
    before = store._writing
    with pytest.raises(AppendOutcomeUnknownError):
        await append_one(store, A, 1, deposited(), inbox=command(A, "c1", reply=b"2"))
    outcome = await append_one(store, B, 0, deposited())
    assert isinstance(outcome, Committed)
    assert store._writing is not before
    known = await store.inbox(A, CommandId("c1"))
    assert (known is not None) == written
    again = await append_one(store, A, 1, deposited(), inbox=command(A, "c1", reply=b"2"))
    assert isinstance(again, Committed) != written
    await store.close()
    assert verify(log.directory) == []


async def test_an_io_error_in_a_statement_rolls_back_and_reopens(log: SqliteLogUnderTest) -> None:
    store = await opened(log)
    fail_once(store, "SELECT epoch, token", name="SQLITE_IOERR_READ")
    with pytest.raises(AppendOutcomeUnknownError):
        await append_one(store, A, 0, deposited())
    assert isinstance(await append_one(store, A, 0, deposited()), Committed)


async def test_readers_go_on_while_the_writer_reopens(log: SqliteLogUnderTest) -> None:
    store = await opened(log)
    await append_one(store, A, 0, deposited())
    fail_once(store, "COMMIT")
    with pytest.raises(AppendOutcomeUnknownError):
        await append_one(store, A, 1, deposited())
    async with asyncio.TaskGroup() as tasks:
        results = [tasks.create_task(store.load(A, "s")) for _ in range(5)]
        appended = tasks.create_task(append_one(store, A, 1, deposited()))
    assert isinstance(appended.result(), Committed)
    assert all(len(result.result()[1]) in (1, 2) for result in results)


async def test_a_lock_that_another_process_holds_is_transient(log: SqliteLogUnderTest) -> None:
    """S2, F-8."""
    store = await opened(log)
    other = sqlite.connect(shard_path(log.directory, 0), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(TransientError):
        await append_one(store, A, 0, deposited())
    other.execute("ROLLBACK")
    other.close()
    assert isinstance(await append_one(store, A, 0, deposited()), Committed)


async def test_s2_a_taker_waits_for_the_write_lock_as_long_as_it_is_told(log: SqliteLogUnderTest) -> None:
    """Not the second of everybody else where the holder is stopped; and only for this once."""
    store = await log.shard(take=False)
    other = sqlite.connect(shard_path(log.directory, 0), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waited = []
    for wait_s in (0.02, WRITE_LOCK_S):
        began = time.monotonic()
        with pytest.raises(TransientError):
            await store.take("w", wait_s=wait_s)
        waited.append(time.monotonic() - began)
    assert waited[0] < WRITE_LOCK_S - 0.2 <= waited[1]
    other.execute("ROLLBACK")
    other.close()
    await store.take("w", wait_s=0.02)


async def test_s18_rows_of_a_group_that_fails_at_its_last_are_taken_back(log: SqliteLogUnderTest) -> None:
    """Its events stood in the transaction already when SQLite refused its timer: the other groups of the batch commit without them."""
    store = await opened(log)
    late = group(B, 0, deposited(2), timers=[timer(B, "t", due_us=2**63)])
    outcomes = await store.append([group(A, 0, deposited(1)), late, group(A, 1, deposited(3))])
    assert [type(outcome) for outcome in outcomes] == [Committed, Conflict, Committed]
    assert [event.stream for event in await (await log.reader()).read(0)] == [A, A]
    assert isinstance(await append_one(store, B, 0, deposited(4)), Committed)
    await log.close()
    assert verify(log.directory) == []


# Cancelled callers


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
async def test_cancelling_the_caller_of_an_append_leaves_the_connection_clean(log: SqliteLogUnderTest, turns: int) -> None:
    """F-9, durability.md 0.3: the transaction ends whole, one way or the other, and never publishes half of the next one."""
    store = await opened(log)
    task = asyncio.create_task(append_one(store, A, 0, deposited(), deposited(), inbox=command(A, "c1")))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # Runs on the same thread, so what was queued before has ended.
    await store.sync_anchor()
    # A second handle gets the write lock at once: no transaction was left open.
    other = sqlite.connect(shard_path(log.directory, 0), isolation_level=None, timeout=5)
    other.execute("BEGIN IMMEDIATE")
    other.execute("ROLLBACK")
    other.close()
    head = await store.head(A)
    version = head.version if head is not None else 0
    assert version in (0, 2)
    assert (await store.inbox(A, CommandId("c1")) is not None) == (version == 2)
    assert isinstance(await append_one(store, A, version, deposited()), Committed)


async def test_on_thread_runs_to_its_end_when_its_caller_is_cancelled(log: SqliteLogUnderTest) -> None:
    """What `on_thread` relies on in aiosqlite's private `_execute`."""
    import threading

    store = await opened(log)
    assert store._writing is not None
    go, done = threading.Event(), threading.Event()

    def slow(connection: SqliteConnection) -> None:
        go.wait(10)
        done.set()

    task = asyncio.create_task(on_thread(store._writing, slow))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not done.is_set()
    go.set()
    assert await on_thread(store._writing, lambda connection: done.is_set())


# Killed processes

_APPENDER = """
import asyncio, sys
from pathlib import Path
from events.envelope import NewEvent
from events.store import Append, Committed
from events.sqlite.store_sqlite import SqliteShard

async def main(directory, start):
    store = await SqliteShard.open(Path(directory), 0)
    await store.take("victim")
    head = await store.head("actor/a")
    version = head.version if head else 0
    print("ready", version, flush=True)
    while True:
        group = [NewEvent(type="a.b", payload=b"{}") for _ in range(3)]
        outcomes = await store.append([Append(stream="actor/a", expected_version=version, command_id=None, events=group)])
        version = outcomes[0].version
        print(version, flush=True)

asyncio.run(main(sys.argv[1], 0))
"""


@pytest.mark.crash
@pytest.mark.parametrize("lines", [1, 2, 17, 60])
def test_nothing_acknowledged_is_lost_when_the_appender_is_killed(tmp_path: Path, lines: int) -> None:
    """I-1, I-6: three rounds on one log, each killed at another point; at most the unacknowledged group is there besides."""
    directory = tmp_path / "log"
    create_log(directory, 1)
    acknowledged = 0
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", _APPENDER, str(directory)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        ready = process.stdout.readline().split()
        assert ready[0] == "ready"
        assert acknowledged <= int(ready[1]) <= acknowledged + 3
        for _ in range(lines):
            acknowledged = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        # What it had printed before it died counts as acknowledged too.
        rest = [line for line in process.stdout.read().split("\n") if line]
        process.wait()
        process.stdout.close()
        acknowledged = int(rest[-1]) if rest else acknowledged
        assert verify(directory) == []
    events = asyncio.run(_versions(directory))
    assert events == list(range(1, len(events) + 1))
    assert len(events) % 3 == 0
    assert acknowledged <= len(events) <= acknowledged + 3


async def _versions(directory: Path) -> list[int]:
    store = await SqliteShard.open(directory, 0)
    try:
        return [event.version for event in (await store.load(A.__class__("actor/a"), "s"))[1]]
    finally:
        await store.close()


@pytest.mark.crash
def test_a_stopped_owner_is_fenced_when_it_wakes(tmp_path: Path) -> None:
    """F-7, I-5: paused between two appends, superseded, woken: its next append is refused and it dies of it."""
    directory = tmp_path / "log"
    create_log(directory, 1)
    process = subprocess.Popen([sys.executable, "-c", _APPENDER, str(directory)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.readline()
        # Stopped inside a transaction it holds the write lock, and only a kill helps (S2): then it is let on and stopped again.
        process.send_signal(signal.SIGSTOP)
        while not asyncio.run(_take_and_append(directory)):
            process.send_signal(signal.SIGCONT)
            process.stdout.readline()
            process.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGCONT)
        # The interpreter waits for the connection's thread, which nobody closed: the error is on stderr, the process still there.
        seen = ""
        while "SupersededError" not in seen:
            line = process.stderr.readline()
            assert line, seen
            seen += line
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    assert verify(directory) == []


async def _take_and_append(directory: Path) -> bool:
    store = await SqliteShard.open(directory, 0)
    try:
        await store.take("successor")
        return isinstance(await append_one(store, B, 0, deposited()), Committed)
    except TransientError:
        return False
    finally:
        await store.close()


# Making a log


def _create(directory: str, results: Any) -> None:
    results.put(create_log(Path(directory), 3).incarnation)


def test_eight_processes_that_make_a_log_at_once_get_the_same_one(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=_create, args=(str(tmp_path / "log"), results)) for _ in range(8)]
    for process in processes:
        process.start()
    found = {results.get(timeout=30) for _ in processes}
    for process in processes:
        process.join()
    assert len(found) == 1
    assert {path.name for path in (tmp_path / "log").iterdir()} == {"log.json", "shard-0.db", "shard-1.db", "shard-2.db"}
    assert verify(tmp_path / "log") == []


@pytest.mark.parametrize("missing", [("log.json",), ("log.json", "shard-1.db")])
def test_a_creation_that_died_half_way_is_completed(tmp_path: Path, missing: tuple[str, ...]) -> None:
    directory = tmp_path / "log"
    made = create_log(directory, 2)
    (directory / "log.json").rename(directory / "log.json.new")
    for name in missing[1:]:
        (directory / name).unlink()
    assert create_log(directory, 2) == made
    assert read_identity(directory) == made
    assert verify(directory) == []


def test_a_migration_that_dies_leaves_the_old_file_and_is_completed_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F-6: a later format whose last statement fails, then the mended one."""
    from events.sqlite import schema

    directory = tmp_path / "log"
    create_log(directory, 1)
    path = shard_path(directory, 0)
    connection = sqlite.connect(path, isolation_level=None)
    released = schema.MIGRATIONS
    monkeypatch.setattr(schema, "SCHEMA_VERSION", len(released) + 1)
    monkeypatch.setattr(
        schema, "MIGRATIONS", (*schema.MIGRATIONS, ("more", ("CREATE TABLE more (a INTEGER) STRICT", "CREATE TABLE more (a)")))
    )
    with pytest.raises(sqlite.OperationalError):
        schema.migrate(connection, path, 0)
    assert schema.file_version(connection, path) == len(released)
    monkeypatch.setattr(schema, "MIGRATIONS", (*released, ("more", ("CREATE TABLE more (a INTEGER) STRICT",))))
    assert schema.migrate(connection, path, 7) == 1
    assert schema.migrate(connection, path, 8) == 0
    assert connection.execute("SELECT number, name FROM migrations").fetchall()[-1] == (len(released) + 1, "more")
    connection.close()


# The library


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ((3, 40, 1), False), ((3, 44, 5), False), ((3, 44, 6), True), ((3, 45, 0), False), ((3, 50, 6), False), ((3, 50, 7), True),
        ((3, 51, 0), False), ((3, 51, 2), False), ((3, 51, 3), True), ((3, 53, 4), True), ((4, 0, 0), True),
    ],
)  # fmt: skip
def test_libraries_with_the_wal_reset_fault_are_known(version: tuple[int, ...], safe: bool) -> None:
    """durability.md 0.1."""
    assert has_wal_reset_fix(version) is safe
    fault = library_fault("sqlite3", version)
    assert (fault is None) is safe
    assert fault is None or "pysqlite3" in fault


def test_a_log_is_not_opened_with_a_faulty_library(monkeypatch: pytest.MonkeyPatch) -> None:
    from events.sqlite import sqlite_library

    monkeypatch.setattr(sqlite_library, "library_fault", lambda: "SQLite 3.40.1 can corrupt a shared log. Install pysqlite3")
    with pytest.raises(ConfigurationError, match="pysqlite3"):
        require_safe_library()


def test_the_library_of_this_environment_is_safe() -> None:
    assert library_fault() is None
    assert os.environ.get("CUEBOOK_NO_PYSQLITE3") or sqlite.__name__.startswith("pysqlite3")
