"""State and Event: what an actor is, and what changes it.

An event knows how it changes the state and can reach nothing else. Its tag and schema version are stored in the envelope only, so its
fields may have any name, and renaming or moving the class breaks no history (S35).
"""

from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import msgspec

from events.ids import is_tag


class State(msgspec.Struct, kw_only=True):
    """The state of one actor: typed fields, each with a default, because every actor begins as ``YourState()``."""


S = TypeVar("S", bound=State)
S_contra = TypeVar("S_contra", bound=State, contravariant=True)


class _EventMeta(msgspec.StructMeta):
    """Takes `tag` and `version` out of the class keywords: msgspec's own metaclass refuses the one and means another thing by the other."""

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], tag: str = "", version: int = 1, **kwargs: Any) -> Any:
        kwargs.setdefault("frozen", True)
        kwargs.setdefault("kw_only", True)
        kwargs.setdefault("forbid_unknown_fields", True)
        cls = super().__new__(mcs, name, bases, namespace, **kwargs)
        if tag and not is_tag(tag):
            raise TypeError(f"{name}: the tag {tag!r} is not dotted lower-case words such as 'account.deposited'")
        if version < 1:
            raise TypeError(f"{name}: schema versions start at 1")
        # Set through type: these are ClassVars of Event, not fields, and msgspec's metaclass knows nothing of them.
        type.__setattr__(cls, "__event_tag__", tag)
        type.__setattr__(cls, "__event_version__", version)
        return cls


class Event(msgspec.Struct, Generic[S_contra], metaclass=_EventMeta):
    """A recorded fact, named in the past tense. Subclass as ``class Deposited(Event[Account], tag="account.deposited")``.

    Class keywords: `tag`, stable for ever (without one the class is abstract); `version`, the schema version, default 1.
    """

    __event_tag__: ClassVar[str]
    __event_version__: ClassVar[int]

    if TYPE_CHECKING:

        def __init_subclass__(cls, *, tag: str = "", version: int = 1) -> None: ...

    def apply(self, state: S_contra) -> None:
        """Change `state` as this fact says. Pure: no clock, no randomness, no I/O; runs again at every replay."""
        raise TypeError(f"{type(self).__name__} does not define apply(self, state)")


def event_state_type(event_type: type[Event[Any]]) -> type[State] | None:
    """The state that `event_type` changes, from its ``Event[...]`` base; None where it is left open."""
    for base in event_type.__mro__:
        for generic in getattr(base, "__orig_bases__", ()):
            origin = getattr(generic, "__origin__", None)
            if isinstance(origin, type) and issubclass(origin, Event):
                (argument,) = generic.__args__
                if isinstance(argument, type) and issubclass(argument, State):
                    return argument
    return None
