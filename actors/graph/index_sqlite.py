"""The index of a folder of threads: which checkpoints there are, across threads. Committed with the events that it follows from (S38).

Its rows are candidates: whether a checkpoint is still there is said by its thread. So nothing has to be removed from it; what belongs to a
thread as it was before it began anew is, for room. A table that was lost is made again from the events.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from actors.graph import freeing_sqlite as freeing
from actors.graph import recorded
from events.envelope import RecordedEvent
from events.errors import ConfigurationError, CorruptLogError
from events.ids import StreamId
from events.sqlite.reads_sqlite import FoundHead, find_head, flushed_head, in_snapshot, read_chain
from events.sqlite.sqlite_library import SqliteConnection

THREAD_TYPE: Final = "thread"
STORE_TYPE: Final = "store"
SCAN_ROWS: Final = 1_000
_TABLES: Final = (
    # is_copy: from here on the thread holds all that another one held.
    """CREATE TABLE IF NOT EXISTS graph_checkpoints (
        position INTEGER PRIMARY KEY, stream_id INTEGER NOT NULL, version INTEGER NOT NULL, is_copy INTEGER NOT NULL, run_id TEXT)
        STRICT""",
    # name: the thread's own id, where it cannot stand in the name of its stream.
    """CREATE TABLE IF NOT EXISTS graph_threads (
        stream_id INTEGER PRIMARY KEY, name TEXT, parent TEXT) STRICT""",
)
_NAMED: Final = {recorded.SAVED, recorded.THREAD, recorded.COPIED, recorded.FORKED, recorded.KEPT, *freeing.ENDS}


class _Brief(msgspec.Struct):
    """Of a checkpoint's payload, what the index needs."""

    metadata: dict[str, msgspec.Raw] = {}
    home: int = 0


class Row(NamedTuple):
    """A candidate: the checkpoint, or with `is_copy` all checkpoints, of the thread whose home is `version`."""

    position: int
    stream: str
    thread: str | None
    version: int
    is_copy: bool
    run_id: str | None


Events = list[tuple[RecordedEvent, int]]
"""Each with its home (`thread_state.Checkpoint`)."""
_INSERT_CHECKPOINTS: Final = (
    "INSERT OR REPLACE INTO graph_checkpoints SELECT j.value ->> 0, s.id, j.value ->> 2, j.value ->> 3, j.value ->> 4 "
    "FROM json_each(?) j CROSS JOIN streams s ON s.name = j.value ->> 1"
)
_UPSERT_THREADS: Final = (
    "INSERT INTO graph_threads SELECT s.id, j.value ->> 1, j.value ->> 2 FROM json_each(?) j "
    "CROSS JOIN streams s ON s.name = j.value ->> 0 WHERE true "
    "ON CONFLICT (stream_id) DO UPDATE SET name = coalesce(excluded.name, name), parent = coalesce(excluded.parent, parent)"
)
_brief: Final = msgspec.json.Decoder(_Brief)
_run: Final = msgspec.json.Decoder(str)


class GraphIndex:
    """The `events.companion.Companion` of a folder of threads."""

    def prepare(self, connection: SqliteConnection) -> None:
        for statement in _TABLES:
            connection.execute(statement)
        freeing.prepare(connection)
        after = connection.execute("SELECT coalesce(max(position), 0) FROM graph_checkpoints").fetchall()[0][0]
        sql = (
            "SELECT e.position, s.name, e.version, e.type, e.payload FROM events e JOIN streams s ON s.id = e.stream_id "
            "WHERE e.position > ? AND s.type = ? AND (e.payload <> 'null' OR e.type = ?) ORDER BY e.position LIMIT ?"
        )
        anew = _Anew()
        # A checkpoint that was told anew has its place in the order where it was first recorded, and nothing is said there any more.
        while rows := connection.execute(sql, (after, THREAD_TYPE, recorded.SAVED, SCAN_ROWS)).fetchall():
            _note(
                connection,
                [(position, stream, version, type_, payload.encode()) for position, stream, version, type_, payload in rows],
                anew,
            )
            after = rows[-1][0]
        anew.write(connection)

    def write(self, connection: SqliteConnection, events: Sequence[RecordedEvent]) -> None:
        # Both statements are one each, whatever the batch holds: a busy event loop gives the GIL back only after 5 ms per statement.
        _note(
            connection,
            [
                (event.position, event.stream, event.version, event.type, event.payload)
                for event in events
                if event.version == 1 or event.type in _NAMED
            ],
            anew := _Anew(),
        )
        if anew.write(connection):
            freeing.free_within(connection)


