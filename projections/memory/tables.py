"""The rows of the memory view: what each event makes of them. Ranking and answers are elsewhere.

Workspaces share tables by a number that every index begins with, but for the words: bm25 counts how rare a word is, and over a table that
all share, what one workspace stores would change the scores of another. So each has an FTS5 table of its own, named by its number.
"""

import base64
import hashlib
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from events.embedding import Embedding
from events.envelope import RecordedEvent
from events.ids import StreamId, parse_stream_id
from events.keeping.redact import REDACTED
from projections.database import Database
from projections.memory.records import (
    Accessed,
    Forgotten,
    InteractionRecorded,
    MeaningRecord,
    MeaningRenewed,
    NotedItem,
    PatternLearned,
    Stored,
    SubjectNoted,
    record_of,
)
from projections.memory.words import TOKENIZER, indexed_text
from projections.projection import row_id
from projections.vectors.table_sqlite import SqliteVectors

ACTOR_TYPE: Final = "memory"
ROWS_PER_EVENT: Final = 1_024
"""More than one event can make; with `row_id` in front a number stays within int64 up to position 2**43."""

_TABLES: Final = (
    """CREATE TABLE workspaces (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, forgotten INTEGER NOT NULL DEFAULT 0) STRICT""",
    """CREATE TABLE memories (
        id INTEGER PRIMARY KEY, workspace INTEGER NOT NULL, memory TEXT NOT NULL, type TEXT NOT NULL, content TEXT NOT NULL,
        importance REAL NOT NULL, metadata TEXT NOT NULL, session TEXT, agent TEXT, subject TEXT, created_us INTEGER NOT NULL,
        accesses INTEGER NOT NULL DEFAULT 0, accessed_us INTEGER, UNIQUE (workspace, memory)) STRICT""",
    "CREATE INDEX memories_newest ON memories (workspace, created_us)",
    "CREATE INDEX memories_type ON memories (workspace, type, importance)",
    """CREATE TABLE patterns (
        workspace INTEGER NOT NULL, agent TEXT NOT NULL, key TEXT NOT NULL, pattern TEXT NOT NULL, uses INTEGER NOT NULL,
        successes INTEGER NOT NULL, first_us INTEGER NOT NULL, last_us INTEGER NOT NULL,
        PRIMARY KEY (workspace, key, agent)) STRICT, WITHOUT ROWID""",
    """CREATE TABLE solutions (
        workspace INTEGER NOT NULL, agent TEXT NOT NULL, key TEXT NOT NULL, solution_key TEXT NOT NULL, solution TEXT NOT NULL,
        uses INTEGER NOT NULL, successes INTEGER NOT NULL, last_us INTEGER NOT NULL,
        PRIMARY KEY (workspace, key, agent, solution_key)) STRICT, WITHOUT ROWID""",
    """CREATE TABLE interactions (
        id INTEGER PRIMARY KEY, workspace INTEGER NOT NULL, agent TEXT NOT NULL, with_actor TEXT NOT NULL, type TEXT NOT NULL,
        content TEXT NOT NULL, result TEXT, session TEXT, at_us INTEGER NOT NULL) STRICT""",
    "CREATE INDEX interactions_agent ON interactions (workspace, agent, id)",
    "CREATE INDEX interactions_with ON interactions (workspace, with_actor, id)",
)


