"""A `Projection` as a `View`: one SQLite file with its rows, its checkpoint and its parked streams, all moved by one transaction per batch.

Commits are not fsynced (synchronous=NORMAL): the file is consistent after a power loss, perhaps some batches old, and the log is applied
again from the checkpoint in it. Deleted bytes are overwritten (secure_delete), because an erased stream may not stay in unused parts.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import aiosqlite
import msgspec

from events.clock import Clock, SystemClock
from events.crash_points import CrashPoint, reached
from events.envelope import RecordedEvent
from events.errors import ConfigurationError, InvariantError
from events.ids import StreamId
from events.sqlite.sqlite_library import (
    SqliteConnection,
    SqliteError,
    close_connection,
    connect,
    error_name,
    is_corrupt,
    on_thread,
    open_writer,
)
from projections.comparing import full_text_tables
from projections.errors import CheckpointError, PoisonError, ProjectionError, RebuildNeededError, ViewUnavailableError
from projections.projection import Projection, forgets
from projections.view import ERASED, Parked, Positions

T = TypeVar("T")

VIEW_FILE: Final = "view.db"
VIEW_FORMAT: Final = 1
APPLICATION_ID: Final = 0x43564957
_AWAY: Final = ("SQLITE_FULL", "SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_IOERR", "SQLITE_NOMEM", "SQLITE_CANTOPEN", "SQLITE_READONLY")
"""What says something of the machine, and nothing of the event."""
_TABLES: Final = (
    """CREATE TABLE cue_view (
        id INTEGER PRIMARY KEY CHECK (id = 1), format INTEGER NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, log TEXT NOT NULL,
        created_at_us INTEGER NOT NULL, applied_at_us INTEGER NOT NULL, scrub_due INTEGER NOT NULL) STRICT""",
    # born: the position of the shard when the view was begun.
    "CREATE TABLE cue_positions (shard INTEGER PRIMARY KEY, position INTEGER NOT NULL, born INTEGER NOT NULL) STRICT",
    """CREATE TABLE cue_parked (
        shard INTEGER NOT NULL, position INTEGER NOT NULL, stream TEXT NOT NULL, version INTEGER NOT NULL, type TEXT NOT NULL, reason TEXT
        NOT NULL, parked_at_us INTEGER NOT NULL, held INTEGER NOT NULL, PRIMARY KEY (shard, position)) STRICT, WITHOUT ROWID""",
    f"PRAGMA application_id={APPLICATION_ID}",
)


class ViewState(msgspec.Struct, frozen=True, kw_only=True):
    """What the file of a view says of itself. applied_at_us: wall clock of its last commit. scrub_due: bytes of an erased
    stream may be left in it."""

    name: str
    version: int
    log: str
    created_at_us: int
    applied_at_us: int
    positions: dict[int, int]
    parked: list[Parked]
    scrub_due: bool


def read_state(db: SqliteConnection) -> ViewState:
    """Raises: RebuildNeededError: it is no view of a format that we know."""
    try:
        row = db.execute("SELECT format, name, version, log, created_at_us, applied_at_us, scrub_due FROM cue_view").fetchall()[0]
        positions = dict(db.execute("SELECT shard, position FROM cue_positions").fetchall())
        parked = read_parked(db)
    except IndexError as error:
        raise RebuildNeededError("the file does not say what it is a view of") from error
    except SqliteError as error:
        raise away_or_damaged(error) from error
    if row[0] != VIEW_FORMAT:
        raise RebuildNeededError(f"the view has format {row[0]}; this program reads {VIEW_FORMAT}")
    return ViewState(
        name=row[1], version=row[2], log=row[3], created_at_us=row[4], applied_at_us=row[5], positions=positions, parked=parked,
        scrub_due=bool(row[6]),
    )  # fmt: skip


def read_parked(db: SqliteConnection) -> list[Parked]:
    """The parked streams, in the order of their positions."""
    rows = db.execute(
        "SELECT stream, shard, position, version, type, reason, parked_at_us, held FROM cue_parked ORDER BY shard, position"
    ).fetchall()
    return [
        Parked(
            stream=StreamId(row[0]), shard=row[1], position=row[2], version=row[3], type=row[4], reason=row[5], parked_at_us=row[6],
            held=row[7],
        )
        for row in rows
    ]  # fmt: skip


def is_away(error: BaseException) -> bool:
    """Whether an error of SQLite may pass by itself: a full disk, a lock, I/O."""
    return isinstance(error, SqliteError) and error_name(error).startswith(_AWAY)


def away_or_damaged(error: SqliteError) -> ProjectionError:
    """An error of SQLite that no event is to blame for."""
    if is_away(error):
        return ViewUnavailableError(f"the view cannot be used now: {error}")
    return RebuildNeededError(f"the view is damaged: {error}")


class SqliteView:
    """See `view.View`. Made by `open`; must be closed, else its thread keeps the interpreter alive."""

    def __init__(self, projection: Projection, folder: Path, log: str, clock: Clock) -> None:
        self.name = projection.name
        self.version = projection.version
        self.handles: Sequence[str] = tuple(projection.handles)
        self.sealed = projection.sealed
        self.projection = projection
        self.folder = folder
        self.path = folder / VIEW_FILE
        self._log = log
        self._clock = clock
        self._db: aiosqlite.Connection | None = None
        self._born: Positions = {}
        self.scrub_due = False
        """Whether bytes of an erased stream may be left, because a reader holds an older state of the file."""

    @classmethod
    async def open(
        cls, projection: Projection, folder: Path, log: str, *, clock: Clock | None = None, heads: Positions | None = None
    ) -> "SqliteView":
        """Open the view in `folder`, or make an empty one there.

        Args:
            log: incarnation of the log that it is a view of.
            heads: where the log stood just before, for a view that is made: see `_erase`.

        Raises:
            RebuildNeededError: what is there is damaged, of another version or another log. ViewUnavailableError: the disk is full or away.
            ConfigurationError: `create` failed.
        """
        view = cls(projection, folder, log, clock or SystemClock())
        view._born = heads or {}
        try:
            view._db = await connect(view._opened)
        except SqliteError as error:
            raise away_or_damaged(error) from error
        try:
            await view._run(view._load)
        except BaseException:
            await view.close()
            raise
        return view

    def _opened(self) -> SqliteConnection:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        db = open_writer(self.path, "process", create=True)
        try:
            db.execute("PRAGMA secure_delete=ON").fetchall()
        except BaseException:
            db.close()
            raise
        return db

    async def _run(self, function: Callable[..., T], *args: Any) -> T:
        if self._db is None:
            raise InvariantError(f"the view {self.name} is closed")
        try:
            return await on_thread(self._db, function, *args)
        except SqliteError as error:
            raise away_or_damaged(error) from error

    # -- on the thread of the file ------------------------------------------------------------------------------------------------

    def _load(self, db: SqliteConnection) -> None:
        if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'cue_view'").fetchall():
            self._create(db)
        state = read_state(db)
        if (state.name, state.version, state.log) != (self.name, self.version, self._log):
            raise RebuildNeededError(
                f"{self.path} is version {state.version} of {state.name} of log {state.log}, not version {self.version} of {self.name} of "
                f"log {self._log}"
            )
        self._born = dict(db.execute("SELECT shard, born FROM cue_positions").fetchall())
        if db.execute("SELECT scrub_due FROM cue_view").fetchall()[0][0]:
            self._scrub(db)
        self.projection.opened(db, self.folder)

    def _create(self, db: SqliteConnection) -> None:
        if db.execute("SELECT 1 FROM sqlite_schema").fetchall():
            raise RebuildNeededError(f"{self.path} is an SQLite file, but no view")
        now_us = self._clock.wall_us()
        db.execute("BEGIN IMMEDIATE")
        try:
            for statement in _TABLES:
                db.execute(statement)
            db.execute(
                "INSERT INTO cue_view VALUES (1, ?, ?, ?, ?, ?, ?, 0)", (VIEW_FORMAT, self.name, self.version, self._log, now_us, now_us)
            )
            db.executemany("INSERT INTO cue_positions VALUES (?, 0, ?)", self._born.items())
            try:
                self.projection.create(db)
            except Exception as error:  # the author's code may raise anything
                if is_away(error):
                    raise
                raise ConfigurationError(f"create() of the projection {self.name} failed: {type(error).__name__}: {error}") from error
            for table in full_text_tables(db):
                # Else the terms of deleted rows stay in its segments until a merge (sqlite.org/fts5.html, section 6.10).
                db.execute(f"""INSERT INTO "{table}"("{table}", rank) VALUES ('secure-delete', 1)""")
            db.execute("COMMIT")
        except BaseException:
            _roll_back(db)
            raise
        reached(CrashPoint.VIEW_CREATED)

    def _apply(
        self, db: SqliteConnection, events: Sequence[RecordedEvent], expected: Positions, positions: Positions, parked: Sequence[Parked]
    ) -> None:
        db.execute("BEGIN IMMEDIATE")
        try:
            self._compare(db, expected)
            self.projection.begun(db)
            erased = self._bring_in(db, events)
            db.executemany(
                "INSERT INTO cue_positions VALUES (?, ?, 0) ON CONFLICT DO UPDATE SET position = excluded.position", positions.items()
            )
            db.executemany(
                "INSERT OR REPLACE INTO cue_parked VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [(p.shard, p.position, p.stream, p.version, p.type, p.reason, p.parked_at_us, p.held) for p in parked],
            )
            db.execute("UPDATE cue_view SET applied_at_us = ?, scrub_due = max(scrub_due, ?)", (self._clock.wall_us(), int(erased)))
            reached(CrashPoint.VIEW_APPLIED)
            db.execute("COMMIT")
        except BaseException:
            _roll_back(db)
            raise
        self._committed(db, erased)

    def _release(self, db: SqliteConnection, stream: StreamId, events: Sequence[RecordedEvent], expected: Positions) -> None:
        db.execute("BEGIN IMMEDIATE")
        try:
            self._compare(db, expected)
            self.projection.begun(db)
            erased = self._bring_in(db, events)
            db.execute("DELETE FROM cue_parked WHERE stream = ?", (stream,))
            db.execute("UPDATE cue_view SET scrub_due = max(scrub_due, ?)", (int(erased),))
            db.execute("COMMIT")
        except BaseException:
            _roll_back(db)
            raise
        self._committed(db, erased)

    def _committed(self, db: SqliteConnection, erased: bool) -> None:
        reached(CrashPoint.VIEW_COMMITTED)
        self.projection.committed(db)
        if erased:
            self._scrub(db)

    def _compare(self, db: SqliteConnection, expected: Positions) -> None:
        found = dict(db.execute("SELECT shard, position FROM cue_positions WHERE position > 0").fetchall())
        if found != {shard: position for shard, position in expected.items() if position}:
            raise CheckpointError(f"the view {self.name} stands at {found}, not at {dict(expected)}: another projector moved it")

    def _bring_in(self, db: SqliteConnection, events: Sequence[RecordedEvent]) -> bool:
        """Whether a stream was erased."""
        apply = self.projection.apply
        wanted = frozenset(self.handles)
        erased = False
        event: RecordedEvent | None = None
        for index, event in enumerate(events):
            try:
                if event.type == ERASED:
                    erased = True
                    self._erase(db, event)
                if event.type in wanted:
                    apply(db, event)
            except ProjectionError:
                raise
            except Exception as error:  # the author's code may raise anything
                if is_away(error):
                    raise
                if isinstance(error, SqliteError) and is_corrupt(error):
                    raise
                raise PoisonError(index, f"{type(error).__name__}: {error}"[:500]) from error
        if not db.in_transaction:
            raise InvariantError(
                f"apply() of the projection {self.name} ended the transaction: rows and checkpoint no longer fit. Take the COMMIT or "
                f"ROLLBACK out of it and raise its version",
                projection=self.name,
            )
        return erased

    def _erase(self, db: SqliteConnection, event: RecordedEvent) -> None:
        stream = event.stream
        if forgets(self.projection):
            self.projection.erase(db, stream)
        elif event.position > self._born.get(event.shard, 0):
            # Of a stream that was erased before this view was begun nothing ever came; of this one something may have.
            raise RebuildNeededError(f"{stream} was erased, and the projection {self.name} does not say how to forget it", stream=stream)
        db.execute("DELETE FROM cue_parked WHERE stream = ?", (stream,))

    def _scrub(self, db: SqliteConnection) -> None:
        """Leave no byte of what was erased in the file or its write-ahead log. Where a reader holds an older state it is due again."""
        reached(CrashPoint.VIEW_ERASED)
        db.execute("VACUUM")
        self.scrub_due = bool(db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()[0][0])
        if not self.scrub_due:
            db.execute("UPDATE cue_view SET scrub_due = 0")

    def _close(self, db: SqliteConnection) -> None:
        self.projection.closing(db)

    # -- the port -----------------------------------------------------------------------------------------------------------------

    async def positions(self) -> Positions:
        found: dict[int, int] = await self._run(lambda db: dict(db.execute("SELECT shard, position FROM cue_positions").fetchall()))
        return found

    async def parked(self) -> Sequence[Parked]:
        return await self._run(read_parked)

    async def state(self) -> ViewState:
        """What the file says of itself."""
        return await self._run(read_state)

    async def scrub(self) -> None:
        """Try again to leave no byte of an erased stream."""
        await self._run(self._scrub)

    async def apply(
        self, events: Sequence[RecordedEvent], *, expected: Positions, positions: Positions, parked: Sequence[Parked] = ()
    ) -> None:
        await self._run(self._apply, events, dict(expected), dict(positions), parked)

    async def release(self, stream: StreamId, events: Sequence[RecordedEvent], *, expected: Positions) -> None:
        await self._run(self._release, stream, events, dict(expected))

    async def run(self, function: Callable[[SqliteConnection], T]) -> T:
        """Call `function` on the thread of the file, outside of a transaction; for `verify` and tests."""
        return await self._run(function)

    async def close(self) -> None:
        db, self._db = self._db, None
        if db is None:
            return
        try:
            await on_thread(db, self._close)
        finally:
            await close_connection(db)


def _roll_back(db: SqliteConnection) -> None:
    if db.in_transaction:
        db.execute("ROLLBACK")
