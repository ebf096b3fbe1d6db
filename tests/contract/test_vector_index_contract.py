"""Every adapter of `VectorIndex`: what it finds, what it forgets, and that reads go on while it grows."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from events.embedding import packed
from events.errors import EmbeddingError
from projections.vectors.index import Background, Space, VectorIndex
from projections.vectors.index_graphed import GraphedIndex
from projections.vectors.index_numpy import BlockIndex
from projections.vectors.index_plain import PlainIndex
from tests.support.vectors import clustered, nearest, recall, recorded, same

DIMENSIONS = 24
PER_GRAPH = 300
SPACE = Space(name="w", model="m", dimensions=DIMENSIONS)


class Made:
    """An index under test, and what it holds."""

    def __init__(self, index: VectorIndex, background: Background) -> None:
        self.index = index
        self.background = background
        self.held: dict[int, bytes] = {}

    def put(self, first: int, vectors: list[bytes]) -> None:
        ids = list(range(first, first + len(vectors)))
        self.index.put(ids, vectors)
        self.held.update(zip(ids, vectors, strict=True))

    def remove(self, *ids: int) -> None:
        self.index.remove(ids)
        for each in ids:
            self.held.pop(each, None)

    def settled(self) -> None:
        assert self.background.wait_idle(60)


@pytest.fixture(params=["plain", "numpy", "graphed"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Made]:
    background = Background()
    makers: dict[str, Callable[[], VectorIndex]] = {
        "plain": lambda: PlainIndex(DIMENSIONS),
        "numpy": lambda: BlockIndex(DIMENSIONS),
        "graphed": lambda: GraphedIndex(SPACE, folder=tmp_path, background=background, vectors_per_graph=PER_GRAPH),
    }
    found = Made(makers[request.param](), background)
    yield found
    background.close()
    found.index.close()


def vectors(count: int, seed: int = 0) -> list[bytes]:
    return recorded(clustered(count, DIMENSIONS, seed))


def test_an_empty_index_finds_nothing(made: Made) -> None:
    assert made.index.search(vectors(1)[0], 5) == []


def test_it_finds_the_nearest_with_their_cosines_in_order(made: Made) -> None:
    made.put(1, vectors(200))
    for query in vectors(20, seed=1):
        assert same(made.index.search(query, 7), nearest(made.held, query, 7))


def test_k_beyond_what_there_is_gives_all(made: Made) -> None:
    made.put(1, vectors(9))
    assert len(made.index.search(vectors(1)[0], 50)) == 9
    assert made.index.search(vectors(1)[0], 0) == []


def test_equal_vectors_come_by_their_ids_wherever_they_stand(made: Made) -> None:
    one, *others = vectors(500)
    made.put(1_000, others)
    for each in (700, 3, 41, 5_000, 12):
        made.index.put([each], [one])
    made.settled()
    assert [hit.id for hit in made.index.search(one, 5)] == [3, 12, 41, 700, 5_000]


def test_a_vector_that_comes_again_takes_the_place_of_the_old_one(made: Made) -> None:
    old, new, *others = vectors(50)
    made.put(1, [old, *others])
    made.put(1, [new])
    assert made.index.search(new, 1)[0].id == 1
    assert same(made.index.search(old, 50), nearest(made.held, old, 50))
    assert made.index.statistics().vectors == 49


def test_what_was_removed_is_in_no_answer(made: Made) -> None:
    made.put(1, vectors(4 * PER_GRAPH))
    made.settled()
    gone = list(range(2, 4 * PER_GRAPH, 3))
    made.remove(*gone, 10_000)
    for query in vectors(10, seed=2):
        found = made.index.search(query, 4 * PER_GRAPH)
        assert same(found, nearest(made.held, query, 4 * PER_GRAPH))
    made.settled()
    made.remove(*range(1, 4 * PER_GRAPH + 1))
    assert made.index.search(vectors(1)[0], 5) == []
    assert made.index.statistics().vectors == 0


@pytest.mark.parametrize("share", [0.002, 0.05, 0.3, 0.9])
def test_among_allowed_ids_there_are_k_results_if_so_many_exist(made: Made, share: float) -> None:
    """A workspace or a type may be a small part of what is near: asking for k and throwing away is not enough."""
    count = 5 * PER_GRAPH
    made.put(1, vectors(count))
    made.settled()
    chosen = np.random.default_rng(3).permutation(np.arange(1, count + 1))[: int(share * count)]
    allowed = {int(each) for each in chosen} | {77_777}
    for query in vectors(20, seed=4):
        found, expected = made.index.search(query, 10, allowed), nearest(made.held, query, 10, allowed)
        assert len(found) == len(expected)
        assert {hit.id for hit in found} <= allowed
        assert recall(found, expected) >= 0.9
        assert same(made.index.search(query, 10, allowed, exact=True), expected)
    assert made.index.search(vectors(1)[0], 10, set()) == []


def test_other_dimensions_are_refused_and_change_nothing(made: Made) -> None:
    made.put(1, vectors(3))
    for wrong in (packed([1.0]), packed([0.0] * (DIMENSIONS + 1)), b"", b"123"):
        with pytest.raises(EmbeddingError):
            made.index.put([4, 5], [vectors(1)[0], wrong])
        with pytest.raises(EmbeddingError):
            made.index.search(wrong, 1)
    assert made.index.statistics().vectors == 3


def test_a_query_that_says_nothing_resembles_nothing(made: Made) -> None:
    made.put(1, vectors(3))
    assert [hit.score for hit in made.index.search(bytes(4 * DIMENSIONS), 3)] == [0.0, 0.0, 0.0]


def test_reads_go_on_and_stay_whole_while_it_grows_shrinks_and_makes_graphs(made: Made) -> None:
    """What was there before and stays is in every answer, at every moment; nothing comes twice, nothing that never was."""
    lasting = vectors(PER_GRAPH - 1)
    made.put(1, lasting)
    stop = threading.Event()
    wrong: list[Any] = []
    searches = [0, 0]

    def read(number: int) -> None:
        while not stop.is_set():
            place = searches[number] % len(lasting)
            found = made.index.search(lasting[place], 5)
            ids = [hit.id for hit in found]
            if ids[0] != place + 1 or len(set(ids)) != len(ids) or abs(found[0].score - 1) > 1e-6:
                wrong.append((place + 1, found))
                return
            searches[number] += 1

    readers = [threading.Thread(target=read, args=(number,)) for number in range(2)]
    for reader in readers:
        reader.start()
    try:
        others = vectors(6 * PER_GRAPH, seed=5)
        for at in range(0, len(others), 60):
            made.put(10_000 + at, others[at : at + 60])
            made.put(10_000 + at // 2, others[at : at + 10])
            made.remove(*range(10_000 + at // 3, 10_020 + at // 3))
        made.settled()
        made.remove(*[each for each in made.held if each >= 10_000][: 5 * PER_GRAPH])
        made.settled()
    finally:
        stop.set()
        for reader in readers:
            reader.join(30)
    assert wrong == []
    assert min(searches) > 0
    for query in vectors(5, seed=6):
        assert same(made.index.search(query, 10, exact=True), nearest(made.held, query, 10))


class AgainstModel(RuleBasedStateMachine):
    """Any order of writes: the exact answers are those of a dictionary, whether graphs were made meanwhile or not."""

    def __init__(self) -> None:
        super().__init__()
        self.background = Background()
        self.index = GraphedIndex(Space(name="w", model="m", dimensions=4), folder=None, background=self.background, vectors_per_graph=16)
        self.held: dict[int, bytes] = {}
        self.source = recorded(clustered(500, 4))
        self.used = 0

    @rule(ids=st.lists(st.integers(-3, 60), max_size=20))
    def put(self, ids: list[int]) -> None:
        chosen = [self.source[(self.used + at) % len(self.source)] for at in range(len(ids))]
        self.used += len(ids)
        self.index.put(ids, chosen)
        self.held.update(zip(ids, chosen, strict=True))

    @rule(ids=st.lists(st.integers(-3, 60), max_size=20))
    def remove(self, ids: list[int]) -> None:
        self.index.remove(ids)
        for each in ids:
            self.held.pop(each, None)

    @rule()
    def settle(self) -> None:
        assert self.background.wait_idle(60)

    @invariant()
    def it_answers_like_the_model(self) -> None:
        query = self.source[-1]
        for allowed in (None, set(range(0, 60, 7))):
            assert same(self.index.search(query, 9, allowed, exact=True), nearest(self.held, query, 9, allowed))
        assert len(self.index.search(query, 100)) == len(self.held) == self.index.statistics().vectors

    def teardown(self) -> None:
        self.background.close()


TestAgainstModel = AgainstModel.TestCase
TestAgainstModel.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