class Tables:
    """Applies events, one at a time, inside the engine's transaction."""

    def __init__(self, vectors: SqliteVectors) -> None:
        self._vectors = vectors

    def create(self, db: Database) -> None:
        for statement in _TABLES:
            db.execute(statement)
        self._vectors.create(db)

    def apply(self, db: Database, event: RecordedEvent) -> None:
        """Raises: ValueError: another type of actor than the memory recorded it: its id is no workspace."""
        kind, name = parse_stream_id(event.stream)
        if kind != ACTOR_TYPE:
            raise ValueError(f"{event.type} was recorded by {event.stream}, which is no memory")
        place = _Place(db, name, self._workspace(db, name, event), event)
        match record_of(event.type, event.payload):
            case Stored() as stored:
                self._stored(place, stored)
            case Accessed(counts=counts):
                db.executemany(
                    "UPDATE memories SET accesses = accesses + ?, accessed_us = ? WHERE workspace = ? AND memory = ?",
                    [(count, event.recorded_at_us, place.workspace, memory) for memory, count in counts.items()],
                )
            case Forgotten(memories=memories):
                self._forgotten(place, memories)
            case MeaningRenewed(meanings=meanings):
                for memory, meaning in meanings.items():
                    self._renewed(place, memory, meaning)
            case PatternLearned() as learned:
                _learned(place, learned)
            case InteractionRecorded() as dealt:
                db.execute(
                    "INSERT INTO interactions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        number_of(event), place.workspace, dealt.agent, dealt.with_actor, dealt.type, dealt.content, dealt.result,
                        dealt.session, event.recorded_at_us,
                    ),
                )  # fmt: skip
            case SubjectNoted() as noted:
                self._forgotten(place, [noted_name(noted.subject, key) for key in noted.gone])
                for at, (key, item) in enumerate(noted.found.items()):
                    self._noted(place, at, noted, key, item)

    def erase(self, db: Database, stream: StreamId) -> None:
        """Remove everything that a stream has brought in."""
        kind, name = parse_stream_id(stream)
        found = db.execute("SELECT id FROM workspaces WHERE name = ?", (name,)).fetchone()
        if kind != ACTOR_TYPE or found is None:
            return
        (workspace,) = found
        db.execute(f"DROP TABLE {words_table(workspace)}")
        for table in ("memories", "patterns", "solutions", "interactions"):
            db.execute(f"DELETE FROM {table} WHERE workspace = ?", (workspace,))
        db.execute("DELETE FROM workspaces WHERE id = ?", (workspace,))
        self._vectors.erase(db, name)

    def _workspace(self, db: Database, name: str, event: RecordedEvent) -> int:
        found = db.execute("SELECT id FROM workspaces WHERE name = ?", (name,)).fetchone()
        if found is not None:
            return int(found[0])
        workspace = row_id(event)
        db.execute("INSERT INTO workspaces (id, name) VALUES (?, ?)", (workspace, name))
        table = words_table(workspace)
        # Without the text, which stands in `memories` already. What is removed from it leaves no bytes behind ('secure-delete').
        db.execute(f"CREATE VIRTUAL TABLE {table} USING fts5(words, content='', tokenize='{TOKENIZER}')")
        db.execute(f"INSERT INTO {table} ({table}, rank) VALUES ('secure-delete', 1)")
        return workspace

    def _stored(self, place: "_Place", stored: Stored) -> None:
        row = _Row(
            memory=stored.memory, type=stored.type, content=stored.content, importance=stored.importance,
            metadata=msgspec.json.encode(stored.metadata).decode(), session=stored.session, agent=stored.agent, subject=None,
        )  # fmt: skip
        self._insert(place, number_of(place.event), row, stored.meaning)

    def _noted(self, place: "_Place", at: int, noted: SubjectNoted, key: str, item: NotedItem) -> None:
        metadata = msgspec.json.encode({"round": noted.round, "key": key}).decode()
        row = _Row(
            memory=noted_name(noted.subject, key), type="entity", content=item.text, importance=item.importance, metadata=metadata,
            session=None, agent=noted.agent, subject=noted.subject,
        )  # fmt: skip
        self._insert(place, number_of(place.event, at), row, item.meaning)

    def _insert(self, place: "_Place", number: int, row: "_Row", meaning: MeaningRecord | None) -> None:
        # A name that comes again takes the place of what had it.
        self._forget(place, [row.memory])
        place.db.execute(
            "INSERT INTO memories (memory, type, content, importance, metadata, session, agent, subject, id, workspace, created_us) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*row, number, place.workspace, place.event.recorded_at_us),
        )
        place.db.execute(f"INSERT INTO {words_table(place.workspace)} (rowid, words) VALUES (?, ?)", (number, indexed_text(row.content)))
        if meaning is not None:
            self._put(place, number, meaning)

    def _put(self, place: "_Place", number: int, meaning: MeaningRecord) -> None:
        if meaning.vector == REDACTED:
            return  # of a bug report: as if it had none
        embedding = Embedding(meaning.model, base64.b64decode(meaning.vector, validate=True))
        self._vectors.put(place.db, space=place.name, id=number, embedding=embedding, position=place.event.position)

    def _forgotten(self, place: "_Place", memories: Iterable[str]) -> None:
        count = self._forget(place, memories)
        place.db.execute("UPDATE workspaces SET forgotten = forgotten + ? WHERE id = ?", (count, place.workspace))

    def _forget(self, place: "_Place", memories: Iterable[str]) -> int:
        """Row, words and vector together; how many there were."""
        table = words_table(place.workspace)
        numbers: list[int] = []
        for memory in memories:
            found = place.db.execute(
                "DELETE FROM memories WHERE workspace = ? AND memory = ? RETURNING id, content", (place.workspace, memory)
            ).fetchall()
            for number, content in found:
                # A table without its text has to be told what it is to remove.
                place.db.execute(f"INSERT INTO {table} ({table}, rowid, words) VALUES ('delete', ?, ?)", (number, indexed_text(content)))
                numbers.append(number)
        self._vectors.remove(place.db, space=place.name, ids=numbers, position=place.event.position)
        return len(numbers)

    def _renewed(self, place: "_Place", memory: str, meaning: MeaningRecord) -> None:
        found = place.db.execute("SELECT id FROM memories WHERE workspace = ? AND memory = ?", (place.workspace, memory)).fetchone()
        if found is not None:
            self._put(place, found[0], meaning)


