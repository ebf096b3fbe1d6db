"""The index by numpy: every vector compared, in one product of matrix and vector; where there are graphs, only those that they do not hold.

Vectors stand in *blocks*. The last block grows; when it is full and a library for graphs is there, a graph of its vectors is
made in the background, and a block with that graph takes their place when it is ready. So growth never touches what a search reads,
a graph is never changed, and each is saved once. All that a search needs hangs on one reference, `_state`, which a writer replaces.
"""

import threading
from collections.abc import Sequence, Set
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from events.embedding import check_vector
from events.errors import EmbeddingError
from projections.vectors.index import Hit, IndexStatistics

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_FLOAT_BYTES: Final = 4
_FIRST_CAPACITY: Final = 64
_CLOSE: Final = 1e-5
"""A product of float32 depends on where in the matrix a row stands, by less than this: what is so near to the k-th is computed again."""
_GRAPH_SHARE_MIN: Final = 0.25
"""Of a block that is asked for: below it a graph would be asked for many times k, and comparing all of them is as fast and exact."""


class Graph(Protocol):
    """Finds approximately the nearest rows of one matrix. Never changed, so any number of threads may ask."""

    def nearest(self, query: Floats, count: int) -> Numbers:
        """Row numbers, at most `count`, in no order. Fewer than `count` where the graph does not reach more."""
        ...


class Block:
    """Vectors and their ids. Rows are only added behind `count`, and die; a reader that took `count` sees whole rows only."""

    __slots__ = ("alive", "count", "dead", "graph", "ids", "matrix")

    def __init__(self, ids: Numbers, matrix: Floats, alive: Mask, count: int, graph: Graph | None = None) -> None:
        self.ids = ids
        self.matrix = matrix
        self.alive = alive
        self.count = count
        self.graph = graph
        self.dead = count - int(np.count_nonzero(alive[:count]))

    @classmethod
    def empty(cls, dimensions: int, capacity: int = _FIRST_CAPACITY) -> "Block":
        ids, matrix = np.zeros(capacity, np.int64), np.zeros((capacity, dimensions), np.float32)
        return cls(ids, matrix, np.zeros(capacity, np.bool_), 0)

    def taken(self, slots: Numbers) -> "Block":
        """A block of its own with these rows, all alive."""
        return Block(self.ids[slots], self.matrix[slots], np.ones(len(slots), np.bool_), len(slots))

    def with_room(self, more: int) -> "Block":
        """This block, or one with the same rows in the same slots and room for `more`."""
        if self.count + more <= len(self.ids):
            return self
        grown = Block.empty(self.matrix.shape[1], max(2 * len(self.ids), self.count + more))
        grown.ids[: self.count] = self.ids[: self.count]
        grown.matrix[: self.count] = self.matrix[: self.count]
        grown.alive[: self.count] = self.alive[: self.count]
        grown.count, grown.dead = self.count, self.dead
        return grown

    def fill(self, ids: Numbers, matrix: Floats) -> None:
        """Add rows, for which there is room. They are seen when all are there."""
        end = self.count + len(ids)
        self.ids[self.count : end] = ids
        self.matrix[self.count : end] = matrix
        self.alive[self.count : end] = True
        self.count = end

    def kill(self, slot: int) -> None:
        self.alive[slot] = False
        self.dead += 1

    def live_slots(self) -> Numbers:
        return np.flatnonzero(self.alive[: self.count])


class State(NamedTuple):
    """What a search reads: blocks with a graph, and the one that grows, which has none."""

    graphed: tuple[Block, ...]
    tail: Block


