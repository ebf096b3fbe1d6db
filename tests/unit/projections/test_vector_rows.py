"""Vectors in the rows of a view: the index says what the rows say, whatever happened to either."""

import asyncio
import hashlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from events.embedding import Embedding, embedding
from events.errors import EmbeddingError, InvariantError
from events.sqlite.sqlite_library import SqliteConnection, library
from ops.bench.memory_texts import stored
from projections.answers import ProjectionAnswers
from projections.comparing import rows_of
from projections.embedding.hashing import HashEmbedder
from projections.memory.projection import MemoryProjection
from projections.vectors import graph_file, table_sqlite
from projections.vectors.index import Hit
from projections.vectors.rows_sqlite import Rows, rows_after
from projections.vectors.table_sqlite import SqliteVectors
from projections.view_sqlite import SqliteView
from tests.support.vectors import clustered, nearest, recorded, same

DIMENSIONS = 16
PER_GRAPH = 200
VECTORS = recorded(clustered(1_000, DIMENSIONS))
MODEL = "m-1"


class Opened:
    """A view's file with nothing but vectors, in one process."""

    def __init__(self, folder: Path, *, bytes_max: int = 1 << 30, ahead_min: int = 1_000_000) -> None:
        self.path = folder / "view.db"
        fresh = not self.path.exists()
        self.db = self.connect()
        self.vectors = SqliteVectors(bytes_max=bytes_max, vectors_per_graph=PER_GRAPH, ahead_min=ahead_min)
        if fresh:
            self.db.execute("PRAGMA journal_mode=WAL")
            with self.db:
                self.vectors.create(self.db)
        self.vectors.opened(self.db, folder)
        self.vectors.answering(self.path)

    def connect(self) -> SqliteConnection:
        return library.connect(self.path, check_same_thread=False)

    def put(self, space: str, ids: range | list[int], *, model: str = MODEL, offset: int = 0) -> None:
        with self.db:
            for each in ids:
                found = Embedding(model, VECTORS[(each + offset) % len(VECTORS)])
                self.vectors.put(self.db, space=space, id=each, embedding=found, position=self.position() + 1)

    def remove(self, space: str, ids: range | list[int]) -> None:
        with self.db:
            self.vectors.remove(self.db, space=space, ids=ids, position=self.position() + 1)

    def erase(self, space: str) -> None:
        with self.db:
            self.vectors.erase(self.db, space)

    def position(self) -> int:
        return int(self.db.execute("SELECT coalesce(max(position), 0) FROM vectors").fetchone()[0])

    def held(self, space: str, model: str = MODEL) -> dict[int, bytes]:
        rows = self.db.execute("SELECT id, vector FROM vectors WHERE space = ? AND model = ? AND vector IS NOT NULL", (space, model))
        return dict(rows.fetchall())

    def search(self, space: str, query: int = 0, k: int = 10, *, model: str = MODEL, exact: bool = True) -> list[Hit]:
        return self.vectors.search(self.db, space, Embedding(model, VECTORS[query]), k, exact=exact)

    def check(self, *spaces: str, model: str = MODEL) -> None:
        for space in spaces:
            for query in range(0, 1_000, 97):
                assert same(self.search(space, query, model=model), nearest(self.held(space, model), VECTORS[query], 10))

    def close(self) -> None:
        self.vectors.close()
        self.db.close()


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    made = Opened(tmp_path)
    yield made
    made.close()


def test_a_search_sees_what_is_committed_without_being_told(opened: Opened) -> None:
    opened.put("w", range(1, 60))
    opened.check("w")
    opened.put("w", range(60, 70))
    opened.put("w", range(1, 5), offset=500)
    opened.remove("w", [7, 8, 65])
    opened.check("w")
    assert not {hit.id for hit in opened.search("w", 7, 1_000)} & {7, 8, 65}


