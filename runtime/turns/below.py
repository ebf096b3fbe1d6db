"""What a cancelled turn has asked of others is cancelled too (S22): a ``_cancel`` for each ask that may still be under way.

They are sends of the transaction that records the end of the turn, so they are recorded where they leave, survive any crash, and are
carried out where they arrive - which ends that turn in the same way, and so on down.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from actors.errors import Cancelled, OutcomeUnknown, Rejected, Waiting, error_body
from actors.holding import Kinds, held_in
from actors.journal import Entry, Forked, Opened, derived_id, sent_event
from actors.turn import Call, Command
from events.codec import args_hash, canonical, encode
from events.envelope import NewEvent
from events.errors import SupersededError
from events.ids import CommandId, StreamId, Version
from events.store import Append, Committed, Duplicate, InboxEntry, InboxStatus, OutboxEntry
from runtime.branches.forks import call_of_fork, receiver_in
from runtime.turns.control import commit_control

if TYPE_CHECKING:
    from runtime.shard import Shard

class CancelledAsk(NamedTuple):
    """An ask that was cancelled, as far as its ``_cancel`` tells of it."""

    command_id: str
    method: str
    args_hash: str


_MAY_GO_ON: Final = frozenset({OutcomeUnknown.__name__, Waiting.__name__})
"""How an ask ends here while the command goes on there."""


def cancels_below(opened: Opened | None, command: Command, fork: Forked | None, kinds: Kinds) -> list[OutboxEntry]:
    """The sends that end what the turn of `command`, whose journal is `opened`, has asked for and not heard the end of, and that give back
    what it holds of others."""
    open_asks = [] if opened is None else [entry for entry in opened.entries.values() if entry.use.kind == "ask" and _may_go_on(entry)]
    sends = []
    for entry in open_asks:
        asked = entry.started
        arguments = encode(asked["arguments"])
        call = Call(receiver=asked["receiver"], method=asked["method"], args=arguments, command_id=asked["command_id"], timeout_s=None)
        if fork is not None:
            try:
                call = call_of_fork(fork, call)
            except Rejected:
                continue  # it was held, so nobody was asked
        body = {"command_id": call.command_id, "method": call.method, "args_hash": args_hash(call.method, call.args)}
        sends.append(
            OutboxEntry(
                receiver=call.receiver, method="_cancel", args=encode(body),
                command_id=CommandId(derived_id(command.stream, command.command_id, "cancel", call.command_id)),
                causation_id=command.command_id, correlation_id=command.correlation_id or command.command_id,
                traceparent=command.traceparent,
            )
        )  # fmt: skip
    return sends if opened is None else sends + held_in(opened.entries, kinds).releases(command)


def _may_go_on(entry: Entry) -> bool:
    return not entry.finished or (entry.failure is not None and entry.failure["type"] in _MAY_GO_ON)


def records_of(sends: Iterable[OutboxEntry], fork: Forked | None) -> list[NewEvent]:
    """What the log says of `sends`, beside the end of the turn."""
    told = []
    for send in sends:
        receiver = receiver_in(fork, send.receiver)
        told.append(sent_event(receiver or send.receiver, send.method, send.args, send.command_id, held=receiver is None))
    return told


async def refuse_beforehand(shard: "Shard", stream: StreamId, cancelled: CancelledAsk) -> bool:
    """A command that was cancelled and has not come: should it come yet, by a copy that was held up on its way, it hears so (S24).

    Returns:
        Whether to look again what has become of it: that stands in the log now, or it has come meanwhile.
    """
    cell = shard.cell_of(stream)
    method = cell.kind.methods.get(cancelled.method)
    if method is None or method.query:
        return False  # nothing that would have to be refused
    error = Cancelled(f"{cancelled.command_id} was cancelled", command_id=cancelled.command_id)
    now_us = shard.clock.wall_us()
    row = InboxEntry(
        stream=stream, command_id=CommandId(cancelled.command_id), method=cancelled.method, args_hash=cancelled.args_hash,
        status=InboxStatus.FAILED, reply=canonical(error_body(error)), code=error.number, received_at_us=now_us, completed_at_us=now_us,
    )  # fmt: skip

    def build(version: int) -> Append:
        return Append(stream=stream, expected_version=Version(version), command_id=row.command_id, inbox=row)

    outcome = await commit_control(cell, build)
    if isinstance(outcome, SupersededError):
        shard.superseded()
    return isinstance(outcome, Committed | Duplicate)


def with_sends(group: Append, sends: Sequence[OutboxEntry], fork: Forked | None) -> Append:
    """`group` with `sends` and their records behind its events."""
    return msgspec.structs.replace(group, events=[*group.events, *records_of(sends, fork)], outbox=[*group.outbox, *sends])
