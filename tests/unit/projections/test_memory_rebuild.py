"""I-11 for the memory view: however its events came in, a rebuild has the same rows, words and vectors, and answers alike."""

from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from events.envelope import NewEvent
from events.ids import StreamId
from events.log_directory import read_identity
from events.sqlite.reader_sqlite import SqliteLogReader
from projections.database import Database
from projections.embedding.hashing import HashEmbedder, hashed
from projections.follower import Follower
from projections.memory.projection import MemoryProjection
from projections.memory.reading import Filter
from projections.view_sqlite import SqliteView
from tests.support.memory_view import meaning
from tests.support.views import WrittenLog, as_is, follow_to_end, rows

WORDS = ("payment", "timeout", "retry", "deploy", "friday", "cache", "index", "shard", "replay", "fork", "parseURL", "read_body")


def make() -> MemoryProjection:
    return MemoryProjection(HashEmbedder())


def fact(random: Random, number: int) -> NewEvent:
    """One of everything that a memory may say; names come again, so that facts meet."""

    def text() -> str:
        return " ".join(random.choices(WORDS, k=6))

    name, agent = f"m{random.randrange(40)}", random.choice("ab")
    kind = random.choice(
        ("stored",) * 6 + ("accessed", "forgotten", "meaning_renewed", "pattern_learned", "interaction_recorded", "subject_noted")
    )
    said = text()
    vector = msgspec.to_builtins(meaning(said))
    payload: dict[str, Any] = {
        "stored": {
            "memory": name, "content": said, "type": random.choice(("episodic", "semantic")), "importance": random.random(),
            "metadata": {"n": number}, "session": random.choice((None, "s")), "agent": agent, "meaning": vector,
        },
        "accessed": {"counts": {name: random.randrange(1, 5)}},
        "forgotten": {"memories": [name, f"m{random.randrange(40)}"], "reason": "asked"},
        "meaning_renewed": {"meanings": {name: vector}},
        "pattern_learned": {"agent": agent, "pattern": random.choice(WORDS), "solution": random.choice(WORDS),
         "success": random.random() < 0.5},
        "interaction_recorded": {"agent": agent, "with_actor": "c", "type": "asks", "content": said, "result": None, "session": None},
        "subject_noted": {
            "subject": "findings", "round": f"r{number}", "digest": "d", "at": "t", "total": 1, "agent": agent,
             "gone": [f"k{random.randrange(9)}"],
            "found": {f"k{random.randrange(9)}": {"text": said, "importance": 0.5, "meaning": random.choice((None, vector))}},
        },
    }[kind]  # fmt: skip
    return NewEvent(type=f"memory.{kind}", payload=msgspec.json.encode(payload))


async def answers(view: SqliteView) -> list[Any]:
    """What recalls say, in both workspaces, with every score."""
    found = []
    for workspace in ("shop", "bank"):
        for query in (*WORDS, "retry after a payment timeout"):

            def read(db: Database, workspace: str = workspace, query: str = query) -> Any:
                projection = view.projection
                assert isinstance(projection, MemoryProjection)
                return projection._recall(db, workspace, query, hashed(query), 10, Filter())

            found.append(msgspec.to_builtins(await view.run(read)))
    return found


@pytest.mark.parametrize("seed", range(4))
async def test_i_11_a_rebuild_equals_what_grew(tmp_path: Path, seed: int) -> None:
    """Batches of any size, restarts in between, two workspaces in different shards; then everything anew in one go."""
    random = Random(seed)
    log = WrittenLog(tmp_path / "log")
    await log.start()
    incarnation = read_identity(tmp_path / "log").incarnation
    try:
        for part in range(5):
            for number in range(60):
                stream = StreamId(f"memory/{random.choice(('shop', 'bank'))}")
                await log.write(stream, *[fact(random, part * 60 + number) for _ in range(random.randrange(1, 4))])
                if random.random() < 0.2:
                    await grow(tmp_path / "grown", log, incarnation)
            await grow(tmp_path / "grown", log, incarnation)
        grown = await SqliteView.open(make(), tmp_path / "grown", incarnation)
        anew = await SqliteView.open(make(), tmp_path / "anew", incarnation)
        try:
            await follow_to_end(Follower(anew, await log.reader(), upcast=as_is))
            assert not await anew.parked()
            mine, other = await rows(grown), await rows(anew)
            assert len(mine) > 500
            assert mine == other
            assert await answers(grown) == await answers(anew)
        finally:
            await grown.close()
            await anew.close()
    finally:
        await log.close()


async def grow(folder: Path, log: WrittenLog, incarnation: str) -> None:
    """Bring the view up to date by a projector that has just started."""
    reader = await SqliteLogReader.open(log.directory)
    view = await SqliteView.open(make(), folder, incarnation)
    try:
        await follow_to_end(Follower(view, reader, upcast=as_is))
    finally:
        await view.close()
        await reader.close()


async def test_s29_an_erased_workspace_leaves_no_byte(tmp_path: Path) -> None:
    """Of its texts, its words and its vectors: not in the file, not beside it."""
    log = WrittenLog(tmp_path / "log")
    await log.start()
    try:
        text, vector = "zanzibarine wombatology", msgspec.to_builtins(meaning("zanzibarine wombatology"))
        said = {
            "memory": "m", "content": text, "type": "semantic", "importance": 0.5, "metadata": {}, "session": None, "agent": None,
             "meaning": vector,
        }  # fmt: skip
        stored = NewEvent(type="memory.stored", payload=msgspec.json.encode(said))
        await log.write(StreamId("memory/shop"), stored)
        await grow(tmp_path / "view", log, log.incarnation)
        needles = (b"zanzibarin", b"wombatolog", hashed(text).vector[:64])
        assert all(any(needle in path.read_bytes() for path in files(tmp_path / "view")) for needle in needles)
        await log.erase(StreamId("memory/shop"))
        await grow(tmp_path / "view", log, log.incarnation)
        assert not [needle for needle in needles for path in files(tmp_path / "view") if needle in path.read_bytes()]
    finally:
        await log.close()


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
