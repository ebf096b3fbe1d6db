"""The closed list of types that a checkpoint may hold, as JSON that names no class (S38).

JSON's own values stand as they are. Everything else is an object with the key ``~``: a *kind* from this list, or the number of a part that
was written before (`packing`). An object of the user's that has this key itself is written as kind ``dict``. What is read is made only by
the functions of this list; a kind that is not in it is an error, never a name to import.
"""

import base64
import dataclasses
import ipaddress
import re
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path, PurePath
from typing import Any, Final, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

from actors.graph.errors import UnregisteredTypeError
from events.errors import ConfigurationError
from events.limits import INT64_MAX, INT64_MIN

KEY: Final = "~"
USER_PREFIX: Final = ":"
"""Kinds that a program registers are stored with it, so that none can ever be taken for one of ours."""
_NAME: Final = re.compile(r"[a-z][a-z0-9_.]{0,62}")

Walk = Callable[[Any], Any]
"""Packs or unpacks what an object holds."""


class Kind(NamedTuple):
    """How objects of one type are written and made again.

    pack: the fields of the JSON object, without ``~``. unpack: the object, from those fields. shared: it is content, such as a message, of
    which a second copy is written as a reference to the first.
    """

    name: str
    pack: Callable[[Any, Walk], dict[str, Any]]
    unpack: Callable[[dict[str, Any], Walk], Any]
    shared: bool = False


def _text_of(make: Callable[[str], Any], write: Callable[[Any], str] = str) -> tuple[Any, Any]:
    return (lambda value, walk: {"v": write(value)}), (lambda fields, walk: make(fields["v"]))


def _items_of(make: Callable[[list[Any]], Any]) -> tuple[Any, Any]:
    return (lambda value, walk: {"v": [walk(item) for item in value]}), (lambda fields, walk: make([walk(item) for item in fields["v"]]))


def _sorted_items_of(make: Callable[[list[Any]], Any]) -> tuple[Any, Any]:
    """Sets have no order; written in that of their bytes, equal ones are equal text."""
    return (
        lambda value, walk: {"v": sorted((walk(item) for item in value), key=msgspec.json.encode)},
        lambda fields, walk: make([walk(item) for item in fields["v"]]),
    )


def _pack_datetime(value: datetime, walk: Walk) -> dict[str, Any]:
    zone = value.tzinfo
    if zone is not None and type(zone) not in (timezone, ZoneInfo):
        raise UnregisteredTypeError(f"a datetime with tzinfo {type(zone).__qualname__} cannot be stored; use datetime.timezone or ZoneInfo")
    fields: dict[str, Any] = {"v": value.isoformat()}
    if isinstance(zone, ZoneInfo):
        if zone.key is None:
            raise UnregisteredTypeError("a datetime with a ZoneInfo that has no key cannot be stored")
        fields = {"v": value.replace(tzinfo=None).isoformat(), "zone": zone.key}
    if value.fold:
        fields["fold"] = 1
    return fields


def _unpack_datetime(fields: dict[str, Any], walk: Walk) -> datetime:
    value = datetime.fromisoformat(fields["v"])
    if "zone" in fields:
        value = value.replace(tzinfo=ZoneInfo(fields["zone"]))
    return value.replace(fold=1) if fields.get("fold") else value


def _pack_zone(value: ZoneInfo, walk: Walk) -> dict[str, Any]:
    if value.key is None:
        raise UnregisteredTypeError("a ZoneInfo without a key cannot be stored")
    return {"v": value.key}


def _micros(value: timedelta) -> int:
    return (value.days * 86_400 + value.seconds) * 1_000_000 + value.microseconds


def _pack_surrogates(value: str, walk: Walk) -> dict[str, Any]:
    return {"v": base64.b64encode(value.encode("utf-8", "surrogatepass")).decode()}


def _unpack_surrogates(fields: dict[str, Any], walk: Walk) -> str:
    return base64.b64decode(fields["v"]).decode("utf-8", "surrogatepass")


