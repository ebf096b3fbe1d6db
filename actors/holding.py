"""What a turn holds of another actor, such as a permit, is given back when the turn ends, however it ends.

The actor that lends says so at its methods: `holds` at the command by which something is taken, `settles` at the one that ends it in the
ordinary way. A turn that ends in between - cancelled, refused, failed, or by a handler that gave up - sends the giving back with the very
transaction that records its end, so no crash loses it, and its receiver does it once (S25). A crash alone gives nothing back: the turn runs
again and goes on with what it holds.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from actors.errors import OutcomeUnknown
from actors.journal import Entry, derived_id
from actors.message import Command
from events.codec import encode
from events.ids import CommandId, StreamId
from events.store import OutboxEntry

if TYPE_CHECKING:
    from actors.registry import ActorType

F = TypeVar("F", bound=Callable[..., Any])
_HOLDS: Final = "__cuebook_holds__"
_SETTLES: Final = "__cuebook_settles__"
Kinds = Mapping[str, "ActorType[Any]"]


class Holding(msgspec.Struct, frozen=True):
    """The argument that names what is lent, the command that gives it back, and whether a reply says that it was lent at all."""

    key: str
    release: str
    lent: Callable[[Any], bool]


def holds(key: str, *, release: str, lent: Callable[[Any], bool]) -> Callable[[F], F]:
    """Mark a command: its caller holds what its argument `key` names, a string that the caller makes up.

    Args:
        release: the command that gives it back, with `key` as its only argument; harmless where there is nothing to give back.
        lent: of the reply, as decoded from JSON: False where nothing was lent.
    """

    def mark(function: F) -> F:
        setattr(function, _HOLDS, Holding(key, release, lent))
        return function

    return mark


def settles(key: str) -> Callable[[F], F]:
    """Mark a command: once it is done, its caller no longer holds what its argument `key` names."""

    def mark(function: F) -> F:
        setattr(function, _SETTLES, key)
        return function

    return mark


class Held:
    """What one turn holds: by receiver and name, the command that gives it back."""

    __slots__ = ("_kinds", "open")

    def __init__(self, kinds: Kinds) -> None:
        self._kinds = kinds
        self.open: dict[tuple[StreamId, str], Holding] = {}

    def asks(self, receiver: StreamId, method: str, arguments: Mapping[str, Any]) -> None:
        """An ask is about to leave: from here on it may hold something."""
        rule = self._rule(receiver, method, _HOLDS)
        if rule is not None and isinstance(name := arguments.get(rule.key), str) and name:
            self.open[receiver, name] = rule

    def answered(self, receiver: StreamId, method: str, arguments: Mapping[str, Any], reply: bytes | msgspec.Raw) -> None:
        """It was done."""
        rule = self._rule(receiver, method, _HOLDS)
        if rule is not None and not rule.lent(msgspec.json.decode(reply)):
            self.open.pop((receiver, str(arguments.get(rule.key))), None)
        if (key := self._rule(receiver, method, _SETTLES)) is not None:
            self.open.pop((receiver, str(arguments.get(key))), None)

    def refused(self, receiver: StreamId, method: str, arguments: Mapping[str, Any]) -> None:
        """It was not done, and never will be."""
        if (rule := self._rule(receiver, method, _HOLDS)) is not None:
            self.open.pop((receiver, str(arguments.get(rule.key))), None)

    def settled_by(self, receiver: StreamId, method: str) -> bool:
        """Whether that command tells what became of something that was held."""
        return self._rule(receiver, method, _SETTLES) is not None

    def _rule(self, receiver: StreamId, method: str, kind_of_rule: str) -> Any:
        kind = self._kinds.get(receiver.partition("/")[0])
        found = None if kind is None else kind.methods.get(method)
        return None if found is None else getattr(found.function, kind_of_rule, None)

    def releases(self, command: Command) -> list[OutboxEntry]:
        """The sends that give back everything that the turn of `command` holds. Their ids are the same wherever they are made."""
        return [
            OutboxEntry(
                receiver=receiver, method=rule.release, args=encode({rule.key: name}),
                command_id=CommandId(derived_id(command.stream, command.command_id, "release", receiver, name)),
                causation_id=command.command_id, correlation_id=command.correlation_id or command.command_id,
                traceparent=command.traceparent,
            )
            for (receiver, name), rule in self.open.items()
        ]  # fmt: skip


def held_in(entries: Mapping[Any, Entry], kinds: Kinds) -> Held:
    """What the turn with this journal holds."""
    held = Held(kinds)
    for entry in entries.values():
        if entry.use.kind != "ask":
            continue
        asked = entry.started
        about = (StreamId(asked["receiver"]), str(asked["method"]), _object(asked["arguments"]))
        held.asks(*about)
        if entry.result is not None:
            held.answered(*about, entry.result)
        elif entry.failure is not None and entry.failure["type"] != OutcomeUnknown.__name__:
            held.refused(*about)
    return held


def _object(arguments: Any) -> Mapping[str, Any]:
    return arguments if isinstance(arguments, Mapping) else {}
