"""The writer of a shard with sealed actors: a `store.ShardStore` around another one, which sees and stores ciphertext only (S29).

Everything that is sealed passes through here, whatever adapter lies below; what comes back is clear again, except the events of a commit:
they leave as they are stored, since ``cue.event`` carries no data of them. A stream has one key, given at its first row. Where the key of a
stream is not here, its rows stay away from whoever loads the shard, and the actor says why; what is said to it meanwhile has another key.
"""

from collections.abc import Awaitable, Callable, Collection, Container, Sequence
from typing import Final, TypeVar

import msgspec

from events.appending import continues
from events.closing import CLOSED_BY, Closed, Erasure
from events.envelope import RecordedEvent
from events.errors import CorruptLogError, CuebookError, UnreadablePayloadError
from events.facts import PlainEvent, in_full
from events.ids import CommandId, StreamId, Version, parse_stream_id, shard_of
from events.letters import Letter, StoppedActor
from events.limits import WRITE_LOCK_S
from events.sealed import sealing
from events.sealed.sealing import Sealer
from events.store import (
    Accepted,
    Append,
    Arrival,
    Committed,
    Conflict,
    Duplicate,
    Format,
    Head,
    InboxEntry,
    OutboxEntry,
    Outcome,
    Ownership,
    PendingSend,
    ShardInfo,
    ShardStore,
    Snapshot,
    TimerEntry,
    WaitEntry,
)

T = TypeVar("T")
_Loaded = tuple[Snapshot | None, Sequence[RecordedEvent | PlainEvent]]
_KEYS_KEPT: Final = 20_000