class BlockIndex:
    """Adapter of `VectorIndex`. A subclass may make graphs when it has `grown`."""

    def __init__(self, dimensions: int) -> None:
        self.dimensions: Final = dimensions
        self._writing = threading.Lock()
        self._state = State((), Block.empty(dimensions))
        # Where each id stands. Used by writers only.
        self._places: dict[int, tuple[Block, int]] = {}

    def put(self, ids: Sequence[int], vectors: Sequence[bytes]) -> None:
        matrix = matrix_of(vectors, self.dimensions)
        if len(ids) != len(matrix):
            raise EmbeddingError(f"{len(ids)} ids for {len(matrix)} vectors")
        with self._writing:
            self._append(np.asarray(ids, np.int64), matrix)
            self.grown()

    def remove(self, ids: Sequence[int]) -> None:
        with self._writing:
            for each in ids:
                self._kill(each)
            self._tidy()

    def search(self, vector: bytes, k: int, allowed: Set[int] | None = None, *, exact: bool = False) -> list[Hit]:
        query = matrix_of([vector], self.dimensions)[0]
        wanted = None if allowed is None else np.fromiter(allowed, np.int64, len(allowed))
        if k <= 0 or (wanted is not None and not len(wanted)):
            return []
        state = self._state
        ids, scores = zip(*(_search_block(block, query, k, wanted, exact) for block in (*state.graphed, state.tail)), strict=True)
        return _best(np.concatenate(ids), np.concatenate(scores), k)

    def statistics(self) -> IndexStatistics:
        return IndexStatistics(backend="numpy", vectors=len(self._places))

    def nbytes(self) -> int:
        state = self._state
        return sum(block.matrix.nbytes + block.ids.nbytes for block in (*state.graphed, state.tail))

    def passed(self, position: int) -> None:
        """There are no files."""

    def close(self) -> None:
        """Nothing works in the background."""

    def delete_files(self) -> None:
        """There are none."""

    def grown(self) -> None:
        """Called by a writer that has made the tail longer, which holds the lock."""

    # -- for writers that hold the lock -------------------------------------------------------------------------------------------------

    def _append(self, ids: Numbers, matrix: Floats) -> None:
        tail = self._state.tail.with_room(len(ids))
        if tail is not self._state.tail:
            self._moved(self._state.tail, tail)
        first = tail.count
        tail.fill(ids, matrix)
        self._state = self._state._replace(tail=tail)
        # The old ones last: who searches meanwhile finds an id twice rather than not at all (see `_best`).
        for slot, each in enumerate(ids.tolist(), first):
            self._kill(each)
            self._places[each] = (tail, slot)
        self._tidy()

    def _moved(self, old: Block, new: Block) -> None:
        for slot in old.live_slots().tolist():
            self._places[int(old.ids[slot])] = (new, slot)

    def _kill(self, each: int) -> None:
        place = self._places.pop(each, None)
        if place is not None:
            place[0].kill(place[1])

    def _tidy(self) -> None:
        """Leave no block in which most is dead."""
        state = self._state
        if 2 * state.tail.dead > state.tail.count > _FIRST_CAPACITY:
            self._put_tail(state.graphed, state.tail, state.tail.live_slots())
        for block in state.graphed:
            if 2 * block.dead > block.count:
                self.ungraph(block)

    def _put_tail(self, graphed: tuple[Block, ...], old: Block, slots: Numbers) -> None:
        """Publish `graphed` and a tail with these rows of `old` only."""
        tail = old.taken(slots).with_room(_FIRST_CAPACITY)
        self._moved(tail, tail)
        self._state = State(graphed, tail)

    def ungraph(self, block: Block) -> None:
        """Bring what is alive in a block with a graph back into the tail, where it waits to have a graph again."""
        graphed = tuple(each for each in self._state.graphed if each is not block)
        slots = block.live_slots()
        tail = self._state.tail.with_room(len(slots))
        if tail is self._state.tail:
            # The same arrays, so that who still searches the old state does not meet the rows twice.
            tail = Block(tail.ids, tail.matrix, tail.alive, tail.count)
        tail.fill(block.ids[slots], block.matrix[slots])
        self._moved(tail, tail)
        self._state = State(graphed, tail)


