"""`Actor.cancel`: an actor takes back a command that it has sent, exactly once in effect (S22, S25)."""

import asyncio
from pathlib import Path
from typing import Any

from actors import Actor, Event, State, command, query
from runtime.app import App
from runtime.local import LocalRuntime, local_runtime
from tests.support.logs import events_of
from tests.unit.runtime.test_turns import crash

EVENTS: dict[str, asyncio.Event] = {}
RUNS: list[str] = []


async def work(name: str) -> str:
    """Step: busy until somebody ends it."""
    RUNS.append(name)
    EVENTS["started"].set()
    try:
        await asyncio.sleep(3_600)
    finally:
        EVENTS["ended"].set()
    return name


class Sent(State):
    ids: list[str] = []


class Given(Event[Sent], tag="boss.given"):
    command_id: str

    def apply(self, state: Sent) -> None:
        state.ids.append(self.command_id)


class Boss(Actor[Sent], name="boss"):
    @command
    def give(self, to: str, names: list[str]) -> list[str]:
        ids = [self.ref(Hand, to).tell.toil(name=name) for name in names]
        for command_id in ids:
            self.emit(Given(command_id=command_id))
        return ids

    @command
    def take_back(self, to: str, which: str) -> None:
        self.cancel(Hand, to, which)
        self.ref(Hand, to).tell.note(text="behind")


class Notes(State):
    lines: list[str] = []


class Noted(Event[Notes], tag="hand.noted"):
    text: str

    def apply(self, state: Notes) -> None:
        state.lines.append(self.text)


class Hand(Actor[Notes], name="hand"):
    @command
    async def toil(self, name: str) -> None:
        await self.step("work", work, name)
        self.emit(Noted(text=name))

    @command
    def note(self, text: str) -> None:
        self.emit(Noted(text=text))

    @query
    def lines(self) -> list[str]:
        return self.state.lines


APP = App(actors=[Boss, Hand])


def fresh() -> None:
    EVENTS.update(started=asyncio.Event(), ended=asyncio.Event())
    RUNS.clear()


async def lines(runtime: LocalRuntime, wanted: list[str]) -> None:
    async with asyncio.timeout(20):
        while await runtime.ask("hand/h", "lines") != wanted:
            await asyncio.sleep(0.005)


async def statuses(directory: Path, stream: str) -> list[str]:
    return [event.type for event in await events_of(directory, stream)]


async def test_s22_a_sent_command_is_cancelled_while_it_runs_and_what_was_sent_after_it_goes_on(tmp_path: Path) -> None:
    fresh()
    async with local_runtime(APP, tmp_path) as runtime:
        (command_id,) = await runtime.ask("boss/b", "give", to="h", names=["a"])
        await EVENTS["started"].wait()
        await runtime.ask("boss/b", "take_back", to="h", which=command_id)
        await asyncio.wait_for(EVENTS["ended"].wait(), 20)
        await lines(runtime, ["behind"])
        await idle(runtime)
    assert await statuses(tmp_path, "hand/h") == ["turn.started", "step.started", "turn.cancelled", "hand.noted"]


async def idle(runtime: LocalRuntime) -> None:
    """Nothing is stored that has not been handled, cancels included."""
    async with asyncio.timeout(20):
        while any(shard.tells for shard in runtime.shards):
            await asyncio.sleep(0.005)


async def test_s22_a_sent_command_that_waits_never_begins(tmp_path: Path) -> None:
    fresh()
    async with local_runtime(APP, tmp_path) as runtime:
        first, second = await runtime.ask("boss/b", "give", to="h", names=["a", "b"])
        await EVENTS["started"].wait()
        await runtime.ask("boss/b", "take_back", to="h", which=second)
        await runtime.ask("boss/b", "take_back", to="h", which=first)
        await lines(runtime, ["behind", "behind"])
        await idle(runtime)
    assert RUNS == ["a"]


async def test_s22_a_cancel_is_stored_and_survives_the_crash_of_the_owner(tmp_path: Path) -> None:
    """The turn that it ends runs again after the crash, and is ended again; later repeats find it done."""
    fresh()
    stop: Any = None
    async with local_runtime(APP, tmp_path) as runtime:
        (command_id,) = await runtime.ask("boss/b", "give", to="h", names=["a"])
        await EVENTS["started"].wait()
        stop = command_id
        await runtime.ask("boss/b", "take_back", to="h", which=command_id)
        crash(runtime)
    async with local_runtime(APP, tmp_path) as runtime:
        await lines(runtime, ["behind"])
        await runtime.ask("boss/b", "take_back", to="h", which=stop)
        await lines(runtime, ["behind", "behind"])
        await runtime.ask("boss/b", "take_back", to="h", which="nobody")
        await lines(runtime, ["behind", "behind", "behind"])
        await idle(runtime)
    async with local_runtime(APP, tmp_path) as runtime:
        assert all(shard.statistics().tells_queued == 0 for shard in runtime.shards)
