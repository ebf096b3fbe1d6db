"""The server as a view of the log: results of steps that may be cached, with the time that is left of them, and how many lookups were hits.

The checkpoint stands beside the values and is compared and moved in one transaction with them. Whoever loses the values (FLUSHALL, a server
that was restarted) has lost it too: the projector meets a checkpoint that is not the one it expects, reads it again, finds none, and begins
at the start of the log. Counts are part of the checkpoint, so they stay exact.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import WatchError

from events.caching import NAMESPACES, Address, Cached, Caching
from events.clock import Clock
from events.envelope import MAIN_BRANCH, RecordedEvent
from events.ids import StreamId
from events.limits import CACHE_TTL_MAX_S, CACHE_VALUE_BYTES_MAX
from projections.cache.address import ServerAddress
from projections.cache.connection_redis import FAILURES, as_bytes, open_client
from projections.cache.tally import Tally, tallies
from projections.cache.values import STORED_BYTES_MAX, Checkpoint, Counts, Values
from projections.errors import CheckpointError, ViewUnavailableError
from projections.projection import operation
from projections.view import ERASED, Parked, Positions

_TIMEOUT_S: Final = 10.0
_CLEAR_TIMEOUT_S: Final = 60.0
_SCAN_COUNT: Final = 500
_CHECKPOINT_BYTES_MAX: Final = 1_048_576


class _Outcome(msgspec.Struct, frozen=True):
    """The part of ``step.completed`` and ``step.failed`` that concerns the cache."""

    result: msgspec.Raw = msgspec.Raw(b"null")
    cache: Caching | None = None


class _Batch:
    """What a batch of events changes: the newest result per name, streams that are to be forgotten, lookups counted."""

    def __init__(self) -> None:
        self.results: dict[str, Cached] = {}
        self.erased: dict[StreamId, str] = {}
        self.counts: dict[str, Counts] = {}

    def count(self, namespace: str, *, hit: bool) -> None:
        counts = self.counts.setdefault(namespace, Counts())
        if hit:
            counts.hits += 1
        else:
            counts.misses += 1

    def erase(self, stream: StreamId) -> None:
        self.results = {name: cached for name, cached in self.results.items() if cached.stream != stream}
        self.erased[stream] = stream.partition("/")[2]


class RedisCacheView:
    """Adapter of `projections.view.View`. One per deployment at a time; of two, the checkpoint lets one get further."""

    name = "cache"
    version = 1
    handles: Sequence[str] = ("step.completed", "step.failed")
    sealed = False

    def __init__(self, address: ServerAddress, values: Values, clock: Clock, *, timeout_s: float = _TIMEOUT_S) -> None:
        self._client: Redis = open_client(address, timeout_s=timeout_s)
        self._values = values
        self._clock = clock
        self._timeout_s = timeout_s
        self._decoder = msgspec.json.Decoder(_Outcome)
        self.stands_at: Positions | None = None
        """The checkpoint that was written last through this object."""

    async def positions(self) -> Positions:
        checkpoint = await self.checkpoint()
        return {} if checkpoint is None else checkpoint.positions

    async def checkpoint(self) -> Checkpoint | None:
        """The checkpoint with its counts; None if there is none, or none of ours. Raises: ViewUnavailableError."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._stored(self._client)
        except FAILURES as error:
            raise _away(error) from error

    async def parked(self) -> Sequence[Parked]:
        """None ever: what cannot be read as a cached result is none."""
        return ()

    async def apply(
        self, events: Sequence[RecordedEvent], *, expected: Positions, positions: Positions, parked: Sequence[Parked] = ()
    ) -> None:
        batch = self._batch(events)
        try:
            # The outer one bounds how a pipeline is left: it takes its WATCH back first, and waits for the answer to that.
            outer, inner = asyncio.timeout(2 * self._timeout_s), asyncio.timeout(self._timeout_s)
            async with outer, inner, self._client.pipeline(transaction=True) as pipeline:
                await self._commit(pipeline, batch, expected, positions)
        except WatchError as error:
            raise CheckpointError("the cache's checkpoint changed while it was written") from error
        except FAILURES as error:
            raise _away(error) from error
        self.stands_at = dict(positions)

    async def release(self, stream: StreamId, events: Sequence[RecordedEvent], *, expected: Positions) -> None:
        """Nothing is ever parked."""

    async def check(self) -> None:
        """Whether what was written is still there: asked now and then while there is nothing to apply.

        Raises:
            CheckpointError: it was lost. ViewUnavailableError.
        """
        if self.stands_at is not None and _stood(await self.positions()) != _stood(self.stands_at):
            raise CheckpointError("the cache's server has lost what it held: it is filled again from the log")

    @operation
    async def stats(self, reads: object) -> list[Tally]:
        """Hits and misses of each namespace since the log began."""
        checkpoint = await self.checkpoint()
        return [] if checkpoint is None else tallies(checkpoint.counts)

    async def close(self) -> None:
        await self._client.aclose()

    async def clear(self) -> int:
        """Remove every value of this log and its checkpoint; how many values there were. Raises: ViewUnavailableError."""
        self.stands_at = None
        try:
            async with asyncio.timeout(_CLEAR_TIMEOUT_S):
                await self._client.unlink(self._values.checkpoint)
                return await self._purge()
        except FAILURES as error:
            raise _away(error) from error

    async def forget(self, stream: StreamId) -> int:
        """Remove what came from `stream`, which was erased (S29), without moving the checkpoint: for when nobody follows the log. Whoever
        does so later comes to the erasure again. How many values there were. Raises: ViewUnavailableError."""
        await self.checkpoint()  # one that hangs is soon known to; one that answers is given the time to look through all that it holds
        try:
            async with asyncio.timeout(_CLEAR_TIMEOUT_S):
                names = await self._names_from(stream, stream.partition("/")[2])
                return int(await self._client.unlink(*names)) if names else 0
        except FAILURES as error:
            raise _away(error) from error

    async def _commit(self, pipeline: Pipeline, batch: _Batch, expected: Positions, positions: Positions) -> None:
        # From here on FLUSHALL, and another projector, make EXEC fail.
        await pipeline.watch(self._values.checkpoint)
        stored = await self._stored(pipeline)
        found = {} if stored is None else stored.positions
        if _stood(found) != _stood(expected):
            raise CheckpointError(f"the cache stands at {_stood(found)}, not at {_stood(expected)}")
        if stored is None:
            # Values without a checkpoint may be newer than what is written next, or of a stream that was erased since.
            await self._purge()
        doomed = [name for stream, workspace in batch.erased.items() for name in await self._names_from(stream, workspace)]
        now_us = self._clock.wall_us()
        live = {name: cached for name, cached in batch.results.items() if cached.expires_us > now_us}
        # A result that is over has taken the place of the one before it, which may have been given more time.
        doomed += [name.encode() for name in batch.results if name not in live]
        counts = {} if stored is None else {name: msgspec.structs.replace(each) for name, each in stored.counts.items()}
        for name, more in batch.counts.items():
            total = counts.setdefault(name, Counts())
            total.hits, total.misses = total.hits + more.hits, total.misses + more.misses
        checkpoint = Checkpoint(positions=dict(positions), counts=counts)
        pipeline.multi()  # type: ignore[no-untyped-call]
        if doomed:
            pipeline.unlink(*doomed)
        for name, cached in live.items():
            pipeline.set(name, self._values.encode(name, cached), pxat=cached.expires_us // 1_000)
        pipeline.set(self._values.checkpoint, self._values.encode_checkpoint(checkpoint))
        await pipeline.execute()

    async def _stored(self, client: Redis) -> Checkpoint | None:
        if await client.type(self._values.checkpoint) != b"string":
            return None
        return self._values.decode_checkpoint(as_bytes(await client.getrange(self._values.checkpoint, 0, _CHECKPOINT_BYTES_MAX)))

    def _batch(self, events: Sequence[RecordedEvent]) -> _Batch:
        batch = _Batch()
        for event in events:
            if event.type == ERASED:
                batch.erase(event.stream)
            elif event.branch == MAIN_BRANCH and event.key_id is None:
                self._take(batch, event)
        return batch

    def _take(self, batch: _Batch, event: RecordedEvent) -> None:
        try:
            outcome = self._decoder.decode(event.payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return  # erased since, or by a program that says it in another way
        caching = outcome.cache
        if caching is None or caching.namespace not in NAMESPACES:
            return
        batch.count(caching.namespace, hit=caching.hit is not None)
        address = Address(event.stream.partition("/")[2], caching.namespace, caching.key)
        if event.type != "step.completed" or caching.hit is not None or len(outcome.result) > CACHE_VALUE_BYTES_MAX:
            return
        if address.sound and 0 < caching.ttl_us <= CACHE_TTL_MAX_S * 1_000_000:
            expires_us = event.recorded_at_us + caching.ttl_us
            batch.results[self._values.name(address)] = Cached(bytes(outcome.result), event.stream, event.version, expires_us)

    async def _names_from(self, stream: StreamId, workspace: str) -> list[bytes]:
        """The names whose values came from `stream`; of those that cannot be read, all."""
        found: list[bytes] = []
        async for name in self._client.scan_iter(self._values.names_of(workspace), count=_SCAN_COUNT, _type="string"):
            value = as_bytes(await self._client.getrange(name, 0, STORED_BYTES_MAX))
            cached = self._values.decode(name.decode("utf-8", "replace"), value)
            if cached is None or cached.stream == stream:
                found.append(name)
        return found

    async def _purge(self) -> int:
        """Remove every value of this log; how many there were."""
        gone = 0
        names: list[bytes] = []
        async for name in self._client.scan_iter(f"{self._values.prefix}:*", count=_SCAN_COUNT):
            if name != self._values.checkpoint.encode():
                names.append(name)
            if len(names) >= _SCAN_COUNT:
                gone += await self._client.unlink(*names)
                names.clear()
        return gone + (await self._client.unlink(*names) if names else 0)


def _stood(positions: Positions) -> dict[int, int]:
    return {shard: position for shard, position in positions.items() if position}


def _away(error: Exception) -> ViewUnavailableError:
    return ViewUnavailableError(f"the cache's server: {error!r}"[:300])
