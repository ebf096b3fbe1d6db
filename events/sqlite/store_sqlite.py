"""The writer of one shard on SQLite: `store.ShardStore` over one file.

Two connections, each with its own thread: one that writes, where every transaction is a single function from BEGIN to COMMIT
(`writer_sqlite`), and one that only reads, so that recovering a long stream does not hold up commits. What was tried and rejected: a shared
handle for both (an aiosqlite call goes on after its caller is cancelled, and the next commit publishes what it left behind,
facts/durability.md 0.3).
"""

import asyncio
from collections.abc import Callable, Container, Sequence
from functools import partial
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import aiosqlite

from events.clock import Clock, Entropy, SystemClock, SystemEntropy
from events.closing import Closed, Erasure
from events.envelope import RecordedEvent
from events.errors import ConfigurationError, CorruptLogError, InvariantError, SupersededError
from events.facts import in_full
from events.ids import CommandId, Position, StreamId, Version
from events.keeping.quarantine import Quarantine, quarantined
from events.letters import Letter, StoppedActor
from events.limits import OUTBOX_PER_PAIR_MAX, OUTBOX_PER_SHARD_MAX, WRITE_LOCK_S
from events.log_directory import LogIdentity, anchor_path, read_identity, shard_path
from events.sqlite import closing_sqlite as closing
from events.sqlite import reads_sqlite as reads
from events.sqlite.loads_sqlite import Loaded, Loads, load_streams
from events.sqlite.sqlite_library import (
    Durability,
    SqliteConnection,
    SqliteError,
    close_connections,
    connect,
    on_thread,
    open_reader,
    open_writer,
    translated,
)
from events.sqlite.writer_sqlite import Send, ShardWriter
from events.store import (
    Accepted,
    Append,
    Arrival,
    Format,
    Head,
    InboxEntry,
    Outcome,
    Ownership,
    PendingSend,
    ShardInfo,
    Snapshot,
    TimerEntry,
    WaitEntry,
)

P = ParamSpec("P")
T = TypeVar("T")


