"""A turn that runs again with its journal: finished effects are taken from it, and code that does not follow it is parked (S19)."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from actors import Actor, Event, State, StepFailed, command
from actors.errors import NondeterminismError
from actors.journal import Use, open_turn
from actors.registry import ActorType
from actors.testing import MemoryDriver
from actors.turn import Command, Turn
from events.envelope import NewEvent, RecordedEvent
from events.ids import CommandId, StreamId

STREAM = StreamId("plan/a")
COMMAND = CommandId("turn-1")
START_US = 1_700_000_000_000_000


class Plan(State):
    done: list[str] = []


class Done(Event[Plan], tag="plan.done"):
    what: str

    def apply(self, state: Plan) -> None:
        state.done.append(self.what)


CALLS: list[str] = []


async def work(name: str) -> str:
    CALLS.append(name)
    if name == "bad":
        raise OSError("bad luck")
    return name.upper()


class PlanActor(Actor[Plan], name="plan"):
    @command
    async def follow(self, steps: list[str], together: bool = False, ask: bool = False) -> list[Any]:
        """Stands for two versions of the code: what it asks for is its argument."""
        if together:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self.step("work", work, name, key=name)) for name in steps]
            results = [task.result() for task in tasks]
        else:
            results = [await self._one(name) for name in steps]
        for result in results:
            self.emit(Done(what=result))
        if ask:
            results.append(await self.ref("plan", "b").count())
        return [*results, self.random(), self.new_id(), self.now().isoformat()]

    async def _one(self, name: str) -> str:
        try:
            return await self.step(name, work, name)
        except StepFailed as error:
            return error.message


KIND = ActorType(PlanActor)


def counted() -> int:
    CALLS.append("count")
    return 7


class Attempt:
    """One run of a command, with what it left."""

    def __init__(self, journal: Sequence[RecordedEvent], **arguments: Any) -> None:
        self.before = list(journal)
        self.arguments = arguments
        self.driver = MemoryDriver(STREAM, {"plan.count": counted}, START_US + len(journal), len(journal))
        self.emitted: list[NewEvent] = []

    async def run(self) -> bytes:
        CALLS.clear()
        method = KIND.method("follow")
        body = msgspec.json.encode(self.arguments)
        asked = Command(stream=STREAM, method="follow", args=body, command_id=COMMAND, explicit=True, received_at_us=START_US)
        opened = open_turn(self.before, COMMAND)
        turn = Turn(KIND, "a", asked, method, KIND.initial(), 0, self.driver, "seed", started=opened)
        turn.bind(asyncio.current_task())
        reply = await turn.decide(method.decode(body))
        self.emitted = turn.emitted
        return reply

    @property
    def journal(self) -> list[RecordedEvent]:
        return [*self.before, *self.driver.journal]


async def recorded_journal(**arguments: Any) -> list[RecordedEvent]:
    attempt = Attempt([], **arguments)
    await attempt.run()
    return attempt.journal


# -- a re-run that follows ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {"steps": ["a", "b", "c"]}, {"steps": ["a", "a", "a"]}, {"steps": ["a", "bad", "b"]}, {"steps": ["a", "b", "c"], "together": True},
        {"steps": ["a"], "ask": True},
    ],
    ids=str,
)  # fmt: skip
async def test_a_crash_after_any_journal_entry_ends_in_the_same_result(arguments: dict[str, Any]) -> None:
    """S15, S19: finished effects are not called again, the open one is, and the rest follows; reply and emits are the same."""
    whole = Attempt([], **arguments)
    reply = msgspec.json.decode(await whole.run())
    for length in range(len(whole.journal) + 1):
        again = Attempt(whole.journal[:length], **arguments)
        found = msgspec.json.decode(await again.run())
        finished = sum(event.type.endswith((".completed", ".failed")) for event in again.before)
        effects = len(arguments["steps"]) + bool(arguments.get("ask"))
        assert found == reply, f"crash after entry {length}"
        assert again.emitted == whole.emitted
        assert len(CALLS) == effects - finished
        assert sorted(event.type for event in again.journal) == sorted(event.type for event in whole.journal)


async def test_a_failed_step_raises_the_same_error_again_without_a_call() -> None:
    journal = await recorded_journal(steps=["bad"])
    again = Attempt(journal, steps=["bad"])
    assert msgspec.json.decode(await again.run())[0] == "step bad: OSError: bad luck"
    assert CALLS == []


async def test_concurrent_steps_are_matched_by_key_whatever_their_order() -> None:
    """S19: not by arrival."""
    journal = await recorded_journal(steps=["a", "b", "c"], together=True)
    again = Attempt(journal, steps=["c", "a", "b"], together=True)
    assert msgspec.json.decode(await again.run())[:3] == ["C", "A", "B"]
    assert CALLS == []


async def test_code_may_go_on_where_its_journal_ends() -> None:
    """A crash in the middle and code with a further step at the end cannot be told apart."""
    journal = await recorded_journal(steps=["a"])
    again = Attempt(journal, steps=["a", "b"])
    assert msgspec.json.decode(await again.run())[:2] == ["A", "B"]
    assert CALLS == ["b"]


# -- a re-run that does not ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "recorded", "asked"),
    [
        (["a", "b"], ["a", "renamed"], "step b", "step renamed"),
        (["a", "b"], ["new", "a", "b"], "step a, step b", "step new"),
        (["a", "b"], ["a", "new", "b"], "step b", "step new"),
        (["a", "b"], ["a"], "step b", None),
        (["a", "b"], ["b"], "step a", None),
        (["a", "b"], [], "step a, step b", None),
        (["a", "a"], ["a"], "step a #2", None),
        (["bad"], [], "step bad", None),
    ],
    ids=["renamed", "inserted first", "inserted", "left over", "missing", "none", "one use less", "left over failure"],
)
async def test_code_that_does_not_follow_its_journal_is_stopped_with_both_sides_named(
    before: list[str], after: list[str], recorded: str, asked: str | None
) -> None:
    """S19."""
    journal = await recorded_journal(steps=before)
    again = Attempt(journal, steps=after)
    with pytest.raises(NondeterminismError) as stopped:
        await again.run()
    assert stopped.value.fields == {"recorded": recorded, "asked": asked}
    assert recorded in stopped.value.message
    assert again.driver.journal == [], "nothing is recorded before the turn is stopped"
    assert CALLS == []


async def test_a_left_over_concurrent_step_is_found_at_the_end_of_the_turn() -> None:
    """With concurrent steps only the end can tell."""
    journal = await recorded_journal(steps=["a", "b"], together=True)
    with pytest.raises(NondeterminismError) as stopped:
        await Attempt(journal, steps=["a", "c"], together=True).run()
    assert stopped.value.fields == {"recorded": "step work [b]", "asked": None}


async def test_an_intent_without_a_result_is_left_over_too() -> None:
    """The effect may have happened: ending without it is another decision."""
    journal = await recorded_journal(steps=["a"])
    assert [event.type for event in journal] == ["turn.started", "step.started", "step.completed"]
    with pytest.raises(NondeterminismError):
        await Attempt(journal[:2], steps=[]).run()


async def test_an_ask_and_a_step_of_one_name_are_different_entries() -> None:
    journal = await recorded_journal(steps=["a"], ask=True)
    with pytest.raises(NondeterminismError) as stopped:
        await Attempt(journal, steps=["a"]).run()
    assert stopped.value.fields["recorded"] == "ask plan/b.count"


# -- the journal of one command among others ----------------------------------------------------------------------------------------------


async def test_the_journal_of_another_command_is_not_taken() -> None:
    journal = await recorded_journal(steps=["a"])
    assert open_turn(journal, "another") is None
    assert open_turn([], COMMAND) is None
    opened = open_turn(journal, COMMAND)
    assert opened is not None
    started, entries, at_us, segments = opened[:4]
    assert not segments
    assert (started.command, bytes(started.arguments), started.seed) == ("follow", b'{"steps":["a"]}', "seed")
    assert list(entries) == [Use("step", "a", None, 1)]
    assert at_us == journal[0].recorded_at_us
    assert opened.time == journal[-1].time


async def test_a_turn_that_started_anew_forgets_what_was_before() -> None:
    """A parked turn may be run again from its start under the same id; only its last journal counts."""
    first, second = await recorded_journal(steps=["a"]), await recorded_journal(steps=["b"])
    opened = open_turn([*first, *second], COMMAND)
    assert opened is not None
    assert list(opened[1]) == [Use("step", "b", None, 1)]


@pytest.mark.parametrize(
    ("use", "text"),
    [
        (Use("step", "a", None, 1), "step a"), (Use("step", "a", None, 2), "step a #2"), (Use("step", "a", "k", 1), "step a [k]"),
        (Use("ask", "x/y.m", "", 3), "ask x/y.m [] #3"),
    ],
)  # fmt: skip
def test_an_entry_is_named_as_a_person_would_look_for_it(use: Use, text: str) -> None:
    assert str(use) == text
