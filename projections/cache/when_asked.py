"""The cache's server behind a process that may never ask it: its client, 0.2 s and 20 MB of modules, is loaded for the first who does."""

import asyncio
from collections.abc import Callable
from typing import Any

import structlog

from projections.cache.step_cache import CacheServerStatistics, Server, Spawn

log = structlog.get_logger("cuebook.cache")


class ServerWhenAsked:
    """A `step_cache.Server` around another one. One per process and event loop.

    Args:
        load: what takes its time, such as an import; called on a thread, at most once. Its result makes the server, on the loop.
    """

    def __init__(self, load: Callable[[], Callable[[], Server]], spawn: Spawn) -> None:
        self._load = load
        self._spawn = spawn
        self._server: Server | None = None
        self._loading: asyncio.Task[Any] | None = None
        self._closed = False

    def statistics(self) -> CacheServerStatistics:
        return CacheServerStatistics() if self._server is None else self._server.statistics()

    async def get(self, name: str, bytes_max: int) -> bytes | None:
        if self._server is None and not self._closed:
            if self._loading is None:
                self._loading = self._spawn(self._open(), name="cache: load the client")
            # Its end and no more: whoever is cancelled meanwhile leaves it to the others.
            await asyncio.wait([self._loading])
        return None if self._server is None else await self._server.get(name, bytes_max)

    async def _open(self) -> None:
        try:
            make = await asyncio.to_thread(self._load)
            if not self._closed:
                self._server = make()
        except Exception as error:  # noqa: BLE001  whatever is wrong with the client, the step just runs
            self._closed = True
            log.warning("cache_client_unusable", error=repr(error)[:200])

    async def close(self) -> None:
        """Answer who waits with a miss, and disconnect. Idempotent."""
        self._closed = True
        if self._server is not None:
            await self._server.close()
