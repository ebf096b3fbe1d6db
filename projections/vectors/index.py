"""The port of a vector index; `opening` chooses the adapter.

An index is derived: the rows of a view are the truth (`projections.vectors.table_sqlite`), and an index that is lost, damaged or old is
made from them again. It holds vectors of one model and one space only; who has several has several indexes, so that nothing can mix them.

| adapter | needs | search |
|---|---|---|
| `index_plain.PlainIndex` | nothing | exact, about 0.03 ms per vector: for hundreds |
| `index_numpy.BlockIndex` | numpy | exact |
| `index_graphed.GraphedIndex` | numpy, hnswlib | exact among few, else approximate: a recall of at least 0.95 |
"""

import threading
from collections.abc import Callable, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Final, Literal, NamedTuple, Protocol

import msgspec

Backend = Literal["plain", "numpy", "hnswlib"]
VECTORS_PER_GRAPH: Final = 16_384
"""Below it everything is compared, in some ms; a graph of so many takes 3 s (hnswlib built for its machine) to 10 s (the wheel), and holds
the GIL for 0.1 s when it is saved."""


class Hit(NamedTuple):
    """A vector that was found. score: the cosine of the angle between it and the query, -1 to 1."""

    id: int
    score: float


class IndexStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What an index holds now.

    Fields:
        vectors: alive. graphed: how many of them hnswlib finds; the others are compared one by one.
        loaded, built, damaged: graphs since it was opened: taken from files, made, and files that did not verify.
    """

    backend: Backend
    vectors: int
    graphed: int = 0
    loaded: int = 0
    built: int = 0
    damaged: int = 0


class VectorIndex(Protocol):
    """Vectors of length 1, each under an id of int64. Thread-safe: reads never wait, neither for each other nor for a write or for growth.

    A search sees a write as soon as the write returned.
    """

    def put(self, ids: Sequence[int], vectors: Sequence[bytes]) -> None:
        """Add vectors; one whose id is there already takes its place.

        Raises:
            EmbeddingError: a vector does not have the dimensions of this index; nothing was changed.
        """
        ...

    def remove(self, ids: Sequence[int]) -> None:
        """Forget these; unknown ones are no error. They are in no answer from here on."""
        ...

    def search(self, vector: bytes, k: int, allowed: Set[int] | None = None, *, exact: bool = False) -> list[Hit]:
        """The nearest, at most `k`: the highest score first, of equal ones the lowest id. Among `allowed` only, where that is not None;
        then too there are `k` of them if so many are there. exact: compare all, as far as they are allowed, whatever it costs.

        Raises:
            EmbeddingError: the vector does not have the dimensions of this index.
        """
        ...

    def passed(self, position: int) -> None:
        """All rows up to this place in the log are in: files that are written from now on say so."""
        ...

    def statistics(self) -> IndexStatistics: ...

    def nbytes(self) -> int:
        """Of memory, about."""
        ...

    def close(self) -> None:
        """Stop what works in the background. Searches under way end as they would have."""
        ...

    def delete_files(self) -> None:
        """Close, and remove every file: the space is no more."""
        ...


class Space(msgspec.Struct, frozen=True, kw_only=True):
    """What one index is about: vectors of different spaces or models never meet.

    Fields:
        name: for memory the workspace.
        model, dimensions: as `events.embedding.Embedding`.
    """

    name: str
    model: str
    dimensions: int


class Background:
    """One thread for work that nobody waits for: graphs and their files. Ended by `close`, which waits for the piece under way."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._starting = threading.Lock()
        self._closing = threading.Event()
        self._last: Future[None] | None = None

    @property
    def closing(self) -> bool:
        """Work that takes long looks here now and then."""
        return self._closing.is_set()

    def submit(self, work: Callable[[], None]) -> None:
        """Do `work` soon, one piece after another; not at all once it is closed."""
        with self._starting:
            if self.closing:
                return
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, thread_name_prefix="cuebook-vectors")
            self._last = self._pool.submit(work)

    def wait_idle(self, timeout_s: float) -> bool:
        """Whether all is done that was submitted so far."""
        last = self._last
        return last is None or not wait([last], timeout_s).not_done

    def close(self) -> None:
        """Idempotent."""
        with self._starting:
            self._closing.set()
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)
