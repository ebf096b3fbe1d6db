"""Upcasters: chains are checked when an actor type is made, and run on read only."""

import time
from typing import Any

import msgspec
import pytest

from actors import Actor, Event, State, command, upcaster
from actors.registry import ActorType
from actors.testing import ActorTest, recorded
from actors.traps import ImpureError, pure
from events.envelope import NewEvent, RecordedEvent
from events.errors import ConfigurationError, CorruptLogError, UnknownEventTypeError
from events.ids import StreamId
from events.upcast import UpcastError, Upcasters


class Purse(State):
    cents: int = 0


class Filled(Event[Purse], tag="purse.filled", version=3):
    cents: int
    by: str

    def apply(self, state: Purse) -> None:
        state.cents += self.cents


class PurseActor(Actor[Purse], name="purse"):
    @command
    async def fill(self, cents: int) -> int:
        self.emit(Filled(cents=cents, by="me"))
        return self.state.cents


def one_to_two(old: dict[str, Any]) -> dict[str, Any]:
    return {"cents": old["euros"] * 100}


def two_to_three(old: dict[str, Any]) -> dict[str, Any]:
    old["by"] = "nobody"
    return old


def upcasters(**steps: Any) -> Upcasters:
    """Of purse.filled: ``v1=function``."""
    made = Upcasters()
    for name, step in steps.items():
        made.add("purse.filled", int(name[1:]), step)
    return made


def event(payload: bytes, version: int, tag: str = "purse.filled") -> RecordedEvent:
    return recorded(StreamId("purse/a"), 7, NewEvent(type=tag, schema_version=version, payload=payload), None, 1)


def kind(**steps: Any) -> ActorType[Purse]:
    return ActorType(PurseActor, upcasters(**steps))


def folded(actor: ActorType[Purse], *events: RecordedEvent) -> int:
    state = actor.initial()
    for each in events:
        actor.apply(state, each)
    return state.cents


def test_every_former_version_is_read_through_its_steps() -> None:
    actor = kind(v1=one_to_two, v2=two_to_three)
    events = event(b'{"euros":2}', 1), event(b'{"cents":30}', 2), event(b'{"cents":4,"by":"x"}', 3)
    assert folded(actor, *events) == 234
    assert actor.decode(events[0]) == Filled(cents=200, by="nobody")
    assert bytes(events[0].payload) == b'{"euros":2}'


def test_upcasting_repeats_and_never_changes_what_was_read() -> None:
    """A step may change the object that it gets: it is its own each time."""
    actor, old = kind(v1=one_to_two, v2=two_to_three), event(b'{"cents":30}', 2)
    assert [actor.decode(old) for _ in range(3)] == [Filled(cents=30, by="nobody")] * 3


def test_new_events_are_recorded_in_the_version_of_the_class() -> None:
    entry = kind(v1=one_to_two, v2=two_to_three).event_of(Filled(cents=1, by="x"))
    assert (entry.version, entry.chain.first) == (3, 1)


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ({"v1": one_to_two}, "no upcaster leads from version 2 to 3"),
        ({"v1": one_to_two, "v2": two_to_three, "v3": two_to_three}, "makes version 4 of purse.filled, but its class is at version 3"),
        ({"v2": two_to_three, "v4": two_to_three}, "makes version 5"),
    ],
)
def test_a_chain_with_a_gap_or_another_end_is_refused_when_the_app_is_put_together(steps: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        kind(**steps)


def test_a_step_that_exists_twice_is_refused_and_names_both() -> None:
    made = upcasters(v1=one_to_two)
    made.add("purse.filled", 1, one_to_two)  # a module that is loaded again
    with pytest.raises(ConfigurationError, match=r"one_to_two and .*two_to_three"):
        made.add("purse.filled", 1, two_to_three)


@pytest.mark.parametrize(("tag", "version"), [("Filled", 1), ("purse.filled", 0)])
def test_a_step_of_no_tag_or_version_is_refused(tag: str, version: int) -> None:
    with pytest.raises(ConfigurationError):
        Upcasters().add(tag, version, one_to_two)


def test_the_decorator_refuses_our_own_events_and_async_functions() -> None:
    with pytest.raises(ConfigurationError, match="Cuebook's own"):
        upcaster("turn.started", 1)(one_to_two)

    async def late(old: dict[str, Any]) -> dict[str, Any]:
        return old

    with pytest.raises(ConfigurationError, match="plain def"):
        upcaster("purse.filled", 1)(late)  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("tag", "version", "missing"),
    [
        ("purse.filled", 1, '@upcaster("purse.filled", 1): it reads purse.filled from schema version 2 on'),
        ("purse.filled", 4, "newer code: it knows purse.filled up to schema version 3"),
        ("purse.emptied", 1, "an event class with the tag 'purse.emptied' for purse"),
    ],
)
def test_what_cannot_be_read_names_tag_version_position_and_what_is_missing(tag: str, version: int, missing: str) -> None:
    actor = kind(v2=two_to_three)
    assert not actor.knows(tag, version)
    with pytest.raises(UnknownEventTypeError) as found:
        folded(actor, event(b"{}", version, tag))
    assert found.value.fields == {
        "type": tag, "schema_version": version, "missing": missing, "stream": "purse/a", "version": 7, "position": "0:7",
    }  # fmt: skip
    assert all(word in found.value.message for word in ("purse/a version 7", "0:7", tag, missing))


