"""The closed list of LangChain's messages and LangGraph's own values that a checkpoint may hold (S38)."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    ChatMessageChunk,
    FunctionMessage,
    FunctionMessageChunk,
    HumanMessage,
    HumanMessageChunk,
    RemoveMessage,
    SystemMessage,
    SystemMessageChunk,
    ToolMessage,
    ToolMessageChunk,
)
from langchain_core.messages.base import TextAccessor
from langchain_core.runnables.utils import AddableDict
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.store.base import Item
from langgraph.types import Command, Interrupt, Overwrite, Send, TimeoutPolicy

from actors.graph.errors import UnregisteredTypeError
from actors.graph.kinds import PAIRS, Kind, Walk

EXTRA: Final = "+"
"""Fields that a message was given beyond those of its class. No field of a class can be called so."""
ABSENT: Final = object()


class _Shape(NamedTuple):
    """The fields of one class of messages, with what they are if nobody set them."""

    defaults: dict[str, Any]
    constant: frozenset[str]


def _shape(cls: Any) -> _Shape:
    defaults: dict[str, Any] = {}
    for name, field in cls.model_fields.items():
        defaults[name] = ABSENT if field.is_required() else field.get_default(call_default_factory=True)
    return _Shape(defaults, frozenset({"type"} & set(defaults)))


def _is_default(value: Any, default: Any) -> bool:
    """Only where nothing can be lost: the very constant, or an empty container of the same type."""
    if value is default:
        return value is None or isinstance(value, str | bool)
    return type(value) is type(default) and type(value) in (list, dict) and not value and not default


def _model(name: str, cls: Any, *, constant_type: bool = True) -> Kind:
    shape = _shape(cls)
    skipped = shape.constant if constant_type else frozenset[str]()

    def pack(value: Any, walk: Walk) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for key, item in value.__dict__.items():
            if key in skipped and item == shape.defaults[key]:
                continue
            if not _is_default(item, shape.defaults.get(key, ABSENT)):
                fields[key] = walk(item)
        if value.__pydantic_extra__:
            fields[EXTRA] = {key: walk(item) for key, item in value.__pydantic_extra__.items()}
        return fields

    def unpack(fields: dict[str, Any], walk: Walk) -> Any:
        extra = fields.get(EXTRA) or {}
        found = {key: walk(item) for key, item in fields.items() if key != EXTRA}
        unknown = found.keys() - shape.defaults.keys()
        if unknown:
            raise UnregisteredTypeError(f"a stored {name!r} has fields that this version of LangChain does not know: {sorted(unknown)}")
        told = set(found)
        for key, default in shape.defaults.items():
            if key not in found and default is not ABSENT:
                found[key] = default.copy() if isinstance(default, list | dict) else default
        return _made(cls, found, {key: walk(item) for key, item in extra.items()}, told)

    return Kind(name, pack, unpack, shared=True)


def _made(cls: Any, fields: dict[str, Any], extra: dict[str, Any], told: set[str]) -> Any:
    """What `model_construct` makes, without its price: it reads the signature of the factory of each default (400 us a message).

    No validator runs: they would rewrite what was stored, such as tool calls that are read out of additional_kwargs.
    """
    model = cls.__new__(cls)
    object.__setattr__(model, "__dict__", fields)
    object.__setattr__(model, "__pydantic_fields_set__", told | set(extra))
    object.__setattr__(model, "__pydantic_extra__", extra)
    object.__setattr__(model, "__pydantic_private__", None)
    return model


def _attributes(name: str, make: Callable[..., Any], names: tuple[str, ...]) -> Kind:
    return Kind(
        name,
        lambda value, walk: {key: walk(item) for key in names if (item := getattr(value, key)) is not None},
        lambda fields, walk: make(**{key: walk(fields[key]) if key in fields else None for key in names}),
        shared=True,
    )


def _pack_interrupt(value: Any, walk: Walk) -> dict[str, Any]:
    schema = value.response_schema
    if schema is not None and not isinstance(schema, dict):
        # The class itself cannot be stored; LangGraph surfaces its JSON Schema.
        schema = schema.model_json_schema() if hasattr(schema, "model_json_schema") else None
    return {"value": walk(value.value), "id": value.id, **({} if schema is None else {"response_schema": walk(schema)})}


def _unpack_interrupt(fields: dict[str, Any], walk: Walk) -> Any:
    schema = fields.get("response_schema")
    return Interrupt(walk(fields["value"]), fields["id"], response_schema=None if schema is None else walk(schema))


def _send(**fields: Any) -> Any:
    return Send(fields["node"], fields["arg"], timeout=fields["timeout"]) if fields["timeout"] else Send(fields["node"], fields["arg"])


def _command(**fields: Any) -> Any:
    return Command(**{key: item for key, item in fields.items() if item is not None})


_as_dict: Final = Kind(
    "plain", lambda value, walk: PAIRS.pack(value, walk), lambda fields, walk: {walk(key): walk(item) for key, item in fields["v"]}
)
"""LangChain's dict with `+`, which comes back as the dict that it is."""

BY_TYPE: Final[dict[type, Kind]] = {
    HumanMessage: _model("human", HumanMessage),
    HumanMessageChunk: _model("human_chunk", HumanMessageChunk),
    AIMessage: _model("ai", AIMessage),
    AIMessageChunk: _model("ai_chunk", AIMessageChunk),
    SystemMessage: _model("system", SystemMessage),
    SystemMessageChunk: _model("system_chunk", SystemMessageChunk),
    ToolMessage: _model("tool", ToolMessage),
    ToolMessageChunk: _model("tool_chunk", ToolMessageChunk),
    ChatMessage: _model("chat", ChatMessage),
    ChatMessageChunk: _model("chat_chunk", ChatMessageChunk),
    FunctionMessage: _model("function", FunctionMessage),
    FunctionMessageChunk: _model("function_chunk", FunctionMessageChunk),
    RemoveMessage: _model("remove", RemoveMessage),
    Document: _model("document", Document),
    TextAccessor: Kind("accessor", lambda value, walk: {"v": walk(str(value))}, lambda fields, walk: TextAccessor(walk(fields["v"]))),
    AddableDict: _as_dict,
    Send: _attributes("send", _send, ("node", "arg", "timeout")),
    Command: _attributes("command", _command, ("graph", "update", "resume", "goto")),
    Interrupt: Kind("interrupt", _pack_interrupt, _unpack_interrupt),
    Overwrite: Kind("overwrite", lambda value, walk: {"v": walk(value.value)}, lambda fields, walk: Overwrite(walk(fields["v"]))),
    TimeoutPolicy: _attributes("timeout", TimeoutPolicy, ("run_timeout", "idle_timeout", "refresh_on")),
    _DeltaSnapshot: Kind("snapshot", lambda value, walk: {"v": walk(value[0])}, lambda fields, walk: _DeltaSnapshot(walk(fields["v"]))),
    Item: _attributes("item", Item, ("value", "key", "namespace", "created_at", "updated_at")),
}

_encode: Final = msgspec.msgpack.Encoder().encode


def fingerprint(value: Any) -> int | None:
    """Tells whether a message is still what it was, at a tenth of the price of packing it again; None where it cannot be told.

    Messages are changed in place by programs, so that an object is the same says nothing about what it holds.
    """
    if not isinstance(value, BaseMessage):
        return None
    try:
        return hash(_encode((value.__dict__, value.__pydantic_extra__)))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None
