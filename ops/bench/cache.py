"""The rows of the cache, where what they need is installed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ops.bench.measure import Cases, Setting, Unavailable
from ops.cache_connection import INSTALL
from ops.cache_server import find_program
from ops.exits import StartError
from ops.versions import distribution_version


@asynccontextmanager
async def cache_cases(setting: Setting) -> AsyncIterator[Cases]:
    """As `cache_redis.cache_cases`, or why not."""
    missing = f"install its client: {INSTALL}" if distribution_version("redis") is None else None
    try:
        find_program()
    except StartError as error:
        missing = missing or f"{error.what}: {error.next_step}"
    if missing is not None:
        yield {name: Unavailable(missing) for name in ("cache-recent", "cache-server", "cache-old")}
        return
    from ops.bench.cache_redis import cache_cases as cases

    async with cases(setting) as found:
        yield found
