"""Steps, asks, sends, views, chunks, time and randomness as a handler meets them, on the engine of production (S15, S16, S36)."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from actors import Actor, ActorError, Event, Rejected, State, StepFailed, command, query
from actors.errors import BadPayload, TooLarge, Unknown
from actors.journal import derived_id
from actors.testing import ActorTest, run
from events.errors import EncodingError, InvariantError
from events.ids import is_token
from events.limits import ARGUMENTS_BYTES_MAX, EVENT_BYTES_MAX, REPLY_BYTES_MAX


class Trip(State):
    stops: list[str] = []


class Stopped(Event[Trip], tag="trip.stopped"):
    place: str

    def apply(self, state: Trip) -> None:
        state.stops.append(self.place)


class Price(msgspec.Struct):
    cents: int


CALLS: list[tuple[Any, ...]] = []
"""What the effects of one test did; cleared before each."""


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    CALLS.clear()


def look_up(place: str, *, day: int = 1) -> Price:
    CALLS.append((place, day))
    return Price(cents=len(place) * day)


async def fetch(place: str) -> str:
    CALLS.append((place,))
    return place.upper()


def fail(kind: str) -> None:
    CALLS.append((kind,))
    raise {"os": OSError, "key": KeyError, "rejected": Rejected}[kind]("no luck")


def give(value: Any) -> Any:
    return value


NOISE: list[Any] = []


class TripActor(Actor[Trip], name="trip"):
    @command
    async def price(self, place: str) -> Price:
        found = await self.step("price", look_up, place, day=2)
        self.emit(Stopped(place=f"{place} for {found.cents}"))
        return found

    @command
    async def fetch_all(self, places: list[str]) -> list[str]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.step("fetch", fetch, place, key=place)) for place in places]
        return [task.result() for task in tasks]

    @command
    async def give_back(self, kind: str) -> Any:
        value = {"nan": float("nan"), "object": object(), "large": "x" * EVENT_BYTES_MAX, "none": None, "tuple": (1, 2)}[kind]
        return await self.step("give", give, value)

    @command
    async def try_step(self, kind: str) -> list[str]:
        try:
            await self.step("fail", fail, kind)
        except StepFailed as error:
            return [error.message, error.fields["type"]]
        return []

    @command
    async def ask_hotel(self, nights: int, hotel: str = "ritz") -> Any:
        found = await self.ref("hotel", hotel).book(nights=nights)
        self.emit(Stopped(place=str(found)))
        return found

    @command
    async def ask_twice(self) -> list[int]:
        other = self.ref(TripActor, "other")
        return [await other.count(), await other.count()]

    @command
    async def tell_all(self, places: list[str], to: str = "other") -> None:
        for place in places:
            self.ref(TripActor, to).tell.price(place=place)

    @command
    async def tell_odd(self, kind: str) -> None:
        if kind == "nan":
            self.ref("hotel", "ritz").tell.book(x=float("nan"))
        elif kind == "large":
            self.ref("hotel", "ritz").tell.book(x="x" * ARGUMENTS_BYTES_MAX)
        else:
            getattr(self.ref("hotel", "ritz").tell, kind)(x=1)

    @command
    async def recall(self, question: str) -> Any:
        return await self.view("memory").recall(query=question, k=2)

    @command
    async def view_named(self, name: str) -> Any:
        return await self.view(name).recall()

    @command
    async def talk(self, words: list[str]) -> int:
        for word in words:
            self.chunk(word)
        await self.step("fetch", fetch, "x")
        self.chunk({"end": True})
        return len(words)

    @command
    async def draw(self) -> list[Any]:
        before = [self.random(), self.random(), self.new_id(), self.new_id(), self.now().isoformat()]
        await self.step("fetch", fetch, "x")
        return [*before, self.random(), self.new_id(), self.now().isoformat()]

    @command
    async def noisy(self) -> str:
        NOISE.append(None)
        self.emit(Stopped(place=f"run {len(NOISE)}"))
        await self.step("fetch", fetch, "x")
        return "done"

    @command
    async def refuse(self, after_step: bool) -> None:
        self.emit(Stopped(place="dropped"))
        if after_step:
            await self.step("fetch", fetch, "x")
        raise Rejected("full", seats=0)

    @command
    async def reply(self, kind: str) -> Any:
        return {"nan": float("nan"), "object": object(), "large": "x" * REPLY_BYTES_MAX, "huge": 2**63}[kind]

    @query
    def count(self) -> int:
        return len(self.state.stops)

    @query
    def tell_in_a_query(self) -> None:
        self.ref("hotel", "ritz").tell.book()

    @query
    def where(self) -> str:
        return self.id


# -- steps --------------------------------------------------------------------------------------------------------------------------------


async def test_a_step_comes_back_as_its_annotated_type_and_is_journaled_around_its_call() -> None:
    """S15: intent, call, result; the reply is made from the recorded result."""
    result = await ActorTest(TripActor).when("price", place="Rome")
    assert result.reply == {"cents": 8}
    assert result.events == [Stopped(place="Rome for 8")]
    assert result.journal == ["turn.started", "step.started", "step.completed"]
    assert CALLS == [("Rome", 2)], "the crash check takes the recorded result and does not call again"


async def test_a_turn_without_effects_has_no_journal() -> None:
    """S14."""
    result = await ActorTest(TripActor).when("tell_all", places=["a"])
    assert result.journal == []


async def test_concurrent_steps_are_named_by_their_keys() -> None:
    """S19."""
    result = await ActorTest(TripActor).when("fetch_all", places=["a", "b", "c"])
    assert result.reply == ["A", "B", "C"]
    assert result.journal.count("step.completed") == 3
    assert sorted(CALLS) == [("a",), ("b",), ("c",)]


@pytest.mark.parametrize(("kind", "type_name"), [("os", "OSError"), ("key", "KeyError")])
async def test_a_step_that_raises_is_recorded_and_may_be_caught(kind: str, type_name: str) -> None:
    """S19: recorded as the handler saw it; the class is a name, never imported."""
    result = await ActorTest(TripActor).when("try_step", kind=kind)
    message, found = result.reply
    assert found == type_name
    assert message.startswith(f"step fail: {type_name}: ")
    assert result.journal == ["turn.started", "step.started", "step.failed"]
    assert len(CALLS) == 1


async def test_a_refusal_inside_a_step_stays_a_refusal() -> None:
    result = await ActorTest(TripActor).when("try_step", kind="rejected")
    assert isinstance(result.refusal, Rejected)
    assert result.refusal.message == "no luck"
    assert result.journal[-1] == "step.failed"


@pytest.mark.parametrize(("kind", "reply"), [("none", None), ("tuple", [1, 2])])
async def test_a_result_passes_through_json(kind: str, reply: Any) -> None:
    assert (await ActorTest(TripActor).when("give_back", kind=kind)).reply == reply


@pytest.mark.parametrize("kind", ["nan", "object"])
async def test_a_result_that_json_cannot_carry_fails_the_step(kind: str) -> None:
    """S13: never a silent null in the journal."""
    with pytest.raises(StepFailed, match="EncodingError"):
        await ActorTest(TripActor).when("give_back", kind=kind)


async def test_a_result_beyond_one_mebibyte_fails_the_step() -> None:
    """S12."""
    with pytest.raises(TooLarge, match="the result of step give has 1,048,578 bytes"):
        await ActorTest(TripActor).when("give_back", kind="large")


# -- asks, sends and views ----------------------------------------------------------------------------------------------------------------


async def test_an_ask_is_answered_by_type_and_method() -> None:
    def book(nights: int) -> dict[str, int]:
        CALLS.append((nights,))
        return {"nights": nights}

    result = await ActorTest(TripActor, answers={"hotel.book": book}).when("ask_hotel", nights=3)
    assert result.reply == {"nights": 3}
    assert result.journal == ["turn.started", "ask.started", "ask.completed"]
    assert CALLS == [(3,)]


async def test_an_answer_for_one_actor_goes_before_one_for_its_type() -> None:
    async def better(nights: int) -> str:
        return "suite"

    answers = {"hotel.book": lambda nights: "room", "hotel/savoy.book": better}
    assert (await ActorTest(TripActor, answers=answers).when("ask_hotel", nights=1)).reply == "room"
    assert (await ActorTest(TripActor, answers=answers).when("ask_hotel", nights=1, hotel="savoy")).reply == "suite"


async def test_a_refusal_of_another_actor_is_raised_as_the_same_class() -> None:
    def book(nights: int) -> None:
        raise Rejected("no room", nights=nights)

    result = await ActorTest(TripActor, answers={"hotel.book": book}).when("ask_hotel", nights=3)
    assert isinstance(result.refusal, Rejected)
    assert (result.refusal.message, result.refusal.fields) == ("no room", {"nights": 3})
    assert result.journal[-1] == "ask.failed"


async def test_an_ask_without_an_answer_names_what_the_test_lacks() -> None:
    with pytest.raises(Unknown, match=r"no answer for hotel/ritz\.book"):
        await ActorTest(TripActor).when("ask_hotel", nights=1)


async def test_two_equal_asks_of_one_turn_are_two_asks() -> None:
    """S19: an internal ask's id is (turn, name, n)."""
    replies = iter([1, 2])
    result = await ActorTest(TripActor, answers={"trip.count": lambda: next(replies)}).when("ask_twice")
    assert result.reply == [1, 2]


