"""A wait that an append of unknown outcome has opened: whenever it ends, its turn goes on, and once only (S18, S20)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from actors.errors import Waiting
from actors.turn import Command
from events.clock import SystemClock
from events.ids import CommandId, StreamId
from events.in_memory.content_memory import Fault
from events.in_memory.store_memory import MemoryLog
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
