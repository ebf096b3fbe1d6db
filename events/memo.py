"""Results that a process computes once: named, bounded, counted.

For pure functions only: what the arguments do not say must not matter, so an entry is never stale and only its place is ever taken. A
function that depends on more than its arguments puts what it depends on among them, or clears its memo when that changes.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Final, ParamSpec, Protocol, TypeVar, cast

import msgspec

from events.errors import InvariantError

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


class MemoStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One memo since the process began, or since it was cleared. misses: results that were computed, also those that raised.
    entries_max: how many fit; beyond, the one that was used longest ago goes."""

    hits: int
    misses: int
    entries: int
    entries_max: int

    @property
    def rate(self) -> float:
        """Hits of all calls, 0..1; 0 where there was none."""
        calls = self.hits + self.misses
        return self.hits / calls if calls else 0.0


class _Counts(Protocol):
    """What `functools` says of its cache."""

    @property
    def hits(self) -> int: ...
    @property
    def misses(self) -> int: ...
    @property
    def currsize(self) -> int: ...


class Memoised(Protocol[P, R_co]):
    """A function with a memo before it. Arguments must be hashable: TypeError. What raises is computed again by the next call."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    def cache_info(self) -> _Counts: ...
    def cache_clear(self) -> None: ...
    @property
    def __wrapped__(self) -> Callable[P, R_co]: ...


_memos: Final[dict[str, tuple[str, int, Memoised[..., object]]]] = {}


def memo(name: str, entries_max: int) -> Callable[[Callable[P, R_co]], Memoised[P, R_co]]:
    """Decorate a pure function with a memo that `memo_statistics` shows as `name`.

    Several threads may call it; two that ask for the same at the same time may both compute it. A call costs what one of
    `functools.lru_cache` costs, because it is one.

    Args:
        entries_max: at least 1.
    Raises:
        InvariantError: another function's memo has that name, or no entry would fit.
    """

    def wrap(function: Callable[P, R_co]) -> Memoised[P, R_co]:
        owner = f"{function.__module__}.{function.__qualname__}"
        # The same function once more is its module loaded again.
        if entries_max < 1 or _memos.get(name, (owner,))[0] != owner:
            raise InvariantError(f"the memo {name!r} of {owner} has no room, or another's name")
        made = cast(Memoised[P, R_co], lru_cache(entries_max)(function))
        _memos[name] = (owner, entries_max, cast(Memoised[..., object], made))
        return made

    return wrap


def memo_statistics() -> dict[str, MemoStatistics]:
    """Every memo of this process, by name."""
    found = {}
    for name, (_, entries_max, made) in sorted(_memos.items()):
        counts = made.cache_info()
        found[name] = MemoStatistics(hits=counts.hits, misses=counts.misses, entries=counts.currsize, entries_max=entries_max)
    return found


def clear_memos() -> None:
    """Forget every result and every count of this process: what comes next is computed again."""
    for _, _, made in list(_memos.values()):
        made.cache_clear()
