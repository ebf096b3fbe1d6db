"""A command that is ended beside the mailbox: how it ended is remembered under its id (S24). One whose turn the log has refused twice, for
no fault of a turn before it (S18), or an ask that would close a cycle (S23).
"""

from typing import TYPE_CHECKING

from actors.errors import ActorError, HandlerFailed, OutcomeUnknown, error_body
from events.codec import canonical
from events.store import Append, Committed, Duplicate, InboxStatus
from runtime.exchange import Reply
from runtime.items import Item
from runtime.turns.control import commit_control

if TYPE_CHECKING:
    from runtime.cell import Cell


async def fail_for_good(cell: "Cell", item: Item, failure: ActorError) -> None:
    """End `item`, whose id its caller chose. A failure or a refusal is said of the id and not of one attempt: none of those that may still
    be on their way may be done after it was told. The append also finds what an earlier attempt did; then that is the answer."""
    status = InboxStatus.FAILED if isinstance(failure, HandlerFailed) else InboxStatus.REFUSED

    def build(_version: int) -> Append:
        return cell.group(item, [], cell.entry(item, status, canonical(error_body(failure)), failure.number))

    outcome = await commit_control(cell, build)
    if isinstance(outcome, Committed):
        reply = cell.stand(error=failure)
    elif isinstance(outcome, Duplicate) and (outcome.entry.code is not None or outcome.entry.reply is not None):
        reply = cell.remembered(item, outcome.entry)
    else:
        reply = Reply(error=OutcomeUnknown(f"{failure.message}; ask again with the same id", retry_after_ms=500))
    cell.finish(item, reply)
