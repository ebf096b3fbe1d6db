"""Parts of one turn that have effects, ids and randomness of their own, so that each repeats without the others (S19).

A turn whose parts do not all run again after a crash - a graph, of which only the unfinished nodes do - cannot count the uses of a name
over the whole of it: what one part asked for would be taken for what another asks. Inside a scope a use, an idempotency key, `new_id` and
`random` depend on the scope's name and on what happened in it, on nothing else of the turn.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

_SCOPE: "ContextVar[Scope | None]" = ContextVar("cuebook_scope", default=None)


class Numbers(Protocol):
    """What a turn draws random numbers from."""

    def random(self) -> float: ...


class Scope:
    """One part of one turn. name: stable over re-runs, unique within the turn; it stands in the key of each recorded effect."""

    __slots__ = ("_new_ids", "name", "numbers")

    def __init__(self, name: str) -> None:
        self.name = name
        self._new_ids = 0
        self.numbers: Numbers | None = None
        """What `Turn.random` draws from here."""

    def key(self, key: str | None) -> str:
        """What an effect of this part with the key `key` is recorded under."""
        return self.name if key is None else f"{self.name} {key}"

    def next_number(self) -> int:
        """Counts the ids that were made here, from 1."""
        self._new_ids += 1
        return self._new_ids


def current_scope() -> Scope | None:
    """The part of its turn that this code is; None = the turn as such."""
    return _SCOPE.get()


@contextmanager
def within(scope: Scope) -> Iterator[None]:
    """What is asked of the turn in this block is asked by `scope`."""
    token = _SCOPE.set(scope)
    try:
        yield
    finally:
        _SCOPE.reset(token)
