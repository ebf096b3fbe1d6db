"""A memory view on a file, fed with events as an engine would feed it, and asked as a service would ask it."""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from actors.memory.facts import Meaning
from actors.testing import recorded
from events.embedding import Embedder, Embedding
from events.envelope import NewEvent, RecordedEvent
from events.ids import StreamId
from events.sqlite.sqlite_library import SqliteConnection, open_writer
from projections.embedding.hashing import HashEmbedder, hashed
from projections.memory.projection import MemoryProjection
from projections.operations import operations_of, parse_request

START_US = 1_700_000_000_000_000


def meaning(text: str, embedding: Embedding | None = None) -> Meaning:
    found = embedding or hashed(text)
    return Meaning(model=found.model, vector=base64.b64encode(found.vector).decode())


class Facts:
    """Makes events in the order of one log. `day`: the wall clock, in days since the start."""

    def __init__(self) -> None:
        self.day = 0.0
        self._positions = 0
        self._versions: dict[str, int] = {}
        self._names = 0

    def event(self, workspace: str, tag: str, payload: Any, *, actor: str = "memory") -> RecordedEvent:
        stream = StreamId(f"{actor}/{workspace}")
        self._positions += 1
        self._versions[stream] = version = self._versions.get(stream, 0) + 1
        at_us = START_US + int(self.day * 86_400_000_000) + self._positions
        made = recorded(stream, version, NewEvent(type=tag, payload=msgspec.json.encode(payload)), "c", at_us)
        return msgspec.structs.replace(made, position=self._positions)

    def stored(
        self, workspace: str, content: str, *, name: str | None = None, vector: Meaning | None = None, **fields: Any
    ) -> RecordedEvent:
        self._names += 1
        payload = {
            "memory": name or f"m{self._names}", "content": content, "type": "episodic", "importance": 0.5, "metadata": {}, "session": None,
            "agent": None, "meaning": vector or meaning(content), **fields,
        }  # fmt: skip
        return self.event(workspace, "memory.stored", payload)

    def learned(self, workspace: str, agent: str, pattern: str, solution: str, success: bool) -> RecordedEvent:
        return self.event(
            workspace, "memory.pattern_learned", {"agent": agent, "pattern": pattern, "solution": solution, "success": success}
        )


class MemoryView:
    """One projection with its file."""

    def __init__(self, db: SqliteConnection, projection: MemoryProjection) -> None:
        self.db = db
        self.projection = projection
        self._operations = operations_of(projection)

    def apply(self, *events: RecordedEvent) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        try:
            self.projection.begun(self.db)
            for event in events:
                self.projection.apply(self.db, event)
            self.db.execute("COMMIT")
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.projection.committed(self.db)

    async def ask(self, name: str, **arguments: Any) -> Any:
        """The answer as JSON gives it. Raises: BadArgumentsError."""
        operation = self._operations[name]
        request = parse_request(operation, msgspec.json.encode(arguments))

        async def reads(function: Any, *args: Any, **kwargs: Any) -> Any:
            return function(self.db, *args, **kwargs)

        if operation.is_async:
            found = await operation.function(reads, **request.arguments)
        else:
            found = operation.function(self.db, **request.arguments)
        return msgspec.json.decode(msgspec.json.encode(found))

    def rows(self) -> list[tuple[object, ...]]:
        return list(self.projection.comparable(self.db))


@contextmanager
def memory_view(folder: Path, embedder: Embedder | None = None) -> Iterator[MemoryView]:
    folder.mkdir(parents=True, exist_ok=True)
    is_new = not (folder / "view.db").exists()
    db = open_writer(folder / "view.db", "process", create=True)
    projection = MemoryProjection(embedder or HashEmbedder())
    try:
        if is_new:
            db.execute("BEGIN")
            projection.create(db)
            db.execute("COMMIT")
        projection.opened(db, folder)
        yield MemoryView(db, projection)
        projection.closing(db)
    finally:
        db.close()
