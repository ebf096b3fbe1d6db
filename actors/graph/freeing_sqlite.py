"""The room that deleted and rebased threads take in the file: given back as soon as no copy reads them (S38).

A thread that was deleted, or told anew (`rebasing`), begins anew with that event: what was said in it before is nobody's any more, unless
another thread was copied from it and so reads its events up to a version (S33). What nobody reads is removed as `cuebook erase` removes it
(S29): in place, with the digest that the hash covers left behind, so the chain still verifies. The stream itself lives on. SQLite uses the
room again for what is written next; the file itself becomes shorter when the folder is closed and a quarter of it is unused.

Where a thread ended is noted in the transaction that records it. A rebase frees in that transaction too; a deletion frees in one behind it,
and one that was not followed up by a crash is by the next.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from actors.graph import recorded
from events.crash_points import CrashPoint, reached
from events.sqlite.append_sqlite import Draft
from events.sqlite.closing_sqlite import remove_said, said_in
from events.sqlite.reads_sqlite import find_head
from events.sqlite.sqlite_library import SqliteConnection
from events.sqlite.writer_sqlite import ShardWriter

SAID: Final = (recorded.SAVED, recorded.KEPT, recorded.WRITES, recorded.PARTS, recorded.REMOVED)
"""What goes. What stays names threads, claims and copies only."""
ENDS: Final = (recorded.DELETED, recorded.REBASED)
UNUSED_MIN: Final = 0.25
"""Of the file: below that to write it anew costs more than it gives."""
ROOM_OF_A_ROW: Final = 500
"""At most, beside the payload."""
_TABLES: Final = (
    # Of after < version <= upto the stream says nothing that its own thread needs. Copies read what is up to `kept` of it; behind that it
    # is gone.
    """CREATE TABLE IF NOT EXISTS graph_ends (
        stream_id INTEGER NOT NULL, upto INTEGER NOT NULL, after INTEGER NOT NULL, kept INTEGER NOT NULL,
        PRIMARY KEY (stream_id, upto)) STRICT, WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS graph_unfreed ON graph_ends (stream_id) WHERE kept > after",
    "CREATE INDEX IF NOT EXISTS graph_copies ON graph_checkpoints (position) WHERE is_copy",
    # What went from the middle of pages, which SQLite does not count as unused.
    "CREATE TABLE IF NOT EXISTS graph_holes (bytes INTEGER NOT NULL) STRICT",
    "INSERT INTO graph_holes SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM graph_holes)",
    "DROP TABLE IF EXISTS graph_deleted",  # of earlier releases: the ends of deleted threads only
)
_LIVES: Final = (
    "INSERT INTO graph_ends SELECT stream_id, version, lag(version, 1, 0) OVER (PARTITION BY stream_id ORDER BY version), version "
    "FROM events WHERE type IN (?, ?)"
)
_NOTE: Final = (
    "INSERT OR IGNORE INTO graph_ends "
    "SELECT id, ?1, coalesce((SELECT max(upto) FROM graph_ends WHERE stream_id = id AND upto < ?1), 0), ?1 FROM streams WHERE name = ?2"
)


def prepare(connection: SqliteConnection) -> None:
    """Make the tables; where they are missing, from the events. Needs `graph_checkpoints`."""
    known = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'graph_ends'").fetchall()[0][0]
    for statement in _TABLES:
        connection.execute(statement)
    if not known:
        connection.execute(_LIVES, ENDS)


def note(connection: SqliteConnection, ended: Iterable[tuple[str, int]]) -> None:
    """That these streams have said at these versions, told in order, that they begin anew."""
    connection.executemany(_NOTE, [(version, stream) for stream, version in ended])


class _Copy(NamedTuple):
    """At `version` of `stream` it became a copy of what `source` held at `upto`."""

    stream_id: int
    version: int
    source: int
    upto: int


_Life = tuple[int, int]
"""(stream, the version that ended it)"""


class _Readers:
    """Which lives of which streams are read by threads that are there, through however many copies. without: a thread that is about to be
    told anew, and so reads no other one."""

    def __init__(self, connection: SqliteConnection, without: int | None = None) -> None:
        self._connection = connection
        self.read: dict[_Life, int] = {}
        """Of lives that ended: up to which version."""
        self.living: dict[int, int] = {}
        """Of streams, in the life that has not ended."""
        copies = _copies(connection)
        left = [each for each in copies if each.version > self._ended(each.stream_id) and each.stream_id != without]
        seen: set[_Copy] = set()
        while left:
            copy = left.pop()
            if copy in seen:
                continue
            seen.add(copy)
            life = connection.execute(
                "SELECT upto, after FROM graph_ends WHERE stream_id = ? AND upto >= ? ORDER BY upto LIMIT 1", (copy.source, copy.upto)
            ).fetchall()
            if not life:
                # What it holds through copies of its own is found by those, which are in a life that has not ended either.
                self.living[copy.source] = max(copy.upto, self.living.get(copy.source, 0))
                after = self._ended(copy.source) if copy.source == without else copy.upto
            else:
                end, after = life[0]
                self.read[copy.source, end] = max(copy.upto, self.read.get((copy.source, end), 0))
            left += [each for each in copies if each.stream_id == copy.source and after < each.version <= copy.upto]

    def _ended(self, stream_id: int) -> int:
        rows = self._connection.execute("SELECT coalesce(max(upto), 0) FROM graph_ends WHERE stream_id = ?", (stream_id,)).fetchall()
        return int(rows[0][0])


