"""Fields that must not leave the house: marked in the type, found in recorded bodies when a bug report is made."""

from collections.abc import Iterator
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import inspect as shapes

T = TypeVar("T")

_MARK: Final = {"sensitive": True}
Sensitive = Annotated[T, msgspec.Meta(extra=_MARK)]
"""``email: Sensitive[str]`` on an event, a state or an argument: its value is taken out of every bug report, wherever it stands.

It is stored in clear all the same; an actor with ``sealed=True`` is what keeps a whole stream unreadable.
"""


def sensitive_values(type_: Any, value: Any) -> Iterator[Any]:
    """Every value at a place of `value`, plain JSON, that `type_` marks as sensitive. What does not fit the type yields nothing."""
    yield from _found(shapes.type_info(type_), value)


def _found(shape: shapes.Type, value: Any) -> Iterator[Any]:
    match shape:
        case shapes.Metadata():
            if shape.extra is not None and shape.extra.get("sensitive"):
                yield from _leaves(value)
            else:
                yield from _found(shape.type, value)
        case shapes.StructType() | shapes.DataclassType() | shapes.TypedDictType() if isinstance(value, dict):
            for field in shape.fields:
                if field.encode_name in value:
                    yield from _found(field.type, value[field.encode_name])
        case shapes.DictType() if isinstance(value, dict):
            for key, inner in value.items():
                yield from _found(shape.key_type, key)
                yield from _found(shape.value_type, inner)
        case shapes.ListType() | shapes.SetType() | shapes.FrozenSetType() | shapes.VarTupleType() if isinstance(value, list):
            for inner in value:
                yield from _found(shape.item_type, inner)
        case shapes.TupleType() if isinstance(value, list):
            for item_type, inner in zip(shape.item_types, value, strict=False):
                yield from _found(item_type, inner)
        case shapes.UnionType():
            # Which member it is does not matter: too much is redacted rather than too little.
            for member in shape.types:
                yield from _found(member, value)
        case _:
            return


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    elif value is not None and not isinstance(value, bool):
        yield value
