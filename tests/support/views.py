"""Projections for tests, and a log that they follow.

`Notes` has all that a view can have: rows with numbers of their own, a full text, sums over many streams, and a way to forget. `rebuilt`
makes the view of a log anew and gives its rows: what any view of that log has to equal (I-11). A projection of another room joins by
calling `assert_equals_rebuild` with its own generations.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import msgspec

from events.clock import Clock
from events.envelope import NewEvent, RecordedEvent
from events.ids import StreamId, Version
from events.log_directory import create_log, read_identity
from events.selection import Selected
from events.sqlite.reader_sqlite import SqliteLogReader
from events.sqlite.store_sqlite import SqliteShard
from events.store import Append, Committed, LogReader
from projections.comparing import Row
from projections.database import Database
from projections.follower import Follower, Upcast
from projections.generations_sqlite import SqliteGenerations
from projections.hints import Hints
from projections.projection import Projection, ProjectionFactory, operation, row_id
from projections.runner import Runner
from projections.view_sqlite import SqliteView

SHARDS = 2


class Notes(Projection):
    """``desk.noted {text}`` becomes a row, found by its words; ``desk.counted {n}`` a sum per stream; ``desk.poisoned`` cannot be
    applied until it is cured."""

    name = "notes"
    handles = ("desk.noted", "desk.counted", "desk.poisoned")
    cured = False

    def create(self, db: Database) -> None:
        db.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, stream TEXT NOT NULL, text TEXT NOT NULL) STRICT")
        db.execute("CREATE VIRTUAL TABLE words USING fts5(text)")
        db.execute("CREATE TABLE total (stream TEXT PRIMARY KEY, n INTEGER NOT NULL, last INTEGER NOT NULL) STRICT")

    def apply(self, db: Database, event: RecordedEvent) -> None:
        said = msgspec.json.decode(event.payload)
        if event.type == "desk.noted":
            db.execute("INSERT INTO note VALUES (?, ?, ?)", (row_id(event), event.stream, said["text"]))
            db.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (row_id(event), said["text"]))
        elif event.type == "desk.counted" or type(self).cured:
            n = said.get("n", 0)
            db.execute(
                "INSERT INTO total VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET n = (n * 3 + ?2) % 1000003, last = ?3",
                (event.stream, n, event.version),
            )
        else:
            raise ValueError("poison")

    def erase(self, db: Database, stream: StreamId) -> None:
        ids = [row[0] for row in db.execute("SELECT id FROM note WHERE stream = ?", (stream,)).fetchall()]
        db.executemany("DELETE FROM words WHERE rowid = ?", [(each,) for each in ids])
        db.execute("DELETE FROM note WHERE stream = ?", (stream,))
        db.execute("DELETE FROM total WHERE stream = ?", (stream,))

    @operation
    def find(self, db: Database, word: str, limit: int = 10) -> list[str]:
        """Notes with a word in them."""
        sql = "SELECT n.text FROM words w JOIN note n ON n.id = w.rowid WHERE words MATCH ? ORDER BY n.id LIMIT ?"
        return [row[0] for row in db.execute(sql, (word, limit)).fetchall()]

    @operation
    def count(self, db: Database) -> int:
        found: int = db.execute("SELECT count(*) FROM note").fetchall()[0][0]
        return found

    @operation
    async def both(self, reads: Any, word: str) -> dict[str, Any]:
        return {"count": await reads(self.count), "found": await reads(self.find, word)}

    @operation
    def fails(self, db: Database) -> None:
        raise RuntimeError("as asked")


def noted(text: str = "hello") -> NewEvent:
    return NewEvent(type="desk.noted", payload=msgspec.json.encode({"text": text}))


def counted(n: int = 1) -> NewEvent:
    return NewEvent(type="desk.counted", payload=msgspec.json.encode({"n": n}))


POISON = NewEvent(type="desk.poisoned", payload=b'{"secret":"s3cr3t"}')
OTHER = NewEvent(type="desk.moved", payload=b"{}")


def as_is(event: RecordedEvent) -> RecordedEvent:
    """No older schema versions."""
    return event


class CountedReader:
    """A log reader that counts what it is asked for, and does `before_select` first."""

    def __init__(self, reader: LogReader) -> None:
        self._reader = reader
        self.shards = reader.shards
        self.calls: list[str] = []
        self.before_select: Callable[[], Any] | None = None

    def __getattr__(self, name: str) -> Any:
        self.calls.append(name)
        return getattr(self._reader, name)

    async def select(self, *args: Any, **kwargs: Any) -> Selected:
        self.calls.append("select")
        if self.before_select is not None:
            await self.before_select()
        return await self._reader.select(*args, **kwargs)


class WrittenLog:
    """A log on files, written without actors."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.incarnation = create_log(directory, SHARDS).incarnation
        self.versions: dict[StreamId, int] = {}
        self._stores: list[SqliteShard] = []
        self._open: list[SqliteLogReader] = []

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        for shard in range(SHARDS):
            store = await SqliteShard.open(self.directory, shard, durability="process")
            await store.take("writer")
            self._stores.append(store)

    async def write(self, stream: StreamId, *events: NewEvent) -> tuple[int, int]:
        """(shard, position) of the last one."""
        from events.ids import parse_stream_id, shard_of

        shard = shard_of(*parse_stream_id(stream), SHARDS)
        before = self.versions.get(stream, 0)
        group = Append(stream=stream, expected_version=Version(before), command_id=None, events=events)
        outcome = (await self._stores[shard].append([group]))[0]
        assert isinstance(outcome, Committed), outcome
        self.versions[stream] = before + len(events)
        return shard, outcome.position

    async def erase(self, stream: StreamId) -> None:
        from events.ids import parse_stream_id, shard_of
        from events.sealed.erasure import finish_erasures

        store = self._stores[shard_of(*parse_stream_id(stream), SHARDS)]
        await store.erase(stream, "tester")
        await finish_erasures(store, None)

    async def reader(self) -> SqliteLogReader:
        self._open.append(await SqliteLogReader.open(self.directory))
        return self._open[-1]

    async def close(self) -> None:
        for reader in self._open:
            await reader.close()
        for store in self._stores:
            await store.close()
        self._open, self._stores = [], []


async def follow_to_end(follower: Follower) -> None:
    while await follower.step():
        pass


async def rows(view: SqliteView) -> list[Row]:
    """What two views of the same events have in common."""
    return await view.run(lambda db: list(view.projection.comparable(db)))


async def rebuilt(make: ProjectionFactory, directory: Path, folder: Path, upcast: Upcast = as_is) -> list[Row]:
    """The rows of a view of the log in `directory`, made in one go."""
    reader = await SqliteLogReader.open(directory)
    view = await SqliteView.open(make(), folder, read_identity(directory).incarnation)
    try:
        await follow_to_end(Follower(view, reader, upcast=upcast))
        return await rows(view)
    finally:
        await view.close()
        await reader.close()


@asynccontextmanager
async def running(
    make: ProjectionFactory, folder: Path, log: WrittenLog, reader: LogReader | None = None, *, upcast: Upcast = as_is,
    clock: Clock | None = None,
) -> AsyncIterator[tuple[Runner[SqliteView], Hints]]:
    """A runner of one projection that runs."""
    hints = Hints(SHARDS)
    runner = Runner(SqliteGenerations(make, folder, log.incarnation), reader or await log.reader(), hints, upcast=upcast, clock=clock)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(runner.run())
        try:
            yield runner, hints
        finally:
            task.cancel()


def streams(count: int) -> Sequence[StreamId]:
    return [StreamId(f"desk/d{number}") for number in range(count)]
