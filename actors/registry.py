"""Which commands, queries and events an actor class has: worked out once when an app is put together, then looked up by name.

The registry is closed: what is stored or sent names a tag, a type or a method, and what is not in here is refused. No name from data is
ever imported.
"""

import copy
import dis
import inspect
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic

import msgspec
from msgspec.structs import asdict

from actors.actor import Actor, handler_role
from actors.errors import BadPayload, Unknown
from actors.event import Event, S, State, event_state_type
from actors.journal import RESERVED_TAGS
from actors.upcast import REGISTERED
from events.codec import canonical, canonical_hash, decode_strict, encode
from events.envelope import RecordedEvent
from events.errors import ConfigurationError, CorruptLogError, EncodingError, UnknownEventTypeError
from events.ids import is_token
from events.limits import JSON_DEPTH_MAX
from events.sealed.sealing import require_readable
from events.upcast import Chain, UpcastError, Upcasters


class Method(msgspec.Struct, frozen=True, kw_only=True):
    """One command or query. `arguments` is a Struct made from its signature; `returns` the annotated result type."""

    name: str
    function: Callable[..., Any]
    query: bool
    asynchronous: bool
    arguments: type[msgspec.Struct]
    decoder: msgspec.json.Decoder[Any]
    returns: Any
    summary: str
    short: bool = False
    """Nothing in it can suspend, so that it may be run to its end on the spot."""
    raw: bool = False
    """An argument stays undecoded, so that encoding back proves nothing about what is in it."""
    title: str = ""
    """What its reply is called in errors."""

    def decode(self, body: bytes) -> dict[str, Any]:
        """The keyword arguments in `body`; an empty body stands for no arguments.

        Raises:
            BadPayload: not a JSON object of exactly this method's arguments; names the field where known.
        """
        body = body or b"{}"
        # The usual body, at a quarter of the cost: what encodes back to the same bytes holds no duplicate key, no odd number and no half
        # character, so only long digits and deep nesting are left for the strict check.
        if not self.raw and not _is_suspicious(body):
            try:
                arguments = self.decoder.decode(body)
                if encode(arguments) == body:
                    return asdict(arguments)
            except (msgspec.DecodeError, UnicodeDecodeError):
                pass
        try:
            decode_strict(body)
            arguments = self.decoder.decode(body)
        except (EncodingError, msgspec.ValidationError) as error:
            raise BadPayload(f"{self.name}: {error}", field=field_of(error)) from error
        return asdict(arguments)


_SUSPENDING = frozenset({"GET_AWAITABLE", "GET_AITER", "GET_ANEXT", "BEFORE_ASYNC_WITH", "SEND", "YIELD_VALUE", "YIELD_FROM"})
_LONG_NUMBER = re.compile(rb"[0-9]{16}")
_LONG_BYTES = 16
_FIELD = re.compile(r"field `(?P<name>[^`]+)`|at `\$\.(?P<path>[^`]+)`")


def _is_suspicious(body: bytes) -> bool:
    """Long digits, or brackets enough for a deep nesting. Most bodies are too short for either."""
    if len(body) < _LONG_BYTES:
        return False
    if _LONG_NUMBER.search(body):
        return True
    return len(body) > JSON_DEPTH_MAX and body.count(b"[") + body.count(b"{") > JSON_DEPTH_MAX


def field_of(error: Exception) -> str | None:
    """The field that a decoding error names: ``... - at `$.cents` `` or ``missing required field `cents` ``; None if it names none."""
    if isinstance(error, EncodingError):
        return error.fields.get("field")
    found = _FIELD.search(str(error))
    return found and (found["name"] or found["path"])


class EventType(msgspec.Struct, frozen=True, kw_only=True):
    """One event class with its decoder. `chain` leads from the older versions that this program reads to `version`."""

    tag: str
    version: int
    cls: type[Event[Any]]
    decoder: msgspec.json.Decoder[Any]
    chain: Chain
    title: str
    """What it is called in errors."""