async def test_sends_leave_with_the_turn_in_order_and_each_has_its_own_id() -> None:
    """S25."""
    result = await ActorTest(TripActor).when("tell_all", places=["a", "b", "b"])
    assert [(sent.receiver, sent.method, sent.args) for sent in result.sends] == [
        ("trip/other", "price", b'{"place":"a"}'), ("trip/other", "price", b'{"place":"b"}'), ("trip/other", "price", b'{"place":"b"}'),
    ]  # fmt: skip
    ids = [sent.command_id for sent in result.sends]
    assert len(set(ids)) == 3
    assert all(is_token(command_id) for command_id in ids)


async def test_the_ids_of_sends_repeat_when_the_same_command_runs_again() -> None:
    first, again = [await ActorTest(TripActor).when("tell_all", places=["a", "b"]) for _ in range(2)]
    assert first.sends == again.sends


@pytest.mark.parametrize(
    ("kind", "error"), [("nan", EncodingError), ("large", TooLarge), ("größe", BadPayload), ("a.b", BadPayload), ("x" * 65, BadPayload)]
)
async def test_arguments_and_names_that_cannot_travel_are_refused_before_they_leave(kind: str, error: type[Exception]) -> None:
    """S12, S13, design.md 3."""
    with pytest.raises(error):
        await ActorTest(TripActor).when("tell_odd", kind=kind)


