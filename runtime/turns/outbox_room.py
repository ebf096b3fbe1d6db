"""Bounds of the outbox: 10,000 rows per pair, 100,000 per shard (S25).

While less than one pair's share is outstanding in the whole shard nothing is looked at. Beyond it, a command whose method has sent before
is refused with 429 before it runs, if the outbox of its actor is full; one that sends for the first time is unwound at its first send, when
nothing of it has happened yet. A turn that has a journal is let through: what it did cannot be taken back. What stands in the inbox has
nobody to refuse, so it waits until the receivers have caught up.
"""

from collections import Counter
from typing import TYPE_CHECKING

from actors.errors import Overloaded
from actors.turn import Turn
from events.ids import StreamId
from events.limits import FULL_RETRY_S, OUTBOX_PER_PAIR_MAX, OUTBOX_PER_SHARD_MAX
from runtime.exchange import Reply
from runtime.items import Item, NoRoomError

if TYPE_CHECKING:
    from runtime.cell import Cell
    from runtime.shard import Shard


def tight(shard: "Shard") -> bool:
    """Whether any bound can be near."""
    return len(shard.outbox) >= OUTBOX_PER_PAIR_MAX


def has_room(cell: "Cell", item: Item) -> bool:
    """Whether `item` may run; if not it is refused, or put back to wait."""
    if item.method.query or (cell.kind.name, item.method.name) not in cell.shard.senders:
        return True
    outbox = cell.shard.outbox
    pairs = Counter(receiver for sender, receiver, _, _ in outbox if sender == cell.stream)
    if len(outbox) < OUTBOX_PER_SHARD_MAX and all(count < OUTBOX_PER_PAIR_MAX for count in pairs.values()):
        return True
    refuse_full(cell, item)
    return False


def check_send(cell: "Cell", turn: Turn, receiver: StreamId) -> None:
    """Raises: NoRoomError: the turn is to be unwound; nothing of it has happened."""
    shard = cell.shard
    if turn.journaled or not tight(shard) or shard.exchange.shard_of(receiver) == shard.number:
        return
    mine = sum(send.receiver == receiver for send in turn.sends)
    if shard.store.outbox_room(cell.stream, receiver) <= mine:
        shard.senders.add((cell.kind.name, turn.method.name))
        raise NoRoomError


def refuse_full(cell: "Cell", item: Item) -> None:
    """429 for who asks; what is stored waits for room."""
    if item.stored is None:
        cell.finish(
            item, Reply(error=Overloaded(f"the outbox of {cell.stream} is full: its receivers do not keep up", retry_after_ms=1_000))
        )
    else:
        cell.mailbox.appendleft(item)
        cell.paused = FULL_RETRY_S