class _Place(NamedTuple):
    """Where an event goes. name: of the workspace, which `workspace` is the number of."""

    db: Database
    name: str
    workspace: int
    event: RecordedEvent


class _Row(NamedTuple):
    """A memory as an event brings it, in the order of the columns."""

    memory: str
    type: str
    content: str
    importance: float
    metadata: str
    session: str | None
    agent: str | None
    subject: str | None


def _learned(place: _Place, learned: PatternLearned) -> None:
    key, success, at_us = pattern_key(learned.pattern), int(learned.success), place.event.recorded_at_us
    place.db.execute(
        "INSERT INTO patterns VALUES (?, ?, ?, ?, 1, ?, ?, ?) ON CONFLICT (workspace, key, agent) DO UPDATE SET "
        "uses = uses + 1, successes = successes + excluded.successes, last_us = excluded.last_us",
        (place.workspace, learned.agent, key, learned.pattern, success, at_us, at_us),
    )
    # One row per solution: what failed counts against itself only, and cannot displace what worked.
    place.db.execute(
        "INSERT INTO solutions VALUES (?, ?, ?, ?, ?, 1, ?, ?) ON CONFLICT (workspace, key, agent, solution_key) DO UPDATE SET "
        "uses = uses + 1, successes = successes + excluded.successes, last_us = excluded.last_us",
        (place.workspace, learned.agent, key, _digest(learned.solution), learned.solution, success, at_us),
    )


def number_of(event: RecordedEvent, place: int = 0) -> int:
    """The number of the row that is the `place`-th of an event's.

    Raises:
        ValueError: an event makes more rows than there are numbers for.
    """
    if not 0 <= place < ROWS_PER_EVENT:
        raise ValueError(f"{event.event_id} makes more than {ROWS_PER_EVENT:,} rows")
    return row_id(event) * ROWS_PER_EVENT + place


def words_table(workspace: int) -> str:
    """The FTS5 table of a workspace. Its name is made of a number, never of what somebody chose."""
    return f"words_{workspace:d}"


def noted_name(subject: str, key: str) -> str:
    """The name of the memory of a noted thing. No other memory has a colon in its name."""
    return f"{subject}:{key}"


def pattern_key(pattern: str) -> str:
    """What patterns are told apart by: their words, whatever case and blanks they are written with."""
    return _digest(" ".join(pattern.casefold().split()))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
