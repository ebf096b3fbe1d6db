"""How a turn ends that did not succeed: refused, failed, parked, cancelled. What its journal left open is closed in the log."""

from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from actors.errors import ActorError, Cancelled, Denied, HandlerFailed, NondeterminismError, error_body
from actors.journal import TURN_CANCELLED, TURN_FAILED, TURN_PARKED, TURN_REFUSED, end_event, fired_events
from actors.turn import Turn
from events.codec import canonical
from events.envelope import NewEvent
from events.errors import CuebookError
from events.store import Committed, Duplicate, InboxStatus
from runtime.exchange import Reply
from runtime.items import Item, KnownError
from runtime.saying import said
from runtime.turns.below import cancels_below, with_sends
from runtime.turns.closing import closing_group
from runtime.turns.doubt import fail_unless_done
from runtime.turns.records import append_of, conflict_error
from runtime.turns.reopening import journal_of, stored_status
from runtime.turns.retries import attempt_failed
from runtime.turns.spoken import send_end

if TYPE_CHECKING:
    from runtime.cell import Cell

log = structlog.get_logger("cuebook.cell")
_READ_AGAIN_S: Final = 0.2


async def refuse(cell: "Cell", item: Item, turn: Turn, refusal: ActorError, began: float) -> None:
    """The handler refused (S24)."""
    if item.command.source is not None and (refusal.retryable or isinstance(refusal, HandlerFailed)):
        # Nobody waits for a stored command, so nobody would try it again but we.
        cell.state = None if turn.emitted else cell.state
        await attempt_failed(cell, item, turn, type(refusal).__name__, refusal.message)
        return
    if turn.journaled:
        refusal.final = True
        item.reply = canonical(error_body(refusal))
        await end_journaled(cell, item, turn, InboxStatus.REFUSED, TURN_REFUSED, error_body(refusal), began, error=refusal)
        return
    if turn.emitted:
        cell.state = None
    if item.stored is not None or isinstance(refusal, Denied):
        # A tell has nobody to hear the refusal: it becomes a control event, and its inbox row is finished (S11). Others ask for one.
        body = error_body(refusal)
        event = end_event(TURN_REFUSED, body, error=refusal.message[:500])
        await end_stored(cell, item, event, InboxStatus.REFUSED, refusal)
    elif item.command.explicit:
        remember(cell, item, InboxStatus.REFUSED, refusal)
    else:
        cell.after_what_it_saw(item, cell.stand(error=refusal))


def remember(cell: "Cell", item: Item, status: InboxStatus, error: ActorError) -> None:
    """Append how a command ended that leaves no event, and answer with its commit (S24).

    Whoever chose the id may repeat it, and an earlier attempt may still be on its way, in the socket of a paused owner say: if a refusal
    left no row, that attempt could be executed after its caller was told that it was not. The append itself also finds what an earlier
    attempt did, so that nobody is refused for what he did himself.
    """
    error.final = True
    item.reply, item.error = canonical(error_body(error)), error
    cell.submit(item, cell.group(item, [], cell.entry(item, status, item.reply, error.number)))


async def fail(cell: "Cell", item: Item, turn: Turn, error: Exception, began: float) -> None:
    """The handler raised: nothing it emitted is kept, and the failure itself is recorded, so that 500 can name it."""
    name = f"{cell.kind.name}.{item.method.name}"
    text = f"{name} raised {type(error).__name__}: {error}"[:2_000]
    log.warning("turn_failed", stream=cell.stream, method=item.method.name, **said(cell.kind.sealed, text, error))
    fields = {"method": item.method.name, "type": type(error).__name__, "message": str(error)[:2_000]}
    if turn.emitted:
        cell.state = None
    if item.command.source is not None:
        await attempt_failed(cell, item, turn, type(error).__name__, str(error))
        return
    if turn.journaled:
        failure = HandlerFailed(text)
        item.reply = canonical(error_body(failure))
        await end_journaled(cell, item, turn, InboxStatus.FAILED, TURN_FAILED, fields, began, error=failure)
        return
    await end_stored(cell, item, end_event(TURN_FAILED, fields, error=text[:500]), InboxStatus.FAILED, HandlerFailed(text))


async def end_journaled(
    cell: "Cell",
    item: Item,
    turn: Turn,
    status: InboxStatus,
    event: str,
    fields: dict[str, Any],
    began: float,
    *,
    error: ActorError | None = None,
) -> None:
    """Close a turn that has a journal: what it emitted and sends, its end, and its reply commit as one group."""
    item.closing = True
    duration_us = int((cell.shard.clock.monotonic() - began) * 1_000_000)
    emitted = turn.emitted if status is InboxStatus.DONE else []
    if emitted is not turn.emitted or error is not None:
        turn.drop_effects()
    turn.give_back()
    text = error.message[:500] if error is not None else None
    events = [*emitted, end_event(event, fields, duration_us=duration_us, error=text)]
    group = closing_group(cell, item, turn, events, status, item.reply, code=error.number if error else None)
    outcome = await cell.commit_held(group)
    if isinstance(outcome, Committed):
        cell.recorded(outcome)
        send_end(cell.shard, item.command)
        if turn.emitted and status is not InboxStatus.DONE:
            cell.state = None
        cell.finish(item, cell.stand(item.reply, error))
        return
    # The log moved under a turn that holds its actor: run it again from its journal.
    cell.state = None
    item.stored = InboxStatus.RUNNING
    cell.mailbox.appendleft(item)


