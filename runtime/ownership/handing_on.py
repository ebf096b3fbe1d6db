"""What an actor still has to do goes to the next owner of its shard: nothing is decided here any more (S5, S18)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.cell import Cell


def hand_on(cell: "Cell") -> None:
    """Forward everything that waits. What stands in the inbox is found there by the next owner."""
    waiting, cell.requeued = [*cell.mailbox.take_all(), *cell.requeued], []
    for item in waiting:
        cell.shard.forward(item)


def hand_on_turn(cell: "Cell") -> None:
    """End a turn that only waits for other actors: it goes on at the next owner, where it asks again under the same ids, and so does all
    that waits behind it. Callers get their reply from there."""
    item, task = cell.item, cell.task
    if item is None or task is None:
        return
    cell.handed_on = True
    task.cancel()
    if item.replies:
        item.stored = None
    cell.shard.forward(item)
    hand_on(cell)
