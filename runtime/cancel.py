"""``_cancel {command_id}``: ahead of the mailbox, idempotent, the first of cancel and commit wins (S22)."""

from typing import TYPE_CHECKING, Any

import msgspec

from actors.errors import BadPayload, Cancelled, OutcomeUnknown, Unavailable, Unknown, Waiting
from actors.registry import field_of
from events.codec import decode_strict, encode
from events.errors import CuebookError
from events.ids import CommandId
from events.store import InboxStatus
from runtime.asks import NO_ROOM
from runtime.exchange import Reply, ReplyTo
from runtime.items import Item

if TYPE_CHECKING:
    from runtime.cell import Cell
    from runtime.shard import Shard


class CancelArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which command of the addressed actor."""

    command_id: str


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
