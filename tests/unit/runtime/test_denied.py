"""A refusal that its handler wants kept stays in the log, is told once it is there, and changes nothing else (S24)."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors import Actor, Event, State, command, query
from actors.errors import Denied, Rejected
from runtime.app import App
from runtime.local import LocalRuntime, local_runtime
from tests.support.logs import events_of
from tests.unit.runtime.test_turns import crash


class Door(State):
    opened: int = 0


class Opened(Event[Door], tag="door.opened"):
    def apply(self, state: Door) -> None:
        state.opened += 1


class DoorActor(Actor[Door], name="door"):
    @command
    def open(self, key: str) -> int:
        self.emit(Opened())
        if key != "right":
            self.ref(DoorActor, "next").tell.open(key="right")
            raise Denied("that key opens nothing", reason="wrong_key", opened=self.state.opened)
        return self.state.opened

    @command
    async def open_slowly(self, key: str) -> int:
        """The same of a turn that has a journal."""
        await self.step("look", str, key)
        return self.open(key)

    @query
    def opened(self) -> int:
        return self.state.opened


APP = App(actors=[DoorActor], version="test")


async def refused(runtime: LocalRuntime, method: str = "open", command_id: str | None = None) -> dict[str, Any]:
    with pytest.raises(Rejected) as error:
        await runtime.ask("door/d", method, key="wrong", command_id=command_id)
    return error.value.fields


async def kinds(log: Path) -> list[str]:
    return [event.type for event in await events_of(log, "door/d")]


async def test_s24_it_is_recorded_with_its_fields_and_nothing_that_was_emitted_or_sent_is(tmp_path: Path) -> None:
    async with local_runtime(APP, tmp_path) as runtime:
        assert await runtime.ask("door/d", "open", key="right") == 1
        assert (await refused(runtime))["opened"] == 2
        assert await runtime.ask("door/d", "open", key="right") == 2
        assert await runtime.ask("door/next", "opened") == 0
    assert await kinds(tmp_path) == ["door.opened", "turn.refused", "door.opened"]
    event = (await events_of(tmp_path, "door/d"))[1]
    body = msgspec.json.decode(event.payload)
    assert {name: body[name] for name in ("code", "error", "message", "reason")} == {
        "code": 409, "error": "rejected", "message": "that key opens nothing", "reason": "wrong_key",
    }  # fmt: skip
    assert event.error == "that key opens nothing"


async def test_s24_it_is_there_before_its_caller_is_told_and_a_repeat_leaves_no_second(tmp_path: Path) -> None:
    async with local_runtime(APP, tmp_path) as runtime:
        first = await refused(runtime, command_id="c-1")
        crash(runtime)
    assert await kinds(tmp_path) == ["turn.refused"]
    async with local_runtime(APP, tmp_path) as runtime:
        assert await refused(runtime, command_id="c-1") == first
        assert await refused(runtime, "open_slowly") == first
    assert (await kinds(tmp_path)).count("turn.refused") == 2, "one for each command, of a turn with a journal as well"


async def test_s14_turns_around_it_are_decided_in_order_on_what_holds(tmp_path: Path) -> None:
    """Behind turns that are not committed yet, before others, with queries between."""
    async with local_runtime(APP, tmp_path) as runtime:
        keys = ["wrong" if number % 7 == 0 else "right" for number in range(100)]

        def one(number: int, key: str) -> Any:
            return runtime.ask("door/d", "opened") if number % 5 == 0 else runtime.ask("door/d", "open", key=key)

        replies = await asyncio.gather(*(one(number, key) for number, key in enumerate(keys)), return_exceptions=True)
    opened = 0
    for number, reply in enumerate(replies):
        if number % 5 == 0:
            assert reply == opened
        elif number % 7 == 0:
            assert isinstance(reply, Rejected)
            assert reply.fields["opened"] == opened + 1
        else:
            opened += 1
            assert reply == opened
    assert (await kinds(tmp_path)).count("turn.refused") == sum(isinstance(reply, Rejected) for reply in replies)
