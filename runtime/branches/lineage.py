"""A fork read from the beginning: what came before it stands in its parent (S33)."""

from collections.abc import Sequence

import msgspec

from events.envelope import RecordedEvent
from events.errors import CorruptLogError
from events.ids import StreamId
from events.store import LogReader


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a fork branched off: after version `version` of `parent`."""

    parent: StreamId
    version: int


async def origin(reader: LogReader, stream: StreamId) -> Origin | None:
    """Where `stream` branched off, None if it did not.

    Raises:
        CorruptLogError: its first event is not where its parent says.
    """
    first = await reader.read_stream(stream, after=0, limit=1)
    return _origin(first[0]) if first and first[0].version > 1 else None


def _origin(event: RecordedEvent) -> Origin:
    parent, _, version = (event.parent or "").rpartition("@")
    if not version.isdecimal() or int(version) != event.version - 1:
        raise CorruptLogError(
            f"{event.stream} begins at version {event.version}, but its parent is {event.parent!r}", stream=event.stream,
            position=f"{event.shard}:{event.position}",
        )  # fmt: skip
    return Origin(parent=StreamId(parent), version=int(version))


async def read_lineage(reader: LogReader, stream: StreamId, *, after: int = 0, limit: int = 1_000) -> Sequence[RecordedEvent]:
    """As `LogReader.read_stream`, with what a fork shares with its parent read from there; an event keeps the name of its own stream.

    A page ends where a parent does, so it may be shorter than `limit` before the end.
    """
    seen = {stream}
    while (base := await origin(reader, stream)) is not None and after < base.version:
        if base.parent in seen:
            raise CorruptLogError(f"{stream} is a fork of itself", stream=stream)
        seen.add(base.parent)
        limit = min(limit, base.version - after)
        stream = base.parent
    return await reader.read_stream(stream, after=after, limit=limit)


async def last_until(reader: LogReader, stream: StreamId, time: int, *, low: int, high: int) -> int:
    """The last version of `stream`, above `low` and up to `high`, whose logical time is at most `time`; `low` if there is none.

    A search by halves: logical time grows with the version, as it does with the position, and a fork is made after what it shares (S30).
    """
    while low < high:
        middle = (low + high + 1) // 2
        page = await read_lineage(reader, stream, after=middle - 1, limit=1)
        if page and page[0].time <= time:
            low = middle
        else:
            high = middle - 1
    return low
