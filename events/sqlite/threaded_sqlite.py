"""The writer of one shard for programs that bring no event loop, or any: one thread that writes, one that reads, futures of both.

`store_sqlite.SqliteShard` is the same on asyncio. Here whoever submits may be any thread; what is submitted while a transaction runs is the
next batch, as in `group_commit`. All rules of an append are those of `writer_sqlite`: epoch, path, anchor (S3, S18, S28).
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import msgspec

from events.clock import Clock, Entropy, SystemClock, SystemEntropy
from events.companion import Companion
from events.envelope import NewEvent
from events.errors import (
    AppendOutcomeUnknownError,
    ConfigurationError,
    CorruptLogError,
    CuebookError,
    InvariantError,
    SupersededError,
)
from events.limits import COMMIT_BYTES_MAX, COMMIT_TURNS_MAX
from events.log_directory import anchor_path, read_identity, shard_path
from events.sqlite.reads_sqlite import FoundHead
from events.sqlite.sqlite_library import Durability, SqliteConnection, SqliteError, open_reader, open_writer, translated
from events.sqlite.writer_sqlite import ShardWriter
from events.store import Append, Outcome, Ownership
from events.submitted import Submitted

P = ParamSpec("P")
T = TypeVar("T")


class ThreadedStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since the start. largest: groups in one commit. What joined a group is part of it."""

    commits: int
    groups: int
    events: int
    largest: int


class Queued(Submitted[Outcome]):
    """What becomes of a group that was submitted. The rest is the shard's: what else joined the group while it waited for its commit."""

    __slots__ = ("bytes", "group", "is_taken", "more")

    def __init__(self, group: Append) -> None:
        super().__init__()
        self.group = group
        self.more: list[NewEvent] = []
        self.bytes = _size(group.events)
        self.is_taken = False

    def whole(self) -> Append:
        """The group with all that joined it."""
        return msgspec.structs.replace(self.group, events=[*self.group.events, *self.more]) if self.more else self.group


def _size(events: Sequence[NewEvent]) -> int:
    size = 0
    for event in events:
        size += len(event.payload)
    return size


