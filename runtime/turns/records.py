"""How a command becomes rows: its inbox entry and its append group."""

from collections.abc import Sequence

from actors.errors import ActorError, Gone, HandlerFailed, IdReused, error_from_body
from actors.journal import Forked, fired_events, sent_event, timer_events
from actors.turn import Command, Turn
from events.clock import Clock
from events.envelope import MAIN_BRANCH, NewEvent
from events.ids import StreamId, Version
from events.letters import Supervision
from events.store import Append, Conflict, InboxEntry, InboxStatus, OutboxEntry, Snapshot, TimerEntry
from runtime.branches.forks import receiver_in
from runtime.items import Item


def append_of(
    code_version: str,
    stream: StreamId,
    version: int,
    item: Item,
    events: Sequence[NewEvent],
    inbox: InboxEntry | None,
    sends: Sequence[OutboxEntry] = (),
    snapshot: Snapshot | None = None,
    timers: Sequence[TimerEntry] = (),
    timers_gone: Sequence[str] = (),
) -> Append:
    """The group that `item` commits on top of `version`. A conversation without a name is named after its first command."""
    command = item.command
    # By place: so many keywords cost five times as much as the rest of this function.
    return Append(
        stream, Version(version), command.command_id, events, command.causation_id, command.correlation_id or command.command_id,
        command.traceparent, command.sender, MAIN_BRANCH, None, None, code_version, item.received_time, inbox, sends, timers, timers_gone,
        (), (), snapshot, None if item.letter is None else _without_letter(item, inbox),
    )  # fmt: skip


def _without_letter(item: Item, inbox: InboxEntry | None) -> Supervision | None:
    """A command that ends takes the count of its failed attempts with it."""
    if item.letter is None or inbox is None or inbox.completed_at_us is None:
        return None
    return Supervision(letters_gone=(item.letter.command_id,))


def with_records(item: Item, turn: Turn, events: list[NewEvent], fork: Forked | None) -> list[NewEvent]:
    """`events` with the records of what else the turn does: the timer that called it, what it sends, the timers it sets. The journal of a
    turn has begun with the timer already."""
    fired = [] if turn.journaled else fired_events(item.command.source)
    told = [
        sent_event(receiver or send.receiver, send.method, send.args, send.command_id, held=receiver is None)
        for send, receiver in ((send, receiver_in(fork, send.receiver)) for send in turn.sends)
    ]
    return [*fired, *events, *told, *timer_events(turn.timers, turn.timers_gone)]


def entry_of(stream: StreamId, item: Item, status: InboxStatus, reply: bytes | None, code: int | None, clock: Clock) -> InboxEntry:
    """The inbox row of `item`: arguments while it is open, the reply once it has ended."""
    command = item.command
    is_open = status in (InboxStatus.QUEUED, InboxStatus.RUNNING)
    explicit = command.explicit or item.stored is not None
    return InboxEntry(
        stream=stream,
        command_id=command.command_id,
        method=command.method,
        args_hash=item.args_hash(),
        status=status,
        args=command.args if is_open else None,
        reply=reply,
        code=code,
        sender=command.sender,
        causation_id=command.causation_id,
        correlation_id=command.correlation_id,
        traceparent=command.traceparent,
        deadline_ms=command.deadline_ms,
        source=command.source,
        explicit=explicit,
        received_at_us=command.received_at_us,
        completed_at_us=None if is_open else clock.wall_us(),
    )


def arrival_of(command: Command, args_hash: str, source: str) -> InboxEntry:
    """The inbox row of a tell that has just arrived."""
    return InboxEntry(
        stream=command.stream,
        command_id=command.command_id,
        method=command.method,
        args_hash=args_hash,
        status=InboxStatus.QUEUED,
        args=command.args,
        sender=command.sender,
        causation_id=command.causation_id,
        correlation_id=command.correlation_id,
        traceparent=command.traceparent,
        deadline_ms=command.deadline_ms,
        source=source,
        received_at_us=command.received_at_us,
    )


def conflict_error(stream: StreamId, conflict: Conflict) -> ActorError:
    """Why a group is refused for good."""
    if conflict.reason.endswith(("is archived", "is erased")):
        return Gone(conflict.reason, stream=stream)
    return HandlerFailed(f"{stream}: {conflict.reason}")


def remembered_error(item: Item, entry: InboxEntry) -> ActorError | None:
    """How the command of `entry` ended for the caller of `item`, who repeats its id; None = with the reply that it holds (S24)."""
    # Without a hash, in older logs, the id was made up by us, so the row can only be this command's own.
    if entry.method != item.method.name or (entry.args_hash and entry.args_hash != item.args_hash()):
        return IdReused(f"{entry.command_id} is the id of another command to {entry.stream}", command_id=entry.command_id)
    return None if entry.code is None else error_from_body(entry.reply or b"{}")
