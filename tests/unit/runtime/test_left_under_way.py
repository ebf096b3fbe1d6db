"""Effects end with the turn that asked for them, however its handler leaves them behind (S15, S19, S21) - on virtual time."""

import asyncio
from typing import Any

import msgspec
import pytest

from actors import Actor, Event, State, command
from actors.errors import Cancelled, HandlerFailed
from events.codec import args_hash
from events.errors import InvariantError
from events.ids import CommandId, StreamId
from events.store import Arrival, InboxEntry, InboxStatus
from runtime.app import App
from runtime.local import LocalRuntime
from tests.support.virtual import Virtual, virtually

STREAM = "hasty/h"


class Seen:
    """What the outside saw of a step that takes ten seconds."""

    def __init__(self) -> None:
        self.begun = self.done = self.under_way = self.most = 0


SEEN = Seen()
FAILS: list[bool] = []
"""Whether the quick step fails, attempt by attempt; it does no more when this is empty."""


@pytest.fixture(autouse=True)
def seen() -> Seen:
    global SEEN
    SEEN = Seen()
    FAILS.clear()
    return SEEN


async def slow() -> str:
    SEEN.begun += 1
    SEEN.under_way += 1
    SEEN.most = max(SEEN.most, SEEN.under_way)
    try:
        await asyncio.sleep(10)
    finally:
        SEEN.under_way -= 1
    SEEN.done += 1
    return "slow"


async def quick() -> str:
    await asyncio.sleep(1)
    if FAILS and FAILS.pop(0):
        raise ConnectionError("away")
    return "quick"


class Lines(State):
    lines: list[str] = []


class Said(Event[Lines], tag="hasty.said"):
    line: str

    def apply(self, state: Lines) -> None:
        state.lines.append(self.line)


class Worker(Actor[Lines], name="worker"):
    @command
    async def work(self) -> str:
        found = await self.step("slow", slow)
        self.emit(Said(line=found))
        return found


class Hasty(Actor[Lines], name="hasty"):
    @command
    async def both(self, what: str) -> None:
        """`gather` leaves the other under way when one fails."""
        if what == "ask":
            other: Any = self.ref(Worker, "w").work()
        else:
            other = self.step("slow", slow, once=what == "once")
        for line in await asyncio.gather(other, self.step("quick", quick)):
            self.emit(Said(line=line))

    @command
    async def forget(self) -> str:
        LEFT.append(asyncio.ensure_future(self._two()))
        await self.step("quick", quick)
        return "done"

    async def _two(self) -> None:
        try:
            await self.step("slow", slow)
        except asyncio.CancelledError:
            await self.step("more", quick)

    @command
    async def say(self, line: str) -> int:
        self.emit(Said(line=line))
        return len(self.state.lines)


LEFT: list["asyncio.Future[None]"] = []
APP = App(actors=[Hasty, Worker])


def types(virtual: Virtual, stream: str = STREAM) -> list[str]:
    return [event.type for event in virtual.log.content(0).events if event.stream == stream]


async def tell(runtime: LocalRuntime, what: str) -> None:
    """A stored command: it is tried again when it fails."""
    args = msgspec.json.encode({"what": what})
    entry = InboxEntry(
        stream=StreamId(STREAM), command_id=CommandId("told"), method="both", args_hash=args_hash("both", args),
        status=InboxStatus.QUEUED, args=args, source="js:t:1", received_at_us=1,
    )  # fmt: skip
    await runtime.shards[0].accept([Arrival(entry=entry)])


def test_s15_a_step_ends_with_its_failed_turn_and_nothing_of_it_comes_later() -> None:
    async def main(virtual: Virtual) -> None:
        FAILS.append(True)
        async with virtual.runtime(APP) as runtime:
            with pytest.raises(HandlerFailed):
                await runtime.ask(STREAM, "both", what="step")
            assert (SEEN.begun, SEEN.under_way) == (1, 0)
            await runtime.ask(STREAM, "say", line="another turn")
            await asyncio.sleep(20)
        assert types(virtual) == ["turn.started", "step.started", "step.started", "step.failed", "turn.failed", "hasty.said"]

    virtually(main)


def test_s19_a_step_never_runs_beside_itself_when_its_command_is_tried_again() -> None:
    async def main(virtual: Virtual) -> None:
        FAILS.extend([True, True])
        async with virtual.runtime(APP) as runtime:
            await tell(runtime, "step")
            while "turn.completed" not in types(virtual):
                await asyncio.sleep(1)
        assert (SEEN.begun, SEEN.done, SEEN.most) == (3, 1, 1)
        assert types(virtual).count("step.completed") == 2

    virtually(main)


def test_s21_what_happens_at_most_once_comes_to_its_end_before_its_turn_fails() -> None:
    async def main(virtual: Virtual) -> None:
        FAILS.append(True)
        async with virtual.runtime(APP) as runtime:
            await tell(runtime, "once")
            while "turn.completed" not in types(virtual):
                await asyncio.sleep(1)
        assert (SEEN.begun, SEEN.done) == (1, 1), "neither cut off nor repeated, and nobody is asked"
        ends = [type for type in types(virtual) if type in ("step.completed", "turn.retried", "wait.opened", "turn.completed")]
        assert ends == ["step.completed", "turn.retried", "step.completed", "turn.completed"]

    virtually(main)


def test_s24_an_ask_goes_on_for_the_next_attempt_of_its_command() -> None:
    """Only a cancel reaches below (S22): the next attempt asks under the same id, and would hear that it was cancelled."""

    async def main(virtual: Virtual) -> None:
        FAILS.extend([True, True])
        async with virtual.runtime(APP) as runtime:
            await tell(runtime, "ask")
            while "turn.completed" not in types(virtual):
                await asyncio.sleep(1)
        assert (SEEN.begun, SEEN.done) == (1, 1)
        assert types(virtual, "worker/w").count("hasty.said") == 1
        assert types(virtual)[-3:] == ["hasty.said", "hasty.said", "turn.completed"]

    virtually(main)


def test_s15_what_a_handler_does_not_wait_for_ends_with_it_and_begins_nothing_more() -> None:
    async def main(virtual: Virtual) -> None:
        async with virtual.runtime(APP) as runtime:
            assert await runtime.ask(STREAM, "forget") == "done"
            with pytest.raises(InvariantError, match="had ended when something that it had begun wanted to await"):
                await LEFT.pop()
            await asyncio.sleep(20)
        assert (SEEN.begun, SEEN.done, SEEN.under_way) == (1, 0, 0)
        assert types(virtual)[-1] == "turn.completed"

    virtually(main)


def test_s22_a_cancel_ends_what_the_handler_does_not_wait_for() -> None:
    async def main(virtual: Virtual) -> None:
        async with virtual.runtime(APP) as runtime:
            asked = asyncio.ensure_future(runtime.ask(STREAM, "forget", command_id="c"))
            await asyncio.sleep(0.5)
            assert SEEN.under_way == 1
            assert await runtime.cancel(STREAM, "c") == "cancelled"
            assert SEEN.under_way == 0
            left = LEFT.pop()
            await asyncio.wait([asked, left])
            assert isinstance(asked.exception(), Cancelled)
            assert "had ended" in str(left.exception())
        assert types(virtual)[-1] == "turn.cancelled"

    virtually(main)
