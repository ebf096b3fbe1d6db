"""Mailboxes fill from the inbox: a slow actor holds up nobody and costs a bounded memory (S11, S25, F-14, I-17)."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from actors import Actor, Event, State, command, query
from events.codec import args_hash
from events.ids import CommandId, StreamId, stream_id
from events.limits import STORED_LOADED_MAX
from events.store import Arrival, InboxEntry, InboxStatus
from runtime.app import App
from runtime.local import LocalRuntime, local_runtime


class Seen(State):
    numbers: list[int] = []


class Took(Event[Seen], tag="backlog.took"):
    number: int

    def apply(self, state: Seen) -> None:
        state.numbers.append(self.number)


GATE = asyncio.Event()


class SlowActor(Actor[Seen], name="backlog"):
    @command
    async def take(self, number: int) -> None:
        self.emit(Took(number=number))

    @command
    async def wait_here(self) -> None:
        await self.step("wait", GATE.wait)

    @query
    def numbers(self) -> list[int]:
        return self.state.numbers


APP = App(actors=[SlowActor], version="test")


def in_one_shard(count: int, runtime: LocalRuntime) -> list[StreamId]:
    found: Iterator[StreamId] = (stream_id("backlog", f"a{n}") for n in range(10_000))
    return [stream for stream in found if runtime.exchange.shard_of(stream) == 0][:count]


async def tell(runtime: LocalRuntime, stream: StreamId, numbers: range) -> None:
    arrivals = []
    for number in numbers:
        args = msgspec.json.encode({"number": number})
        entry = InboxEntry(
            stream=stream, command_id=CommandId(f"t{number}"), method="take", args_hash=args_hash("take", args), status=InboxStatus.QUEUED,
            args=args, source=f"js:t:{number}", received_at_us=1,
        )  # fmt: skip
        arrivals.append(Arrival(entry=entry))
    await runtime.shards[0].accept(arrivals)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(40):
        while not await condition():
            await asyncio.sleep(0.005)


async def test_s11_a_slow_actor_keeps_its_tells_in_the_inbox_and_nobody_else_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    GATE.clear()
    monkeypatch.setattr("runtime.backlog.STORED_PER_SHARD_MAX", STORED_LOADED_MAX + 50)
    async with local_runtime(APP, tmp_path) as runtime:
        slow, other = in_one_shard(2, runtime)
        shard = runtime.shards[0]
        held = asyncio.get_running_loop().create_task(runtime.ask(slow, "wait_here"))
        while "step.started" not in [event.type for event in (await shard.store.load(slow, ""))[1]]:
            await asyncio.sleep(0.005)
        for start in range(0, 1_200, 200):
            await tell(runtime, slow, range(start, start + 200))
            assert shard.cells[slow].mailbox.stored <= STORED_LOADED_MAX
        assert shard.statistics().tells_queued <= STORED_LOADED_MAX
        assert len(await shard.store.unfinished()) == 1_201

        async def others_done() -> bool:
            return list(await runtime.ask(other, "numbers")) == list(range(100))

        await tell(runtime, other, range(100))
        await until(others_done)
        GATE.set()
        await held

        async def done() -> bool:
            return len(await runtime.ask(slow, "numbers")) == 1_200

        await until(done)
        assert await runtime.ask(slow, "numbers") == list(range(1_200))
        assert (shard.statistics().tells_queued, len(shard.backlog), await shard.store.unfinished()) == (0, 0, [])


async def test_a_backlog_over_many_actors_is_bounded_per_shard_and_done_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.backlog.STORED_PER_SHARD_MAX", 100)
    async with local_runtime(APP, tmp_path) as runtime:
        streams = in_one_shard(10, runtime)
        shard = runtime.shards[0]
        most = 0
        for stream in streams:
            await tell(runtime, stream, range(90))
            most = max(most, shard.tells)
        assert most <= 100 + STORED_LOADED_MAX

        async def done() -> bool:
            return [len(await runtime.ask(stream, "numbers")) for stream in streams] == [90] * 10

        await until(done)
        for stream in streams:
            assert await runtime.ask(stream, "numbers") == list(range(90))
        assert (shard.tells, len(shard.backlog)) == (0, 0)


async def test_a_backlog_that_was_left_is_taken_up_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    GATE.clear()
    async with local_runtime(APP, tmp_path) as runtime:
        (slow,) = in_one_shard(1, runtime)
        held = asyncio.get_running_loop().create_task(runtime.ask(slow, "wait_here"))
        await tell(runtime, slow, range(700))
        held.cancel()
        for shard in runtime.shards:
            shard.abandon()
    GATE.set()
    async with local_runtime(APP, tmp_path) as runtime:

        async def done() -> bool:
            return len(await runtime.ask(slow, "numbers")) == 700

        await until(done)
        assert await runtime.ask(slow, "numbers") == list(range(700))
