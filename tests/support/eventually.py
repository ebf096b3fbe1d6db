"""Waiting for what cannot tell by itself that it has come: a file, another process, the state of an actor."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
LOOK_AGAIN_S = 0.01
"""Between two looks. Nothing depends on it: whoever waits longer sees the same."""


async def eventually(probe: Callable[[], Awaitable[T | None]], what: str, timeout_s: float = 45.0) -> T:
    """The first true value of `probe`. Where there is an event to wait for, wait for that instead."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + timeout_s
    while not (value := await probe()):
        if loop.time() > give_up:
            raise AssertionError(f"after {timeout_s:.0f} s still not: {what}")
        await asyncio.sleep(LOOK_AGAIN_S)
    return value


async def until(holds: Callable[[], object], what: str, timeout_s: float = 45.0) -> None:
    """`eventually`, of what can be looked at without waiting."""

    async def look() -> bool:
        return bool(holds())

    await eventually(look, what, timeout_s)
