"""How the predecessor kept a memory, and the ways in which it meant to do better: three stores for the same job.

`BlockingStore` is what its code did: each operation opens the file, works in the event loop's thread, commits and closes, in SQLite's own
default mode (rollback journal). `AwaitedStore` is what it planned: aiosqlite, an awaited commit for each operation. `GroupStore` is what
facts suggest instead: WAL, and one commit for all that waits. All of them are durable when they return (synchronous=FULL).
"""

import asyncio
from contextlib import closing
from pathlib import Path
from typing import Final, Protocol

import aiosqlite

from events.sqlite.sqlite_library import close_connection, connect, library

Row = tuple[str, str, str, float, str]
"""Agent, type, content, importance, metadata as JSON."""

TABLE: Final = """CREATE TABLE memories (
    id INTEGER PRIMARY KEY AUTOINCREMENT, agent_name TEXT NOT NULL, memory_type TEXT NOT NULL, content TEXT NOT NULL,
    importance REAL DEFAULT 0.5, metadata TEXT, timestamp TEXT DEFAULT CURRENT_TIMESTAMP, accessed_count INTEGER DEFAULT 0)"""
INDEX: Final = "CREATE INDEX memories_of_agent ON memories (agent_name, memory_type)"
INSERT: Final = "INSERT INTO memories (agent_name, memory_type, content, importance, metadata) VALUES (?, ?, ?, ?, ?)"
RECALL: Final = "SELECT id, content, importance FROM memories WHERE agent_name = ? ORDER BY importance DESC, timestamp DESC LIMIT 5"


class Store(Protocol):
    """A place for memories."""

    async def open(self) -> None: ...

    async def remember(self, row: Row) -> None:
        """Durable when it returns."""

    async def recall(self, agent: str) -> int:
        """Read the five most important memories of `agent`; how many there are."""

    async def close(self) -> None: ...


def create(path: Path, rows: list[Row] | None = None) -> None:
    """A file with the table, and `rows` in it."""
    with closing(library.connect(path)) as connection:
        connection.execute(TABLE)
        connection.execute(INDEX)
        connection.executemany(INSERT, rows or [])
        connection.commit()


class BlockingStore:
    """A connection for each operation, in the loop's own thread."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def open(self) -> None:
        """Nothing is kept open."""

    async def remember(self, row: Row) -> None:
        with closing(library.connect(self._path)) as connection:
            connection.execute(INSERT, row)
            connection.commit()

    async def recall(self, agent: str) -> int:
        with closing(library.connect(self._path)) as connection:
            return len(connection.execute(RECALL, (agent,)).fetchall())

    async def close(self) -> None:
        """Nothing is kept open."""


class AwaitedStore:
    """One aiosqlite connection, a commit for each operation."""

    def __init__(self, path: Path, *, wal: bool = False) -> None:
        self._path = path
        self._wal = wal
        self._db: aiosqlite.Connection | None = None
        self._writing = asyncio.Lock()

    @property
    def db(self) -> aiosqlite.Connection:
        if self._db is None:
            raise RuntimeError("the store is not open")
        return self._db

    async def open(self) -> None:
        self._db = await connect(lambda: library.connect(self._path))
        if self._wal:
            await self.db.execute("PRAGMA journal_mode = WAL")
        await self.db.execute("PRAGMA synchronous = FULL")

    async def remember(self, row: Row) -> None:
        # Without the lock one operation's commit would publish half of another's.
        async with self._writing:
            await self.db.execute(INSERT, row)
            await self.db.commit()

    async def recall(self, agent: str) -> int:
        return len(list(await self.db.execute_fetchall(RECALL, (agent,))))

    async def close(self) -> None:
        await close_connection(self.db)


class GroupStore(AwaitedStore):
    """One transaction for all that waits; what arrives while it runs is the next one."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, wal=True)
        self._waiting: list[tuple[Row, asyncio.Future[None]]] = []
        self._arrived = asyncio.Event()

    async def write(self) -> None:
        """Commit what waits, for ever; the caller gives it a task."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            batch, self._waiting = self._waiting, []
            await self.db.executemany(INSERT, [row for row, _ in batch])
            await self.db.commit()
            for _, done in batch:
                if not done.done():
                    done.set_result(None)

    async def remember(self, row: Row) -> None:
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((row, done))
        self._arrived.set()
        await done