def test_a_search_sees_nothing_of_a_transaction_that_is_rolled_back(opened: Opened) -> None:
    opened.put("w", range(1, 20))
    opened.check("w")
    opened.db.execute("BEGIN")
    opened.vectors.put(opened.db, space="w", id=99, embedding=Embedding(MODEL, VECTORS[99]), position=1_000)
    reader = opened.connect()
    assert 99 not in [hit.id for hit in opened.vectors.search(reader, "w", Embedding(MODEL, VECTORS[99]), 50)]
    reader.close()
    opened.db.rollback()
    opened.check("w")


def test_two_spaces_never_see_each_other(opened: Opened) -> None:
    """The same vectors under other ids: whatever is asked, only the own ids come."""
    opened.put("a", range(1, 400))
    opened.put("b", range(1_001, 1_400))
    assert opened.vectors.wait_idle(60)
    for query in range(0, 1_000, 53):
        for exact in (True, False):
            assert {hit.id for hit in opened.search("a", query, 2_000, exact=exact)} == set(range(1, 400))
            assert {hit.id for hit in opened.search("b", query, 2_000, exact=exact)} == set(range(1_001, 1_400))
    assert opened.search("c") == []
    for write in (opened.put, opened.remove):
        with pytest.raises(InvariantError, match="of the space a"):
            write("b", [1])
    opened.check("a", "b")


def test_vectors_of_two_models_are_never_compared(opened: Opened) -> None:
    opened.put("w", range(1, 50))
    opened.put("w", range(50, 60), model="m-2")
    assert {hit.id for hit in opened.search("w", 0, 100)} == set(range(1, 50))
    assert {hit.id for hit in opened.search("w", 0, 100, model="m-2")} == set(range(50, 60))
    assert opened.search("w", 0, 100, model="m-3") == []
    with pytest.raises(EmbeddingError, match="dimensions"):
        opened.vectors.put(opened.db, space="w", id=1, embedding=embedding(MODEL, [1.0, 2.0]), position=1_000)
    with pytest.raises(EmbeddingError):
        opened.vectors.search(opened.db, "w", embedding(MODEL, [1.0, 2.0]), 3)


def test_changing_the_model_moves_each_vector_once_and_says_how_far_it_is(opened: Opened) -> None:
    opened.put("v", range(1, 30))
    opened.put("w", range(101, 160))
    opened.check("v", "w")
    assert opened.vectors.models(opened.db) == {MODEL: 88}
    outdated = opened.vectors.outdated(opened.db, "m-2", after=0, limit=40)
    assert outdated == [*(("v", each) for each in range(1, 30)), *(("w", each) for each in range(101, 112))]
    assert opened.vectors.outdated(opened.db, "m-2", after=0, limit=3, space="w") == [("w", 101), ("w", 102), ("w", 103)]
    opened.put("v", range(1, 30), model="m-2")
    opened.put("w", range(101, 112), model="m-2")
    assert opened.vectors.models(opened.db) == {MODEL: 48, "m-2": 40}
    assert opened.vectors.models(opened.db, "v") == {"m-2": 29}
    opened.check("v", "w")
    opened.check("v", "w", model="m-2")
    assert [each for _, each in opened.vectors.outdated(opened.db, "m-2", after=111, limit=100)] == list(range(112, 160))
    opened.put("w", range(112, 160), model="m-2")
    assert opened.vectors.outdated(opened.db, "m-2", after=0, limit=1) == []
    assert opened.search("w") == []
    opened.check("v", "w", model="m-2")


def test_when_the_last_vector_of_a_model_is_gone_the_model_may_have_other_dimensions(opened: Opened) -> None:
    opened.put("w", range(1, 5))
    opened.check("w")
    opened.remove("w", range(1, 5))
    opened.check("w")
    with opened.db:
        opened.vectors.put(opened.db, space="w", id=9, embedding=embedding(MODEL, [1.0, 2.0]), position=opened.position() + 1)
    assert [hit.id for hit in opened.vectors.search(opened.db, "w", embedding(MODEL, [1.0, 2.0]), 3)] == [9]


