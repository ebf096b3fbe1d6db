"""The cache of one process, put together: settings to a `StepCache` for a worker, and to the view that a projector keeps."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from events.clock import Clock, SystemClock
from events.log_directory import read_identity
from ops.cache_connection import CachePlace, cache_place, make_secrets
from ops.cache_server import CacheServer
from ops.exits import StartError
from ops.settings import Settings
from ops.versions import distribution_version
from projections.cache.address import ServerAddress
from projections.cache.step_cache import Server, TieredStepCache
from projections.cache.values import Values
from projections.cache.when_asked import ServerWhenAsked
from runtime.tasks import Tasks, end

log = structlog.get_logger("cuebook.cache")

if TYPE_CHECKING:
    from projections.cache.view_redis import RedisCacheView


@asynccontextmanager
async def open_step_cache(settings: Settings, clock: Clock | None = None) -> AsyncIterator[TieredStepCache | None]:
    """What the steps of this process had before, and behind it the server, if there is one; None if the settings want no cache.

    The log must be there. Nothing is waited for: a server that is away is found when it is back.
    """
    if settings.cache == "off":
        yield None
        return
    place, clock = cache_place(settings), clock or SystemClock()
    values = _values(settings, place)
    if place.address is None:
        yield TieredStepCache(values, clock)
        return
    tasks = Tasks()
    load = partial(_client, place.address, tasks)
    # A server of yours is reached by a URL, which is looked at before anything is served.
    server: Server = ServerWhenAsked(load, tasks.spawn) if place.embedded else load()()
    try:
        yield TieredStepCache(values, clock, server)
    finally:
        await server.close()
        await tasks.cancel_all()


@asynccontextmanager
async def serving_cache(settings: Settings, tasks: Tasks) -> AsyncIterator[CachePlace]:
    """What `up` does for the cache: its secrets, and the embedded server if that is wanted and can be had. Nothing else depends on it, so a
    server that does not start is said and gone without. Call it on the main thread."""
    if settings.cache == "off" or distribution_version("redis") is None:
        yield cache_place(settings)
        return
    make_secrets(settings)
    if settings.redis_url is not None:
        yield cache_place(settings)
        return
    server = CacheServer(settings)
    try:
        await server.start()
    except StartError as error:
        log.warning("cache_server_not_started", reason=error.what, why=error.why)
        yield CachePlace(address=None, seal=b"", embedded=True, off=f"{error.what}: {error.why}")
        return
    watching = tasks.spawn(server.supervise(), name="cache server")
    try:
        yield cache_place(settings)
    finally:
        await server.stop()
        await end(watching)


def cache_view(settings: Settings, clock: Clock | None = None) -> "RedisCacheView | None":
    """The server as a view of the log; None if there is none to fill. Its caller closes it."""
    place = cache_place(settings)
    if place.address is None:
        return None
    from projections.cache.view_redis import RedisCacheView

    return RedisCacheView(place.address, _values(settings, place), clock or SystemClock())


def _client(address: ServerAddress, tasks: Tasks) -> Callable[[], Server]:
    """What makes the client of the server; the import is what takes its time."""
    from projections.cache.server_redis import RedisCacheServer

    return partial(RedisCacheServer, address, tasks.spawn)


def _values(settings: Settings, place: CachePlace) -> Values:
    return Values(read_identity(Path(settings.data) / "log").incarnation, place.seal)
