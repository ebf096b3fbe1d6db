"""Rows of a shard file as the structs of the port, and back, with the checksum of every row that no hash covers (S27).

Column lists are written once here; FORMAT.md explains them."""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from operator import itemgetter
from types import NoneType
from typing import Any, Final, TypeVar

import msgspec

from events.envelope import GENESIS_HASH, Kind, RecordedEvent, chain_hash, checksum, payload_hash, row_check
from events.errors import CorruptLogError
from events.memo import memo
from events.sqlite.sqlite_library import SqliteConnection
from events.store import InboxEntry, InboxStatus, OutboxEntry, PendingSend, Snapshot, TimerEntry, WaitEntry

Row = Sequence[Any]
T = TypeVar("T")

EVENT_COLUMNS: Final = (
    "position", "stream_id", "prev_position", "time", "version", "event_id", "type", "schema_version", "recorded_at_us", "command_id",
    "causation_id", "correlation_id", "traceparent", "sender", "branch", "parent", "kind", "owner_epoch", "code_version", "duration_us",
    "summary", "error", "salt", "key_id", "state_hash", "hash", "row_check", "payload_digest", "payload",
)  # fmt: skip
INBOX_COLUMNS: Final = (
    "id", "stream_id", "command_id", "method", "args_hash", "status", "code", "sender", "causation_id", "correlation_id", "traceparent",
    "deadline_ms", "source", "explicit", "received_at_us", "received_time", "completed_at_us", "row_check", "args", "reply",
)  # fmt: skip
OUTBOX_COLUMNS: Final = (
    "sender", "receiver", "incarnation", "n", "method", "command_id", "causation_id", "correlation_id", "traceparent", "deadline_ms",
    "time", "args", "row_check",
)  # fmt: skip
TIMER_COLUMNS: Final = (
    "stream", "timer_id", "due_us", "wall", "every_us", "method", "set_at_us", "correlation_id", "args", "row_check",
)  # fmt: skip
WAIT_COLUMNS: Final = (
    "stream", "wait_id", "name", "command_id", "opened_at_us", "expires_at_us", "schema", "row_check",
)  # fmt: skip
SNAPSHOT_COLUMNS: Final = ("stream", "version", "shape", "state", "row_check")
PAIR_COLUMNS: Final = ("sender", "receiver", "incarnation", "n", "row_check")


def _names(columns: Sequence[str], prefix: str = "") -> str:
    return ", ".join(prefix + column for column in columns)


def insert_sql(table: str, columns: Sequence[str], upsert: Sequence[str] = ()) -> str:
    """An INSERT of all `columns`; with `upsert` (the key) it replaces the row that is there."""
    sql = f"INSERT INTO {table} ({_names(columns)}) VALUES ({', '.join('?' * len(columns))})"
    if upsert:
        rest = ", ".join(f"{column} = excluded.{column}" for column in columns if column not in upsert)
        sql += f" ON CONFLICT ({_names(upsert)}) DO UPDATE SET {rest}"
    return sql


# Payloads are read as bytes: they pass through undecoded, and damaged text is reported by its hash, not by a decoder.
_EVENT_FIELDS: Final = _names(EVENT_COLUMNS[:-1], "e.") + ", CAST(e.payload AS BLOB), s.name"
SELECT_EVENTS: Final = f"SELECT {_EVENT_FIELDS} FROM events e JOIN streams s ON s.id = e.stream_id"
SELECT_EVENTS_CHECKED: Final = (
    f"SELECT {_EVENT_FIELDS}, p.hash, s.base_hash FROM events e JOIN streams s ON s.id = e.stream_id "
    "LEFT JOIN events p ON p.position = e.prev_position"
)
"""With the hash of the event before it in its stream, so that one row can be verified alone."""
SELECT_INBOX: Final = f"SELECT {_names(INBOX_COLUMNS, 'i.')}, s.name FROM inbox i LEFT JOIN streams s ON s.id = i.stream_id"
SELECT_OUTBOX: Final = f"SELECT {_names(OUTBOX_COLUMNS)} FROM outbox"
SELECT_TIMERS: Final = f"SELECT {_names(TIMER_COLUMNS)} FROM timers"
SELECT_WAITS: Final = f"SELECT {_names(WAIT_COLUMNS)} FROM waits"
SELECT_SNAPSHOT: Final = f"SELECT {_names(SNAPSHOT_COLUMNS)} FROM snapshots"


