"""What the writer of one shard does inside one transaction, all of it on the database thread (S3, S18, S24, S27, S28). No asyncio in here.

`store_sqlite.SqliteShard` calls these methods one at a time through `sqlite_library.on_thread`, with the connection as first argument.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, TypeVar

from events.appending import ENTROPY_PER_EVENT, OPEN_STATUSES
from events.clock import Clock, Entropy
from events.companion import Companion
from events.crash_points import CrashPoint, reached
from events.errors import (
    AppendError,
    AppendOutcomeUnknownError,
    ConfigurationError,
    CorruptLogError,
    CuebookError,
    InvariantError,
    LogFullError,
    SupersededError,
    TransientError,
)
from events.ids import StreamId, Version
from events.limits import INBOX_KEPT_S, WRITE_LOCK_S
from events.log_directory import LogIdentity, check_identity
from events.sqlite.anchor import AnchorFile, read_anchor
from events.sqlite.append_sqlite import Draft, ShardPlace
from events.sqlite.heads import ShardMemory, load_memory
from events.sqlite.indexes_sqlite import check_indexes
from events.sqlite.schema import migrate
from events.sqlite.sqlite_library import (
    TIGHT_CHECKPOINT_PAGES,
    SqliteConnection,
    SqliteError,
    error_name,
    is_busy,
    is_corrupt,
    is_full,
    is_statement_fault,
)
from events.sqlite.wal_room import keep_room
from events.store import Accepted, Append, Arrival, Committed, Conflict, Outcome, Ownership

P = ParamSpec("P")
T = TypeVar("T")
Send = tuple[StreamId, StreamId, str, int]

PURGE_ROWS: Final = 32
"""At most so many inbox rows are looked at, and forgotten, per commit."""
_PURGE_PAUSE_US: Final = 60_000_000
LONE_GROUPS: Final = 8
"""A commit of as few is as good as alone: nobody shares what it waits for."""
ROOM_EVERY: Final = 8
"""Of such commits one looks whether the write-ahead log has room."""


class ShardWriter:
    """The state of a writer. Fields without underscore are read by the adapter; all are written on the database thread only, in `alone`,
    but for what `raise_floor` raises.

    must_reopen: the connection is in doubt after an I/O error and must be replaced before its next use (F-17).
    lost: why this writer may never write again, None while it may.
    """

    def __init__(
        self, path: Path, anchor_path: Path, identity: LogIdentity, shard: int, clock: Clock, entropy: Entropy,
        companion: Companion | None = None,
    ) -> None:  # fmt: skip
        self.shard = shard
        self.memory: ShardMemory | None = None
        self.ownership: Ownership | None = None
        self.warnings: list[str] = []
        self.must_reopen = False
        self.lost: str | None = None
        self._floor = 0
        # What looks at the clock and then records must not be overtaken by a promise in between (S30).
        self._guard = threading.Lock()
        self._path = path
        self._anchor_path = anchor_path
        self._identity = identity
        self._clock = clock
        self._entropy = entropy
        self._companion = companion
        self._anchor: AnchorFile | None = None
        self._file: tuple[int, int] = (0, 0)
        self._lone_commits = 0

    def alone(
        self, connection: SqliteConnection, act: Callable[Concatenate[SqliteConnection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `act` on the database thread, with no floor raised under it."""
        with self._guard:
            return act(connection, *args, **kwargs)

    def raise_floor(self, time: int) -> int:
        """`ShardStore.raise_floor`, from any thread; never waits."""
        # What a commit of unknown outcome wrote may show when the file is opened again.
        if self.memory is not None and not self.must_reopen and self._guard.acquire(blocking=False):
            try:
                self._floor = self.memory.time = max(self.memory.time, time)
            finally:
                self._guard.release()
        return self._floor

    def prepare(self, connection: SqliteConnection) -> None:
        """Migrate and check a file that was just opened, for the first time or again after an error, and load what it holds."""
        if self._file == (0, 0):
            self._file = _file_identity(self._path)
        self._check_file()
        migrate(connection, self._path, self._clock.wall_us())
        check_identity(connection, self._path, self._identity, self.shard)
        connection.execute("BEGIN")
        try:
            check_indexes(connection, self._path)
            self._load(connection)
        finally:
            connection.execute("ROLLBACK")

    def _load(self, connection: SqliteConnection) -> None:
        """Rebuild the memory. The anchor is read first: a file that goes on growing meanwhile can only be ahead of
        it."""
        anchor = read_anchor(self._anchor_path)
        self.warnings = []
        if anchor is not None and anchor.incarnation != self._identity.incarnation:
            raise ConfigurationError(
                f"{self._anchor_path} belongs to another log ({anchor.incarnation}). Put the right anchor back, or remove the file if it "
                "is known to be wrong: without it a lost tail cannot be noticed",
                path=str(self._anchor_path),
            )
        self.memory = load_memory(connection, self.shard, str(self._path), anchor)
        # The file knows nothing of a promise.
        self.memory.time = max(self.memory.time, self._floor)
        if anchor is None and (self.memory.position or self.memory.eventless):
            self.warnings.append(f"{self._anchor_path.name} is missing: a lost tail of this shard would not have been noticed (S28)")
        elif anchor is not None and (anchor.device, anchor.inode) != self._file:
            self.warnings.append(f"{self._path.name} is another file than its anchor was written for: it was copied or restored")

    def take(self, connection: SqliteConnection, worker: str, wait_s: float = WRITE_LOCK_S) -> Ownership:
        """`ShardStore.take`."""
        self._check_file()
        connection.execute(f"PRAGMA busy_timeout = {int(wait_s * 1_000)}").fetchall()
        try:
            self._begin(connection)
        finally:
            connection.execute(f"PRAGMA busy_timeout = {int(WRITE_LOCK_S * 1_000)}").fetchall()
        try:
            epoch = connection.execute("SELECT epoch FROM owner").fetchall()[0][0] + 1
            token = self._entropy.token_bytes(16)
            connection.execute(
                "UPDATE owner SET epoch = ?, token = ?, worker = ?, taken_at_us = ?", (epoch, token, worker, self._clock.wall_us())
            )
            # The former owner may have appended since we opened the file.
            self._load(connection)
            if self._companion is not None:
                self._companion.prepare(connection)
            reached(CrashPoint.TAKE_BUMPED)
            connection.execute("COMMIT")
        except SqliteError as error:
            raise self._failed(connection, error) from error
        except BaseException:
            self._roll_back(connection)
            raise
        reached(CrashPoint.TAKE_COMMITTED)
        ownership = Ownership(shard=self.shard, epoch=epoch, token=token, worker=worker, incarnation=self._identity.incarnation)
        self.ownership = ownership
        self.lost = None
        if self._anchor is None:
            self._anchor = AnchorFile(self._anchor_path)
        self._note_anchor(self.held_memory())
        return ownership

    def commit(
        self, connection: SqliteConnection, groups: Sequence[Append], arrivals: Sequence[Arrival], sends: Sequence[Send],
        keys: Sequence[tuple[StreamId, str]] = (),
    ) -> tuple[list[Outcome], list[Accepted]]:  # fmt: skip
        """`ShardStore.commit`."""
        entropy = self._entropy.token_bytes(ENTROPY_PER_EVENT * sum(len(group.events) for group in groups))
        now_us = self._clock.wall_us()
        draft: Draft | None = None
        outcomes: list[Outcome] = []
        accepted: list[Accepted] = []
        reached(CrashPoint.APPEND_CALLED)
        for careful in (False, True):
            self._begin(connection)
            try:
                draft = Draft(connection, self._fenced(connection), self._place(), now_us, entropy, careful=careful)
                decide = _decide_one_by_one if careful else _decide_together
                outcomes, accepted = decide(connection, draft, groups, arrivals)
                draft.acknowledge(sends)
                if self._companion is not None:
                    self._companion.write(connection, [e for done in outcomes if isinstance(done, Committed) for e in done.events])
                if keys:
                    draft.note_keys(keys)
                if self._purge_is_due(now_us):
                    self._purge(connection, now_us)
                draft.finish()
                self._keep_room(len(groups))
                reached(CrashPoint.APPEND_READY)
                connection.execute("COMMIT")
                break
            except (SqliteError, ValueError, TypeError, OverflowError, CorruptLogError) as error:
                if not careful and is_statement_fault(error):
                    self._roll_back(connection)
                    continue
                if isinstance(error, CuebookError):
                    self._roll_back(connection)
                    raise
                raise self._failed(connection, error) from error
            except BaseException:
                self._roll_back(connection)
                raise
        if draft is None:
            raise InvariantError("a commit without a draft")
        reached(CrashPoint.APPEND_COMMITTED)
        draft.keep()
        self._check_file()
        if draft.wrote:
            self._note_anchor(self.held_memory())
        reached(CrashPoint.APPEND_ANCHORED)
        return outcomes, accepted

    def transact(self, connection: SqliteConnection, events: int, act: Callable[[Draft], T]) -> T:
        """Run `act` on a draft in one fenced transaction, which it may leave by raising. events: how many it appends at most. Raises as
        `commit`, and what `act` raises."""
        self._begin(connection)
        try:
            memory = self._fenced(connection)
            entropy = self._entropy.token_bytes(ENTROPY_PER_EVENT * events)
            draft = Draft(connection, memory, self._place(), self._clock.wall_us(), entropy, careful=True)
            result = act(draft)
            draft.finish()
            connection.execute("COMMIT")
        except SqliteError as error:
            raise self._failed(connection, error) from error
        except BaseException:
            self._roll_back(connection)
            raise
        draft.keep()
        self._check_file()
        if draft.wrote:
            self._note_anchor(memory)
        return result

    def scrub(self, connection: SqliteConnection) -> bool:
        """`ShardStore.scrub`: VACUUM writes the live rows anew, and the checkpoint empties the write-ahead log."""
        self._check_file()
        try:
            connection.execute("VACUUM")
            return bool(connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()[0][0] == 0)
        except SqliteError as error:
            if is_busy(error):
                return False
            raise self._failed(connection, error) from error

    def _place(self) -> ShardPlace:
        if self.ownership is None:
            raise InvariantError(f"shard {self.shard} was not taken before it was written", shard=self.shard)
        return ShardPlace(
            shard=self.shard, shards=self._identity.shards, incarnation=self._identity.incarnation, epoch=self.ownership.epoch
        )

    def held_memory(self) -> ShardMemory:
        if self.memory is None:
            raise InvariantError(f"shard {self.shard} is not open", shard=self.shard)
        return self.memory

    def _begin(self, connection: SqliteConnection) -> None:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except SqliteError as error:
            if is_busy(error):
                raise TransientError(f"the write lock of {self._path} was not free within a second", path=str(self._path)) from error
            raise self._failed(connection, error) from error

    def check_owner(self, connection: SqliteConnection) -> None:
        """Raises SupersededError if an append would be refused (S3)."""
        if self.lost is not None:
            raise SupersededError(self.lost, shard=self.shard)
        self._check_file()
        self._fenced(connection)

    def _fenced(self, connection: SqliteConnection) -> ShardMemory:
        """The memory, if nobody else has written since it was made (S3).

        Raises:
            SupersededError: somebody has.
        """
        memory, ownership = self.held_memory(), self.ownership
        if ownership is None:
            raise InvariantError(f"shard {self.shard} was not taken before it was written", shard=self.shard)
        epoch, token, position = connection.execute("SELECT epoch, token, (SELECT max(position) FROM events) FROM owner").fetchall()[0]
        if (epoch, token) != (ownership.epoch, ownership.token):
            self.lost = f"shard {self.shard} has a new owner: epoch {epoch}, ours was {ownership.epoch}"
            raise SupersededError(self.lost, shard=self.shard, epoch=ownership.epoch, current_epoch=epoch)
        if (position or 0) != memory.position:
            self.lost = f"shard {self.shard} is at position {position}, we left it at {memory.position}: somebody else wrote to it"
            raise SupersededError(self.lost, shard=self.shard, expected=memory.position, found=position)
        return memory

    def _check_file(self) -> None:
        """The last fence (S3): a file that was replaced under the path takes our appends where nobody looks.

        Raises:
            SupersededError: it was.
        """
        try:
            found = _file_identity(self._path)
        except OSError:
            found = None
        if found != self._file:
            self.lost = f"{self._path} was replaced while it was open: what is written now is not in the file that others see"
            raise SupersededError(self.lost, shard=self.shard, path=str(self._path))

    def _keep_room(self, groups: int) -> None:
        """Within a transaction of so many groups. Raises as `_check_file`."""
        if groups > LONE_GROUPS:
            return
        self._lone_commits += 1
        if self._lone_commits % ROOM_EVERY == 0:
            with suppress(OSError), Path(f"{self._path}-wal").open("r+b", buffering=0) as wal:
                self._check_file()  # so it is the log of the file that we write, and not of another in its place
                keep_room(wal.fileno())

    def _note_anchor(self, memory: ShardMemory) -> None:
        if self._anchor is None or self.ownership is None:
            return
        try:
            self._anchor.write(
                epoch=self.ownership.epoch, token=self.ownership.token, incarnation=self._identity.incarnation,
                position=memory.position, eventless=memory.eventless, rolling_hash=memory.rolling,
                event_hash=memory.event_hash, identity=self._file,
            )  # fmt: skip
            self._anchor.sync_if_due(self._clock.monotonic())
        except OSError as error:
            # The commit itself is durable, so it must not be reported as failed; `info` says that its guard is not.
            self.warnings = [f"{self._anchor_path.name} cannot be written: {error}"]

    def _failed(self, connection: SqliteConnection, error: BaseException) -> CuebookError:
        """The error of ours for a failed transaction, which is rolled back. Whatever is not surely harmless is unknown
        (S18)."""
        self._roll_back(connection)
        path = str(self._path)
        if is_full(error, self._path):
            with suppress(SqliteError):
                connection.execute(f"PRAGMA wal_autocheckpoint={TIGHT_CHECKPOINT_PAGES}").fetchall()
            return LogFullError(f"no space left for {self._path}: nothing was written", path=path)
        if is_corrupt(error):
            return CorruptLogError(f"{self._path} is damaged: {error}. Run: cuebook verify", path=path)
        # The same handle is not used again after an I/O error (F-17).
        self.must_reopen = True
        return AppendOutcomeUnknownError(
            f"{self._path}: {error} ({error_name(error)}); look up each command id", path=path, sqlite_error=error_name(error)
        )

    def _roll_back(self, connection: SqliteConnection) -> None:
        if connection.in_transaction:
            try:
                connection.execute("ROLLBACK")
            except SqliteError:
                self.must_reopen = True

    def _purge_is_due(self, now_us: int) -> bool:
        return now_us >= self.held_memory().purge_at_us

    def _purge(self, connection: SqliteConnection, now_us: int) -> None:
        """Forget commands that were finished long ago (S24): a few rows per commit, from the oldest, never a scan of
        all."""
        memory = self.held_memory()
        oldest_kept_us = now_us - INBOX_KEPT_S * 1_000_000
        rows = connection.execute(
            "SELECT id, status, received_at_us, completed_at_us FROM inbox WHERE id > ? ORDER BY id LIMIT ?",
            (memory.purge_after, PURGE_ROWS),
        ).fetchall()
        open_statuses = {status.value for status in OPEN_STATUSES}
        gone = []
        more = len(rows) == PURGE_ROWS
        for row_id, status, received_at_us, completed_at_us in rows:
            if received_at_us >= oldest_kept_us:
                more = False
                break
            # One that took long, or still does, is passed over; it is looked at again in the next round.
            memory.purge_after = row_id
            if status not in open_statuses and (completed_at_us or received_at_us) < oldest_kept_us:
                gone.append((row_id,))
        connection.executemany("DELETE FROM inbox WHERE id = ?", gone)
        if not more:
            memory.purge_after, memory.purge_at_us = 0, now_us + _PURGE_PAUSE_US

    def flush(self, connection: SqliteConnection) -> None:
        """Write the heads before closing, if we still may. Only saves the next opening a scan of the last events, so it may fail."""
        memory = self.memory
        if memory is None or self.ownership is None or self.lost is not None or memory.position <= memory.flushed_position:
            return
        try:
            connection.execute("BEGIN IMMEDIATE")
            self._fenced(connection)
            draft = Draft(connection, memory, self._place(), self._clock.wall_us(), b"")
            draft.flush()
            connection.execute("COMMIT")
            draft.keep()
        except (SqliteError, AppendError):
            self._roll_back(connection)

    def sync_anchor(self, connection: SqliteConnection) -> None:
        """Make the anchor durable now if it is not."""
        if self._anchor is not None:
            self._anchor.sync(self._clock.monotonic())

    def close_anchor(self) -> None:
        """Make the anchor durable and close it."""
        if self._anchor is not None:
            self._anchor.close()


