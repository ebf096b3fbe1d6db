"""All shards of a log as one order: by logical time, then shard, then position (S30). Knows a `LogReader`, nothing of actors.

What nobody wants to see is left out where it lies (`LogReader.select`): a few events out of a million cost one look through the files.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from typing import Final

from events.envelope import RecordedEvent
from events.selection import EVERYTHING, Selection
from events.store import LogReader

Positions = Mapping[int, int]
"""A place in the whole log: the last position seen per shard. A shard that is not named counts from its start."""
_PAGE: Final = 256


async def head(reader: LogReader) -> dict[int, int]:
    """The newest position of every shard."""
    return {shard: int((await reader.info(shard)).position) for shard in range(reader.shards)}


class _Cursor:
    """One shard of a merge, a page at a time: forwards from `at` up to `end`, or backwards from below `at` down to above `end`."""

    def __init__(self, reader: LogReader, shard: int, wanted: Selection, at: int, end: int, *, backwards: bool) -> None:
        self._reader = reader
        self._shard = shard
        self._wanted = wanted
        self._looked = at
        self._end = end
        self._backwards = backwards
        self._page: deque[RecordedEvent] = deque()
        self._done = at <= end + 1 if backwards else at >= end

    @property
    def next(self) -> RecordedEvent | None:
        return self._page[0] if self._page else None

    @property
    def unsure(self) -> bool:
        """Nothing at hand, and not yet at the end."""
        return not self._page and not self._done

    @property
    def given(self) -> int:
        """Everything up to here was given out, or is not wanted; forwards."""
        return self._page[0].position - 1 if self._page else self._looked

    async def look(self) -> int:
        """Read one page; returns how many positions were looked through."""
        before = self._looked
        if self._backwards:
            page = await self._reader.select(self._shard, self._wanted, after=self._end, before=before, limit=_PAGE, backwards=True)
        else:
            page = await self._reader.select(self._shard, self._wanted, after=before, before=self._end + 1, limit=_PAGE)
        self._page.extend(page.events)
        self._looked, self._done = page.upto, page.end
        return abs(self._looked - before)

    def take(self) -> RecordedEvent:
        return self._page.popleft()


class Merge:
    """Wanted events of all shards in merged order, or in its reverse; a page per shard in memory.

    Ends at `upto`. What a running owner commits later may belong before the last ones given: to go on without losing any, begin again at
    `places()`, not at a time.

    Args:
        after: open lower bounds. upto: closed upper bounds, None = where the shards end at the first `next`.
        looked_max: `next` gives None, and `stopped` is true, after about so many positions, found or not.
    """

    def __init__(
        self,
        reader: LogReader,
        wanted: Selection = EVERYTHING,
        *,
        after: Positions | None = None,
        upto: Positions | None = None,
        backwards: bool = False,
        looked_max: int | None = None,
    ) -> None:
        self._reader = reader
        self._wanted = wanted
        self._after = dict(after or {})
        self._upto = upto
        self._sign = -1 if backwards else 1
        self._left = looked_max
        self._cursors: list[_Cursor] = []
        self._heap: list[tuple[int, int, int]] = []
        self._waiting = list(range(reader.shards))
        self.stopped = False

    async def _begin(self) -> None:
        bounds = await time_bounds(self._reader, self._wanted)
        ends = await head(self._reader) if self._upto is None else dict(self._upto)
        for shard in range(self._reader.shards):
            low = max(self._after.get(shard, 0), bounds[0].get(shard, 0))
            high = min(ends.get(shard, 0), bounds[1].get(shard, ends.get(shard, 0)))
            start, end = (high + 1, low) if self._sign < 0 else (low, max(low, high))
            self._cursors.append(_Cursor(self._reader, shard, self._wanted, start, end, backwards=self._sign < 0))

    async def _look(self) -> bool:
        """Find out what comes next in every shard; False if that would be more than is allowed."""
        while unsure := [shard for shard in self._waiting if self._cursors[shard].unsure]:
            if self._left is not None and self._left <= 0:
                return False
            # Side by side: each shard has a thread of its own.
            async with asyncio.TaskGroup() as group:
                looks = [group.create_task(self._cursors[shard].look()) for shard in unsure]
            if self._left is not None:
                self._left -= sum(look.result() for look in looks)
        for shard in self._waiting:
            if (event := self._cursors[shard].next) is not None:
                heapq.heappush(self._heap, (self._sign * event.time, self._sign * shard, self._sign * event.position))
        self._waiting = []
        return True

    async def next(self) -> RecordedEvent | None:
        """The next event; None at the end, or when enough was looked through.

        Raises:
            CorruptLogError: an event does not verify.
        """
        if not self._cursors:
            await self._begin()
        self.stopped = not await self._look()
        if self.stopped or not self._heap:
            return None
        shard = self._sign * heapq.heappop(self._heap)[1]
        self._waiting = [shard]
        return self._cursors[shard].take()

    def places(self) -> dict[int, int]:
        """Where to begin again (as `after`): everything up to here was given, or is not wanted. Forwards only, after a `next`."""
        return {shard: cursor.given for shard, cursor in enumerate(self._cursors) if cursor.given > 0}


async def time_bounds(reader: LogReader, wanted: Selection) -> tuple[dict[int, int], dict[int, int]]:
    """Positions between which the times of `wanted` lie: open lower, closed upper bounds; empty = unbounded."""
    low = {} if wanted.after_us is None else await positions_at(reader, wanted.after_us)
    high = {} if wanted.before_us is None else await positions_at(reader, wanted.before_us)
    return low, high


async def merged(
    reader: LogReader, wanted: Selection = EVERYTHING, *, after: Positions | None = None, upto: Positions | None = None
) -> AsyncGenerator[RecordedEvent, None]:
    """Wanted events of all shards, in merged order, see `Merge`."""
    merge = Merge(reader, wanted, after=after, upto=upto)
    while (event := await merge.next()) is not None:
        yield event


async def merged_backwards(reader: LogReader, wanted: Selection = EVERYTHING) -> AsyncGenerator[RecordedEvent, None]:
    """The reverse of `merged`, from the end of the log."""
    merge = Merge(reader, wanted, backwards=True)
    while (event := await merge.next()) is not None:
        yield event


async def positions_at(reader: LogReader, at_us: int) -> dict[int, int]:
    """Positions after which everything has a logical time >= `at_us`: a binary search per shard, since time grows with position."""
    found: dict[int, int] = {}
    for shard, top in (await head(reader)).items():
        found[shard] = await position_at(reader, shard, top, at_us)
    return found


async def position_at(reader: LogReader, shard: int, top: int, at_us: int) -> int:
    """The last position of `shard`, at most `top`, whose logical time is below `at_us`."""
    low, high = 0, top
    while low < high:
        middle = (low + high) // 2
        page = await reader.read(shard, after=middle, limit=1)
        if page and page[0].time < at_us:
            low = page[0].position
        else:
            high = middle
    return low


async def last(reader: LogReader, wanted: Selection = EVERYTHING, limit: int = 50, *, upto: Positions | None = None) -> list[RecordedEvent]:
    """The newest `limit` events that `wanted` lets through, oldest first; up to `upto`, None = to the end."""
    found: list[RecordedEvent] = []
    merge = Merge(reader, wanted, upto=upto, backwards=True)
    while len(found) < limit and (event := await merge.next()) is not None:
        found.append(event)
    return found[::-1]
