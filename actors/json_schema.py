"""What may answer a wait, as JSON Schema: kept beside the wait, so that an answer is checked before anything of its turn is loaded.

Of JSON Schema (2020-12) what `msgspec.json.schema` and pydantic write is read; tests compare the verdicts with theirs. They differ where a
schema says less than the type: of a `datetime` without ``tz=True`` msgspec's says "string", and of a validator nothing is said. Words that
are not read (``if``, ``not``, ``contains``, ``dependentRequired``, other formats) allow everything, and ``oneOf`` is read as ``anyOf``: who
asks with a schema that nothing fits could not be answered at all.
"""

import operator
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import msgspec

from actors.errors import BadPayload
from events.codec import encode
from events.errors import ConfigurationError

Schema = Mapping[str, Any]
_FORMATS: Final[Mapping[str, Any]] = {
    "date-time": datetime, "date": date, "time": time, "duration": timedelta, "uuid": UUID, "decimal": Decimal,
}  # fmt: skip


def schema_of(type: Any, name: str) -> bytes | None:
    """The schema of what `type` takes, None if it takes anything.

    Raises:
        ConfigurationError: JSON cannot carry the type.
    """
    schema = _of(type, name)
    return encode(schema) if schema else None


def outcome_schema(type: Any, name: str) -> bytes:
    """What a person may say of an ambiguous ``once`` step: its result, that it failed, or that it shall be repeated (S21)."""
    schema = dict(_of(type, name))
    definitions = schema.pop("$defs", {})

    def one(field: str, value: Schema) -> Schema:
        return {"type": "object", "properties": {field: value}, "required": [field], "additionalProperties": False}

    said = [one("result", schema), one("error", {"type": "string"}), one("repeat", {"enum": [True]})]
    return encode({"anyOf": said, "$defs": definitions})


def _of(type: Any, name: str) -> Schema:
    try:
        schema: Schema = msgspec.json.schema(type)
    except TypeError as error:
        raise ConfigurationError(f"{name}: JSON cannot carry {type!r}: {error}") from error
    return schema


def check(schema: bytes | None, value: Any, what: str) -> None:
    """Whether `value`, plain JSON, is what `schema` asks for.

    Raises:
        BadPayload: it is not; `field` names the place.
    """
    if schema is None:
        return
    whole: Schema = msgspec.json.decode(schema)
    definitions = {"#": whole, **whole.get("definitions", {}), **whole.get("$defs", {})}
    try:
        fault = _fault(whole, value, "value", definitions)
    except RecursionError as error:
        raise BadPayload(f"{what}: the value is nested too deeply for its schema", field="value") from error
    if fault is not None:
        path, reason = fault
        raise BadPayload(f"{what}: {path} {reason}", field=path)


Fault = tuple[str, str]
_BOUNDS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "minimum": operator.ge, "maximum": operator.le, "exclusiveMinimum": operator.gt, "exclusiveMaximum": operator.lt,
    "multipleOf": lambda value, step: value % step == 0,
}  # fmt: skip


def _fault(schema: Schema | bool, value: Any, path: str, definitions: Mapping[str, Schema]) -> Fault | None:
    """The place and the reason of the first thing that does not fit."""
    if isinstance(schema, bool):
        return None if schema else (path, "may not stand there")
    if (reference := schema.get("$ref")) is not None:
        fault = _fault(definitions.get(reference.rpartition("/")[2], {}), value, path, definitions)
        if fault is not None:
            return fault
    for choices in ("anyOf", "oneOf"):
        if choices in schema and (fault := _any_fault(schema[choices], value, path, definitions)) is not None:
            return fault
    for part in schema.get("allOf", ()):
        if (fault := _fault(part, value, path, definitions)) is not None:
            return fault
    if "const" in schema and not _same(value, schema["const"]):
        return path, f"is not {schema['const']!r}"
    if "enum" in schema and not any(_same(value, allowed) for allowed in schema["enum"]):
        return path, f"is none of {', '.join(map(repr, schema['enum'][:10]))}"
    kinds = schema.get("type", ())
    kinds = (kinds,) if isinstance(kinds, str) else kinds
    if kinds and not any(_is(kind, value) for kind in kinds):
        return path, f"is no {' or '.join(kinds)}"
    if isinstance(value, str):
        return _text_fault(schema, value, path)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number_fault(schema, value, path)
    if isinstance(value, list):
        return _array_fault(schema, value, path, definitions)
    if isinstance(value, dict):
        return _object_fault(schema, value, path, definitions)
    return None


