"""A query that has no answer yet is answered when a commit has made one, and never by asking again."""

import asyncio
from typing import Any

import pytest

from actors import Actor, Event, State, command, query
from actors.errors import DeadlinePassed, OutcomeUnknown, Unavailable
from actors.patience import NotYet
from runtime import App
from runtime.local import LocalRuntime
from tests.support.virtual import Virtual, virtually


class Doors(State):
    opened: dict[str, str] = {}


class Opened(Event[Doors], tag="door.opened"):
    door: str
    by: str

    def apply(self, state: Doors) -> None:
        state.opened[self.door] = self.by


class House(Actor[Doors], name="house"):
    """Opens doors; says who opened one as soon as somebody has."""

    @command
    def open(self, door: str, by: str, refuse: bool = False) -> None:
        self.emit(Opened(door=door, by=by))
        if refuse:
            raise ValueError("it is stuck")

    @command
    async def open_slowly(self, door: str, by: str) -> None:
        self.emit(Opened(door=door, by=by))
        await self.step("push", asyncio.sleep, 1.0)

    @query
    def who(self, door: str) -> str:
        if door not in self.state.opened:
            raise NotYet(lambda state: door in state.opened)
        return f"{self.state.opened[door]} at {self.now().timestamp():.3f}"


class Visitor(Actor[State], name="visitor"):
    @command
    async def visit(self, door: str) -> str:
        return str(await self.ref(House, "h", timeout_s=1_000).who(door=door))


APP = App(actors=[House, Visitor])


def play(act: Any, **options: Any) -> Any:
    async def main(virtual: Virtual) -> Any:
        async with virtual.runtime(APP, **options) as runtime:
            return await act(runtime)

    return virtually(main)


def who(runtime: LocalRuntime, door: str, **more: Any) -> "asyncio.Future[Any]":
    return asyncio.ensure_future(runtime.ask("house/h", "who", door=door, **{"timeout_s": 1_000, **more}))


def test_each_is_answered_by_the_commit_that_makes_its_answer_and_by_no_other() -> None:
    async def act(runtime: LocalRuntime) -> None:
        front, back = who(runtime, "front"), who(runtime, "back")
        await asyncio.sleep(100)
        await runtime.ask("house/h", "open", door="cellar", by="x")
        await asyncio.sleep(1)
        assert not front.done()
        opened_at = runtime._clock.wall_us() / 1e6
        await runtime.ask("house/h", "open", door="back", by="ann")
        assert await back == f"ann at {opened_at:.3f}", "the time of a query is that of its answer"
        assert not front.done()
        await runtime.ask("house/h", "open", door="front", by="bob")
        assert (await front).startswith("bob")
        assert not runtime.shards[0].waits.watches.open

    play(act)


def test_what_is_undone_answers_nobody() -> None:
    """A handler that emits and then raises: for a moment the state says what the log never will."""

    async def act(runtime: LocalRuntime) -> None:
        front = who(runtime, "front")
        await asyncio.sleep(1)
        with pytest.raises(Exception, match="stuck"):
            await runtime.ask("house/h", "open", door="front", by="nobody", refuse=True)
        await asyncio.sleep(1)
        assert not front.done()
        await runtime.ask("house/h", "open", door="front", by="bob")
        assert (await front).startswith("bob")

    play(act)


def test_s17_a_turn_that_is_under_way_answers_nobody_before_its_end() -> None:
    async def act(runtime: LocalRuntime) -> None:
        front = who(runtime, "front")
        slow = asyncio.ensure_future(runtime.ask("house/h", "open_slowly", door="front", by="bob"))
        await asyncio.sleep(0.5)
        late = who(runtime, "front")
        await asyncio.sleep(0.1)
        assert not front.done()
        assert not late.done()
        await slow
        assert (await front).startswith("bob")
        assert (await late).startswith("bob")

    play(act)


def test_s10_the_deadline_of_a_query_that_waits_ends_it() -> None:
    async def act(runtime: LocalRuntime) -> None:
        began = asyncio.get_running_loop().time()
        with pytest.raises(DeadlinePassed):
            await who(runtime, "front", timeout_s=5.0)
        assert asyncio.get_running_loop().time() - began == pytest.approx(5.0, abs=0.1)
        assert not runtime.shards[0].waits.watches.open

    play(act)


def test_s8_a_repeat_waits_in_place_of_what_it_repeats() -> None:
    async def act(runtime: LocalRuntime) -> None:
        asked = [who(runtime, "front", command_id="q", timeout_s=timeout_s) for timeout_s in (5.0, 9.0, 1_000.0)]
        await asyncio.sleep(20)
        assert [len(each) for each in runtime.shards[0].waits.watches.open.values()] == [1]
        await runtime.ask("house/h", "open", door="front", by="bob")
        assert (await asked[-1]).startswith("bob")
        assert all(isinstance(each.exception(), OutcomeUnknown) for each in asked[:-1])

    play(act)


def test_an_actor_that_is_not_in_memory_any_more_still_answers() -> None:
    async def act(runtime: LocalRuntime) -> None:
        front = who(runtime, "front", timeout_s=10_000)
        await asyncio.sleep(4_000)
        assert not runtime.shards[0].cells, "it was to be passivated"
        await runtime.ask("house/h", "open", door="front", by="bob")
        assert (await front).startswith("bob")

    play(act)


def test_s9_who_waits_is_told_to_ask_the_next_owner() -> None:
    async def main(virtual: Virtual) -> None:
        async with virtual.runtime(APP) as runtime:
            front = who(runtime, "front")
            await asyncio.sleep(1)
        with pytest.raises(Unavailable):
            await front
        async with virtual.runtime(APP) as runtime:
            again = who(runtime, "front")
            await asyncio.sleep(1)
            await runtime.ask("house/h", "open", door="front", by="bob")
            assert (await again).startswith("bob")

    virtually(main)


def test_s19_an_actor_that_asked_goes_on_waiting_after_a_crash() -> None:
    async def main(virtual: Virtual) -> None:
        async with virtual.runtime(APP, killed=True) as runtime:
            lost = asyncio.ensure_future(runtime.ask("visitor/v", "visit", door="front", command_id="v", timeout_s=1_000))
            await asyncio.sleep(1)
            lost.cancel()
        async with virtual.runtime(APP) as runtime:
            visit = asyncio.ensure_future(runtime.ask("visitor/v", "visit", door="front", command_id="v", timeout_s=1_000))
            await asyncio.sleep(1)
            await runtime.ask("house/h", "open", door="front", by="bob")
            assert (await visit).startswith("bob")

    virtually(main)
