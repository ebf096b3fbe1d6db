"""Search among many vectors: by graphs beside comparing all of them, and how much of the exact answer the graphs give."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import numpy as np
import numpy.typing as npt

from events.errors import InvariantError
from ops.bench.measure import Case, Cases, Sample, Setting, Unavailable, sample
from projections.vectors.index import VECTORS_PER_GRAPH, Background, Space, VectorIndex
from projections.vectors.index_numpy import BlockIndex
from projections.vectors.opening import backend

DIMENSIONS: Final = 384
K: Final = 10
_QUESTIONS: Final = 500
_CENTRES: Final = 200
_AT_ONCE: Final = 10_000
_GRAPHS_S: Final = 600.0


@asynccontextmanager
async def vector_cases(setting: Setting) -> AsyncIterator[Cases]:
    """The same vectors in both indexes; as in a memory with many kinds of things they lie around some hundred centres."""
    count = setting.scale.vectors
    matrix, questions = made_vectors(count, seed=1), made_vectors(_QUESTIONS, seed=2)
    rows, asked = _recorded(matrix), _recorded(questions)
    exact = BlockIndex(DIMENSIONS)
    exact.put(range(count), rows)
    small = BlockIndex(DIMENSIONS)
    small.put(range(count // 10), rows[: count // 10])
    cases: dict[str, Case | Unavailable] = {
        "vectors-exact": _searches(exact, asked),
        "vectors-exact-tenth": _searches(small, asked),
    }
    if backend() != "hnswlib":
        missing = Unavailable("needs hnswlib: pip install 'cuebook[memory]'")
        yield cases | {"vectors-graphs": missing, "vectors-graphs-share": missing}
        return
    from projections.vectors.index_graphed import GraphedIndex

    background = Background()
    try:
        setting.progress(f"graphs of {count:,} vectors")
        space = Space(name="bench", model="bench", dimensions=DIMENSIONS)
        per_graph = min(VECTORS_PER_GRAPH, max(count // 2, 1))
        graphs = GraphedIndex(space, folder=setting.folder, background=background, vectors_per_graph=per_graph)
        for first in range(0, count, _AT_ONCE):
            graphs.put(range(first, min(first + _AT_ONCE, count)), rows[first : first + _AT_ONCE])
        if not background.wait_idle(_GRAPHS_S):
            raise InvariantError(f"the graphs of {count:,} vectors were not made within {_GRAPHS_S:.0f} s")
        yield cases | {"vectors-graphs": _searches(graphs, asked), "vectors-graphs-share": _searches(graphs, asked, exact)}
    finally:
        background.close()


def made_vectors(count: int, seed: int) -> npt.NDArray[np.float32]:
    """Directions around `_CENTRES` centres, the same in every run."""
    centres = np.random.default_rng(0).standard_normal((_CENTRES, DIMENSIONS))
    made = np.random.default_rng(seed)
    found = centres[made.integers(0, _CENTRES, count)] + made.standard_normal((count, DIMENSIONS))
    return np.asarray(found / np.linalg.norm(found, axis=1)[:, None], np.float32)


def _recorded(matrix: npt.NDArray[np.float32]) -> list[bytes]:
    return [row.astype("<f4").tobytes() for row in matrix]


def _searches(index: VectorIndex, asked: list[bytes], exact: VectorIndex | None = None) -> Case:
    """One search after another in this thread; with `exact`, also the share of its answers that were found."""
    share = None if exact is None else sum(_found(index, exact, question) for question in asked) / len(asked)

    async def run(seconds: float) -> Sample:
        latencies: list[float] = []
        clock = time.perf_counter
        begin = now = clock()
        while now - begin < seconds or not latencies:
            index.search(asked[len(latencies) % len(asked)], K)
            before, now = now, clock()
            latencies.append(now - before)
        found = sample(len(latencies), now - begin, latencies)
        return Sample(count=found.count, per_s=found.per_s, p50_us=found.p50_us, p99_us=found.p99_us, share=share)

    return run


def _found(index: VectorIndex, exact: VectorIndex, question: bytes) -> float:
    wanted = {hit.id for hit in exact.search(question, K)}
    return len(wanted & {hit.id for hit in index.search(question, K)}) / len(wanted)
