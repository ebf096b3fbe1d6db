"""`archive` and `erase` of one stream on SQLite, each one transaction on the database thread (S24, S29). No asyncio in here.

Archiving keeps every event, so the highest version of a stream never falls. Erasing keeps the events too, as rows: what goes is what they
say, and the digest that their hashes cover takes its place, so the chain verifies. Both end a stream with an event of ours that says so.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from events.closing import CLOSED_BY, Closed, Erasure
from events.codec import encode
from events.crash_points import CrashPoint, reached
from events.envelope import Kind, NewEvent, payload_hash, row_check
from events.errors import InvariantError, StreamBusyError, StreamClosedError, UnknownStreamError
from events.ids import StreamId, Version
from events.limits import PAGE_EVENTS_MAX
from events.sqlite.append_sqlite import Draft
from events.sqlite.reads_sqlite import FoundHead, find_head, read_chain
from events.sqlite.rows import SELECT_EVENTS, Row, event_check
from events.sqlite.schema import has_keys
from events.sqlite.sqlite_library import SqliteConnection
from events.sqlite.writer_sqlite import ShardWriter
from events.store import Append, Committed

ARCHIVED: Final = "archived"
ERASED: Final = "erased"
_POSITIONS: Final = """
    WITH RECURSIVE chain(position, prev) AS (
        SELECT position, prev_position FROM events WHERE position = ?
        UNION ALL
        SELECT e.position, e.prev_position FROM chain JOIN events e ON e.position = chain.prev WHERE e.position < chain.position)
    SELECT position FROM chain ORDER BY position"""
_CHAIN: Final = """
    WITH RECURSIVE chain(position, prev) AS (
        SELECT position, prev_position FROM events WHERE position = ?
        UNION ALL
        SELECT e.position, e.prev_position FROM chain JOIN events e ON e.position = chain.prev
        WHERE e.position < chain.position AND e.version > ?)"""


def archive_stream(writer: ShardWriter, connection: SqliteConnection, stream: StreamId) -> Closed:
    """`ShardStore.archive`."""
    head = find_head(connection, stream)
    if head is None or head.position == 0:
        raise UnknownStreamError(f"the log has no stream {stream}", stream=stream)
    if head.status == ERASED:
        raise StreamClosedError(f"{stream} is erased", stream=stream)
    for after in range(head.base_version, head.version, PAGE_EVENTS_MAX):
        read_chain(connection, writer.shard, stream, head, after, min(after + PAGE_EVENTS_MAX, head.version))
    if head.status == ARCHIVED:
        return _closed(writer, stream, head, already=True)
    group = _last_group(connection, stream, head)

    def act(draft: Draft) -> Closed:
        closed = _end(writer, draft, group, ARCHIVED)
        reached(CrashPoint.ARCHIVE_READY)
        return closed

    return writer.transact(connection, len(group.events), act)


def _last_group(connection: SqliteConnection, stream: StreamId, head: FoundHead) -> Append:
    """Its timers cancelled, then that it is archived."""
    for what, sql, key in (
        ("unfinished commands", "SELECT count(*) FROM inbox WHERE stream_id = ? AND status IN ('queued', 'running')", head.stream_id),
        ("dead letters", "SELECT count(*) FROM letters WHERE stream = ? AND state = 'dead'", stream),
        ("open waits", "SELECT count(*) FROM waits WHERE stream = ?", stream),
        ("sends that have not arrived", "SELECT count(*) FROM outbox WHERE sender = ?", stream),
    ):
        count = connection.execute(sql, (key,)).fetchall()[0][0]
        if count:
            raise StreamBusyError(f"{stream} has {count} {what}", stream=stream, count=count)
    timers = [row[0] for row in connection.execute("SELECT timer_id FROM timers WHERE stream = ? ORDER BY timer_id", (stream,)).fetchall()]
    events = [NewEvent(type="timer.cancelled", kind=Kind.TIMER, payload=encode({"timer_id": timer_id})) for timer_id in timers]
    seal = {"version": head.version, "hash": head.hash.hex()}
    events.append(NewEvent(type="stream.archived", kind=Kind.CONTROL, payload=encode(seal)))
    return Append(stream=stream, expected_version=Version(head.version), command_id=None, events=events, timers_gone=timers)


def _end(writer: ShardWriter, draft: Draft, group: Append, status: str, key_ids: Iterable[str] = ()) -> Closed:
    outcome = draft.decide(group)
    if not isinstance(outcome, Committed):
        raise InvariantError(f"{group.stream} does not take its last event: {outcome}", stream=group.stream)
    draft.close(group.stream, status)
    return Closed(
        stream=group.stream, shard=writer.shard, version=outcome.version, hash=outcome.events[-1].hash, status=status, already=False,
        key_ids=tuple(key_ids), events=tuple(outcome.events),
    )  # fmt: skip


def _closed(writer: ShardWriter, stream: StreamId, head: FoundHead, *, already: bool, key_ids: Iterable[str] = ()) -> Closed:
    return Closed(
        stream=stream, shard=writer.shard, version=Version(head.version), hash=head.hash.hex(), status=head.status, already=already,
        key_ids=tuple(key_ids),
    )  # fmt: skip


def erase_stream(writer: ShardWriter, connection: SqliteConnection, stream: StreamId, requested_by: str, now_us: int) -> Closed:
    """`ShardStore.erase`: everything but the keys and the stale bytes of the file."""
    head = find_head(connection, stream)
    if head is None:
        raise UnknownStreamError(f"the log has no stream {stream}", stream=stream)
    key_ids = read_keys(connection, stream)
    if head.status == ERASED:
        return _closed(writer, stream, head, already=True, key_ids=key_ids)
    said = {"version": head.version, "key_ids": key_ids, "by": requested_by}
    event = NewEvent(type="stream.erased", kind=Kind.CONTROL, payload=encode(said))
    group = Append(stream=stream, expected_version=Version(head.version), command_id=None, events=[event])

    def act(draft: Draft) -> Closed:
        draft.set_status(stream, "live")  # an archived one may be erased too
        is_plain = _remove_payloads(connection, head) or not key_ids
        reached(CrashPoint.ERASE_PAYLOADS)
        _remove_rows(connection, draft, stream, head)
        closed = _end(writer, draft, group, ERASED, key_ids)
        connection.execute(
            "INSERT INTO erasures VALUES (?, ?, ?, ?, NULL, ?)",
            (stream, requested_by, now_us, int(is_plain), row_check(stream, requested_by, now_us, int(is_plain), None)),
        )
        reached(CrashPoint.ERASE_READY)
        return closed

    return writer.transact(connection, 1, act)


def _remove_payloads(connection: SqliteConnection, head: FoundHead) -> bool:
    """Payload, salt, summary, error and state hash of every event that is not sealed; True if there was one that says something."""
    return _remove_at(connection, _positions(connection, head))


def said_in(connection: SqliteConnection, head: FoundHead, types: Sequence[str], after: int, upto: int) -> list[tuple[int, int]]:
    """The events of these types, of versions after < version <= upto, that still say something: position and bytes of payload of each."""
    entry = connection.execute(
        "SELECT position FROM stream_pages WHERE stream_id = ? AND version >= ? ORDER BY version LIMIT 1", (head.stream_id, upto)
    ).fetchall()
    sql = (
        f"{_CHAIN} SELECT e.position, length(CAST(e.payload AS BLOB)) FROM chain JOIN events e USING (position) "
        f"WHERE e.version > ? AND e.version <= ? AND e.type IN ({','.join('?' * len(types))}) AND e.payload <> 'null' ORDER BY e.position"
    )
    return connection.execute(sql, [entry[0][0] if entry else head.position, after, after, upto, *types]).fetchall()


def remove_said(connection: SqliteConnection, head: FoundHead, types: Sequence[str], after: int, upto: int) -> list[tuple[int, int]]:
    """Remove what `said_in` finds, in a stream that lives on: for whoever knows that nobody folds it any more. Runs inside a transaction.
    Returns what it found."""
    said = said_in(connection, head, types, after, upto)
    _remove_at(connection, [position for position, _ in said])
    return said


def _positions(connection: SqliteConnection, head: FoundHead) -> list[int]:
    return [row[0] for row in connection.execute(_POSITIONS, (head.position,)).fetchall()]


def _remove_at(connection: SqliteConnection, positions: list[int]) -> bool:
    found = False
    connection.execute("UPDATE switches SET is_open = 1 WHERE name = 'rewrite_events'")
    for page in _pages(positions):
        rows = connection.execute(
            f"{SELECT_EVENTS} WHERE e.position IN ({','.join('?' * len(page))}) AND e.key_id IS NULL "
            "AND (e.salt IS NOT NULL OR e.payload <> 'null')",
            page,
        ).fetchall()
        found = found or any(row[6] not in CLOSED_BY for row in rows)
        connection.executemany(
            "UPDATE events SET payload = 'null', payload_digest = ?, salt = NULL, summary = NULL, error = NULL, state_hash = NULL, "
            "row_check = ? WHERE position = ?",
            [(row[27] or payload_hash(row[22], row[28]), _check_without_payload(row), row[0]) for row in rows],
        )
    connection.execute("UPDATE switches SET is_open = 0 WHERE name = 'rewrite_events'")
    return found


def _check_without_payload(row: Row) -> int:
    return event_check(row[0], row[2], row[17], row[19], None, None, row[12], row[15], row[18], row[23], None)


def _pages(positions: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(positions), 500):
        yield positions[start : start + 500]


def _remove_rows(connection: SqliteConnection, draft: Draft, stream: StreamId, head: FoundHead) -> None:
    """Everything else that says what the stream was told or said. What was under way is dropped with it."""
    commands = connection.execute("SELECT command_id FROM inbox WHERE stream_id = ?", (head.stream_id,)).fetchall()
    pairs = connection.execute(
        "SELECT receiver, incarnation, count(*) FROM outbox WHERE sender = ? GROUP BY receiver, incarnation", (stream,)
    ).fetchall()
    draft.forget([(row[0], stream) for row in commands], {(stream, receiver, incarnation): n for receiver, incarnation, n in pairs})
    connection.execute("DELETE FROM inbox WHERE stream_id = ?", (head.stream_id,))
    connection.execute("DELETE FROM outbox WHERE sender = ?", (stream,))
    for table in ("timers", "waits", "snapshots", "letters", "stopped"):
        connection.execute(f"DELETE FROM {table} WHERE stream = ?", (stream,))


def read_keys(connection: SqliteConnection, stream: StreamId) -> list[str]:
    """`ShardStore.keys_of`, also of a file that has no table for them yet."""
    if not has_keys(connection):
        return []
    return [row[0] for row in connection.execute("SELECT key_id FROM stream_keys WHERE stream = ? ORDER BY key_id", (stream,)).fetchall()]


def read_erasures(connection: SqliteConnection) -> list[Erasure]:
    """`ShardStore.erasures`."""
    rows = connection.execute(
        "SELECT stream, requested_by, is_plain FROM erasures WHERE finished_at_us IS NULL ORDER BY asked_at_us, stream"
    ).fetchall()
    return [
        Erasure(stream=stream, requested_by=requested_by, key_ids=tuple(read_keys(connection, stream)), is_plain=bool(is_plain))
        for stream, requested_by, is_plain in rows
    ]


def finish_erasure(writer: ShardWriter, connection: SqliteConnection, stream: StreamId, now_us: int) -> None:
    """`ShardStore.erased`."""

    def act(draft: Draft) -> None:
        for found, by, asked_us, is_plain in connection.execute(
            "SELECT stream, requested_by, asked_at_us, is_plain FROM erasures WHERE stream = ? AND finished_at_us IS NULL", (stream,)
        ).fetchall():
            check = row_check(found, by, asked_us, is_plain, now_us)
            connection.execute("UPDATE erasures SET finished_at_us = ?, row_check = ? WHERE stream = ?", (now_us, check, found))
            draft.wrote = True

    writer.transact(connection, 0, act)