@pytest.mark.parametrize("to", ["", "a.b", "a b", "*", "x" * 65])
async def test_an_id_that_cannot_stand_in_a_subject_is_refused(to: str) -> None:
    with pytest.raises(ValueError, match="is not a name"):
        await ActorTest(TripActor).when("tell_all", places=["a"], to=to)


async def test_a_view_is_asked_once_and_recorded() -> None:
    """S37."""

    def recall(query: str, k: int) -> list[str]:
        CALLS.append((query, k))
        return ["remembered"]

    result = await ActorTest(TripActor, answers={"memory.recall": recall}).when("recall", question="where?")
    assert result.reply == ["remembered"]
    assert result.journal == ["turn.started", "view.started", "view.completed"]
    assert CALLS == [("where?", 2)]


async def test_a_view_whose_name_cannot_stand_in_a_subject_is_refused() -> None:
    with pytest.raises(BadPayload, match="no name of a projection"):
        await ActorTest(TripActor).when("view_named", name="me.mory")


async def test_a_query_sends_nothing() -> None:
    with pytest.raises(InvariantError, match="is a query: it may send nothing"):
        await ActorTest(TripActor).when("tell_in_a_query")


# -- chunks, time, randomness -------------------------------------------------------------------------------------------------------------


async def test_chunks_are_shown_in_order_and_not_again_by_the_crash_check() -> None:
    result = await ActorTest(TripActor).when("talk", words=["a", "b"])
    assert result.chunks == ["a", "b", {"end": True}]