def raises(old: dict[str, Any]) -> dict[str, Any]:
    raise KeyError("euros")


def returns_a_list(old: dict[str, Any]) -> Any:
    return [old]


def makes_too_much(old: dict[str, Any]) -> dict[str, Any]:
    return {"cents": 1, "by": "x", "more": 1}


def makes_nan(old: dict[str, Any]) -> dict[str, Any]:
    return {"cents": float("nan"), "by": "x"}


@pytest.mark.parametrize(
    ("step", "says"),
    [
        (raises, "raises, raised KeyError"),
        (returns_a_list, "returned list, not a dict"),
        (makes_too_much, "make what Filled does not take"),
        (makes_nan, "is not JSON"),
    ],
)
def test_a_step_that_fails_stops_the_actor_and_names_the_place(step: Any, says: str) -> None:
    with pytest.raises(UpcastError, match=says) as found:
        folded(kind(v2=step), event(b'{"cents":1}', 2))
    assert (found.value.fields["stream"], found.value.fields["version"], found.value.fields["position"]) == ("purse/a", 7, "0:7")


@pytest.mark.parametrize(("payload", "error"), [(b"null", UpcastError), (b'{"cents', CorruptLogError)])
def test_a_stored_payload_that_is_no_object_is_not_given_to_a_step(payload: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        folded(kind(v2=two_to_three), event(payload, 2))


def test_a_step_that_reads_the_clock_is_caught_by_the_trap() -> None:
    """S16, I-9: the trap of actors.testing and `replay --verify` holds upcasters too."""

    def looks_at_the_clock(old: dict[str, Any]) -> dict[str, Any]:
        return {**old, "by": str(time.time())}

    actor = kind(v2=looks_at_the_clock)
    with pure(), pytest.raises(ImpureError, match="time"):
        folded(actor, event(b'{"cents":1}', 2))


def test_upcasters_registered_by_the_decorator_are_found_by_actor_types_and_tests() -> None:
    class Jar(State):
        coins: list[int] = []

    class Dropped(Event[Jar], tag="jar_of_test_upcast.dropped", version=2):
        coins: list[int]

        def apply(self, state: Jar) -> None:
            state.coins += self.coins

    class JarActor(Actor[Jar], name="jar"):
        pass

    @upcaster("jar_of_test_upcast.dropped", 1)
    def as_list(old: dict[str, Any]) -> dict[str, Any]:
        return {"coins": [old["coin"]]}

    test = ActorTest(JarActor)
    test._append(NewEvent(type="jar_of_test_upcast.dropped", schema_version=1, payload=b'{"coin":5}'))
    assert test.given(Dropped(coins=[1, 2])).state().coins == [5, 1, 2]
    assert as_list({"coin": 1}) == {"coins": [1]}


def test_the_version_of_today_pays_nothing_for_the_steps() -> None:
    def never(old: dict[str, Any]) -> dict[str, Any]:
        raise AssertionError("an event of today's version needs no step")

    assert folded(kind(v1=never, v2=never), event(msgspec.json.encode({"cents": 3, "by": "x"}), 3)) == 3
