"""A command that its caller may repeat ends once: also if it was refused, failed or was cancelled (S24)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from actors.errors import Cancelled, HandlerFailed, LogFull, Rejected
from actors.turn import Command
from events.ids import Version
from events.in_memory.content_memory import Fault
from events.in_memory.store_memory import MemoryLog, MemoryShard
from events.store import Append, Conflict, InboxStatus, Outcome
from runtime.exchange import Reply
from runtime.shard import Shard
from tests.unit.runtime.test_doubt import Owner
from tests.unit.runtime.test_turns import EFFECTS


@pytest.fixture
async def owner() -> AsyncIterator[Owner]:
    made = Owner(MemoryLog(1))
    yield made
    for shard in made.shards:
        await shard.drain(1.0)
    await made.tasks.cancel_all()


async def ask(owner: Owner, shard: Shard, method: str, id: str, /, *, explicit: bool = True, **arguments: Any) -> Reply:
    command: Command = msgspec.structs.replace(owner.command("", id, explicit=explicit), method=method, args=msgspec.json.encode(arguments))
    reply = await owner.ask(shard, command)
    assert reply is not None
    return reply


async def test_s24_a_refusal_of_a_chosen_id_is_what_every_later_attempt_hears_though_it_would_be_done_now(owner: Owner) -> None:
    """Else an attempt that was held up somewhere is executed after its caller was told that it was not."""
    shard = await owner.take()
    first = await ask(owner, shard, "refuse_while_empty", "c-1", line="late")
    await ask(owner, shard, "note", "c-2", line="some")
    again = await ask(owner, await owner.take(), "refuse_while_empty", "c-1", line="late")
    assert isinstance(first.error, Rejected)
    assert isinstance(again.error, Rejected)
    assert again.error.message == first.error.message
    assert owner.lines == ["some"]
    assert owner.log.content(0).inbox["c-1", "notes/a"].status is InboxStatus.REFUSED


async def test_s24_a_refusal_of_a_made_up_id_leaves_no_trace(owner: Owner) -> None:
    shard = await owner.take()
    assert isinstance((await ask(owner, shard, "refuse_while_empty", "c-1", explicit=False, line="x")).error, Rejected)
    assert owner.log.content(0).inbox == {}
    assert owner.log.content(0).events == []


async def test_s24_a_failure_of_a_chosen_id_is_recorded_once_and_remembered(owner: Owner) -> None:
    shard = await owner.take()
    for _ in range(2):
        assert isinstance((await ask(owner, shard, "note_then_fail", "c-1", line="x")).error, HandlerFailed)
    assert [event.type for event in owner.log.content(0).events] == ["turn.failed"]


async def test_s24_a_refusal_waits_for_its_commit_and_a_full_disk_is_told_instead(owner: Owner) -> None:
    shard = await owner.take()
    owner.log.inject(0, Fault.FULL)
    assert isinstance((await ask(owner, shard, "refuse_while_empty", "c-1", line="x")).error, LogFull)
    assert isinstance((await ask(owner, shard, "refuse_while_empty", "c-1", line="x")).error, Rejected)


@pytest.mark.parametrize("fault", [Fault.UNKNOWN_WRITTEN, Fault.UNKNOWN_LOST])
async def test_s18_a_refusal_with_an_unknown_outcome_is_looked_up(owner: Owner, fault: Fault) -> None:
    shard = await owner.take()
    owner.log.inject(0, fault)
    assert isinstance((await ask(owner, shard, "refuse_while_empty", "c-1", line="x")).error, Rejected)
    assert owner.log.content(0).inbox["c-1", "notes/a"].status is InboxStatus.REFUSED


async def test_s18_a_turn_upon_one_that_was_done_before_is_decided_again_though_its_own_outcome_was_unknown(owner: Owner) -> None:
    """Its conflict comes of the repeat before it, so it is no attempt of its own: it is done, and its caller is told no 500 or 520."""
    shard = await owner.take()
    await ask(owner, shard, "note", "c-1", line="first")
    owner.log.inject(0, Fault.UNKNOWN_LOST)
    replies = await asyncio.gather(ask(owner, shard, "note", "c-1", line="first"), ask(owner, shard, "note", "c-2", line="second"))
    assert [reply.body for reply in replies] == [b"1", b"2"]
    assert owner.lines == ["first", "second"]


async def test_s24_a_turn_that_can_never_be_appended_fails_for_every_later_attempt(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its caller was told 500, so that none of the attempts which are still on their way may be done."""
    shard = await owner.take()
    decide = MemoryShard._decide

    def refusing(store: MemoryShard, group: Append) -> Outcome:
        return Conflict(actual=Version(0), reason="it cannot be stored") if group.events else decide(store, group)

    with monkeypatch.context() as patch:
        patch.setattr(MemoryShard, "_decide", refusing)
        assert isinstance((await ask(owner, shard, "note", "c-1", line="x")).error, HandlerFailed)
    again = await ask(owner, shard, "note", "c-1", line="x")
    assert isinstance(again.error, HandlerFailed)
    assert "cannot be stored" in again.error.message
    assert owner.lines == []
    assert owner.log.content(0).inbox["c-1", "notes/a"].status is InboxStatus.FAILED
    assert (await ask(owner, shard, "note", "c-2", line="y")).body == b"1"


async def test_s22_a_cancelled_command_is_cancelled_for_every_later_attempt(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = await owner.take()
    finish = asyncio.Event()

    async def slow(value: str) -> str:
        await finish.wait()
        return value

    monkeypatch.setitem(EFFECTS, "fetch", slow)
    async with asyncio.TaskGroup() as group:
        holds = group.create_task(ask(owner, shard, "fetch", "c-0", names=["a"]))
        await asyncio.sleep(0.01)
        waits = group.create_task(ask(owner, shard, "note", "c-1", line="x"))
        await asyncio.sleep(0.01)
        cancel = group.create_task(ask(owner, shard, "_cancel", "c-2", command_id="c-1"))
        await asyncio.sleep(0.01)
        finish.set()
    assert holds.result().error is None
    assert cancel.result().body == b'{"status":"cancelled"}'
    assert isinstance(waits.result().error, Cancelled)
    assert isinstance((await ask(owner, shard, "note", "c-1", line="x")).error, Cancelled)
    assert owner.lines == ["before", "a"]
