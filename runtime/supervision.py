"""What becomes of an actor that cannot go on: restarted from its log, so often in so long, then stopped (design.md 6).

Whatever goes wrong in one actor, its fold, its code or our own engine around it, ends here and nowhere else: it costs that actor its state
in memory, and a limited number of restarts. A stopped actor answers 503 `stopped` with the reason; its tells wait in the inbox. It is
started again by other code, or by a person (``_restart``). What is wrong with the whole shard, a lost disk or a full one, is no fault of
the actor and stops nobody.
"""

import asyncio
from typing import TYPE_CHECKING

import structlog

from actors.errors import Overloaded, Stopped, Unavailable
from actors.journal import ACTOR_RESTARTED, ACTOR_STOPPED, end_event
from actors.turn import Turn
from events.codec import encode
from events.errors import AppendError, CuebookError, LogFullError, TransientError, UnreadablePayloadError
from events.ids import StreamId, Version
from events.keeping.quarantine import QuarantinedError
from events.letters import StoppedActor, Supervision
from events.limits import MAILBOX_MAX, QUARANTINE_LOOK_S, RESTART_FIRST_S, RESTART_WINDOW_S, RESTARTS_MAX
from events.store import Append, Committed, Outcome
from runtime.exchange import Reply
from runtime.items import Item, LostError, StaleError
from runtime.saying import said
from runtime.turns.commits import commit_held
from runtime.turns.endings import fail

if TYPE_CHECKING:
    from runtime.cell import Cell
    from runtime.shard import Shard

log = structlog.get_logger("cuebook.supervision")
RESTART = "_restart"


def make_room(cell: "Cell", item: Item) -> None:
    """The mailbox is full: somebody who holds more than the sender of `item` gives up its newest ask, else `item` is refused.

    Raises:
        Overloaded: its sender has its share already.
    """
    full = Overloaded(f"{cell.stream} has {MAILBOX_MAX:,} commands waiting", retry_after_ms=100)
    displaced = cell.mailbox.displaced_by(item)
    if displaced is None:
        raise full
    cell.finish(displaced, Reply(error=full))


async def recovery_failed(cell: "Cell", error: Exception) -> None:
    """The state cannot be folded. Whoever asked is told; what stands in the inbox is tried again, because nobody would send it again."""
    known = isinstance(error, CuebookError)
    code, message = (error.code, error.message) if isinstance(error, CuebookError) else ("apply_failed", f"{type(error).__name__}: {error}")
    fields = {name: value for name, value in error.fields.items() if name != "reason"} if isinstance(error, CuebookError) else {}
    log.warning("recovery_failed", stream=cell.stream, **said(cell.kind.sealed, message, None if known else error, code))
    refusal = Unavailable(f"{cell.stream} cannot be recovered: {message}", reason=code, **fields)
    for control in [control for control in cell.controls if not control.submitted]:
        control.fail(cell, error if isinstance(error, CuebookError) else refusal)
    for item in [item for item in cell.mailbox if item.stored is None]:
        cell.mailbox.remove(item)
        cell.finish(item, Reply(error=refusal))
    if isinstance(error, QuarantinedError):
        cell.paused = QUARANTINE_LOOK_S  # a person mends it; until then nothing is written to a stream that is damaged
    elif isinstance(error, TransientError | LogFullError | AppendError | UnreadablePayloadError):
        cell.paused = RESTART_FIRST_S  # of the shard or of the keys, not of this actor
    else:
        await _failed(cell, code, message)


async def engine_failed(cell: "Cell", item: Item, turn: Turn, error: Exception, began: float) -> None:
    """The engine itself failed at this command, not its handler: a state that cannot be encoded, for example. The command fails as if its
    handler had raised, and the actor is restarted."""
    log.error("engine_failed", stream=cell.stream, method=item.method.name, **said(cell.kind.sealed, str(error), error))
    cell.state = None
    item.closing = False
    await fail(cell, item, turn, error, began)
    if item.command.source is None:  # else its attempts are counted, and end in a dead letter
        await _failed(cell, "engine_failed", f"{type(error).__name__}: {error}")


