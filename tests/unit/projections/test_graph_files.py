"""Files of graphs: verified before hnswlib sees a byte, dropped and made again where they do not fit the rows."""

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from events.errors import CuebookError
from projections.vectors import graph_file
from projections.vectors.graph_file import DamagedGraphError, GraphFile, Header
from projections.vectors.index import Background, Space
from projections.vectors.index_graphed import GraphedIndex
from tests.support.vectors import clustered, nearest, recorded, same

ROOT = Path(__file__).parents[3]
DIMENSIONS = 32
PER_GRAPH = 400
SPACE = Space(name="w", model="hash-512-1", dimensions=DIMENSIONS)
VECTORS = recorded(clustered(2 * PER_GRAPH + 50, DIMENSIONS))
IDS = list(range(1, len(VECTORS) + 1))
QUERIES = recorded(clustered(10, DIMENSIONS, seed=9))
TIMES, BYTES = 40, 20


@pytest.fixture
def background() -> Iterator[Background]:
    made = Background()
    yield made
    made.close()


def opened(folder: Path, background: Background, *, position: int = 1_000, space: Space = SPACE, rows: int | None = None) -> GraphedIndex:
    index = GraphedIndex(space, folder=folder, background=background, vectors_per_graph=PER_GRAPH)
    index.restore(IDS[:rows], VECTORS[:rows], position)
    assert background.wait_idle(60)
    return index


def graphs(index: GraphedIndex) -> tuple[int, int, int]:
    found = index.statistics()
    return found.loaded, found.built, found.damaged


def check_answers(index: GraphedIndex, ids: list[int], vectors: list[bytes]) -> None:
    held = dict(zip(ids, vectors, strict=True))
    for query in QUERIES:
        expected = nearest(held, query, 10)
        assert same(index.search(query, 10, exact=True), expected)
        assert len({hit.id for hit in index.search(query, 10)} & {hit.id for hit in expected}) >= 9


def files(folder: Path) -> list[Path]:
    return graph_file.files_of(folder, SPACE)


def test_graphs_are_made_once_and_come_from_their_files_after_that(tmp_path: Path, background: Background) -> None:
    first = opened(tmp_path, background)
    assert graphs(first) == (0, 2, 0)
    assert len(files(tmp_path)) == 2
    second = opened(tmp_path, background)
    assert graphs(second) == (2, 0, 0)
    assert second.statistics().graphed == 2 * PER_GRAPH
    check_answers(second, IDS, VECTORS)
    assert second.search(QUERIES[0], 10) == first.search(QUERIES[0], 10)


def test_a_file_says_what_it_is_of(tmp_path: Path, background: Background) -> None:
    opened(tmp_path, background, position=777)
    header = graph_file.read(files(tmp_path)[0]).header
    assert (header.space, header.position, header.count) == (SPACE, 777, PER_GRAPH)
    assert oct(files(tmp_path)[0].stat().st_mode)[-3:] == "600"


@pytest.mark.parametrize(
    "space",
    [
        msgspec.structs.replace(SPACE, name="other"),
        msgspec.structs.replace(SPACE, model="minilm-1"),
    ],
    ids=["another space", "another model"],
)
def test_a_file_of_something_else_is_not_taken_even_under_the_right_name(tmp_path: Path, background: Background, space: Space) -> None:
    opened(tmp_path, background)
    for number, path in enumerate(files(tmp_path)):
        path.rename(tmp_path / f"{graph_file.prefix(space)}-{number}{graph_file.SUFFIX}")
    other = opened(tmp_path, background, space=space)
    assert graphs(other) == (0, 2, 0)
    check_answers(other, IDS, VECTORS)


def test_a_file_that_knows_more_of_the_log_than_the_rows_is_of_another_view(tmp_path: Path, background: Background) -> None:
    opened(tmp_path, background, position=1_000)
    index = opened(tmp_path, background, position=999)
    assert graphs(index) == (0, 2, 0)


def test_rows_that_are_gone_or_other_than_the_file_knew_count_as_the_rows_say(tmp_path: Path, background: Background) -> None:
    opened(tmp_path, background)
    ids, vectors = IDS[50:], VECTORS[50:]
    vectors[10:20] = recorded(clustered(10, DIMENSIONS, seed=11))
    index = GraphedIndex(SPACE, folder=tmp_path, background=background, vectors_per_graph=PER_GRAPH)
    index.restore(ids, vectors, 2_000)
    assert graphs(index) == (2, 0, 0)
    assert index.statistics().vectors == len(ids)
    check_answers(index, ids, vectors)
    for gone in VECTORS[:50]:
        assert not {hit.id for hit in index.search(gone, 20)} & set(IDS[:50])


