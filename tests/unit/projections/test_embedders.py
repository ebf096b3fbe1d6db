"""Embedders: the built-in one gives the same vectors everywhere and for ever; many callers share one call; a foreign one is checked."""

import asyncio
import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from events.embedding import Embedder, Embedding, embedding, unpacked
from events.errors import EmbeddingError
from projections.embedding.batching import BatchingEmbedder, check_given
from projections.embedding.fused import FusedEmbedder
from projections.embedding.hashing import DIMENSIONS, MODEL, TEXT_CHARACTERS_MAX, HashEmbedder, hashed
from projections.embedding.langchain import LangChainEmbedder

ROOT = Path(__file__).parents[3]
TEXTS = ("", "shortest_path_length", "Compute the shortest path lengths from a source", "parseURL 2 München ﬁle 東京", "\ud800 a\x00b" * 50)


def cosine(one: Embedding, other: Embedding) -> float:
    return sum(a * b for a, b in zip(unpacked(one.vector), unpacked(other.vector), strict=True))


def digest(texts: Sequence[str]) -> str:
    return hashlib.sha256(b"".join(hashed(text).vector for text in texts)).hexdigest()


# -- the built-in one ---------------------------------------------------------------------------------------------------------------------


def test_its_vectors_are_those_of_every_release() -> None:
    """A change here is another model: give it another id, and leave this digest where it is for the old one."""
    assert (MODEL, digest(TEXTS)) == ("hash-512-1", "1ed1c1d041e7ca931d5fd188c09320449809e571b2ff4783bee33a7bbfa608b7")


@pytest.mark.parametrize("seed", ["0", "1", "4242"])
def test_its_vectors_do_not_depend_on_the_process(seed: str) -> None:
    code = "import sys; from tests.unit.projections.test_embedders import TEXTS, digest; print(digest(TEXTS))"
    environment = os.environ | {"PYTHONHASHSEED": seed}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == digest(TEXTS)


def test_spellings_of_one_name_are_near_each_other_and_other_names_are_not() -> None:
    name = hashed("parse_http_url")
    assert cosine(name, hashed("parseHTTPUrl")) > 0.99
    assert cosine(name, hashed("parsing of an HTTP URL")) > 0.4
    assert cosine(name, hashed("close the database")) < 0.2


def test_a_text_of_no_words_resembles_nothing() -> None:
    assert hashed(" -- !? ").vector == bytes(4 * DIMENSIONS)


