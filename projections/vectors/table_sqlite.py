"""Vectors in the rows of a view, and the indexes that follow them: what a projection that searches by meaning puts its vectors into.

The rows are the truth. An index follows by reading: before every search, on the connection of that search, it takes over the rows that
have changed since, found by their place in the log. So an index never knows more than what is committed, needs no word from the writer,
works in any process that reads the file, and is what the rows say after a crash, a rebuild or the loss of its files. What the bytes of a
vector are worth is checked as they come in.

    class Notes(Projection):
        def __init__(self) -> None:
            self.vectors = SqliteVectors()

        def create(self, db): self.vectors.create(db)
        def opened(self, db, folder): self.vectors.opened(db, folder)
        def answering(self, path): self.vectors.answering(path)
        def closing(self, db): self.vectors.close()
        def apply(self, db, event):
            self.vectors.put(db, space=..., id=row_id(event), embedding=..., position=event.position)

An index holds one space and one model. A vector of another model is in another index, so that there is no way to compare the two.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Set
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec
import structlog

from events.embedding import Embedding, check_embedding
from events.errors import CuebookError, EmbeddingError, InvariantError
from events.sqlite.reads_sqlite import in_snapshot
from projections.vectors import graph_file
from projections.vectors.index import VECTORS_PER_GRAPH, Backend, Background, Hit, Space, VectorIndex
from projections.vectors.opening import backend, open_index, products
from projections.vectors.rows_sqlite import Rows, rows_after

if TYPE_CHECKING:
    from events.sqlite.sqlite_library import SqliteConnection

    Database: TypeAlias = SqliteConnection
else:
    Database = Any

BYTES_MAX: Final = 1024 * 1024 * 1024
"""Of vectors in memory, of all spaces together: about 500,000 of 512 numbers. Who searched longest ago goes first."""


AHEAD_MIN: Final = 4_096
"""Vectors of a space from which on they are read when the view is opened; fewer take the first search some 40 ms."""
_TOLD_S: Final = 1.0
Progress = Callable[[int], None]
log = structlog.get_logger("cuebook.vectors")


class VectorsStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What is in memory now.

    Fields:
        spaces: with an index. vectors, graphed, loaded, built, damaged: sums over them, as `IndexStatistics`.
        dropped: spaces that made room for others.
    """

    backend: Backend
    spaces: int
    vectors: int
    graphed: int
    loaded: int
    built: int
    damaged: int
    nbytes: int
    dropped: int