class ActorType(Generic[S]):
    """Everything that the runtime knows of one actor class."""

    def __init__(self, cls: type[Actor[S]], upcasters: Upcasters = REGISTERED) -> None:
        """
        Raises:
            ConfigurationError: no name, two classes of one tag, or a chain of upcasters with a gap or another end than the class.
        """
        if cls.__actor_name__ is None:
            raise ConfigurationError(f"{cls.__name__} has no name: write class {cls.__name__}(Actor[...], name='...')")
        self.cls = cls
        self.name: str = cls.__actor_name__
        self.beside: Mapping[str, ActorType[Any]] = {self.name: self}
        """Every type of the app, by name; only this one where there is no app."""
        self.sealed = cls.__actor_sealed__
        self.state_type: type[S] = _state_type(cls)
        self.methods = dict(_methods(cls))
        self._reserved = {"_state": _method(cls, "_state", _state, query=True)}
        self.events: dict[str, EventType] = {}
        self._by_class: dict[type, EventType] = {}
        self._state_decoder = msgspec.json.Decoder(self.state_type)
        # Another shape of state makes older snapshots unusable, never wrong: they are ignored by name.
        self.shape = canonical_hash(msgspec.json.schema(self.state_type))[:16]
        for event in _event_types(self.state_type):
            self._add(event, upcasters)
        self.plain: dict[str, Callable[[bytes], Event[Any]]] = {
            f"{event.tag}:{event.version}": event.decoder.decode for event in self.events.values()
        }
        """What makes the event from its payload alone, by ``tag:schema version``."""

    def _add(self, cls: type[Event[Any]], upcasters: Upcasters) -> None:
        known = self.events.get(cls.__event_tag__)
        if known is not None:
            raise ConfigurationError(f"the tag {known.tag!r} belongs to both {known.cls.__qualname__} and {cls.__qualname__}")
        if cls.__event_tag__ in RESERVED_TAGS:
            raise ConfigurationError(f"{cls.__qualname__}: the tag {cls.__event_tag__!r} is one of Cuebook's own")
        tag, version = cls.__event_tag__, cls.__event_version__
        chain = upcasters.chain(tag, version)
        entry = EventType(tag=tag, version=version, cls=cls, decoder=msgspec.json.Decoder(cls), chain=chain, title=f"event {tag}")
        self.events[entry.tag] = self._by_class[cls] = entry

    def method(self, name: str) -> Method:
        """Raises: Unknown: no such command or query."""
        try:
            return self.methods.get(name) or self._reserved[name]
        except KeyError:
            known = ", ".join(sorted(self.methods)) or "none"
            raise Unknown(f"{self.name} has no method {name!r} (it has: {known})", method=name) from None

    def event_of(self, event: Event[Any]) -> EventType:
        """The registered type of an event about to be emitted.

        Raises:
            ConfigurationError: its class changes another state, or was defined after the app was put together.
        """
        entry = self._by_class.get(type(event))
        if entry is None:
            raise ConfigurationError(f"{type(event).__qualname__} is no event of {self.name}: its state is not {self.state_type.__name__}")
        return entry

    def initial(self) -> S:
        return self.state_type()

    def knows(self, tag: str, version: int) -> bool:
        """Whether a recorded event of that tag and schema version can be read."""
        entry = self.events.get(tag)
        return entry is not None and entry.chain.reaches(version)

    def apply(self, state: S, event: RecordedEvent) -> None:
        """Fold one recorded state event into `state`. Raises as `decode`."""
        self.decode(event).apply(state)

    def decode(self, event: RecordedEvent) -> Event[Any]:
        """One recorded state event as what its class is today; an older version goes through its upcasters.

        Raises:
            UnknownEventTypeError: this program does not know the tag or the schema version; names what is missing.
            UpcastError: a step failed, or its result does not fit the class.
            CorruptLogError: the payload does not fit the registered type.
            UnreadablePayloadError: it is sealed and its key is not here, or it was erased (S29).
        """
        entry = self.events.get(event.type)
        if entry is None or entry.version != event.schema_version:
            return self._decode_older(event, entry)
        try:
            fact: Event[Any] = entry.decoder.decode(event.payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            require_readable(event)
            raise CorruptLogError(f"{event.stream} version {event.version}: {error}", **_place(event)) from error
        return fact

    def _decode_older(self, event: RecordedEvent, entry: EventType | None) -> Event[Any]:
        require_readable(event)
        place = _place(event)
        if entry is None or not entry.chain.reaches(event.schema_version):
            missing = _missing(event, entry, self.name)
            raise UnknownEventTypeError(
                f"{event.stream} version {event.version} (position {place['position']}) is {event.type} in schema version "
                f"{event.schema_version}; this program lacks {missing}",
                type=event.type, schema_version=event.schema_version, missing=missing, **place,
            )  # fmt: skip
        try:
            fact: Event[Any] = entry.decoder.decode(entry.chain.upcast(event.payload, event.schema_version))
        except (UpcastError, EncodingError) as error:
            raise UpcastError(f"{event.stream} version {event.version}: {error.message}", **{**error.fields, **place}) from error
        except msgspec.ValidationError as error:
            raise UpcastError(
                f"{event.stream} version {event.version}: the upcasters of {event.type} from version {event.schema_version} make what "
                f"{entry.cls.__qualname__} does not take: {error}",
                type=event.type, schema_version=event.schema_version, **place,
            ) from error  # fmt: skip
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CorruptLogError(f"{event.stream} version {event.version}: {error}", **place) from error
        return fact

    def encode_state(self, state: S) -> bytes:
        return canonical(state)

    def decode_state(self, body: bytes) -> S:
        state: S = self._state_decoder.decode(body)
        return state


class Registry:
    """The actor types of one app, by name."""

    def __init__(self, actors: Iterable[type[Actor[Any]]], upcasters: Upcasters = REGISTERED) -> None:
        self.types: dict[str, ActorType[Any]] = {}
        owners: dict[str, type] = {}
        for cls in actors:
            kind: ActorType[Any] = ActorType(cls, upcasters)
            if kind.name in self.types:
                raise ConfigurationError(f"two actor classes are called {kind.name!r}")
            for tag, event in kind.events.items():
                if owners.setdefault(tag, event.cls) is not event.cls:
                    raise ConfigurationError(f"the tag {tag!r} belongs to both {owners[tag].__qualname__} and {event.cls.__qualname__}")
            self.types[kind.name] = kind
            kind.beside = self.types

    @property
    def sealed(self) -> frozenset[str]:
        """Names of the actor types whose streams are sealed (S29)."""
        return frozenset(name for name, kind in self.types.items() if kind.sealed)

    def type(self, name: str) -> ActorType[Any]:
        """Raises: Unknown: this app has no such actor type."""
        try:
            return self.types[name]
        except KeyError:
            known = ", ".join(sorted(self.types)) or "none"
            raise Unknown(f"no actor type {name!r} here (known: {known})", type=name) from None


def _place(event: RecordedEvent) -> dict[str, Any]:
    return {"stream": event.stream, "version": event.version, "position": f"{event.shard}:{event.position}"}


def _missing(event: RecordedEvent, entry: EventType | None, actor: str) -> str:
    """What an author or operator has to bring so that `event` can be read."""
    if entry is None:
        return f"an event class with the tag {event.type!r} for {actor}"
    if event.schema_version > entry.version:
        return f"newer code: it knows {event.type} up to schema version {entry.version}"
    return f'@upcaster("{event.type}", {event.schema_version}): it reads {event.type} from schema version {entry.chain.first} on'


def _state_type(cls: type[Actor[Any]]) -> Any:
    for base in cls.__mro__:
        for generic in getattr(base, "__orig_bases__", ()):
            origin = typing.get_origin(generic)
            if isinstance(origin, type) and issubclass(origin, Actor):
                (argument,) = typing.get_args(generic)
                if isinstance(argument, type) and issubclass(argument, State):
                    return argument
    raise ConfigurationError(f"{cls.__name__} names no state: derive it from Actor[YourState]")


def _event_types(state: type[State]) -> list[type[Event[Any]]]:
    """Every concrete event class that may change `state`: those of the state itself and of its bases (Event is contravariant)."""
    found: list[type[Event[Any]]] = []
    stack: list[type[Event[Any]]] = [Event]
    seen: set[type] = set()
    while stack:
        cls = stack.pop()
        if cls in seen:
            continue
        seen.add(cls)
        stack.extend(cls.__subclasses__())
        changed = event_state_type(cls)
        if getattr(cls, "__event_tag__", "") and changed is not None and issubclass(state, changed):
            found.append(cls)
    return sorted(found, key=lambda event: event.__event_tag__)


def _methods(cls: type[Actor[Any]]) -> Iterable[tuple[str, Method]]:
    for name in dir(cls):
        function = inspect.getattr_static(cls, name)
        role = handler_role(function)
        if role is None:
            continue
        if not is_token(name) or name.startswith("_"):
            raise ConfigurationError(f"{cls.__name__}.{name}: names that start with '_' are reserved")
        yield name, _method(cls, name, function, query=role == "query")


def _method(cls: type, name: str, function: Callable[..., Any], *, query: bool) -> Method:
    hints: Mapping[str, Any] = typing.get_type_hints(function, include_extras=True)
    fields: list[Any] = []
    for parameter in list(inspect.signature(function).parameters.values())[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise ConfigurationError(f"{cls.__name__}.{name}: *args, ** and positional-only parameters have no place in a JSON object")
        annotation = hints.get(parameter.name, Any)
        fields.append(
            (parameter.name, annotation)
            if parameter.default is parameter.empty
            else (parameter.name, annotation, msgspec.field(default_factory=_Constant(parameter.default)))
        )
    arguments = msgspec.defstruct(f"{cls.__name__}_{name}", fields, kw_only=True, forbid_unknown_fields=True)
    asynchronous = inspect.iscoroutinefunction(function)
    if query and asynchronous:
        raise ConfigurationError(f"{cls.__name__}.{name}: a query is a plain def; it may await nothing")
    return Method(
        name=name,
        function=function,
        query=query,
        asynchronous=asynchronous,
        arguments=arguments,
        decoder=msgspec.json.Decoder(arguments),
        returns=hints.get("return", Any),
        short=not asynchronous or not _can_suspend(function),
        raw="msgspec.Raw" in repr(hints),
        title=f"the reply of {name}",
        summary=(inspect.getdoc(function) or "").partition("\n")[0],
    )


def _can_suspend(function: Callable[..., Any]) -> bool:
    """Whether the code of an ``async def`` awaits anything; what wraps another function is not looked into."""
    code = getattr(function, "__code__", None)
    if code is None or hasattr(function, "__wrapped__"):
        return True
    return any(instruction.opname in _SUSPENDING for instruction in dis.get_instructions(code))


def _state(actor: Actor[Any]) -> dict[str, Any]:
    """Where the actor stands: what `replay --verify` compares the log with. Reserved, as all names that start with '_'."""
    return {"version": actor._turn.version, "state_hash": canonical_hash(actor.state)}


class _Constant:
    """A default factory: msgspec refuses mutable defaults, and a signature may have any."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def __call__(self) -> Any:
        return copy.copy(self._value)
