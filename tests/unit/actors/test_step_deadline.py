"""Deadlines of effects on virtual time: how a step is ended at its own, what is recorded then, and what a restart behind it does."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from actors import Actor, State, StepFailed, command
from actors.errors import BadPayload, Unavailable
from actors.recovery import Recovery
from actors.testing import ActorTest
from events.codec import args_hash
from events.ids import CommandId, StreamId
from events.store import Arrival, InboxEntry, InboxStatus
from runtime.app import App
from runtime.local import LocalRuntime
from tests.support.held import held_by
from tests.support.logs import START_US
from tests.support.virtual import Virtual, virtually

STREAM = "slow/s"
SECOND = 1_000_000


class Outside:
    """What the step reaches: how long it takes, what it says when asked whether it happened, and what it saw."""

    def __init__(self) -> None:
        self.begun: list[float] = []
        self.cut = 0
        self.asked = 0
        self.takes_s = 1_000.0
        self.found: str | None = None
        self.check_takes_s = 0.0
        self.stubborn = ""

    async def act(self) -> str:
        self.begun.append(asyncio.get_running_loop().time())
        try:
            await asyncio.sleep(self.takes_s)
        except asyncio.CancelledError:
            self.cut += 1
            if self.stubborn == "raises":
                raise ConnectionError("aborted") from None
            if self.stubborn != "returns":
                raise
        return "done"

    async def check(self) -> str | None:
        self.asked += 1
        await asyncio.sleep(self.check_takes_s)
        return self.found


OUTSIDE = Outside()


@pytest.fixture(autouse=True)
def outside() -> Outside:
    global OUTSIDE
    OUTSIDE = Outside()
    return OUTSIDE


async def act(takes: str = "") -> str:
    return await OUTSIDE.act()


async def quick() -> str:
    await asyncio.sleep(8)
    return "quick"


async def check(takes: str = "") -> str | None:
    return await OUTSIDE.check()


class Nothing(State):
    pass


class Slow(Actor[Nothing], name="slow"):
    @command
    async def act(self, policy: Recovery, within_s: float | None = None) -> str:
        more: dict[str, Any] = {"verify": check} if policy == "verify" else {}
        try:
            return await self.step("act", act, recovery=policy, timeout_s=within_s, **more)
        except StepFailed as error:
            return f"{error.fields['type']} {error.fields.get('reason')}"

    @command
    async def two(self) -> list[str]:
        async with asyncio.TaskGroup() as group:
            late = group.create_task(self.step("act", act, once=True, timeout_s=5.0))
            other = group.create_task(self.step("quick", quick, once=True))
        return [late.result(), other.result()]

    @command
    async def must(self, within_s: float) -> str:
        return await self.step("act", act, timeout_s=within_s)


APP = App(actors=[Slow])


def journal(virtual: Virtual) -> list[tuple[str, dict[str, Any]]]:
    events = [event for event in virtual.log.content(0).events if event.stream == STREAM and event.type.startswith("step.")]
    return [(event.type, msgspec.json.decode(event.payload)) for event in events]


def types(virtual: Virtual) -> list[str]:
    return [type.partition(".")[2] for type, _ in journal(virtual)]


def now_us(virtual: Virtual) -> int:
    return virtual.clock.wall_us() - START_US


def crash(runtime: LocalRuntime) -> None:
    """Nothing more is answered or written, as if the process were gone."""
    for shard in runtime.shards:
        shard.abandon()


async def crash_during(virtual: Virtual, policy: str, within_s: float | None, *, after_s: float = 1.0) -> None:
    """The command ``c`` was begun, and the process is gone `after_s` later."""
    async with virtual.runtime(APP) as runtime:
        asked = asyncio.ensure_future(runtime.ask(STREAM, "act", command_id="c", policy=policy, within_s=within_s))
        await asyncio.sleep(after_s)
        crash(runtime)
        asked.cancel()
        await asyncio.wait([asked])


def play(main: Callable[[Virtual], Awaitable[None]]) -> None:
    virtually(main)


# -- while it runs ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "found", "reply", "ends"),
    [
        ("repeat", None, "deadline None", "failed"),
        ("never", None, "unknown deadline", "failed"),
        ("verify", None, "deadline None", "failed"),
        ("verify", "found", "found", "completed"),
    ],
)
def test_s15_at_its_deadline_a_step_is_cancelled_and_ends_as_its_policy_says(policy: str, found: str | None, reply: str, ends: str) -> None:
    async def main(virtual: Virtual) -> None:
        OUTSIDE.found = found
        async with virtual.runtime(APP) as runtime:
            began = now_us(virtual)
            for _ in range(2):  # the second is answered from the record
                assert await runtime.ask(STREAM, "act", command_id="c", policy=policy, within_s=20.0) == reply
            assert 20 * SECOND <= now_us(virtual) - began <= 20.1 * SECOND
        assert (len(OUTSIDE.begun), OUTSIDE.cut, OUTSIDE.asked) == (1, 1, 1 if policy == "verify" else 0)
        assert types(virtual) == ["started", ends]
        deadline_us = journal(virtual)[0][1]["deadline_us"] - START_US
        assert 0 <= deadline_us - began - 20 * SECOND < SECOND // 10

    play(main)


def test_s21_what_happens_at_most_once_is_asked_about_at_its_deadline_and_has_as_long_again_if_it_shall_be_repeated() -> None:
    async def main(virtual: Virtual) -> None:
        async with virtual.runtime(APP) as runtime:
            asked = asyncio.ensure_future(runtime.ask(STREAM, "act", command_id="c", policy="ask", within_s=20.0))
            wait_id = await held_by(runtime)
            assert OUTSIDE.cut == 1
            assert 20 * SECOND <= now_us(virtual) <= 20.1 * SECOND
            with pytest.raises(Unavailable):
                await runtime.ask(STREAM, "act", policy="repeat")
            await asyncio.sleep(100)
            OUTSIDE.takes_s = 15.0
            await runtime.answer(STREAM, wait_id, {"repeat": True})
            asked.cancel()
            assert await runtime.ask(STREAM, "act", command_id="c", policy="ask", within_s=20.0) == "done"
        assert types(virtual) == ["started", "started", "completed"]
        first, second = (fields["deadline_us"] for type, fields in journal(virtual) if type == "step.started")
        assert second - first >= 100 * SECOND

    play(main)


def test_s21_another_once_step_of_the_turn_is_not_cut_off_by_that() -> None:
    async def main(virtual: Virtual) -> None:
        async with virtual.runtime(APP) as runtime:
            asked = asyncio.ensure_future(runtime.ask(STREAM, "two", command_id="c"))
            wait_id = await held_by(runtime)
            assert 8 * SECOND <= now_us(virtual) <= 8.1 * SECOND
            await runtime.answer(STREAM, wait_id, {"result": "it had happened"})
            assert await asked == ["it had happened", "quick"]
        assert (len(OUTSIDE.begun), OUTSIDE.cut) == (1, 1)

    play(main)


@pytest.mark.parametrize(("stubborn", "reply"), [("returns", "done"), ("raises", "deadline None")])
def test_s19_a_result_in_spite_of_the_deadline_counts_and_an_error_because_of_it_does_not(stubborn: str, reply: str) -> None:
    async def main(virtual: Virtual) -> None:
        OUTSIDE.stubborn = stubborn
        async with virtual.runtime(APP) as runtime:
            assert await runtime.ask(STREAM, "act", policy="repeat", within_s=2.0) == reply

    play(main)


def test_a_check_has_no_longer_than_the_step() -> None:
    async def main(virtual: Virtual) -> None:
        OUTSIDE.check_takes_s = 1_000.0
        async with virtual.runtime(APP) as runtime:
            assert await runtime.ask(STREAM, "act", policy="verify", within_s=5.0) == "TimeoutError None"
            assert 10 * SECOND <= now_us(virtual) <= 10.1 * SECOND
        assert "cannot be verified: no answer within 5 s" in journal(virtual)[-1][1]["message"]

    play(main)


def test_s10_a_step_has_no_deadline_of_its_command() -> None:
    async def main(virtual: Virtual) -> None:
        OUTSIDE.takes_s = 60.0
        async with virtual.runtime(APP) as runtime:
            send = runtime.send(STREAM, "act", msgspec.json.encode({"policy": "repeat"}), command_id="c", timeout_s=2.0)
            asked = asyncio.ensure_future(send)
            await asyncio.sleep(61)
            assert await runtime.ask(STREAM, "act", command_id="c", policy="repeat") == "done"
            asked.cancel()
            await asyncio.wait([asked])
        assert "deadline_us" not in journal(virtual)[0][1]

    play(main)


async def test_a_step_has_a_deadline_in_a_unit_test_of_an_actor_too() -> None:
    assert (await ActorTest(Slow).when("act", policy="repeat", within_s=0.01)).reply == "deadline None"
    with pytest.raises(BadPayload):
        await ActorTest(Slow).when("act", policy="repeat", within_s=-1.0)


# -- behind a crash -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "found", "reply", "asked"),
    [
        ("repeat", None, "deadline None", 0),
        ("never", None, "unknown None", 0),
        ("verify", None, "deadline None", 1),
        ("verify", "found", "found", 1),
    ],
)
def test_s19_behind_its_deadline_nothing_is_run_again(policy: str, found: str | None, reply: str, asked: int) -> None:
    async def main(virtual: Virtual) -> None:
        await crash_during(virtual, policy, 20.0)
        await asyncio.sleep(30)
        OUTSIDE.found = found
        OUTSIDE.takes_s = 0.0
        for _ in range(2):  # what was decided after the crash stays decided
            async with virtual.runtime(APP) as runtime:
                assert await runtime.ask(STREAM, "act", command_id="c", policy=policy, within_s=20.0) == reply
        assert (len(OUTSIDE.begun), OUTSIDE.asked) == (1, asked)
        assert types(virtual) == ["started", "completed" if found else "failed"]

    play(main)


def test_s21_behind_its_deadline_a_person_is_asked_as_before_it() -> None:
    async def main(virtual: Virtual) -> None:
        await crash_during(virtual, "ask", 20.0)
        await asyncio.sleep(30)
        OUTSIDE.takes_s = 15.0
        async with virtual.runtime(APP) as runtime:
            wait_id = await held_by(runtime)
            assert len(OUTSIDE.begun) == 1
            await runtime.answer(STREAM, wait_id, {"repeat": True})
            assert await runtime.ask(STREAM, "act", command_id="c", policy="ask", within_s=20.0) == "done"
        assert len(OUTSIDE.begun) == 2

    play(main)


@pytest.mark.parametrize("policy", ["repeat", "verify"])
def test_s19_before_its_deadline_it_runs_again_for_what_is_left(policy: str) -> None:
    async def main(virtual: Virtual) -> None:
        await crash_during(virtual, policy, 20.0)
        async with virtual.runtime(APP) as runtime:
            assert await runtime.ask(STREAM, "act", command_id="c", policy=policy, within_s=20.0) == "deadline None"
            assert 20 * SECOND <= now_us(virtual) <= 20.1 * SECOND, "the deadline is that of the effect, not of the attempt"
        assert len(OUTSIDE.begun) == 2
        assert types(virtual) == ["started", "failed"]

    play(main)


def test_s19_an_intent_without_a_deadline_gets_one_from_code_that_gives_one() -> None:
    """As logs of former versions have them."""

    class Now(Actor[Nothing], name="slow"):
        @command
        async def act(self, policy: Recovery, within_s: float | None = None) -> str:
            try:
                return await self.step("act", act, recovery="repeat", timeout_s=5.0)
            except StepFailed as error:
                return str(error.fields["type"])

    async def main(virtual: Virtual) -> None:
        await crash_during(virtual, "repeat", None)
        await asyncio.sleep(30)
        began = now_us(virtual)
        async with virtual.runtime(App(actors=[Now])) as runtime:
            assert await runtime.ask(STREAM, "act", command_id="c", policy="repeat", within_s=None) == "deadline"
        assert 5 * SECOND <= now_us(virtual) - began <= 5.2 * SECOND
        assert types(virtual) == ["started", "started", "failed"]

    play(main)


def test_s24_a_command_that_is_tried_again_gives_its_steps_as_long_again() -> None:
    async def main(virtual: Virtual) -> None:
        async with virtual.runtime(APP) as runtime:
            args = msgspec.json.encode({"within_s": 5.0})
            entry = InboxEntry(
                stream=StreamId(STREAM), command_id=CommandId("told"), method="must", args_hash=args_hash("must", args),
                status=InboxStatus.QUEUED, args=args, source="js:t:1", received_at_us=1,
            )  # fmt: skip
            await runtime.shards[0].accept([Arrival(entry=entry)])
            await asyncio.sleep(4)
            OUTSIDE.takes_s = 4.0  # of the next attempt: this one is under way
            while "completed" not in types(virtual):
                await asyncio.sleep(1)
        assert types(virtual) == ["started", "failed", "started", "completed"]
        first, second = (fields["deadline_us"] for type, fields in journal(virtual) if type == "step.started")
        assert second > first

    play(main)
