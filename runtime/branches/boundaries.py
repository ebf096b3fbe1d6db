"""Where a stream can be cut (S33): between turns, or where a turn waits. Only reads."""

from collections.abc import Sequence
from typing import Final

from actors.errors import BadPayload, Unknown
from actors.journal import TURN_STARTED
from events.envelope import Kind, RecordedEvent
from events.ids import StreamId
from events.store import LogReader
from runtime.branches.lineage import last_until

_PAGE: Final = 256
_GOES_ON: Final = frozenset({"wait.answered", "wait.expired"})
"""What begins the next segment of a turn that waited."""


def is_boundary(event: RecordedEvent, following: RecordedEvent | None) -> bool:
    """Whether a turn, or one of its segments, ends with `event`."""
    if event.kind is Kind.STEP or event.type == TURN_STARTED or event.type in _GOES_ON:
        return False  # a journal is open: more of it follows, or its turn was under way in a crash
    return following is None or following.command_id is None or following.command_id != event.command_id or following.type in _GOES_ON


async def window(reader: LogReader, stream: StreamId, low: int, high: int) -> list[RecordedEvent]:
    """The events of `stream` with low <= version <= high that are its own, in order."""
    events: list[RecordedEvent] = []
    after = max(0, low - 1)
    while after < high and (page := await reader.read_stream(stream, after=after, limit=min(1_000, high - after))):
        events.extend(event for event in page if event.version <= high)
        after = int(page[-1].version)
    return events


async def first_version(reader: LogReader, stream: StreamId) -> int:
    """The version of the first event that is the stream's own: 1, or more for a fork. 1 where there is none."""
    page = await reader.read_stream(stream, after=0, limit=1)
    return int(page[0].version) if page else 1


async def boundary_before(reader: LogReader, stream: StreamId, version: int) -> int:
    """The last boundary at or below `version`; the version before its first own event if there is none."""
    first = await first_version(reader, stream)
    high = version
    while high >= first:
        low = max(first, high - _PAGE)
        for event, following in _neighbours(await window(reader, stream, low, high + 1)):
            if event.version <= high and is_boundary(event, following):
                return int(event.version)
        high = low - 1
    return first - 1


def _neighbours(events: Sequence[RecordedEvent]) -> list[tuple[RecordedEvent, RecordedEvent | None]]:
    """Each event with the next one, newest first."""
    return [(events[index], events[index + 1] if index + 1 < len(events) else None) for index in reversed(range(len(events)))]


async def boundary_after(reader: LogReader, stream: StreamId, version: int) -> int | None:
    """The first boundary at or above `version`; None if the last turn is still under way."""
    after = max(0, version - 1)
    before: RecordedEvent | None = None
    while page := await reader.read_stream(stream, after=after, limit=_PAGE):
        for event in page:
            if before is not None and before.version >= version and is_boundary(before, event):
                return int(before.version)
            before = event
        after = int(page[-1].version)
    return int(before.version) if before is not None and is_boundary(before, None) else None


async def require_boundary(reader: LogReader, stream: StreamId, version: int) -> RecordedEvent:
    """The event `version` of `stream`, which a turn ends with.

    Raises:
        Unknown: there is no such version. BadPayload: it lies inside a turn; names the nearest versions that do not.
    """
    events = await window(reader, stream, version, version + 1)
    if not events or events[0].version != version:
        raise Unknown(f"{stream} has no version {version} of its own", stream=stream, version=version)
    if is_boundary(events[0], events[1] if len(events) > 1 else None):
        return events[0]
    below, above = await boundary_before(reader, stream, version), await boundary_after(reader, stream, version)
    near = [found for found in (below, above) if found]
    nearest = min(near, key=lambda found: abs(found - version)) if near else 0
    raise BadPayload(
        f"version {version} of {stream} lies inside a turn; the nearest version between turns is {nearest}", field="at", nearest=nearest
    )


async def version_at(reader: LogReader, stream: StreamId, time: int) -> int:
    """The last version of `stream` with a logical time up to `time`; the one before its first own event if it began later."""
    head = await reader.head(stream)
    if head is None:
        return 0
    return await last_until(reader, stream, time, low=await first_version(reader, stream) - 1, high=int(head.version))
