"""What a fork may reach (S33): its siblings, and nothing else unless it is live. Its sends are recorded and held; its asks are refused."""

import msgspec

from actors.errors import Rejected
from actors.journal import Forked, derived_id
from actors.turn import Call
from events.ids import CommandId, StreamId
from events.store import Append


def receiver_in(fork: Forked | None, receiver: StreamId) -> StreamId | None:
    """Who gets what is sent to `receiver`; None if it is held."""
    if fork is None:
        return receiver
    sibling = fork.siblings.get(receiver)
    if sibling is not None:
        return StreamId(sibling)
    return receiver if fork.live or receiver in fork.siblings.values() else None


def group_of_fork(fork: Forked, group: Append) -> Append:
    """`group` as an actor of `fork` commits it: every event names branch and parent, and only what is not held is sent."""
    routed = ((send, receiver_in(fork, send.receiver)) for send in group.outbox)
    outbox = [
        msgspec.structs.replace(send, receiver=receiver, command_id=_outside(fork, send.receiver, receiver, send.command_id))
        for send, receiver in routed
        if receiver is not None
    ]
    return msgspec.structs.replace(group, branch=fork.branch, parent=f"{fork.parent}@{fork.version}", outbox=outbox)


def call_of_fork(fork: Forked, call: Call) -> Call:
    """`call` to whom it goes.

    Raises:
        Rejected: it would leave the fork.
    """
    receiver = receiver_in(fork, call.receiver)
    if receiver is None:
        raise Rejected(f"{call.receiver} lies outside the fork {fork.branch}, whose asks are held; a fork with --live may ask it")
    command_id = _outside(fork, call.receiver, receiver, call.command_id)
    return msgspec.structs.replace(call, receiver=receiver, command_id=command_id)


def _outside(fork: Forked, meant: StreamId, receiver: StreamId, command_id: CommandId) -> CommandId:
    """Who lies outside must not take what a fork says for a repeat of what its parent has said."""
    return CommandId(derived_id(fork.branch, command_id)) if receiver == meant and meant not in fork.siblings.values() else command_id
