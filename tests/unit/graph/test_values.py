"""What a checkpoint may hold, and that it comes back as it went in (S38, S13): a closed list of kinds, no class path, no code."""

import dataclasses
import enum
import ipaddress
import json
import math
import re
import sqlite3
from collections import OrderedDict, deque
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    HumanMessageChunk,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.types import Command, Interrupt, Overwrite, Send

from actors.graph import EventLogSaver, UnregisteredTypeError
from actors.graph.kinds import Kinds
from actors.graph.kinds_langgraph import BY_TYPE, fingerprint
from actors.graph.packing import CHUNK_CHARACTERS, Packer
from events.errors import ConfigurationError, CorruptLogError, EncodingError


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    y: "Point | None" = None


class Agenda(pydantic.BaseModel):
    steps: list[str]
    colour: Colour = Colour.RED


class Pair(NamedTuple):
    one: int
    two: str


class Note(msgspec.Struct):
    text: str


TYPES: dict[str, type] = {"colour": Colour, "point": Point, "plan": Agenda, "pair": Pair, "note": Note}


def packer() -> Packer:
    return Packer(Kinds(TYPES, BY_TYPE), fingerprint)


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types throughout: 1 is not True, a tuple no list."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    if isinstance(one, dict):
        return same(list(one), list(other)) and same(list(one.values()), list(other.values()))
    if isinstance(one, list | tuple | deque):
        return len(one) == len(other) and all(same(mine, theirs) for mine, theirs in zip(one, other, strict=True))
    return bool(one == other)


LONG = "a long text that is stored once and referred to from then on. " * 4
VALUES: list[Any] = [
    None, True, 0, -1, 2**63 - 1, -(2**63), 2**63, 10**40, 1.5, -0.0, 1e300, math.inf, -math.inf, math.nan, "", "text", "ü€😀", LONG,
    "\x00",
    "half \ud800 a pair", LONG + "\udfff", b"", b"\x00\xff", bytearray(b"abc"), (1, "two", (3,)), [1, [2, (3,)]], {1, 2}, frozenset({"a"}),
    {"a": {"b": [1]}}, {1: "int key", (1, 2): "tuple key", None: 0}, {"~": "a key of ours"}, {"~": 3}, {"\ud800": 1}, OrderedDict(b=1, a=2),
    deque([1, 2], maxlen=3), deque(), complex(1, -2), datetime(2026, 1, 2, 3, 4, 5, 6),  # noqa: DTZ001
    datetime(2026, 1, 2, tzinfo=UTC),
    datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1), date(2026, 1, 2), time(1, 2, 3, 4),
    timedelta(days=-1, microseconds=1),
    timezone(timedelta(hours=-3)), ZoneInfo("Europe/Berlin"), Decimal("1.10"), UUID(int=7), ipaddress.ip_address("::1"),
    ipaddress.ip_network("10.0.0.0/8"), Path("/elsewhere/x"), PurePosixPath("a/b"), re.compile(r"a+\n", re.MULTILINE), Colour.RED,
    Point(1, Point(2)), Agenda(steps=["a"]), Pair(1, "two"), Note("n"), HumanMessage("hi", id="1"), SystemMessage(LONG),
    RemoveMessage(id="x"),
    AIMessage(
        "", id="run-1", tool_calls=[{"name": "f", "args": {"a": (1,)}, "id": "c1"}], usage_metadata={"input_tokens": 1, "output_tokens": 2,
        "total_tokens": 3}, additional_kwargs={"k": [1]}, response_metadata={"model": "m"},
    ),
    AIMessageChunk(content="part", tool_call_chunks=[{"name": "f", "args": '{"a"', "id": "c", "index": 0}]),
    HumanMessageChunk(content="part"),
    ToolMessage("result", tool_call_id="c1", artifact={"raw": b"x"}, status="error"), ChatMessage(content="hi", role="judge"),
    FunctionMessage(content="x", name="f"),
    HumanMessage([{"type": "text", "text": LONG}, {"type": "image_url", "image_url": {"url": "data:,"}}]),
    AIMessage("x", name=None, custom="extra"), Document(page_content=LONG, metadata={"source": "s"}, id="d"),
    Interrupt(value={"question": "?"}, id="i1"), (Interrupt(value=1, id="i2"),), Send("node", {"a": HumanMessage("x")}),
    Command(update={"a": 1}, goto="node", resume={"i1": True}), Overwrite(["a"]),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}")
