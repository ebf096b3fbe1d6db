"""``_cancel {command_id}``: ahead of the mailbox, idempotent, the first of cancel and commit wins (S22)."""

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from actors.errors import BadPayload, Cancelled, OutcomeUnknown, Unavailable, Unknown, Waiting
from actors.registry import field_of
from events.codec import decode_strict, encode
from events.errors import CuebookError, SupersededError
from events.ids import CommandId, StreamId, Version
from events.store import Append, Committed, Duplicate, InboxStatus
from runtime.exchange import Reply, ReplyTo
from runtime.items import Item
from runtime.over_nats.asks import NO_ROOM
from runtime.turns.below import CancelledAsk, refuse_beforehand
from runtime.turns.control import commit_control

if TYPE_CHECKING:
    from actors.turn import Command
    from runtime.cell import Cell
    from runtime.shard import Shard

log = structlog.get_logger("cuebook.cancel")
_LOOK_AGAIN_S: Final = 1.0
"""How soon a cancel that nobody answers notices that its shard has gone."""


class CancelArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which command of the addressed actor. method, args_hash: of an ask that may not have come yet, so that it is refused if it does."""

    command_id: str
    method: str | None = None
    args_hash: str | None = None


def arguments_of(body: bytes) -> CancelArguments:
    """Raises: BadPayload: not ``{"command_id": "..."}``."""
    try:
        decode_strict(body or b"{}")
        return msgspec.json.decode(body or b"{}", type=CancelArguments)
    except (msgspec.DecodeError, CuebookError) as error:
        raise BadPayload(f"_cancel: {error}", field=field_of(error)) from error


def cancel_live(cell: "Cell", command_id: str, reply: ReplyTo) -> bool:
    """Cancel a command that waits or runs in `cell`; answers once it has ended. False if there is none.

    One whose append is queued already is done: it cannot be taken back.
    """
    item = _find(cell, command_id)
    if item is None:
        return False
    item.replies.append(lambda ended: reply(_told(ended)))
    if item in cell.pending or item.closing or item.cancelled:
        return True
    item.cancelled = True
    cell.mailbox.release(item)
    cell.shard.tries.now(item)
    cell.wake()
    if cell.turn is not None and cell.item is item and cell.task is not None and item.deciding and not item.committing:
        cell.task.cancel()
    return True


async def cancel_stored(shard: "Shard", command: "Command", given: CancelArguments) -> None:
    """A ``_cancel`` that another actor has sent. Its row is finished once the cancelled command has ended, so a crash before that repeats
    it; what the command became stands there as the reply."""
    try:
        told = await _answered(shard, command.stream, given.command_id)
        if given.method is not None and given.args_hash is not None:
            ask = CancelledAsk(given.command_id, given.method, given.args_hash)
            while told is not None and isinstance(told.error, Unknown) and await refuse_beforehand(shard, command.stream, ask):
                told = await _answered(shard, command.stream, given.command_id)
        row = await shard.store.inbox(command.stream, command.command_id) if told is not None and shard.decides else None
        if told is None or row is None:
            return  # the next owner finds it in the inbox
        body = told.body if told.error is None else encode({"status": "unknown"})
        ended = msgspec.structs.replace(row, status=InboxStatus.DONE, args=None, reply=body, completed_at_us=shard.clock.wall_us())

        def build(version: int) -> Append:
            return Append(stream=command.stream, expected_version=Version(version), command_id=command.command_id, inbox=ended)

        outcome = await commit_control(shard.cell_of(command.stream), build)
        if isinstance(outcome, SupersededError):
            shard.superseded()
        elif not isinstance(outcome, Committed | Duplicate):
            log.warning("cancel_not_noted", stream=command.stream, command=given.command_id)
            shard.reconcile()
    finally:
        shard.stored_done(command.stream)


async def _answered(shard: "Shard", stream: StreamId, command_id: str) -> Reply | None:
    """What became of the command, once it has ended; None if this shard is no longer ours to decide in."""
    while shard.decides:
        ended: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        shard.cancel(stream, command_id, partial(_once, ended))
        while not ended.done() and shard.decides:
            await asyncio.wait([ended], timeout=_LOOK_AGAIN_S)
        if not ended.done():
            return None
        told = ended.result()
        if told.error is None or not told.error.retryable or told.error.final:
            return told
        await asyncio.sleep(told.error.fields.get("retry_after_ms", 100) / 1_000)
    return None


def _once(ended: "asyncio.Future[Reply]", reply: Reply) -> None:
    if not ended.done():
        ended.set_result(reply)


async def cancelled_before(shard: "Shard", stream: Any, command_id: str) -> Reply:
    """The answer about a command that is not under way: what the log remembers of it; an error if it has not ended there."""
    entry = await shard.store.inbox(stream, CommandId(command_id))
    if entry is None and await shard.store.did(stream, CommandId(command_id)):
        # Either its turn began between the two looks, and then it has a row; or a short turn whose id we made up has left its events only.
        entry = await shard.store.inbox(stream, CommandId(command_id))
        if entry is None:
            return Reply(encode({"status": "done"}))
    if entry is None:
        return Reply(error=Unknown(f"{stream} knows no command {command_id!r}", command_id=command_id))
    if entry.status in (InboxStatus.QUEUED, InboxStatus.RUNNING):
        return Reply(error=Unavailable("the command is stored and not yet taken up: cancel it again", retry_after_ms=100))
    return Reply(encode({"status": "cancelled" if entry.code == Cancelled.number else "done"}))


def _find(cell: "Cell", command_id: str) -> Item | None:
    item = cell.under_way(command_id)
    return None if item is None or item.method.query else item


def _told(ended: Reply) -> Reply:
    """What the canceller hears of how the command ended. One that found no room, or whose outcome is unknown, has not."""
    if isinstance(ended.error, Waiting):
        return Reply(error=Unavailable("the command has just begun to wait: cancel it again", retry_after_ms=10))
    if isinstance(ended.error, (*NO_ROOM, OutcomeUnknown)):
        return Reply(error=ended.error)
    return Reply(encode({"status": "cancelled" if isinstance(ended.error, Cancelled) else "done"}))
