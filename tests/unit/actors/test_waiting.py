"""`wait_for` through `actors.testing`: the same engine as production (S36), and what may answer a wait."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest

from actors.errors import BadPayload, Unknown
from actors.json_schema import check, schema_of
from actors.testing import ActorTest
from ops.examples.approval import Decided, Decision, ExpenseActor, Submitted
from tests.support.desk import EFFECTS, DeskActor, Written


async def test_s36_given_when_answer_then() -> None:
    test = ActorTest(ExpenseActor, "42")
    first = await test.when("submit", cents=5, what="a pen")
    assert (first.waits, first.events) == ("decision", [Submitted(cents=5, what="a pen")])
    assert first.journal == ["turn.started", "wait.opened"]
    assert (await test.when("status")).reply == "waiting"
    last = await test.answer("decision", {"approved": True, "note": "fine"})
    assert (last.waits, last.reply, last.events) == (None, "approved", [Decided(status="approved", note="fine")])


async def test_s36_a_wait_that_expires() -> None:
    test = ActorTest(ExpenseActor, "42")
    await test.when("submit", cents=5, what="a pen")
    assert (await test.expire("decision")).reply == "expired"


async def test_s36_a_wrong_answer_leaves_the_wait_open() -> None:
    test = ActorTest(ExpenseActor, "42")
    with pytest.raises(Unknown):
        await test.answer("decision", {"approved": True})
    await test.when("submit", cents=5, what="a pen")
    with pytest.raises(BadPayload):
        await test.answer("decision", {"approved": "yes"})
    assert (await test.answer("decision", {"approved": False})).reply == "declined"
    with pytest.raises(Unknown):
        await test.answer("decision", {"approved": True})


async def test_s20_self_state_is_the_current_one_behind_a_wait() -> None:
    """Others are handled while it waits; the segment before it is run again on the state that it saw."""
    test = ActorTest(DeskActor, "a").given(Written(line="given"))
    assert (await test.when("sign", paper="p")).events == [Written(line="asked for p as 2")]
    await test.when("write", line="between")
    assert (await test.answer("signature", "Ada")).events == [Written(line="p signed by Ada as 4")]
    assert test.state().lines == ["given", "asked for p as 2", "between", "p signed by Ada as 4"]


async def test_s19_steps_before_a_wait_are_not_called_again() -> None:
    calls: list[str] = []

    async def counted(*args: str) -> str:
        calls.append(args[0])
        return "done"

    EFFECTS["draft"] = EFFECTS["check"] = counted
    test = ActorTest(DeskActor, "a")
    assert (await test.when("decide", paper="p")).waits == "decision"
    assert (await test.answer("decision", {"approved": True})).waits == "decision"
    assert (await test.answer("decision", {"approved": False})).reply[:2] == [True, False]
    assert calls == ["p", "p"]


# -- what may answer ----------------------------------------------------------------------------------------------------------------------


class Point(msgspec.Struct, forbid_unknown_fields=True):
    x: int
    y: float = 0.0


class Named(msgspec.Struct, tag=True):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=5, pattern="^[a-z]+$")]


class Numbered(msgspec.Struct, tag=True):
    number: Annotated[int, msgspec.Meta(ge=1, lt=10)]


TYPES: list[Any] = [
    int, float, str, bool, None, int | None, list[int], tuple[int, str], dict[str, int], Literal["a", "b", 3], Point, Point | None,
    Decision, Named | Numbered, list[Named | Numbered], Annotated[list[int], msgspec.Meta(min_length=1, max_length=2)],
    Annotated[datetime, msgspec.Meta(tz=True)], UUID, bytes, dict[str, Point], set[int], Any,
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 10, 1.5, 2.0, "", "a", "abc", "ABC", "abcdef", 3, [], [1], [1, 2], [1, 2, 3], [1, "a"], ["a"], [1.5], {},
    {"a": 1}, {"a": "b"}, {"x": 1}, {"x": 1, "y": 2}, {"x": 1, "z": 2}, {"x": "1"}, {"y": 1.0}, {"approved": True}, {"approved": 1},
    {"approved": True, "note": 5}, {"type": "Named", "name": "abc"}, {"type": "Named", "name": ""}, {"type": "Numbered", "number": 5},
    {"type": "Numbered", "number": 10}, {"type": "Other"}, [{"type": "Named", "name": "x"}], [{"type": "Nobody"}], {"p": {"x": 1}},
    {"p": {"x": 1, "q": 1}}, "2026-01-01T00:00:00Z", "not a date", "12345678-1234-5678-1234-567812345678", "YWJj", "*",
]  # fmt: skip


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_s20_the_schema_says_of_every_value_what_msgspec_says(kind: Any) -> None:
    """An answer is judged by the schema kept beside the wait; the handler then decodes it with msgspec: they must agree."""
    schema = schema_of(kind, "it")
    for value in VALUES:
        body = msgspec.json.encode(value)
        try:
            msgspec.json.decode(body, type=kind)
            fits = True
        except msgspec.ValidationError:
            fits = False
        try:
            check(schema, value, "it")
            said = True
        except BadPayload:
            said = False
        assert said == fits, (value, schema)