class _Anew:
    """Threads that began anew, in the order in which they did."""

    def __init__(self) -> None:
        self._ends: list[tuple[str, int]] = []
        self._homes: dict[str, set[int]] = {}
        self._rebased = False

    def begins(self, stream: str, version: int, type_: str) -> None:
        """With the event of that version."""
        self._ends.append((stream, version))
        self._homes[stream] = set()
        self._rebased = self._rebased or type_ == recorded.REBASED

    def keeps(self, stream: str, home: int) -> None:
        """A checkpoint that is known by this older version (`thread_state.Checkpoint.home`)."""
        self._homes.setdefault(stream, set()).add(home)

    def write(self, connection: SqliteConnection) -> bool:
        """Note it; whether one of them was told anew. Copies stay noted: they say what is read of other threads (`freeing`)."""
        freeing.note(connection, self._ends)
        for stream, version in dict(self._ends).items():
            connection.execute(
                "DELETE FROM graph_checkpoints WHERE stream_id = (SELECT id FROM streams WHERE name = ?) AND version < ? AND NOT is_copy "
                "AND version NOT IN (SELECT value FROM json_each(?))",
                (stream, version, msgspec.json.encode(sorted(self._homes[stream])).decode()),
            )
        return self._rebased


def _note(connection: SqliteConnection, events: Iterable[tuple[int, str, int, str, bytes]], anew: _Anew) -> None:
    """Events as (position, stream, version, type, payload), in order. anew: what begins anew is noted there, to be written last."""
    checkpoints: list[tuple[int, str, int, int, str | None]] = []
    threads: dict[str, tuple[str | None, str | None]] = {}
    for position, stream, version, type_, payload in events:
        if not stream.startswith(THREAD_TYPE + "/"):
            continue
        name = parent = None
        try:
            if type_ == recorded.SAVED:
                checkpoints.append((position, stream, version, 0, _run_id(payload)))
            elif type_ == recorded.COPIED:
                checkpoints.append((position, stream, version, 1, None))
            elif type_ == recorded.FORKED:
                checkpoints.append((position, stream, version, 1, None))
                parent = recorded.BY_TYPE[recorded.FORKED].decode(payload).parent
            elif type_ in freeing.ENDS:
                anew.begins(stream, version, type_)
            elif type_ == recorded.KEPT:
                anew.keeps(stream, _brief.decode(payload).home)
                if run_id := _run_id(payload):
                    checkpoints.append((position, stream, version, 0, run_id))
            elif type_ == recorded.THREAD:
                name = recorded.BY_TYPE[recorded.THREAD].decode(payload).thread
        except msgspec.DecodeError as error:
            raise CorruptLogError(f"position {position}: {type_} is not what it should be: {error}", position=position) from error
        if version == 1 or name is not None or parent is not None:
            known = threads.get(stream, (None, None))
            threads[stream] = (known[0] if name is None else name, known[1] if parent is None else parent)
    if checkpoints:
        connection.execute(_INSERT_CHECKPOINTS, (msgspec.json.encode(checkpoints).decode(),))
    if threads:
        connection.execute(_UPSERT_THREADS, (msgspec.json.encode([(stream, *row) for stream, row in threads.items()]).decode(),))


def _run_id(payload: bytes) -> str | None:
    payload = bytes(payload)
    if b'"run_id"' not in payload:
        return None
    run = _brief.decode(payload).metadata.get("run_id")
    return _run.decode(run) if run is not None and bytes(run).startswith(b'"') else None


def only_ours(connection: SqliteConnection) -> None:
    """Refuse a folder that holds other actors: a deployment would not take a log with threads in it (S7).

    Raises:
        ConfigurationError: it does.
    """
    others = [
        row[0]
        for row in connection.execute(
            "SELECT name FROM formats WHERE kind = 'actor' AND name NOT IN (?, ?) ORDER BY name", (THREAD_TYPE, STORE_TYPE)
        ).fetchall()
    ]
    if others:
        raise ConfigurationError(
            f"this log belongs to a deployment: it holds actors of type {', '.join(others)}. Give EventLogSaver a folder of its own",
            types=others,
        )


def load(connection: SqliteConnection, shard: int, stream: StreamId, head: FoundHead | None, is_owner: bool) -> tuple[int, Events]:
    """The version of `stream`, and the events that it consists of, each with its home: those of the streams that it is a copy of, first.

    head: as the writer knows it. is_owner: that writer owns the shard; then the row in the file says what it does not know.
    """

    def read() -> tuple[int, Events]:
        found = head if is_owner else None
        if found is None:
            found = flushed_head(connection, stream) if is_owner else find_head(connection, stream)
        elif freeing.ended_at(connection, stream) > found.version:
            found = find_head(connection, stream)  # it began anew meanwhile, and what it said up to there is gone
        return _load(connection, shard, stream, found, None, None)

    if head is None and is_owner and flushed_head(connection, stream) is None:
        return 0, []  # a new thread: nothing of it can have been written meanwhile, and one statement says so
    loaded: tuple[int, Events] = in_snapshot(connection, read)
    return loaded


