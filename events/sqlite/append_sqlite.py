"""One append transaction: a batch of groups is decided in memory against what the shard is known to hold, then written
by a few executemany.
 A `Draft` is the memory of the shard as it will be if the transaction commits: `decide` adds rows to it, `write` sends
them to the file, `keep` takes it over into `ShardMemory` after COMMIT. If anything in a batch cannot be stored, its
draft is thrown away with the transaction and the batch is done again group by group (`careful`), each behind a
savepoint, so that only the bad group is refused (S18).
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

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
from events.crash_points import CrashPoint, reached
from events.envelope import GENESIS_HASH, RecordedEvent, rolling_hash, row_check
from events.ids import Position, StreamId, Version, parse_stream_id, shard_of
from events.letters import letter_with
from events.limits import STREAM_PAGE_VERSIONS
from events.sqlite.event_rows_sqlite import PLAIN_EXTRAS
from events.sqlite.heads import PAIRS_MAX, InboxKey, PairKey, ShardMemory, flush_is_due, read_pair
from events.sqlite.pending_sqlite import PendingRows
from events.sqlite.reads_sqlite import FoundHead, flushed_head, flushed_heads
from events.sqlite.rows import (
    SELECT_INBOX,
    InboxRow,
    event_check,
    flush_check,
    inbox_row,
    stream_check,
    update_rows,
)
from events.sqlite.sqlite_library import SqliteConnection
from events.store import (
    Accepted,
    Append,
    Arrival,
    Base,
    Committed,
    Conflict,
    Duplicate,
    InboxEntry,
    InboxStatus,
    Outcome,
    PendingSend,
)


class ShardPlace(msgspec.Struct, frozen=True, kw_only=True):
    """Where the draft writes, and as whom."""

    shard: int
    shards: int
    incarnation: str
    epoch: int


class Draft:
    """See the module. careful: look up every command id, also those that we made up ourselves."""

    def __init__(
        self, connection: SqliteConnection, memory: ShardMemory, place: ShardPlace, now_us: int, entropy: bytes, *, careful: bool = False
    ) -> None:
        self._connection = connection
        self._memory = memory
        self._place = place
        self._now_us = now_us
        self._entropy = entropy
        self._careful = careful
        self.position = memory.position
        self.time = memory.time
        self.rolling = memory.rolling
        self.event_hash = memory.event_hash
        self.eventless = memory.eventless
        self._next_inbox = memory.next_inbox
        self._next_stream = memory.next_stream
        self._heads: dict[str, FoundHead] = {}
        self._expected: Sequence[Append] = ()
        self._nameless: set[str] = set()
        """Streams that were looked up together and have no row."""
        self._new_formats: set[tuple[str, str, int]] = set()
        self._last_type = ("", 0)
        """The tag and schema version that were noted last: nearly always the next event's too."""
        self._opened: dict[InboxKey, int] = {}
        self._closed: set[InboxKey] = set()
        self._sent: dict[PairKey, int] = {}
        self._received: dict[PairKey, int] = {}
        self._outbox_delta: Counter[PairKey] = Counter()
        self._pending = PendingRows()
        self._flushed = False
        self.wrote = False

    # Deciding

    def decide(self, group: Append) -> Outcome:
        """What becomes of `group`; if it is `Committed`, its rows are pending and the draft stands after it.

        Raises:
            ValueError, TypeError, OverflowError: the group holds what cannot be stored; the draft is of no more use (or
            to be restored).
        """
        known: InboxRow | None = None
        if group.inbox is not None:
            known = self._find_inbox((group.inbox.command_id, group.inbox.stream), group.inbox.explicit)
            if known is not None and not continues(known.entry, group.inbox):
                return Duplicate(entry=known.entry)
        head = self._head(group.stream)
        version = head.version if head is not None else 0
        if group.base is not None and head is None:
            version = group.base.version
        if version != group.expected_version:
            if group.inbox is not None and known is None:
                # A repeat comes with an old version. Its reply is the better answer, even under an id that should not come twice.
                known = self._find_inbox((group.inbox.command_id, group.inbox.stream), True)
                if known is not None:
                    return Duplicate(entry=known.entry)
            return Conflict(actual=Version(version), reason=f"{group.stream} is at version {version}, not {group.expected_version}")
        if head is not None and head.status != "live" and not is_refusal(group):
            return Conflict(actual=Version(version), reason=f"{group.stream} is {head.status}")
        if group.base is not None:
            if head is not None:
                return Conflict(actual=Version(version), reason=f"{group.stream} exists already")
            head = self._name_stream(group.stream, group.base)
        return self._accept_group(group, head, known)

    def _accept_group(self, group: Append, head: FoundHead | None, known: InboxRow | None) -> Committed:
        if head is None:
            head = self._name_stream(group.stream)
        recorded: list[RecordedEvent] = []
        if group.events:
            recorded, head = self._add_events(group, head)
        if group.received_time > self.time:
            self.time = group.received_time
        pending = self._pending
        if group.inbox is not None:
            self._put_inbox(merged(known.entry if known else None, group.inbox, self._now_us), known, 0)
        if group.timers:
            pending.timers.update(((timer.stream, timer.timer_id), timer) for timer in group.timers)
        if group.timers_gone:
            pending.timers.update(((group.stream, timer_id), None) for timer_id in group.timers_gone)
        if group.waits:
            pending.waits.update(((wait.stream, wait.wait_id), wait) for wait in group.waits)
        if group.waits_gone:
            pending.waits.update(((group.stream, wait_id), None) for wait_id in group.waits_gone)
        if group.snapshot is not None:
            pending.snapshots[group.snapshot.stream] = group.snapshot
        delivered, unsent = self._send(group) if group.outbox else ((), ())
        if group.supervision is not None:
            delivered = [*delivered, *self._supervise(group, recorded)]
        return Committed(recorded, Version(head.version), Position(self.position), self.time, delivered, unsent)

    def _add_events(self, group: Append, head: FoundHead) -> tuple[list[RecordedEvent], FoundHead]:
        """The events of `group` behind `head`: their rows are pending, and the draft stands after them; returns where the stream does."""
        place, now_us, pending, stream_id = self._place, self._now_us, self._pending, head.stream_id
        epoch, received_time, code_version, correlation_id = place.epoch, group.received_time, group.code_version, group.correlation_id
        position, time, version, prev_position, previous = self.position, self.time, head.version, head.position, head.hash
        recorded: list[RecordedEvent] = []
        for event in group.events:
            start = (position - self._memory.position) * ENTROPY_PER_EVENT
            position += 1
            version += 1
            # S30: after everything recorded here and everything received.
            time = max(now_us, time + 1, received_time + 1)
            entropy = self._entropy[start : start + ENTROPY_PER_EVENT]
            fact, salt, previous = record(group, event, place.shard, position, version, time, now_us, epoch, entropy, previous)
            self.rolling = rolling_hash(self.rolling, previous)
            tag, schema_version, kind, summary = event.type, event.schema_version, event.kind._value_, event.summary
            extras = causation_id, traceparent, sender, parent, duration_us, error, key_id, state_hash = (
                group.causation_id, group.traceparent, group.sender, group.parent,
                event.duration_us, event.error, event.key_id, event.state_hash,
            )  # fmt: skip
            check = event_check(
                position, prev_position, epoch, duration_us, summary, error, traceparent, parent, code_version, key_id, state_hash
            )
            # A bytearray, because Python's sqlite3 looks for an adapter of bytes.
            if extras == PLAIN_EXTRAS:
                own = (
                    position, stream_id, prev_position, time, version, fact.event_id, tag, schema_version, kind, bytearray(salt),
                    bytearray(previous), check, event.payload.decode(),
                )  # fmt: skip
                pending.events.plain((now_us, epoch, group.branch, code_version), own, group.command_id, correlation_id, summary)
            else:
                pending.events.append((
                    position, stream_id, prev_position, time, version, fact.event_id, tag, schema_version, now_us, group.command_id,
                    causation_id, correlation_id, traceparent, sender, group.branch, parent, kind, epoch, code_version, duration_us,
                    summary, error, bytearray(salt), key_id, state_hash, bytearray(previous), check, None, event.payload.decode(),
                ))  # fmt: skip
            recorded.append(fact)
            if (tag, schema_version) != self._last_type:
                self._note_format(tag, schema_version, position)
            if version % STREAM_PAGE_VERSIONS == 0:
                pending.pages.append((stream_id, version, position))
            prev_position = position
        self.position, self.time, self.event_hash = position, time, previous
        self._heads[group.stream] = FoundHead(stream_id, version, position, previous, "live", head.base_version, head.base_hash)
        return recorded, self._heads[group.stream]

    def _send(self, group: Append) -> tuple[list[InboxEntry], list[PendingSend]]:
        """A send inside the shard becomes an inbox row at once, another an outbox row (S25)."""
        delivered: list[InboxEntry] = []
        unsent: list[PendingSend] = []
        for entry in group.outbox:
            key = (group.stream, entry.receiver, self._place.incarnation)
            n = self._last(self._sent, self._memory.sent, "sent_heads", key) + 1
            self._sent[key] = self._pending.sent[key] = n
            type_name, name = parse_stream_id(entry.receiver)
            if shard_of(type_name, name, self._place.shards) != self._place.shard:
                send = PendingSend(sender=group.stream, n=n, incarnation=self._place.incarnation, time=self.time, entry=entry)
                self._pending.outbox.append(send)
                self._outbox_delta[key] += 1
                unsent.append(send)
                continue
            if self._find_inbox((entry.command_id, entry.receiver), True) is None:
                arrived = delivery(group, entry, n, self._now_us)
                head = self._head(entry.receiver)
                if head is not None and head.status != "live":
                    self._put_inbox(refused_as_gone(arrived, head.status, self._now_us), None, self.time)
                    continue
                self._put_inbox(arrived, None, self.time)
                delivered.append(arrived)
        return delivered, unsent

    def _supervise(self, group: Append, recorded: Sequence[RecordedEvent]) -> list[InboxEntry]:
        """Failures and their consequences; returns what is to be tried again (design.md 6)."""
        supervision, pending = group.supervision, self._pending
        if supervision is None:
            return []
        for command_id in supervision.letters_gone:
            pending.letters[group.stream, command_id] = None
        if (letter := supervision.letter) is not None:
            pending.letters[letter.stream, letter.command_id] = letter_with(letter, recorded)
        if supervision.stopped is not None:
            pending.stopped[group.stream] = supervision.stopped
        elif supervision.restarted:
            pending.stopped[group.stream] = None
        revived: list[InboxEntry] = []
        for entry in supervision.revived:
            known = self._find_inbox((entry.command_id, entry.stream), True)
            again = revived_entry(None if known is None else known.entry, entry)
            if again is not None:
                self._put_inbox(again, known, 0)
                revived.append(again)
        return revived

    def take_arrival(self, arrival: Arrival) -> Accepted:
        """What becomes of a tell that reached the shard without a turn (S11, S25). Raises as `decide`."""
        entry = arrival.entry
        pair: PairKey | None = None
        if arrival.sender is not None:
            pair = (arrival.sender, entry.stream, arrival.incarnation)
            expected = self._last(self._received, self._memory.received, "received_heads", pair) + 1
            if arrival.n < expected:
                return Accepted(result="known", expected=expected, position=Position(self.position))
            if arrival.n > expected:
                return Accepted(result="gap", expected=expected, position=Position(self.position))
        if arrival.timer_id is not None and not self._timer_stands(entry.stream, arrival.timer_id):
            return Accepted(result="gone", position=Position(self.position))
        known = self._find_inbox((entry.command_id, entry.stream), True)
        head = self._head(entry.stream)
        closed = head is not None and head.status != "live"
        if known is None and head is not None and closed:
            self._put_inbox(refused_as_gone(entry, head.status, self._now_us), None, arrival.time)
        elif known is None:
            queued = msgspec.structs.replace(entry, status=InboxStatus.QUEUED, received_at_us=entry.received_at_us or self._now_us)
            self._put_inbox(queued, None, arrival.time)
        if pair is not None:
            # Also if the command was known: otherwise the sender would offer it for ever.
            self._received[pair] = self._pending.received[pair] = arrival.n
        if arrival.timer_id is not None:
            self._pending.timers[entry.stream, arrival.timer_id] = None if closed else arrival.timer_next
        self.time = max(self.time, arrival.time)
        result = "known" if known else "closed" if closed else "taken"
        return Accepted(result=result, expected=arrival.n + 1, position=Position(self.position))

    # Looking up

    def _timer_stands(self, stream: str, timer_id: str) -> bool:
        if (stream, timer_id) in self._pending.timers:
            return self._pending.timers[stream, timer_id] is not None
        sql = "SELECT 1 FROM timers WHERE stream = ? AND timer_id = ?"
        return bool(self._connection.execute(sql, (stream, timer_id)).fetchall())

    def expect(self, groups: Sequence[Append]) -> None:
        """These come next: once the stream of one has to be looked up, those of all of them are, in one statement."""
        self._expected = groups

    def _head(self, stream: str) -> FoundHead | None:
        head = self._heads.get(stream) or self._memory.heads.get(stream)
        if head is None and self._expected:
            expected, self._expected = self._expected, ()
            self._look_up({group.stream for group in expected})
            head = self._memory.heads.get(stream)
        if head is None and stream not in self._nameless:
            head = flushed_head(self._connection, stream)
            if head is not None:
                self._remember(stream, head)
        return head

    def _look_up(self, streams: set[StreamId]) -> None:
        unknown = [stream for stream in streams if self._heads.get(stream) is None and self._memory.heads.get(stream) is None]
        found = flushed_heads(self._connection, unknown)
        for stream, head in found.items():
            self._remember(stream, head)
        self._nameless.update(stream for stream in unknown if stream not in found)

    def _remember(self, stream: str, head: FoundHead) -> None:
        head.version = max(head.version, head.base_version)
        head.hash = head.hash if head.position else head.base_hash
        self._memory.heads.remember(stream, head)

    def version_of(self, stream: StreamId) -> Version:
        """Where `stream` stands in this draft."""
        head = self._head(stream)
        return Version(head.version if head is not None else 0)

    def _name_stream(self, stream: str, base: Base | None = None) -> FoundHead:
        """A row for a stream that has none. Its head is filled in by the next flush."""
        type_name, _, key = stream.partition("/")
        version, hash_ = (0, GENESIS_HASH) if base is None else (base.version, base.hash)
        head = FoundHead(self._next_stream, version, 0, hash_, "live", version, hash_)
        base_hash = None if base is None else base.hash
        check = stream_check(head.stream_id, stream, head.status, 0, 0, GENESIS_HASH, version, base_hash)
        self._pending.streams.append((head.stream_id, stream, type_name, key, 0, 0, GENESIS_HASH, version, base_hash, check))
        self._heads[stream] = head
        self._next_stream += 1
        actor = ("actor", type_name, 1)
        if actor not in self._memory.formats and actor not in self._new_formats:
            self._new_formats.add(actor)
            self._pending.formats.append((*actor, self.position))
        return head

    def _note_format(self, tag: str, version: int, position: int) -> None:
        self._last_type = tag, version
        used = ("event", tag, version)
        if used not in self._memory.formats and used not in self._new_formats:
            self._new_formats.add(used)
            self._pending.formats.append((*used, position))

    def _find_inbox(self, key: InboxKey, explicit: bool) -> InboxRow | None:
        """The row of a command. Ids that we made up are only looked up if they are known to be under way: they cannot
        come twice."""
        pending = self._pending.inbox.get(key)
        if pending is not None:
            return pending
        if not (explicit or self._careful or key in self._opened or key in self._memory.open_inbox):
            return None
        rows = self._connection.execute(f"{SELECT_INBOX} WHERE i.command_id = ? AND s.name = ?", key).fetchall()
        return inbox_row(self._place.shard, rows[0]) if rows else None

    def _put_inbox(self, entry: InboxEntry, known: InboxRow | None, received_time: int) -> None:
        key = (entry.command_id, entry.stream)
        if known is None:
            head = self._head(entry.stream) or self._name_stream(entry.stream)
            row = InboxRow(id=self._next_inbox, stream_id=head.stream_id, entry=entry, received_time=received_time, is_new=True)
            self._next_inbox += 1
        else:
            row = InboxRow(id=known.id, stream_id=known.stream_id, entry=entry, received_time=known.received_time, is_new=known.is_new)
        self._pending.inbox[key] = row
        if entry.status in OPEN_STATUSES:
            self._opened[key] = row.id
            self._closed.discard(key)
        else:
            self._opened.pop(key, None)
            self._closed.add(key)

    def _last(self, mine: dict[PairKey, int], remembered: dict[PairKey, int], table: str, key: PairKey) -> int:
        n = mine.get(key)
        if n is None:
            n = remembered.get(key)
        if n is None:
            n = remembered[key] = read_pair(self._connection, table, key)
        return n

    # Writing

    def write(self) -> None:
        """Send the pending rows to the file, inside the caller's transaction."""
        pending, self._pending = self._pending, PendingRows()
        self.wrote = self.wrote or pending.any()
        pending.write(self._connection)

    def acknowledge(self, sends: Sequence[tuple[StreamId, StreamId, str, int]]) -> None:
        """Delete the outbox rows that have arrived; unknown ones are no error, an acknowledgement may come twice."""
        for sender, receiver, incarnation, n in sends:
            gone = self._connection.execute(
                "DELETE FROM outbox WHERE sender = ? AND receiver = ? AND incarnation = ? AND n = ?", (sender, receiver, incarnation, n)
            ).rowcount
            if gone:
                self._outbox_delta[sender, receiver, incarnation] -= gone
                self.wrote = True

    def finish(self) -> None:
        """Last statements before COMMIT: the flush of heads if it is due, and the count of commits without events."""
        if self.position == self._memory.position:
            if self.wrote:
                self.eventless += 1
                self._connection.execute("UPDATE owner SET eventless = ?", (self.eventless,))
        elif flush_is_due(self._memory, self.position):
            self.flush()

    def flush(self) -> None:
        """Write all changed heads, and one row that says as of where (kept: this one and the one before). Not twice at
        one position."""
        changed = {**self._memory.heads.dirty, **self._heads}
        update_rows(
            self._connection, "streams", ("head_version", "head_position", "head_hash", "row_check"),
            [
                (
                    head.stream_id, head.version, head.position, bytearray(head.hash),
                    stream_check(
                        head.stream_id, name, head.status, head.version, head.position, head.hash, head.base_version, head.base_hash
                    ),
                )
                for name, head in changed.items()
                if head.position
            ],
        )  # fmt: skip
        reached(CrashPoint.APPEND_FLUSHING)
        self._connection.execute("DELETE FROM heads WHERE position < ?", (self._memory.flushed_position,))
        self._connection.execute(
            "INSERT INTO heads VALUES (?, ?, ?, ?)",
            (self.position, self.rolling, self.time, flush_check(self.position, self.rolling, self.time)),
        )
        self._flushed = True

    def keep(self) -> None:
        """Take the draft over into the memory of the shard: the transaction has committed."""
        memory = self._memory
        memory.position, memory.time, memory.rolling = self.position, self.time, self.rolling
        memory.event_hash, memory.eventless = self.event_hash, self.eventless
        memory.next_inbox, memory.next_stream = self._next_inbox, self._next_stream
        memory.heads.dirty.update(self._heads)
        if self._flushed:
            memory.flushed_position = self.position
            memory.heads.flushed()
        memory.formats |= self._new_formats
        memory.open_inbox.update(self._opened)
        for key in self._closed:
            memory.open_inbox.pop(key, None)
        for remembered, mine in ((memory.sent, self._sent), (memory.received, self._received)):
            if len(remembered) > PAIRS_MAX:
                remembered.clear()
            remembered.update(mine)
        for pair, change in self._outbox_delta.items():
            memory.outbox_pairs[pair] += change
            memory.outbox_total += change
            if memory.outbox_pairs[pair] <= 0:
                del memory.outbox_pairs[pair]

    # Closing a stream

    def note_keys(self, keys: Sequence[tuple[StreamId, str]]) -> None:
        """Write down which keys are used for the first time (S29). After a commit of unknown outcome they may stand there already."""
        for stream, key_id in keys:
            sql = "INSERT INTO stream_keys VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
            self.wrote = bool(self._connection.execute(sql, (stream, key_id, row_check(stream, key_id))).rowcount) or self.wrote

    def forget(self, commands: Sequence[InboxKey], pairs: Mapping[PairKey, int]) -> None:
        """Rows of an erased stream were deleted: open commands, and so many sends per pair."""
        self._closed.update(commands)
        self._outbox_delta.subtract(pairs)

    def set_status(self, stream: StreamId, status: str) -> None:
        """`status` from here on; in the file with `close`."""
        head = self._head(stream) or self._name_stream(stream)
        self._heads[stream] = FoundHead(
            head.stream_id, head.version, head.position, head.hash, status, head.base_version, head.base_hash
        )  # fmt: skip

    def close(self, stream: StreamId, status: str) -> None:
        """Write what is pending and all heads; the row of `stream` is then its newest, with `status`."""
        self.write()
        self.set_status(stream, status)
        self.flush()
        self._connection.execute("UPDATE streams SET status = ? WHERE name = ?", (status, stream))

    # One group at a time

    def checkpoint(self) -> Callable[[], None]:
        """A function that takes the draft back to how it stands now, with nothing pending: used beside a SAVEPOINT."""
        saved = {
            name: value.copy() if isinstance(value, (dict, set)) else value for name, value in vars(self).items() if name != "_pending"
        }

        def restore() -> None:
            vars(self).update(saved)
            self._pending = PendingRows()

        return restore
