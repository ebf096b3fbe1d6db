"""Turns against a real log in one process: S14 to S19, S24, I-7, I-8."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors import Actor, Event, Rejected, State, StepFailed, command, query
from actors.errors import BadPayload, CallCycle, HandlerFailed, IdReused, Overloaded
from events.ids import stream_id
from events.limits import MAILBOX_MAX
from events.sqlite.reader_sqlite import SqliteLogReader
from runtime.app import App
from runtime.local import LocalRuntime, local_runtime
from tests.support.logs import events_of


class Notes(State):
    lines: list[str] = []


class Noted(Event[Notes], tag="notes.noted"):
    line: str

    def apply(self, state: Notes) -> None:
        state.lines.append(self.line)


EFFECTS: dict[str, Callable[..., Awaitable[Any]]] = {}
"""What the steps of a test do; by name, because the actor class outlives the test."""


async def effect(name: str, value: str) -> str:
    result: str = await EFFECTS[name](value)
    return result


class NotesActor(Actor[Notes], name="notes"):
    @command
    async def note(self, line: str) -> int:
        self.emit(Noted(line=line))
        return len(self.state.lines)

    @command
    async def note_then_refuse(self, line: str) -> None:
        self.emit(Noted(line=line))
        raise Rejected("changed my mind", line=line)

    @command
    async def refuse_while_empty(self, line: str) -> int:
        if not self.state.lines:
            raise Rejected("nothing is noted yet")
        self.emit(Noted(line=line))
        return len(self.state.lines)

    @command
    async def note_then_fail(self, line: str) -> None:
        self.emit(Noted(line=line))
        raise ZeroDivisionError("oh")

    @command
    async def fetch(self, names: list[str]) -> list[str]:
        self.emit(Noted(line="before"))
        found = [await self.step("fetch", effect, "fetch", name) for name in names]
        for line in found:
            self.emit(Noted(line=line))
        return found

    @command
    async def fetch_together(self, names: list[str]) -> list[str]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.step("fetch", effect, "fetch", name, key=name)) for name in names]
        return [task.result() for task in tasks]

    @command
    async def try_fetch(self) -> str:
        try:
            return await self.step("fetch", effect, "fetch", "x")
        except StepFailed as error:
            return f"failed: {error.fields['type']}"

    @command
    async def ask_on(self, to: str, line: str) -> int:
        count: int = await self.ref(NotesActor, to).note(line=line)
        return count

    @command
    async def ask_round(self, to: list[str]) -> str:
        if not to:
            return "end"
        answer: str = await self.ref(NotesActor, to[0]).ask_round(to=to[1:])
        return answer

    @command
    async def tell_on(self, to: str, lines: list[str]) -> None:
        for line in lines:
            self.ref(NotesActor, to).tell.note(line=line)

    @command
    async def draw(self) -> list[Any]:
        first = [self.random(), self.new_id(), self.now().isoformat()]
        await self.step("fetch", effect, "fetch", "x")
        return [*first, self.random(), self.new_id()]

    @query
    def lines(self) -> list[str]:
        return self.state.lines


APP = App(actors=[NotesActor], version="test")


def crash(runtime: LocalRuntime) -> None:
    """Nothing more is answered or written by this runtime, as if its process were gone."""
    for shard in runtime.shards:
        shard.abandon()


async def test_turns_of_one_actor_share_commits_and_are_decided_in_order(tmp_path: Path) -> None:
    """S14: the second command is decided on what the first left uncommitted."""
    async with local_runtime(APP, tmp_path) as runtime:
        counts = await _together(runtime.ask("notes/a", "note", line=str(number)) for number in range(200))
        assert counts == list(range(1, 201))
        assert await runtime.ask("notes/a", "lines") == [str(number) for number in range(200)]
        commits = sum(shard.statistics().commits for shard in runtime.shards)
        assert commits < 50


async def _together(awaitables: Any) -> list[Any]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(awaitable) for awaitable in awaitables]
    return [task.result() for task in tasks]


async def test_a_refused_or_failed_turn_leaves_the_state_as_it_was(tmp_path: Path) -> None:
    async with local_runtime(APP, tmp_path) as runtime:
        await runtime.ask("notes/a", "note", line="kept")
        with pytest.raises(Rejected) as refusal:
            await runtime.ask("notes/a", "note_then_refuse", line="dropped")
        assert refusal.value.fields == {"line": "dropped"}
        with pytest.raises(HandlerFailed) as failure:
            await runtime.ask("notes/a", "note_then_fail", line="dropped")
        assert await runtime.ask("notes/a", "lines") == ["kept"]
        assert await runtime.ask("notes/a", "note", line="next") == 2
    recorded = await events_of(tmp_path, "notes/a")
    assert [event.type for event in recorded] == ["notes.noted", "turn.failed", "notes.noted"]
    assert recorded[1].event_id == failure.value.fields["event_id"]


async def test_the_same_id_gives_the_same_reply_and_one_effect(tmp_path: Path) -> None:
    """S24, I-7: while under way, afterwards, and after a restart."""
    async with local_runtime(APP, tmp_path) as runtime:
        replies = await _together(runtime.ask("notes/a", "note", command_id="once", line="x") for _ in range(5))
        assert replies == [1] * 5
        await runtime.ask("notes/a", "note", line="y")
        assert await runtime.ask("notes/a", "note", command_id="once", line="x") == 1
        with pytest.raises(IdReused):
            await runtime.ask("notes/a", "note", command_id="once", line="other")
    async with local_runtime(APP, tmp_path) as runtime:
        assert await runtime.ask("notes/a", "note", command_id="once", line="x") == 1
        assert await runtime.ask("notes/a", "lines") == ["x", "y"]


async def test_commands_behind_a_repeated_id_are_decided_again_without_loss(tmp_path: Path) -> None:
    """S18: what was speculated upon a repeat is dropped and decided again, in order."""
    async with local_runtime(APP, tmp_path) as runtime:
        await runtime.ask("notes/a", "note", command_id="first", line="0")
        async with asyncio.TaskGroup() as group:
            repeat = group.create_task(runtime.ask("notes/a", "note", command_id="first", line="0"))
            later = [group.create_task(runtime.ask("notes/a", "note", line=str(number))) for number in range(1, 20)]
        assert repeat.result() == 1
        assert [task.result() for task in later] == list(range(2, 21))
        assert await runtime.ask("notes/a", "lines") == [str(number) for number in range(20)]


async def test_a_finished_step_is_not_repeated_after_a_crash(tmp_path: Path) -> None:
    """S15, S19, F-4: the turn runs again, takes recorded results, and continues at the first unfinished step."""
    done: list[str] = []
    reached = asyncio.Event()

    async def fetch(name: str) -> str:
        if name == "b" and "b" not in done:
            done.append("b")
            reached.set()
            await asyncio.Event().wait()
        done.append(name)
        return name.upper()

    EFFECTS["fetch"] = fetch
    async with local_runtime(APP, tmp_path) as runtime:
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(runtime.ask("notes/a", "fetch", command_id="f", names=["a", "b", "c"]))
            await reached.wait()
            asked.cancel()
        crash(runtime)
    async with local_runtime(APP, tmp_path) as runtime:
        assert await runtime.ask("notes/a", "fetch", command_id="f", names=["a", "b", "c"]) == ["A", "B", "C"]
        assert await runtime.ask("notes/a", "lines") == ["before", "A", "B", "C"]
    assert done == ["a", "b", "b", "c"]
    types = [event.type for event in await events_of(tmp_path, "notes/a")]
    assert types.count("turn.started") == 1
    assert types.count("step.completed") == 3
    assert types[-1] == "turn.completed"


async def test_concurrent_steps_are_matched_by_key_after_a_crash(tmp_path: Path) -> None:
    """S19: by (kind, name, key, n-th use), not by arrival."""
    done: list[str] = []
    release = asyncio.Event()
    reached = asyncio.Event()

    async def fetch(name: str) -> str:
        if name == "slow" and not release.is_set():
            await asyncio.Event().wait()
        done.append(name)
        if len(done) == 2:
            reached.set()
        return name.upper()

    EFFECTS["fetch"] = fetch
    names = ["slow", "x", "y"]
    async with local_runtime(APP, tmp_path) as runtime:
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(runtime.ask("notes/a", "fetch_together", command_id="f", names=names))
            await reached.wait()
            # Wait until both results stand in the log: the state of an open turn is what the log says.
            while [event.type for event in await events_of(tmp_path, "notes/a")].count("step.completed") < 2:
                await asyncio.sleep(0)
            asked.cancel()
        crash(runtime)
    release.set()
    async with local_runtime(APP, tmp_path) as runtime:
        assert await runtime.ask("notes/a", "fetch_together", command_id="f", names=names) == ["SLOW", "X", "Y"]
    assert sorted(done) == ["slow", "x", "y"]


async def test_now_random_and_new_id_repeat_on_a_rerun(tmp_path: Path) -> None:
    """S15: from the recorded seed and the recorded times."""
    calls = 0
    reached = asyncio.Event()

    async def fetch(name: str) -> str:
        nonlocal calls
        calls += 1
        if calls == 1:
            reached.set()
            await asyncio.Event().wait()
        return name

    EFFECTS["fetch"] = fetch
    async with local_runtime(APP, tmp_path) as runtime:
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(runtime.ask("notes/a", "draw", command_id="d"))
            await reached.wait()
            asked.cancel()
        crash(runtime)
    started = msgspec.json.decode((await events_of(tmp_path, "notes/a"))[0].payload)
    async with local_runtime(APP, tmp_path) as runtime:
        drawn = await runtime.ask("notes/a", "draw", command_id="d")
    from actors.journal import derived_id

    assert drawn[1] == derived_id(started["seed"], 1)
    assert drawn[4] == derived_id(started["seed"], 2)
    assert drawn[0] != drawn[3]


async def test_a_failed_step_is_recorded_as_the_handler_saw_it(tmp_path: Path) -> None:
    async def fetch(name: str) -> str:
        raise OSError("no network")

    EFFECTS["fetch"] = fetch
    async with local_runtime(APP, tmp_path) as runtime:
        assert await runtime.ask("notes/a", "try_fetch") == "failed: OSError"
    assert [event.type for event in await events_of(tmp_path, "notes/a")] == [
        "turn.started", "step.started", "step.failed", "turn.completed",
    ]  # fmt: skip


async def test_queries_beside_a_step_see_only_what_is_committed(tmp_path: Path) -> None:
    """S17: a turn that waits for a step does not hold up queries, and they do not see its uncommitted state."""
    reached, release = asyncio.Event(), asyncio.Event()

    async def fetch(name: str) -> str:
        reached.set()
        await release.wait()
        return name

    EFFECTS["fetch"] = fetch
    async with local_runtime(APP, tmp_path) as runtime:
        await runtime.ask("notes/a", "note", line="first")
        async with asyncio.TaskGroup() as group:
            turn = group.create_task(runtime.ask("notes/a", "fetch", names=["a"]))
            await reached.wait()
            assert await runtime.ask("notes/a", "lines") == ["first"]
            release.set()
        assert turn.result() == ["a"]
        assert await runtime.ask("notes/a", "lines") == ["first", "before", "a"]


async def test_asks_and_tells_between_actors_leave_a_chain_of_causes(tmp_path: Path) -> None:
    async with local_runtime(APP, tmp_path) as runtime:
        assert await runtime.ask("notes/a", "ask_on", command_id="root", to="b", line="asked") == 1
        await runtime.ask("notes/a", "tell_on", command_id="told", to="c", lines=["1", "2", "3"])
        async with asyncio.timeout(10):
            while await runtime.ask("notes/c", "lines") != ["1", "2", "3"]:
                await asyncio.sleep(0)
    (noted,) = await events_of(tmp_path, "notes/b")
    assert (noted.sender, noted.causation_id, noted.correlation_id) == ("notes/a", "root", "root")
    told = await events_of(tmp_path, "notes/c")
    assert {(event.sender, event.causation_id, event.correlation_id) for event in told} == {("notes/a", "told", "told")}
    sent = [event for event in await events_of(tmp_path, "notes/a") if event.type == "message.sent"]
    assert [msgspec.json.decode(event.payload)["command_id"] for event in sent] == [event.command_id for event in told]


async def test_a_cyclic_ask_is_refused_with_its_path(tmp_path: Path) -> None:
    """S23: the callee stands in the chain already."""
    async with local_runtime(APP, tmp_path) as runtime:
        assert await runtime.ask("notes/a", "ask_round", to=["b", "c"]) == "end"
        with pytest.raises(CallCycle) as cycle:
            await runtime.ask("notes/a", "ask_round", to=["b", "a"])
    assert cycle.value.fields["path"] == ["notes/a", "notes/b", "notes/a"]


async def test_a_full_mailbox_answers_429_and_loses_nothing(tmp_path: Path) -> None:
    reached, release = asyncio.Event(), asyncio.Event()

    async def fetch(name: str) -> str:
        reached.set()
        await release.wait()
        return name

    EFFECTS["fetch"] = fetch
    async with local_runtime(APP, tmp_path) as runtime:
        async with asyncio.TaskGroup() as group:
            group.create_task(runtime.ask("notes/a", "fetch", names=["a"]))
            await reached.wait()
            waiting = [group.create_task(runtime.ask("notes/a", "note", line="x")) for _ in range(MAILBOX_MAX)]
            while sum(shard.statistics().waiting for shard in runtime.shards) < MAILBOX_MAX:
                await asyncio.sleep(0)
            with pytest.raises(Overloaded) as full:
                await runtime.ask("notes/a", "note", line="one too many")
            release.set()
        assert full.value.fields["retry_after_ms"] > 0
        assert len([task.result() for task in waiting]) == MAILBOX_MAX
        assert len(await runtime.ask("notes/a", "lines")) == MAILBOX_MAX + 2


async def test_a_snapshot_never_changes_an_answer(tmp_path: Path) -> None:
    """I-8: recovery with the newest snapshot equals recovery from the first event."""
    async with local_runtime(APP, tmp_path) as runtime:
        await _together(runtime.ask("notes/a", "note", line=str(number)) for number in range(1_000))
    reader = await SqliteLogReader.open(tmp_path)
    try:
        snapshot = await reader.snapshot(stream_id("notes", "a"))
    finally:
        await reader.close()
    assert snapshot is not None
    assert snapshot.version >= 500
    async with local_runtime(APP, tmp_path) as runtime:
        assert await runtime.ask("notes/a", "lines") == [str(number) for number in range(1_000)]
        assert await runtime.ask("notes/a", "note", line="more") == 1_001


@pytest.mark.parametrize(
    ("body", "field"),
    [(b'{"line": 5}', "line"), (b"{}", "line"), (b'{"line": "a", "more": 1}', "more"), (b'["a"]', None), (b"{", None)],
)
async def test_bad_arguments_are_refused_and_leave_no_trace(tmp_path: Path, body: bytes, field: str | None) -> None:
    async with local_runtime(APP, tmp_path) as runtime:
        reply = await runtime.send("notes/a", "note", body)
    assert isinstance(reply.error, BadPayload)
    assert reply.error.fields["field"] == field
    assert await events_of(tmp_path, "notes/a") == []


async def test_s14_a_turn_that_awaits_nothing_needs_no_task_and_one_that_does_has_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A live actor decides it in the call that brings it, on what is not committed yet."""
    kind = APP.registry.type("notes")
    assert [name for name in sorted(kind.methods) if not kind.method(name).short] == [
        "ask_on", "ask_round", "draw", "fetch", "fetch_together", "try_fetch",
    ]  # fmt: skip
    async with local_runtime(APP, tmp_path, shards=1) as runtime:
        await runtime.ask("notes/a", "note", line="first")
        (shard,) = runtime.shards
        cell = shard.cells[stream_id("notes", "a")]
        spawned: list[str] = []
        spawn = shard.spawn

        def spawning(work: Any, *, name: str) -> asyncio.Task[Any]:
            spawned.append(name)
            return spawn(work, name=name)

        monkeypatch.setattr(shard, "spawn", spawning)
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(runtime.ask("notes/a", "note", line=str(number))) for number in range(10)]
            await asyncio.sleep(0)
            assert (cell.version, len(cell.pending)) == (11, 10)
        assert [task.result() for task in asked] == list(range(2, 12))
        with pytest.raises(Rejected):
            await runtime.ask("notes/a", "note_then_refuse", line="x")
        assert len(await runtime.ask("notes/a", "lines")) == 11
        assert spawned == ["cell notes/a", "cell notes/a"]  # the refusal, and the fold after it
