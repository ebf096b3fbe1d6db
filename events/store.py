"""The log port: what a writer of one shard, and a reader of all of them, can rely on. Adapters: `store_sqlite`,
`store_memory`.

Both adapters pass the one contract suite in ``tests/contract``. Nothing here runs: records and Protocols only.
"""

from collections.abc import Callable, Container, Sequence
from enum import StrEnum
from typing import Any, Protocol

import msgspec

from events.closing import ShardClosing
from events.envelope import MAIN_BRANCH, NewEvent, RecordedEvent
from events.facts import Fact, ShardFacts
from events.floor import ShardFloor
from events.ids import CommandId, EventId, Position, StreamId, Version
from events.letters import Letter, StoppedActor, Supervision
from events.limits import WRITE_LOCK_S
from events.selection import Selected, Selection


class InboxStatus(StrEnum):
    """How far a command got. `QUEUED` and `RUNNING` survive a crash and are taken up again by the next owner."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"


class InboxEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One command that reached its actor: the memory that makes a repeat harmless (S24).

    args_hash: hex, `codec.canonical_hash` of method and arguments. args: JSON of the arguments; kept while QUEUED or
    RUNNING, else None. reply: JSON of the reply or of the error body once finished. code: None for a reply, else the
    error number of design.md 3. deadline_ms: Unix ms or None. source: where a tell came from,
    ``js:<stream>:<sequence>`` or ``<sender>#<n>``, None for an ask. explicit: the caller chose the id, so a repeat is
    possible and must be looked up.
    """

    stream: StreamId
    command_id: CommandId
    method: str
    args_hash: str
    status: InboxStatus
    args: bytes | None = None
    reply: bytes | None = None
    code: int | None = None
    sender: str | None = None
    causation_id: str | None = None
    correlation_id: str | None = None
    traceparent: str | None = None
    deadline_ms: int | None = None
    source: str | None = None
    explicit: bool = True
    received_at_us: int = 0
    completed_at_us: int | None = None


class OutboxEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One durable send (S25). `n` counts from 1 per (sender, receiver) and is given by the store; so is the logical
    time. args_hash: what the receiver's inbox row shall hold if it lives in the same shard; None = that of `args`. Not stored."""

    receiver: StreamId
    method: str
    args: bytes
    command_id: CommandId
    causation_id: str | None = None
    correlation_id: str | None = None
    traceparent: str | None = None
    deadline_ms: int | None = None
    args_hash: str | None = None


class PendingSend(msgspec.Struct, frozen=True, kw_only=True):
    """An outbox row as read back: `entry` from `sender`, number `n` of that pair under log `incarnation`."""

    sender: StreamId
    n: int
    incarnation: str
    time: int
    entry: OutboxEntry


class TimerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A durable timer (S26): due at `due_us`; wall = due by the wall clock, else by elapsed time from `set_at_us`."""

    stream: StreamId
    timer_id: str
    due_us: int
    wall: bool
    every_us: int | None
    method: str
    args: bytes
    set_at_us: int
    correlation_id: str | None = None


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """A tell on its way into the inbox without a turn: a JetStream message (S11) or another shard's outbox row (S25).

    For an outbox row `sender`, `n` and `incarnation` are set, and it is taken only as n = last + 1 of that pair.
    time: logical time of the sender's record, 0 if it has none. timer_id: the timer that came due as this, whose row goes with the same
    transaction, or becomes `timer_next` (S26).
    """

    entry: InboxEntry
    timer_id: str | None = None
    timer_next: TimerEntry | None = None
    sender: StreamId | None = None
    n: int = 0
    incarnation: str = ""
    time: int = 0


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A disposable copy of a state (I-8). `shape` names the state's schema; another shape is ignored, not read."""

    stream: StreamId
    version: Version
    state: bytes
    shape: str


class WaitEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An open wait of an actor (S20)."""

    stream: StreamId
    wait_id: str
    name: str
    command_id: CommandId
    opened_at_us: int
    expires_at_us: int | None
    schema: bytes | None = None


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """Where a new stream branches off another one: at the version, and from the hash, that its parent has there (S33)."""

    version: Version
    hash: bytes


class Append(msgspec.Struct, frozen=True):
    """One atomic group: everything that one turn, or one journal entry of a turn, commits (S14, S15).

    expected_version: version of the stream before `events`; required, 0 = must not exist. `inbox` is inserted, or
    updates the row that (stream, command_id) already has if that row is QUEUED or RUNNING. received_time: highest
    logical time received with the cause. base: the stream begins with this group as a fork, after that version.
    """

    stream: StreamId
    expected_version: Version
    command_id: CommandId | None
    events: Sequence[NewEvent] = ()
    causation_id: str | None = None
    correlation_id: str | None = None
    traceparent: str | None = None
    sender: str | None = None
    branch: str = MAIN_BRANCH
    parent: str | None = None
    base: Base | None = None
    code_version: str | None = None
    received_time: int = 0
    inbox: InboxEntry | None = None
    outbox: Sequence[OutboxEntry] = ()
    timers: Sequence[TimerEntry] = ()
    timers_gone: Sequence[str] = ()
    waits: Sequence[WaitEntry] = ()
    waits_gone: Sequence[str] = ()
    snapshot: Snapshot | None = None
    supervision: Supervision | None = None


class Committed(msgspec.Struct, frozen=True):
    """The group is durable as far as the log's durability level says. `events` as recorded; `version` is the stream's
    new one.

    delivered: sends to receivers of the same shard, which are inbox rows by now, and dead letters that are tried again.
    pending: sends to other shards, now in the outbox.
    """

    events: Sequence[RecordedEvent]
    version: Version
    position: Position
    time: int
    delivered: Sequence[InboxEntry] = ()
    pending: Sequence[PendingSend] = ()


class Duplicate(msgspec.Struct, frozen=True, kw_only=True):
    """The command id is known already; nothing was written. The caller compares method and argument hash (409
    id_reused)."""

    entry: InboxEntry


class Conflict(msgspec.Struct, frozen=True, kw_only=True):
    """The stream was not at `expected_version`, or the group itself was refused; nothing of this group was written,
    others of the batch were (S18)."""

    actual: Version
    reason: str


Outcome = Committed | Duplicate | Conflict


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one `Arrival`: "taken" now, "known" already (acknowledge again), "gap" (ask for n = expected), "gone": its timer was
    taken back (S26), "closed": the stream is archived or erased, which its inbox row says now, or "refused": it can never be stored."""

    result: str
    expected: int = 0
    position: Position = Position(0)


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The newest event of a stream."""

    stream: StreamId
    version: Version
    position: Position
    hash: bytes
    status: str = "live"


class Ownership(msgspec.Struct, frozen=True, kw_only=True):
    """The right to write one shard, as checked inside every append (S3)."""

    shard: int
    epoch: int
    token: bytes
    worker: str
    incarnation: str


class ShardInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Where a shard stands, for `status`, `doctor` and readers. warnings: what a person should know, such as a missing
    anchor."""

    shard: int
    shards: int
    incarnation: str
    position: Position
    time: int
    owner_epoch: int
    worker: str | None
    warnings: Sequence[str] = ()


