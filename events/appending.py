"""The rules of an append that do not depend on where it is stored: shared by the SQLite and the memory adapter."""

from typing import Final

import msgspec

from events.codec import args_hash, encode
from events.envelope import NewEvent, RecordedEvent, chained, payload_hash
from events.ids import EventId, Position, Version
from events.store import Append, InboxEntry, InboxStatus, OutboxEntry

SALT_BYTES: Final = 16
ENTROPY_PER_EVENT: Final = 21
"""Random bytes that one event takes: 16 of salt and 5 of its id."""
TIME_DIGITS: Final = 14
"""An event id starts with its logical time in so many hexadecimal digits, so that it can be found without an index."""
GONE: Final = 410
"""The number of an error of a stream that is archived or erased (design.md 3)."""
OPEN_STATUSES: Final = (InboxStatus.QUEUED, InboxStatus.RUNNING)


def record(
    group: Append, event: NewEvent, shard: int, position: int, version: int, time: int, now_us: int, epoch: int, entropy: bytes,
    previous_hash: bytes,
) -> tuple[RecordedEvent, bytes, bytes]:  # fmt: skip
    """`event` with its place, its salt and its hash. entropy: `ENTROPY_PER_EVENT` bytes.

    Raises:
        ValueError, TypeError: the event holds what cannot be stored, such as a payload that is not UTF-8.
    """
    salt, random = entropy[:SALT_BYTES], entropy.hex()
    event_id = EventId(f"{time:014x}{random[2 * SALT_BYTES :]}")
    stream, type, schema_version, kind, payload = group.stream, event.type, event.schema_version, event.kind, event.payload
    command_id, causation_id, correlation_id, sender, branch = (
        group.command_id, group.causation_id, group.correlation_id, group.sender, group.branch,
    )  # fmt: skip
    digest = chained(previous_hash, (
        stream, version, event_id, type, schema_version, kind._value_, now_us, time,
        command_id, causation_id, correlation_id, sender, branch, payload_hash(salt, payload).hex(),
    ))  # fmt: skip
    # By place: 27 keywords cost four times as much as the rest of this line.
    recorded = RecordedEvent(
        shard, Position(position), time, stream, Version(version), event_id, type, schema_version, now_us,
        command_id, causation_id, correlation_id, group.traceparent, sender, branch, group.parent, kind, epoch, group.code_version,
        event.duration_us, event.summary, event.error, msgspec.Raw(payload), random[: 2 * SALT_BYTES], event.key_id, event.state_hash,
        digest.hex(),
    )  # fmt: skip
    return recorded, salt, digest


def continues(known: InboxEntry, entry: InboxEntry) -> bool:
    """True if `entry` is the next step of the command `known`, and not a second command under its id (S24)."""
    return known.status in OPEN_STATUSES and known.method == entry.method and known.args_hash == entry.args_hash


def merged(known: InboxEntry | None, entry: InboxEntry, now_us: int) -> InboxEntry:
    """The row to store: who asked and when stays as first received, how far it got is new. Arguments go once it is
    finished."""
    unfinished = entry.status in OPEN_STATUSES
    completed = None if unfinished else entry.completed_at_us or now_us
    if known is None:
        if completed == entry.completed_at_us and entry.received_at_us and (unfinished or entry.args is None):
            return entry
        return msgspec.structs.replace(
            entry,
            args=entry.args if unfinished else None,
            received_at_us=entry.received_at_us or now_us,
            completed_at_us=completed,
        )
    args = (entry.args if entry.args is not None else known.args) if unfinished else None
    return msgspec.structs.replace(known, status=entry.status, args=args, reply=entry.reply, code=entry.code, completed_at_us=completed)


def revived_entry(known: InboxEntry | None, entry: InboxEntry) -> InboxEntry | None:
    """The row of a dead letter that is tried again: as first received, with its arguments. None if it is under way already. known: its
    row, None if that was forgotten."""
    if known is None:
        return entry
    if known.status in OPEN_STATUSES:
        return None
    return msgspec.structs.replace(known, status=InboxStatus.QUEUED, args=entry.args, reply=None, code=None, completed_at_us=None)


def is_refusal(group: Append) -> bool:
    """True if `group` only says that a command was refused: the one thing that an archived or erased stream still takes."""
    rest = (group.events, group.outbox, group.timers, group.timers_gone, group.waits, group.waits_gone, group.snapshot, group.supervision)
    return group.inbox is not None and group.inbox.status is InboxStatus.REFUSED and not any(rest)


def gone(stream: str, status: str) -> bytes:
    """The reply to whoever sends something to a stream that is archived or erased: the body of `actors.errors.Gone`."""
    return encode({"code": GONE, "error": "gone", "message": f"{stream} is {status}", "retryable": False, "outcome": "not_done",
                   "stream": stream})  # fmt: skip


def refused_as_gone(entry: InboxEntry, status: str, now_us: int) -> InboxEntry:
    """A command that arrived for a closed stream, as its inbox row: refused at once, its arguments not kept (S24)."""
    return msgspec.structs.replace(
        entry, status=InboxStatus.REFUSED, args=None, args_hash="", reply=gone(entry.stream, status), code=GONE,
        received_at_us=entry.received_at_us or now_us, completed_at_us=now_us,
    )  # fmt: skip


def delivery(group: Append, entry: OutboxEntry, n: int, now_us: int) -> InboxEntry:
    """A send whose receiver lives in the same shard, as the inbox row that it becomes at once (S25)."""
    return InboxEntry(
        stream=entry.receiver,
        command_id=entry.command_id,
        method=entry.method,
        args_hash=entry.args_hash or args_hash(entry.method, entry.args),
        status=InboxStatus.QUEUED,
        args=entry.args,
        sender=group.stream,
        causation_id=entry.causation_id,
        correlation_id=entry.correlation_id,
        traceparent=entry.traceparent,
        deadline_ms=entry.deadline_ms,
        source=f"{group.stream}#{n}",
        explicit=True,
        received_at_us=now_us,
    )
