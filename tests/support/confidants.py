"""A sealed actor and a plain one that say, embed and compute the same; and views that keep all that they are given of it."""

from typing import Any

import msgspec

from actors import Actor, Event, State, command
from events.embedding import Embedding
from events.envelope import RecordedEvent
from events.ids import StreamId
from projections.database import Database
from projections.embedding.hashing import hashed
from projections.projection import Projection, operation, row_id
from projections.vectors.table_sqlite import SqliteVectors
from runtime import App


class Told(State):
    times: int = 0


class Said(Event[Told], tag="confidant.said"):
    text: str
    meaning: Embedding

    def apply(self, state: Told) -> None:
        state.times += 1


async def repeated(text: str) -> str:
    """Step: worth keeping in a cache."""
    return f"you said {text}"


class _Confidant(Actor[Told]):
    @command
    async def say(self, text: str) -> str:
        answer = await self.step("repeat", repeated, text, cache_ttl=3_600)
        self.emit(Said(text=text, meaning=hashed(text)))
        return answer


class Priest(_Confidant, name="priest", sealed=True):
    """Sealed."""


class Barber(_Confidant, name="barber"):
    """Plain."""


class Sayings(Projection):
    """Rows, words and vectors of what was said, and how to forget them."""

    name = "sayings"
    handles = ("confidant.said",)

    def __init__(self) -> None:
        self.vectors = SqliteVectors()

    def create(self, db: Database) -> None:
        db.execute("CREATE TABLE saying (id INTEGER PRIMARY KEY, stream TEXT NOT NULL, text TEXT NOT NULL) STRICT")
        db.execute("CREATE VIRTUAL TABLE words USING fts5(text)")
        db.execute("INSERT INTO words (words, rank) VALUES ('secure-delete', 1)")
        self.vectors.create(db)

    def apply(self, db: Database, event: RecordedEvent) -> None:
        said = msgspec.json.decode(event.payload, type=Said)
        db.execute("INSERT INTO saying VALUES (?, ?, ?)", (row_id(event), event.stream, said.text))
        db.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (row_id(event), said.text))
        self.vectors.put(db, space=event.stream, id=row_id(event), embedding=said.meaning, position=event.position)

    def erase(self, db: Database, stream: StreamId) -> None:
        db.execute("DELETE FROM words WHERE rowid IN (SELECT id FROM saying WHERE stream = ?)", (stream,))
        db.execute("DELETE FROM saying WHERE stream = ?", (stream,))
        self.vectors.erase(db, stream)

    @operation
    def all(self, db: Database) -> list[Any]:
        """(stream, text) of every saying."""
        return [list(row) for row in db.execute("SELECT stream, text FROM saying ORDER BY stream, id").fetchall()]


class Visits(Projection):
    """How often somebody was visited, sealed or not. It cannot forget a stream, so it is built anew."""

    name = "visits"
    handles = ("confidant.said", "step.completed")
    sealed = True

    def create(self, db: Database) -> None:
        db.execute("CREATE TABLE visit (id INTEGER PRIMARY KEY, stream TEXT NOT NULL, type TEXT NOT NULL, event TEXT NOT NULL) STRICT")

    def apply(self, db: Database, event: RecordedEvent) -> None:
        db.execute("INSERT INTO visit VALUES (?, ?, ?, ?)", (row_id(event), event.stream, event.type, msgspec.json.encode(event).decode()))

    @operation
    def count(self, db: Database) -> dict[str, int]:
        """Visits by stream."""
        sql = "SELECT stream, count(*) FROM visit WHERE type = 'confidant.said' GROUP BY stream"
        return dict(db.execute(sql).fetchall())


app = App(actors=[Priest, Barber], projections=[Sayings, Visits])