def _copies(connection: SqliteConnection) -> list[_Copy]:
    rows = connection.execute(
        "SELECT c.stream_id, c.version, s.id, e.payload ->> '$.version' FROM graph_checkpoints c JOIN events e ON e.position = c.position "
        "JOIN streams s ON s.name = coalesce(e.payload ->> '$.parent', e.payload ->> '$.stream') WHERE c.is_copy AND e.payload <> 'null'"
    ).fetchall()
    return [_Copy(*row) for row in rows]


def room(connection: SqliteConnection, stream: str) -> tuple[int, int]:
    """What bounds the room that a rebase frees: up to which version of the thread copies read it, so that nothing goes (0 = none does), and
    how many bytes of payload of other threads, which ended, are still there for this one alone."""
    row = connection.execute("SELECT id FROM streams WHERE name = ?", (stream,)).fetchall()
    if not row:
        return 0, 0
    now, then = _Readers(connection), _Readers(connection, row[0][0])
    only_here = 0
    for stream_id, upto, after, kept in _unfreed(connection):
        start = min(kept, then.read.get((stream_id, upto), after))
        only_here += said_between(connection, _name(connection, stream_id), start, min(kept, now.read.get((stream_id, upto), after)))
    return now.living.get(row[0][0], 0), only_here


def said_between(connection: SqliteConnection, stream: str, after: int, upto: int) -> int:
    """Bytes of payload of after < version <= upto."""
    head = find_head(connection, stream) if after < upto else None
    return 0 if head is None else sum(bytes_ for _, bytes_ in said_in(connection, head, SAID, after, upto))


def _name(connection: SqliteConnection, stream_id: int) -> str:
    name: str = connection.execute("SELECT name FROM streams WHERE id = ?", (stream_id,)).fetchall()[0][0]
    return name


def _unfreed(connection: SqliteConnection) -> list[tuple[int, int, int, int]]:
    return connection.execute("SELECT stream_id, upto, after, kept FROM graph_ends WHERE kept > after ORDER BY stream_id, upto").fetchall()


def ended_at(connection: SqliteConnection, stream: str) -> int:
    """The version with which a thread last began anew, 0 if it never did."""
    rows = connection.execute(
        "SELECT coalesce(max(d.upto), 0) FROM graph_ends d JOIN streams s ON s.id = d.stream_id WHERE s.name = ?", (stream,)
    ).fetchall()
    return int(rows[0][0])


def free(writer: ShardWriter, connection: SqliteConnection) -> int:
    """Remove what was said in threads that ended and is read by nobody; how many events that were. A transaction for each life of a thread.

    Raises: as `ShardWriter.transact`.
    """
    return sum(_free(writer, connection, life, kept) for life, kept in _to_free(connection).items())


def free_within(connection: SqliteConnection) -> None:
    """As `free`, all of it inside the caller's transaction."""
    for life, kept in _to_free(connection).items():
        _remove(connection, life, kept)
    reached(CrashPoint.GRAPH_REBASE_READY)


def _to_free(connection: SqliteConnection) -> Mapping[tuple[int, int, int], int]:
    """Lives of which something can go, as (stream, upto, what is still there of it), and what has to stay."""
    unfreed = _unfreed(connection)
    if not unfreed:
        return {}
    read = _Readers(connection).read
    wanted = {(stream_id, upto, kept): read.get((stream_id, upto), after) for stream_id, upto, after, kept in unfreed}
    return {life: kept for life, kept in wanted.items() if kept < life[2]}


def _free(writer: ShardWriter, connection: SqliteConnection, life: tuple[int, int, int], kept: int) -> int:
    def act(draft: Draft) -> int:
        gone = _remove(connection, life, kept)
        draft.wrote = True
        reached(CrashPoint.GRAPH_FREE_READY)
        return gone

    return writer.transact(connection, 0, act)


def _remove(connection: SqliteConnection, life: tuple[int, int, int], kept: int) -> int:
    stream_id, upto, still = life
    head = find_head(connection, _name(connection, stream_id))
    said = [] if head is None else remove_said(connection, head, SAID, kept, still)
    connection.execute("UPDATE graph_ends SET kept = ? WHERE stream_id = ? AND upto = ?", (kept, stream_id, upto))
    page: int = connection.execute("PRAGMA page_size").fetchall()[0][0]
    # A longer one lay in pages of its own, which SQLite counts itself.
    connection.execute("UPDATE graph_holes SET bytes = bytes + ?", (sum(bytes_ for _, bytes_ in said if bytes_ < page - ROOM_OF_A_ROW),))
    return len(said)


def shrink(writer: ShardWriter, connection: SqliteConnection) -> bool:
    """Write the file anew if much of it is unused; whether it was. Takes as long as copying what is left. Raises: SupersededError."""
    writer.check_owner(connection)
    page: int = connection.execute("PRAGMA page_size").fetchall()[0][0]
    pages: int = connection.execute("PRAGMA page_count").fetchall()[0][0]
    unused: int = connection.execute("PRAGMA freelist_count").fetchall()[0][0]
    holes: int = connection.execute("SELECT bytes FROM graph_holes").fetchall()[0][0]
    if unused * page + holes < UNUSED_MIN * pages * page or not writer.scrub(connection):
        return False

    def act(draft: Draft) -> None:
        connection.execute("UPDATE graph_holes SET bytes = 0")
        draft.wrote = True

    writer.transact(connection, 0, act)
    return True
