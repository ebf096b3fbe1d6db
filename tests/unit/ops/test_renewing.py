"""A change of the model: every memory gets a new vector once, progress is told, an interruption costs nothing."""

from typing import Any

import pytest

from events.embedding import Embedding
from events.sqlite.sqlite_library import library
from ops.renewing import renew_all
from projections.vectors.table_sqlite import SqliteVectors
from tests.support.vectors import clustered, recorded

VECTORS = recorded(clustered(600, 8))
OLD, NEW = "m-1", "m-2"


class Rows:
    """What stands behind a deployment: rows of vectors, which the memory's view counts and its actor renews."""

    def __init__(self, **memories: int) -> None:
        self.db = library.connect(":memory:")
        self.vectors = SqliteVectors()
        self.vectors.create(self.db)
        self.asked: list[str] = []
        self.fail_after = 10**6
        first = 1
        for workspace, count in memories.items():
            for each in range(first, first + count):
                self.put(workspace, each, OLD)
            first += count
        self.streams = ["account/a", *(f"memory/{workspace}" for workspace in memories), "memory/never"]

    def put(self, workspace: str, each: int, model: str) -> None:
        self.vectors.put(self.db, space=workspace, id=each, embedding=Embedding(model, VECTORS[each % 600]), position=each)

    async def log(self, operation: str, /, **arguments: Any) -> Any:
        """Two streams a page, to turn pages."""
        assert operation == "streams"
        page = [each for each in self.streams if each > arguments["after"]][:2]
        return {"streams": [{"stream": each} for each in page], "next": page[-1] if len(page) == 2 else None}

    async def ask_view(self, projection: str, operation: str, /, **arguments: Any) -> Any:
        assert (projection, operation) == ("memory", "stats")
        workspace = arguments["workspace"]
        return None if workspace == "never" else {"vectors": self.vectors.models(self.db, workspace), "searched": NEW}

    def ref(self, actor: str, id: str, *, timeout_s: float) -> "Memory":
        return Memory(self, id)


class Memory:
    def __init__(self, rows: Rows, workspace: str) -> None:
        self.rows = rows
        self.workspace = workspace

    async def ask(self, method: str, /, *, limit: int) -> Any:
        assert method == "renew_meanings"
        rows = self.rows
        if len(rows.asked) >= rows.fail_after:
            raise ConnectionError
        rows.asked.append(self.workspace)
        page = rows.vectors.outdated(rows.db, NEW, after=0, limit=limit, space=self.workspace)
        for _, each in page:
            rows.put(self.workspace, each, NEW)
        left = sum(count for model, count in rows.vectors.models(rows.db, self.workspace).items() if model != NEW)
        return {"model": NEW, "renewed": len(page), "left": left}


async def test_every_workspace_is_renewed_and_progress_is_told() -> None:
    rows, told = Rows(a=450, b=3, c=0), list[tuple[int, int]]()
    assert await renew_all(rows, lambda done, total: told.append((done, total))) == 453
    assert told == [(0, 453), (200, 453), (400, 453), (450, 453), (453, 453)]
    assert rows.vectors.models(rows.db) == {NEW: 453}
    assert rows.asked == ["a", "a", "a", "b"]


async def test_an_interruption_is_gone_on_from() -> None:
    rows, told = Rows(a=450, b=3), list[tuple[int, int]]()
    rows.fail_after = 2
    with pytest.raises(ConnectionError):
        await renew_all(rows, lambda done, total: None)
    rows.fail_after = 10**6
    assert await renew_all(rows, lambda done, total: told.append((done, total))) == 53
    assert told[0] == (0, 53)
    assert rows.vectors.models(rows.db) == {NEW: 453}


async def test_where_nothing_is_outdated_no_model_is_asked() -> None:
    rows = Rows(a=2)
    await renew_all(rows, lambda done, total: None)
    rows.asked.clear()
    assert await renew_all(rows, lambda done, total: None) == 0
    assert rows.asked == []
