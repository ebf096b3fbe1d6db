"""The room that deleted threads take in the file: given back as soon as no copy reads them (S38).

A thread that was deleted is empty from that event on, so what was said in it before is nobody's any more, unless another thread was copied
from it and so reads its events (S33). What nobody reads is removed as `cuebook erase` removes it (S29): in place, with the digest that the
hash covers left behind, so the chain still verifies. The stream itself lives on. SQLite uses the room again for what is written next; the
file itself becomes shorter when the folder is closed and a quarter of it is unused.

A deletion is noted in the transaction that records it, so one that was not followed up by a crash is by the next.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from actors.graph import recorded
from events.append_sqlite import Draft
from events.closing_sqlite import remove_said
from events.crash_points import CrashPoint, reached
from events.ids import StreamId
from events.reads_sqlite import find_head
from events.sqlite_library import SqliteConnection
from events.writer_sqlite import ShardWriter

SAID: Final = (recorded.SAVED, recorded.WRITES, recorded.PARTS, recorded.REMOVED)
"""What goes. What stays names threads, claims and copies only."""
UNUSED_MIN: Final = 0.25
"""Of the file: below that to write it anew costs more than it gives."""
_TABLES: Final = (
    # Up to `version` the stream says nothing that its own thread needs. is_freed: nor does anybody else, and it is gone.
    """CREATE TABLE IF NOT EXISTS graph_deleted (
        stream_id INTEGER PRIMARY KEY, version INTEGER NOT NULL, is_freed INTEGER NOT NULL) STRICT""",
    "CREATE INDEX IF NOT EXISTS graph_copies ON graph_checkpoints (position) WHERE is_copy",
)
_NOTE: Final = "ON CONFLICT (stream_id) DO UPDATE SET version = excluded.version, is_freed = 0 WHERE excluded.version > version"


def prepare(connection: SqliteConnection) -> None:
    """Make the table; where it is missing, from the events. Needs `graph_checkpoints`."""
    known = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'graph_deleted'").fetchall()[0][0]
    for statement in _TABLES:
        connection.execute(statement)
    if not known:
        connection.execute(
            "INSERT INTO graph_deleted SELECT stream_id, max(version), 0 FROM events WHERE type = ? GROUP BY stream_id",
            (recorded.DELETED,),
        )


def note(connection: SqliteConnection, deleted: Iterable[tuple[str, int]]) -> None:
    """That these streams have said at these versions that they begin anew."""
    connection.executemany(
        f"INSERT INTO graph_deleted SELECT id, ?, 0 FROM streams WHERE name = ? {_NOTE}", [(version, stream) for stream, version in deleted]
    )


class _Copy(NamedTuple):
    """At `version` of `stream` it became a copy of what `source` held at `upto`."""

    stream: str
    version: int
    source: str
    upto: int


def free(writer: ShardWriter, connection: SqliteConnection) -> int:
    """Remove what was said in deleted threads and is read by nobody; how many events that were. A transaction for each thread.

    Raises: as `ShardWriter.transact`.
    """
    waiting, deleted = _deleted(connection)
    if not waiting:
        return 0
    needed = _needed(_copies(connection), deleted)
    return sum(_free(writer, connection, stream, deleted[stream]) for stream in waiting if stream not in needed)


def _deleted(connection: SqliteConnection) -> tuple[list[str], dict[str, int]]:
    rows = connection.execute(
        "SELECT s.name, d.version, d.is_freed FROM graph_deleted d JOIN streams s ON s.id = d.stream_id ORDER BY s.name"
    ).fetchall()
    return [name for name, _, is_freed in rows if not is_freed], {name: version for name, version, _ in rows}


def _copies(connection: SqliteConnection) -> list[_Copy]:
    rows = connection.execute(
        "SELECT s.name, c.version, coalesce(e.payload ->> '$.parent', e.payload ->> '$.stream'), e.payload ->> '$.version' "
        "FROM graph_checkpoints c JOIN events e ON e.position = c.position JOIN streams s ON s.id = c.stream_id "
        "WHERE c.is_copy AND e.payload <> 'null'"
    ).fetchall()
    return [_Copy(*row) for row in rows]


def _needed(copies: list[_Copy], deleted: dict[str, int]) -> set[str]:
    """The streams of which something below their deletion is read by a thread that is not deleted, through however many copies."""
    needed: set[str] = set()
    seen: set[_Copy] = set()
    left = [each for each in copies if each.version > deleted.get(each.stream, 0)]
    while left:
        copy = left.pop()
        if copy in seen or copy.upto >= deleted.get(copy.source, 0):
            continue
        seen.add(copy)
        needed.add(copy.source)
        left += [each for each in copies if each.stream == copy.source and each.version <= copy.upto]
    return needed


def _free(writer: ShardWriter, connection: SqliteConnection, stream: str, version: int) -> int:
    head = find_head(connection, StreamId(stream))
    if head is None:
        return 0

    def act(draft: Draft) -> int:
        positions = remove_said(connection, head, SAID, version)
        connection.executemany("DELETE FROM graph_checkpoints WHERE position = ?", [(position,) for position in positions])
        connection.execute("UPDATE graph_deleted SET is_freed = 1 WHERE stream_id = ? AND version = ?", (head.stream_id, version))
        draft.wrote = True
        reached(CrashPoint.GRAPH_FREE_READY)
        return len(positions)

    return writer.transact(connection, 0, act)


def shrink(writer: ShardWriter, connection: SqliteConnection) -> bool:
    """Write the file anew if much of it is unused; whether it was. Takes as long as copying what is left. Raises: SupersededError."""
    writer.check_owner(connection)
    pages: int = connection.execute("PRAGMA page_count").fetchall()[0][0]
    unused: int = connection.execute("PRAGMA freelist_count").fetchall()[0][0]
    return unused >= UNUSED_MIN * pages and writer.scrub(connection)
