"""References to other actors and to projections, as seen from inside a turn."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol


class _Asker(Protocol):
    def __call__(self, method: str, arguments: dict[str, Any]) -> Awaitable[Any]: ...


class _Teller(Protocol):
    def __call__(self, method: str, arguments: dict[str, Any]) -> str: ...


class Methods:
    """Any attribute is a method name; calling it with keyword arguments calls `target`."""

    __slots__ = ("_target",)

    def __init__(self, target: Callable[[str, dict[str, Any]], Any]) -> None:
        self._target = target

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("_"):
            raise AttributeError(method)
        return lambda **arguments: self._target(method, arguments)


class ActorRef(Methods):
    """Another actor. ``await ref.review(path="a.py")`` asks and returns its reply; ``ref.tell.review(path="a.py")`` leaves with the commit
    of this turn and is executed exactly once in effect (S25); it returns the id of the command, by which `Actor.cancel` takes it back."""

    __slots__ = ("id", "tell", "type")

    def __init__(self, type_name: str, id: str, ask: _Asker, tell: _Teller) -> None:
        super().__init__(ask)
        self.type = type_name
        self.id = id
        self.tell = Methods(tell)


class ViewRef(Methods):
    """A projection. ``await view.recall(query="...", k=5)`` returns its reply as plain JSON values."""

    __slots__ = ()
