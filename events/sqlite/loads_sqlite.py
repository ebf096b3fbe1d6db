"""Many streams in one hop to the database thread: what is asked for while a load runs is loaded together next (F-27, cold starts).

No task of its own: whoever finds nobody loading goes first, alone and at once; whoever waits longest when that ends loads for all who wait.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Container, Sequence
from typing import Any, Final

import msgspec

from events.envelope import RecordedEvent
from events.errors import CuebookError
from events.facts import PlainEvent
from events.ids import StreamId
from events.limits import LOAD_EVENTS_MAX, LOAD_STREAMS_MAX
from events.sqlite.reads_sqlite import FoundHead, load_stream
from events.sqlite.sqlite_library import SqliteConnection, SqliteError
from events.sqlite.tail_sqlite import load_tail
from events.store import Snapshot

Loaded = tuple[Snapshot | None, Sequence[RecordedEvent | PlainEvent]]
Request = tuple[StreamId, str, FoundHead | None, Container[str] | None]
"""Stream, shape of the snapshot, its head as the writer knows it, and what may come as `PlainEvent`: None for a `load`."""
_LEAD: Final = object()
_EVENTS_IF_UNKNOWN: Final = 32


def load_streams(connection: SqliteConnection, shard: int, requests: Sequence[Request]) -> list[Loaded | CuebookError | SqliteError]:
    """`ShardStore.load` or `tail` of each; what is wrong with one is no trouble of the others (I-20)."""
    results: list[Loaded | CuebookError | SqliteError] = []
    for stream, shape, head, plain in requests:
        try:
            if plain is None:
                results.append(load_stream(connection, shard, stream, shape, head))
            else:
                results.append(load_tail(connection, shard, stream, shape, head, plain))
        except (CuebookError, SqliteError) as error:
            results.append(error)
    return results


class _Waiting(msgspec.Struct, eq=False):
    request: Request
    turn: asyncio.Future[Any]


class Loads:
    """The loads of one shard. read: runs `load_streams` on the shard's thread."""

    def __init__(self, read: Callable[[Sequence[Request]], Awaitable[list[Loaded | CuebookError | SqliteError]]]) -> None:
        self._read = read
        self._queue: deque[_Waiting] = deque()
        self._led = False

    async def load(self, request: Request) -> Loaded:
        """One stream. Cancelling the caller leaves the others their loads.

        Raises:
            CuebookError, SqliteError: what is wrong with this stream, or with reading at all.
        """
        if self._led:
            waiting = _Waiting(request, asyncio.get_running_loop().create_future())
            self._queue.append(waiting)
            try:
                result = await waiting.turn
            except asyncio.CancelledError:
                if waiting in self._queue:
                    self._queue.remove(waiting)
                elif waiting.turn.done() and not waiting.turn.cancelled() and waiting.turn.result() is _LEAD:
                    self._pass_on()
                raise
            if result is not _LEAD:
                return _loaded(result)
        self._led = True
        others = self._take_others(request)
        try:
            results = await self._read([request, *(other.request for other in others)])
        except Exception as error:
            for other in others:
                if not other.turn.done():
                    other.turn.set_exception(error)
            raise
        except asyncio.CancelledError:
            self._queue.extendleft(reversed(others))
            raise
        finally:
            self._pass_on()
        for other, result in zip(others, results[1:], strict=True):
            if not other.turn.done():
                other.turn.set_result(result)
        return _loaded(results[0])

    def _take_others(self, first: Request) -> list[_Waiting]:
        """As many as make a load of a bounded size: nobody waits long for what others need."""
        others: list[_Waiting] = []
        events = _size(first)
        while self._queue and len(others) < LOAD_STREAMS_MAX - 1 and events < LOAD_EVENTS_MAX:
            others.append(self._queue.popleft())
            events += _size(others[-1].request)
        return others

    def _pass_on(self) -> None:
        while self._queue:
            waiting = self._queue.popleft()
            if not waiting.turn.done():
                waiting.turn.set_result(_LEAD)
                return
        self._led = False


def _size(request: Request) -> int:
    head = request[2]
    return _EVENTS_IF_UNKNOWN if head is None else head.version


def _loaded(result: Loaded | CuebookError | SqliteError) -> Loaded:
    if isinstance(result, BaseException):
        raise result
    return result