def test_an_embedding_that_is_none_is_refused_before_it_is_stored(opened: Opened) -> None:
    for wrong in (Embedding(MODEL, b"1234"), Embedding(MODEL, b""), Embedding("not a model", VECTORS[0]), Embedding(MODEL, b"\xff" * 64)):
        with pytest.raises(EmbeddingError):
            opened.vectors.put(opened.db, space="w", id=1, embedding=wrong, position=1)
    assert list(opened.db.execute("SELECT * FROM vectors")) == []


def test_i11_rebuilt_rows_and_answers_equal_those_that_grew(tmp_path: Path) -> None:
    """Another order between spaces, other batches; the same order within each."""
    grown, rebuilt = Opened(tmp_path / _made(tmp_path / "a")), Opened(tmp_path / _made(tmp_path / "b"))
    try:
        for at in range(0, 600, 30):
            _one_event(grown, "a", 1 + at)
            _one_event(grown, "b", 100_001 + at)
            grown.search("a")
            grown.search("b")
        for space, first in (("b", 100_001), ("a", 1)):
            for at in range(0, 600, 30):
                _one_event(rebuilt, space, first + at)
        assert grown.vectors.wait_idle(60)
        assert sorted(map(repr, rows_of(grown.db))) == sorted(map(repr, rows_of(rebuilt.db)))
        for space in ("a", "b"):
            for query in range(0, 1_000, 31):
                assert grown.search(space, query) == rebuilt.search(space, query)
        grown.check("a", "b")
    finally:
        grown.close()
        rebuilt.close()


def _made(folder: Path) -> str:
    folder.mkdir()
    return folder.name


def _one_event(opened: Opened, space: str, first: int) -> None:
    with opened.db:
        for each in range(first, first + 30):
            opened.vectors.put(opened.db, space=space, id=each, embedding=Embedding(MODEL, VECTORS[each % 1_000]), position=first)
        opened.vectors.remove(opened.db, space=space, ids=range(first - 30, first - 25), position=first)


def test_after_a_restart_the_answers_are_the_same_with_and_without_files(tmp_path: Path) -> None:
    first = Opened(tmp_path)
    first.put("w", range(1, 3 * PER_GRAPH))
    first.remove("w", range(1, 20))
    first.check("w")
    assert first.vectors.wait_idle(60)
    first.close()
    kept = Opened(tmp_path)
    kept.put("w", range(1_001, 1_050))
    kept.remove("w", range(20, 40))
    kept.check("w")
    assert kept.vectors.statistics().loaded == 2
    kept.close()
    for path in (tmp_path / "vectors").iterdir():
        path.unlink()
    lost = Opened(tmp_path)
    lost.check("w")
    assert lost.vectors.wait_idle(60)
    assert (lost.vectors.statistics().loaded, lost.vectors.statistics().built) == (0, 3)
    lost.check("w")
    lost.close()


def test_large_spaces_are_in_memory_before_anybody_searches_them(tmp_path: Path) -> None:
    """As far as there is room, the largest first; a small one is read by its first search."""
    first = Opened(tmp_path)
    first.put("large", range(1, 501))
    first.put("middle", range(501, 801))
    first.put("small", range(801, 811))
    first.remove("large", [3])
    first.close()
    for room, expected in ((1 << 30, 799), (600 * DIMENSIONS * 4, 499), (100, 0)):
        opened = Opened(tmp_path, bytes_max=room, ahead_min=100)
        assert opened.vectors.wait_idle(60)
        assert opened.vectors.statistics().vectors == expected
        opened.check("large", "middle", "small")
        opened.close()


