"""`_cancel`: ahead of the mailbox, idempotent, the first of cancel and commit wins (S22)."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.errors import BadPayload, Cancelled, Unknown
from events.errors import LogFullError
from events.ids import StreamId
from events.store import Append
from runtime.local import LocalRuntime, local_runtime
from runtime.turns import commits
from tests.support.logs import events_of
from tests.unit.runtime.test_turns import APP, EFFECTS, crash


async def cancel(runtime: LocalRuntime, actor: str, command_id: str) -> Any:
    reply = await runtime.send(actor, "_cancel", msgspec.json.encode({"command_id": command_id}))
    if reply.error is not None:
        raise reply.error
    return msgspec.json.decode(reply.body)["status"]


class Held:
    """A step that waits until the test lets it go."""

    def __init__(self) -> None:
        self.reached, self.release = asyncio.Event(), asyncio.Event()
        self.calls = 0

    async def __call__(self, name: str) -> str:
        self.calls += 1
        self.reached.set()
        await self.release.wait()
        return name


async def test_cancelling_a_step_ends_the_turn_and_frees_the_mailbox(tmp_path: Path) -> None:
    held = EFFECTS["fetch"] = Held()
    async with local_runtime(APP, tmp_path) as runtime:
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(_outcome(runtime.ask("notes/a", "fetch", command_id="f", names=["x"])))
            await held.reached.wait()
            behind = group.create_task(runtime.ask("notes/a", "note", line="behind"))
            assert await cancel(runtime, "notes/a", "f") == "cancelled"
        assert isinstance(asked.result(), Cancelled)
        assert behind.result() == 1
        assert await runtime.ask("notes/a", "lines") == ["behind"]
        assert await cancel(runtime, "notes/a", "f") == "cancelled"
        with pytest.raises(Cancelled):
            await runtime.ask("notes/a", "fetch", command_id="f", names=["x"])
    assert [event.type for event in await events_of(tmp_path, "notes/a")] == [
        "turn.started", "step.started", "turn.cancelled", "notes.noted",
    ]  # fmt: skip
    assert held.calls == 1


async def _outcome(awaitable: Any) -> Any:
    try:
        return await awaitable
    except Cancelled as error:
        return error


async def test_a_cancelled_turn_does_not_run_again_after_a_crash(tmp_path: Path) -> None:
    held = EFFECTS["fetch"] = Held()
    async with local_runtime(APP, tmp_path) as runtime:
        async with asyncio.TaskGroup() as group:
            group.create_task(_outcome(runtime.ask("notes/a", "fetch", command_id="f", names=["x"])))
            await held.reached.wait()
            await cancel(runtime, "notes/a", "f")
        crash(runtime)
    async with local_runtime(APP, tmp_path) as runtime:
        assert await runtime.ask("notes/a", "lines") == []
    assert held.calls == 1


async def test_a_command_that_waits_in_the_mailbox_is_cancelled_without_a_trace(tmp_path: Path) -> None:
    held = EFFECTS["fetch"] = Held()
    async with local_runtime(APP, tmp_path) as runtime:
        async with asyncio.TaskGroup() as group:
            group.create_task(runtime.ask("notes/a", "fetch", command_id="f", names=["x"]))
            await held.reached.wait()
            waiting = group.create_task(_outcome(runtime.ask("notes/a", "note", command_id="n", line="never")))
            while not sum(shard.statistics().waiting for shard in runtime.shards):
                await asyncio.sleep(0)
            answer = group.create_task(cancel(runtime, "notes/a", "n"))
            await asyncio.sleep(0)
            held.release.set()
        assert isinstance(waiting.result(), Cancelled)
        assert answer.result() == "cancelled"
        assert await runtime.ask("notes/a", "lines") == ["before", "x"]


async def test_what_is_done_stays_done(tmp_path: Path) -> None:
    async with local_runtime(APP, tmp_path) as runtime:
        await runtime.ask("notes/a", "note", command_id="n", line="kept")
        assert await cancel(runtime, "notes/a", "n") == "done"
        assert await runtime.ask("notes/a", "lines") == ["kept"]


async def test_an_unknown_command_and_bad_arguments_are_told(tmp_path: Path) -> None:
    async with local_runtime(APP, tmp_path) as runtime:
        with pytest.raises(Unknown):
            await cancel(runtime, "notes/a", "nobody")
        reply = await runtime.send("notes/a", "_cancel", b'{"command": "x"}')
        assert isinstance(reply.error, BadPayload)


class SlowCommit:
    """The store of a shard whose commit of a given event type waits for `release`."""

    def __init__(self, runtime: LocalRuntime, actor: str, type_: str) -> None:
        store = runtime.shards[runtime.exchange.shard_of(StreamId(actor))].store
        self.reached, self.release = asyncio.Event(), asyncio.Event()
        self._type, self._commit = type_, store.commit
        store.commit = self.commit  # type: ignore[method-assign]

    async def commit(self, groups: Sequence[Append], *others: Any, **more: Any) -> Any:
        if any(event.type == self._type for group in groups for event in group.events):
            self.reached.set()
            await self.release.wait()
        return await self._commit(groups, *others, **more)


class FullDisk:
    """The store of a shard, whose disk is full until `room`."""

    def __init__(self, runtime: LocalRuntime, actor: str) -> None:
        store = runtime.shards[runtime.exchange.shard_of(StreamId(actor))].store
        self.room, self.refused = False, asyncio.Event()
        self._commit = store.commit
        store.commit = self.commit  # type: ignore[method-assign]

    async def commit(self, *given: Any, **more: Any) -> Any:
        if not self.room:
            self.refused.set()
            raise LogFullError("no space left")
        return await self._commit(*given, **more)


async def test_s22_a_cancel_on_a_full_disk_is_a_cancel_once_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S18: a full disk is waited out, also by what a turn has on its way into the log when it is cancelled; no handler has failed."""
    monkeypatch.setattr(commits, "FULL_RETRY_S", 0.01)
    held = EFFECTS["fetch"] = Held()
    async with local_runtime(APP, tmp_path) as runtime, asyncio.timeout(20), asyncio.TaskGroup() as group:
        asked = group.create_task(_outcome(runtime.ask("notes/a", "fetch", command_id="f", names=["x"])))
        await held.reached.wait()
        disk = FullDisk(runtime, "notes/a")
        held.release.set()
        await disk.refused.wait()
        cancelling = group.create_task(cancel(runtime, "notes/a", "f"))
        for _ in range(3):
            disk.refused.clear()
            await disk.refused.wait()
        disk.room = True
    assert isinstance(asked.result(), Cancelled)
    assert cancelling.result() == "cancelled"
    assert [event.type for event in await events_of(tmp_path, "notes/a")] == [
        "turn.started", "step.started", "step.completed", "turn.cancelled",
    ]  # fmt: skip