def matrix_of(vectors: Sequence[bytes], dimensions: int) -> Floats:
    """Vectors as they are recorded, one per row.

    Raises:
        EmbeddingError: one has other dimensions.
    """
    for each in vectors:
        if len(each) != dimensions * _FLOAT_BYTES:
            check_vector(each)
            raise EmbeddingError(f"a vector of {len(each) // _FLOAT_BYTES} numbers in an index of {dimensions}")
    found = np.frombuffer(b"".join(vectors), np.dtype("<f4")).reshape(len(vectors), dimensions)
    return np.ascontiguousarray(found, np.float32)


def products(vector: bytes, others: bytes) -> list[float]:
    """See `opening.products`."""
    query = matrix_of([vector], len(vector) // _FLOAT_BYTES)[0]
    found: list[float] = _scores(np.frombuffer(others, np.dtype("<f4")).reshape(-1, len(query)), query).tolist()
    return found


def _scores(matrix: Floats, query: Floats) -> npt.NDArray[np.float64]:
    # In double and row by row: the same for the same vector, wherever it stands, so that a rebuilt index answers alike.
    found: npt.NDArray[np.float64] = (matrix.astype(np.float64) * query.astype(np.float64)).sum(axis=1)
    return found


def _search_block(block: Block, query: Floats, k: int, wanted: Numbers | None, exact: bool) -> tuple[Numbers, npt.NDArray[np.float64]]:
    """Ids and exact scores of the nearest rows of one block: k and those that are as near, or nearly."""
    count = block.count
    ids, matrix = block.ids[:count], block.matrix[:count]
    mask = block.alive[:count].copy()
    if wanted is not None:
        mask = mask & np.isin(ids, wanted)
    live = int(np.count_nonzero(mask))
    if not live:
        return ids[:0], np.zeros(0)
    slots = None if exact else _by_graph(block, query, k, mask, live)
    if slots is None:
        slots = _by_comparing(matrix, query, k, mask, live)
    return ids[slots], _scores(matrix[slots], query)


def _by_graph(block: Block, query: Floats, k: int, mask: Mask, live: int) -> Numbers | None:
    """None where the graph is no use: too few of its rows are asked for, or it found fewer than there are."""
    count = len(mask)
    if block.graph is None or live < _GRAPH_SHARE_MIN * count or 4 * k > count:
        return None
    asked = k if live == count else min(count, 2 * k * count // live + 16)
    found = block.graph.nearest(query, asked)
    found = found[mask[found]]
    return found if len(found) >= min(k, live) else None


def _products(matrix: Floats, query: Floats) -> Floats:
    """Row by row in this thread, and outside of the GIL. `matrix @ query` is handed to the threads of BLAS, each of which spins until the
    others have come: on a busy machine 1,000 rows took 19 ms instead of 0.05. Reading the rows sets the pace either way."""
    found: Floats = np.vecdot(matrix, query)
    return found


def _by_comparing(matrix: Floats, query: Floats, k: int, mask: Mask, live: int) -> Numbers:
    if live < _GRAPH_SHARE_MIN * len(mask):
        slots = np.flatnonzero(mask)
        scores: Floats = _products(matrix[slots], query)
    else:
        slots = np.arange(len(mask))
        scores = np.where(mask, _products(matrix, query), np.float32(-np.inf))
    bound = np.partition(scores, len(scores) - k)[len(scores) - k] - _CLOSE if live > k else np.finfo(np.float32).min
    return np.asarray(slots[scores >= bound], np.int64)


def _best(ids: Numbers, scores: npt.NDArray[np.float64], k: int) -> list[Hit]:
    order = np.lexsort((ids, -scores))
    found: dict[int, float] = {}
    for each, score in zip(ids[order].tolist(), scores[order].tolist(), strict=True):
        # Twice: while a writer replaces it, or moves it from one block to another.
        found.setdefault(each, score)
        if len(found) == k:
            break
    return [Hit(each, score) for each, score in found.items()]
