"""Committed rows of all shards, from read-only connections: `store.LogReader` (S31). Ownership plays no part.
 Every event that leaves here has been verified against its hash and its predecessor (I-20), which costs about a third
of a read.
"""

import asyncio
from collections.abc import Callable, Container, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import aiosqlite

from events.appending import TIME_DIGITS
from events.envelope import RecordedEvent
from events.errors import ConfigurationError, CorruptLogError, CuebookError, InvariantError
from events.facts import Fact
from events.ids import CommandId, EventId, Position, StreamId, parse_stream_id, shard_of
from events.letters import Letter, StoppedActor
from events.limits import READERS_PER_SHARD
from events.log_directory import LogIdentity, anchor_path, check_identity, read_identity, shard_path
from events.selection import Selected, Selection
from events.sqlite import reads_sqlite as reads
from events.sqlite.anchor import read_anchor
from events.sqlite.heads import check_anchor
from events.sqlite.scan_sqlite import ShardScan
from events.sqlite.schema import file_version, has_sealed_streams
from events.sqlite.selection_sqlite import read_selected
from events.sqlite.sqlite_library import SqliteConnection, SqliteError, close_connections, connect, on_thread, open_reader, translated
from events.store import Format, Head, InboxEntry, ShardInfo, Snapshot, StreamInfo, UnderWay, WaitEntry

P = ParamSpec("P")
T = TypeVar("T")