class SealedShard:
    """See `store.ShardStore`. sealed_types: actor types whose streams are sealed; others pass through as they are.

    Beyond what the port says, whatever writes raises TransientError where the keys' folder cannot be written.
    """

    def __init__(self, store: ShardStore, shards: int, sealer: Sealer, sealed_types: Collection[str]) -> None:
        self.shard = store.shard
        self._store = store
        self._shards = shards
        self._sealer = sealer
        self._types = frozenset(sealed_types)
        self._keys: dict[StreamId, str] = {}
        self._unrecorded: dict[StreamId, str] = {}
        self._warnings: list[str] = []

    # -- keys -----------------------------------------------------------------------------------------------------------------------------

    def _is_sealed(self, stream: StreamId) -> bool:
        return stream.partition("/")[0] in self._types

    async def _key(self, stream: StreamId) -> str | None:
        """The key of `stream`, a fresh one if it has none that is here; None if it is not sealed, or erased."""
        if not self._is_sealed(stream):
            return None
        key_id = self._keys.get(stream)
        if key_id is not None and self._sealer.has(key_id):
            return key_id
        here = [known for known in await self._store.keys_of(stream) if self._sealer.has(known)]
        if here:
            key_id = here[-1]
        else:
            head = await self._store.head(stream)
            if head is not None and head.status == "erased":
                return None  # nothing of it is stored any more but that it refuses
            key_id = self._unrecorded[stream] = await self._sealer.fresh_key()
        if len(self._keys) >= _KEYS_KEPT:
            self._keys = dict(self._unrecorded)
        self._keys[stream] = key_id
        return key_id

    async def keys_of(self, stream: StreamId) -> Sequence[str]:
        return await self._store.keys_of(stream)

    # -- writing --------------------------------------------------------------------------------------------------------------------------

    async def take(self, worker: str, *, wait_s: float = WRITE_LOCK_S) -> Ownership:
        return await self._store.take(worker, wait_s=wait_s)

    async def commit(
        self, groups: Sequence[Append], arrivals: Sequence[Arrival] = (), sends: Sequence[tuple[StreamId, StreamId, str, int]] = (),
        *, keys: Sequence[tuple[StreamId, str]] = (),
    ) -> tuple[Sequence[Outcome], Sequence[Accepted]]:  # fmt: skip
        if not self._types:
            # Once sealed, clear now: what there is can be read, and nothing new is sealed.
            outcomes, accepted = await self._store.commit(groups, arrivals, sends, keys=keys)
            return [self._unsealed_outcome(outcome) for outcome in outcomes], accepted
        sealed_arrivals = [await self._sealed_arrival(arrival) for arrival in arrivals]
        sealed_groups = [await self._sealed_group(group) if group.outbox or self._is_sealed(group.stream) else group for group in groups]
        first = dict(self._unrecorded)
        outcomes, accepted = await self._store.commit(sealed_groups, sealed_arrivals, sends, keys=[*keys, *first.items()])
        for stream in first:
            self._unrecorded.pop(stream, None)
        outcomes = [
            outcome if (row_key := self._continued(group, outcome)) is None else (await self._again(group, row_key))
            for group, outcome in zip(groups, outcomes, strict=True)
        ]
        return [self._unsealed_outcome(outcome) for outcome in outcomes], accepted

    def _continued(self, group: Append, outcome: Outcome) -> str | None:
        """The key of the open row that `group` goes on with after all: it was taken for another command's (S24), because the arguments are
        marked under another key there. A stream has two where its first one was away for a while."""
        if group.inbox is None or not isinstance(outcome, Duplicate):
            return None
        row_key = sealing.key_of_body(outcome.entry.args)
        if row_key is None or not self._sealer.has(row_key):
            return None
        return row_key if continues(self._inbox(outcome.entry), group.inbox) else None

    async def _again(self, group: Append, key_id: str) -> Outcome:
        try:
            (outcome,), _ = await self._store.commit([await self._sealed_group(group, key_id)])
        except CuebookError as error:
            # The others of its batch are committed. This one is decided again, and finds what has become of it.
            return Conflict(actual=Version(0), reason=error.message)
        return outcome

    async def append(self, groups: Sequence[Append]) -> Sequence[Outcome]:
        return (await self.commit(groups))[0]

    async def accept(self, arrivals: Sequence[Arrival]) -> Sequence[Accepted]:
        return (await self.commit((), arrivals))[1]

    async def acknowledge(self, sends: Sequence[tuple[StreamId, StreamId, str, int]]) -> None:
        await self._store.acknowledge(sends)

    async def _sealed_arrival(self, arrival: Arrival) -> Arrival:
        key_id = await self._key(arrival.entry.stream)
        if key_id is None:
            return arrival
        following = arrival.timer_next
        return msgspec.structs.replace(
            arrival,
            entry=sealing.sealed_inbox(self._sealer, key_id, arrival.entry),
            timer_next=None if following is None else sealing.sealed_timer(self._sealer, key_id, following),
        )

    async def _sealed_group(self, group: Append, row_key: str | None = None) -> Append:
        """row_key: that of the inbox row, where it is not that of the stream."""
        key_id = await self._key(group.stream)
        outbox = [await self._sealed_send(group.stream, key_id, entry) for entry in group.outbox]
        if key_id is None:
            return msgspec.structs.replace(group, outbox=outbox) if outbox else group
        seal, first = self._sealer, group.expected_version + 1
        return msgspec.structs.replace(
            group,
            events=[sealing.sealed_event(seal, key_id, group.stream, first + n, event) for n, event in enumerate(group.events)],
            inbox=None if group.inbox is None else sealing.sealed_inbox(seal, row_key or key_id, group.inbox),
            outbox=outbox,
            timers=[sealing.sealed_timer(seal, key_id, timer) for timer in group.timers],
            waits=[sealing.sealed_wait(seal, key_id, wait) for wait in group.waits],
            snapshot=None if group.snapshot is None else sealing.sealed_snapshot(seal, key_id, group.snapshot),
            supervision=None if group.supervision is None else sealing.sealed_supervision(seal, key_id, group.supervision),
        )

    async def _sealed_send(self, sender: StreamId, key_id: str | None, entry: OutboxEntry) -> OutboxEntry:
        """What a send becomes: an inbox row of its receiver at once if that lives in this shard, else an outbox row of its sender."""
        receiver = entry.receiver
        if shard_of(*parse_stream_id(receiver), self._shards) != self.shard:
            return entry if key_id is None else sealing.sealed_send(self._sealer, key_id, sender, entry)
        receiver_key = await self._key(receiver)
        return entry if receiver_key is None else sealing.delivered_send(self._sealer, receiver_key, entry)

    def _unsealed_outcome(self, outcome: Outcome) -> Outcome:
        if isinstance(outcome, Committed) and (outcome.delivered or outcome.pending):
            delivered = [self._inbox(entry) for entry in outcome.delivered]
            pending = [self._send(send) for send in outcome.pending]
            return msgspec.structs.replace(outcome, delivered=delivered, pending=pending)
        if isinstance(outcome, Duplicate):
            try:
                return Duplicate(entry=self._inbox(outcome.entry))
            except (UnreadablePayloadError, CorruptLogError) as error:
                return Conflict(actual=Version(0), reason=error.message)
        return outcome

    # -- reading --------------------------------------------------------------------------------------------------------------------------

    def _inbox(self, entry: InboxEntry) -> InboxEntry:
        return sealing.unsealed_inbox(self._sealer, entry)

    def _send(self, send: PendingSend) -> PendingSend:
        return msgspec.structs.replace(send, entry=sealing.unsealed_send(self._sealer, send.sender, send.entry))

    def _timer(self, timer: TimerEntry) -> TimerEntry:
        return sealing.unsealed_timer(self._sealer, timer)

    def _wait(self, wait: WaitEntry) -> WaitEntry:
        return sealing.unsealed_wait(self._sealer, wait)

    def _letter(self, letter: Letter) -> Letter:
        return sealing.unsealed_letter(self._sealer, letter)

    def _stopped(self, stopped: StoppedActor) -> StoppedActor:
        return sealing.unsealed_stopped(self._sealer, stopped)

    def _readable(self, rows: Sequence[T], unseal: Callable[[T], T]) -> list[T]:
        """The rows that can be opened here; the others are left out and named, as damaged ones are (I-20)."""
        found = []
        for row in rows:
            try:
                found.append(unseal(row))
            except (UnreadablePayloadError, CorruptLogError) as error:
                if error.message not in self._warnings:
                    self._warnings.append(error.message)
        return found

    async def load(self, stream: StreamId, shape: str) -> tuple[Snapshot | None, Sequence[RecordedEvent]]:
        snapshot, events = await self._opened(lambda shape: self._store.load(stream, shape), shape)
        return snapshot, in_full(events)

    async def tail(
        self, stream: StreamId, shape: str, plain: Container[str]
    ) -> tuple[Snapshot | None, Sequence[RecordedEvent | PlainEvent]]:
        if self._is_sealed(stream):
            return await self.load(stream, shape)  # all of it has to be opened: nothing would come plain
        return await self._opened(lambda shape: self._store.tail(stream, shape, plain), shape)

    async def _opened(self, read: Callable[[str], Awaitable[_Loaded]], shape: str) -> _Loaded:
        snapshot, events = await read(shape)
        if events and isinstance(last := events[-1], RecordedEvent) and last.type in CLOSED_BY:
            return None, [last]  # nobody folds it any more, and nobody could an erased one
        clear = sealing.unsealed_snapshot(self._sealer, snapshot)
        if snapshot is not None and clear is None:
            # Of no use here, and then the events before it are needed too.
            _, events = await read("")
        return clear, [event if isinstance(event, tuple) else sealing.unsealed_event(self._sealer, event) for event in events]

    async def inbox(self, stream: StreamId, command_id: CommandId) -> InboxEntry | None:
        entry = await self._store.inbox(stream, command_id)
        return None if entry is None else self._inbox(entry)

    async def queued(self, stream: StreamId, limit: int) -> Sequence[InboxEntry]:
        return [self._inbox(entry) for entry in await self._store.queued(stream, limit)]

    async def unfinished(self) -> Sequence[InboxEntry]:
        return self._readable(await self._store.unfinished(), self._inbox)

    async def unsent(self) -> Sequence[PendingSend]:
        return self._readable(await self._store.unsent(), self._send)

    async def timers(self) -> Sequence[TimerEntry]:
        return self._readable(await self._store.timers(), self._timer)

    async def waits(self) -> Sequence[WaitEntry]:
        return self._readable(await self._store.waits(), self._wait)

    async def letters(self, stream: StreamId | None = None) -> Sequence[Letter]:
        return self._readable(await self._store.letters(stream), self._letter)

    async def stopped(self) -> Sequence[StoppedActor]:
        return self._readable(await self._store.stopped(), self._stopped)

    async def info(self) -> ShardInfo:
        info = await self._store.info()
        return msgspec.structs.replace(info, warnings=(*info.warnings, *self._warnings)) if self._warnings else info

    # -- as they are ----------------------------------------------------------------------------------------------------------------------

    def raise_floor(self, time: int) -> int:
        return self._store.raise_floor(time)

    def outbox_room(self, sender: StreamId, receiver: StreamId) -> int:
        return self._store.outbox_room(sender, receiver)

    async def formats(self) -> Sequence[Format]:
        return await self._store.formats()

    async def head(self, stream: StreamId) -> Head | None:
        return await self._store.head(stream)

    async def did(self, stream: StreamId, command_id: CommandId, *, after: int = 0, since: int = 0) -> bool:
        return await self._store.did(stream, command_id, after=after, since=since)

    async def archive(self, stream: StreamId) -> Closed:
        return await self._store.archive(stream)

    async def erase(self, stream: StreamId, requested_by: str) -> Closed:
        closed = await self._store.erase(stream, requested_by)
        self._keys.pop(stream, None)
        unused = self._unrecorded.pop(stream, None)
        if unused is not None:
            self._sealer.destroy(unused)
        return closed

    async def erasures(self) -> Sequence[Erasure]:
        return await self._store.erasures()

    async def scrub(self) -> bool:
        return await self._store.scrub()

    async def erased(self, stream: StreamId) -> None:
        await self._store.erased(stream)

    async def sync_anchor(self) -> None:
        await self._store.sync_anchor()

    async def close(self) -> None:
        await self._store.close()