TEXT: Final = Kind("text", _pack_surrogates, _unpack_surrogates)
"""A string with half a surrogate pair: no JSON text can carry it, and models do produce it (S13)."""
BIG: Final = Kind("int", lambda value, walk: {"v": str(value)}, lambda fields, walk: int(fields["v"]))
FLOAT: Final = Kind("float", lambda value, walk: {"v": repr(value)}, lambda fields, walk: float(fields["v"]))
PAIRS: Final = Kind(
    "dict",
    lambda value, walk: {"v": [[walk(key), walk(item)] for key, item in value.items()]},
    lambda fields, walk: {walk(key): walk(item) for key, item in fields["v"]},
)
"""A dict with keys that are no strings, or with the key ``~``."""
ERROR: Final = Kind("error", lambda value, walk: {"v": walk(repr(value))}, lambda fields, walk: walk(fields["v"]))
"""An exception, which comes back as its text: LangGraph's own serializers do the same."""

_BY_TYPE: Final[dict[type, Kind]] = {
    tuple: Kind("tuple", *_items_of(tuple)),
    set: Kind("set", *_sorted_items_of(set)),
    frozenset: Kind("frozenset", *_sorted_items_of(frozenset)),
    deque: Kind(
        "deque",
        lambda value, walk: {"v": [walk(item) for item in value], "maxlen": value.maxlen},
        lambda fields, walk: deque((walk(item) for item in fields["v"]), fields["maxlen"]),
    ),
    OrderedDict: Kind("ordered", PAIRS.pack, lambda fields, walk: OrderedDict((walk(key), walk(item)) for key, item in fields["v"])),
    bytes: Kind("bytes", *_text_of(base64.b64decode, lambda value: base64.b64encode(value).decode())),
    bytearray: Kind("bytearray", *_text_of(lambda text: bytearray(base64.b64decode(text)), lambda value: base64.b64encode(value).decode())),
    complex: Kind("complex", *_text_of(complex)),
    datetime: Kind("datetime", _pack_datetime, _unpack_datetime),
    date: Kind("date", *_text_of(date.fromisoformat, date.isoformat)),
    time: Kind("time", *_text_of(time.fromisoformat, time.isoformat)),
    timedelta: Kind("timedelta", lambda value, walk: {"v": _micros(value)}, lambda fields, walk: timedelta(microseconds=fields["v"])),
    timezone: Kind(
        "timezone",
        lambda value, walk: {"v": _micros(value.utcoffset(None))},
        lambda fields, walk: timezone(timedelta(microseconds=fields["v"])),
    ),
    ZoneInfo: Kind("zone", _pack_zone, lambda fields, walk: ZoneInfo(fields["v"])),
    Decimal: Kind("decimal", *_text_of(Decimal)),
    UUID: Kind("uuid", *_text_of(UUID)),
    ipaddress.IPv4Address: Kind("ipv4", *_text_of(ipaddress.IPv4Address)),
    ipaddress.IPv4Interface: Kind("ipv4_interface", *_text_of(ipaddress.IPv4Interface)),
    ipaddress.IPv4Network: Kind("ipv4_network", *_text_of(ipaddress.IPv4Network)),
    ipaddress.IPv6Address: Kind("ipv6", *_text_of(ipaddress.IPv6Address)),
    ipaddress.IPv6Interface: Kind("ipv6_interface", *_text_of(ipaddress.IPv6Interface)),
    ipaddress.IPv6Network: Kind("ipv6_network", *_text_of(ipaddress.IPv6Network)),
    type(Path()): Kind("path", *_text_of(Path)),
    type(PurePath()): Kind("pure_path", *_text_of(PurePath)),
    re.Pattern: Kind(
        "pattern",
        lambda value, walk: {"v": walk(value.pattern), "flags": value.flags},
        lambda fields, walk: re.compile(walk(fields["v"]), fields["flags"]),
    ),
}


