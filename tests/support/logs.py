"""Logs for tests: a clock that only moves when told, randomness that repeats, and one way to open a log in memory and in SQLite."""

import hashlib
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol

from events.codec import args_hash
from events.envelope import NewEvent, RecordedEvent
from events.ids import CommandId, StreamId, Version, parse_stream_id, shard_of, stream_id
from events.in_memory.store_memory import MemoryLog
from events.log_directory import create_log
from events.sqlite.reader_sqlite import SqliteLogReader
from events.sqlite.sqlite_library import library as sqlite
from events.sqlite.store_sqlite import SqliteShard
from events.store import (
    Append,
    Arrival,
    Committed,
    InboxEntry,
    InboxStatus,
    LogReader,
    OutboxEntry,
    Outcome,
    ScanReader,
    ShardStore,
    TimerEntry,
    WaitEntry,
)

START_US = 1_700_000_000_000_000
DAMAGED_ROWS = (
    """UPDATE events SET payload = '{"cents":9}' WHERE position = 2""",
    "UPDATE events SET correlation_id = 'x' WHERE position = 2",
    "UPDATE events SET hash = x'00' WHERE position = 2",
    "UPDATE events SET salt = NULL WHERE position = 2",
    "UPDATE events SET kind = 'control' WHERE position = 2",
    "UPDATE events SET stream_id = 99 WHERE position = 2",
    "UPDATE events SET version = 7 WHERE position = 2",
)
"""For `without_guards`: what no reader may take for the event at position 2 of its shard (I-20)."""


class ManualClock:
    """Stands still until `advance`."""

    def __init__(self, wall_us: int = START_US) -> None:
        self.now_us = wall_us
        self.elapsed_s = 0.0

    def wall_us(self) -> int:
        return self.now_us

    def monotonic(self) -> float:
        return self.elapsed_s

    def advance(self, seconds: float) -> None:
        self.now_us += int(seconds * 1_000_000)
        self.elapsed_s += max(0.0, seconds)


