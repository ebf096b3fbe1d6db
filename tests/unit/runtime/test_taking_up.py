"""What a commit of unknown outcome wrote is taken up in order, and no turn runs again while its journal still grows (S18, I-14, I-16)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from events.envelope import NewEvent
from events.errors import CuebookError, LogFullError
from events.group_commit import GroupCommit, OnOutcome
from events.ids import StreamId
from events.in_memory.content_memory import Fault
from events.in_memory.store_memory import MemoryLog
from events.store import Append, Arrival, Committed, Conflict, InboxStatus, Outcome
from runtime.turns.commits import HeldCommits
from tests.support.logs import command, deposited, group
from tests.unit.runtime.test_doubt import A, Owner


@pytest.fixture
async def owner() -> AsyncIterator[Owner]:
    made = Owner(MemoryLog(1))
    yield made
    for shard in made.shards:
        await shard.drain(1.0)
    await made.tasks.cancel_all()


def told(n: int) -> Arrival:
    entry = command(A, f"t-{n}", InboxStatus.QUEUED, args=b'{"line":"%d"}' % n, method="note", source=f"notes/b#{n}")
    return Arrival(entry=entry, sender=StreamId("notes/b"), n=n, incarnation="i")


async def test_i16_what_comes_while_the_log_is_read_does_not_overtake_what_was_written(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulation seeds 496, 537: the first was written, its outcome unknown; the second came while the first was looked for."""
    shard = await owner.take()
    read = asyncio.Event()
    unfinished = shard.store.unfinished

    async def slow() -> Any:
        await read.wait()
        return await unfinished()

    monkeypatch.setattr(shard.store, "unfinished", slow)
    owner.log.inject(0, Fault.UNKNOWN_WRITTEN)
    with pytest.raises(CuebookError):
        await shard.accept([told(1)])
    await shard.accept([told(2)])
    read.set()
    async with asyncio.timeout(5):
        while len(owner.lines) < 2:
            await asyncio.sleep(0.01)
    assert owner.lines == ["1", "2"]


async def test_s18_a_read_that_fails_is_tried_again(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.turns.taking_up.FULL_RETRY_S", 0.01)
    shard = await owner.take()
    unfinished, failures = shard.store.unfinished, [CuebookError("not now"), CuebookError("nor now")]

    async def failing() -> Any:
        if failures:
            raise failures.pop()
        return await unfinished()

    monkeypatch.setattr(shard.store, "unfinished", failing)
    owner.log.inject(0, Fault.UNKNOWN_WRITTEN)
    with pytest.raises(CuebookError):
        await shard.accept([told(1)])
    async with asyncio.timeout(5):
        while not owner.lines:
            await asyncio.sleep(0.01)
    assert failures == []


class PlayedCommit(GroupCommit):
    """Ends what is submitted when and how the test says."""

    def __init__(self) -> None:
        self.submitted: list[tuple[Append, OnOutcome]] = []

    def submit(self, group: Append, on_outcome: OnOutcome) -> None:
        self.submitted.append((group, on_outcome))

    def end(self, outcome: Outcome | CuebookError) -> str:
        made, on_outcome = self.submitted.pop(0)
        on_outcome(outcome)
        return made.events[0].type


def done(version: int) -> Committed:
    return Committed(events=[], version=version, position=version, time=version)  # type: ignore[arg-type]


def result(name: str, version: int) -> Append:
    return group(A, version, NewEvent(type=name, payload=deposited().payload))


async def test_i14_results_that_met_a_full_disk_are_committed_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulation seed 1336: the second was tried again first, and conflicted; its step ran once more."""
    monkeypatch.setattr("runtime.turns.commits.FULL_RETRY_S", 0.0)
    commit, settled = PlayedCommit(), list[str]()
    held = HeldCommits(commit, lambda: settled.append("now"))
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(held.commit(result("one", 0)))
        second = tasks.create_task(held.commit(result("two", 1)))
        await asyncio.sleep(0)
        commit.end(LogFullError("full"))
        commit.end(Conflict(actual=0, reason="the first is not there"))  # type: ignore[arg-type]
        third = tasks.create_task(held.commit(result("three", 2)))
        await asyncio.sleep(0.01)
        assert (held.open, settled) == (3, [])
        assert [commit.end(done(version)) for version in (1, 2, 3)] == ["one", "two", "three"]
    assert [task.result() for task in (first, second, third)] == [done(1), done(2), done(3)]
    assert (held.open, settled) == (0, ["now"])


async def test_i14_a_result_whose_step_was_cancelled_is_still_open(monkeypatch: pytest.MonkeyPatch) -> None:
    commit, settled = PlayedCommit(), list[str]()
    held = HeldCommits(commit, lambda: settled.append("now"))
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(held.commit(result("one", 0)))
        await asyncio.sleep(0)
        first.cancel()
    assert (held.open, settled) == (1, [])
    commit.end(done(1))
    assert (held.open, settled) == (0, ["now"])
