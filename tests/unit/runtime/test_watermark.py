"""Up to where the merged order is final, by lock files and last events (S30). Live: tests/integration/test_watermark_live.py."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from events.clock import SystemClock
from events.in_memory.store_memory import MemoryLog, MemoryShard
from events.limits import STALL_AFTER_S
from events.selection import EVERYTHING
from events.store import LogReader
from runtime.ownership.lease import Lease, own_record
from runtime.ownership.survey import main_path
from runtime.past.inspection import verify_states
from runtime.past.log_service import LogService
from runtime.past.merging import last, merged
from runtime.past.reader_remote import RemoteLogReader
from runtime.past.watermark import FINAL, Cut, Watermark, cut, watermark_of, withheld
from tests.support.logs import START_US, ManualClock, SeededEntropy, append_one, deposited, stream_in

SHARDS = 2
A, B = stream_in(0, SHARDS, "a"), stream_in(1, SHARDS, "b")


class World:
    """Two shards in memory, and the lock files of their owners."""

    def __init__(self, data: Path) -> None:
        self.data, self.clock = data, ManualClock()
        self.log = MemoryLog(SHARDS, clock=self.clock, entropy=SeededEntropy())
        self.leases: dict[int, Lease] = {}
        self.versions = dict.fromkeys((A, B), 0)
        self.stores = [MemoryShard(self.log, shard) for shard in range(SHARDS)]
        (data / "log").mkdir(parents=True)

    def own(self, shard: int, floor: int = 0) -> Lease:
        lease = Lease.try_acquire(main_path(self.data, shard), own_record(f"w{shard}", "owner"))
        assert lease is not None
        lease.update(epoch=1)
        lease.note_floor(floor)
        self.leases[shard] = lease
        return lease

    async def record(self, shard: int, after_s: float) -> int:
        """One event in `shard`; its time."""
        self.clock.advance(after_s)
        stream = (A, B)[shard]
        outcome: Any = await append_one(self.stores[shard], stream, self.versions[stream], deposited())
        self.versions[stream] += 1
        return int(outcome.events[-1].time)

    async def look(self) -> Watermark:
        return await watermark_of(self.data, self.log.reader())

    async def cut(self, reader: LogReader | None = None, wait_s: float = 0.0) -> Cut:
        found = await cut(reader or self.log.reader(), self.look, wait_s=wait_s)
        assert found is not None
        return found


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    for store in made.stores:
        await store.take("w")
    yield made
    for lease in made.leases.values():
        lease.release()


async def test_s30_the_watermark_is_the_lowest_floor(world: World) -> None:
    """Of an owner: its last event or what it promised, whichever is later."""
    first, second = await world.record(0, 1), await world.record(1, 1)
    world.own(0, floor=second + 50)
    world.own(1, floor=second - 5)
    assert await world.look() == Watermark(time=second, shard=1, why="owned by w1")
    world.leases[1].note_floor(second + 99)
    assert await world.look() == Watermark(time=second + 50, shard=0, why="owned by w0")
    assert first < second


async def test_s30_a_shard_without_owner_holds_it_at_its_last_event(world: World) -> None:
    """Whatever its last owner promised: a floor of nobody is not raised any more."""
    first, second = await world.record(0, 1), await world.record(1, 1)
    world.own(1, floor=second + 50)
    assert await world.look() == Watermark(time=first, shard=0, why="no owner")
    world.own(0, floor=second + 70)
    world.leases[0].release()
    assert await world.look() == Watermark(time=first, shard=0, why="no owner")


async def test_s30_all_is_final_where_nothing_runs(world: World) -> None:
    await world.record(0, 1)
    assert await world.look() == FINAL
    world.own(0).release()
    assert await world.look() == FINAL
    assert await cut(world.log.reader(), world.look) is None


async def test_s30_a_stalled_owner_is_named(world: World) -> None:
    class Later(SystemClock):
        def monotonic(self) -> float:
            return super().monotonic() + STALL_AFTER_S + 1

    second = await world.record(1, 1)
    world.own(0, floor=17)
    world.own(1, floor=second)
    found = await watermark_of(world.data, world.log.reader(), clock=Later())
    assert found == Watermark(time=17, shard=0, why="w0 is stalled")


async def test_s30_the_merged_order_ends_at_the_watermark(world: World) -> None:
    world.own(0, floor=START_US)
    world.own(1)
    times = [await world.record(shard, 1) for shard in (0, 1, 0, 1, 1)]
    found = await world.cut()
    assert found.held
    assert found.watermark == Watermark(time=times[2], shard=0, why="owned by w0")
    reader = world.log.reader()
    assert [event.time async for event in merged(reader, upto=found.positions)] == times[:3]
    assert [event.time for event in await last(reader, limit=2, upto=found.positions)] == times[1:3]
    assert await withheld(reader, EVERYTHING, found.positions) == 2
    checks = [check async for check in verify_states(reader, None, upto=found.positions)]
    assert {check.stream for check in checks} == {A, B}
    world.leases[0].note_floor(times[-1])
    found = await world.cut()
    assert not found.held
    assert [event.time async for event in merged(reader, upto=found.positions)] == times


async def test_s30_a_reader_waits_until_what_was_there_is_final(world: World) -> None:
    """And no longer: what is recorded while it waits is not waited for."""
    world.own(0, floor=START_US)
    world.own(1)
    time = await world.record(1, 1)
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(world.cut(wait_s=60))
        await asyncio.sleep(0)
        later = await world.record(1, 1)
        world.leases[0].note_floor(time)
    assert not reading.result().held
    assert reading.result().positions == {0: 0, 1: 1}
    assert time < later


@asynccontextmanager
async def remote_of(world: World) -> AsyncIterator[RemoteLogReader]:
    service = LogService(world.log.reader(), None, data=world.data)

    async def ask(operation: str, /, *, timeout_s: float, **arguments: Any) -> Any:
        return msgspec.json.decode(await service.handle(operation, msgspec.json.encode(arguments)))

    yield await RemoteLogReader.open(ask)


async def test_s30_cue_log_head_tells_the_watermark(world: World) -> None:
    times = [await world.record(shard, 1) for shard in (0, 1, 1)]
    async with remote_of(world) as remote:
        assert await remote.watermark() == FINAL
        world.own(1)
        assert await remote.watermark() == Watermark(time=times[0], shard=0, why="no owner")
        found = await cut(remote, remote.watermark, wait_s=0.0)
        assert found is not None
        assert found.held
        assert [event.time async for event in merged(remote, upto=found.positions)] == times[:1]
