"""What a short turn comes to when its append group has an outcome: each is told apart (S18). Called in commit order, on the loop."""

from typing import TYPE_CHECKING

from actors.errors import ActorError, HandlerFailed, LogFull, Unavailable
from events.errors import CuebookError, LogFullError, SupersededError, TransientError
from events.limits import FULL_RETRY_S
from events.store import Committed, Conflict, Duplicate, Outcome
from runtime.exchange import Reply
from runtime.items import Item
from runtime.turns.doubt import fail_unless_done
from runtime.turns.records import conflict_error
from runtime.turns.unappendable import fail_for_good

if TYPE_CHECKING:
    from runtime.cell import Cell


def short_outcome(cell: "Cell", item: Item, outcome: Outcome | CuebookError) -> None:
    """The oldest pending group of `cell`, that of `item`, has ended."""
    cell.pending.popleft()
    if isinstance(outcome, Committed):
        _committed(cell, item, outcome)
        return
    cell.state = None
    for later in cell.pending:
        later.misled = True
    if isinstance(outcome, Duplicate):
        cell.finish(item, cell.remembered(item, outcome.entry))
    elif isinstance(outcome, Conflict):
        if item.misled:
            # Decided upon what did not come about: that is no attempt of its own (S18). What it stood upon has ended, or counts its own.
            cell.requeued.append(item)
        else:
            _again_or_fail(cell, item, conflict_error(cell.stream, outcome))
    elif isinstance(outcome, SupersededError):
        cell.shard.superseded()
        cell.shard.forward(item)
    elif isinstance(outcome, LogFullError):
        _fail_or_wait(cell, item, LogFull("the disk is full: the log is read-only until space returns", retry_after_ms=1_000))
    elif isinstance(outcome, TransientError):
        _fail_or_wait(cell, item, Unavailable(f"{cell.stream}: {outcome.message}", retry_after_ms=500))
    else:
        # Unknown: the store looks the command id up when the group comes again, and answers Duplicate if it was done.
        again = not item.unknown
        item.unknown = True
        item.doubtful = not item.command.explicit and item.stored is None
        if again:
            item.attempts = 0
        _again_or_fail(cell, item, HandlerFailed(f"{cell.stream}: {outcome.message}"))
    for waiting, _ in item.after:
        if cell.shard.lost:
            cell.shard.forward(waiting)
        else:
            cell.requeued.append(waiting)
    item.after.clear()
    cell.settle_if_done()


def _committed(cell: "Cell", item: Item, outcome: Committed) -> None:
    cell.committed, cell.position, cell.time = version, position, time = outcome.version, outcome.position, outcome.time
    cell.finish(item, Reply(item.reply, item.error, version, position, time))
    if item.after:
        for waiting, reply in item.after:
            cell.finish(waiting, cell.stand(reply.body, reply.error))
        item.after.clear()
    cell.shard.committed(outcome)
    cell.shard.waits.moved(cell.stream)
    if not cell.pending:
        cell.settle_if_done()


def _again_or_fail(cell: "Cell", item: Item, failure: ActorError) -> None:
    if item.attempts == 0:
        item.attempts = 1
        cell.requeued.append(item)
    else:
        _fail_or_wait(cell, item, failure)


def _fail_or_wait(cell: "Cell", item: Item, failure: ActorError) -> None:
    """Tell the caller; what stands in the inbox has none, and is tried again. "Not done" is never told of what may have been done."""
    if item.stored is not None:
        cell.paused = FULL_RETRY_S
        cell.requeued.append(item)
    elif item.command.explicit and not item.unknown and isinstance(failure, HandlerFailed):
        cell.shard.spawn(fail_for_good(cell, item, failure), name=f"fail {cell.stream}")
    elif item.command.explicit or item.unknown:
        cell.shard.spawn(fail_unless_done(cell, item, failure), name=f"look up {cell.stream}")
    else:
        cell.finish(item, Reply(error=failure))
