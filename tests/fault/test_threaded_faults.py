"""The writer of LangGraph's threads under the same faults as the shard's own: a full disk, a commit of unknown outcome (S18)."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint

from actors.graph import EventLogSaver
from events.envelope import NewEvent
from events.errors import AppendOutcomeUnknownError, LogFullError
from events.ids import StreamId, Version
from events.limits import COMMIT_BYTES_MAX, COMMIT_TURNS_MAX
from events.log_directory import create_log
from events.sqlite.threaded_sqlite import ThreadedShard
from events.store import Append, Committed, Conflict
from tests.fault.test_sqlite_faults import Failing

A = StreamId("thread/a")


def group(expected: int, text: str = "x") -> Append:
    event = NewEvent(type="said", payload=b'"' + text.encode() + b'"')
    return Append(stream=A, expected_version=Version(expected), command_id=None, events=[event])


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[ThreadedShard]:
    create_log(tmp_path / "log", 1)
    opened = ThreadedShard.open(tmp_path / "log", 0, worker="test")
    yield opened
    opened.close()


def versions(shard: ThreadedShard) -> list[int]:
    rows = shard.read(lambda connection: connection.execute("SELECT version FROM events ORDER BY position").fetchall()).result()
    return [row[0] for row in rows]


def limit_pages(shard: ThreadedShard, more: int | None) -> None:
    """So that SQLite itself says SQLITE_FULL after so many pages more."""

    def act(_: Any, connection: Any) -> None:
        pages = connection.execute("PRAGMA page_count").fetchall()[0][0]
        connection.execute(f"PRAGMA max_page_count = {1_000_000 if more is None else pages + more}").fetchall()

    shard.write(act).result()


def fail_once(shard: ThreadedShard, at: str, *, after: bool) -> None:
    failing: Any = Failing(shard._connection(), at, after=after, name="SQLITE_IOERR_FSYNC")

    def act(_: Any, connection: Any) -> None:
        shard._writing = failing

    shard.write(act).result()


@contextmanager
def held(shard: ThreadedShard) -> Iterator[None]:
    """Nothing is committed meanwhile: what is submitted waits."""
    go = threading.Event()
    shard.write(lambda *_: go.wait())
    try:
        yield
    finally:
        go.set()


def test_s18_a_full_file_refuses_the_append_whole_and_takes_it_when_there_is_room(shard: ThreadedShard) -> None:
    assert isinstance(shard.submit(group(0)).result(), Committed)
    limit_pages(shard, 2)
    with pytest.raises(LogFullError):
        shard.submit(group(1, "y" * 100_000)).result()
    assert versions(shard) == [1]
    limit_pages(shard, None)
    assert isinstance(shard.submit(group(1, "y" * 100_000)).result(), Committed)
    assert versions(shard) == [1, 2]


def test_s18_every_group_of_a_batch_that_found_no_room_is_told(shard: ThreadedShard) -> None:
    assert isinstance(shard.submit(group(0)).result(), Committed)
    limit_pages(shard, 2)
    held = threading.Event()
    shard.write(lambda *_: held.wait())
    both = [shard.submit(group(1, "y" * 100_000)), shard.submit(group(2))]
    held.set()
    for future in both:
        with pytest.raises(LogFullError):
            future.result()
    limit_pages(shard, None)
    assert isinstance(shard.submit(group(1)).result(), Committed)
    assert versions(shard) == [1, 2]


@pytest.mark.parametrize("after", [False, True])
def test_s18_a_commit_of_unknown_outcome_is_said_to_be_so_and_the_file_tells_which(shard: ThreadedShard, after: bool) -> None:
    assert isinstance(shard.submit(group(0)).result(), Committed)
    fail_once(shard, "COMMIT", after=after)
    with pytest.raises(AppendOutcomeUnknownError):
        shard.submit(group(1)).result()
    # A new connection: the old one is in doubt (F-17). What it left is what is there.
    expected = 2 if after else 1
    assert isinstance(shard.submit(group(expected)).result(), Committed)
    assert versions(shard) == list(range(1, expected + 2))


def test_s18_what_joined_a_group_is_recorded_with_it_or_not_at_all(shard: ThreadedShard) -> None:
    """And in its order; nothing joins a group that a commit has taken, or one that would be too large for a commit."""
    more = group(1, "y").events
    with held(shard):
        first = shard.submit(group(0))
        assert shard.join(first, more)
        assert not shard.join(first, [NewEvent(type="said", payload=b'"%s"' % (b"z" * COMMIT_BYTES_MAX))])
        assert shard.join(first, more)
    assert isinstance(first.result(), Committed)
    assert not shard.join(first, more)
    assert versions(shard) == [1, 2, 3]
    with held(shard):
        conflicting, behind = shard.submit(group(1)), shard.submit(group(3))
        assert shard.join(conflicting, more)
    assert isinstance(conflicting.result(), Conflict)
    assert isinstance(behind.result(), Committed)
    fail_once(shard, "COMMIT", after=False)
    with held(shard):
        lost = shard.submit(group(4))
        assert shard.join(lost, more)
    with pytest.raises(AppendOutcomeUnknownError):
        lost.result()
    assert versions(shard) == [1, 2, 3, 4]


def test_s12_a_commit_takes_no_more_than_its_limit_however_many_joined(shard: ThreadedShard) -> None:
    events = group(0).events
    with held(shard):
        first = shard.submit(group(0))
        joined = sum(shard.join(first, events) for _ in range(2 * COMMIT_TURNS_MAX))
        other = shard.submit(Append(stream=StreamId("thread/b"), expected_version=Version(0), command_id=None, events=events))
        before = shard.statistics()
    assert isinstance(first.result(), Committed)
    assert isinstance(other.result(), Committed)
    assert joined == COMMIT_TURNS_MAX - 1
    assert shard.statistics().commits == before.commits + 2
    assert versions(shard)[-1] == 1


@pytest.mark.parametrize("after", [False, True])
async def test_s18_a_checkpoint_whose_commit_was_in_doubt_is_stored_once(tmp_path: Path, after: bool) -> None:
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    async with EventLogSaver.open(tmp_path / "threads") as saver:
        await saver.aput(config, empty_checkpoint(), {"source": "input"}, {})
        fail_once(saver._threads.shard, "COMMIT", after=after)
        second = empty_checkpoint()
        await saver.aput(config, second, {"source": "loop"}, {})
        assert [each.checkpoint["id"] async for each in saver.alist(config, limit=1)] == [second["id"]]
    async with EventLogSaver.open(tmp_path / "threads") as saver:
        assert len([each async for each in saver.alist(config)]) == 2


async def test_s18_a_full_disk_refuses_a_checkpoint_and_the_thread_goes_on_when_there_is_room(tmp_path: Path) -> None:
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    large = {**empty_checkpoint(), "channel_values": {"text": "y" * 100_000}, "channel_versions": {"text": 1}}
    async with EventLogSaver.open(tmp_path / "threads") as saver:
        await saver.aput(config, empty_checkpoint(), {"source": "input"}, {})
        limit_pages(saver._threads.shard, 2)
        with pytest.raises(LogFullError):
            await saver.aput(config, large, {"source": "loop"}, {"text": 1})  # type: ignore[arg-type]
        assert len([each async for each in saver.alist(config)]) == 1
        limit_pages(saver._threads.shard, None)
        await saver.aput(config, large, {"source": "loop"}, {"text": 1})  # type: ignore[arg-type]
        found = await saver.aget_tuple(config)
        assert found is not None
        assert found.checkpoint["channel_values"]["text"] == "y" * 100_000


