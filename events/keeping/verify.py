"""Walk a whole log and name everything in it that is not as it was written (S27, I-20). Reads only; blocks, so run it
in a thread.
 Trusts nothing: columns may hold any type and any bytes. What a damaged row says is compared, never followed, so one
bad row yields findings about itself and its neighbours, and the walk goes on behind it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from events.envelope import GENESIS_HASH, rolling_hash, row_check
from events.errors import CuebookError
from events.limits import STREAM_PAGE_VERSIONS
from events.log_directory import anchor_path, check_identity, read_identity, shard_path
from events.sqlite.anchor import Anchor, read_anchor
from events.sqlite.letters_sqlite import SELECT_LETTERS, SELECT_STOPPED, has_letters, letter_row, stopped_row
from events.sqlite.rows import (
    PAIR_COLUMNS,
    SELECT_EVENTS,
    SELECT_INBOX,
    SELECT_OUTBOX,
    SELECT_TIMERS,
    SELECT_WAITS,
    Row,
    event_fault,
    flush_check,
    inbox_row,
    outbox_send,
    pair_check,
    stream_check,
    timer_entry,
    wait_entry,
)
from events.sqlite.schema import file_version, has_keys
from events.sqlite.sqlite_library import SqliteConnection, SqliteError, open_reader
from events.store import Damage

Progress = Callable[[int, int, int], None]
"""(shard, position reached, last position)"""

PAGE: Final = 1_000
_CHECKED_TABLES: Final = (
    ("stream_keys", "stream, key_id"),
    ("erasures", "stream, requested_by, asked_at_us, is_plain, finished_at_us"),
)
INTEGRITY_MESSAGES_MAX: Final = 20
_decode_any = msgspec.json.Decoder()


class _Stream(msgspec.Struct):
    """Where the walk stands in one stream."""

    version: int
    position: int
    hash: Any
    time: int = 0


def verify(directory: Path, progress: Progress | None = None, shards: Sequence[int] | None = None) -> list[Damage]:
    """All that is wrong with the log in `directory`; an empty list means it is sound up to the end that each shard had
    when it was reached.

    May run while the log is written. Memory grows with the number of streams, not of events.

    Raises:
        ConfigurationError: there is no log, or not one that this program can read.
    """
    identity = read_identity(directory)
    damages: list[Damage] = []
    for shard in shards if shards is not None else range(identity.shards):
        path = shard_path(directory, shard)
        # The anchor is read before the file, so that a log that grows meanwhile can only be ahead of it.
        anchor = read_anchor(anchor_path(directory, shard))
        if not path.exists():
            damages.append(Damage(shard=shard, table="", message=f"{path} is missing: the log has lost a shard"))
            continue
        try:
            with closing(open_reader(path)) as connection:
                file_version(connection, path)
                check_identity(connection, path, identity, shard)
                damages += _ShardWalk(connection, path, shard, anchor, progress).run()
        except (SqliteError, UnicodeDecodeError) as error:
            damages.append(Damage(shard=shard, table="", message=f"{path} cannot be read: {error}"))
        except CuebookError as error:
            damages.append(Damage(shard=shard, table="", message=error.message))
    return damages


class _ShardWalk:
    def __init__(self, connection: SqliteConnection, path: Path, shard: int, anchor: Anchor | None, progress: Progress | None) -> None:
        self._connection = connection
        self._path = path
        self._shard = shard
        self._anchor = anchor
        self._progress = progress
        self._damages: list[Damage] = []
        self._names: dict[Any, Any] = {}
        self._bases: dict[Any, tuple[int, bytes]] = {}
        self._flushed_heads: dict[Any, tuple[Any, Any, Any]] = {}
        self._flushes: dict[int, Any] = {}
        self._flush_position = 0
        self._streams: dict[Any, _Stream] = {}
        self._pages: dict[tuple[Any, Any], Any] = {}
        self._rolling = GENESIS_HASH
        self._last_time = 0
        self._last_epoch = 0
        self._end = 0

    def run(self) -> list[Damage]:
        # Damaged text must not raise in the middle of a page: it is decoded here, leniently where it cannot be.
        self._connection.text_factory = _text
        self._note_state()
        self._walk_events()
        self._check_pages()
        self._check_heads()
        return self._damages

    def _found(self, table: str, message: str, **fields: Any) -> None:
        self._damages.append(Damage(shard=self._shard, table=table, message=message, **fields))

    def _note_state(self) -> None:
        """What the file says about itself, from one state of it: the events are then walked up to the end that it has
        now."""
        self._connection.execute("BEGIN")
        try:
            self._guarded("sqlite", self._check_structure)
            self._guarded("events", self._note_end)
            self._guarded("streams", self._note_streams)
            self._guarded("heads", self._note_flushes)
            self._guarded("stream_pages", self._note_pages)
            for table, select, parse in (
                ("inbox", SELECT_INBOX, inbox_row),
                ("outbox", SELECT_OUTBOX, outbox_send),
                ("timers", SELECT_TIMERS, timer_entry),
                ("waits", SELECT_WAITS, wait_entry),
                *(
                    (("letters", SELECT_LETTERS, letter_row), ("stopped", SELECT_STOPPED, stopped_row))
                    if has_letters(self._connection)
                    else ()
                ),
            ):
                self._guarded(table, partial(self._check_rows, table, select, parse))
            for table in ("sent_heads", "received_heads"):
                self._guarded(table, partial(self._check_pairs, table))
            if has_keys(self._connection):
                for table, columns in _CHECKED_TABLES:
                    self._guarded(table, partial(self._check_checked, table, columns))
        finally:
            self._connection.execute("ROLLBACK")

    def _guarded(self, table: str, check: Callable[[], None]) -> None:
        try:
            check()
        except (SqliteError, UnicodeDecodeError, IndexError) as error:
            self._found(table, f"{self._path}: table {table} cannot be read: {error}")

    def _check_structure(self) -> None:
        for (message,) in self._connection.execute(f"PRAGMA integrity_check({INTEGRITY_MESSAGES_MAX})").fetchall():
            if message != "ok":
                self._found("sqlite", f"{self._path}: {message}")
        rows = self._connection.execute("SELECT is_open FROM switches WHERE name = 'rewrite_events'").fetchall()
        if rows != [(0,)]:
            self._found("switches", "the guard against changing events was left open", expected=0, found=str(rows))

    def _note_end(self) -> None:
        row = self._connection.execute(
            "SELECT (SELECT coalesce(max(position), 0) FROM events), o.eventless, i.incarnation FROM owner o, identity i"
        ).fetchall()[0]
        self._end, eventless, incarnation = row
        if self._anchor is not None and self._anchor.incarnation != incarnation:
            self._found("anchor", "the anchor belongs to another log", expected=incarnation, found=self._anchor.incarnation)
            self._anchor = None
        elif self._anchor is not None and isinstance(eventless, int) and eventless < self._anchor.eventless:
            self._found("owner", "commits without events are lost, says the anchor", expected=self._anchor.eventless, found=eventless)

    def _note_streams(self) -> None:
        cursor = self._connection.execute(
            "SELECT id, name, type, key, head_version, head_position, head_hash, base_version, base_hash, status, row_check FROM streams"
        )
        for row in _rows(cursor):
            if not isinstance(row[1], str) or row[1] != f"{row[2]}/{row[3]}":
                self._found("streams", f"row {row[0]}: the name does not fit its type and key", stream=_shown(row[1]))
            if not _holds(row[10], stream_check, row[0], row[1], row[9], *row[4:9]):
                self._found("streams", f"the checksum of row {row[0]} does not match", stream=_shown(row[1]))
            self._names[row[0]] = row[1]
            self._flushed_heads[row[0]] = (row[4], row[5], row[6])
            if row[7] != 0 and isinstance(row[7], int) and isinstance(row[8], bytes):
                # A fork (S33): versions up to the base are read from the parent.
                self._bases[row[0]] = (row[7], row[8])

    def _note_flushes(self) -> None:
        for position, rolling, time, check in self._connection.execute(
            "SELECT position, rolling_hash, time, row_check FROM heads"
        ).fetchall():
            if not _holds(check, flush_check, position, rolling, time):
                self._found("heads", "its checksum does not match", position=position)
            self._flushes[position] = rolling
        self._flush_position = max(self._flushes, default=0)

    def _note_pages(self) -> None:
        for stream_id, version, position in _rows(self._connection.execute("SELECT stream_id, version, position FROM stream_pages")):
            self._pages[stream_id, version] = position

    def _check_rows(self, table: str, select: str, parse: Callable[[int, Row], object]) -> None:
        stream_column = 20 if table == "inbox" else 0
        for row in _rows(self._connection.execute(select)):
            try:
                parse(self._shard, row)
            except CuebookError as error:
                self._found(table, error.message, stream=_shown(row[stream_column]))
            except (TypeError, ValueError, OverflowError) as error:
                self._found(table, f"row {_shown(row[0])}: {error}", stream=_shown(row[stream_column]))

    def _check_pairs(self, table: str) -> None:
        for row in _rows(self._connection.execute(f"SELECT {', '.join(PAIR_COLUMNS)} FROM {table}")):
            if not _holds(row[4], pair_check, *row[:4]):
                self._found(table, f"the checksum of {_shown(row[0])} -> {_shown(row[1])} does not match", stream=_shown(row[1]))

    def _check_checked(self, table: str, columns: str) -> None:
        for row in _rows(self._connection.execute(f"SELECT {columns}, row_check FROM {table}")):
            if not _holds(row[-1], row_check, *row[:-1]):
                self._found(table, f"the checksum of a row of {_shown(row[0])} does not match", stream=_shown(row[0]))

    # The events, in short reads by position

    def _walk_events(self) -> None:
        after = 0
        self._compare_anchor(after)
        while after < self._end:
            upper = min(after + PAGE, self._end)
            for row in self._page(after, upper):
                self._check_event(row)
                self._compare_anchor(row[0])
            after = upper
            if self._progress is not None:
                self._progress(self._shard, after, self._end)
        if self._anchor is not None and self._anchor.position > self._end:
            self._found(
                "events",
                f"{self._path} ends at position {self._end}, but position {self._anchor.position} had been committed: its tail is lost",
                position=self._anchor.position, expected=self._anchor.position, found=self._end,
            )  # fmt: skip

    def _page(self, after: int, upper: int) -> Sequence[Row]:
        # A left join, so that an event of a lost stream row is seen and not skipped.
        sql = SELECT_EVENTS.replace(" JOIN ", " LEFT JOIN ") + " WHERE e.position > ? AND e.position <= ? ORDER BY e.position"
        try:
            rows: Sequence[Row] = self._connection.execute(sql, (after, upper)).fetchall()
            return rows
        except (SqliteError, UnicodeDecodeError) as error:
            if upper - after == 1:
                self._found("events", f"{self._path}: the page that holds it cannot be read: {error}", position=upper)
                return []
        # Halves, until what cannot be read is told from what can.
        middle = (after + upper) // 2
        return [*self._page(after, middle), *self._page(middle, upper)]

    def _check_event(self, row: Row) -> None:
        position, stream_id, prev_position, time, version = row[:5]
        name = row[29]
        where = {"position": position, "stream": _shown(name), "version": version if isinstance(version, int) else None}
        base_version, base_hash = self._bases.get(stream_id, (0, GENESIS_HASH))
        known = self._streams.get(stream_id) or _Stream(base_version, 0, base_hash)
        if not isinstance(name, str):
            self._found("events", f"it belongs to stream {stream_id}, which has no row in streams", **where)
        if version != known.version + 1:
            self._found("events", "its version does not follow the one before", expected=known.version + 1, found=version, **where)
        if prev_position != known.position:
            self._found("events", "it does not point to its predecessor", expected=known.position, found=_plain(prev_position), **where)
        fault = event_fault(row, known.hash if isinstance(known.hash, bytes) else GENESIS_HASH)
        if fault is not None:
            self._found("events", fault, **where)
        payload_fault = _payload_fault(row[28])
        if payload_fault is not None:
            self._found("events", payload_fault, **where)
        # Equal times of two streams come from an import that put two shards into one (S30).
        if not isinstance(time, int) or time < self._last_time or time <= known.time:
            least = max(self._last_time, known.time + 1)
            self._found("events", "its logical time does not follow the one before", expected=least, found=_plain(time), **where)
            time = known.time
        else:
            self._last_time = time
        if not isinstance(row[17], int) or row[17] < self._last_epoch:
            self._found("events", "its owner epoch is older than the one before", expected=self._last_epoch, found=_plain(row[17]), **where)
        else:
            self._last_epoch = row[17]
        self._streams[stream_id] = _Stream(version if isinstance(version, int) else known.version + 1, position, row[25], time)
        self._rolling = rolling_hash(self._rolling, row[25] if isinstance(row[25], bytes) else b"")
        if position in self._flushes and self._flushes[position] != self._rolling:
            self._found("heads", "the hash of all events up to here differs from the one noted", position=position)
        self._check_flushed_head(stream_id, row, where)
        self._check_page_row(stream_id, row, where)

    def _check_flushed_head(self, stream_id: Any, row: Row, where: dict[str, Any]) -> None:
        head_version, head_position, head_hash = self._flushed_heads.get(stream_id, (0, 0, b""))
        if row[0] == head_position and (head_version, head_hash) != (row[4], row[25]):
            self._found(
                "streams", "the head noted for its stream is not this event", expected=_plain(head_version), found=_plain(row[4]), **where
            )

    def _check_page_row(self, stream_id: Any, row: Row, where: dict[str, Any]) -> None:
        if isinstance(row[4], int) and row[4] % STREAM_PAGE_VERSIONS == 0 and self._pages.pop((stream_id, row[4]), None) != row[0]:
            self._found("stream_pages", "the page row of its version is missing or points elsewhere", expected=row[0], **where)

    def _compare_anchor(self, position: int) -> None:
        anchor = self._anchor
        if anchor is not None and anchor.position == position and anchor.rolling_hash != self._rolling:
            self._found("anchor", "the events up to here are not those that were committed, says the anchor", position=position)

    def _check_pages(self) -> None:
        for (stream_id, version), position in self._pages.items():
            if isinstance(position, int) and position <= self._end:
                self._found(
                    "stream_pages",
                    f"a page row for version {version} that no event has",
                    stream=_shown(self._names.get(stream_id)),
                    position=position,
                )

    def _check_heads(self) -> None:
        """Each stream's noted head is its last event up to the flush; events after the flush are not noted yet."""
        for position in self._flushes:
            if position > self._end:
                self._found(
                    "heads",
                    f"{self._path} ends at position {self._end}, but its own notes go to {position}: its tail was removed",
                    position=position,
                )
        for stream_id, (_, position, _) in self._flushed_heads.items():
            last = self._streams.get(stream_id)
            name = _shown(self._names.get(stream_id))
            if not isinstance(position, int) or position > self._flush_position:
                self._found(
                    "streams",
                    "its head lies beyond the last flush of heads",
                    stream=name,
                    expected=self._flush_position,
                    found=_plain(position),
                )
            elif last is None and position > 0 and position <= self._end:
                self._found("streams", "its head is noted, but it has no event", stream=name, position=position)
            elif last is not None and last.position <= self._flush_position and position != last.position:
                self._found(
                    "streams", "its head is not its last event", stream=name, version=last.version, expected=last.position, found=position
                )


def _rows(cursor: Any) -> Iterator[Row]:
    while rows := cursor.fetchmany(PAGE):
        yield from rows


def _text(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        # Bytes where text belongs make every check that uses the column fail, which is what shall happen.
        return value


def _holds(stored: Any, check: Callable[..., int], *fields: Any) -> bool:
    try:
        return bool(check(*fields) == stored)
    except (TypeError, ValueError, OverflowError):
        return False


def _payload_fault(payload: Any) -> str | None:
    if not isinstance(payload, bytes):
        return "its payload is not text"
    try:
        _decode_any.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return f"its payload is not JSON: {error}"
    return None


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value


def _shown(value: Any) -> str | None:
    if value is None:
        return None
    return value if isinstance(value, str) else repr(value)
