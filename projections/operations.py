"""The operations of a projection: found by their mark, called with strictly decoded JSON. Knows no transport."""

import inspect
import re
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from events.codec import decode_strict
from events.errors import ConfigurationError, EncodingError
from events.ids import is_token
from projections.errors import BadArgumentsError
from projections.projection import is_operation

AFTER: Final = "_after"
"""The argument of ours: shard to position that the view must have reached before it answers."""
CALLER: Final = "_caller"
"""Another: the actor whose turn asks, ``type/id``. Its id is its workspace: an operation with a parameter `WORKSPACE` is about that one."""
WORKSPACE: Final = "workspace"
_PATH: Final = re.compile(r"at `\$\.?([^`]*)`")
_FIELD: Final = re.compile(r"field `([^`]+)`")


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One operation. arguments: a Struct of its parameters; returns: its annotated result; summary: first line of its docstring."""

    name: str
    function: Callable[..., Any]
    arguments: type[msgspec.Struct]
    returns: Any
    is_async: bool
    summary: str


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One call. after: positions that the view must have reached."""

    arguments: Mapping[str, Any]
    after: Mapping[int, int] = {}


def operations_of(target: Any) -> dict[str, Operation]:
    """What is marked in the class of `target`, by name.

    Raises:
        ConfigurationError: a parameter that JSON cannot give a value.
    """
    found: dict[str, Operation] = {}
    for name, member in inspect.getmembers(type(target), is_operation):
        if name.startswith("_") or not is_token(name):
            raise ConfigurationError(f"{type(target).__name__}.{name}: names with a leading '_' are Cuebook's own")
        found[name] = _operation(name, member, getattr(target, name))
    return found


def _operation(name: str, member: Any, bound: Callable[..., Any]) -> Operation:
    where = member.__qualname__
    try:
        hints = typing.get_type_hints(member, include_extras=True)
    except NameError as error:
        raise ConfigurationError(f"{where}: the annotation {error.name!r} cannot be resolved") from error
    parameters = list(inspect.signature(member).parameters.values())[2:]
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for parameter in parameters:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ConfigurationError(f"{where}: the parameter {parameter.name} cannot be given by name")
        kind = hints.get(parameter.name, Any)
        needed = parameter.default is parameter.empty
        fields.append((parameter.name, kind) if needed else (parameter.name, kind, _default(parameter.default)))
    try:
        arguments = msgspec.defstruct(f"{where}.arguments", fields, kw_only=True, frozen=True, forbid_unknown_fields=True)
        msgspec.json.Decoder(arguments)
    except TypeError as error:
        raise ConfigurationError(f"{where}: {error}") from error
    summary = (inspect.getdoc(member) or "").partition("\n")[0]
    return Operation(
        name=name, function=bound, arguments=arguments, returns=hints.get("return", Any), is_async=inspect.iscoroutinefunction(member),
        summary=summary,
    )  # fmt: skip


def _default(value: Any) -> Any:
    """A mutable default as msgspec wants it; others as they are."""
    if isinstance(value, list | dict | set) and value:
        return msgspec.field(default_factory=lambda: type(value)(value))
    return value


def parse_request(operation: Operation, body: bytes) -> Request:
    """A request's body; an empty one stands for no arguments.

    Raises:
        BadArgumentsError: no JSON object of the operation's parameters (S13); names the field.
    """
    try:
        given = decode_strict(body or b"{}")
    except EncodingError as error:
        raise BadArgumentsError(f"{operation.name}: {error.message}", field=error.fields.get("field")) from error
    if not isinstance(given, dict):
        raise BadArgumentsError(f"{operation.name}: the body is no JSON object", field=None)
    after = _positions(operation.name, given.pop(AFTER, None))
    _bind_workspace(operation, given, given.pop(CALLER, None))
    try:
        made = msgspec.convert(given, operation.arguments)
    except msgspec.ValidationError as error:
        raise BadArgumentsError(f"{operation.name}: {error}", field=_field_of(str(error))) from error
    return Request(arguments={field: getattr(made, field) for field in operation.arguments.__struct_fields__}, after=after)


def _bind_workspace(operation: Operation, given: dict[str, Any], caller: object) -> None:
    """An actor sees its own workspace and no other, whatever it asks for; a client says which one it means."""
    if caller is None:
        return
    own = str(caller).partition("/")[2]
    if WORKSPACE in operation.arguments.__struct_fields__ and given.setdefault(WORKSPACE, own) != own:
        raise BadArgumentsError(f"{operation.name}: {caller} is of workspace {own!r} and sees no other", field=WORKSPACE)


def _positions(name: str, given: Any) -> dict[int, int]:
    try:
        return msgspec.convert({} if given is None else given, dict[int, int], strict=False)
    except msgspec.ValidationError as error:
        raise BadArgumentsError(f"{name}: {AFTER} is an object of shard to position, such as {{\"0\": 17}}", field=AFTER) from error


def _field_of(message: str) -> str | None:
    found = _PATH.search(message) or _FIELD.search(message)
    return found[1] or None if found else None
