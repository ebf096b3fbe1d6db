"""Reads of one shard file, each one short read transaction on the connection's thread. Shared by the writer's adapter
and by readers."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from events.envelope import GENESIS_HASH, RecordedEvent
from events.errors import CorruptLogError
from events.ids import CommandId, Position, StreamId, Version
from events.letters import Letter, StoppedActor
from events.limits import PAGE_EVENTS_MAX
from events.sqlite.letters_sqlite import SELECT_LETTERS, SELECT_STOPPED, has_letters, letter_row, stopped_row
from events.sqlite.rows import (
    SELECT_EVENTS,
    SELECT_EVENTS_CHECKED,
    SELECT_INBOX,
    SELECT_OUTBOX,
    SELECT_SNAPSHOT,
    SELECT_TIMERS,
    SELECT_WAITS,
    Row,
    inbox_row,
    outbox_send,
    snapshot_or_none,
    stream_check,
    timer_entry,
    verified_event,
    wait_entry,
)
from events.sqlite.sqlite_library import SqliteConnection
from events.store import Format, Head, InboxEntry, PendingSend, ShardInfo, Snapshot, StreamInfo, TimerEntry, UnderWay, WaitEntry

T = TypeVar("T")

_FLUSHED: Final = "(SELECT coalesce(max(position), 0) FROM heads)"
# A stream is walked backwards along prev_position. e.position < chain.prev guards nothing in a sound log and ends a
# loop in a damaged one.
_CHAIN: Final = f"""
    WITH RECURSIVE chain(position, version, prev) AS (
        SELECT position, version, prev_position FROM events WHERE position = :start
        UNION ALL
        SELECT e.position, e.version, e.prev_position FROM chain JOIN events e ON e.position = chain.prev
        WHERE chain.version > :lowest AND e.position < chain.position)
    {SELECT_EVENTS.replace("FROM events e", "FROM chain c CROSS JOIN events e ON e.position = c.position")}
    WHERE c.version <= :highest"""


class FoundHead(msgspec.Struct, gc=False):
    """Where a stream ends, as the file says."""

    stream_id: int
    version: int
    position: int
    hash: bytes
    status: str
    base_version: int = 0
    base_hash: bytes = GENESIS_HASH


def in_snapshot(connection: SqliteConnection, read: Callable[[], Any]) -> Any:
    """Run `read` so that all its statements see one state of the file."""
    connection.execute("BEGIN")
    try:
        return read()
    finally:
        connection.execute("ROLLBACK")


def flushed_head(connection: SqliteConnection, stream: str) -> FoundHead | None:
    """The row of `stream` in `streams`: its head as of the last flush, None if the stream was never named.

    Raises:
        CorruptLogError: the row's checksum does not hold. A wrong head would let an append branch off in the middle of its stream.
    """
    rows = connection.execute(f"SELECT {_HEAD} FROM streams WHERE name = ?", (stream,)).fetchall()
    return _found_head(rows[0]) if rows else None


def flushed_heads(connection: SqliteConnection, streams: Iterable[str]) -> dict[str, FoundHead]:
    """`flushed_head` of each of `streams` that has one, in one statement. Raises as that."""
    names = msgspec.json.encode(list(streams)).decode()
    rows = connection.execute(f"SELECT {_HEAD} FROM streams WHERE name IN (SELECT value FROM json_each(?))", (names,)).fetchall()
    return {row[0]: _found_head(row) for row in rows}


_HEAD: Final = "name, id, head_version, head_position, head_hash, status, base_version, base_hash, row_check"


def _found_head(row: Any) -> FoundHead:
    stream, stream_id, version, position, hash_, status, base_version, base_hash, check = row
    if stream_check(stream_id, stream, status, version, position, hash_, base_version, base_hash) != check:
        raise CorruptLogError(f"the row of {stream} in table streams is damaged. Run: cuebook verify", table="streams", stream=stream)
    return FoundHead(stream_id, version, position, hash_, status, base_version, base_hash or GENESIS_HASH)


def find_head(connection: SqliteConnection, stream: str) -> FoundHead | None:
    """The head of `stream` now: its row, or the newest event after the last flush. Call inside `in_snapshot`."""
    found = flushed_head(connection, stream)
    if found is None:
        return None
    newer = connection.execute(
        f"SELECT version, position, hash FROM events WHERE position > {_FLUSHED} AND stream_id = ? ORDER BY position DESC LIMIT 1",
        (found.stream_id,),
    ).fetchall()
    if newer:
        found.version, found.position, found.hash = newer[0]
    return found


def read_head(connection: SqliteConnection, stream: StreamId) -> Head | None:
    """`LogReader.head`."""
    found: FoundHead | None = in_snapshot(connection, lambda: find_head(connection, stream))
    if found is None or found.version == 0:
        return None
    return Head(stream=stream, version=Version(found.version), position=Position(found.position), hash=found.hash, status=found.status)


def read_chain(connection: SqliteConnection, shard: int, stream: str, head: FoundHead, after: int, end: int) -> list[RecordedEvent]:
    """Events of `stream` with after < version <= end, in order, each verified against its predecessor. end <=
    head.version.

    Raises:
        CorruptLogError: an event is missing or does not verify.
    """
    after = max(after, head.base_version)
    if end <= after:
        return []
    # A long stream is entered at the first page row at or above the end, else at its head.
    entry = connection.execute(
        "SELECT position FROM stream_pages WHERE stream_id = ? AND version >= ? ORDER BY version LIMIT 1", (head.stream_id, end)
    ).fetchall()
    start = entry[0][0] if entry else head.position
    # One event more than asked for: the predecessor of the first, whose hash it continues.
    lowest = max(after, head.base_version + 1)
    rows = connection.execute(_CHAIN, {"start": start, "lowest": lowest, "highest": end}).fetchall()
    rows.reverse()
    if after > head.base_version and rows and rows[0][4] == after:
        previous = rows[0][25]
        rows = rows[1:]
    else:
        previous = head.base_hash
    events = []
    version = after
    for row in rows:
        version += 1
        if row[4] != version or row[29] != stream:
            break
        events.append(verified_event(shard, row, previous))
        previous = row[25]
    if len(events) != end - after:
        raise chain_gap(shard, stream, after + len(events) + 1, start)
    return events


def chain_gap(shard: int, stream: str, missing: int, start: int) -> CorruptLogError:
    """Walking back from position `start`, version `missing` does not come."""
    return CorruptLogError(
        f"version {missing} of {stream} in shard {shard} cannot be found from position {start}. Run: cuebook verify",
        shard=shard, stream=stream, version=missing, position=start,
    )  # fmt: skip


def read_stream(connection: SqliteConnection, shard: int, stream: StreamId, after: int, limit: int) -> list[RecordedEvent]:
    """`LogReader.read_stream`."""

    def read() -> list[RecordedEvent]:
        head = find_head(connection, stream)
        if head is None:
            return []
        low = max(after, head.base_version)
        return read_chain(connection, shard, stream, head, low, min(head.version, low + page_limit(limit)))

    events: list[RecordedEvent] = in_snapshot(connection, read)
    return events


def load_stream(
    connection: SqliteConnection, shard: int, stream: StreamId, shape: str, head: FoundHead | None
) -> tuple[Snapshot | None, list[RecordedEvent]]:
    """`ShardStore.load`. head: as the writer knows it, None to look it up."""

    def read() -> tuple[Snapshot | None, list[RecordedEvent]]:
        found = head or find_head(connection, stream)
        if found is None or found.version == 0:
            return None, []
        snapshot = usable_snapshot(connection, stream, shape, found)
        after = snapshot.version if snapshot is not None else 0
        return snapshot, read_chain(connection, shard, stream, found, after, found.version)

    loaded: tuple[Snapshot | None, list[RecordedEvent]] = in_snapshot(connection, read)
    return loaded


def usable_snapshot(connection: SqliteConnection, stream: StreamId, shape: str, head: FoundHead) -> Snapshot | None:
    """The newest snapshot. One of another shape, or from beyond the end, is as good as none: it is never needed (I-8)."""
    snapshot = read_snapshot(connection, stream)
    return None if snapshot is None or snapshot.shape != shape or snapshot.version > head.version else snapshot


def with_warnings(info: ShardInfo, warnings: Sequence[str]) -> ShardInfo:
    """`info` with what the writer noticed."""
    return msgspec.structs.replace(info, warnings=tuple(warnings)) if warnings else info


def page_limit(limit: int) -> int:
    """A page is at most 1,000 events."""
    return max(0, min(limit, PAGE_EVENTS_MAX))


def _verified(shard: int, rows: Sequence[Row]) -> list[RecordedEvent]:
    return [verified_event(shard, row, row[30] or row[31] or GENESIS_HASH) for row in rows]


def read_page(connection: SqliteConnection, shard: int, after: int, limit: int) -> list[RecordedEvent]:
    """`LogReader.read`."""
    rows = connection.execute(
        f"{SELECT_EVENTS_CHECKED} WHERE e.position > ? ORDER BY e.position LIMIT ?", (after, page_limit(limit))
    ).fetchall()
    return _verified(shard, rows)


def read_last(connection: SqliteConnection, shard: int, before: int | None, limit: int) -> list[RecordedEvent]:
    """`LogReader.read_last`."""
    bound = 2**63 - 1 if before is None else before
    rows = connection.execute(
        f"{SELECT_EVENTS_CHECKED} WHERE e.position < ? ORDER BY e.position DESC LIMIT ?", (bound, page_limit(limit))
    ).fetchall()
    return _verified(shard, rows)


def read_at(connection: SqliteConnection, shard: int, position: int) -> RecordedEvent | None:
    """`LogReader.at`."""
    rows = connection.execute(f"{SELECT_EVENTS_CHECKED} WHERE e.position = ?", (position,)).fetchall()
    return _verified(shard, rows)[0] if rows else None


def read_event(connection: SqliteConnection, shard: int, event_id: str, time: int) -> RecordedEvent | None:
    """The event `event_id`, recorded at logical `time`, if this shard has it: a binary search for the first event of that time, since
    time never falls with position. After an import several streams may share one."""

    def read() -> RecordedEvent | None:
        low, high = 1, connection.execute("SELECT coalesce(max(position), 0) FROM events").fetchall()[0][0]
        while low <= high:
            middle = (low + high) // 2
            # The next row at or after the middle: positions may have holes after `archive`.
            rows = connection.execute(
                "SELECT position, time, event_id FROM events WHERE position >= ? ORDER BY position LIMIT 1", (middle,)
            ).fetchall()
            if not rows or rows[0][0] > high or rows[0][1] >= time:
                high = middle - 1
            else:
                low = rows[0][0] + 1
        while True:
            rows = connection.execute(
                "SELECT position, time, event_id FROM events WHERE position >= ? ORDER BY position LIMIT 1", (low,)
            ).fetchall()
            if not rows or rows[0][1] != time:
                return None
            if rows[0][2] == event_id:
                return read_at(connection, shard, rows[0][0])
            low = rows[0][0] + 1

    event: RecordedEvent | None = in_snapshot(connection, read)
    return event


def read_streams(connection: SqliteConnection, shard: int, after: str, limit: int) -> list[StreamInfo]:
    """Streams of this shard that have events, by name > `after`."""

    def read() -> list[StreamInfo]:
        # max() makes SQLite take the other column from the same row (sqlite.org/lang_select.html, "bare columns").
        newer = {
            row[0]: row[1:]
            for row in connection.execute(
                f"SELECT stream_id, version, max(position) FROM events WHERE position > {_FLUSHED} GROUP BY stream_id"
            ).fetchall()
        }
        found: list[StreamInfo] = []
        cursor = after
        while True:
            rows = connection.execute(
                "SELECT id, name, status, head_version, head_position FROM streams WHERE name > ? ORDER BY name LIMIT ?", (cursor, limit)
            ).fetchall()
            for stream_id, name, status, *flushed in rows:
                version, position = newer.get(stream_id, flushed)
                # A stream that only ever had tells or waits has a row, but no event.
                if version > 0:
                    found.append(StreamInfo(stream=name, shard=shard, version=version, position=position, status=status))
            if len(rows) < limit or len(found) >= limit:
                return found[:limit]
            cursor = rows[-1][1]

    streams: list[StreamInfo] = in_snapshot(connection, read)
    return streams


def read_info(connection: SqliteConnection, shard: int) -> ShardInfo:
    """`LogReader.info`."""
    row = connection.execute(
        "SELECT i.shards, i.incarnation, o.epoch, o.worker, (SELECT max(position) FROM events), "
        "(SELECT time FROM events ORDER BY position DESC LIMIT 1) FROM identity i, owner o"
    ).fetchall()[0]
    return ShardInfo(
        shard=shard, shards=row[0], incarnation=row[1], position=Position(row[4] or 0), time=row[5] or 0, owner_epoch=row[2], worker=row[3]
    )


def read_inbox(connection: SqliteConnection, shard: int, stream: StreamId, command_id: CommandId) -> InboxEntry | None:
    """`LogReader.inbox`."""
    rows = connection.execute(f"{SELECT_INBOX} WHERE i.command_id = ? AND s.name = ?", (command_id, stream)).fetchall()
    return inbox_row(shard, rows[0]).entry if rows else None


_DID: Final = """
    WITH RECURSIVE chain(position, version, prev, time, command_id) AS (
        SELECT position, version, prev_position, time, command_id FROM events WHERE position = :start
        UNION ALL
        SELECT e.position, e.version, e.prev_position, e.time, e.command_id FROM chain JOIN events e ON e.position = chain.prev
        WHERE e.position < chain.position AND e.version > :after AND e.time >= :since)
    SELECT 1 FROM chain WHERE command_id = :command_id AND version > :after AND time >= :since LIMIT 1"""


def read_did(connection: SqliteConnection, stream: StreamId, command_id: CommandId, after: int, since: int) -> bool:
    """`ShardStore.did`: from the head backwards, as far as the bounds allow."""

    def read() -> bool:
        head = find_head(connection, stream)
        if head is None or head.version <= after:
            return False
        values = {"start": head.position, "after": after, "since": since, "command_id": command_id}
        return bool(connection.execute(_DID, values).fetchall())

    found: bool = in_snapshot(connection, read)
    return found


def _sound(
    connection: SqliteConnection, shard: int, sql: str, parse: Callable[[int, Row], T], given: Sequence[Any] = ()
) -> tuple[list[T], list[str]]:
    """The rows of `sql` that verify, and what is wrong with the others: one damaged row stops its own actor, not the shard (I-20)."""
    found: list[T] = []
    damages: list[str] = []
    for row in connection.execute(sql, given).fetchall():
        try:
            found.append(parse(shard, row))
        except CorruptLogError as error:
            damages.append(error.message)
    return found, damages


def read_unfinished(connection: SqliteConnection, shard: int) -> tuple[list[InboxEntry], list[str]]:
    """`ShardStore.unfinished`, and the damages met."""
    rows, damages = _sound(connection, shard, f"{SELECT_INBOX} WHERE i.status IN ('queued', 'running') ORDER BY i.id", inbox_row)
    return [row.entry for row in rows], damages


def read_unsent(connection: SqliteConnection, shard: int) -> tuple[list[PendingSend], list[str]]:
    """`ShardStore.unsent`, and the damages met."""
    return _sound(connection, shard, f"{SELECT_OUTBOX} ORDER BY sender, receiver, incarnation, n", outbox_send)


def read_timers(connection: SqliteConnection, shard: int) -> tuple[list[TimerEntry], list[str]]:
    """`ShardStore.timers`, and the damages met."""
    return _sound(connection, shard, f"{SELECT_TIMERS} ORDER BY due_us, stream, timer_id", timer_entry)


def read_waits(connection: SqliteConnection, shard: int) -> tuple[list[WaitEntry], list[str]]:
    """`ShardStore.waits`, and the damages met."""
    return _sound(connection, shard, f"{SELECT_WAITS} ORDER BY opened_at_us, stream, wait_id", wait_entry)


def read_under_way(connection: SqliteConnection, shard: int) -> UnderWay:
    """`LogReader.under_way`."""

    def read() -> UnderWay:
        commands, damaged = read_unfinished(connection, shard)
        sends, damaged_sends = read_unsent(connection, shard)
        timers, damaged_timers = read_timers(connection, shard)
        waits, damaged_waits = read_waits(connection, shard)
        damages = [*damaged, *damaged_sends, *damaged_timers, *damaged_waits]
        return UnderWay(commands=commands, sends=sends, timers=timers, waits=waits, damages=damages)

    found: UnderWay = in_snapshot(connection, read)
    return found


def read_queued(connection: SqliteConnection, shard: int, stream: StreamId, limit: int) -> list[InboxEntry]:
    """`ShardStore.queued`."""
    named = connection.execute("SELECT id FROM streams WHERE name = ?", (stream,)).fetchall()
    if not named:
        return []
    rows = connection.execute(
        f"{SELECT_INBOX} WHERE i.stream_id = ? AND i.status = 'queued' ORDER BY i.id LIMIT ?", (named[0][0], limit)
    ).fetchall()
    return [inbox_row(shard, row).entry for row in rows]


def read_letters(connection: SqliteConnection, shard: int, stream: StreamId | None = None) -> tuple[list[Letter], list[str]]:
    """`ShardStore.letters`, and the damages met."""
    if not has_letters(connection):
        return [], []
    where, given = ("", ()) if stream is None else (" WHERE stream = ?", (stream,))
    return _sound(connection, shard, f"{SELECT_LETTERS}{where} ORDER BY failed_at_us, stream, command_id", letter_row, given)


def read_stopped(connection: SqliteConnection, shard: int) -> tuple[list[StoppedActor], list[str]]:
    """`ShardStore.stopped`, and the damages met."""
    return _sound(connection, shard, f"{SELECT_STOPPED} ORDER BY stream", stopped_row) if has_letters(connection) else ([], [])


def read_snapshot(connection: SqliteConnection, stream: StreamId) -> Snapshot | None:
    """The newest snapshot of `stream`, None if there is none or it is damaged."""
    rows = connection.execute(f"{SELECT_SNAPSHOT} WHERE stream = ?", (stream,)).fetchall()
    return snapshot_or_none(rows[0]) if rows else None


def read_formats(connection: SqliteConnection) -> list[Format]:
    """Every format that was ever written to this shard (S7)."""
    rows = connection.execute("SELECT kind, name, version, first_position FROM formats ORDER BY kind, name, version").fetchall()
    return [Format(kind=row[0], name=row[1], version=row[2], first_position=row[3]) for row in rows]