class Kinds:
    """The kinds that one saver knows: ours, and those that its program registers.

    Args:
        types: name to class, for dataclasses, pydantic models, enums, msgspec Structs and named tuples.

    Raises:
        ConfigurationError: a name is not lower-case words, or a class is none of these.
    """

    def __init__(self, types: Mapping[str, type] | None = None, more: Mapping[type, Kind] | None = None) -> None:
        self.by_type: dict[type, Kind] = {**_BY_TYPE, **(more or {})}
        for name, cls in (types or {}).items():
            if not _NAME.fullmatch(name):
                raise ConfigurationError(f"types: {name!r} is not a name of lower-case letters, digits, '_' and '.'", name=name)
            self.by_type[cls] = _registered(USER_PREFIX + name, cls)
        every = (*self.by_type.values(), TEXT, BIG, FLOAT, PAIRS, ERROR)
        self.by_name: dict[str, Kind] = {kind.name: kind for kind in every}

    def of(self, value: Any) -> Kind:
        """How `value` is written.

        Raises:
            UnregisteredTypeError: its type has no kind.
        """
        kind = self.by_type.get(type(value))
        if kind is not None:
            return kind
        if isinstance(value, BaseException):
            return ERROR
        cls = type(value)
        raise UnregisteredTypeError(
            f"a value of type {cls.__module__}.{cls.__qualname__} cannot be stored: its type is not registered. Give it a name of its own "
            f"where the saver is opened: EventLogSaver.open(path, types={{{_snake(cls.__name__)!r}: {cls.__name__}}})",
            type=f"{cls.__module__}.{cls.__qualname__}",
        )

    def named(self, name: str) -> Kind:
        """The kind of that name.

        Raises:
            UnregisteredTypeError: there is none.
        """
        kind = self.by_name.get(name)
        if kind is None:
            own = name.removeprefix(USER_PREFIX)
            raise UnregisteredTypeError(
                f"the log holds a value of kind {own!r}, which is not registered here. Name its class where the saver is opened: "
                f"EventLogSaver.open(path, types={{{own!r}: ...}})",
                kind=own,
            )
        return kind


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).strip("_").lower()


def _registered(name: str, cls: type) -> Kind:
    if issubclass(cls, Enum):
        return Kind(name, lambda value, walk: {"v": value.name}, lambda fields, walk: cls[fields["v"]])
    make = _maker(name, cls)
    if dataclasses.is_dataclass(cls):
        names = [field.name for field in dataclasses.fields(cls) if field.init]
        return Kind(name, _by_attributes(names), make, shared=True)
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return Kind(name, _by_attributes(list(cls._fields)), make, shared=True)
    if issubclass(cls, msgspec.Struct):
        return Kind(name, _by_attributes(list(cls.__struct_fields__)), make, shared=True)
    if hasattr(cls, "model_validate") and hasattr(cls, "model_fields"):
        return Kind(name, _pack_model, _maker(name, cls.model_validate, whole=True), shared=True)
    raise ConfigurationError(
        f"types: {cls.__qualname__} is no dataclass, pydantic model, enum, Struct or named tuple; turn it into one, or keep such values "
        "out of the state",
        type=cls.__qualname__,
    )


def _by_attributes(names: list[str]) -> Callable[[Any, Walk], dict[str, Any]]:
    return lambda value, walk: {"v": {name: walk(getattr(value, name)) for name in names}}


def _pack_model(value: Any, walk: Walk) -> dict[str, Any]:
    return {"v": {name: walk(item) for name, item in {**value.__dict__, **(value.__pydantic_extra__ or {})}.items()}}


def _maker(name: str, make: Callable[..., Any], *, whole: bool = False) -> Callable[[dict[str, Any], Walk], Any]:
    def unpack(fields: dict[str, Any], walk: Walk) -> Any:
        found = {key: walk(item) for key, item in fields["v"].items()}
        try:
            return make(found) if whole else make(**found)
        except (TypeError, ValueError) as error:
            raise UnregisteredTypeError(
                f"a stored {name.removeprefix(USER_PREFIX)!r} does not fit its class any more: {error}. Give new fields a default, "
                "or register the old shape under the old name",
                kind=name,
            ) from error

    return unpack


def plain_int(value: int) -> bool:
    """Whether every JSON reader agrees on it (S13)."""
    return INT64_MIN <= value <= INT64_MAX
