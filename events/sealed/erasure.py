"""Erasing to the end (S29): after the transaction that removes what a stream said, its keys are destroyed and the shard file is rewritten.

Each step is safe to repeat, and an erasure is listed by the shard until the last one: whoever dies half-way is continued by the next owner.
"""

import asyncio
from pathlib import Path
from typing import Final

from events.closing import Closed
from events.crash_points import CrashPoint, reached
from events.errors import ConfigurationError, TransientError
from events.ids import StreamId, parse_stream_id, shard_of
from events.log_directory import read_identity
from events.sealed.sealing import Sealer
from events.store import ShardStore

_SCRUB_TRIES: Final = 100
_SCRUB_AGAIN_S: Final = 0.1


async def finish_erasures(store: ShardStore, sealer: Sealer | None) -> list[StreamId]:
    """Complete every erasure that `store` lists; returns their streams. Cancelling leaves them listed.

    Raises:
        ConfigurationError: a sealed stream is to be erased, and its keys' folder is not known here. TransientError: somebody goes on
            reading an older state of the file. Else as `ShardStore.append`.
    """
    open_ = await store.erasures()
    if not open_:
        return []
    for erasure in open_:
        if erasure.key_ids and sealer is None:
            raise ConfigurationError(
                f"{erasure.stream} is erased in the log, but the keys that it was sealed under are not destroyed: say where they are "
                "(setting keys), and install cuebook[sealed]",
                stream=erasure.stream,
            )
        if sealer is not None:
            for key_id in erasure.key_ids:
                await asyncio.to_thread(sealer.destroy, key_id)
    reached(CrashPoint.ERASE_KEYS_GONE)
    if any(erasure.is_plain for erasure in open_):
        await _scrub(store)
    reached(CrashPoint.ERASE_SCRUBBED)
    for erasure in open_:
        await store.erased(erasure.stream)
    return [erasure.stream for erasure in open_]


async def _scrub(store: ShardStore) -> None:
    for _ in range(_SCRUB_TRIES):
        if await store.scrub():
            return
        await asyncio.sleep(_SCRUB_AGAIN_S)  # readers read one page at a time (S31)
    raise TransientError(
        f"shard {store.shard} cannot be rewritten: somebody goes on reading an older state of it, which still holds what was erased. "
        "End that reader; erasing again completes it",
        shard=store.shard,
    )


async def erase(directory: Path, stream: StreamId, requested_by: str, sealer: Sealer | None) -> Closed:
    """Erase `stream` of the log in `directory`, whose shard the caller has locked, to the end.

    Raises:
        UnknownStreamError: the log never named it. ConfigurationError: there is no log, or as `finish_erasures`. Else as
            `ShardStore.append`.
    """
    from events.sqlite.store_sqlite import SqliteShard

    store = await SqliteShard.open(directory, shard_of(*parse_stream_id(stream), read_identity(directory).shards))
    try:
        await store.take("erase")
        closed = await store.erase(stream, requested_by)
        reached(CrashPoint.ERASE_COMMITTED)
        await finish_erasures(store, sealer)
        return closed
    finally:
        await store.close()