def _any_fault(choices: list[Schema], value: Any, path: str, definitions: Mapping[str, Schema]) -> Fault | None:
    faults = [_fault(choice, value, path, definitions) for choice in choices]
    if None in faults:
        return None
    # The choice that was meant is the one that fits furthest.
    deepest = max((fault for fault in faults if fault is not None), key=lambda fault: len(fault[0]))
    return deepest if len(deepest[0]) > len(path) else (path, "is none of what may stand there")


def _is(kind: str, value: Any) -> bool:
    match kind:
        case "null":
            return value is None
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            # As msgspec: 1.0 is no integer.
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "string":
            return isinstance(value, str)
        case "array":
            return isinstance(value, list)
        case _:
            return isinstance(value, dict)


def _same(value: Any, allowed: Any) -> bool:
    return type(value) is type(allowed) and bool(value == allowed)


def _text_fault(schema: Schema, value: str, path: str) -> Fault | None:
    if len(value) < schema.get("minLength", 0) or len(value) > schema.get("maxLength", len(value)):
        return path, f"has {len(value)} characters"
    if (pattern := schema.get("pattern")) is not None and not _matches(pattern, value):
        return path, f"does not match {pattern!r}"
    wanted = bytes if schema.get("contentEncoding") == "base64" else _FORMATS.get(schema.get("format", ""))
    if wanted is not None:
        try:
            msgspec.convert(value, wanted)
        except msgspec.ValidationError as error:
            return path, f"is not what it should be: {error}"
    return None


def _matches(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return True  # written for another engine


def _number_fault(schema: Schema, value: float, path: str) -> Fault | None:
    for name, holds in _BOUNDS.items():
        if name in schema and not holds(value, schema[name]):
            return path, f"is {value}, {name} is {schema[name]}"
    return None


def _array_fault(schema: Schema, value: list[Any], path: str, definitions: Mapping[str, Schema]) -> Fault | None:
    if len(value) < schema.get("minItems", 0) or len(value) > schema.get("maxItems", len(value)):
        return path, f"has {len(value)} items"
    if schema.get("uniqueItems") and any(_same(item, other) for index, item in enumerate(value) for other in value[:index]):
        return path, "holds something twice"
    first: list[Schema] = schema.get("prefixItems", [])
    rest = schema.get("items", {})
    for index, item in enumerate(value):
        wanted = first[index] if index < len(first) else rest
        if isinstance(wanted, bool):
            wanted = {} if wanted else {"enum": []}
        if (fault := _fault(wanted, item, f"{path}[{index}]", definitions)) is not None:
            return fault
    return None


def _object_fault(schema: Schema, value: dict[str, Any], path: str, definitions: Mapping[str, Schema]) -> Fault | None:
    for name in schema.get("required", ()):
        if name not in value:
            return f"{path}.{name}", "is missing"
    if len(value) < schema.get("minProperties", 0) or len(value) > schema.get("maxProperties", len(value)):
        return path, f"has {len(value)} fields"
    known: Mapping[str, Any] = schema.get("properties", {})
    others = schema.get("additionalProperties", {})
    patterns: Mapping[str, Any] = schema.get("patternProperties", {})
    for name, item in value.items():
        if "propertyNames" in schema and (fault := _fault(schema["propertyNames"], name, f"{path}.{name}", definitions)) is not None:
            return fault
        by_pattern = [wanted for pattern, wanted in patterns.items() if _matches(pattern, name)]
        for wanted in by_pattern:
            if (fault := _fault(wanted, item, f"{path}.{name}", definitions)) is not None:
                return fault
        wanted = known.get(name, {} if by_pattern else others)
        if wanted is False:
            return f"{path}.{name}", "is not expected"
        if isinstance(wanted, dict) and (fault := _fault(wanted, item, f"{path}.{name}", definitions)) is not None:
            return fault
    return None
