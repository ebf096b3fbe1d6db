"""The index for where numpy is not installed: exact, by plain Python."""

import heapq
import threading
from array import array
from collections.abc import Sequence, Set
from operator import mul
from typing import Final

from events.embedding import unpacked
from events.errors import EmbeddingError
from projections.vectors.index import Hit, IndexStatistics

_BYTES_PER_NUMBER: Final = 4


class PlainIndex:
    """Adapter of `VectorIndex`."""

    def __init__(self, dimensions: int) -> None:
        self.dimensions: Final = dimensions
        # Replaced and never changed in place, so that a search has one to walk through while others come.
        self._vectors: dict[int, array[float]] = {}
        self._writing = threading.Lock()

    def put(self, ids: Sequence[int], vectors: Sequence[bytes]) -> None:
        added = {number: self._checked(vector) for number, vector in zip(ids, vectors, strict=True)}
        with self._writing:
            self._vectors = self._vectors | added

    def remove(self, ids: Sequence[int]) -> None:
        gone = set(ids)
        with self._writing:
            self._vectors = {number: vector for number, vector in self._vectors.items() if number not in gone}

    def search(self, vector: bytes, k: int, allowed: Set[int] | None = None, *, exact: bool = False) -> list[Hit]:
        query = self._checked(vector)
        vectors = self._vectors
        if allowed is not None:
            vectors = {number: vectors[number] for number in allowed if number in vectors}
        hits = (Hit(number, sum(map(mul, query, each))) for number, each in vectors.items())
        return heapq.nsmallest(k, hits, key=lambda hit: (-hit.score, hit.id))

    def statistics(self) -> IndexStatistics:
        return IndexStatistics(backend="plain", vectors=len(self._vectors))

    def nbytes(self) -> int:
        return len(self._vectors) * self.dimensions * _BYTES_PER_NUMBER

    def passed(self, position: int) -> None:
        """There are no files."""

    def close(self) -> None:
        """Nothing works in the background."""

    def delete_files(self) -> None:
        """There are none."""

    def _checked(self, vector: bytes) -> "array[float]":
        found = unpacked(vector)
        if len(found) != self.dimensions:
            raise EmbeddingError(f"a vector of {len(found)} numbers in an index of {self.dimensions}")
        return found


def products(vector: bytes, others: bytes) -> list[float]:
    """See `opening.products`."""
    index = PlainIndex(len(vector) // _BYTES_PER_NUMBER)
    apart = [others[at : at + len(vector)] for at in range(0, len(others), len(vector))]
    index.put(range(len(apart)), apart)
    return [score for _, score in sorted(index.search(vector, len(apart)))]
