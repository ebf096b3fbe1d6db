"""Graphs by hnswlib (Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical Navigable Small
World graphs", 2018): which rows of a matrix are near a vector, without comparing all of them.

Every graph is made by one thread, from a fixed seed, in the order of its rows: the same rows give the same graph. None is changed after
that: hnswlib allows no search beside an addition or a resize. Needs the extra ``cuebook[memory]``; `hnswlib` and `chroma-hnswlib` both do.
"""

import os
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Final, Self

import hnswlib
import numpy as np
import numpy.typing as npt

from events.errors import InvariantError

LINKS: Final = 16
"""hnswlib's M. What recall it gives with the two below is measured by ``cuebook bench vectors``."""
LINKS_TRIED: Final = 100
"""hnswlib's ef_construction. Twice as much takes twice the time, for a recall that is the same."""
NEIGHBOURS_TRIED: Final = 64
"""hnswlib's ef."""
SEED: Final = 100
_ROWS_AT_ONCE: Final = 512
"""0.1 to 0.3 s: so soon a process that ends can stop it."""


def library() -> str:
    """What wrote the files of this process: another one may lay them out otherwise."""
    for name in ("hnswlib", "chroma-hnswlib"):
        try:
            return f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue
    return "hnswlib"


class HnswGraph:
    """Adapter of `index_numpy.Graph`."""

    def __init__(self, index: hnswlib.Index) -> None:
        self._index = index

    @classmethod
    def build(cls, matrix: npt.NDArray[np.float32], stopped: Callable[[], bool]) -> Self | None:
        """The graph of the rows of `matrix`, which have length 1: 2,000 to 6,000 a second. None if `stopped` said so meanwhile."""
        count, dimensions = matrix.shape
        index = _index(dimensions)
        index.init_index(max_elements=count, M=LINKS, ef_construction=LINKS_TRIED, random_seed=SEED)
        for first in range(0, count, _ROWS_AT_ONCE):
            if stopped():
                return None
            rows = matrix[first : first + _ROWS_AT_ONCE]
            index.add_items(rows, np.arange(first, first + len(rows)), num_threads=1)
        index.set_ef(NEIGHBOURS_TRIED)
        return cls(index)

    @classmethod
    def load(cls, content: bytes, *, count: int, dimensions: int) -> Self:
        """The graph that `dump` gave. The bytes must be verified: hnswlib believes what it reads, and dies of some of it.

        Raises:
            InvariantError: it is another graph than its file said.
        """
        index = _index(dimensions)
        # From memory, so that it reads what was verified and not what the path holds by then.
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("cuebook-graph")
            with os.fdopen(descriptor, "wb") as handle:
                handle.write(content)
                handle.flush()
                index.load_index(f"/proc/self/fd/{descriptor}", max_elements=count)
        else:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "graph"
                path.write_bytes(content)
                index.load_index(str(path), max_elements=count)
        if index.get_current_count() != count:
            raise InvariantError(f"a graph of {index.get_current_count()} rows, not of {count}")
        index.set_ef(NEIGHBOURS_TRIED)
        return cls(index)

    def dump(self, folder: Path) -> bytes:
        """What `load` takes. folder: for a file that lives for a moment, as hnswlib knows only paths."""
        with tempfile.TemporaryDirectory(dir=folder) as place:
            path = Path(place) / "graph"
            self._index.save_index(str(path))
            return path.read_bytes()

    def nearest(self, query: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.int64]:
        try:
            found, _ = self._index.knn_query(query, k=count, num_threads=1)
        except RuntimeError:
            # It did not reach as many.
            return np.empty(0, np.int64)
        return np.asarray(found[0], np.int64)


def _index(dimensions: int) -> hnswlib.Index:
    # The inner product of vectors of length 1 is their cosine; the space "cosine" would divide by lengths again.
    index = hnswlib.Index(space="ip", dim=dimensions)
    index.set_num_threads(1)
    return index