class _ShardReaders:
    """The connections to one shard: made when first used, a second one when the first is busy, anew when the file was
    replaced."""

    def __init__(self, path: Path, identity: LogIdentity, shard: int) -> None:
        self._path = path
        self._identity = identity
        self._shard = shard
        self._lock = asyncio.Lock()
        self._busy: dict[aiosqlite.Connection, int] = {}
        self._file: tuple[int, int] | None = None
        self._closed = False

    async def run(self, fn: Callable[Concatenate[SqliteConnection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            connection = await self._pick()
            self._busy[connection] += 1
            try:
                return await on_thread(connection, fn, *args, **kwargs)
            finally:
                if connection in self._busy:
                    self._busy[connection] -= 1
        except SqliteError as error:
            raise translated(error, self._path) from error

    async def _pick(self) -> aiosqlite.Connection:
        self._check_open()
        try:
            status = self._path.stat()
        except FileNotFoundError:
            raise CorruptLogError(f"{self._path} is missing: the log has lost a shard. Restore a backup", path=str(self._path)) from None
        file = (status.st_dev, status.st_ino)
        idle = min(self._busy, key=self._busy.__getitem__, default=None)
        if file == self._file and idle is not None and not self._busy[idle]:
            return idle
        async with self._lock:
            if file != self._file:
                await self._retire()
                self._file = file
            idle = min(self._busy, key=self._busy.__getitem__, default=None)
            if idle is not None and (not self._busy[idle] or len(self._busy) >= READERS_PER_SHARD):
                return idle
            connection = await connect(self._open)
            try:
                self._check_open()
            except InvariantError:  # closed meanwhile, by somebody who did not see this one
                await close_connections([connection])
                raise
            self._busy[connection] = 0
            return connection

    def _check_open(self) -> None:
        if self._closed:
            raise InvariantError("the reader is closed")

    def _open(self) -> SqliteConnection:
        # First, so that a file that grows meanwhile can only be ahead of it.
        anchor = read_anchor(anchor_path(self._path.parent, self._shard))
        connection = open_reader(self._path)
        try:
            if file_version(connection, self._path) == 0:
                raise ConfigurationError(f"{self._path} holds no log yet", path=str(self._path))
            check_identity(connection, self._path, self._identity, self._shard)
            if anchor is not None and anchor.incarnation == self._identity.incarnation:
                # Without it a reader would show a log that lost its tail as if it were whole.
                end = "SELECT (SELECT coalesce(max(position), 0) FROM events), eventless FROM owner"
                position, eventless = connection.execute(end).fetchall()[0]
                check_anchor(connection, str(self._path), position, eventless, anchor)
        except BaseException:
            connection.close()
            raise
        return connection

    async def _retire(self) -> None:
        """Close the connections; what is under way on them ends first."""
        connections, self._busy = list(self._busy), {}
        await close_connections(connections)

    async def close(self) -> None:
        self._closed = True
        await self._retire()


class SqliteLogReader:
    """See `store.LogReader`. Made by `open`; must be closed, else its threads keep the interpreter alive."""

    def __init__(self, directory: Path, identity: LogIdentity) -> None:
        self.shards = identity.shards
        self.incarnation = identity.incarnation
        self._readers = [_ShardReaders(shard_path(directory, shard), identity, shard) for shard in range(identity.shards)]

    @classmethod
    async def open(cls, directory: Path) -> "SqliteLogReader":
        """Read the log in `directory`. No file is opened before it is asked for.

        Raises:
            ConfigurationError: no log there.
        """
        return cls(directory, read_identity(directory))

    def _shard(self, shard: int) -> _ShardReaders:
        if not 0 <= shard < self.shards:
            raise ValueError(f"the log has shards 0 to {self.shards - 1}, not {shard}")
        return self._readers[shard]

    def _of(self, stream: StreamId) -> int:
        return shard_of(*parse_stream_id(stream), self.shards)

    async def read(self, shard: int, *, after: int = 0, limit: int = 1_000) -> Sequence[RecordedEvent]:
        return await self._shard(shard).run(reads.read_page, shard, after, limit)

    async def scan(self, shard: int, plain: Container[str], take: Callable[[Sequence[Fact]], None]) -> None:
        scan, readers = ShardScan(shard, plain), self._shard(shard)
        rows = await readers.run(scan.fetch)
        while rows is not None:
            if rows == "by rows":
                take(await readers.run(scan.by_rows))
                rows = await readers.run(scan.fetch)
                continue
            # While SQLite puts the next page together, which needs no interpreter, another thread verifies and takes this one.
            scan.expect_fetch()
            verifying = asyncio.get_running_loop().run_in_executor(None, scan.hand_over, rows, take)
            failure: CuebookError | None = None
            try:
                rows = await readers.run(scan.fetch)
            except CuebookError as error:
                failure = error  # the page before comes first, and what may be wrong with it
            page = await verifying
            if page.doubtful:
                await readers.run(scan.check, page)
                take(page.facts)
            if failure is not None:
                raise failure

    async def read_stream(self, stream: StreamId, *, after: int = 0, limit: int = 1_000) -> Sequence[RecordedEvent]:
        shard = self._of(stream)
        return await self._shard(shard).run(reads.read_stream, shard, stream, after, limit)

    async def read_last(self, shard: int, *, before: int | None = None, limit: int = 50) -> Sequence[RecordedEvent]:
        return await self._shard(shard).run(reads.read_last, shard, before, limit)

    async def select(
        self, shard: int, wanted: Selection, *, after: int = 0, before: int | None = None, limit: int = 1_000, backwards: bool = False
    ) -> Selected:
        return await self._shard(shard).run(read_selected, shard, wanted, after, before, limit, backwards)

    async def under_way(self, shard: int) -> UnderWay:
        return await self._shard(shard).run(reads.read_under_way, shard)

    async def head(self, stream: StreamId) -> Head | None:
        return await self._shard(self._of(stream)).run(reads.read_head, stream)

    async def event(self, event_id: EventId) -> RecordedEvent | None:
        try:
            time = int(event_id[:TIME_DIGITS], 16)
        except ValueError:
            return None
        for shard in range(self.shards):
            event = await self._shard(shard).run(reads.read_event, shard, event_id, time)
            if event is not None:
                return event
        return None

    async def at(self, shard: int, position: Position) -> RecordedEvent | None:
        return await self._shard(shard).run(reads.read_at, shard, position)

    async def streams(self, *, after: str = "", limit: int = 1_000) -> Sequence[StreamInfo]:
        limit = reads.page_limit(limit)
        found: list[StreamInfo] = []
        for shard in range(self.shards):
            found += await self._shard(shard).run(reads.read_streams, shard, after, limit)
        return sorted(found, key=lambda info: info.stream)[:limit]

    async def info(self, shard: int) -> ShardInfo:
        return await self._shard(shard).run(reads.read_info, shard)

    async def has_sealed_streams(self) -> bool:
        """Whether any stream of the log was ever sealed (S29)."""
        for shard in range(self.shards):
            if await self._shard(shard).run(has_sealed_streams):
                return True
        return False

    async def formats(self, shard: int) -> Sequence[Format]:
        return await self._shard(shard).run(reads.read_formats)

    async def inbox(self, stream: StreamId, command_id: CommandId) -> InboxEntry | None:
        shard = self._of(stream)
        return await self._shard(shard).run(reads.read_inbox, shard, stream, command_id)

    async def snapshot(self, stream: StreamId) -> Snapshot | None:
        return await self._shard(self._of(stream)).run(reads.read_snapshot, stream)

    async def letters(self, shard: int, stream: StreamId | None = None) -> Sequence[Letter]:
        return (await self._shard(shard).run(reads.read_letters, shard, stream))[0]

    async def stopped(self, shard: int) -> Sequence[StoppedActor]:
        return (await self._shard(shard).run(reads.read_stopped, shard))[0]

    async def waits(self, shard: int) -> Sequence[WaitEntry]:
        return (await self._shard(shard).run(reads.read_waits, shard))[0]

    async def close(self) -> None:
        async with AsyncExitStack() as stack:
            for readers in self._readers:
                stack.push_async_callback(readers.close)