def test_a_very_long_text_costs_no_more_than_its_beginning() -> None:
    beginning = "word " * (TEXT_CHARACTERS_MAX // 5)
    assert hashed(beginning + "else " * 1_000_000) == hashed(beginning)


async def test_it_is_an_embedder() -> None:
    embedder: Embedder = HashEmbedder()
    check_given(embedder, TEXTS, await embedder.embed(TEXTS))


# -- many callers, one call ---------------------------------------------------------------------------------------------------------------


class Recording:
    """A model with a door: it answers when `open` is set, and keeps what it was asked."""

    model = "recording-1"
    dimensions = 2

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.asked: list[list[str]] = []
        self.poison = ""

    async def embed(self, texts: Sequence[str]) -> Sequence[Embedding]:
        self.asked.append(list(texts))
        await self.open.wait()
        if self.poison and self.poison in texts:
            raise ValueError(self.poison)
        return [self.of(text) for text in texts]

    def of(self, text: str) -> Embedding:
        return embedding(self.model, [float(len(text)), 1.0])


async def begun(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_arrives_while_a_call_runs_is_the_next_call() -> None:
    inner = Recording()
    batching = BatchingEmbedder(inner)
    async with asyncio.TaskGroup() as group:
        callers = [group.create_task(batching.embed(["x" * number])) for number in range(10)]
        await begun(20)
        assert len(inner.asked) == 1
        inner.open.set()
    assert [list(caller.result()) for caller in callers] == [[inner.of("x" * number)] for number in range(10)]
    assert len(inner.asked) <= 2
    assert batching.statistics().calls == len(inner.asked)
    assert batching.statistics().texts == 10


async def test_a_call_has_a_bound_and_every_caller_gets_its_own() -> None:
    inner = Recording()
    inner.open.set()
    batching = BatchingEmbedder(inner, texts_max=4)
    async with asyncio.TaskGroup() as group:
        callers = [group.create_task(batching.embed(["x" * number] * 3)) for number in range(5)]
        large = group.create_task(batching.embed(["y" * number for number in range(11)]))
    assert [list(caller.result()) for caller in callers] == [[inner.of("x" * number)] * 3 for number in range(5)]
    assert list(large.result()) == [inner.of("y" * number) for number in range(11)]
    assert max(map(len, inner.asked)) <= 4


class Working(Recording):
    """A model that lets others run while it computes."""

    async def embed(self, texts: Sequence[str]) -> Sequence[Embedding]:
        self.asked.append(list(texts))
        await begun(10)
        return [self.of(text) for text in texts]


async def test_who_asks_for_little_does_not_wait_for_who_asks_for_much() -> None:
    inner = Working()
    batching = BatchingEmbedder(inner, texts_max=8)
    async with asyncio.TaskGroup() as group:
        much = group.create_task(batching.embed([f"much {number}" for number in range(100)]))
        await begun(1)
        little = [group.create_task(batching.embed([f"little {number}"])) for number in range(3)]
        while not all(each.done() for each in little):
            await asyncio.sleep(0)
        assert len(inner.asked) <= 3, "the call that was under way, theirs, and perhaps the beginning of the next"
    assert inner.asked[1][-3:] == ["little 0", "little 1", "little 2"]
    assert len(inner.asked[1]) == 8, "what they leave is used"
    assert list(much.result()) == [inner.of(f"much {number}") for number in range(100)]
    assert len(inner.asked) == 13


async def test_an_idle_model_is_called_at_once() -> None:
    inner = Recording()
    caller = asyncio.ensure_future(BatchingEmbedder(inner).embed(["text"]))
    await begun(1)
    assert inner.asked == [["text"]], "in the first moment that the caller has"
    inner.open.set()
    await caller


def test_one_loop_after_another_may_use_it() -> None:
    """An app is made once; a loop may end while somebody waits."""
    batching = BatchingEmbedder(HashEmbedder())
    stuck = Recording()
    around = BatchingEmbedder(stuck)

    async def cut_off() -> None:
        callers = [asyncio.ensure_future(around.embed([str(number)])) for number in range(3)]
        await begun(3)
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)

    async def together(used: Embedder) -> int:
        async with asyncio.TaskGroup() as group:
            callers = [group.create_task(used.embed([str(number)])) for number in range(5)]
        return sum(len(caller.result()) for caller in callers)

    asyncio.run(cut_off())
    for _ in range(2):
        assert asyncio.run(together(batching)) == 5
        stuck.open = asyncio.Event()
        stuck.open.set()
        assert asyncio.run(together(around)) == 5


async def test_a_text_that_the_model_refuses_fails_for_its_own_caller_only() -> None:
    inner = Recording()
    inner.poison = "bad"
    batching = BatchingEmbedder(inner)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(batching.embed(["first"]))
        await begun(3)
        good = group.create_task(batching.embed(["good"]))
        bad = group.create_task(expect_failure(batching, "bad"))
        await begun(3)
        inner.open.set()
    assert [first.result(), good.result()] == [[inner.of("first")], [inner.of("good")]]
    assert bad.result() == "bad"


async def expect_failure(batching: BatchingEmbedder, text: str) -> str:
    with pytest.raises(ValueError, match=text) as failed:
        await batching.embed([text])
    return str(failed.value)


async def test_the_others_are_served_when_the_one_who_asks_for_all_is_cancelled() -> None:
    inner = Recording()
    batching = BatchingEmbedder(inner)
    async with asyncio.TaskGroup() as group:
        callers = [group.create_task(batching.embed([str(number)])) for number in range(4)]
        await begun(5)
        callers[0].cancel()
        await begun(10)
        inner.open.set()
    assert callers[0].cancelled()
    assert [list(caller.result()) for caller in callers[1:]] == [[inner.of(str(number))] for number in range(1, 4)]
    assert inner.asked[-1] == ["1", "2", "3"], "who was cancelled is not asked for again"


async def test_a_cancelled_caller_leaves_nothing_behind() -> None:
    inner = Recording()
    batching = BatchingEmbedder(inner)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(batching.embed(["first"]))
        await begun(3)
        waiting = group.create_task(batching.embed(["waiting"]))
        await begun(3)
        waiting.cancel()
        await begun(3)
        inner.open.set()
    assert first.result() == [inner.of("first")]
    assert inner.asked == [["first"]]


async def test_a_model_that_gives_another_one_s_vectors_is_refused() -> None:
    class Liar(Recording):
        def of(self, text: str) -> Embedding:
            return embedding("other", [1.0, 1.0])

    class Miser(Recording):
        async def embed(self, texts: Sequence[str]) -> Sequence[Embedding]:
            return []

    class Longer(Recording):
        def of(self, text: str) -> Embedding:
            return embedding(self.model, [1.0, 1.0, 1.0])

    for inner in (Liar(), Miser(), Longer()):
        inner.open.set()
        with pytest.raises(EmbeddingError):
            await BatchingEmbedder(inner).embed(["text"])


# -- LangChain ----------------------------------------------------------------------------------------------------------------------------


class Embeddings:
    """Shaped as ``langchain_core.embeddings.Embeddings``."""

    def __init__(self, sizes: Sequence[int] = (3,)) -> None:
        self.sizes = sizes

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[float(len(text) + 1), 2.0, 2.0][: self.sizes[at % len(self.sizes)]] for at, text in enumerate(texts)]