async def end_stored(
    cell: "Cell", item: Item, event: NewEvent, status: InboxStatus, error: ActorError, *, below: bool = False
) -> None:  # fmt: skip
    """Record how a turn without a journal failed; where somebody may repeat its id, or its inbox row is open, in that row too (S24).

    below: cancel what its journal, if it has one after all, shows to be under way at others.
    """
    await cell.settle()
    if cell.state is None and not await cell.recover():
        cell.mailbox.appendleft(item)
        return
    try:
        opened = await journal_of(cell, item.command.command_id) if below else None
    except CuebookError as unreadable:
        log.warning("turn_not_read", stream=cell.stream, command_id=item.command.command_id, error=unreadable.message)
        cell.paused = _READ_AGAIN_S
        cell.mailbox.appendleft(item)
        return
    if opened is not None and opened.open_wait is not None:
        _end_wait(cell, item, opened.open_wait, error)
        return
    remembered = item.command.explicit or item.stored is not None
    inbox = cell.entry(item, status, canonical(error_body(error)), error.number) if remembered else None
    events = [*fired_events(item.command.source), event]
    group = append_of(cell.shard.code_version, cell.stream, cell.version, item, events, inbox)
    sends = cancels_below(opened, item.command, cell.fork, cell.kind.beside)
    outcome = await cell.commit_held(cell.of_fork(with_sends(group, sends, cell.fork) if sends else group))
    if isinstance(outcome, Committed):
        cell.recorded(outcome)
        send_end(cell.shard, item.command)
        if isinstance(error, HandlerFailed):
            error.fields["event_id"] = outcome.events[0].event_id
    elif isinstance(outcome, Duplicate):
        raise KnownError(outcome.entry)
    else:
        cell.state = None  # the log moved on: fold it again
        if item.stored is not None or not item.attempts:
            item.attempts = 1
            cell.mailbox.appendleft(item)
            return
        error = conflict_error(cell.stream, outcome)
    cell.finish(item, cell.stand(error=error))


async def end_expired(cell: "Cell", item: Item) -> None:
    """S10: it never begins. The row of a tell is finished; of a repeated id an earlier attempt may have been in time."""
    error = cell.shard.deadline_passed()
    if item.stored is not None:
        event = end_event(TURN_REFUSED, error_body(error), error=error.message)
        await end_stored(cell, item, event, InboxStatus.REFUSED, error)
    elif item.command.explicit and not item.method.query:
        cell.shard.spawn(fail_unless_done(cell, item, error), name=f"look up {cell.stream}")
    else:
        cell.finish(item, Reply(error=error))


async def end_cancelled(cell: "Cell", item: Item, *, journaled: bool = False) -> None:
    """S22: nothing it emitted is kept. What its journal or its inbox row left open is closed in the log, what it has asked of others is
    cancelled there too; else there is no trace, but for the row that remembers it where its id may be repeated."""
    error = Cancelled(f"{item.command.command_id} was cancelled", command_id=item.command.command_id)
    if not journaled and cell.driver is not None and cell.driver.opening:
        # A concurrent step of it was cut short while the beginning was on its way into the log.
        await cell.settle()
        journaled = await stored_status(cell, item) is InboxStatus.RUNNING
    if journaled:
        item.stored = InboxStatus.RUNNING
    if item.stored is None:
        cell.state = None if cell.turn is not None and cell.turn.emitted else cell.state
        if item.command.explicit:
            remember(cell, item, InboxStatus.FAILED, error)
        else:
            cell.finish(item, Reply(error=error))
        return
    # An entry of its journal may still be on its way into the log, or wait for room on the disk: count versions after it.
    await cell.settle()
    cell.state = None
    event = end_event(TURN_CANCELLED, {"command_id": item.command.command_id})
    await end_stored(cell, item, event, InboxStatus.FAILED, error, below=True)


def _end_wait(cell: "Cell", item: Item, wait_id: str, error: ActorError) -> None:
    """An append of unknown outcome opened a wait for `item`, which was cancelled meanwhile (S18): it ends as any wait does, with its row,
    its timer, and what remembers its end. Who listens is told `error` then, and not that the turn waits."""
    replies = list(item.replies)
    item.replies.clear()
    if not cell.shard.waits.rejoin(cell, item, wait_id):
        item.replies.extend(replies)
        cell.mailbox.appendleft(item)
        return

    def tell(ended: Reply) -> None:
        cancelled = ended.error is None and msgspec.json.decode(ended.body)["status"] == "cancelled"
        for reply in replies:
            if cancelled:
                reply(Reply(error=error))
            else:  # somebody ended the wait first: what the command came to stands in the log
                cell.shard.exchange.forward(item.command, reply)

    cell.shard.waits.cancel(cell.stream, item.command.command_id, tell)


async def park(cell: "Cell", item: Item, turn: Turn, error: NondeterminismError, began: float) -> None:
    """S19: the code no longer follows the journal. Stop here, say so, free the mailbox."""
    failure = HandlerFailed(f"{cell.kind.name}.{item.method.name} cannot be run again: {error.message}", **error.fields)
    item.reply = canonical(error_body(failure))
    cell.state = None if turn.emitted else cell.state
    fields = {"method": item.method.name, "message": error.message, **error.fields}
    await end_journaled(cell, item, turn, InboxStatus.FAILED, TURN_PARKED, fields, began, error=failure)
