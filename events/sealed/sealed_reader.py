"""A reader that shows what sealed actors said where their keys are here, and leaves it sealed where they are not (S29, S31)."""

from collections.abc import Sequence

import msgspec

from events.envelope import RecordedEvent
from events.errors import UnreadablePayloadError
from events.ids import CommandId, EventId, Position, StreamId
from events.letters import Letter, StoppedActor
from events.sealed import sealing
from events.sealed.sealing import Sealer
from events.selection import Selected, Selection
from events.store import Format, Head, InboxEntry, LogReader, ShardInfo, Snapshot, StreamInfo, UnderWay, WaitEntry


class SealedReader:
    """See `store.LogReader`. What it cannot open comes as it is stored. Raises CorruptLogError also for a changed ciphertext."""

    def __init__(self, reader: LogReader, sealer: Sealer) -> None:
        self.shards = reader.shards
        self._reader = reader
        self._sealer = sealer

    def _event(self, event: RecordedEvent) -> RecordedEvent:
        if event.key_id is None or not self._sealer.has(event.key_id):
            return event
        return sealing.unsealed_event(self._sealer, event)

    def _events(self, events: Sequence[RecordedEvent]) -> Sequence[RecordedEvent]:
        return [self._event(event) for event in events]

    def _inbox(self, entry: InboxEntry) -> InboxEntry:
        try:
            return sealing.unsealed_inbox(self._sealer, entry)
        except UnreadablePayloadError:
            return entry

    async def read(self, shard: int, *, after: int = 0, limit: int = 1_000) -> Sequence[RecordedEvent]:
        return self._events(await self._reader.read(shard, after=after, limit=limit))

    async def read_stream(self, stream: StreamId, *, after: int = 0, limit: int = 1_000) -> Sequence[RecordedEvent]:
        return self._events(await self._reader.read_stream(stream, after=after, limit=limit))

    async def read_last(self, shard: int, *, before: int | None = None, limit: int = 50) -> Sequence[RecordedEvent]:
        return self._events(await self._reader.read_last(shard, before=before, limit=limit))

    async def event(self, event_id: EventId) -> RecordedEvent | None:
        found = await self._reader.event(event_id)
        return None if found is None else self._event(found)

    async def at(self, shard: int, position: Position) -> RecordedEvent | None:
        found = await self._reader.at(shard, position)
        return None if found is None else self._event(found)

    async def select(
        self, shard: int, wanted: Selection, *, after: int = 0, before: int | None = None, limit: int = 1_000, backwards: bool = False
    ) -> Selected:
        """A text is looked for in what is stored: nothing sealed is found by what it says."""
        found = await self._reader.select(shard, wanted, after=after, before=before, limit=limit, backwards=backwards)
        return msgspec.structs.replace(found, events=self._events(found.events))

    async def under_way(self, shard: int) -> UnderWay:
        return await self._reader.under_way(shard)

    async def head(self, stream: StreamId) -> Head | None:
        return await self._reader.head(stream)

    async def streams(self, *, after: str = "", limit: int = 1_000) -> Sequence[StreamInfo]:
        return await self._reader.streams(after=after, limit=limit)

    async def info(self, shard: int) -> ShardInfo:
        return await self._reader.info(shard)

    async def formats(self, shard: int) -> Sequence[Format]:
        return await self._reader.formats(shard)

    async def inbox(self, stream: StreamId, command_id: CommandId) -> InboxEntry | None:
        found = await self._reader.inbox(stream, command_id)
        return None if found is None else self._inbox(found)

    async def snapshot(self, stream: StreamId) -> Snapshot | None:
        return sealing.unsealed_snapshot(self._sealer, await self._reader.snapshot(stream))

    async def letters(self, shard: int, stream: StreamId | None = None) -> Sequence[Letter]:
        return [self._letter(letter) for letter in await self._reader.letters(shard, stream)]

    def _letter(self, letter: Letter) -> Letter:
        try:
            return sealing.unsealed_letter(self._sealer, letter)
        except UnreadablePayloadError:
            return letter

    async def waits(self, shard: int) -> Sequence[WaitEntry]:
        return [self._wait(wait) for wait in await self._reader.waits(shard)]

    def _wait(self, wait: WaitEntry) -> WaitEntry:
        try:
            return sealing.unsealed_wait(self._sealer, wait)
        except UnreadablePayloadError:
            return wait

    async def stopped(self, shard: int) -> Sequence[StoppedActor]:
        return [self._stopped(stopped) for stopped in await self._reader.stopped(shard)]

    def _stopped(self, stopped: StoppedActor) -> StoppedActor:
        try:
            return sealing.unsealed_stopped(self._sealer, stopped)
        except UnreadablePayloadError:
            return stopped

    async def close(self) -> None:
        await self._reader.close()