class SqliteVectors:
    """The vectors of one view. Methods that write are called by `Projection.create`, `apply` and `erase`, inside their transaction;
    `search` by any number of readers at once, each with its own connection.

    Args:
        table: its name, and the beginning of the names of two others.
    """

    def __init__(
        self, table: str = "vectors", *, bytes_max: int = BYTES_MAX, vectors_per_graph: int = VECTORS_PER_GRAPH, ahead_min: int = AHEAD_MIN
    ) -> None:
        if not table.isidentifier():
            raise InvariantError(f"{table!r} is not the name of a table")
        self._table = table
        self._bytes_max = bytes_max
        self._ahead_min = ahead_min
        self._folder: Path | None = None
        self._background = Background()
        self._per_graph = vectors_per_graph
        self._choosing = threading.Lock()
        self._spaces: OrderedDict[str, _FollowedSpace] = OrderedDict()
        self._dropped = 0

    # -- for the one who writes ---------------------------------------------------------------------------------------------------------

    def create(self, db: Database) -> None:
        """The tables, in `Projection.create`."""
        db.execute(
            f"CREATE TABLE {self._table} (id INTEGER PRIMARY KEY, space TEXT NOT NULL, model TEXT NOT NULL, position INTEGER NOT NULL, "
            "vector BLOB) STRICT"
        )
        db.execute(f"CREATE INDEX {self._table}_changed ON {self._table} (space, position)")
        db.execute(
            f"CREATE TABLE {self._table}_models (space TEXT NOT NULL, model TEXT NOT NULL, bytes INTEGER NOT NULL, count INTEGER NOT NULL, "
            "PRIMARY KEY (space, model)) STRICT, WITHOUT ROWID"
        )

    def opened(self, db: Database, folder: Path) -> None:
        """In `Projection.opened`. folder: for files of indexes, of this view alone."""
        self._folder = folder / self._table
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        rows = db.execute(f"SELECT space, model, bytes FROM {self._table}_models").fetchall()
        graph_file.tidy(self._folder, [_space(*row) for row in rows])

    def answering(self, path: Path) -> None:
        """In `Projection.answering`: read in the background what the first search of each large space would wait for."""
        self._background.submit(partial(self._read_ahead, path))

    def _read_ahead(self, path: Path) -> None:
        from events.sqlite.sqlite_library import SqliteError, open_reader

        try:
            db = open_reader(path)
            try:
                for space, count in self._large(db).items():
                    in_snapshot(db, partial(self._chosen(space).follow, db, _Reading(space, count, self._background)))
            finally:
                db.close()
        except _StoppedError:
            return
        except (SqliteError, CuebookError) as error:
            # The first search reads them, and says what is wrong.
            log.warning("vectors_not_read_ahead", reason=str(error))

    def _large(self, db: Database) -> dict[str, int]:
        """Spaces with their numbers of vectors, the largest first, as far as there is room."""
        counts: dict[str, int] = {}
        room = self._bytes_max
        rows = db.execute(f"SELECT space, bytes, count FROM {self._table}_models ORDER BY bytes * count DESC, space").fetchall()
        for space, bytes_, count in rows:
            room -= bytes_ * count
            if count >= self._ahead_min and room >= 0:
                counts[space] = counts.get(space, 0) + count
        return counts

    def put(self, db: Database, *, space: str, id: int, embedding: Embedding, position: int) -> None:
        """Store the vector of `id`, in place of the one that it had, of whatever model that was.

        Args:
            id: unique in the table, the same in every rebuild: `projections.projection.row_id`.
            position: of the event. All events of one space come from one stream, so that it never gets less within a space.

        Raises:
            EmbeddingError: it is no embedding, or the space has vectors of this model with other dimensions.
        """
        check_embedding(embedding)
        known = db.execute(f"SELECT bytes FROM {self._table}_models WHERE space = ? AND model = ?", (space, embedding.model)).fetchone()
        if known is not None and known[0] != len(embedding.vector):
            raise EmbeddingError(
                f"{embedding.model} has {known[0] // 4} dimensions here, not {embedding.dimensions}", model=embedding.model, space=space
            )
        self._uncount(db, space, id)
        db.execute(
            f"INSERT INTO {self._table} (id, space, model, position, vector) VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
            "space = excluded.space, model = excluded.model, position = excluded.position, vector = excluded.vector",
            (id, space, embedding.model, position, embedding.vector),
        )
        db.execute(
            f"INSERT INTO {self._table}_models (space, model, bytes, count) VALUES (?, ?, ?, 1) "
            "ON CONFLICT (space, model) DO UPDATE SET count = count + 1",
            (space, embedding.model, len(embedding.vector)),
        )

    def remove(self, db: Database, *, space: str, ids: Iterable[int], position: int) -> None:
        """Forget vectors; ids that have none are no error. What stays is that there was one, so that indexes hear of it."""
        for each in ids:
            self._uncount(db, space, each)
            db.execute(
                f"UPDATE {self._table} SET vector = NULL, model = '', position = ? WHERE id = ? AND space = ?", (position, each, space)
            )

    def erase(self, db: Database, space: str) -> None:
        """Forget a space with everything that was ever in it, in `Projection.erase`; its files go at once."""
        models = [_space(space, *row) for row in db.execute(f"SELECT model, bytes FROM {self._table}_models WHERE space = ?", (space,))]
        db.execute(f"DELETE FROM {self._table} WHERE space = ?", (space,))
        db.execute(f"DELETE FROM {self._table}_models WHERE space = ?", (space,))
        self._forget(space, models)

    def _uncount(self, db: Database, space: str, each: int) -> None:
        old = db.execute(f"SELECT space, model FROM {self._table} WHERE id = ?", (each,)).fetchone()
        if old is None:
            return
        if old[0] != space:
            raise InvariantError(f"the vector {each} is of the space {old[0]}, not of {space}")
        # One that was removed has no model, and is counted nowhere.
        key = (space, old[1])
        db.execute(f"UPDATE {self._table}_models SET count = count - 1 WHERE space = ? AND model = ?", key)
        db.execute(f"DELETE FROM {self._table}_models WHERE space = ? AND model = ? AND count = 0", key)

    # -- for those who read -------------------------------------------------------------------------------------------------------------

    def models(self, db: Database, space: str | None = None) -> dict[str, int]:
        """How many vectors there are of each model, in `space` or in all. More than one model: a change of the model is under way."""
        rows = db.execute(
            f"SELECT model, sum(count) FROM {self._table}_models WHERE ?1 IS NULL OR space = ?1 GROUP BY model ORDER BY model", (space,)
        )
        return dict(rows.fetchall())

    def outdated(self, db: Database, model: str, *, after: int, limit: int, space: str | None = None) -> list[tuple[str, int]]:
        """Space and id of vectors that are not of `model`, by their ids, from the one behind `after`; of one space, or of all."""
        where, given = ("", ()) if space is None else ("space = ? AND ", (space,))
        rows = db.execute(
            f"SELECT space, id FROM {self._table} WHERE {where}id > ? AND vector IS NOT NULL AND model <> ? ORDER BY id LIMIT ?",
            (*given, after, model, limit),
        )
        return rows.fetchall()

    def search(
        self, db: Database, space: str, embedding: Embedding, k: int, allowed: Set[int] | None = None, *, exact: bool = False
    ) -> list[Hit]:
        """The nearest of the space, as `VectorIndex.search`, as the rows are on this connection. Vectors of other models are never found.

        The first search of a space reads its vectors, 100,000 in about a second, or waits for who is reading them ahead.

        Raises:
            EmbeddingError: the vectors of this model have other dimensions.
        """
        followed = self._chosen(space)
        if followed.follow(db):
            self._make_room(space)
        index = followed.indexes.get(embedding.model)
        return [] if index is None else index.search(embedding.vector, k, allowed, exact=exact)

    def cosines(self, db: Database, space: str, embedding: Embedding, ids: Set[int]) -> dict[int, float]:
        """Of those of `ids` that have a vector of this model, exactly, from their rows: for some hundreds, where a search that allows only
        these would look through all that there are."""
        # One row, as each would cost Python the interpreter's lock (`events.sqlite.packed_sqlite`).
        found, vectors = db.execute(
            "SELECT json_group_array(id), CAST(group_concat(vector, '') AS BLOB) FROM "
            f"(SELECT v.id, v.vector FROM json_each(?) j CROSS JOIN {self._table} v ON v.id = j.value "
            "WHERE +v.space = ? AND v.model = ? AND v.vector IS NOT NULL)",
            (msgspec.json.encode(sorted(ids)).decode(), space, embedding.model),
        ).fetchone()
        numbers = msgspec.json.decode(found, type=list[int])
        return dict(zip(numbers, products(embedding.vector, vectors or b"", len(numbers)), strict=True))

    def _chosen(self, space: str) -> "_FollowedSpace":
        with self._choosing:
            followed = self._spaces.get(space)
            if followed is None:
                followed = self._spaces[space] = self._followed(space)
            self._spaces.move_to_end(space)
            return followed

    def _followed(self, space: str) -> "_FollowedSpace":
        def opened(model: str, ids: list[int], vectors: list[bytes], position: int) -> VectorIndex:
            return open_index(
                _space(space, model, len(vectors[0])), ids, vectors, position=position, folder=self._folder, background=self._background,
                vectors_per_graph=self._per_graph,
            )  # fmt: skip

        return _FollowedSpace(space, self._table, opened)

    def _make_room(self, but: str) -> None:
        with self._choosing:
            total = sum(each.nbytes() for each in self._spaces.values())
            for name in [name for name in self._spaces if name != but]:
                if total <= self._bytes_max:
                    return
                gone = self._spaces.pop(name)
                total -= gone.nbytes()
                gone.close()
                self._dropped += 1

    def _forget(self, name: str, models: list[Space]) -> None:
        with self._choosing:
            followed = self._spaces.pop(name, None)
        if followed is not None:
            followed.delete()
        if self._folder is not None:
            for each in models:
                for path in graph_file.files_of(self._folder, each):
                    path.unlink(missing_ok=True)

    def wait_idle(self, timeout_s: float) -> bool:
        """Whether the work in the background that was begun so far has ended: for tests and benches."""
        return self._background.wait_idle(timeout_s)

    def statistics(self) -> VectorsStatistics:
        with self._choosing:
            spaces = list(self._spaces.values())
        found = [index.statistics() for each in spaces for index in list(each.indexes.values())]
        return VectorsStatistics(
            backend=backend(),
            spaces=len(spaces),
            vectors=sum(each.vectors for each in found),
            graphed=sum(each.graphed for each in found),
            loaded=sum(each.loaded for each in found),
            built=sum(each.built for each in found),
            damaged=sum(each.damaged for each in found),
            nbytes=sum(each.nbytes() for each in spaces),
            dropped=self._dropped,
        )

    def close(self) -> None:
        """In `Projection.closing`: end what works in the background. Idempotent."""
        self._background.close()
        with self._choosing:
            for each in self._spaces.values():
                each.close()