def test_a_file_whose_rows_are_mostly_gone_goes_too(tmp_path: Path, background: Background) -> None:
    opened(tmp_path, background)
    index = opened(tmp_path, background, rows=PER_GRAPH // 3)
    assert graphs(index) == (0, 0, 0)
    assert files(tmp_path) == []
    check_answers(index, IDS[: PER_GRAPH // 3], VECTORS[: PER_GRAPH // 3])


def test_a_graph_that_is_given_up_takes_its_file_along(tmp_path: Path, background: Background) -> None:
    index = opened(tmp_path, background)
    index.remove(IDS[: PER_GRAPH // 2 + 1])
    assert background.wait_idle(60)
    assert len(files(tmp_path)) == 1


def test_a_full_disk_costs_the_file_only(tmp_path: Path, background: Background, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    index = opened(tmp_path, background)
    assert graphs(index) == (0, 2, 0)
    assert list(tmp_path.iterdir()) == []
    check_answers(index, IDS, VECTORS)


def test_what_a_crash_left_half_written_and_what_is_of_no_space_is_tidied_away(tmp_path: Path, background: Background) -> None:
    opened(tmp_path, background)
    (tmp_path / f"{graph_file.prefix(SPACE)}-1-ab.tmp").write_bytes(b"half")
    (tmp_path / f"{'0' * 24}-1-ab{graph_file.SUFFIX}").write_bytes(b"of a space that was erased")
    kept = set(files(tmp_path))
    assert graph_file.tidy(tmp_path, [SPACE]) == 2
    assert set(tmp_path.iterdir()) == kept


def test_erasing_a_space_removes_its_files_even_while_a_graph_is_made(tmp_path: Path, background: Background) -> None:
    index = GraphedIndex(SPACE, folder=tmp_path, background=background, vectors_per_graph=PER_GRAPH)
    index.restore(IDS, VECTORS, 1)
    index.delete_files()
    assert background.wait_idle(60)
    assert list(tmp_path.iterdir()) == []


# -- damage -------------------------------------------------------------------------------------------------------------------------------


def changed(content: bytes, seed: int) -> bytes:
    """`content` with 20 bytes that are other ones than before, anywhere."""
    chosen = random.Random(seed)
    found = bytearray(content)
    for place in chosen.sample(range(len(found)), BYTES):
        found[place] ^= chosen.randrange(1, 256)
    return bytes(found)


def survive_damage(folder: Path) -> None:
    """In a process of its own: 40 times a damaged file, and each time the right answers and a graph that was made again."""
    background = Background()
    opened(folder, background)
    sound = {path: path.read_bytes() for path in files(folder)}
    for seed in range(TIMES):
        for path in files(folder):
            path.unlink()
        for number, (path, content) in enumerate(sound.items()):
            path.write_bytes(changed(content, seed) if number == seed % len(sound) else content)
        index = opened(folder, background)
        assert graphs(index) == (1, 1, 1), (seed, graphs(index))
        assert len(files(folder)) == 2
        check_answers(index, IDS, VECTORS)
        print(seed, "survived", flush=True)
    background.close()


def believe_damage(folder: Path) -> None:
    """The control: hnswlib is given the same damage without a check. It refuses some of it; says of which the answers are spoilt."""
    from projections.vectors.graphs_hnswlib import HnswGraph

    background = Background()
    index = opened(folder, background)
    content = graph_file.read(files(folder)[0])
    block = index._state.graphed[0]
    for seed in range(TIMES):
        try:
            graph = HnswGraph.load(changed(content.graph, seed), count=PER_GRAPH, dimensions=DIMENSIONS)
        except (RuntimeError, MemoryError, CuebookError):
            continue
        found = [sorted(graph.nearest(block.matrix[row], 10).tolist()) for row in range(PER_GRAPH)]
        expected = [sorted((-(block.matrix @ block.matrix[row])).argsort()[:10].tolist()) for row in range(PER_GRAPH)]
        if sum(len(set(one) & set(two)) for one, two in zip(found, expected, strict=True)) < 9.9 * PER_GRAPH:
            print(seed, "spoilt", flush=True)
    background.close()


def in_a_process(function: Callable[[Path], None], folder: Path) -> "subprocess.CompletedProcess[str]":
    code = f"from pathlib import Path; from tests.unit.projections.test_graph_files import *; {function.__name__}(Path({str(folder)!r}))"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_20_bytes_changed_40_times_are_found_each_time_and_the_graph_is_made_again(tmp_path: Path) -> None:
    done = in_a_process(survive_damage, tmp_path)
    assert done.returncode == 0, (done.returncode, done.stderr[-2_000:])
    assert done.stdout.count("survived") == TIMES


def test_without_the_check_the_same_damage_kills_the_process_or_spoils_answers(tmp_path: Path) -> None:
    done = in_a_process(believe_damage, tmp_path)
    assert done.returncode < 0 or "spoilt" in done.stdout, (done.returncode, done.stderr[-500:])


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content[: len(content) // 2],
        lambda content: content + b"\0",
        lambda content: b"\0" * len(content),
        lambda content: content[:20],
    ],
    ids=["empty", "a byte short", "half", "a byte long", "zeros", "beginning"],
)
def test_a_file_that_is_not_whole_is_named_damaged(tmp_path: Path, background: Background, damage: Callable[[bytes], bytes]) -> None:
    opened(tmp_path, background)
    path = files(tmp_path)[0]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DamagedGraphError):
        graph_file.read(path)
    assert graphs(opened(tmp_path, background)) == (1, 1, 1)


def test_a_file_of_another_format_is_not_read_further(tmp_path: Path) -> None:
    header = Header(format=2, space=SPACE, library="l", parameters={}, position=1, count=1)
    path = graph_file.write(tmp_path, GraphFile(header=header, ids=[1], digests=[b"12345678"], graph=b"g"))
    with pytest.raises(DamagedGraphError):
        graph_file.read(path)


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    header = Header(space=SPACE, library="l 1", parameters={"m": 16}, position=2**40, count=2)
    content = GraphFile(header=header, ids=[-5, 2**62], digests=[b"12345678", b"abcdefgh"], graph=bytes(range(256)))
    assert graph_file.read(graph_file.write(tmp_path, content)) == content
