"""Several effects of one turn at the same time."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Await all of `work` concurrently; the results stand in the order given.

    Every piece ends before this returns: one that fails stops no other, so that a re-run finds every step that was begun. Then the first
    failure, in the order given, is raised as it is and not inside a group, because the turn engine tells outcomes apart by their class.
    What is no `Exception` (the engine giving up the turn, a cancellation) stops the rest at once.
    """
    pieces = list(work)
    results: dict[int, T] = {}
    failures: dict[int, Exception] = {}

    async def run(number: int, piece: Coroutine[Any, Any, T]) -> None:
        try:
            results[number] = await piece
        except Exception as error:  # noqa: BLE001  raised below, when all have ended
            failures[number] = error

    try:
        async with asyncio.TaskGroup() as group:
            for number, piece in enumerate(pieces):
                group.create_task(run(number, piece))
    except BaseExceptionGroup as error:
        raise error.exceptions[0] from None
    if failures:
        raise failures[min(failures)]
    return [results[number] for number in range(len(pieces))]


async def both(first: Coroutine[Any, Any, A], second: Coroutine[Any, Any, B]) -> tuple[A, B]:
    """`together` for two of different types."""
    pair: list[Coroutine[Any, Any, Any]] = [first, second]
    one, two = await together(pair)
    return one, two
