"""The cache as a turn sees it: what this process has had, then the server, and one who runs the step where nobody has it (S37).

Satisfies `actors.step_cache.StepCache`, which this package may not import.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from events.caching import NAMESPACES, Address, Cached
from events.clock import Clock
from events.ids import StreamId
from events.limits import CACHE_VALUE_BYTES_MAX
from projections.cache.recent import Recent
from projections.cache.values import STORED_BYTES_MAX, Values

Spawn = Callable[..., "asyncio.Task[Any]"]
"""``spawn(coroutine, name=...)``: `runtime.tasks.Tasks.spawn`, handed in by `ops`."""


class CacheServerStatistics(msgspec.Struct, kw_only=True):
    """What a process asked of the server.

    pipelines: how many trips carried the `gets`. passed_over: lookups while the server was away, which cost nothing. wrong: answers that
    are no value, such as another type under the name. outages: how often it went away.
    """

    away: bool = False
    gets: int = 0
    pipelines: int = 0
    passed_over: int = 0
    wrong: int = 0
    outages: int = 0


class Server(Protocol):
    """What is asked behind this process. Adapter: `server_redis`."""

    async def get(self, name: str, bytes_max: int) -> bytes | None:
        """The first `bytes_max` bytes under `name`. None: there is nothing, or nothing of use, or no server; never raises for these."""
        ...

    def statistics(self) -> CacheServerStatistics:
        """What was asked of it by this process."""
        ...

    async def close(self) -> None:
        """Answer who waits with a miss, and disconnect. Idempotent."""
        ...


class NamespaceStatistics(msgspec.Struct, kw_only=True):
    """Lookups of one namespace in one process. Each is one of: recent (served by this process), served (by the server), missed. refused: of
    the missed, those where the server held something that was not ours, or older than what is known here. waited: of all, those that
    waited for another one who ran the step."""

    recent: int = 0
    served: int = 0
    missed: int = 0
    refused: int = 0
    waited: int = 0

    @property
    def lookups(self) -> int:
        return self.recent + self.served + self.missed


class StepCacheStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What the cache of one process did since its start."""

    namespaces: dict[str, NamespaceStatistics]
    entries: int
    size_bytes: int
    server: CacheServerStatistics | None = None
    """What was asked of the server; None where there is none."""


class TieredStepCache:
    """One per process."""

    def __init__(self, values: Values, clock: Clock, server: Server | None = None, recent: Recent | None = None) -> None:
        self._values = values
        self._clock = clock
        self._server = server
        self._recent = Recent() if recent is None else recent
        self._flights: dict[Address, asyncio.Future[None]] = {}
        self._counts = {name: NamespaceStatistics() for name in NAMESPACES}

    def statistics(self) -> StepCacheStatistics:
        namespaces = {name: msgspec.structs.replace(counts) for name, counts in self._counts.items()}
        server = None if self._server is None else self._server.statistics()
        return StepCacheStatistics(namespaces=namespaces, entries=len(self._recent), size_bytes=self._recent.size_bytes, server=server)

    async def get(self, address: Address, stream: StreamId) -> Cached | None:
        counts = self._counts[address.namespace]
        flight = self._flights.get(address)
        if flight is not None:
            counts.waited += 1
        while flight is not None:
            await asyncio.wait([flight])
            flight = self._flights.get(address)
        recent = self._recent.get(address, self._clock.wall_us())
        if recent is not None:
            counts.recent += 1
            return recent
        # From here on nobody else asks for it, until it is found, kept or given up.
        self._flights[address] = asyncio.get_running_loop().create_future()
        try:
            found = await self._ask(address, stream, counts)
        except BaseException:
            self.give_up(address)
            raise
        if found is None:
            counts.missed += 1
            return None
        counts.served += 1
        self._recent.put(address, found, self._clock.wall_us())
        self.give_up(address)
        return found

    async def _ask(self, address: Address, stream: StreamId, counts: NamespaceStatistics) -> Cached | None:
        if self._server is None:
            return None
        name = self._values.name(address)
        # One byte more than anything of ours has: what is cut off there cannot be mistaken for a value.
        value = await self._server.get(name, STORED_BYTES_MAX + 1)
        if not value:
            return None
        found = self._values.decode(name, value)
        if found is None or found.stream != stream or found.version < self._recent.known_version(address):
            counts.refused += 1
            return None
        return found if self._clock.wall_us() < found.expires_us else None

    def keep(self, address: Address, cached: Cached) -> None:
        if len(cached.result) <= CACHE_VALUE_BYTES_MAX:
            self._recent.put(address, cached, self._clock.wall_us())
        self.give_up(address)

    def give_up(self, address: Address) -> None:
        flight = self._flights.pop(address, None)
        if flight is not None:
            flight.set_result(None)

    def forget(self, stream: StreamId) -> None:
        self._recent.forget(stream)