def _load(
    connection: SqliteConnection, shard: int, stream: StreamId, head: FoundHead | None, upto: int | None, home: int | None
) -> tuple[int, Events]:
    if head is None or head.position == 0:
        return 0, []
    end = head.version if upto is None else upto
    events: Events = []
    for event in read_chain(connection, shard, stream, head, head.base_version, end):
        here = event.version if home is None else home
        payload = bytes(event.payload)
        if payload != b"null" and event.type == recorded.FORKED:
            forked = recorded.BY_TYPE[recorded.FORKED].decode(payload)
            events += _load_upto(connection, shard, forked.parent, forked.version, here)[1]
        elif payload != b"null" and event.type == recorded.COPIED:
            copied = recorded.BY_TYPE[recorded.COPIED].decode(payload)
            events += _load_upto(connection, shard, copied.stream, copied.version, here)[1]
        events.append((event, here))
    if upto is not None and upto <= head.base_version:
        events = _load_upto(connection, shard, _parent(connection, stream), upto, home)[1]
    return end, events


def _load_upto(connection: SqliteConnection, shard: int, stream: str, upto: int, home: int | None) -> tuple[int, Events]:
    return _load(connection, shard, StreamId(stream), find_head(connection, stream), upto, home)


def _parent(connection: SqliteConnection, stream: str) -> StreamId:
    rows = connection.execute(
        "SELECT t.parent FROM graph_threads t JOIN streams s ON s.id = t.stream_id WHERE s.name = ?", (stream,)
    ).fetchall()
    if not rows or rows[0][0] is None:
        raise CorruptLogError(f"{stream} is a fork without a parent", stream=stream)
    return StreamId(rows[0][0])


_ROWS: Final = (
    "SELECT c.position, s.name, t.name, c.version, c.is_copy, c.run_id FROM graph_checkpoints c "
    "JOIN streams s ON s.id = c.stream_id LEFT JOIN graph_threads t ON t.stream_id = c.stream_id "
)


def newest_rows(connection: SqliteConnection, before: int, limit: int) -> list[Row]:
    """Candidates of all threads with a position < `before`, newest first."""
    found = connection.execute(_ROWS + "WHERE c.position < ? ORDER BY c.position DESC LIMIT ?", (before, limit)).fetchall()
    return [Row(*row) for row in found]


def threads_of_runs(connection: SqliteConnection, run_ids: Iterable[str]) -> list[tuple[str, str | None]]:
    """The threads, as `thread_rows`, that these runs wrote to, and those that are copies. Each run is named by its first checkpoint in a
    thread, not by every one: a checkpoint says what is different from its parent."""
    wanted = set(run_ids)
    found = connection.execute(_ROWS + "WHERE c.run_id IS NOT NULL OR c.is_copy ORDER BY c.position").fetchall()
    rows = (Row(*each) for each in found)
    return list(dict.fromkeys((row.stream, row.thread) for row in rows if row.is_copy or row.run_id in wanted))


def owner_epoch(connection: SqliteConnection) -> int:
    """Of whoever owns the folder now."""
    epoch: int = connection.execute("SELECT epoch FROM owner").fetchall()[0][0]
    return epoch


def stream_names(connection: SqliteConnection, most: int) -> list[str] | None:
    """The names of all streams; None if there are more than `most`."""
    found = connection.execute("SELECT name FROM streams LIMIT ?", (most + 1,)).fetchall()
    return None if len(found) > most else [row[0] for row in found]


def thread_rows(connection: SqliteConnection, after: str, limit: int) -> list[tuple[str, str | None]]:
    """(stream, the thread's own id if it is another) of threads by name of the stream."""
    found = connection.execute(
        "SELECT s.name, t.name FROM streams s LEFT JOIN graph_threads t ON t.stream_id = s.id "
        "WHERE s.type = ? AND s.name > ? AND s.status = 'live' ORDER BY s.name LIMIT ?",
        (THREAD_TYPE, after, limit),
    ).fetchall()
    return [(row[0], row[1]) for row in found]


def children(connection: SqliteConnection, stream: str) -> list[str]:
    """Threads that were copied from `stream` and read its events."""
    return [
        row[0]
        for row in connection.execute(
            "SELECT s.name FROM graph_threads t JOIN streams s ON s.id = t.stream_id WHERE t.parent = ? ORDER BY s.name", (stream,)
        ).fetchall()
    ]


def head(connection: SqliteConnection, stream: str) -> FoundHead | None:
    """Where `stream` ends in the file."""
    found: FoundHead | None = in_snapshot(connection, lambda: find_head(connection, stream))
    return found
