"""A wait that an append of unknown outcome has opened: whenever it ends, its turn goes on, and once only (S18, S20)."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest

from actors.errors import Cancelled, Waiting
from actors.turn import Command
from events.appending import OPEN_STATUSES
from events.clock import SystemClock
from events.ids import CommandId, StreamId
from events.in_memory.content_memory import Fault
from events.in_memory.store_memory import MemoryLog
from events.store import Append
from runtime.cell import Cell
from runtime.turns import reopening
from tests.support import desk
from tests.unit.runtime import test_doubt
from tests.unit.runtime.test_doubt import Owner

DESK = StreamId("desk/a")
TYPES = ["turn.started", "desk.written", "wait.opened", "wait.expired", "desk.written", "turn.completed"]


@pytest.fixture
async def owner(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Owner]:
    monkeypatch.setattr(test_doubt, "APP", desk.APP)
    made = Owner(MemoryLog(1))
    yield made
    for shard in made.shards:
        await shard.drain(1.0)
    await made.tasks.cancel_all()


def sign(within_s: float) -> Command:
    now_us = SystemClock().wall_us()
    return Command(
        stream=DESK, method="sign", args=msgspec.json.encode({"paper": "p", "within_s": within_s}), command_id=CommandId("c-1"),
        explicit=True, received_at_us=now_us, deadline_ms=now_us // 1_000 + 10_000, patient=True,
    )  # fmt: skip


async def test_s18_a_turn_goes_on_whose_wait_ended_after_its_journal_was_read(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes to a wait that is open in what it has read, and nowhere else: it must not be let go, because nobody else has it."""
    shard = await owner.take()
    read = reopening._read

    async def slowly(cell: Cell, command_id: str) -> Any:
        found = await read(cell, command_id)
        while not any(event.type == "wait.expired" for event in owner.log.content(0).events) or shard.waits.known():
            await asyncio.sleep(0.001)
        return found

    monkeypatch.setattr(reopening, "_read", slowly)
    owner.log.inject(0, Fault.UNKNOWN_WRITTEN)
    reply = await owner.ask(shard, sign(0.05))
    assert reply is not None
    assert reply.body == b'"p: nobody"'
    assert [event.type for event in owner.log.content(0).events] == TYPES


async def test_s20_a_turn_whose_wait_was_taken_up_before_it_runs_again_is_let_go(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = await owner.take()
    read = reopening._read

    async def slowly(cell: Cell, command_id: str) -> Any:
        found = await read(cell, command_id)
        while not shard.waits.known() and not any(event.type == "wait.expired" for event in owner.log.content(0).events):
            await asyncio.sleep(0.001)
        return found

    monkeypatch.setattr(reopening, "_read", slowly)
    owner.log.inject(0, Fault.UNKNOWN_WRITTEN)
    first = await owner.ask(shard, sign(0.5))
    assert first is not None
    assert isinstance(first.error, Waiting)
    reply = await owner.ask(shard, sign(0.5))
    assert reply is not None
    assert reply.body == b'"p: nobody"'
    assert [event.type for event in owner.log.content(0).events] == TYPES


@pytest.mark.parametrize("fault", [None, Fault.UNKNOWN_WRITTEN, Fault.UNKNOWN_LOST])
async def test_s22_a_cancel_that_comes_while_a_wait_is_being_opened_ends_the_wait(
    owner: Owner, monkeypatch: pytest.MonkeyPatch, fault: Fault | None
) -> None:
    """Else its row and its timer stand for ever, of a turn that has ended: simulation, seed 2489."""
    shard = await owner.take()
    reached, release = asyncio.Event(), asyncio.Event()
    commit = shard.store.commit

    async def slowly(groups: Sequence[Append], *others: Any, **more: Any) -> Any:
        if any(event.type == "wait.opened" for group in groups for event in group.events) and not reached.is_set():
            reached.set()
            await release.wait()
            if fault is not None:
                owner.log.inject(0, fault)
        return await commit(groups, *others, **more)

    monkeypatch.setattr(shard.store, "commit", slowly)
    cancel = msgspec.structs.replace(sign(60.0), method="_cancel", args=b'{"command_id":"c-1"}', command_id=CommandId("c-2"))
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        asked = group.create_task(owner.ask(shard, sign(60.0)))
        await reached.wait()
        cancelled = group.create_task(owner.ask(shard, cancel))
        await asyncio.sleep(0)
        release.set()
    first, told = asked.result(), cancelled.result()
    assert first is not None
    assert isinstance(first.error, Cancelled)
    assert told is not None
    assert told.body == b'{"status":"cancelled"}'
    again = await owner.ask(shard, sign(60.0))
    assert again is not None
    assert isinstance(again.error, Cancelled)
    assert (list(await shard.store.waits()), list(await shard.store.timers()), shard.waits.known()) == ([], [], set())
    ends = [event.type for event in owner.log.content(0).events if event.type == "turn.cancelled"]
    assert len(ends) <= 1
    assert not any(entry.status in OPEN_STATUSES for entry in owner.log.content(0).inbox.values())
