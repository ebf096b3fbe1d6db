"""The methods of every actor that are ours (S22): the owner of its shard handles them, ahead of the mailbox, without the actor's code."""

from typing import TYPE_CHECKING, Any

from actors.registry import ActorType
from actors.turn import Command
from runtime import stream_ends
from runtime.branches.forking import FORK, RERUN, begin_fork, begin_rerun
from runtime.exchange import ReplyTo
from runtime.supervision import RESTART
from runtime.turns.cancel import arguments_of, cancel_stored
from runtime.turns.spoken import SAID, Spoken, tell_said, wanted_of
from runtime.turns.waits import ANSWER, CANCEL

__all__ = ["Spoken", "take_own"]

if TYPE_CHECKING:
    from runtime.shard import Shard


def take_own(shard: "Shard", kind: ActorType[Any], command: Command, reply: ReplyTo | None) -> bool:
    """Handle `command` if its method is one of ours; False if an actor has to answer it. reply: None = it stands in the inbox; of our
    methods only ``_cancel`` may be sent like that.

    Raises:
        ActorError: its arguments do not fit.
    """
    method = command.method
    if reply is None:
        if method != CANCEL:
            return False
        shard.spawn(cancel_stored(shard, command, arguments_of(command.args)), name=f"cancel {command.stream}")
    elif method == CANCEL:
        shard.cancel(command.stream, arguments_of(command.args).command_id, reply)
    elif method == ANSWER:
        shard.waits.answer(command, reply)
    elif method == SAID:
        tell_said(shard, command.stream, wanted_of(command.args), reply)
    elif method in stream_ends.METHODS:
        stream_ends.close(shard, command, reply)
    elif method == RESTART:
        shard.spawn(shard.restart(command.stream, reply), name=f"restart {command.stream}")
    elif method == FORK:
        shard.spawn(begin_fork(shard, kind, command, reply), name=f"fork {command.stream}")
    elif method == RERUN:
        shard.spawn(begin_rerun(shard, kind, command, reply), name=f"rerun {command.stream}")
    else:
        return False
    return True
