"""Vectors for tests: the same in every run, and what a search must find among them."""

from collections.abc import Iterable, Mapping, Sequence, Set

import numpy as np
import numpy.typing as npt

from projections.vectors.index import Hit

Floats = npt.NDArray[np.float32]


def clustered(count: int, dimensions: int, seed: int = 0) -> Floats:
    """Directions around a few dozen centres, as those of texts about a few dozen things."""
    made = np.random.default_rng(seed)
    centres = made.standard_normal((32, dimensions))
    found = centres[made.integers(0, 32, count)] + 0.7 * made.standard_normal((count, dimensions))
    return np.asarray(found / np.linalg.norm(found, axis=1)[:, None], np.float32)


def recorded(matrix: Floats) -> list[bytes]:
    """The rows as events record them."""
    return [row.astype("<f4").tobytes() for row in matrix]


def nearest(held: Mapping[int, bytes], query: bytes, k: int, allowed: Set[int] | None = None) -> list[Hit]:
    """What an exact index that holds `held` must answer."""
    one = np.frombuffer(query, "<f4").astype(np.float64)
    hits = [
        Hit(each, float((np.frombuffer(vector, "<f4").astype(np.float64) * one).sum()))
        for each, vector in held.items()
        if allowed is None or each in allowed
    ]
    return sorted(hits, key=lambda hit: (-hit.score, hit.id))[:k]


def same(found: Sequence[Hit], expected: Sequence[Hit]) -> bool:
    """The same ids in the same order, and scores up to rounding."""
    return [hit.id for hit in found] == [hit.id for hit in expected] and all(
        abs(one.score - other.score) < 1e-6 for one, other in zip(found, expected, strict=True)
    )


def recall(found: Iterable[Hit], expected: Iterable[Hit]) -> float:
    """The share of `expected` that was found."""
    wanted = {hit.id for hit in expected}
    return len(wanted & {hit.id for hit in found}) / len(wanted)
