"""The log of a deployment whose files are elsewhere: `LogReader` over ``cue.log`` (S31). What reads files reads this alike."""

from collections.abc import Awaitable, Sequence
from typing import Any, Final, Protocol, TypeVar

import msgspec

from actors.errors import Unknown
from events.appending import TIME_DIGITS
from events.envelope import RecordedEvent
from events.ids import CommandId, EventId, Position, StreamId
from events.letters import Letter, StoppedActor
from events.limits import PAGE_EVENTS_MAX
from events.selection import EVERYTHING, Selected, Selection
from events.store import Format, Head, InboxEntry, ShardInfo, Snapshot, StreamInfo, UnderWay, WaitEntry
from runtime.past.filters import filter_text
from runtime.past.log_service import Page
from runtime.past.watermark import Watermark

T = TypeVar("T")
_TIMEOUT_S: Final = 30.0


class AskLog(Protocol):
    """`Client.log`."""

    def __call__(self, operation: str, /, *, timeout_s: float, **arguments: Any) -> Awaitable[Any]: ...


class RemoteLogReader:
    """See `store.LogReader`. Every call is one or more requests to whichever worker answers; ActorErrors pass through."""

    def __init__(self, ask: AskLog, shards: int, incarnation: str) -> None:
        self.shards = shards
        self.incarnation = incarnation
        self._ask = ask

    @classmethod
    async def open(cls, ask: AskLog) -> "RemoteLogReader":
        """
        Raises:
            Unavailable: no worker answers.
        """
        shards = msgspec.convert((await ask("head", timeout_s=_TIMEOUT_S))["shards"], list[ShardInfo])
        return cls(ask, len(shards), shards[0].incarnation)

    async def request(self, kind: type[T], operation: str, /, **arguments: Any) -> T:
        """One request, its answer as `kind`."""
        # By way of JSON: what stands in an answer as bytes is base64 there.
        return msgspec.json.decode(msgspec.json.encode(await self._ask(operation, timeout_s=_TIMEOUT_S, **arguments)), type=kind)

    async def read(self, shard: int, *, after: int = 0, limit: int = 1_000) -> Sequence[RecordedEvent]:
        found: list[RecordedEvent] = []
        limit = min(limit, PAGE_EVENTS_MAX)
        while len(found) < limit:
            page = await self.select(shard, EVERYTHING, after=after, limit=limit - len(found))
            found += page.events
            if page.end:
                break
            after = page.upto
        return found

    async def read_stream(self, stream: StreamId, *, after: int = 0, limit: int = 1_000) -> Sequence[RecordedEvent]:
        found: list[RecordedEvent] = []
        limit = min(limit, PAGE_EVENTS_MAX)
        while len(found) < limit:
            page = await self.request(Page, "read", stream=stream, after=after, limit=limit - len(found))
            found += page.events
            if not isinstance(page.next, int):
                break
            after = page.next
        return found

    async def read_last(self, shard: int, *, before: int | None = None, limit: int = 50) -> Sequence[RecordedEvent]:
        found: list[RecordedEvent] = []
        while len(found) < limit:
            page = await self.select(shard, EVERYTHING, before=before, limit=limit - len(found), backwards=True)
            found += page.events
            if page.end:
                break
            before = page.upto
        return found

    async def select(
        self, shard: int, wanted: Selection, *, after: int = 0, before: int | None = None, limit: int = 1_000, backwards: bool = False
    ) -> Selected:
        page = await self.request(
            Page, "read", shard=shard, after=after, before=before, backwards=backwards, filter=filter_text(wanted),
            limit=max(1, min(limit, PAGE_EVENTS_MAX)),
        )  # fmt: skip
        return Selected(events=page.events, upto=(page.positions or {}).get(shard, after), end=page.next is None)

    async def under_way(self, shard: int) -> UnderWay:
        return await self.request(UnderWay, "under_way", shard=shard)

    async def head(self, stream: StreamId) -> Head | None:
        try:
            found = await self._ask("head", timeout_s=_TIMEOUT_S, stream=stream)
        except Unknown:
            return None
        return msgspec.convert({**found, "hash": bytes.fromhex(found["hash"])}, Head)

    async def event(self, event_id: EventId) -> RecordedEvent | None:
        from runtime.past.merging import merged

        try:
            time = int(event_id[:TIME_DIGITS], 16)
        except ValueError:
            return None
        async for event in merged(self, Selection(after_us=time, before_us=time + 1)):
            if event.event_id == event_id:
                return event
        return None

    async def at(self, shard: int, position: Position) -> RecordedEvent | None:
        page = await self.request(Page, "read", shard=shard, after=max(0, position - 1), before=position + 1, limit=1)
        return page.events[0] if page.events else None

    async def streams(self, *, after: str = "", limit: int = 1_000) -> Sequence[StreamInfo]:
        found = await self._ask("streams", timeout_s=_TIMEOUT_S, after=after, limit=min(limit, PAGE_EVENTS_MAX))
        return msgspec.convert(found["streams"], list[StreamInfo])

    async def info(self, shard: int) -> ShardInfo:
        return msgspec.convert((await self._ask("head", timeout_s=_TIMEOUT_S))["shards"][shard], ShardInfo)

    async def watermark(self) -> Watermark:
        """Up to where the merged order is final (S30), as of now."""
        found = await self._ask("head", timeout_s=_TIMEOUT_S)
        # Workers of a version that says nothing of it: as before.
        return msgspec.convert(found.get("watermark") or {}, Watermark)

    async def formats(self, shard: int) -> Sequence[Format]:
        return await self.request(list[Format], "formats", shard=shard)

    async def inbox(self, stream: StreamId, command_id: CommandId) -> InboxEntry | None:
        try:
            return await self.request(InboxEntry, "command", stream=stream, command_id=command_id)
        except Unknown:
            return None

    async def snapshot(self, stream: StreamId) -> Snapshot | None:
        """None: one is only a shorter way to the same state (I-8)."""
        return None

    async def letters(self, shard: int, stream: StreamId | None = None) -> Sequence[Letter]:
        found = await self.request(list[Letter], "letters", shard=shard)
        return [letter for letter in found if stream is None or letter.stream == stream]

    async def stopped(self, shard: int) -> Sequence[StoppedActor]:
        return await self.request(list[StoppedActor], "stopped", shard=shard)

    async def waits(self, shard: int) -> Sequence[WaitEntry]:
        return (await self.under_way(shard)).waits

    async def close(self) -> None:
        """Nothing is held open; the client is its maker's."""