async def _failed(cell: "Cell", code: str, message: str) -> None:
    """Restart it, a little later each time; or stop it, if it failed too often."""
    now = cell.shard.clock.monotonic()
    cell.failures = [at for at in cell.failures or () if now - at < RESTART_WINDOW_S] + [now]
    if len(cell.failures) >= RESTARTS_MAX:
        await _stop(cell, code, message)
    else:
        cell.paused = RESTART_FIRST_S * 2 ** (len(cell.failures) - 1)


async def _stop(cell: "Cell", code: str, message: str) -> None:
    shard = cell.shard
    stopped = StoppedActor(
        stream=cell.stream, reason=code, message=message[:2_000], failures=len(cell.failures or ()), stopped_at_us=shard.clock.wall_us(),
        code_version=shard.code_version,
    )  # fmt: skip
    shard.stopped[cell.stream] = stopped
    shard.backlog.forget(cell.stream)
    cell.failures, cell.state, cell.paused = None, None, 0.0
    log.error("actor_stopped", stream=cell.stream, reason=code, **said(cell.kind.sealed, message))
    refusal = stopped_error(stopped)
    for item in cell.mailbox.take_all():
        if item.stored is None:
            cell.finish(item, Reply(error=refusal))
        else:
            cell.drop(item)  # it stands in the inbox until the actor is restarted
            item.answer(Reply(error=refusal))
    fields = {"reason": code, "message": stopped.message, "failures": stopped.failures, "code_version": stopped.code_version}
    await _record(shard, cell.stream, ACTOR_STOPPED, fields, Supervision(stopped=stopped))


def stopped_error(stopped: StoppedActor) -> Stopped:
    """What an ask to a stopped actor is told."""
    return Stopped(
        f"{stopped.stream} is stopped after {stopped.failures} failures: {stopped.message}. Mend the code and start it, or run: "
        f"cuebook restart {stopped.stream}",
        reason=stopped.reason,
        stopped_at_us=stopped.stopped_at_us,
    )


async def restart(shard: "Shard", stream: StreamId, why: str) -> Reply:
    """``_restart``: the actor is started again at its next command, and its tells are taken up. No harm if it is not stopped."""
    if shard.stopped.pop(stream, None) is None:
        return Reply(encode({"restarted": False}))
    await record_restart(shard, stream, why)
    try:
        left = [entry for entry in await shard.store.unfinished() if entry.stream == stream]
    except CuebookError as error:
        return Reply(error=Unavailable(f"{stream}: {error.message}", retry_after_ms=500))
    for entry in shard.waits.load((), left):
        shard.deliver(entry)
    return Reply(encode({"restarted": True}))


async def record_restart(shard: "Shard", stream: StreamId, why: str) -> None:
    """Its stream says that it is started again, and no next owner takes it for stopped."""
    await _record(shard, stream, ACTOR_RESTARTED, {"reason": why}, Supervision(restarted=True))


async def _record(shard: "Shard", stream: StreamId, event: str, fields: dict[str, object], supervision: Supervision) -> None:
    """Write down that the actor was stopped or restarted, if its stream can be written at all; else only this process knows."""
    outcome: Outcome | None = None
    try:
        for _ in range(RESTARTS_MAX):
            head = await shard.store.head(stream)
            group = Append(
                stream=stream, expected_version=Version(0) if head is None else head.version, command_id=None,
                events=[end_event(event, fields)], code_version=shard.code_version, supervision=supervision,
            )  # fmt: skip
            outcome = await commit_held(shard.commit, group)
            if isinstance(outcome, Committed):
                shard.committed(outcome)
                return
            await asyncio.sleep(0)
        log.warning("not_recorded", stream=stream, event_type=event, outcome=repr(outcome))
    except LostError:
        shard.superseded()
    except (CuebookError, StaleError) as error:
        log.warning("not_recorded", stream=stream, event_type=event, error=repr(error))
