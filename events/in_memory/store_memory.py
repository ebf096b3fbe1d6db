"""The log port in memory, for simulation, `actors.testing` and the contract suite: the same answers as SQLite, and
deterministic.
 Time and randomness come only from the given ports. Faults are put in by the caller (`MemoryLog.inject`), so that a
seeded simulation can try every outcome of an append; nothing here survives the process.
"""

import asyncio
from collections.abc import Container, Sequence
from itertools import islice
from typing import Final

import msgspec

from events.appending import (
    ENTROPY_PER_EVENT,
    OPEN_STATUSES,
    continues,
    delivery,
    is_refusal,
    merged,
    record,
    refused_as_gone,
    revived_entry,
)
from events.clock import Clock, Entropy, SystemClock, SystemEntropy
from events.closing import Closed, Erasure
from events.envelope import GENESIS_HASH, RecordedEvent
from events.errors import (
    AppendOutcomeUnknownError,
    ConfigurationError,
    InvariantError,
    LogFullError,
    SupersededError,
    TransientError,
)
from events.facts import PlainEvent
from events.ids import CommandId, Position, StreamId, Version, parse_stream_id, shard_of
from events.in_memory.closing_memory import archive_in, erase_in
from events.in_memory.content_memory import Fault, MemoryShardContent, PairKey
from events.in_memory.reader_memory import MemoryLogReader, after_version
from events.letters import Letter, StoppedActor, Supervision, letter_with
from events.limits import INBOX_KEPT_S, OUTBOX_PER_PAIR_MAX, OUTBOX_PER_SHARD_MAX, WRITE_LOCK_S
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
    InboxStatus,
    Outcome,
    Ownership,
    PendingSend,
    ShardInfo,
    Snapshot,
    TimerEntry,
    WaitEntry,
)

Send = tuple[StreamId, StreamId, str, int]

PURGE_ROWS: Final = 32
_probe = msgspec.json.Encoder()


class MemoryLog:
    """One log; `shard` opens a writer, `reader` a reader. Several writers of one shard may be open, the last to `take`
    it is the owner."""

    def __init__(self, shards: int = 4, *, clock: Clock | None = None, entropy: Entropy | None = None) -> None:
        self.shards = shards
        self.clock: Clock = clock or SystemClock()
        self.entropy: Entropy = entropy or SystemEntropy()
        self.incarnation = self.entropy.token_bytes(16).hex()
        self._shards = [MemoryShardContent() for _ in range(shards)]

    def content(self, shard: int) -> MemoryShardContent:
        """What a shard holds; for the adapters below."""
        if not 0 <= shard < self.shards:
            raise ConfigurationError(f"the log has shards 0 to {self.shards - 1}, not {shard}")
        return self._shards[shard]

    def inject(self, shard: int, fault: Fault) -> None:
        """Let a coming commit of `shard` end in `fault`; several are used up in order."""
        self.content(shard).faults.append(fault)

    def shard(self, shard: int) -> "MemoryShard":
        """A writer of `shard`, which must `take` it first."""
        return MemoryShard(self, shard)

    def reader(self) -> MemoryLogReader:
        """A reader of all shards."""
        return MemoryLogReader(self)


