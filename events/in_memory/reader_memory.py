"""The reader of a log in memory: `store.LogReader` over `store_memory.MemoryLog`."""

from collections.abc import Callable, Container, Sequence

from events.appending import TIME_DIGITS
from events.envelope import Kind, RecordedEvent
from events.facts import FORKED, Fact
from events.ids import CommandId, EventId, Position, StreamId, parse_stream_id, shard_of
from events.in_memory.content_memory import MemoryContents, MemoryShardContent
from events.letters import Letter, StoppedActor
from events.limits import PAGE_EVENTS_MAX, SELECT_ROWS_MAX
from events.selection import Selected, Selection, matches
from events.store import Format, Head, InboxEntry, InboxStatus, ShardInfo, Snapshot, StreamInfo, UnderWay, WaitEntry


class MemoryLogReader:
    """See `store.LogReader`."""

    def __init__(self, log: MemoryContents) -> None:
        self.shards = log.shards
        self.incarnation = log.incarnation
        self._log = log

    def _of(self, stream: StreamId) -> MemoryShardContent:
        return self._log.content(shard_of(*parse_stream_id(stream), self.shards))

    async def read(self, shard: int, *, after: int = 0, limit: int = 1_000) -> Sequence[RecordedEvent]:
        return self._log.content(shard).events[max(0, after) :][: _page(limit)]

    async def scan(self, shard: int, plain: Container[str], take: Callable[[Sequence[Fact]], None]) -> None:
        position = 0
        while events := await self.read(shard, after=position):
            position = events[-1].position
            take(
                [
                    fact_of(event, plain, self._of(event.stream).streams[event.stream][0])
                    for event in events
                    if event.kind is Kind.STATE or event.type == FORKED
                ]
            )

    async def read_stream(self, stream: StreamId, *, after: int = 0, limit: int = 1_000) -> Sequence[RecordedEvent]:
        return after_version(self._of(stream).streams.get(stream, []), after)[: _page(limit)]

    async def read_last(self, shard: int, *, before: int | None = None, limit: int = 50) -> Sequence[RecordedEvent]:
        events = self._log.content(shard).events
        end = len(events) if before is None else min(len(events), max(0, before - 1))
        return events[max(0, end - _page(limit)) : end][::-1]

    async def select(
        self, shard: int, wanted: Selection, *, after: int = 0, before: int | None = None, limit: int = 1_000, backwards: bool = False
    ) -> Selected:
        events = self._log.content(shard).events
        last = len(events) if before is None else min(len(events), before - 1)
        low = max(after, last - SELECT_ROWS_MAX) if backwards else after
        high = last if backwards else min(last, after + SELECT_ROWS_MAX)
        found: list[RecordedEvent] = []
        for event in reversed(events[low:high]) if backwards else events[low:high]:
            if matches(wanted, event):
                found.append(event)
                if len(found) == max(1, _page(limit)):
                    return Selected(events=found, upto=event.position, end=False)
        end = low <= after if backwards else high >= last
        return Selected(events=found, upto=low + 1 if backwards else max(after, high), end=end)

    async def under_way(self, shard: int) -> UnderWay:
        content = self._log.content(shard)
        return UnderWay(
            commands=[entry for entry in content.inbox.values() if entry.status in (InboxStatus.QUEUED, InboxStatus.RUNNING)],
            sends=[content.outbox[key] for key in sorted(content.outbox)],
            timers=sorted(content.timers.values(), key=lambda timer: (timer.due_us, timer.stream, timer.timer_id)),
            waits=sorted(content.waits.values(), key=lambda wait: (wait.opened_at_us, wait.stream, wait.wait_id)),
        )

    async def head(self, stream: StreamId) -> Head | None:
        return self._of(stream).head(stream)

    async def event(self, event_id: EventId) -> RecordedEvent | None:
        try:
            int(event_id[:TIME_DIGITS], 16)
        except ValueError:
            return None
        for shard in range(self.shards):
            for event in self._log.content(shard).events:
                if event.event_id == event_id:
                    return event
        return None

    async def at(self, shard: int, position: Position) -> RecordedEvent | None:
        events = self._log.content(shard).events
        return events[position - 1] if 1 <= position <= len(events) else None

    async def streams(self, *, after: str = "", limit: int = 1_000) -> Sequence[StreamInfo]:
        found = []
        for shard in range(self.shards):
            for events in self._log.content(shard).streams.values():
                last = events[-1]
                if last.stream > after:
                    found.append(
                        StreamInfo(
                            stream=last.stream,
                            shard=shard,
                            version=last.version,
                            position=last.position,
                            status=self._log.content(shard).statuses.get(last.stream, "live"),
                        )
                    )
        return sorted(found, key=lambda info: info.stream)[: _page(limit)]

    async def info(self, shard: int) -> ShardInfo:
        content = self._log.content(shard)
        return ShardInfo(
            shard=shard,
            shards=self.shards,
            incarnation=self.incarnation,
            position=Position(len(content.events)),
            time=content.events[-1].time if content.events else 0,
            owner_epoch=content.epoch,
            worker=content.worker,
        )

    async def formats(self, shard: int) -> Sequence[Format]:
        found = self._log.content(shard).formats
        return [
            Format(kind=kind, name=name, version=version, first_position=found[kind, name, version])
            for kind, name, version in sorted(found)
        ]

    async def inbox(self, stream: StreamId, command_id: CommandId) -> InboxEntry | None:
        return self._of(stream).inbox.get((command_id, stream))

    async def snapshot(self, stream: StreamId) -> Snapshot | None:
        return self._of(stream).snapshots.get(stream)

    async def letters(self, shard: int, stream: StreamId | None = None) -> Sequence[Letter]:
        found = [each for each in self._log.content(shard).letters.values() if stream is None or each.stream == stream]
        return sorted(found, key=lambda each: (each.failed_at_us, each.stream, each.command_id))

    async def stopped(self, shard: int) -> Sequence[StoppedActor]:
        return [each for _, each in sorted(self._log.content(shard).stopped.items())]

    async def waits(self, shard: int) -> Sequence[WaitEntry]:
        waits = self._log.content(shard).waits.values()
        return sorted(waits, key=lambda wait: (wait.opened_at_us, wait.stream, wait.wait_id))

    async def close(self) -> None:
        """Nothing is held open."""


def _page(limit: int) -> int:
    return max(0, min(limit, PAGE_EVENTS_MAX))


def after_version(events: Sequence[RecordedEvent], version: int) -> Sequence[RecordedEvent]:
    """The events of one stream behind `version`; a fork begins later than with version 1."""
    return events[max(0, version - events[0].version + 1) :] if events else []


def fact_of(event: RecordedEvent, plain: Container[str], first: RecordedEvent) -> Fact:
    """An event as `ScanReader.scan` gives it; first: of its stream."""
    tag = f"{event.type}:{event.schema_version}"
    alone = tag in plain and event.key_id is None and first.version == 1 and first.type != FORKED
    return event.position, event.stream, tag, bytes(event.payload) if alone else None