CHUNKS: Final = (64, 16, 4, 1)
"""Rows of one INSERT. Few sizes, so that their statements stay prepared."""


NULLS_PER_STATEMENT: Final = 5
"""A null costs about 1.1 us, a statement 5 to 6 us and the GIL (2026-11)."""


@memo("statements of inserts", 512)
def _sparse(table: str, columns: tuple[str, ...], used: tuple[bool, ...]) -> tuple[tuple[str, ...], Callable[[Row], Row]]:
    """The INSERTs for so many rows that fill these columns, and what takes their values out of such a row."""
    kept = [index for index, is_used in enumerate(used) if is_used]
    one = insert_sql(table, [columns[index] for index in kept])
    more = f", ({', '.join('?' * len(kept))})"
    return tuple(one + more * (rows - 1) for rows in CHUNKS), itemgetter(*kept)


def insert_rows(connection: SqliteConnection, table: str, columns: tuple[str, ...], rows: Iterable[Row]) -> None:
    """Insert `rows` in order, leaving columns out where they are null. A row has at least two values that are not.

    Python's sqlite3 looks for an adapter of every value that is not exactly int, float, str or bytearray, so a None
    costs as much as ten integers, and bytes too: 29 columns of which 13 are null go in at 50,000 rows/s in full,
    180,000/s like this (measured with this table, 100 per commit). It also gives up the GIL at every row of
    `executemany`, and a busy event loop returns it only after the switch interval of 5 ms: a commit of 100 rows beside
    one took 215 ms, and 14 ms with the few statements of many rows each that are made here.

    Rows that alternate, such as a graph's checkpoints, which have a summary, and its writes, which have none, would take a statement each:
    those share one, and leave out what is null in all of them.
    """
    rows = list(rows)
    if not rows:
        return
    kinds = [tuple(map(type, row)) for row in rows]
    begins = [n for n, kind in enumerate(kinds) if not n or kind != kinds[n - 1]]
    together = tuple(any(cls is not NoneType for cls in column) for column in zip(*set(kinds), strict=True)) if len(begins) > 1 else ()
    if together and _nulls(kinds, together) < NULLS_PER_STATEMENT * len(begins):
        statements, values = _sparse(table, columns, together)
        _run_in_chunks(connection, statements, list(map(values, rows)))
        return
    for begin, end in zip(begins, [*begins[1:], len(rows)], strict=True):
        statements, values = _sparse(table, columns, tuple(cls is not NoneType for cls in kinds[begin]))
        _run_in_chunks(connection, statements, list(map(values, rows[begin:end])))


def _nulls(kinds: Sequence[tuple[type, ...]], used: tuple[bool, ...]) -> int:
    """How many nulls rows of these types leave in these columns."""
    nulls = {kind: sum(cls is NoneType for cls, is_used in zip(kind, used, strict=True) if is_used) for kind in set(kinds)}
    return sum(map(nulls.__getitem__, kinds))


@memo("statements of updates", 16)
def _updates(table: str, columns: tuple[str, ...]) -> tuple[str, ...]:
    """The UPDATEs of so many rows, each given as its id and the values of `columns`."""
    changes = ", ".join(f"{column} = new.column{number}" for number, column in enumerate(columns, 2))
    one = f"({', '.join('?' * (len(columns) + 1))})"
    return tuple(
        f"UPDATE {table} SET {changes} FROM (VALUES {', '.join([one] * rows)}) AS new WHERE {table}.id = new.column1" for rows in CHUNKS
    )


def update_rows(connection: SqliteConnection, table: str, columns: tuple[str, ...], rows: Iterable[Row]) -> None:
    """Set `columns` of the rows of `table` whose id comes first in each of `rows`; in few statements, as `insert_rows` does."""
    _run_in_chunks(connection, _updates(table, columns), list(rows))


def _run_in_chunks(connection: SqliteConnection, statements: tuple[str, ...], run: list[Row]) -> None:
    done = 0
    for size, sql in zip(CHUNKS, statements, strict=False):
        while len(run) - done >= size:
            connection.execute(sql, list(chain.from_iterable(run[done : done + size])))
            done += size


