"""emit encodes, decodes and applies at once, and refuses what would not fold the same from the log (S13, S16)."""

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import Actor, Event, State, command, query
from actors.errors import TooLarge
from actors.registry import ActorType
from actors.testing import ActorTest, run
from events.errors import ConfigurationError, EncodingError, InvariantError
from events.limits import EVENT_BYTES_MAX, INT64_MAX, INT64_MIN, JSON_DEPTH_MAX, TURN_BYTES_MAX, TURN_EVENTS_MAX


class Basket(State):
    things: list[Any] = []
    weight: float = 0.0


class Put(Event[Basket], tag="basket.put"):
    thing: Any

    def apply(self, state: Basket) -> None:
        state.things.append(self.thing)


class Weighed(Event[Basket], tag="basket.weighed"):
    grams: float
    label: str = ""

    def apply(self, state: Basket) -> None:
        state.weight += self.grams


class Broken(Event[Basket], tag="basket.broken"):
    def apply(self, state: Basket) -> None:
        raise ZeroDivisionError("apply")


THINGS: list[Any] = []
"""What `put_all` emits: values that could not come in as arguments."""


class BasketActor(Actor[Basket], name="basket"):
    @command
    async def put_all(self) -> int:
        for thing in THINGS:
            self.emit(thing)
        return len(self.state.things)

    @command
    async def share(self) -> list[Any]:
        shared: list[Any] = ["first"]
        self.emit(Put(thing=shared))
        shared.append("later")
        self.emit(Put(thing=shared))
        shared.clear()
        return self.state.things

    @command
    async def see(self) -> list[int]:
        seen = [len(self.state.things)]
        for thing in "ab":
            self.emit(Put(thing=thing))
            seen.append(len(self.state.things))
        return seen

    @command
    async def beside(self, thing: str) -> None:
        self.emit(Put(thing=thing))
        self.state.things.append("smuggled")

    @command
    async def beside_without_event(self) -> None:
        self.state.weight = 1.0

    @command
    async def remember(self) -> None:
        self.last = "thing"

    @command
    async def put_back(self) -> None:
        self.state = Basket()  # type: ignore[misc]

    @command
    async def catch_and_go_on(self) -> int:
        try:
            self.emit(Put(thing=math.nan))
        except EncodingError:
            self.emit(Put(thing="instead"))
        return len(self.state.things)

    @query
    def emit_in_a_query(self) -> None:
        self.emit(Put(thing=1))

    @query
    def change_in_a_query(self) -> None:
        self.state.things.append(1)


def emitting(*events: Any) -> ActorTest:
    THINGS[:] = events
    return ActorTest(BasketActor)


# -- what is applied is what was encoded --------------------------------------------------------------------------------------------------


async def test_an_emitted_event_changes_the_state_at_once() -> None:
    """S16."""
    assert (await ActorTest(BasketActor).when("see")).reply == [0, 1, 2]


async def test_a_list_that_the_handler_goes_on_changing_is_copied() -> None:
    """S16: live and replay fold the same bytes."""
    result = await ActorTest(BasketActor).when("share")
    assert result.reply == [["first"], ["first", "later"]]
    assert result.events == [Put(thing=["first"]), Put(thing=["first", "later"])]


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(INT64_MIN, INT64_MAX) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.lists(PLAIN, max_size=4))
def test_a_plain_value_comes_back_as_it_went_in(values: list[Any]) -> None:
    result = run(emitting(*(Put(thing=value) for value in values)).when("put_all"))
    assert result.state.things == values
    assert result.events == [Put(thing=value) for value in values]


async def test_an_integer_where_a_float_is_declared_is_folded_as_a_float() -> None:
    result = await emitting(Weighed(grams=2)).when("put_all")
    assert type(result.events[0].grams) is float  # type: ignore[attr-defined]


# -- what is refused ----------------------------------------------------------------------------------------------------------------------


WEIGH: Any = Weighed


@pytest.mark.parametrize(
    "event",
    [
        Weighed(grams=math.nan), Weighed(grams=math.inf), Put(thing=[-math.inf]), Put(thing={"a": [math.nan]}),
        Put(thing=2**63), Put(thing=-(2**63) - 1), Put(thing="\ud800"), Put(thing={"\udfff": 1}), Put(thing=object()), Put(thing=print),
        Put(thing=(1, 2)), Put(thing={1, 2}), Put(thing=b"bytes"), Put(thing={1: "a"}), Put(thing=Put(thing=1)),
        WEIGH(grams="2"), WEIGH(grams=None), WEIGH(grams=1.0, label=5),
    ],
    ids=repr,
)  # fmt: skip
async def test_a_value_that_does_not_come_back_from_json_raises_at_emit(event: Any) -> None:
    """S13, S16."""
    with pytest.raises(EncodingError, match=r"event basket\.(put|weighed)"):
        await emitting(event).when("put_all")


