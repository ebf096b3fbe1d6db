"""Asking the server: what is asked at the same time goes as one pipeline, and a server that is away is not waited for.

One failure is enough to count it as away: from then on nobody asks, and a task of its own tries, with growing pauses, until it answers. So
an outage costs those steps one timeout that were waiting when it began, and every other nothing.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, NamedTuple

import msgspec
import structlog
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from projections.cache.address import ServerAddress
from projections.cache.connection_redis import FAILURES, open_client
from projections.cache.step_cache import CacheServerStatistics, Spawn

log = structlog.get_logger("cuebook.cache")
TIMEOUT_S: Final = 0.25
AT_ONCE_MAX: Final = 128
_TRY_FIRST_S: Final = 0.1
_TRY_MAX_S: Final = 5.0

class _Asked(NamedTuple):
    name: str
    bytes_max: int
    answer: "asyncio.Future[bytes | None]"


class RedisCacheServer:
    """Adapter of `step_cache.Server`. One per process and event loop."""

    def __init__(self, address: ServerAddress, spawn: Spawn, *, timeout_s: float = TIMEOUT_S) -> None:
        self._client: Redis = open_client(address, timeout_s=timeout_s, connections_max=2)
        self._spawn = spawn
        self._timeout_s = timeout_s
        self._waiting: list[_Asked] = []
        self._asking: asyncio.Task[Any] | None = None
        self._trying: asyncio.Task[Any] | None = None
        self._counts = CacheServerStatistics()
        self._closed = False

    def statistics(self) -> CacheServerStatistics:
        return msgspec.structs.replace(self._counts)

    async def get(self, name: str, bytes_max: int) -> bytes | None:
        if self._counts.away or self._closed:
            self._counts.passed_over += 1
            return None
        answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Asked(name, bytes_max, answer))
        if self._asking is None:
            self._asking = self._task(self._ask(), name="cache: ask")
        return await answer

    async def close(self) -> None:
        """Answer who waits with a miss, and disconnect. Idempotent."""
        self._closed = True
        while running := [task for task in (self._asking, self._trying) if task is not None and not task.done()]:
            # Again and again: asking may end because the server went away, and a client library may swallow a cancellation.
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=0.1)
        _missed(self._waiting)
        self._waiting.clear()
        await self._disconnect()

    def _task(self, work: Coroutine[Any, Any, None], *, name: str) -> "asyncio.Task[Any]":
        return self._spawn(work, name=name)

    async def _ask(self) -> None:
        """Carry what waits, batch after batch: what is asked while one is on its way is the next."""
        batch: list[_Asked] = []
        try:
            while self._waiting and not self._counts.away:
                batch, self._waiting = self._waiting[:AT_ONCE_MAX], self._waiting[AT_ONCE_MAX:]
                try:
                    async with asyncio.timeout(self._timeout_s):
                        replies = await self._carry(batch)
                except Exception as error:  # noqa: BLE001  whatever a server that is not ours may say, the step just runs
                    self._went_away(error)
                else:
                    for asked, reply in zip(batch, replies, strict=True):
                        if not asked.answer.done():
                            asked.answer.set_result(self._value(reply, asked.bytes_max))
                _missed(batch)
        finally:
            _missed(batch)
            if self._counts.away:
                _missed(self._waiting)
                self._waiting.clear()
            self._asking = None
            if self._waiting and not self._closed:
                self._asking = self._task(self._ask(), name="cache: ask")

    async def _carry(self, batch: list[_Asked]) -> list[Any]:
        self._counts.gets += len(batch)
        self._counts.pipelines += 1
        async with self._client.pipeline(transaction=False) as pipeline:
            for asked in batch:
                # Never GET: what somebody else has put there may be of any size.
                pipeline.getrange(asked.name, 0, asked.bytes_max - 1)
            return await pipeline.execute(raise_on_error=False)

    def _value(self, reply: object, bytes_max: int) -> bytes | None:
        if isinstance(reply, bytes) and len(reply) <= bytes_max:
            return reply
        self._counts.wrong += 1
        if not isinstance(reply, ResponseError):
            log.warning("cache_answer_unknown", type=type(reply).__name__)
        return None

    def _went_away(self, error: Exception) -> None:
        if self._counts.away:
            return
        self._counts.away = True
        self._counts.outages += 1
        if self._closed:
            return
        log.warning("cache_away", error=repr(error)[:200])
        self._trying = self._task(self._try(), name="cache: try")

    async def _try(self) -> None:
        """Until the server answers again. Nobody waits for this."""
        delay = _TRY_FIRST_S
        while True:
            await self._disconnect()
            await asyncio.sleep(delay)
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._client.ping()
            except Exception:  # noqa: BLE001  as in `_ask`
                delay = min(delay * 2, _TRY_MAX_S)
            else:
                break
        self._counts.away = False
        self._trying = None
        log.info("cache_back")

    async def _disconnect(self) -> None:
        """A connection whose answer was given up would give it to the next who asks."""
        try:
            await self._client.connection_pool.disconnect(inuse_connections=True)
        except FAILURES as error:
            log.debug("cache_disconnect_failed", error=repr(error)[:200])


def _missed(asked: list[_Asked]) -> None:
    for each in asked:
        if not each.answer.done():
            each.answer.set_result(None)