class _StoppedError(Exception):
    """The view is closed."""


class _Reading:
    """Says how far the vectors of a space have been read ahead: at most once a second, and at the end."""

    def __init__(self, space: str, count: int, background: Background) -> None:
        self._space = space
        self._count = count
        self._background = background
        self._read = 0
        self._told_at = time.monotonic()

    def __call__(self, rows: int) -> None:
        if self._background.closing:
            raise _StoppedError
        if not rows:
            return
        self._read += rows
        now = time.monotonic()
        if self._read >= self._count or now - self._told_at >= _TOLD_S:
            self._told_at = now
            log.info("vectors_read_ahead", space=self._space, read=self._read, of=self._count)


class _FollowedSpace:
    """The indexes of one space, one for each model, and the place in the log up to which they know its rows."""

    def __init__(self, name: str, table: str, opened: Callable[[str, list[int], list[bytes], int], VectorIndex]) -> None:
        self.name = name
        self.indexes: dict[str, VectorIndex] = {}
        self._table = table
        self._opened = opened
        self._following = threading.Lock()
        self._seen = 0

    def follow(self, db: Database, progress: Progress = lambda rows: None) -> bool:
        """Take over what has changed in the rows; whether anything had. progress: is told of each lot of rows that the first time reads;
        what it raises ends that, and nothing was taken over."""
        newest = self._newest(db)
        if newest == self._seen:
            return False
        with self._following:
            newest = self._newest(db)
            if newest is None:
                # Erased: `SqliteVectors.erase` dropped what was here, and somebody with an older look at the rows came after it.
                changed = bool(self.indexes)
                self._drop()
                return changed
            if newest <= self._seen:
                return False
            if self._seen:
                self._catch_up(db)
            else:
                self._load(db, newest, progress)
            self._seen = newest
            return True

    def _newest(self, db: Database) -> int | None:
        (newest,) = db.execute(f"SELECT max(position) FROM {self._table} WHERE space = ?", (self.name,)).fetchone()
        return int(newest) if newest is not None else None

    def _load(self, db: Database, position: int, progress: Progress) -> None:
        by_model: dict[str, tuple[list[int], list[bytes]]] = {}
        for rows in rows_after(db, self._table, self.name, 0):
            for id, model, vector in zip(rows.ids, rows.models, rows.vectors, strict=True):
                if vector is not None:
                    ids, vectors = by_model.setdefault(model, ([], []))
                    ids.append(id)
                    vectors.append(vector)
            progress(len(rows.ids))
        for model, (ids, vectors) in by_model.items():
            progress(0)
            self.indexes[model] = self._opened(model, ids, vectors, position)

    def _catch_up(self, db: Database) -> None:
        for rows in rows_after(db, self._table, self.name, self._seen):
            self._take_over(rows)

    def _take_over(self, rows: Rows) -> None:
        ids, position = rows.ids, rows.position
        changed = list(zip(rows.ids, rows.models, rows.vectors, strict=True))
        for model in {each for _, each, vector in changed if vector is not None}:
            own = [(id, vector) for id, each, vector in changed if each == model and vector is not None]
            index = self.indexes.get(model)
            if index is None:
                self.indexes[model] = self._opened(model, [each for each, _ in own], [vector for _, vector in own], position)
            else:
                index.put([each for each, _ in own], [vector for _, vector in own])
        for model, index in list(self.indexes.items()):
            kept = {id for id, each, vector in changed if each == model and vector is not None}
            index.remove([each for each in ids if each not in kept])
            index.passed(position)
            if not index.statistics().vectors:
                # The next vectors of this model may have other dimensions.
                self.indexes.pop(model).delete_files()

    def nbytes(self) -> int:
        return sum(index.nbytes() for index in list(self.indexes.values()))

    def close(self) -> None:
        for index in list(self.indexes.values()):
            index.close()

    def delete(self) -> None:
        with self._following:
            self._drop()

    def _drop(self) -> None:
        for index in self.indexes.values():
            index.delete_files()
        self.indexes = {}
        self._seen = 0


def _space(name: str, model: str, vector_bytes: int) -> Space:
    return Space(name=name, model=model, dimensions=vector_bytes // 4)
