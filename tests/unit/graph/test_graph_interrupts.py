"""Interrupts as waits: id, schema of the answer, expiry, one who resolves them (S20, S21)."""

import dataclasses
import enum
import operator
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import pytest
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt
from pydantic import BaseModel, Field, TypeAdapter, ValidationError, field_validator

from actors.errors import BadPayload, Unknown
from actors.graph import GraphActor, graph_actor
from actors.graph.asking import BREAKPOINT
from actors.json_schema import check
from actors.testing import ActorTest
from events.errors import ConfigurationError

RAN: list[str] = []
"""Which nodes ran; a test clears it first."""


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    RAN.clear()


class Notes(TypedDict, total=False):
    notes: Annotated[list[str], operator.add]


class Booking(BaseModel):
    """What a person says of a trip."""

    decision: Literal["book", "drop"]
    cents: int = Field(ge=0, default=0)

    @field_validator("cents")
    @classmethod
    def even(cls, cents: int) -> int:
        """What no JSON Schema says."""
        if cents % 2:
            raise ValueError("an odd price")
        return cents


def asking(name: str, schema: Any = None) -> Callable[[Notes], Any]:
    def ask(state: Notes) -> Notes:
        answer = interrupt({"from": name}, response_schema=schema)
        RAN.append(name)
        return {"notes": [f"{name}: {answer.decision if isinstance(answer, Booking) else answer}"]}

    return ask


def graph(**nodes: Any) -> Any:
    """These nodes at once, and "last" behind them."""

    def last(state: Notes) -> Notes:
        RAN.append("last")
        return {"notes": ["last"]}

    builder: Any = StateGraph(Notes)
    builder.add_node("last", last)
    for name, schema in nodes.items():
        builder.add_node(name, asking(name, schema))
        builder.add_edge(START, name)
    builder.add_edge(list(nodes), "last")
    return builder


async def begun(actor: type[GraphActor]) -> ActorTest:
    test = ActorTest(actor)
    assert (await test.when("run", input={"notes": []})).waits == "interrupt"
    return test


async def open_ones(test: ActorTest) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await test.when("waiting")).reply
    return found


# -- schema -------------------------------------------------------------------------------------------------------------------------------


async def test_s20_an_answer_that_does_not_fit_the_schema_of_the_interrupt_is_refused_and_the_wait_stays_open() -> None:
    test = await begun(graph_actor(graph(trip=Booking), name="schema"))
    (one,) = await open_ones(test)
    assert one["schema"]["properties"]["decision"] == {"enum": ["book", "drop"], "title": "Decision", "type": "string"}
    assert one["node"] == "trip"
    assert one["wait_id"] == next(iter(test._waiting))
    for wrong, place in (("yes", "value"), ({"decision": "maybe"}, "value.decision"), ({"decision": "book", "cents": -2}, "value.cents")):
        with pytest.raises(BadPayload) as refused:
            await test.answer("interrupt", wrong)
        assert refused.value.fields["field"] == place
        assert await open_ones(test) == [one]
    assert RAN == []
    assert (await test.answer("interrupt", {"decision": "book", "cents": 2})).reply == {"notes": ["trip: book", "last"]}


async def test_s20_what_only_the_class_itself_refuses_is_asked_anew_with_the_reason() -> None:
    """A validator of the author's own is no part of the schema. The node that was answered beside it does not run again."""
    test = await begun(graph_actor(graph(other=None, trip=Booking), name="anew"))
    assert (await test.answer("interrupt", "fine")).waits == "interrupt"
    again = await test.answer("interrupt", {"decision": "book", "cents": 3})
    assert again.waits == "interrupt"
    assert RAN == ["other"]
    (one,) = await open_ones(test)
    assert one["node"] == "trip"
    assert "an odd price" in one["refused"]
    assert (await test.when("status")).reply == "waiting"
    done = await test.answer("interrupt", {"decision": "drop", "cents": 4})
    assert done.reply == {"notes": ["other: fine", "trip: drop", "last"]}
    assert RAN == ["other", "trip", "last"]