async def test_a_memory_reads_ahead_as_soon_as_it_answers_and_not_where_it_is_only_compared(tmp_path: Path) -> None:
    projection = MemoryProjection(HashEmbedder())
    projection._vectors._ahead_min = 10
    view = await SqliteView.open(projection, tmp_path, "log")
    await view.apply([stored(number, number + 1) for number in range(30)], expected={}, positions={0: 30})
    assert projection.wait_idle(30)
    assert projection._vectors.statistics().vectors == 0
    answers = ProjectionAnswers(projection, view.path)
    assert await asyncio.to_thread(projection.wait_idle, 30)
    assert projection._vectors.statistics().vectors == 30
    await answers.close()
    await view.close()


def test_a_view_that_is_closed_does_not_read_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Opened(tmp_path)
    first.put("w", range(1, 501))
    first.close()
    real, began, go_on = rows_after, threading.Event(), threading.Event()

    def held(db: SqliteConnection, table: str, space: str, position: int) -> Iterator[Rows]:
        for number, rows in enumerate(real(db, table, space, position, count=100)):
            if number == 1:
                began.set()
                assert go_on.wait(30)
            yield rows

    monkeypatch.setattr(table_sqlite, "rows_after", held)
    opened = Opened(tmp_path, ahead_min=100)
    assert began.wait(30)
    closing = threading.Thread(target=opened.close)
    closing.start()
    while not opened.vectors._background.closing:
        time.sleep(0.001)
    go_on.set()
    closing.join(30)
    assert not closing.is_alive()
    assert opened.vectors.statistics().vectors == 0