class Format(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was ever written to a shard (S7). kind: "event" (name = tag, version = schema version), "actor" or
    "format"."""

    kind: str
    name: str
    version: int
    first_position: int = 0


class StreamInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the list of streams."""

    stream: StreamId
    shard: int
    version: Version
    position: Position
    status: str


class UnderWay(msgspec.Struct, frozen=True, kw_only=True):
    """Commands that are queued or running, sends to other shards without acknowledgement, timers and open waits of one shard."""

    commands: Sequence[InboxEntry]
    sends: Sequence[PendingSend]
    timers: Sequence[TimerEntry]
    waits: Sequence[WaitEntry]
    damages: Sequence[str] = ()


class ShardStore(ShardClosing, ShardFacts, ShardFloor, Protocol):
    """The one writer of one shard. Not safe for concurrent calls: `group_commit.GroupCommit` is the only caller of
    `append`."""

    shard: int

    async def take(self, worker: str, *, wait_s: float = WRITE_LOCK_S) -> Ownership:
        """Become the owner: epoch + 1 and a new token in one transaction (S2). What the former owner appends from now
        on is refused.

        Raises:
            TransientError: the write lock was not free within `wait_s`.
        """
        ...

    async def append(self, groups: Sequence[Append]) -> Sequence[Outcome]:
        """Commit `groups` in order in one transaction; outcomes in the same order.

        A group that conflicts, or whose command is known, leaves the others alone (S18). When this returns, the
        committed ones are durable. Cancelling the caller does not stop the transaction.

        Raises:
            SupersededError: another owner took the shard, or the file was replaced; nothing was written by us that
            others will keep. LogFullError: rolled back, nothing written. AppendOutcomeUnknownError: look up each
            command id after reopening.
        """
        ...

    async def accept(self, arrivals: Sequence[Arrival]) -> Sequence[Accepted]:
        """Write tells into the inbox as QUEUED in one transaction (S11, S25). Raises as `append`."""
        ...

    async def acknowledge(self, sends: Sequence[tuple[StreamId, StreamId, str, int]]) -> None:
        """Delete outbox rows (sender, receiver, incarnation, n) that the receiver's shard has committed (S25). Raises
        as `append`."""
        ...

    async def commit(
        self,
        groups: Sequence[Append],
        arrivals: Sequence[Arrival] = (),
        sends: Sequence[tuple[StreamId, StreamId, str, int]] = (),
        *,
        keys: Sequence[tuple[StreamId, str]] = (),
    ) -> tuple[Sequence[Outcome], Sequence[Accepted]]:
        """`accept`, then `append`, then `acknowledge`, in one transaction: what one turn of the group commit writes.
        keys: (stream, key id) that it uses for the first time (S29). Raises as `append`."""
        ...

    def outbox_room(self, sender: StreamId, receiver: StreamId) -> int:
        """How many more sends from `sender` to `receiver` the outbox takes (S25), from counters in memory; refusing is
        the caller's job."""
        ...

    async def formats(self) -> Sequence[Format]:
        """Everything that was ever written to this shard, for the check before taking it (S7)."""
        ...

    async def head(self, stream: StreamId) -> Head | None:
        """The newest event of `stream`, None if it has none."""
        ...

    async def load(self, stream: StreamId, shape: str) -> tuple[Snapshot | None, Sequence[RecordedEvent]]:
        """The newest snapshot of that shape, and the events after it. Raises QuarantinedError (I-20)."""
        ...

    async def inbox(self, stream: StreamId, command_id: CommandId) -> InboxEntry | None:
        """The remembered command, None if unknown or forgotten (S24)."""
        ...

    async def did(self, stream: StreamId, command_id: CommandId, *, after: int = 0, since: int = 0) -> bool:
        """Whether an event that `command_id` caused stands in `stream`: with version > `after` and a logical time >= `since`.

        For commands without an inbox row: what an earlier append of an unknown outcome, or another owner, did of them. Ordered after every
        `commit` that was called before.
        """
        ...

    async def unfinished(self) -> Sequence[InboxEntry]:
        """All QUEUED and RUNNING commands of the shard, in the order in which they came.

        A damaged row is left out here, in `unsent`, `timers` and `waits`, and named in `info().warnings`: it stops its actor, not the
        shard.
        """
        ...

    async def queued(self, stream: StreamId, limit: int) -> Sequence[InboxEntry]:
        """The oldest QUEUED commands of one stream, in the order in which they came. Raises CorruptLogError as `inbox`."""
        ...

    async def letters(self, stream: StreamId | None = None) -> Sequence[Letter]:
        """Every stored command of the shard, or of one stream, whose handler failed, that is tried again or dead."""
        ...

    async def stopped(self) -> Sequence[StoppedActor]:
        """The actors of the shard that are stopped."""
        ...

    async def unsent(self) -> Sequence[PendingSend]:
        """All outbox rows of the shard, ordered by (sender, receiver, n)."""
        ...

    async def timers(self) -> Sequence[TimerEntry]:
        """All timers of the shard."""
        ...

    async def waits(self) -> Sequence[WaitEntry]:
        """All open waits of the shard."""
        ...

    async def info(self) -> ShardInfo: ...

    async def sync_anchor(self) -> None:
        """Make the anchor durable now if it is not; worth calling when a busy shard falls idle (S28)."""
        ...

    async def close(self) -> None:
        """Flush heads, write and fsync the anchor, close. Idempotent."""
        ...


class LogReader(Protocol):
    """Committed rows of all shards, from read-only connections; ownership plays no part (S31). Every call is one short
    read."""

    shards: int

    async def read(self, shard: int, *, after: int = 0, limit: int = 1_000) -> Sequence[RecordedEvent]:
        """Events of a shard with position > `after`, in order, at most `limit` (at most 1,000)."""
        ...

    async def read_stream(self, stream: StreamId, *, after: int = 0, limit: int = 1_000) -> Sequence[RecordedEvent]:
        """Events of a stream with version > `after`, in order, at most `limit` (at most 1,000)."""
        ...

    async def read_last(self, shard: int, *, before: int | None = None, limit: int = 50) -> Sequence[RecordedEvent]:
        """The last `limit` events of a shard with position < `before` (None = the end), newest first."""
        ...

    async def select(
        self, shard: int, wanted: Selection, *, after: int = 0, before: int | None = None, limit: int = 1_000, backwards: bool = False
    ) -> Selected:
        """The events of a shard that `wanted` lets through, with after < position < before, at most `limit`, oldest first.

        One short read: it ends after SELECT_ROWS_MAX positions, found or not, and `Selected.upto` says where to go on.

        Args:
            backwards: newest first; go on with ``before=upto``.
        """
        ...

    async def under_way(self, shard: int) -> "UnderWay":
        """What the shard has yet to do; damaged rows are named in it (as `ShardStore.unfinished`)."""
        ...

    async def head(self, stream: StreamId) -> Head | None: ...

    async def event(self, event_id: EventId) -> RecordedEvent | None:
        """An event by its id, found through the logical time that its id starts with."""
        ...

    async def at(self, shard: int, position: Position) -> RecordedEvent | None: ...

    async def streams(self, *, after: str = "", limit: int = 1_000) -> Sequence[StreamInfo]:
        """Streams of all shards by name > `after`, in order of name."""
        ...

    async def info(self, shard: int) -> ShardInfo: ...

    async def formats(self, shard: int) -> Sequence[Format]: ...

    async def inbox(self, stream: StreamId, command_id: CommandId) -> InboxEntry | None: ...

    async def snapshot(self, stream: StreamId) -> Snapshot | None: ...

    async def letters(self, shard: int, stream: StreamId | None = None) -> Sequence[Letter]:
        """As `ShardStore.letters`."""
        ...

    async def stopped(self, shard: int) -> Sequence[StoppedActor]:
        """As `ShardStore.stopped`."""
        ...

    async def waits(self, shard: int) -> Sequence[WaitEntry]:
        """All open waits of a shard, oldest first; damaged rows are left out, as by the writer."""
        ...

    async def close(self) -> None: ...


class ScanReader(LogReader, Protocol):
    """A reader beside the files, which can give a whole shard."""

    async def scan(self, shard: int, plain: Container[str], take: Callable[[Sequence[Fact]], None]) -> None:
        """Hand the state events and forks of a whole shard to `take`, in order, page by page, verified as everywhere: for folding all of it
        at a third of the price of `read`.

        Args:
            plain: the ``tag:schema version`` of which the payload alone is enough; any other comes without it, as do sealed and erased
                events and all of a fork (S33), also of one at version 0: its state begins with what its first event says.
            take: called on any thread, never twice at once; what it raises ends the scan. Cancelled: a call that runs is not cut off.
        """
        ...


class Damage(msgspec.Struct, frozen=True, kw_only=True):
    """One finding of `verify`: what does not hold, and where."""

    shard: int
    table: str
    message: str
    position: int | None = None
    stream: str | None = None
    version: int | None = None
    expected: Any = None
    found: Any = None