async def test_an_embeddings_of_langchain_is_an_embedder() -> None:
    embedder: Embedder = await LangChainEmbedder.probe(Embeddings(), model="provider/model-1")
    assert embedder.dimensions == 3
    found = await embedder.embed(["", "text"])
    assert found == [embedding("provider/model-1", [1.0, 2.0, 2.0]), embedding("provider/model-1", [5.0, 2.0, 2.0])]
    assert await embedder.embed([]) == []


async def test_one_that_changes_its_dimensions_is_refused() -> None:
    with pytest.raises(EmbeddingError, match="numbers"):
        await LangChainEmbedder(Embeddings([3, 2]), model="m", dimensions=3).embed(["a", "b"])


# -- two as one ---------------------------------------------------------------------------------------------------------------------------


class Counting:
    """A model that knows how many letters a text has, and no words."""

    model = "letters-1"
    dimensions = 3

    async def embed(self, texts: Sequence[str]) -> Sequence[Embedding]:
        return [embedding(self.model, [float(len(text)), 1.0, 0.0]) for text in texts]


@pytest.mark.parametrize("weight", [0.5, 0.25])
async def test_the_cosine_of_fused_vectors_is_the_mean_of_the_two(weight: float) -> None:
    fused: Embedder = FusedEmbedder(HashEmbedder(), Counting(), weight=weight)
    texts = ["open the file", "a file was opened", "ab"]
    found = await fused.embed(texts)
    check_given(fused, texts, found)
    words, letters = await HashEmbedder().embed(texts), await Counting().embed(texts)
    for one, other in ((0, 1), (1, 2)):
        expected = weight * cosine(words[one], words[other]) + (1 - weight) * cosine(letters[one], letters[other])
        assert cosine(found[one], found[other]) == pytest.approx(expected, abs=1e-5)


async def test_another_weight_is_another_model() -> None:
    models = {FusedEmbedder(HashEmbedder(), Counting(), weight=weight).model for weight in (0.5, 0.25, 0.75)}
    assert models == {"hash-512-1+letters-1", "hash-512-1+letters-1@0.25", "hash-512-1+letters-1@0.75"}
    with pytest.raises(EmbeddingError):
        FusedEmbedder(HashEmbedder(), Counting(), weight=1.0)