class SqliteShard:
    """See `store.ShardStore`. Made by `open`; must be closed, else its threads keep the interpreter alive."""

    def __init__(self, directory: Path, identity: LogIdentity, shard: int, clock: Clock, entropy: Entropy, durability: Durability) -> None:
        self.shard = shard
        self.incarnation = identity.incarnation
        self._path = shard_path(directory, shard)
        self._durability = durability
        self._clock = clock
        self._quarantine = Quarantine(directory)
        self._writer = ShardWriter(self._path, anchor_path(directory, shard), identity, shard, clock, entropy)
        self._writing: aiosqlite.Connection | None = None
        self._reading: aiosqlite.Connection | None = None
        self._reopening = asyncio.Lock()
        self._closed = False
        self._loads = Loads(lambda requests: self._read(load_streams, shard, requests))

    @classmethod
    async def open(
        cls,
        directory: Path,
        shard: int,
        *,
        clock: Clock | None = None,
        entropy: Entropy | None = None,
        durability: Durability = "disk",
    ) -> "SqliteShard":
        """Open shard `shard` of the log in `directory`, migrate it if it is older, and check it against its anchor.

        Raises:
            ConfigurationError: no log, another log's file, a newer format, a faulty SQLite library.
            CorruptLogError: the file is behind its anchor, or damaged (S28).
            TransientError: another process holds the file's write lock.
        """
        identity = read_identity(directory)
        if not 0 <= shard < identity.shards:
            raise ConfigurationError(f"the log in {directory} has shards 0 to {identity.shards - 1}, not {shard}")
        store = cls(directory, identity, shard, clock or SystemClock(), entropy or SystemEntropy(), durability)
        try:
            await store._open_connections()
        except BaseException:
            await store._close_connections()
            raise
        return store

    async def _open_connections(self) -> None:
        path = self._path
        if not path.exists():
            raise CorruptLogError(f"{path} is missing: the log has lost a shard. Restore a backup", path=str(path))
        try:
            self._writing = await connect(lambda: open_writer(path, self._durability))
            await on_thread(self._writing, self._writer.alone, self._writer.prepare)
            self._reading = await connect(lambda: open_reader(path))
        except SqliteError as error:
            raise translated(error, path) from error

    async def _close_connections(self) -> None:
        connections = (self._reading, self._writing)
        self._reading = self._writing = None
        await close_connections(connections)

    async def _reopen_if_in_doubt(self) -> None:
        if not self._writer.must_reopen:
            return
        # A read may come while a write is reopening.
        async with self._reopening:
            if self._writer.must_reopen:
                await self._close_connections()
                try:
                    await self._open_connections()
                finally:
                    if self._closed:  # meanwhile, by somebody who did not see these
                        await self._close_connections()
                self._writer.must_reopen = False

    async def _write(self, fn: Callable[Concatenate[SqliteConnection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._closed:
            raise InvariantError(f"shard {self.shard} is closed", shard=self.shard)
        await self._reopen_if_in_doubt()
        if self._writing is None:
            raise InvariantError(f"shard {self.shard} is not open", shard=self.shard)
        return await on_thread(self._writing, self._writer.alone, fn, *args, **kwargs)

    async def _read(self, fn: Callable[Concatenate[SqliteConnection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._closed:
            raise InvariantError(f"shard {self.shard} is closed", shard=self.shard)
        if self._reading is None:
            # Between a failed commit and the next write the connections are replaced.
            await self._reopen_if_in_doubt()
        if self._reading is None:
            raise InvariantError(f"shard {self.shard} is not open", shard=self.shard)
        try:
            return await on_thread(self._reading, fn, *args, **kwargs)
        except SqliteError as error:
            raise translated(error, self._path) from error

    async def take(self, worker: str, *, wait_s: float = WRITE_LOCK_S) -> Ownership:
        return await self._write(self._writer.take, worker, wait_s)

    async def commit(
        self, groups: Sequence[Append], arrivals: Sequence[Arrival] = (), sends: Sequence[Send] = (),
        *, keys: Sequence[tuple[StreamId, str]] = (),
    ) -> tuple[Sequence[Outcome], Sequence[Accepted]]:  # fmt: skip
        if self._writer.lost is not None:
            raise SupersededError(self._writer.lost, shard=self.shard)
        return await self._write(self._writer.commit, groups, arrivals, sends, keys)

    async def append(self, groups: Sequence[Append]) -> Sequence[Outcome]:
        return (await self.commit(groups))[0]

    async def accept(self, arrivals: Sequence[Arrival]) -> Sequence[Accepted]:
        return (await self.commit((), arrivals))[1]

    async def acknowledge(self, sends: Sequence[Send]) -> None:
        await self.commit((), (), sends)

    async def keys_of(self, stream: StreamId) -> Sequence[str]:
        return await self._read(closing.read_keys, stream)

    async def archive(self, stream: StreamId) -> Closed:
        return await self._write(lambda connection: closing.archive_stream(self._writer, connection, stream))

    async def erase(self, stream: StreamId, requested_by: str) -> Closed:
        now_us = self._clock.wall_us()
        return await self._write(lambda connection: closing.erase_stream(self._writer, connection, stream, requested_by, now_us))

    async def erasures(self) -> Sequence[Erasure]:
        return await self._read(closing.read_erasures)

    async def scrub(self) -> bool:
        return await self._write(self._writer.scrub)

    async def erased(self, stream: StreamId) -> None:
        now_us = self._clock.wall_us()
        await self._write(lambda connection: closing.finish_erasure(self._writer, connection, stream, now_us))

    def raise_floor(self, time: int) -> int:
        return self._writer.raise_floor(time)

    def outbox_room(self, sender: StreamId, receiver: StreamId) -> int:
        memory = self._writer.held_memory()
        pair = memory.outbox_pairs[sender, receiver, self.incarnation]
        return max(0, min(OUTBOX_PER_PAIR_MAX - pair, OUTBOX_PER_SHARD_MAX - memory.outbox_total))

    async def head(self, stream: StreamId) -> Head | None:
        found = self._writer.held_memory().heads.get(stream)
        if found is None:
            return await self._read(reads.read_head, stream)
        if found.position == 0:
            return None
        return Head(
            stream=stream,
            version=Version(found.version),
            position=Position(found.position),
            hash=found.hash,
            status=found.status,
        )

    async def load(self, stream: StreamId, shape: str) -> tuple[Snapshot | None, Sequence[RecordedEvent]]:
        snapshot, events = await self._load(stream, shape, None)
        return snapshot, in_full(events)

    async def tail(self, stream: StreamId, shape: str, plain: Container[str]) -> Loaded:
        return await self._load(stream, shape, plain)

    async def _load(self, stream: StreamId, shape: str, plain: Container[str] | None) -> Loaded:
        if (known := self._quarantine.find(stream)) is not None:
            raise known.error()
        try:
            return await self._loads.load((stream, shape, self._writer.held_memory().heads.get(stream), plain))
        except (CorruptLogError, SqliteError) as error:
            damage = translated(error, self._path) if isinstance(error, SqliteError) else error
            if not isinstance(damage, CorruptLogError):
                raise damage from error
            found = quarantined(damage, stream, self.shard, self._clock.wall_us())
            self._quarantine.put(found)
            raise found.error() from error

    async def inbox(self, stream: StreamId, command_id: CommandId) -> InboxEntry | None:
        return await self._read(reads.read_inbox, self.shard, stream, command_id)

    async def did(self, stream: StreamId, command_id: CommandId, *, after: int = 0, since: int = 0) -> bool:
        # On the writing thread: behind a transaction whose caller was cancelled, which may be at work still.
        try:
            return await self._write(reads.read_did, stream, command_id, after, since)
        except SqliteError as error:
            raise translated(error, self._path) from error

    async def _sound(self, read: Callable[[SqliteConnection, int], tuple[list[T], list[str]]]) -> list[T]:
        rows, damages = await self._read(read, self.shard)
        self._writer.warnings += [damage for damage in damages if damage not in self._writer.warnings]
        return rows

    async def unfinished(self) -> Sequence[InboxEntry]:
        return await self._sound(reads.read_unfinished)

    async def queued(self, stream: StreamId, limit: int) -> Sequence[InboxEntry]:
        return await self._read(reads.read_queued, self.shard, stream, limit)

    async def letters(self, stream: StreamId | None = None) -> Sequence[Letter]:
        return await self._sound(partial(reads.read_letters, stream=stream))

    async def stopped(self) -> Sequence[StoppedActor]:
        return await self._sound(reads.read_stopped)

    async def unsent(self) -> Sequence[PendingSend]:
        return await self._sound(reads.read_unsent)

    async def timers(self) -> Sequence[TimerEntry]:
        return await self._sound(reads.read_timers)

    async def waits(self) -> Sequence[WaitEntry]:
        return await self._sound(reads.read_waits)

    async def formats(self) -> Sequence[Format]:
        return await self._read(reads.read_formats)

    async def info(self) -> ShardInfo:
        return reads.with_warnings(await self._read(reads.read_info, self.shard), self._writer.warnings)

    async def sync_anchor(self) -> None:
        await self._write(self._writer.sync_anchor)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            if self._writing is not None and not self._writer.must_reopen:
                await on_thread(self._writing, self._writer.alone, self._writer.flush)
        finally:
            try:
                await self._close_connections()
            finally:
                self._writer.close_anchor()
