"""One stream for the one who folds it: its snapshot, and behind it what a state is made of, every hash recomputed (I-20).

State events of the ordinary kind come as `PlainEvent`; only the others are built as envelopes, after they were verified like everywhere.
"""

from collections.abc import Container
from hashlib import sha256
from struct import iter_unpack
from typing import Any, Final

import msgspec

from events.envelope import RecordedEvent
from events.facts import PlainEvent
from events.ids import StreamId
from events.sqlite.lean_sqlite import PAYLOAD_AT, array_opening, lean_columns
from events.sqlite.packed_sqlite import HASH_FORMAT, packed, read_packed
from events.sqlite.reads_sqlite import FoundHead, chain_gap, find_head, in_snapshot, read_chain, usable_snapshot
from events.sqlite.rows import SELECT_EVENTS, verified_event
from events.sqlite.sqlite_library import SqliteConnection, SqliteError
from events.store import Snapshot

_CHAIN: Final = """
    WITH RECURSIVE chain(position, version, prev) AS (
        SELECT position, version, prev_position FROM events WHERE position = :start
        UNION ALL
        SELECT e.position, e.version, e.prev_position FROM chain JOIN events e ON e.position = chain.prev
        WHERE chain.version > :lowest AND e.position < chain.position)"""
_FROM: Final = "chain c CROSS JOIN events e ON e.position = c.position"
_OURS: Final = "e.stream_id = :stream_id"
_TAIL: Final = f"{_CHAIN} SELECT e.position, e.version, {lean_columns('e.', _OURS)} FROM {_FROM}"
_PACKED: Final = _CHAIN + packed("e.version", _FROM, "e.", _OURS)
_PACKED_MIN, _PACKED_MAX = 16, 4_000
"""So many events are worth it, and so many, with what they weigh, are held twice."""
_ROWS_AT_ONCE: Final = 250


def load_tail(
    connection: SqliteConnection, shard: int, stream: StreamId, shape: str, head: FoundHead | None, plain: Container[str]
) -> tuple[Snapshot | None, list[RecordedEvent | PlainEvent]]:
    """`ShardStore.tail`. head: as the writer knows it, None to look it up.

    Raises:
        CorruptLogError: an event is missing or does not verify.
    """

    def read() -> tuple[Snapshot | None, list[RecordedEvent | PlainEvent]]:
        found = head or find_head(connection, stream)
        if found is None or found.version == 0:
            return None, []
        snapshot = usable_snapshot(connection, stream, shape, found)
        after = snapshot.version if snapshot is not None else 0
        try:
            return snapshot, _read_tail(connection, shard, stream, found, after, plain)
        except SqliteError:
            # A flipped bit can make bytes of a text, which SQLite's JSON refuses without saying where: whole rows are verified one by one.
            return snapshot, list(read_chain(connection, shard, stream, found, after, found.version))

    loaded: tuple[Snapshot | None, list[RecordedEvent | PlainEvent]] = in_snapshot(connection, read)
    return loaded


def _read_tail(
    connection: SqliteConnection, shard: int, stream: str, head: FoundHead, after: int, plain: Container[str]
) -> list[RecordedEvent | PlainEvent]:
    after = max(after, head.base_version)
    if head.version <= after:
        return []
    # One event more than asked for: the predecessor of the first, whose hash it continues.
    lowest = max(after, head.base_version + 1)
    values = {"start": head.position, "lowest": lowest, "stream_id": head.stream_id}
    rows = _packed_rows(connection, values) if _PACKED_MIN <= head.version - after <= _PACKED_MAX else None
    if rows is None:
        rows = [(*row[:5], row[5][1:-2]) for row in connection.execute(_TAIL, values).fetchall()]
    rows.reverse()
    previous = head.base_hash
    if after > head.base_version and rows and rows[0][1] == after:
        previous = rows[0][2]
        del rows[0]
    found: list[RecordedEvent | PlainEvent] = []
    apart: list[tuple[int, int, bytes]] = []
    """Index in `found`, position and previous hash of each that is to be read in full."""
    opening, join, version = array_opening(stream), b"".join, after
    for position, number, hash_, body, tag, covered in rows:
        version += 1
        if number != version:
            raise chain_gap(shard, stream, version, head.position)
        if tag in plain and body is not None:
            digest = sha256(body).hexdigest().encode()
            # ["<stream>",<version>,...,"<branch>","<payload's digest>"]
            sound = sha256(join((previous, opening, covered, digest, b'"]'))).digest() == hash_
        else:
            sound = False
        if sound:
            found.append((number, tag, body[PAYLOAD_AT:]))
        else:
            apart.append((len(found), position, previous))
            found.append((number, "", b""))
        previous = hash_
    if version != head.version:
        raise chain_gap(shard, stream, version + 1, head.position)
    _read_apart(connection, shard, stream, apart, found)
    return found


def _packed_rows(connection: SqliteConnection, values: dict[str, Any]) -> list[tuple[Any, ...]] | None:
    """Position, version, hash, body (salt and payload, or None), tag (or empty) and what the hash covers of each row, in the order in which
    they were read; None where they cannot be packed."""
    try:
        found = read_packed(connection, _PACKED, values)
    except (SqliteError, msgspec.DecodeError):
        return None
    if found is None or not found.fits:
        return None
    bodies: list[bytes | None] = []
    at = 0
    for size in found.sizes:
        bodies.append(found.bodies[at : at + size] if size >= 0 else None)
        at += max(size, 0)
    hashes = (hash_ for (hash_,) in iter_unpack(HASH_FORMAT, found.hashes))
    return list(zip(found.positions, found.numbers, hashes, bodies, found.tags, found.covered, strict=True))


def _read_apart(
    connection: SqliteConnection, shard: int, stream: str, apart: list[tuple[int, int, bytes]], found: list[RecordedEvent | PlainEvent]
) -> None:
    """The events at the places in `apart`, in full and verified."""
    for first in range(0, len(apart), _ROWS_AT_ONCE):
        some = apart[first : first + _ROWS_AT_ONCE]
        marks = ", ".join("?" * len(some))
        rows = connection.execute(f"{SELECT_EVENTS} WHERE e.position IN ({marks})", [position for _, position, _ in some]).fetchall()
        whole = {row[0]: row for row in rows}
        for index, position, previous in some:
            row = whole.get(position)
            if row is None or row[29] != stream:
                event = found[index]
                raise chain_gap(shard, stream, event[0] if isinstance(event, tuple) else event.version, position)
            found[index] = verified_event(shard, row, previous)