UPSERT_TIMER: Final = insert_sql("timers", TIMER_COLUMNS, ("stream", "timer_id"))
UPSERT_WAIT: Final = insert_sql("waits", WAIT_COLUMNS, ("stream", "wait_id"))
UPSERT_SNAPSHOT: Final = insert_sql("snapshots", SNAPSHOT_COLUMNS, ("stream",))

_KINDS: Final = {kind.value: kind for kind in Kind}
_FLAGS: Final = {0: False, 1: True}
_STATUSES: Final = {status.value: status for status in InboxStatus}


def event_check(
    position: Any, prev_position: Any, owner_epoch: Any, duration_us: Any, summary: Any, error: Any, traceparent: Any,
    parent: Any, code_version: Any, key_id: Any, state_hash: Any,
) -> int:  # fmt: skip
    """`row_check` of an event: over the columns that its hash leaves out."""
    return checksum(
        (position, prev_position, owner_epoch, duration_us, summary, error, traceparent, parent, code_version, key_id, state_hash)
    )


def recorded_event(shard: int, row: Row) -> RecordedEvent:
    """A row of `SELECT_EVENTS` as the envelope, unchecked.

    Raises:
        CorruptLogError: a column holds what cannot stand there.
    """
    try:
        return RecordedEvent(
            shard=shard, position=row[0], stream=row[29], time=row[3], version=row[4], event_id=row[5], type=row[6],
            schema_version=row[7], recorded_at_us=row[8], command_id=row[9], causation_id=row[10],
            correlation_id=row[11], traceparent=row[12], sender=row[13], branch=row[14], parent=row[15],
            kind=_KINDS[row[16]], owner_epoch=row[17], code_version=row[18], duration_us=row[19], summary=row[20],
            error=row[21], payload=msgspec.Raw(row[28]), salt=row[22].hex() if row[22] is not None else None,
            key_id=row[23], state_hash=row[24], hash=row[25].hex(),
        )  # fmt: skip
    except (KeyError, AttributeError, TypeError) as error:
        raise CorruptLogError(
            f"event {shard}:{row[0]} of {row[29]} is damaged: a column cannot be read ({error})",
            shard=shard,
            position=row[0],
            stream=row[29],
        ) from error


def computed_hash(row: Row, previous_hash: bytes) -> bytes:
    """The hash that the event of a `SELECT_EVENTS` row must have after `previous_hash`. Raises TypeError and the like
    on garbage."""
    digest = row[27] if row[27] is not None else payload_hash(row[22], row[28])
    return chain_hash(
        previous_hash, stream=row[29], version=row[4], event_id=row[5], type=row[6], schema_version=row[7],
        kind=row[16], recorded_at_us=row[8], time=row[3], command_id=row[9], causation_id=row[10],
        correlation_id=row[11], sender=row[13], branch=row[14], payload_digest=digest,
    )  # fmt: skip


def event_fault(row: Row, previous_hash: bytes) -> str | None:
    """What is wrong with the event of a `SELECT_EVENTS` row, None if its hash and its row check hold. Never raises."""
    try:
        if computed_hash(row, previous_hash) != row[25]:
            return "its hash does not match its content or its predecessor"
        if event_check(row[0], row[2], row[17], row[19], row[20], row[21], row[12], row[15], row[18], row[23], row[24]) != row[26]:
            return "a column outside its hash was changed (row check)"
    except (TypeError, ValueError, AttributeError, OverflowError, msgspec.MsgspecError) as error:
        return f"a column holds what cannot stand there ({error})"
    return None


def verified_event(shard: int, row: Row, previous_hash: bytes) -> RecordedEvent:
    """A row of `SELECT_EVENTS` as the envelope, its hash and row check recomputed (I-20).

    Raises:
        CorruptLogError: it does not verify; names shard, position, stream and version.
    """
    fault = event_fault(row, previous_hash)
    if fault is not None:
        raise CorruptLogError(
            f"event {shard}:{row[0]} (version {row[4]} of {row[29]}) is damaged: {fault}. Run: cuebook verify",
            shard=shard, position=row[0], stream=row[29], version=row[4],
        )  # fmt: skip
    return recorded_event(shard, row)


class InboxRow(msgspec.Struct, kw_only=True):
    """An inbox row with what only the store needs. received_time: logical time that came with the command (S30)."""

    id: int
    stream_id: int
    entry: InboxEntry
    received_time: int
    is_new: bool = False