async def test_time_and_randomness_come_from_the_journal_and_repeat() -> None:
    """S15: from the recorded seed; `now` is the time of the last journal entry."""
    one, two, first_id, second_id, before, three, third_id, after = (await ActorTest(TripActor).when("draw")).reply
    assert len({one, two, three}) == 3
    assert all(0 <= number < 1 for number in (one, two, three))
    assert [first_id, second_id, third_id] == [derived_id("5eed", n) for n in (1, 2, 3)]
    assert all(is_token(name) for name in (first_id, second_id, third_id))
    assert datetime.fromisoformat(before) < datetime.fromisoformat(after)
    assert datetime.fromisoformat(before).tzinfo == UTC
    again = (await ActorTest(TripActor).when("draw")).reply
    assert again == [one, two, first_id, second_id, before, three, third_id, after]


# -- ActorTest itself ---------------------------------------------------------------------------------------------------------------------


async def test_given_events_when_a_query_then_it_answers_from_them() -> None:
    test = ActorTest(TripActor, "t1").given(Stopped(place="a"), Stopped(place="b"))
    assert (await test.when("count")).reply == 2
    assert (await test.when("where")).reply == "t1"
    assert test.state() == Trip(stops=["a", "b"])


async def test_what_one_command_emits_the_next_one_sees() -> None:
    test = ActorTest(TripActor)
    await test.when("price", place="Rome")
    await test.when("price", place="Oslo")
    assert (await test.when("count")).reply == 2


@pytest.mark.parametrize("after_step", [False, True])
async def test_a_refused_command_is_a_result_and_leaves_nothing(after_step: bool) -> None:
    test = ActorTest(TripActor).given(Stopped(place="kept"))
    result = await test.when("refuse", after_step=after_step)
    assert result.refused
    assert isinstance(result.refusal, Rejected)
    assert result.refusal.fields == {"seats": 0}
    assert result.events == []
    assert test.state().stops == result.state.stops == ["kept"]


async def test_the_crash_check_finds_a_handler_that_decides_otherwise_when_it_runs_again() -> None:
    """S19, S36: what a handler takes from outside, beside a step, differs after a crash."""
    NOISE.clear()
    with pytest.raises(InvariantError, match="noisy decides otherwise when its turn runs again"):
        await ActorTest(TripActor).when("noisy")


@pytest.mark.parametrize(("kind", "error"), [("nan", StepFailed), ("object", StepFailed), ("huge", StepFailed), ("large", TooLarge)])
async def test_a_reply_that_cannot_travel_fails_the_turn(kind: str, error: type[Exception]) -> None:
    """S12, S13."""
    with pytest.raises(error, match=r"the reply of (trip\.)?reply"):
        await ActorTest(TripActor).when("reply", kind=kind)


async def test_arguments_are_checked_as_at_the_edge() -> None:
    for arguments in ({}, {"place": 1}, {"place": "x", "extra": 1}):
        with pytest.raises(BadPayload):
            await ActorTest(TripActor).when("price", **arguments)
    with pytest.raises(EncodingError):
        await ActorTest(TripActor).when("price", place=float("nan"))
    with pytest.raises(ActorError, match="no method 'fly'"):
        await ActorTest(TripActor).when("fly")


def test_run_serves_tests_without_an_asyncio_plugin() -> None:
    assert run(ActorTest(TripActor).when("count")).reply == 0