async def test_an_event_nested_too_deep_raises_at_emit() -> None:
    """S13: the event's own braces count as one level."""
    thing: Any = "core"
    for _ in range(JSON_DEPTH_MAX - 1):
        thing = [thing]
    assert (await emitting(Put(thing=thing)).when("put_all")).reply == 1
    with pytest.raises(EncodingError, match="nested deeper"):
        await emitting(Put(thing=[thing])).when("put_all")


async def test_a_cycle_raises_at_emit() -> None:
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(EncodingError, match=r"basket\.put"):
        await emitting(Put(thing=ring)).when("put_all")


async def test_what_is_no_event_of_the_actor_is_refused() -> None:
    for wrong in ("text", None, Basket(), Put):
        with pytest.raises(ConfigurationError, match="is no event of basket"):
            await emitting(wrong).when("put_all")


async def test_a_refused_event_leaves_the_state_alone_and_the_turn_may_go_on() -> None:
    result = await ActorTest(BasketActor).when("catch_and_go_on")
    assert result.state.things == ["instead"]
    assert result.events == [Put(thing="instead")]


async def test_an_apply_that_raises_fails_the_turn() -> None:
    with pytest.raises(ZeroDivisionError):
        await emitting(Broken()).when("put_all")


# -- bounds -------------------------------------------------------------------------------------------------------------------------------


ENVELOPE_BYTES = len(msgspec.json.encode(Put(thing="")))


async def test_an_event_of_exactly_one_mebibyte_is_taken_and_one_byte_more_is_not() -> None:
    """S12: checked before the append, 413."""
    fits = "x" * (EVENT_BYTES_MAX - ENVELOPE_BYTES)
    assert (await emitting(Put(thing=fits)).when("put_all")).reply == 1
    with pytest.raises(TooLarge, match=r"event basket\.put has 1,048,577 bytes") as refusal:
        await emitting(Put(thing=fits + "x")).when("put_all")
    assert refusal.value.number == 413


async def test_a_turn_emits_at_most_a_thousand_events() -> None:
    """S12, design.md 11."""
    assert (await emitting(*[Put(thing=1)] * TURN_EVENTS_MAX).when("put_all")).reply == TURN_EVENTS_MAX
    with pytest.raises(TooLarge, match="1,000 events"):
        await emitting(*[Put(thing=1)] * (TURN_EVENTS_MAX + 1)).when("put_all")


async def test_a_turn_emits_at_most_four_mebibytes() -> None:
    """S12: the sum of the payloads, whatever the single events are."""
    quarter = [Weighed(grams=1.0, label="x" * (TURN_BYTES_MAX // 4 - len(msgspec.json.encode(Weighed(grams=1.0)))))] * 4
    result = await emitting(*quarter).when("put_all")
    assert result.state.weight == 4.0
    with pytest.raises(TooLarge, match="4,194,304 bytes"):
        await emitting(*quarter, Put(thing=1)).when("put_all")


# -- nothing changes beside emit ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "arguments"), [("beside", {"thing": "x"}), ("beside_without_event", {})])
async def test_a_handler_that_changes_state_beside_emit_is_caught(method: str, arguments: dict[str, Any]) -> None:
    """S16, S36: its folded events give another state."""
    with pytest.raises(InvariantError, match=f"{method} changed the state beside emit"):
        await ActorTest(BasketActor).when(method, **arguments)


@pytest.mark.parametrize("method", ["remember", "put_back"])
async def test_an_actor_keeps_no_attributes(method: str) -> None:
    with pytest.raises(AttributeError, match="an actor keeps nothing but its state"):
        await ActorTest(BasketActor).when(method)


async def test_a_query_emits_nothing_and_changes_nothing() -> None:
    with pytest.raises(InvariantError, match="is a query: it may emit nothing"):
        await ActorTest(BasketActor).when("emit_in_a_query")
    with pytest.raises(InvariantError, match="the query change_in_a_query changed the state"):
        await ActorTest(BasketActor).when("change_in_a_query")


def test_an_event_class_made_after_registration_is_refused() -> None:
    """The registry is closed when the app is put together."""
    kind = ActorType(BasketActor)

    class Late(Event[Basket], tag="basket.late"):
        pass

    with pytest.raises(ConfigurationError, match="Late is no event of basket"):
        kind.event_of(Late())
