"""The shards of one process commit one after another, and none of them waits long for another."""

import asyncio

import pytest

from events.commit_slot import SLOT_S, CommitSlot
from events.errors import CuebookError, TransientError
from events.group_commit import GroupCommit
from events.store import Committed, Outcome
from tests.support.logs import deposited, group
from tests.unit.events.test_group_commit import A, Bench, until


class Shards:
    """Two shards that share a slot, and what the second told of its groups."""

    def __init__(self) -> None:
        self.slot = CommitSlot()
        self.first, self.second = Bench(), Bench()
        for each in (self.first, self.second):
            each.commit = GroupCommit(each.store, each.spawn, slot=self.slot)

    async def take(self) -> "Shards":
        await self.first.store.take("w")
        await self.second.store.take("w")
        return self

    async def hold_up_the_first(self) -> None:
        self.first.store.gate.clear()
        self.first.submit("held up", group(A, 0, deposited()))
        await until(lambda: len(self.first.store.batches) == 1)


@pytest.fixture
async def shards() -> Shards:
    return await Shards().take()


async def test_what_comes_while_another_shard_commits_is_one_batch(shards: Shards) -> None:
    await shards.hold_up_the_first()
    for version in range(5):
        shards.second.submit(str(version), group(A, version, deposited()))
        await asyncio.sleep(0)
    assert shards.second.store.batches == []
    shards.first.store.gate.set()
    await shards.second.commit.drain()
    assert shards.second.store.batches == [(5, 0, 0)]
    assert all(isinstance(outcome, Committed) for _, outcome in shards.second.told)


async def test_a_shard_that_is_held_up_holds_up_no_other(shards: Shards) -> None:
    await shards.hold_up_the_first()
    shards.second.submit("on time", group(A, 0, deposited()))
    async with asyncio.timeout(1_000 * SLOT_S):
        await shards.second.commit.drain()
    assert [name for name, _ in shards.second.told] == ["on time"]
    assert shards.first.told == []
    shards.first.store.gate.set()
    await shards.first.commit.drain()
    async with shards.slot.held():  # let go of once, not twice: nobody else gets it now
        waiting = asyncio.get_running_loop().create_task(holding(shards.slot))
        await asyncio.sleep(0)
        assert not waiting.done()
    await waiting


async def holding(slot: CommitSlot) -> None:
    async with slot.held():
        pass


async def test_s18_a_worker_cancelled_while_it_waits_has_written_nothing(shards: Shards) -> None:
    await shards.hold_up_the_first()
    told: list[Outcome | CuebookError] = []
    shards.second.commit.submit(group(A, 0, deposited()), told.append)
    await until(lambda: len(shards.second.tasks) == 1)
    await asyncio.sleep(0)
    shards.second.tasks[0].cancel()
    await until(lambda: bool(told))
    assert isinstance(told[0], TransientError)
    assert shards.second.store.batches == []
    shards.first.store.gate.set()
    await shards.first.commit.drain()
    await holding(shards.slot)