async def test_s20_a_plain_interrupt_takes_the_schema_and_the_expiry_that_the_actor_class_names_for_its_node() -> None:
    actor = graph_actor(
        graph(left=None, right=None), name="bynode", answers={"left": Literal["yes", "no"], None: int},
        answer_timeout_s={"right": 60.0},
    )  # fmt: skip
    test = await begun(actor)
    left, right = await open_ones(test)
    assert (left["schema"], left.get("timeout_s")) == ({"enum": ["no", "yes"]}, None)
    assert (right["schema"], right["timeout_s"]) == ({"type": "integer"}, 60.0)
    with pytest.raises(BadPayload):
        await test.answer("interrupt", "perhaps")
    assert (await test.answer("interrupt", "yes")).waits == "interrupt"
    with pytest.raises(BadPayload):
        await test.answer("interrupt", "yes")
    assert (await test.answer("interrupt", 7)).reply == {"notes": ["left: yes", "right: 7", "last"]}


@pytest.mark.parametrize(
    "attributes", [{"answers": {"nowhere": int}}, {"answer_timeout_s": {"nowhere": 1.0}}, {"answers": complex}, {"answer_timeout_s": -1}]
)
def test_what_an_actor_class_says_of_interrupts_is_checked_at_once(attributes: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        graph_actor(graph(left=None), name="wrong", **attributes)


class Color(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    y: float | None


@dataclasses.dataclass
class Cat:
    kind: Literal["cat"]
    lives: Annotated[int, Field(gt=0, le=9)]


@dataclasses.dataclass
class Dog:
    kind: Literal["dog"]
    names: Annotated[list[str], Field(min_length=1, max_length=2)]


PET = Annotated[Cat | Dog, Field(discriminator="kind")]
KINDS: list[Any] = [Booking, Point, Cat, PET, list[PET], Color, Literal["a"], int | None, tuple[int, str], dict[str, Point]]
VALUES: list[Any] = [
    None, True, 0, 5, 1.5, "", "a", "red", [], [1, "a"], [1], {}, {"decision": "book"}, {"decision": "book", "cents": -1}, {"decision": 1},
    {"x": 1, "y": None}, {"x": 1, "y": 2.5}, {"x": 1}, {"x": "1", "y": None}, {"kind": "cat", "lives": 9}, {"kind": "cat", "lives": 0},
    {"kind": "dog", "names": ["a"]}, {"kind": "dog", "names": []}, {"kind": "cow"}, [{"kind": "dog", "names": ["a", "b", "c"]}],
    [{"kind": "cat", "lives": 1}], {"p": {"x": 1, "y": 0.5}}, {"p": {"x": 1}},
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_s20_the_schema_of_a_response_says_of_every_value_what_pydantic_says(kind: Any) -> None:
    schema = msgspec.json.encode(TypeAdapter(kind).json_schema())
    for value in VALUES:
        try:
            TypeAdapter(kind).validate_json(msgspec.json.encode(value), strict=True)
            fits = True
        except ValidationError:
            fits = False
        try:
            check(schema, value, "it")
            said = True
        except BadPayload:
            said = False
        assert said == fits, (value, schema)


def test_a_schema_that_is_read_in_part_never_refuses_what_it_might_allow() -> None:
    lenient: list[dict[str, Any]] = [
        {"not": {"if": {}}}, {"$ref": "#/nowhere"}, {"pattern": "(?<bad"}, {"oneOf": [{"type": "integer"}, {"type": "number"}]},
    ]  # fmt: skip
    for schema in lenient:
        check(msgspec.json.encode(schema), 5 if "oneOf" in schema else "text", "it")
    tree = msgspec.json.encode({"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["name"]})
    check(tree, {"name": 1, "next": {"name": 2}}, "it")
    with pytest.raises(BadPayload, match=r"value\.next\.name"):
        check(tree, {"name": 1, "next": {}}, "it")


# -- expiry -------------------------------------------------------------------------------------------------------------------------------


async def test_s20_an_interrupt_that_nobody_answers_in_time_ends_the_run_as_expired_and_can_be_resumed() -> None:
    test = await begun(graph_actor(graph(left=Booking, right=None), name="late", answer_timeout_s=60.0))
    assert (await test.answer("interrupt", {"decision": "book"})).waits == "interrupt"
    ended = await test.expire("interrupt")
    (closed,) = ended.reply["__interrupt__"]
    assert (closed["status"], closed["node"], ended.reply["notes"]) == ("expired", "right", [])
    assert (await test.when("status")).reply == "expired"
    assert RAN == []
    # What was answered in time still counts; only the rest is wanted.
    (still,) = await open_ones(test)
    assert still["id"] == closed["id"]
    for wrong in ({still["id"]: "yes", "another": "yes"}, {}):
        refused = (await test.when("resume", answers=wrong)).refusal
        assert refused is not None
        assert (refused.fields["reason"], refused.fields["open"]) == ("not_open", [still["id"]])
    done = await test.when("resume", answers={still["id"]: "yes"})
    assert done.reply == {"notes": ["left: book", "right: yes", "last"]}
    assert (await test.when("status")).reply == "done"
    again = (await test.when("resume", answers={still["id"]: "yes"})).refusal
    assert again is not None
    assert again.fields["reason"] == "not_open"


async def test_s20_a_resume_is_held_to_the_schema_as_well() -> None:
    test = await begun(graph_actor(graph(trip=Booking), name="latewrong", answer_timeout_s=60.0))
    await test.expire("interrupt")
    (one,) = await open_ones(test)
    with pytest.raises(BadPayload, match=r"value\.decision"):
        await test.when("resume", answers={one["id"]: {"decision": "maybe"}})
    assert (await test.when("status")).reply == "expired"
    # And what only the class refuses is a wait again.
    assert (await test.when("resume", answers={one["id"]: {"decision": "book", "cents": 1}})).waits == "interrupt"
    assert (await test.answer("interrupt", {"decision": "book"})).reply == {"notes": ["trip: book", "last"]}


async def test_an_expired_thread_may_begin_anew() -> None:
    test = await begun(graph_actor(graph(left=None), name="anewlate", answer_timeout_s=60.0))
    await test.expire("interrupt")
    assert (await test.when("run", input={"notes": ["second"]})).waits == "interrupt"
    assert (await test.answer("interrupt", "yes")).reply == {"notes": ["second", "left: yes", "last"]}


# -- one who resolves it ------------------------------------------------------------------------------------------------------------------


async def test_s21_a_thread_that_waits_takes_no_other_run_and_no_resume() -> None:
    test = await begun(graph_actor(graph(left=None), name="busy"))
    (one,) = await open_ones(test)
    for method, arguments in (("run", {"input": {"notes": []}}), ("resume", {"answers": {one["id"]: "yes"}})):
        refused = (await test.when(method, **arguments)).refusal
        assert refused is not None, f"{method} was accepted"
        assert (refused.number, refused.fields["reason"], refused.fields["waits"]) == (409, "waiting", [one["wait_id"]])
        assert refused.fields["command_id"] == "test-1"
        assert one["wait_id"] in refused.message
    # Another thread of the same actor is free.
    assert (await test.when("run", input={"notes": []}, thread="other")).waits == "interrupt"
    assert (await test.answer("interrupt", "yes")).reply == {"notes": ["left: yes", "last"]}
    with pytest.raises(Unknown):
        await test.answer("nothing", "yes")


async def test_s22_a_run_that_was_cancelled_leaves_a_thread_that_can_be_resumed() -> None:
    test = await begun(graph_actor(graph(left=None), name="cancelled"))
    (one,) = await open_ones(test)
    test._waiting.clear()  # as `_cancel` leaves it: the turn is gone, the state is not touched
    assert (await test.when("status")).reply == "stopped"
    assert (await test.when("resume", answers={one["id"]: "yes"})).reply == {"notes": ["left: yes", "last"]}


async def test_a_graph_that_stops_before_a_node_waits_as_well() -> None:
    test = await begun(graph_actor(graph(left=None).compile(interrupt_before=["last"]), name="breaking"))
    assert (await test.answer("interrupt", "yes")).waits == "interrupt"
    (one,) = await open_ones(test)
    assert (one["id"], one["value"]) == (BREAKPOINT, {"next": ["last"]})
    assert (await test.answer("interrupt", None)).reply == {"notes": ["left: yes", "last"]}
    assert RAN == ["left", "last"]
