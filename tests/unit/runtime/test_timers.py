"""Durable timers: once in effect, across restarts, missed dates and clock steps (S26)."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from actors import Actor, Event, Rejected, State, command, query
from actors.errors import BadPayload, Unknown
from actors.testing import ActorTest
from events.clock import SystemClock
from runtime.app import App
from runtime.local import LocalRuntime, local_runtime
from tests.support.logs import events_of
from tests.unit.runtime.test_turns import crash


class Bell(State):
    rings: list[str] = []


class Rang(Event[Bell], tag="bell.rang"):
    what: str

    def apply(self, state: Bell) -> None:
        state.rings.append(self.what)


class BellActor(Actor[Bell], name="bell"):
    @command
    async def ring(self, what: str) -> None:
        if what == "refused":
            raise Rejected("not now")
        self.emit(Rang(what=what))

    @command
    async def ring_in(self, seconds: float, what: str, every: float | None = None, timer_id: str | None = None) -> str:
        return self.schedule(seconds, "ring", every=every, timer_id=timer_id, what=what)

    @command
    async def ring_at(self, date: datetime, what: str) -> str:
        return self.schedule(date, "ring", what=what)

    @command
    async def ring_then_refuse(self) -> None:
        self.schedule(0, "ring", what="never")
        raise Rejected("changed my mind")

    @command
    async def take_back(self, timer_id: str) -> None:
        self.unschedule(timer_id)

    @command
    async def wrong(self) -> None:
        self.schedule(1, "no_such_method")

    @query
    def rings(self) -> list[str]:
        return self.state.rings


APP = App(actors=[BellActor], version="test")


class ShiftedClock(SystemClock):
    """The system's clock, with a wall clock that a test steps."""

    def __init__(self) -> None:
        self.shift_us = 0

    def wall_us(self) -> int:
        return super().wall_us() + self.shift_us


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0)


async def rung(runtime: LocalRuntime, expected: list[str]) -> None:
    async def is_so() -> bool:
        return bool(await runtime.ask("bell/a", "rings") == expected)

    await until(is_so)


def armed(runtime: LocalRuntime) -> int:
    return sum(len(shard.timers) for shard in runtime.shards)


async def test_a_timer_fires_once_with_its_arguments_and_leaves_a_record(tmp_path: Path) -> None:
    async with local_runtime(APP, tmp_path) as runtime:
        timer_id = await runtime.ask("bell/a", "ring_in", seconds=0.01, what="ding")
        await rung(runtime, ["ding"])
        assert armed(runtime) == 0
    recorded = await events_of(tmp_path, "bell/a")
    assert [event.type for event in recorded] == ["timer.set", "timer.fired", "bell.rang"]
    assert {msgspec.json.decode(event.payload)["timer_id"] for event in recorded[:2]} == {timer_id}
    assert recorded[1].command_id == recorded[2].command_id
    assert recorded[2].correlation_id == recorded[0].correlation_id


async def test_a_timer_survives_a_crash_and_fires_once_afterwards(tmp_path: Path) -> None:
    clock = ShiftedClock()
    async with local_runtime(APP, tmp_path, clock=clock) as runtime:
        await runtime.ask("bell/a", "ring_in", seconds=3_600, what="later")
        crash(runtime)
    clock.shift_us = 3_601_000_000
    for _ in range(3):
        async with local_runtime(APP, tmp_path, clock=clock) as runtime:
            await rung(runtime, ["later"])
            crash(runtime)


async def test_a_recurring_timer_that_was_missed_fires_once_and_says_how_often(tmp_path: Path) -> None:
    clock = ShiftedClock()
    async with local_runtime(APP, tmp_path, clock=clock) as runtime:
        await runtime.ask("bell/a", "ring_in", seconds=60, every=60, what="tick")
    clock.shift_us = 330_000_000
    async with local_runtime(APP, tmp_path, clock=clock) as runtime:
        await rung(runtime, ["tick"])
        assert armed(runtime) == 1
    fired = [event for event in await events_of(tmp_path, "bell/a") if event.type == "timer.fired"]
    assert [msgspec.json.decode(event.payload)["missed"] for event in fired] == [4]


async def test_a_recurring_timer_goes_on_until_it_is_taken_back(tmp_path: Path) -> None:
    async with local_runtime(APP, tmp_path) as runtime:
        await runtime.ask("bell/a", "ring_in", seconds=0, every=0.01, timer_id="t", what="tick")
        await rung(runtime, ["tick"] * 3)
        await runtime.ask("bell/a", "take_back", timer_id="t")
        assert armed(runtime) == 0


async def test_s26_a_timer_that_is_taken_back_while_it_fires_does_not_go_on(tmp_path: Path) -> None:
    """In whatever order the two are committed and told; armed once more, it would wake its shard for ever, with nothing to say."""
    async with local_runtime(APP, tmp_path) as runtime:
        for number in range(40):
            name = f"bell/{number}"
            await runtime.ask(name, "ring_in", seconds=0, every=0.002, timer_id="t", what="tick")
            await asyncio.sleep(0.002 + number * 0.0001)  # a real clock, so that the two meet at another place each time
            await runtime.ask(name, "take_back", timer_id="t")
            assert armed(runtime) == 0
        rung_then = [await runtime.ask(f"bell/{number}", "rings") for number in range(40)]
        await asyncio.sleep(0.05)  # 25 of its periods, in which nothing rings
        assert armed(runtime) == 0
        assert [await runtime.ask(f"bell/{number}", "rings") for number in range(40)] == rung_then


async def test_a_timer_of_the_same_name_replaces_the_other(tmp_path: Path) -> None:
    async with local_runtime(APP, tmp_path) as runtime:
        await runtime.ask("bell/a", "ring_in", seconds=3_600, timer_id="t", what="old")
        await runtime.ask("bell/a", "ring_in", seconds=0, timer_id="t", what="new")
        await rung(runtime, ["new"])
        assert armed(runtime) == 0


async def test_a_date_follows_the_wall_clock(tmp_path: Path) -> None:
    clock = ShiftedClock()
    async with local_runtime(APP, tmp_path, clock=clock) as runtime:
        past = datetime.fromtimestamp(clock.wall_us() / 1e6, UTC) - timedelta(seconds=1)
        await runtime.ask("bell/a", "ring_at", date=past.isoformat(), what="now")
        await rung(runtime, ["now"])


async def test_a_refused_turn_sets_no_timer_and_a_refused_timer_is_recorded(tmp_path: Path) -> None:
    async with local_runtime(APP, tmp_path) as runtime:
        with pytest.raises(Rejected):
            await runtime.ask("bell/a", "ring_then_refuse")
        assert armed(runtime) == 0
        await runtime.ask("bell/a", "ring_in", seconds=0, what="refused")

        async def refused() -> bool:
            return "turn.refused" in [event.type for event in await events_of(tmp_path, "bell/a")]

        await until(refused)
    assert [event.type for event in await events_of(tmp_path, "bell/a")] == ["timer.set", "timer.fired", "turn.refused"]


async def test_a_mistake_in_a_timer_is_told_when_it_is_set() -> None:
    test = ActorTest(BellActor)
    with pytest.raises(Unknown):
        await test.when("wrong")
    with pytest.raises(BadPayload):
        await test.when("ring_in", seconds=-1, what="x")
    with pytest.raises(BadPayload):
        await test.when("ring_in", seconds=1, what="x", timer_id="no dots.")
    result = await test.when("ring_in", seconds=5, what="x", timer_id="t")
    assert [(timer.timer_id, timer.method, timer.wall) for timer in result.timers] == [("t", "ring", False)]
