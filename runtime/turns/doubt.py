"""What may have been done already: by an append whose outcome is unknown, or by another owner that saw a copy (S5, S18).

A command whose id its caller chose has an inbox row, and the append itself finds it. One whose id we made up has none, because nobody can
repeat it (S24); where it may have been done all the same, which is rare, it is looked up among the events of its stream.
"""

from typing import TYPE_CHECKING, Final

from actors.errors import ActorError, OutcomeUnknown
from events.errors import CuebookError
from runtime.exchange import Reply
from runtime.items import Item

if TYPE_CHECKING:
    from runtime.cell import Cell

_COPIES_US: Final = 120_000_000
"""Copies of one command reach two owners at most so long apart: a drain, while which the next owner buffers, and some more."""


async def was_done(cell: "Cell", item: Item) -> bool:
    """Look a doubtful `item` up before it is decided; True if it needs no deciding any more, and is answered.

    It is answered with the reply of our own append, or with what an inbox row remembers. The reply to a copy that another owner did is not
    known here: that owner has given it.
    """
    item.doubtful = False
    command = item.command
    try:
        done = await _did(cell, item)
        entry = await cell.shard.store.inbox(cell.stream, command.command_id) if done and not item.unknown else None
    except CuebookError as error:
        cell.finish(item, Reply(error=OutcomeUnknown(f"{error.message}; it cannot be told whether it was done", retry_after_ms=500)))
        return True
    if not done or (entry is not None and entry.code is None and entry.reply is None):
        return False
    if item.unknown:
        reply = _own_reply(cell, item)
    elif entry is not None:
        reply = cell.remembered(item, entry)
    else:
        if not command.explicit:
            item.replies.clear()  # the owner that did it replies to the same subject
        reply = Reply(error=OutcomeUnknown("another owner has done it, and gave the reply"))
    cell.finish(item, reply)
    return True


async def fail_unless_done(cell: "Cell", item: Item, failure: ActorError) -> None:
    """End `item` with `failure`; but an earlier attempt, here or at a former owner, may have been done: then that is the answer."""
    reply = Reply(error=failure)
    explicit = item.command.explicit
    again = "; ask again with the same id" if explicit else ""
    try:
        if not explicit:
            if await _did(cell, item):
                reply = _own_reply(cell, item)
        else:
            entry = await cell.shard.store.inbox(cell.stream, item.command.command_id)
            if entry is not None and (entry.code is not None or entry.reply is not None):
                reply = cell.remembered(item, entry)
            elif item.unknown or entry is not None:
                reply = Reply(error=OutcomeUnknown(f"{failure.message}{again}", retry_after_ms=500))
    except CuebookError as error:
        reply = Reply(error=OutcomeUnknown(f"{error.message}{again}", retry_after_ms=500))
    cell.finish(item, reply)


async def _did(cell: "Cell", item: Item) -> bool:
    command = item.command
    if item.unknown and not command.explicit:
        return await cell.shard.store.did(cell.stream, command.command_id, after=item.base)
    return await cell.shard.store.did(cell.stream, command.command_id, since=max(0, command.copied_since_us - _COPIES_US))


def _own_reply(cell: "Cell", item: Item) -> Reply:
    """Our last append of `item` was written after all: what it decided stands."""
    item.timers = item.timers_gone = ()
    cell.shard.reconcile()  # what it sends and schedules was not taken up
    return cell.stand(item.reply)