class ThreadedShard:
    """See the module. Made by `open`. A forgotten one does not keep the interpreter from ending; its anchor is then as of its last sync."""

    def __init__(
        self, directory: Path, shard: int, *, durability: Durability, companion: Companion | None, clock: Clock, entropy: Entropy
    ) -> None:
        identity = read_identity(directory)
        if not 0 <= shard < identity.shards:
            raise ConfigurationError(f"the log in {directory} has shards 0 to {identity.shards - 1}, not {shard}")
        self.shard = shard
        self.incarnation = identity.incarnation
        self.path = shard_path(directory, shard)
        self.ownership: Ownership | None = None
        self._durability: Durability = durability
        self._writer = ShardWriter(self.path, anchor_path(directory, shard), identity, shard, clock, entropy, companion)
        self._writing: SqliteConnection | None = None
        self._reading: SqliteConnection | None = None
        self._on_writer = ThreadPoolExecutor(1, f"cuebook-writer-{shard}")
        self._on_reader = ThreadPoolExecutor(1, f"cuebook-reader-{shard}")
        self._queue: deque[Queued] = deque()
        self._guard = threading.Lock()
        self._pumping = False
        self._closed = False
        self._commits = self._groups = self._events = self._largest = 0

    @classmethod
    def open(
        cls,
        directory: Path,
        shard: int,
        *,
        worker: str,
        durability: Durability = "disk",
        companion: Companion | None = None,
        clock: Clock | None = None,
        entropy: Entropy | None = None,
        before: Callable[[SqliteConnection], None] | None = None,
    ) -> "ThreadedShard":
        """Open the shard and become its owner (S2); blocks. What the former owner appends from now on is refused.

        Args:
            before: called with the connection before the shard is taken; what it raises leaves the owner as it was.

        Raises: as `SqliteShard.open` and `ShardStore.take`.
        """
        store = cls(
            directory, shard, durability=durability, companion=companion, clock=clock or SystemClock(), entropy=entropy or SystemEntropy()
        )
        try:
            store._on_writer.submit(store._take, worker, before).result()
        except BaseException:
            store._on_writer.submit(store._close_connections).result()
            store._end_threads()
            raise
        return store

    def _take(self, worker: str, before: Callable[[SqliteConnection], None] | None) -> None:
        self._open_connections()
        connection = self._connection()
        try:
            if before is not None:
                before(connection)
        except SqliteError as error:
            raise translated(error, self.path) from error
        self.ownership = self._writer.alone(connection, self._writer.take, worker)

    # On the writing thread

    def _open_connections(self) -> None:
        if not self.path.exists():
            raise CorruptLogError(f"{self.path} is missing: the log has lost a shard. Restore a backup", path=str(self.path))
        try:
            self._writing = open_writer(self.path, self._durability)
            self._writer.alone(self._writing, self._writer.prepare)
        except SqliteError as error:
            raise translated(error, self.path) from error

    def _close_connections(self) -> None:
        connections = (self._reading, self._writing)
        self._reading = self._writing = None
        for connection in connections:
            if connection is not None:
                try:
                    connection.close()
                except SqliteError:
                    continue  # after an I/O error it may report that error again; it is closed all the same

    def _connection(self) -> SqliteConnection:
        """The writing connection; a new one after an I/O error, which leaves the old in doubt (F-17)."""
        if self._writer.must_reopen and self._writing is not None:
            writing, self._writing = self._writing, None
            try:
                writing.close()
            except SqliteError:
                self._writing = None
        if self._writing is None:
            self._open_connections()
            self._writer.must_reopen = False
        if self._writing is None:
            raise InvariantError(f"shard {self.shard} is not open", shard=self.shard)
        return self._writing

    def _look_again(self) -> None:
        """After an I/O error: what is in memory is as the file says before anybody decides on it again."""
        if self._writer.must_reopen:
            try:
                self._connection()
            except CuebookError:
                return  # tried again with the next append, which is told if it cannot be done

    def _pump(self) -> None:
        """Commit what waits, batch by batch, until nothing does."""
        while True:
            batch = self._next_batch()
            if not batch:
                return
            groups = [queued.whole() for queued in batch]
            try:
                if self._writer.lost is not None:
                    raise SupersededError(self._writer.lost, shard=self.shard)
                outcomes, _ = self._writer.alone(self._connection(), self._writer.commit, groups, (), ())
            except Exception as error:  # noqa: BLE001 - whatever it is must reach those who wait, and leave the writer running
                self._look_again()
                for queued in batch:
                    queued.set_exception(_failure(error))
                continue
            self._commits += 1
            self._groups += len(groups)
            self._events += sum(len(group.events) for group in groups)
            self._largest = max(self._largest, len(groups))
            for queued, outcome in zip(batch, outcomes, strict=True):
                queued.set_result(outcome)

    def _next_batch(self) -> list[Queued]:
        batch: list[Queued] = []
        turns = size = 0
        with self._guard:
            while self._queue and turns < COMMIT_TURNS_MAX and (not batch or size + self._queue[0].bytes <= COMMIT_BYTES_MAX):
                queued = self._queue.popleft()
                queued.is_taken = True
                batch.append(queued)
                turns += 1 + len(queued.more)
                size += queued.bytes
            self._pumping = bool(batch)
        return batch

    # From any thread

    def submit(self, group: Append) -> Queued:
        """Queue `group`; groups are committed in the order of submission.

        It ends with the outcome when that is durable, or with what `ShardStore.append` raises.
        """
        queued = Queued(group)
        with self._guard:
            if self._closed:
                raise InvariantError(f"shard {self.shard} is closed", shard=self.shard)
            self._queue.append(queued)
            if not self._pumping:
                self._pumping = True
                self._on_writer.submit(self._pump)
        return queued

    def join(self, queued: Queued, events: Sequence[NewEvent]) -> bool:
        """Append `events` with the group of `queued`, behind its own: one atomic group with one outcome. False: too late, submit them.

        A stream that is written faster than it is committed costs less by it: 20 graphs at once took a fifth of the groups (2026-11).
        """
        size = _size(events)
        with self._guard:
            if queued.is_taken or queued.bytes + size > COMMIT_BYTES_MAX or len(queued.more) + len(events) >= COMMIT_TURNS_MAX:
                return False
            queued.more += events
            queued.bytes += size
        return True

    def write(self, fn: Callable[[ShardWriter, SqliteConnection], T]) -> "Future[T]":
        """Run `fn` alone on the writing thread, behind what was submitted before."""

        def run() -> T:
            connection = self._connection()
            try:
                return self._writer.alone(connection, lambda _: fn(self._writer, connection))
            except SqliteError as error:
                raise translated(error, self.path) from error

        return self._on_writer.submit(run)

    def read(self, fn: Callable[Concatenate[SqliteConnection, P], T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Run `fn` with a read-only connection on the reading thread: it sees what is committed."""

        def run() -> T:
            try:
                if self._reading is None:
                    self._reading = open_reader(self.path)
                return fn(self._reading, *args, **kwargs)
            except SqliteError as error:
                raise translated(error, self.path) from error

        return self._on_reader.submit(run)

    def head(self, stream: str) -> FoundHead | None:
        """Where `stream` ends, if that is in memory; else its row in the file says it (`reads_sqlite.flushed_head`)."""
        return self._writer.held_memory().heads.get(stream)

    def check_owner(self) -> "Future[None]":
        """Whether this writer still owns the shard (S3). Raises SupersededError in the future if not."""
        return self.write(lambda writer, connection: writer.check_owner(connection))

    def statistics(self) -> ThreadedStatistics:
        return ThreadedStatistics(commits=self._commits, groups=self._groups, events=self._events, largest=self._largest)

    def close(self) -> None:
        """Commit what is queued, flush heads, make the anchor durable, close; blocks. Idempotent."""
        with self._guard:
            if self._closed:
                return
            self._closed = True
        self._on_reader.submit(self._close_reader).result()
        self._on_writer.submit(self._end).result()
        self._end_threads()

    def _close_reader(self) -> None:
        if self._reading is not None:
            self._reading.close()
            self._reading = None

    def _end(self) -> None:
        self._pump()
        try:
            if self._writing is not None and not self._writer.must_reopen:
                self._writer.alone(self._writing, self._writer.flush)
        finally:
            self._close_connections()
            self._writer.close_anchor()

    def _end_threads(self) -> None:
        self._on_writer.shutdown()
        self._on_reader.shutdown()


def _failure(error: Exception) -> CuebookError:
    if isinstance(error, CuebookError):
        return error
    unknown = AppendOutcomeUnknownError(f"the append failed in an unforeseen way: {error!r}; look up the command id")
    unknown.__cause__ = error
    return unknown