class MemoryShard:
    """See `store.ShardStore`."""

    def __init__(self, log: MemoryLog, shard: int) -> None:
        self.shard = shard
        self._log = log
        self._content = log.content(shard)
        self._ownership: Ownership | None = None
        self._closed = False

    async def take(self, worker: str, *, wait_s: float = WRITE_LOCK_S) -> Ownership:
        content = self._content
        content.epoch += 1
        content.token = self._log.entropy.token_bytes(16)
        content.worker = worker
        self._ownership = Ownership(
            shard=self.shard,
            epoch=content.epoch,
            token=content.token,
            worker=worker,
            incarnation=self._log.incarnation,
        )
        return self._ownership

    async def commit(
        self, groups: Sequence[Append], arrivals: Sequence[Arrival] = (), sends: Sequence[Send] = (),
        *, keys: Sequence[tuple[StreamId, str]] = (),
    ) -> tuple[Sequence[Outcome], Sequence[Accepted]]:  # fmt: skip
        # One turn of the loop, as a real commit takes some: what arrives meanwhile makes the next batch.
        await asyncio.sleep(0)
        self._fence()
        fault = self._content.faults.popleft() if self._content.faults else None
        if fault is Fault.FULL:
            raise LogFullError(f"no space left for shard {self.shard}: nothing was written", shard=self.shard)
        if fault is Fault.TRANSIENT:
            raise TransientError(f"the write lock of shard {self.shard} was not free within a second", shard=self.shard)
        if fault is Fault.SUPERSEDED:
            await MemoryShard(self._log, self.shard).take("another")
            self._fence()
        if fault is Fault.UNKNOWN_LOST:
            raise AppendOutcomeUnknownError(f"shard {self.shard}: injected; look up each command id", shard=self.shard)
        for stream, key_id in keys:
            if key_id not in self._content.keys.setdefault(stream, []):
                self._content.keys[stream].append(key_id)
        accepted = [self._take_arrival(arrival) for arrival in arrivals]
        outcomes = [self._decide(group) for group in groups]
        for sender, receiver, incarnation, n in sends:
            self._content.outbox.pop((sender, receiver, incarnation, n), None)
        self._purge()
        if fault is Fault.UNKNOWN_WRITTEN:
            raise AppendOutcomeUnknownError(f"shard {self.shard}: injected; look up each command id", shard=self.shard)
        return outcomes, accepted

    def _fence(self) -> Ownership:
        content, ownership = self._content, self._ownership
        if self._closed:
            raise InvariantError(f"shard {self.shard} is closed", shard=self.shard)
        if ownership is None:
            raise InvariantError(f"shard {self.shard} was not taken before it was written", shard=self.shard)
        if (ownership.epoch, ownership.token) != (content.epoch, content.token):
            raise SupersededError(
                f"shard {self.shard} has a new owner: epoch {content.epoch}, ours was {ownership.epoch}",
                shard=self.shard,
                epoch=ownership.epoch,
                current_epoch=content.epoch,
            )
        return ownership

    def _decide(self, group: Append) -> Outcome:
        content = self._content
        events = content.streams.get(group.stream, [])
        known = None
        if group.inbox is not None:
            known = content.inbox.get((group.inbox.command_id, group.inbox.stream))
            if known is not None and not continues(known, group.inbox):
                return Duplicate(entry=known)
        actual = events[-1].version if events else Version(0)
        if group.base is not None and not events:
            actual = group.base.version
        if actual != group.expected_version:
            return Conflict(actual=actual, reason=f"{group.stream} is at version {actual}, not {group.expected_version}")
        if group.stream in content.statuses and not is_refusal(group):
            return Conflict(actual=actual, reason=f"{group.stream} is {content.statuses[group.stream]}")
        if group.base is not None and events:
            return Conflict(actual=actual, reason=f"{group.stream} exists already")
        try:
            recorded, time = self._record(group, events, actual)
            entry = merged(known, group.inbox, self._log.clock.wall_us()) if group.inbox is not None else None
            # Text that has no UTF-8 is refused here as SQLite refuses it.
            effects = (group.outbox, group.timers, group.timers_gone, group.waits, group.waits_gone, group.snapshot, group.supervision)
            _probe.encode((entry, effects))
            arrived = [
                delivery(group, sent, 0, self._log.clock.wall_us()) if self._is_mine(sent.receiver) else None for sent in group.outbox
            ]
        except (ValueError, TypeError, OverflowError) as error:
            return Conflict(actual=actual, reason=f"it cannot be stored: {error}")
        self._store(group, recorded, time, entry)
        delivered: list[InboxEntry] = [] if group.supervision is None else self._supervise(group.stream, group.supervision, recorded)
        pending: list[PendingSend] = []
        for sent, inbox_entry in zip(group.outbox, arrived, strict=True):
            pair = (group.stream, sent.receiver, self._log.incarnation)
            n = content.sent[pair] = content.sent.get(pair, 0) + 1
            if inbox_entry is None:
                send = PendingSend(sender=group.stream, n=n, incarnation=pair[2], time=content.time, entry=sent)
                content.outbox[*pair, n] = send
                pending.append(send)
            elif (sent.command_id, sent.receiver) not in content.inbox:
                inbox_entry = msgspec.structs.replace(inbox_entry, source=f"{group.stream}#{n}")
                status = content.statuses.get(sent.receiver)
                if status is not None:
                    content.inbox[sent.command_id, sent.receiver] = refused_as_gone(inbox_entry, status, self._log.clock.wall_us())
                    continue
                content.inbox[sent.command_id, sent.receiver] = inbox_entry
                self._note_actor(sent.receiver)
                delivered.append(inbox_entry)
        return Committed(
            events=recorded,
            version=Version(actual + len(recorded)),
            position=Position(len(content.events)),
            time=content.time,
            delivered=delivered,
            pending=pending,
        )

    def _supervise(self, stream: StreamId, supervision: Supervision, recorded: Sequence[RecordedEvent]) -> list[InboxEntry]:
        content = self._content
        for command_id in supervision.letters_gone:
            content.letters.pop((stream, command_id), None)
        if (letter := supervision.letter) is not None:
            content.letters[letter.stream, letter.command_id] = letter_with(letter, recorded)
        if supervision.stopped is not None:
            content.stopped[stream] = supervision.stopped
        elif supervision.restarted:
            content.stopped.pop(stream, None)
        revived: list[InboxEntry] = []
        for entry in supervision.revived:
            again = revived_entry(content.inbox.get((entry.command_id, entry.stream)), entry)
            if again is not None:
                content.inbox[entry.command_id, entry.stream] = again
                revived.append(again)
        return revived

    def _is_mine(self, stream: StreamId) -> bool:
        return shard_of(*parse_stream_id(stream), self._log.shards) == self.shard

    def _record(self, group: Append, events: Sequence[RecordedEvent], version: Version) -> tuple[list[RecordedEvent], int]:
        content = self._content
        now_us = self._log.clock.wall_us()
        time = content.time
        previous = GENESIS_HASH if group.base is None else group.base.hash
        if events:
            previous = bytes.fromhex(events[-1].hash)
        recorded = []
        for index, event in enumerate(group.events, 1):
            time = max(now_us, time + 1, group.received_time + 1)
            event.payload.decode()
            fact, _, previous = record(
                group, event, self.shard, len(content.events) + index, version + index, time, now_us, content.epoch,
                self._log.entropy.token_bytes(ENTROPY_PER_EVENT), previous,
            )  # fmt: skip
            _probe.encode(fact)
            recorded.append(fact)
        return recorded, time

    def _store(self, group: Append, recorded: list[RecordedEvent], time: int, entry: InboxEntry | None) -> None:
        content = self._content
        content.time = max(time, group.received_time)
        if recorded or entry is not None:
            self._note_actor(group.stream)
        for event in recorded:
            content.events.append(event)
            content.streams.setdefault(group.stream, []).append(event)
            content.formats.setdefault(("event", event.type, event.schema_version), event.position)
        if entry is not None:
            content.inbox[entry.command_id, entry.stream] = entry
        for timer in group.timers:
            content.timers[timer.stream, timer.timer_id] = timer
        for timer_id in group.timers_gone:
            content.timers.pop((group.stream, timer_id), None)
        for wait in group.waits:
            content.waits[wait.stream, wait.wait_id] = wait
        for wait_id in group.waits_gone:
            content.waits.pop((group.stream, wait_id), None)
        if group.snapshot is not None:
            content.snapshots[group.snapshot.stream] = group.snapshot

    def _note_actor(self, stream: str) -> None:
        self._content.formats.setdefault(("actor", stream.partition("/")[0], 1), len(self._content.events))

    def _take_arrival(self, arrival: Arrival) -> Accepted:
        content, entry = self._content, arrival.entry
        if arrival.timer_id is not None and (entry.stream, arrival.timer_id) not in content.timers:
            return Accepted(result="gone", position=Position(len(content.events)))
        position = Position(len(content.events))
        pair: PairKey | None = None
        if arrival.sender is not None:
            pair = (arrival.sender, entry.stream, arrival.incarnation)
            expected = content.received.get(pair, 0) + 1
            if arrival.n != expected:
                return Accepted(result="known" if arrival.n < expected else "gap", expected=expected, position=position)
        known = (entry.command_id, entry.stream) in content.inbox
        closed = content.statuses.get(entry.stream)
        if not known:
            try:
                _probe.encode(entry)
            except (ValueError, TypeError, OverflowError):
                return Accepted(result="refused")
            received_at_us = entry.received_at_us or self._log.clock.wall_us()
            queued = msgspec.structs.replace(entry, status=InboxStatus.QUEUED, received_at_us=received_at_us)
            if closed is not None:
                queued = refused_as_gone(entry, closed, self._log.clock.wall_us())
            content.inbox[entry.command_id, entry.stream] = queued
            self._note_actor(entry.stream)
        if pair is not None:
            content.received[pair] = arrival.n
        if arrival.timer_id is not None:
            content.timers.pop((entry.stream, arrival.timer_id), None)
            if arrival.timer_next is not None and closed is None:
                content.timers[entry.stream, arrival.timer_id] = arrival.timer_next
        content.time = max(content.time, arrival.time)
        return Accepted(result="known" if known else "closed" if closed else "taken", expected=arrival.n + 1, position=position)

    def _purge(self) -> None:
        oldest_kept_us = self._log.clock.wall_us() - INBOX_KEPT_S * 1_000_000
        gone = []
        for index, (key, entry) in enumerate(self._content.inbox.items()):
            if index >= PURGE_ROWS or entry.received_at_us >= oldest_kept_us:
                break
            if entry.status not in OPEN_STATUSES and (entry.completed_at_us or entry.received_at_us) < oldest_kept_us:
                gone.append(key)
        for key in gone:
            del self._content.inbox[key]

    async def append(self, groups: Sequence[Append]) -> Sequence[Outcome]:
        return (await self.commit(groups))[0]

    async def accept(self, arrivals: Sequence[Arrival]) -> Sequence[Accepted]:
        return (await self.commit((), arrivals))[1]

    async def acknowledge(self, sends: Sequence[Send]) -> None:
        await self.commit((), (), sends)

    async def keys_of(self, stream: StreamId) -> Sequence[str]:
        return sorted(self._content.keys.get(stream, ()))

    async def archive(self, stream: StreamId) -> Closed:
        self._fence()
        return archive_in(self, self._content, stream)

    async def erase(self, stream: StreamId, requested_by: str) -> Closed:
        self._fence()
        return erase_in(self, self._content, stream, requested_by)

    def put(self, group: Append) -> Sequence[RecordedEvent]:
        """Append events of ours that close a stream."""
        recorded, time = self._record(group, self._content.streams.get(group.stream, []), group.expected_version)
        self._store(group, recorded, time, None)
        return recorded

    async def erasures(self) -> Sequence[Erasure]:
        return list(self._content.erasures.values())

    async def scrub(self) -> bool:
        self._fence()
        return True

    async def erased(self, stream: StreamId) -> None:
        self._fence()
        self._content.erasures.pop(stream, None)

    def raise_floor(self, time: int) -> int:
        self._content.time = max(self._content.time, time)
        return self._content.time

    def outbox_room(self, sender: StreamId, receiver: StreamId) -> int:
        outbox = self._content.outbox
        pair = sum(1 for key in outbox if key[:3] == (sender, receiver, self._log.incarnation))
        return max(0, min(OUTBOX_PER_PAIR_MAX - pair, OUTBOX_PER_SHARD_MAX - len(outbox)))

    async def head(self, stream: StreamId) -> Head | None:
        return self._content.head(stream)

    async def load(self, stream: StreamId, shape: str) -> tuple[Snapshot | None, Sequence[RecordedEvent]]:
        events = self._content.streams.get(stream, [])
        snapshot = self._content.snapshots.get(stream)
        if snapshot is None or snapshot.shape != shape or not events or snapshot.version > events[-1].version:
            return None, events[:]
        return snapshot, after_version(events, snapshot.version)

    async def tail(
        self, stream: StreamId, shape: str, plain: Container[str]
    ) -> tuple[Snapshot | None, Sequence[RecordedEvent | PlainEvent]]:
        return await self.load(stream, shape)  # nothing is cheaper here

    async def inbox(self, stream: StreamId, command_id: CommandId) -> InboxEntry | None:
        return self._content.inbox.get((command_id, stream))

    async def did(self, stream: StreamId, command_id: CommandId, *, after: int = 0, since: int = 0) -> bool:
        events = self._content.streams.get(stream, [])
        return any(event.command_id == command_id and event.version > after and event.time >= since for event in events)

    async def unfinished(self) -> Sequence[InboxEntry]:
        return [entry for entry in self._content.inbox.values() if entry.status in OPEN_STATUSES]

    async def queued(self, stream: StreamId, limit: int) -> Sequence[InboxEntry]:
        of_stream = (entry for entry in self._content.inbox.values() if entry.stream == stream and entry.status is InboxStatus.QUEUED)
        return list(islice(of_stream, limit))

    async def letters(self, stream: StreamId | None = None) -> Sequence[Letter]:
        return await MemoryLogReader(self._log).letters(self.shard, stream)

    async def stopped(self) -> Sequence[StoppedActor]:
        return await MemoryLogReader(self._log).stopped(self.shard)

    async def unsent(self) -> Sequence[PendingSend]:
        return [self._content.outbox[key] for key in sorted(self._content.outbox)]

    async def timers(self) -> Sequence[TimerEntry]:
        return sorted(self._content.timers.values(), key=lambda timer: (timer.due_us, timer.stream, timer.timer_id))

    async def waits(self) -> Sequence[WaitEntry]:
        return sorted(self._content.waits.values(), key=lambda wait: (wait.opened_at_us, wait.stream, wait.wait_id))

    async def formats(self) -> Sequence[Format]:
        return await MemoryLogReader(self._log).formats(self.shard)

    async def info(self) -> ShardInfo:
        return await MemoryLogReader(self._log).info(self.shard)

    async def sync_anchor(self) -> None:
        """Nothing to make durable."""

    async def close(self) -> None:
        self._closed = True
