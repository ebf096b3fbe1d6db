"""The cache beside the predecessor's way: a get of redis-py for each lookup, and the standard library's json (facts/predecessor.md 2.2).

Both ask the same embedded server for results of 1 KB, 100 lookups in flight. Ours pays for the seal of every value and batches what waits.
"""

import itertools
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import msgspec
from redis.asyncio import Redis

from events.caching import Address, Cached
from events.clock import SystemClock
from events.errors import InvariantError
from events.ids import StreamId
from ops.bench.json_codec import note
from ops.bench.measure import Case, Cases, Sample, Setting, closed_loop
from ops.cache_connection import cache_place, make_secrets
from ops.cache_server import CacheServer
from ops.settings import Settings
from projections.cache.connection_redis import open_client
from projections.cache.recent import Recent
from projections.cache.server_redis import RedisCacheServer
from projections.cache.step_cache import TieredStepCache
from projections.cache.values import Values
from runtime.tasks import Tasks

_RESULTS: Final = 1_000
_IN_FLIGHT: Final = 100
_STREAM: Final = StreamId("bench/cache")


@asynccontextmanager
async def cache_cases(setting: Setting) -> AsyncIterator[Cases]:
    """A server with 1,000 results of 1 KB; who asks it, and who has them already."""
    settings = Settings(data=setting.folder)
    make_secrets(settings)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(CacheServer(settings))
        place = cache_place(settings)
        if place.address is None:
            raise InvariantError(place.shown)
        clock, tasks, values = SystemClock(), Tasks(), Values("0" * 32, place.seal)
        server = RedisCacheServer(place.address, tasks.spawn, timeout_s=5.0)
        stack.push_async_callback(tasks.cancel_all)
        stack.push_async_callback(server.close)
        client = open_client(place.address, timeout_s=5.0, connections_max=_IN_FLIGHT)
        stack.push_async_callback(client.aclose)
        addresses = [Address("cache", "analysis", f"{number:064x}") for number in range(_RESULTS)]
        warm = TieredStepCache(values, clock)
        for address in addresses:
            cached = Cached(msgspec.json.encode(note()), _STREAM, 1, clock.wall_us() + 3_600_000_000)
            warm.keep(address, cached)
            name = values.name(address)
            await client.set(name, values.encode(name, cached))
            await client.set(f"{values.prefix}:old:{address.key}", json.dumps(msgspec.to_builtins(note())))
        # Room for one: every lookup goes to the server.
        cold = TieredStepCache(values, clock, server, Recent(entries_max=1))
        yield {
            "cache-recent": _by_ours(warm, addresses),
            "cache-server": _by_ours(cold, addresses),
            "cache-old": _by_theirs(client, [f"{values.prefix}:old:{address.key}" for address in addresses]),
        }


def _by_ours(cache: TieredStepCache, addresses: list[Address]) -> Case:
    async def run(seconds: float) -> Sample:
        turn = itertools.cycle(addresses)

        async def look_up(_: int) -> None:
            found = await cache.get(next(turn), _STREAM)
            if found is None:
                raise InvariantError("a result that was put there is not found")
            msgspec.json.decode(found.result)

        return await closed_loop(look_up, _IN_FLIGHT, seconds)

    return run


def _by_theirs(client: "Redis", names: list[str]) -> Case:
    async def run(seconds: float) -> Sample:
        turn = itertools.cycle(names)

        async def look_up(_: int) -> None:
            found = await client.getrange(next(turn), 0, -1)  # our user of the server may not GET; it costs the same
            json.loads(found or b"")

        return await closed_loop(look_up, _IN_FLIGHT, seconds)

    return run
