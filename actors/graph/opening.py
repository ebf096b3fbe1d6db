"""A folder of threads that is open as long as a ``with`` lasts."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from actors.graph.threads import Threads
from events.sqlite.sqlite_library import Durability

S = TypeVar("S")


class Opening(AbstractContextManager[S], AbstractAsyncContextManager[S], Generic[S]):
    """Opens on entering, closes on leaving; for ``with`` and for ``async with``."""

    def __init__(self, make: Callable[[Threads], S], path: Path, durability: Durability, types: dict[str, type] | None) -> None:
        self._make = make
        self._open = partial(Threads.open, path, durability=durability, types=types)
        self._threads: Threads | None = None

    def __enter__(self) -> S:
        self._threads = self._open()
        return self._make(self._threads)

    def __exit__(self, *exc_info: object) -> None:
        if self._threads is not None:
            self._threads.close()

    async def __aenter__(self) -> S:
        self._threads = await asyncio.to_thread(self._open)
        return self._make(self._threads)

    async def __aexit__(self, *exc_info: object) -> None:
        if self._threads is not None:
            await asyncio.to_thread(self._threads.close)