class SeededEntropy:
    """The same bytes for the same seed."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._count = 0

    def token_bytes(self, count: int) -> bytes:
        self._count += 1
        return hashlib.shake_128(f"{self._seed}:{self._count}".encode()).digest(count)


class LogUnderTest(Protocol):
    """One log, of whichever adapter."""

    shards: int
    clock: ManualClock

    async def shard(self, shard: int = 0, *, take: bool = True) -> ShardStore:
        """A new writer of `shard`."""
        ...

    async def reader(self) -> ScanReader: ...

    async def close(self) -> None:
        """Close every writer and reader that was opened here."""
        ...


class MemoryLogUnderTest:
    def __init__(self, shards: int) -> None:
        self.shards = shards
        self.clock = ManualClock()
        self.log = MemoryLog(shards, clock=self.clock, entropy=SeededEntropy())
        self._open: list[ShardStore] = []

    async def shard(self, shard: int = 0, *, take: bool = True) -> ShardStore:
        store = self.log.shard(shard)
        self._open.append(store)
        if take:
            await store.take(f"worker-{len(self._open)}")
        return store

    async def reader(self) -> ScanReader:
        return self.log.reader()

    async def close(self) -> None:
        for store in self._open:
            await store.close()


class SqliteLogUnderTest:
    def __init__(self, shards: int, directory: Path) -> None:
        self.shards = shards
        self.clock = ManualClock()
        self.directory = directory
        self._entropy = SeededEntropy()
        self._open: list[ShardStore | LogReader] = []
        create_log(directory, shards, clock=self.clock, entropy=self._entropy)

    async def shard(self, shard: int = 0, *, take: bool = True) -> ShardStore:
        store = await SqliteShard.open(self.directory, shard, clock=self.clock, entropy=self._entropy)
        self._open.append(store)
        if take:
            await store.take(f"worker-{len(self._open)}")
        return store

    async def reader(self) -> ScanReader:
        reader = await SqliteLogReader.open(self.directory)
        self._open.append(reader)
        return reader

    async def close(self) -> None:
        """All of them, even if one cannot be closed; a second call finds nothing more to do."""
        async with AsyncExitStack() as release:
            while self._open:
                release.push_async_callback(self._open.pop().close)


def log_under_test(kind: str, shards: int, directory: Path) -> LogUnderTest:
    """An empty log of `kind`: "memory" or "sqlite"."""
    return MemoryLogUnderTest(shards) if kind == "memory" else SqliteLogUnderTest(shards, directory)


def stream_in(shard: int, shards: int, name: str = "a") -> StreamId:
    """A stream whose name starts with `name` and that lives in `shard`."""
    for number in range(10_000):
        stream = StreamId(f"actor/{name}-{number}")
        if shard_of(*parse_stream_id(stream), shards) == shard:
            return stream
    raise AssertionError("no such name")


def deposited(cents: int = 1, **fields: object) -> NewEvent:
    """Some event."""
    return NewEvent(type="account.deposited", payload=b'{"cents":%d}' % cents, **fields)  # type: ignore[arg-type]


def command(
    stream: StreamId,
    command_id: str,
    status: InboxStatus = InboxStatus.DONE,
    *,
    args: bytes = b"{}",
    method: str = "deposit",
    **fields: object,
) -> InboxEntry:
    """An inbox entry as the runtime would make it."""
    return InboxEntry(
        stream=stream,
        command_id=CommandId(command_id),
        method=method,
        args_hash=args_hash(method, args),
        status=status,
        args=args if status in (InboxStatus.QUEUED, InboxStatus.RUNNING) else None,
        **fields,  # type: ignore[arg-type]
    )


def group(stream: StreamId, expected_version: int, *events: NewEvent, **fields: object) -> Append:
    """An append of `events`; a plain one without any other part."""
    fields.setdefault("command_id", None)
    return Append(stream=stream, expected_version=Version(expected_version), events=events, **fields)  # type: ignore[arg-type]


async def append_one(store: ShardStore, stream: StreamId, expected_version: int, *events: NewEvent, **fields: object) -> Outcome:
    """Commit one group alone."""
    outcomes: Sequence[Outcome] = await store.append([group(stream, expected_version, *events, **fields)])
    return outcomes[0]


def arrival(
    stream: StreamId, command_id: str, *, sender: StreamId | None = None, n: int = 0, incarnation: str = "", time: int = 0
) -> Arrival:
    """A tell without a turn."""
    entry = command(stream, command_id, InboxStatus.QUEUED, source="js:tells:1")
    return Arrival(entry=entry, sender=sender, n=n, incarnation=incarnation, time=time)


def timer(stream: StreamId, timer_id: str, due_us: int = 1) -> TimerEntry:
    """Some timer."""
    return TimerEntry(stream=stream, timer_id=timer_id, due_us=due_us, wall=True, every_us=None, method="m", args=b"{}", set_at_us=0)


def wait(stream: StreamId, wait_id: str) -> WaitEntry:
    """Some open wait."""
    return WaitEntry(stream=stream, wait_id=wait_id, name="n", command_id=CommandId("c"), opened_at_us=1, expires_at_us=None, schema=b"{}")


def without_guards(path: Path, *statements: str) -> None:
    """Change a shard file as damage or a careless person would, past its triggers."""
    connection = sqlite.connect(path, isolation_level=None)
    connection.execute("UPDATE switches SET is_open = 1")
    for statement in statements:
        connection.execute(statement)
    connection.execute("UPDATE switches SET is_open = 0")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()


def as_bytes(path: Path, column: str, position: int) -> None:
    """Make bytes of a text in the event at `position`, as a flipped bit in the header of its row does."""
    for old, new in ((") STRICT", ") "), (") ", ") STRICT")):
        without_guards(
            path, "PRAGMA writable_schema = ON",
            f"UPDATE sqlite_schema SET sql = substr(sql, 1, length(sql) - {len(old)}) || '{new}' WHERE name = 'events'",
        )  # fmt: skip
        if new == ") ":
            without_guards(path, f"UPDATE events SET {column} = CAST({column} AS BLOB) WHERE position = {position}")


def committed(outcome: Outcome) -> Committed:
    assert isinstance(outcome, Committed), outcome
    return outcome


def send(receiver: StreamId, command_id: str, args: bytes = b"{}") -> OutboxEntry:
    return OutboxEntry(receiver=receiver, method="deposit", args=args, command_id=CommandId(command_id))


async def events_of(directory: Path, actor: str) -> list[RecordedEvent]:
    """All that an actor has recorded, from the files."""
    reader = await SqliteLogReader.open(directory)
    try:
        return list(await reader.read_stream(stream_id(*actor.split("/"))))
    finally:
        await reader.close()