def test_s38_a_value_comes_back_as_it_went_in(value: Any) -> None:
    one = packer()
    found: Any = None
    for _ in range(2):  # the second time its parts are references
        text = one.text(value)
        json.loads(text)
        found = one.value(text)
        assert type(found) is type(value)
        if isinstance(value, Send):
            assert (found.node, found.arg) == (value.node, value.arg)
        else:
            assert same(found, value), found
    assert found is not value or isinstance(value, str | int | float | bool | bytes | type(None) | Colour | ZoneInfo)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters()) | st.binary(),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(st.characters()) | st.sampled_from(["~", "v"]), inner, max_size=4)
    | st.tuples(inner, inner),
    max_leaves=12,
)


@given(st.lists(plain, max_size=4))
@settings(max_examples=200, deadline=None)
def test_s38_any_plain_value_comes_back_and_equal_ones_are_equal_text(values: list[Any]) -> None:
    one = packer()
    for value in values:
        text = one.shared(value)
        assert same(one.value(text), value)
        assert one.shared(value) == text


def test_s38_content_stands_once() -> None:
    one = packer()
    message = AIMessage(LONG, id="run-7f4bb1c2-1f3c-4d0e-9a53-24b0f9a3d0c1")
    first = one.text([message])
    parts = len(one.parts)
    assert one.text([message]) == first
    assert one.text({"other": [message, LONG]}) == b'{"other":[{"~":%d},{"~":%d}]}' % (parts - 1, parts - 2)
    assert len(one.parts) == parts


def test_s38_a_message_that_was_changed_in_place_is_written_again() -> None:
    one = packer()
    message = AIMessage(LONG, id="1")
    before = one.text([message])
    message.content = "redacted, and long enough to be a part of its own: " + LONG
    after = one.text([message])
    assert after != before
    assert one.value(after)[0].content == message.content
    message.additional_kwargs["late"] = True
    assert one.value(one.text([message]))[0].additional_kwargs == {"late": True}
    assert one.value(before)[0].content == LONG


@pytest.mark.parametrize(
    "value", ["x" * (3 * CHUNK_CHARACTERS), b"x" * (2 * CHUNK_CHARACTERS), list(range(200_000)), "\x01" * CHUNK_CHARACTERS * 2], ids=type
)
def test_s12_a_large_value_is_stored_in_chunks(value: Any) -> None:
    one = packer()
    text = one.shared(value)
    assert one.value(text) == value
    assert all(len(part) <= 6 * CHUNK_CHARACTERS + 2 for part in one.parts.since(0))
    assert one.shared(value) == text


class Stranger:
    pass


@pytest.mark.parametrize(
    "value",
    [Stranger(), lambda: 1, object(), Stranger, {"deep": [Stranger()]}, HumanMessage("x", additional_kwargs={"a": Stranger()})],
    ids=type,
)
def test_s38_an_unknown_type_is_refused_and_says_what_to_do(value: Any) -> None:
    one = packer()
    with pytest.raises(UnregisteredTypeError, match=r"EventLogSaver\.open\(path, types=\{'"):
        one.text(value)


def test_s13_what_is_nested_too_deep_is_refused() -> None:
    value: list[Any] = []
    for _ in range(100):
        value = [value]
    with pytest.raises(EncodingError, match="too deep"):
        packer().text(value)