def _inbox_check(entry: InboxEntry, received_time: int) -> int:
    return row_check(
        entry.stream, entry.command_id, entry.method, entry.args_hash, entry.status, entry.args, entry.reply,
        entry.code, entry.sender, entry.causation_id, entry.correlation_id, entry.traceparent, entry.deadline_ms,
        entry.source, entry.explicit, entry.received_at_us, received_time, entry.completed_at_us,
    )  # fmt: skip


def _buffer(body: bytes | None) -> bytearray | None:
    return None if body is None else bytearray(body)


def inbox_values(row: InboxRow) -> tuple[Any, ...]:
    """The values of `INBOX_COLUMNS`."""
    entry = row.entry
    return (
        row.id, row.stream_id, entry.command_id, entry.method, entry.args_hash, entry.status._value_, entry.code,
        entry.sender, entry.causation_id, entry.correlation_id, entry.traceparent, entry.deadline_ms, entry.source,
        int(entry.explicit), entry.received_at_us, row.received_time, entry.completed_at_us,
        _inbox_check(entry, row.received_time),
        _buffer(entry.args), _buffer(entry.reply),
    )  # fmt: skip


INBOX_CHANGES: Final = ("status", "code", "completed_at_us", "row_check", "args", "reply")
"""What changes of an inbox row after it was inserted."""


def inbox_update_values(row: InboxRow) -> tuple[Any, ...]:
    """The row's id and the values of `INBOX_CHANGES`."""
    entry = row.entry
    check = _inbox_check(entry, row.received_time)
    return (row.id, entry.status._value_, entry.code, entry.completed_at_us, check, _buffer(entry.args), _buffer(entry.reply))


def _damaged(table: str, shard: int, row: Row, stream: Any, error: object = None) -> CorruptLogError:
    return CorruptLogError(
        f"a row of table {table} in shard {shard} is damaged ({stream}, {row[1] if len(row) > 1 else ''}): "
        f"{error or 'its checksum does not match'}. Run: cuebook verify",
        shard=shard, table=table, stream=stream if isinstance(stream, str) else None,
    )  # fmt: skip


def _checked(table: str, shard: int, row: Row, stream: Any, build: Callable[[], tuple[T, int]], stored: Any) -> T:
    try:
        value, check = build()
    except (KeyError, TypeError, ValueError, AttributeError, msgspec.MsgspecError) as error:
        raise _damaged(table, shard, row, stream, error) from error
    if check != stored:
        raise _damaged(table, shard, row, stream)
    return value


def inbox_row(shard: int, row: Row) -> InboxRow:
    """A row of `SELECT_INBOX`, its checksum verified.

    Raises:
        CorruptLogError: it does not hold.
    """

    def build() -> tuple[InboxRow, int]:
        entry = InboxEntry(
            stream=row[20], command_id=row[2], method=row[3], args_hash=row[4], status=_STATUSES[row[5]],
            args=row[18], reply=row[19], code=row[6], sender=row[7], causation_id=row[8], correlation_id=row[9],
            traceparent=row[10], deadline_ms=row[11], source=row[12], explicit=_FLAGS[row[13]], received_at_us=row[14],
            completed_at_us=row[16],
        )  # fmt: skip
        return InboxRow(id=row[0], stream_id=row[1], entry=entry, received_time=row[15]), _inbox_check(entry, row[15])

    return _checked("inbox", shard, row, row[20], build, row[17])


def _outbox_check(send: PendingSend) -> int:
    entry = send.entry
    return row_check(
        send.sender, entry.receiver, send.incarnation, send.n, entry.method, entry.command_id, entry.causation_id,
        entry.correlation_id, entry.traceparent, entry.deadline_ms, send.time, entry.args,
    )  # fmt: skip


def outbox_values(send: PendingSend) -> tuple[Any, ...]:
    """The values of `OUTBOX_COLUMNS`."""
    entry = send.entry
    return (
        send.sender, entry.receiver, send.incarnation, send.n, entry.method, entry.command_id, entry.causation_id,
        entry.correlation_id, entry.traceparent, entry.deadline_ms, send.time, entry.args, _outbox_check(send),
    )  # fmt: skip


