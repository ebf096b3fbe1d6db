"""A put that LangGraph has chained another put behind need not wait for its commit; every other put does (S38)."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.base import empty_checkpoint

from actors.graph import EventLogSaver
from events.errors import LogFullError
from events.keeping.verify import verify
from events.sqlite.writer_sqlite import ShardWriter


@pytest.fixture
async def saver(tmp_path: Path) -> AsyncIterator[EventLogSaver]:
    async with EventLogSaver.open(tmp_path / "threads") as saver:
        await saver.aput(at(None), {**empty_checkpoint(), "id": "0"}, {"source": "input"}, {})
        yield saver


def at(checkpoint_id: str | None) -> Any:
    return {"configurable": {"thread_id": "t", "checkpoint_ns": "", **({"checkpoint_id": checkpoint_id} if checkpoint_id else {})}}


@contextmanager
def nothing_commits(saver: EventLogSaver) -> Any:
    held = threading.Event()
    saver._threads.shard.write(lambda *_: held.wait())
    try:
        yield
    finally:
        held.set()


def put(saver: EventLogSaver, checkpoint_id: str, after: str) -> "asyncio.Task[Any]":
    checkpoint: Any = {**empty_checkpoint(), "id": checkpoint_id}
    return asyncio.get_running_loop().create_task(saver.aput(at(after), checkpoint, {"source": "loop"}, {}))


def wrote(saver: EventLogSaver, checkpoint_id: str) -> "asyncio.Task[Any]":
    return asyncio.get_running_loop().create_task(saver.aput_writes(at(checkpoint_id), [("c", checkpoint_id)], f"task-{checkpoint_id}"))


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_put_returns_once_writes_show_that_the_next_put_waits_for_it(saver: EventLogSaver) -> None:
    with nothing_commits(saver):
        first = put(saver, "1", "0")
        await settle()
        assert not first.done()
        writes = wrote(saver, "2")
        await first
        last = put(saver, "2", "1")
        await settle()
        assert not last.done()  # nothing follows it, so it answers for both
        assert not writes.done()
    await asyncio.gather(last, writes)
    found = [each.checkpoint["id"] async for each in saver.alist(at(None))]
    assert found == ["2", "1", "0"]


async def test_a_put_behind_which_nothing_can_wait_is_durable_when_it_returns(saver: EventLogSaver) -> None:
    """With durability "sync" LangGraph writes on a checkpoint only after its put; older ones have nothing to wait for either."""
    with nothing_commits(saver):
        first = put(saver, "5", "0")
        await settle()
        same, older = wrote(saver, "5"), wrote(saver, "0")
        never_put_but_older = wrote(saver, "4")
        await settle()
        assert not first.done()
    await asyncio.gather(first, same, older, never_put_but_older)


async def test_a_checkpoint_that_was_announced_lets_go_only_until_it_is_put(saver: EventLogSaver) -> None:
    await wrote(saver, "5")
    await put(saver, "5", "0")
    with nothing_commits(saver):
        copied_later = put(saver, "3", "0")
        await settle()
        assert not copied_later.done()
    await copied_later


async def test_the_failure_of_a_put_that_returned_early_is_told_to_the_next(saver: EventLogSaver, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = ShardWriter.commit

    def full(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(ShardWriter, "commit", commit)
        raise LogFullError("no space left")

    with nothing_commits(saver):
        first = put(saver, "1", "0")
        await settle()
        writes = wrote(saver, "2")
        await first
        monkeypatch.setattr(ShardWriter, "commit", full)
    with pytest.raises(LogFullError):
        await writes
    with pytest.raises(LogFullError):
        await put(saver, "2", "1")
    assert [each.checkpoint["id"] async for each in saver.alist(at(None))] == ["0"]
    await put(saver, "2", "0")  # told once; the thread can be written again


async def test_a_put_that_is_put_again_while_it_waits_ends_twice(saver: EventLogSaver) -> None:
    with nothing_commits(saver):
        both = [put(saver, "1", "0"), put(saver, "1", "0")]
        await settle()
        assert not any(each.done() for each in both)
    await asyncio.wait_for(asyncio.gather(*both), 10)


async def test_what_a_thread_writes_while_a_commit_runs_is_one_group(saver: EventLogSaver) -> None:
    before = saver.statistics()
    with nothing_commits(saver):
        tasks = [put(saver, "1", "0"), *(wrote(saver, str(number)) for number in range(2, 9))]
        await settle()
    await asyncio.gather(*tasks)
    after = saver.statistics()
    assert (after.commits - before.commits, after.groups - before.groups, after.events - before.events) == (1, 1, 8)
    assert verify(saver._threads.shard.path.parent) == []


async def test_what_was_written_last_is_not_held_in_memory(saver: EventLogSaver) -> None:
    await asyncio.gather(put(saver, "1", "0"), wrote(saver, "1"))
    assert [kept.pending for kept in saver._threads._kept.values()] == [None]