@pytest.mark.parametrize("count", [1, 7, 4_096])
def test_rows_come_whole_and_in_order_however_many_at_a_time(opened: Opened, count: int) -> None:
    """Many of one place in the log, of two models with other dimensions, and removed ones between."""
    with opened.db:
        for each in range(1, 60):
            longer = Embedding("m-2", VECTORS[each] + bytes(4 * DIMENSIONS))
            vector = longer if each % 5 == 0 else Embedding(MODEL, VECTORS[each])
            opened.vectors.put(opened.db, space="w", id=1_000 - each, embedding=vector, position=each // 20 + 1)
        opened.vectors.remove(opened.db, space="w", ids=[950, 951, 970], position=4)
        opened.vectors.put(opened.db, space="other", id=1, embedding=Embedding(MODEL, VECTORS[1]), position=2)
    found = list(rows_after(opened.db, "vectors", "w", 1, count=count))
    flat = [row for rows in found for row in zip(rows.ids, rows.models, rows.vectors, strict=True)]
    assert flat == opened.db.execute(
        "SELECT id, model, vector FROM vectors WHERE space = 'w' AND position > 1 ORDER BY position, id"
    ).fetchall()
    assert [rows.position for rows in found][-1] == 4
    assert all(len(rows.ids) <= count for rows in found)


@pytest.mark.parametrize("size", [0, 2_047, 2_048, 6_144])
def test_a_digest_is_that_of_the_whole_vector(size: int) -> None:
    vector = bytes(number % 251 for number in range(size))
    assert graph_file.digest(vector) == hashlib.blake2b(vector, digest_size=graph_file.DIGEST_BYTES).digest()


def test_files_of_one_space_under_the_names_of_another_bring_nothing_of_it(tmp_path: Path) -> None:
    """Whoever exchanges the files of two workspaces: each is still answered from its own rows, with graphs made again."""
    first = Opened(tmp_path)
    first.put("mine", range(1, PER_GRAPH + 1))
    first.put("theirs", range(1_001, 1_001 + PER_GRAPH))
    first.check("mine", "theirs")
    assert first.vectors.wait_idle(60)
    first.close()
    one, other = sorted((tmp_path / "vectors").iterdir())
    one.rename(tmp_path / "held")
    other.rename(one)
    (tmp_path / "held").rename(other)
    again = Opened(tmp_path)
    again.check("mine", "theirs")
    assert again.vectors.wait_idle(60)
    assert (again.vectors.statistics().loaded, again.vectors.statistics().built) == (0, 2)
    again.check("mine", "theirs")
    again.close()


def test_s29_an_erased_space_leaves_no_row_no_file_and_no_answer(tmp_path: Path) -> None:
    opened = Opened(tmp_path)
    opened.put("gone", range(1, 2 * PER_GRAPH))
    opened.put("stays", range(5_001, 5_001 + PER_GRAPH))
    opened.check("gone", "stays")
    assert opened.vectors.wait_idle(60)
    assert len(list((tmp_path / "vectors").iterdir())) == 2
    opened.erase("gone")
    assert opened.search("gone", 0, 1_000) == []
    assert len(list((tmp_path / "vectors").iterdir())) == 1
    assert opened.db.execute("SELECT count(*) FROM vectors WHERE space = 'gone'").fetchone() == (0,)
    opened.check("stays")
    opened.close()


def test_s29_a_space_erased_while_it_was_not_in_memory_leaves_no_file(tmp_path: Path) -> None:
    first = Opened(tmp_path)
    first.put("gone", range(1, 2 * PER_GRAPH))
    first.check("gone")
    assert first.vectors.wait_idle(60)
    first.close()
    second = Opened(tmp_path)
    second.erase("gone")
    second.close()
    assert list((tmp_path / "vectors").iterdir()) == []


def test_a_reader_that_looks_at_older_rows_gets_no_error_and_never_takes_the_index_back(opened: Opened) -> None:
    opened.put("w", range(1, 10))
    older = opened.connect()
    older.execute("BEGIN")
    older.execute("SELECT count(*) FROM vectors").fetchone()
    opened.put("w", range(10, 20))
    opened.check("w")
    assert len(opened.vectors.search(older, "w", Embedding(MODEL, VECTORS[0]), 50)) == 19
    older.close()
    opened.check("w")


def test_spaces_make_room_for_each_other_and_come_back(tmp_path: Path) -> None:
    opened = Opened(tmp_path, bytes_max=3 * 100 * DIMENSIONS * 4)
    spaces = [f"w{number}" for number in range(6)]
    for number, space in enumerate(spaces):
        opened.put(space, range(1_000 * number + 1, 1_000 * number + 101))
    for _ in range(3):
        for space in spaces:
            opened.check(space)
    found = opened.vectors.statistics()
    assert found.dropped > 0
    assert found.spaces < len(spaces)
    assert found.nbytes <= 3 * 100 * DIMENSIONS * 4
    opened.close()


def test_many_readers_at_once_while_rows_come_all_see_whole_answers(opened: Opened) -> None:
    """The first search of a space loads it: all who come meanwhile wait for that load, and none sees half of it."""
    opened.put("w", range(1, 500))
    wrong: list[object] = []

    def read() -> None:
        db = opened.connect()
        try:
            for query in range(1, 40):
                found = opened.vectors.search(db, "w", Embedding(MODEL, VECTORS[query]), 3, exact=True)
                if not found or found[0].id != query:
                    wrong.append((query, found))
        except Exception as error:  # noqa: BLE001  of any kind it is wrong
            wrong.append(error)
        finally:
            db.close()

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for first in range(500, 700, 20):
        opened.put("w", range(first, first + 20))
    for reader in readers:
        reader.join(60)
    assert wrong == []
    opened.check("w")


@pytest.mark.parametrize("missing", ["numpy", "hnswlib"])
def test_without_a_library_the_answers_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """numpy and hnswlib make it fast; they are no condition."""
    import sys

    for name in ("index_numpy", "graphs_hnswlib", "index_graphed"):
        monkeypatch.delitem(sys.modules, f"projections.vectors.{name}", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    opened = Opened(tmp_path)
    opened.put("w", range(1, PER_GRAPH + 50))
    opened.remove("w", [3])
    opened.check("w")
    assert opened.vectors.statistics().backend == {"numpy": "plain", "hnswlib": "numpy"}[missing]
    opened.close()
