"""One look at the server, for people. Not for those who need the cache."""

import asyncio
from typing import Any, Final

import msgspec

from projections.cache.address import ServerAddress
from projections.cache.connection_redis import FAILURES, as_bytes, open_client
from projections.cache.values import Checkpoint, Values

_TIMEOUT_S: Final = 3.0
_CHECKPOINT_BYTES_MAX: Final = 1_048_576


class ServerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in the server. entries: names of this log. evicted: since the server's start, of all that it holds."""

    version: str
    entries: int
    used_bytes: int
    limit_bytes: int
    evicted: int
    checkpoint: Checkpoint | None


async def look(address: ServerAddress, values: Values) -> ServerFacts | str:
    """What the server holds of a log; why it does not answer, as text."""
    client = open_client(address, timeout_s=_TIMEOUT_S)
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            info: dict[str, Any] = await client.info()
            entries = 0
            async for name in client.scan_iter(f"{values.prefix}:*", count=1_000):
                entries += name != values.checkpoint.encode()
            checkpoint = None
            if await client.type(values.checkpoint) == b"string":
                checkpoint = values.decode_checkpoint(as_bytes(await client.getrange(values.checkpoint, 0, _CHECKPOINT_BYTES_MAX)))
    except FAILURES as error:
        return f"it does not answer ({str(error) or type(error).__name__})"[:300]
    finally:
        await client.aclose()
    version = info.get("valkey_version") or info.get("redis_version") or "?"
    name = "valkey" if "valkey_version" in info else "redis"
    return ServerFacts(
        version=f"{name} {version}", entries=entries, used_bytes=int(info.get("used_memory", 0)), limit_bytes=int(info.get("maxmemory", 0)),
        evicted=int(info.get("evicted_keys", 0)), checkpoint=checkpoint,
    )  # fmt: skip