@pytest.mark.parametrize("name", ["", "Point", "a b", "~", ":point", "../x", "os.system!"])
def test_a_name_of_a_type_is_checked(name: str) -> None:
    with pytest.raises(ConfigurationError):
        Kinds({name: Point})


def test_a_class_that_cannot_be_taken_apart_is_not_registered() -> None:
    with pytest.raises(ConfigurationError, match="Stranger"):
        Kinds({"stranger": Stranger})


@pytest.mark.parametrize(
    "text",
    [
        b'{"~":"os.system","v":"true"}', b'{"~":":gone","v":{}}', b'{"~":"point","v":{}}', b'{"~":null}', b'{"~":[1]}', b'{"~":999}',
        b'{"~":-1}', b'{"~":"uuid","v":"no"}', b'{"~":"uuid"}', b'{"~":":point","v":{"z":1}}', b'{"~":":colour","v":"BLUE"}',
        b'{"~":"human","lc_kwargs":{},"hostile":1}', b'{"~":"tuple","v":3}', b'{"~":"bytes","v":7}', b'{"~":"dict","v":[1]}',
    ],
)  # fmt: skip
def test_s38_hostile_text_is_an_error_of_ours_and_names_no_code(text: bytes) -> None:
    try:
        found = packer().value(text)
    except (UnregisteredTypeError, CorruptLogError):
        return
    assert found == {"~": None}  # a key whose value is null is nobody's kind


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    made: list[str] = []
    import importlib

    monkeypatch.setattr(importlib, "import_module", lambda name, *rest: made.append(name))
    return made


async def test_s38_no_class_or_module_name_is_stored(tmp_path: Path, calls: list[str]) -> None:
    state = {"messages": [HumanMessage("hi"), AIMessage("ho")], "point": Point(1), "plan": Agenda(steps=["s"]), "colour": Colour.RED}
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"] = dict(state)
    checkpoint["channel_versions"] = dict.fromkeys(state, 1)
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    async with EventLogSaver.open(tmp_path / "threads", types=TYPES) as saver:
        await saver.aput(config, checkpoint, {"source": "loop", "step": 1}, dict.fromkeys(state, 1))
        found = await saver.aget_tuple(config)
    assert found is not None
    assert found.checkpoint["channel_values"] == state
    stored = b"".join(path.read_bytes() for path in (tmp_path / "threads" / "log").iterdir())
    # None that random bytes in front of the owner's name make: "P" and "langgraph-1" held "Plan", once in 256 runs.
    types, modules = (b"Point", b"Agenda", b"Colour", b"AIMessage", b"HumanMessage"), (b"langchain_core", b"test_values", b"pydantic")
    for name in (*types, *modules, b"builtins"):
        assert name not in stored, name
    assert calls == []
    # A program that does not know the types says which, and reads nothing wrong.
    async with EventLogSaver.open(tmp_path / "threads") as stranger:
        with pytest.raises(UnregisteredTypeError, match="'point'"):
            await stranger.aget_tuple(config)


async def test_s38_a_refused_value_stores_nothing(tmp_path: Path) -> None:
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    bad = empty_checkpoint()
    bad["channel_values"] = {"text": LONG, "bad": Stranger()}
    good = empty_checkpoint()
    good["channel_values"] = {"text": LONG * 2, "more": LONG}
    async with EventLogSaver.open(tmp_path / "threads") as saver:
        with pytest.raises(UnregisteredTypeError):
            await saver.aput(config, bad, {"source": "loop"}, {"text": 1, "bad": 1})
        assert await saver.aget_tuple(config) is None
        await saver.aput(config, good, {"source": "loop"}, {"text": 1, "more": 1})
    with sqlite3.connect(tmp_path / "threads" / "log" / "shard-0.db") as connection:
        assert connection.execute("SELECT count(*) FROM events").fetchall() == [(1,)]
    connection.close()
    async with EventLogSaver.open(tmp_path / "threads") as again:
        found = await again.aget_tuple(config)
        assert found is not None
        assert found.checkpoint["channel_values"] == good["channel_values"]
