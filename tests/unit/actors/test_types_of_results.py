"""What a step returns is read from its function once, and nothing that a call made is kept for that."""

import functools
import gc
import weakref
from collections.abc import Callable
from typing import Any

from actors.effects import returns_of
from events.memo import memo_statistics


def plain(number: int) -> list[int]:
    return [number]


def bare(number):  # type: ignore[no-untyped-def]
    return number


class Holder:
    def made(self) -> "Holder":
        return self

    def __call__(self) -> int:
        return 1

    __hash__ = None  # type: ignore[assignment]


def closure(held: object) -> Callable[[], str]:
    def made() -> str:
        return repr(held)

    return made


def computed() -> tuple[int, int]:
    found = memo_statistics()["types of results"]
    return found.hits, found.misses


def test_the_type_is_that_of_the_function_behind_partials_and_methods() -> None:
    assert returns_of(plain) == list[int]
    assert returns_of(functools.partial(functools.partial(plain), 1)) == list[int]
    assert returns_of(Holder().made) is Holder
    assert returns_of(closure(1)) is str
    assert returns_of(bare) is Any
    assert returns_of(Holder()) is Any
    assert returns_of(None) is Any


def test_partials_and_methods_made_anew_share_one_computation() -> None:
    returns_of(plain)
    returns_of(Holder.made)
    hits, misses = computed()
    for number in range(50):
        returns_of(functools.partial(plain, number))
        returns_of(Holder().made)
    assert computed() == (hits + 100, misses)


def test_nothing_that_a_function_holds_is_kept() -> None:
    class Big:
        pass

    held, owner = Big(), Holder()
    first, second = weakref.ref(held), weakref.ref(owner)
    assert returns_of(functools.partial(closure(held))) is str
    assert returns_of(functools.partial(owner.made)) is Holder
    del held, owner
    gc.collect()
    assert (first(), second()) == (None, None)
