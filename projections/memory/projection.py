"""The view ``memory``: what was remembered, found again by meaning and words. Its rows are `tables`, its answers `reading`, its ranking
`ranking`.

Every operation names one workspace, and sees nothing of another: neither rows nor vectors, nor what the words of others would do to scores.
Names of memories are not secrets, but only the workspace's own are ever looked up.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Annotated, ClassVar, Final

import msgspec

from events.embedding import Embedder, Embedding
from events.envelope import RecordedEvent
from events.errors import TransientError
from events.ids import StreamId
from projections.database import Database
from projections.errors import NotReadyError
from projections.memory import reading
from projections.memory.accesses import Accesses
from projections.memory.answers import (
    Interaction,
    MemoryType,
    OtherModelPage,
    Pattern,
    Recalled,
    Remembered,
    Share,
    Solution,
    StalePage,
    Statistics,
    Text,
    Workspace,
)
from projections.memory.records import HANDLED
from projections.memory.tables import Tables
from projections.projection import Projection, Reads, operation
from projections.vectors.opening import backend
from projections.vectors.table_sqlite import SqliteVectors

K_MAX: Final = 50
PAGE_MAX: Final = 5_000
_RETRY_MS: Final = 1_000

K = Annotated[int, msgspec.Meta(ge=1, le=K_MAX)]
Limit = Annotated[int, msgspec.Meta(ge=1, le=1_000)]
Types = Annotated[list[MemoryType], msgspec.Meta(min_length=1, max_length=4)]


class MemoryProjection(Projection):
    """See the module.

    Args:
        embedder: of questions; memories bring their vectors along.
        accesses: where found memories are counted; None counts nothing.
    """

    name: ClassVar[str] = "memory"
    version: ClassVar[int] = 1
    handles: ClassVar[Sequence[str]] = HANDLED

    def __init__(self, embedder: Embedder, accesses: Accesses | None = None) -> None:
        self._embedder = embedder
        self._accesses = accesses
        self._vectors = SqliteVectors()
        self._tables = Tables(self._vectors)

    def create(self, db: Database) -> None:
        self._tables.create(db)

    def opened(self, db: Database, folder: Path) -> None:
        self._vectors.opened(db, folder)

    def answering(self, path: Path) -> None:
        self._vectors.answering(path)

    def apply(self, db: Database, event: RecordedEvent) -> None:
        self._tables.apply(db, event)

    def erase(self, db: Database, stream: StreamId) -> None:
        self._tables.erase(db, stream)

    def closing(self, db: Database) -> None:
        self._vectors.close()

    def wait_idle(self, timeout_s: float) -> bool:
        """Whether the work on indexes that was begun so far has ended: for benches and tests."""
        return self._vectors.wait_idle(timeout_s)

    # -- operations -----------------------------------------------------------------------------------------------------------------------

    @operation
    async def recall(
        self,
        reads: Reads,
        workspace: Workspace,
        query: Text,
        k: K = 5,
        types: Types | None = None,
        min_importance: Share = 0.0,
        session: str | None = None,
        agent: str | None = None,
    ) -> list[Recalled]:
        """The memories that answer a question best, at most `k`, the best first, with every part of their scores.

        Only what is near the question by meaning, or shares a word with it, is an answer; importance and recency decide between such.
        """
        try:
            (asked,) = await self._embedder.embed([query])
        except TransientError as error:
            raise NotReadyError(f"the model {self._embedder.model} cannot be asked now: {error}", retry_after_ms=_RETRY_MS) from error
        wanted = reading.Filter(types, min_importance, session, agent)
        found = await reads(self._recall, workspace, query, asked, k, wanted)
        if self._accesses is not None:
            self._accesses.found(workspace, [each.memory for each in found])
        return found

    def _recall(self, db: Database, workspace: str, query: str, asked: Embedding, k: int, wanted: reading.Filter) -> list[Recalled]:
        number = reading.workspace_number(db, workspace)
        if number is None:
            return []
        return reading.recall(db, number, query, k, wanted, _Asked(self._vectors, db, workspace, asked))

    @operation
    def memories(
        self,
        db: Database,
        workspace: Workspace,
        types: Types | None = None,
        min_importance: Share = 0.0,
        session: str | None = None,
        agent: str | None = None,
        subject: str | None = None,
        limit: Limit = 20,
    ) -> list[Remembered]:
        """Memories, the newest first."""
        number = reading.workspace_number(db, workspace)
        wanted = reading.Filter(types, min_importance, session, agent)
        return [] if number is None else reading.newest(db, number, wanted, subject, limit)

    @operation
    def solution(
        self, db: Database, workspace: Workspace, pattern: Text, min_success_rate: Share = 0.7, agent: str | None = None
    ) -> Solution | None:
        """The solution with the best record for a pattern, of one agent or of any; None if none has worked often enough."""
        number = reading.workspace_number(db, workspace)
        return None if number is None else reading.solution(db, number, pattern, min_success_rate, agent)

    @operation
    def patterns(self, db: Database, workspace: Workspace, agent: str | None = None, limit: Limit = 20) -> list[Pattern]:
        """Learned patterns with their success rates, per agent; those used last first."""
        number = reading.workspace_number(db, workspace)
        return [] if number is None else reading.patterns(db, number, agent, limit)

    @operation
    def interactions(
        self, db: Database, workspace: Workspace, with_actor: str | None = None, session: str | None = None, limit: Limit = 10
    ) -> list[Interaction]:
        """Interactions, the newest first; `with_actor` took part on either side."""
        number = reading.workspace_number(db, workspace)
        return [] if number is None else reading.interactions(db, number, with_actor, session, limit)

    @operation
    def stats(self, db: Database, workspace: Workspace) -> Statistics | None:
        """What the memory of a workspace holds; None if it never held anything."""
        number = reading.workspace_number(db, workspace)
        if number is None:
            return None
        totals = reading.totals(db, number)
        return Statistics(
            workspace=workspace, memories=sum(each.count for each in totals.by_type.values()), by_type=totals.by_type,
            sessions=totals.sessions, forgotten=totals.forgotten, patterns=totals.patterns, interactions=totals.interactions,
            vectors=self._vectors.models(db, workspace), searched=self._embedder.model, index=backend(),
        )  # fmt: skip

    @operation
    def stale(
        self,
        db: Database,
        workspace: Workspace,
        before_us: int,
        importance_below: Share,
        accessed_below: int,
        limit: Annotated[int, msgspec.Meta(ge=1, le=PAGE_MAX)] = PAGE_MAX,
        after: str | None = None,
    ) -> StalePage:
        """Names of memories older than `before_us` with less importance and fewer accesses, a page at a time; noted facts are none of
        them."""
        number = reading.workspace_number(db, workspace)
        if number is None:
            return StalePage(memories=[], next=None)
        return reading.stale(db, number, before_us, importance_below, accessed_below, limit, after)

    @operation
    def other_models(
        self, db: Database, workspace: Workspace, model: str, limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 200
    ) -> OtherModelPage:
        """Memories whose vector is not of `model`, which recalls by that model find by their words only."""
        number = reading.workspace_number(db, workspace)
        if number is None:
            return OtherModelPage(memories={}, left=0)
        left = sum(count for each, count in self._vectors.models(db, workspace).items() if each != model)
        numbers = [each for _, each in self._vectors.outdated(db, model, after=0, limit=limit, space=workspace)]
        return OtherModelPage(memories=reading.texts(db, number, numbers), left=left)


class _Asked:
    """A question beside the vectors of one workspace: adapter of `reading.Vectors`."""

    def __init__(self, vectors: SqliteVectors, db: Database, workspace: str, asked: Embedding) -> None:
        self._vectors = vectors
        self._db = db
        self._workspace = workspace
        self._asked = asked

    def nearest(self, k: int, allowed: AbstractSet[int] | None) -> Sequence[tuple[int, float]]:
        return self._vectors.search(self._db, self._workspace, self._asked, k, allowed)

    def cosines(self, numbers: AbstractSet[int]) -> dict[int, float]:
        return self._vectors.cosines(self._db, self._workspace, self._asked, numbers)