def _file_identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _decide_together(
    connection: SqliteConnection, draft: Draft, groups: Sequence[Append], arrivals: Sequence[Arrival]
) -> tuple[list[Outcome], list[Accepted]]:
    """The fast way: all is decided, then written with one executemany per table."""
    accepted = [draft.take_arrival(arrival) for arrival in arrivals]
    draft.expect(groups)
    outcomes = [draft.decide(group) for group in groups]
    draft.write()
    return outcomes, accepted


def _decide_one_by_one(
    connection: SqliteConnection, draft: Draft, groups: Sequence[Append], arrivals: Sequence[Arrival]
) -> tuple[list[Outcome], list[Accepted]]:
    """The careful way, after the fast one failed: what cannot be stored is refused alone (S18)."""

    def alone(act: Callable[[], T], refused: Callable[[str], T]) -> T:
        restore = draft.checkpoint()
        connection.execute("SAVEPOINT one")
        try:
            result = act()
            draft.write()
        except (SqliteError, ValueError, TypeError, OverflowError, CorruptLogError) as error:
            if not is_statement_fault(error):
                raise
            connection.execute("ROLLBACK TO one")
            restore()
            result = refused(str(error))
        connection.execute("RELEASE one")
        return result

    def conflict(group: Append, reason: str) -> Outcome:
        try:
            actual = draft.version_of(group.stream)
        except CorruptLogError:
            actual = Version(0)  # its row is damaged, so nobody knows: that is the reason, and no matter of the other groups (I-20)
        return Conflict(actual=actual, reason=f"it cannot be stored: {reason}")

    def refusal(reason: str) -> Accepted:
        return Accepted(result="refused")

    accepted = [alone(partial(draft.take_arrival, arrival), refusal) for arrival in arrivals]
    outcomes = [alone(partial(draft.decide, group), partial(conflict, group)) for group in groups]
    return outcomes, accepted