async def test_s22_a_cancel_that_comes_while_the_turn_is_being_opened_ends_it_before_its_first_step(tmp_path: Path) -> None:
    """What is on its way into the log cannot be taken back, and must not be lost either: the turn ends as soon as it stands there."""
    held = EFFECTS["fetch"] = Held()
    async with local_runtime(APP, tmp_path) as runtime:
        assert await runtime.ask("notes/a", "lines") == []
        slow = SlowCommit(runtime, "notes/a", "turn.started")
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            asked = group.create_task(_outcome(runtime.ask("notes/a", "fetch", command_id="f", names=["x"])))
            await slow.reached.wait()
            cancelling = group.create_task(cancel(runtime, "notes/a", "f"))
            behind = group.create_task(runtime.ask("notes/a", "note", line="behind"))
            while len(runtime.shards[runtime.exchange.shard_of(StreamId("notes/a"))].cells[StreamId("notes/a")].mailbox) == 0:
                await asyncio.sleep(0)
            assert not cancelling.done()
            slow.release.set()
        assert isinstance(asked.result(), Cancelled)
        assert (cancelling.result(), behind.result()) == ("cancelled", 1)
    assert [event.type for event in await events_of(tmp_path, "notes/a")] == [
        "turn.started", "step.started", "turn.cancelled", "notes.noted",
    ]  # fmt: skip
    assert held.calls == 0