def outbox_send(shard: int, row: Row) -> PendingSend:
    """A row of `SELECT_OUTBOX`, its checksum verified. Raises CorruptLogError."""

    def build() -> tuple[PendingSend, int]:
        entry = OutboxEntry(
            receiver=row[1], method=row[4], args=row[11], command_id=row[5], causation_id=row[6],
            correlation_id=row[7], traceparent=row[8], deadline_ms=row[9],
        )  # fmt: skip
        send = PendingSend(sender=row[0], n=row[3], incarnation=row[2], time=row[10], entry=entry)
        return send, _outbox_check(send)

    return _checked("outbox", shard, row, row[0], build, row[12])


def _timer_check(timer: TimerEntry) -> int:
    return row_check(
        timer.stream,
        timer.timer_id,
        timer.due_us,
        timer.wall,
        timer.every_us,
        timer.method,
        timer.set_at_us,
        timer.correlation_id,
        timer.args,
    )


def timer_values(timer: TimerEntry) -> tuple[Any, ...]:
    """The values of `UPSERT_TIMER`."""
    return (
        timer.stream, timer.timer_id, timer.due_us, int(timer.wall), timer.every_us, timer.method, timer.set_at_us,
        timer.correlation_id, timer.args, _timer_check(timer),
    )  # fmt: skip


def timer_entry(shard: int, row: Row) -> TimerEntry:
    """A row of `SELECT_TIMERS`, its checksum verified. Raises CorruptLogError."""

    def build() -> tuple[TimerEntry, int]:
        timer = TimerEntry(
            stream=row[0], timer_id=row[1], due_us=row[2], wall=_FLAGS[row[3]], every_us=row[4], method=row[5],
            args=row[8], set_at_us=row[6], correlation_id=row[7],
        )  # fmt: skip
        return timer, _timer_check(timer)

    return _checked("timers", shard, row, row[0], build, row[9])


def _wait_check(wait: WaitEntry) -> int:
    return row_check(wait.stream, wait.wait_id, wait.name, wait.command_id, wait.opened_at_us, wait.expires_at_us, wait.schema)


def wait_values(wait: WaitEntry) -> tuple[Any, ...]:
    """The values of `UPSERT_WAIT`."""
    return (
        wait.stream, wait.wait_id, wait.name, wait.command_id, wait.opened_at_us, wait.expires_at_us, wait.schema,
        _wait_check(wait),
    )  # fmt: skip


def wait_entry(shard: int, row: Row) -> WaitEntry:
    """A row of `SELECT_WAITS`, its checksum verified. Raises CorruptLogError."""

    def build() -> tuple[WaitEntry, int]:
        wait = WaitEntry(
            stream=row[0], wait_id=row[1], name=row[2], command_id=row[3], opened_at_us=row[4], expires_at_us=row[5], schema=row[6]
        )
        return wait, _wait_check(wait)

    return _checked("waits", shard, row, row[0], build, row[7])


def snapshot_values(snapshot: Snapshot) -> tuple[Any, ...]:
    """The values of `UPSERT_SNAPSHOT`."""
    check = row_check(snapshot.stream, snapshot.version, snapshot.shape, snapshot.state)
    return (snapshot.stream, snapshot.version, snapshot.shape, snapshot.state, check)


def snapshot_or_none(row: Row) -> Snapshot | None:
    """A row of `SELECT_SNAPSHOT`; None if its checksum does not hold: a snapshot is disposable, so damage means no
    snapshot (F-20)."""
    try:
        if row_check(row[0], row[1], row[2], row[3]) != row[4]:
            return None
        return Snapshot(stream=row[0], version=row[1], shape=row[2], state=row[3])
    except (TypeError, ValueError, OverflowError):
        return None


def stream_check(stream_id: Any, name: Any, status: Any, version: Any, position: Any, hash: Any, base_version: Any, base_hash: Any) -> int:
    """`row_check` of a row of `streams`."""
    return row_check(stream_id, name, status, version, position, hash, base_version, GENESIS_HASH if base_hash is None else base_hash)


def flush_check(position: Any, rolling_hash: Any, time: Any) -> int:
    """`row_check` of a row of `heads`."""
    return row_check(position, rolling_hash, time)


def pair_check(sender: Any, receiver: Any, incarnation: Any, n: Any) -> int:
    """`row_check` of a row of `sent_heads` or `received_heads`."""
    return row_check(sender, receiver, incarnation, n)
