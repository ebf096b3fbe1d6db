"""What becomes of an actor that cannot go on, and of commands for which there is no room."""

from typing import TYPE_CHECKING

from actors.errors import Overloaded, Unavailable
from events.errors import CuebookError
from events.limits import MAILBOX_MAX
from runtime.exchange import Reply
from runtime.items import Item

if TYPE_CHECKING:
    from runtime.cell import Cell


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


def recovery_failed(cell: "Cell", error: CuebookError) -> None:
    """Whoever asked is told; what stands in the inbox is tried again, because nobody would send it again."""
    refusal = Unavailable(f"{cell.stream} cannot be recovered: {error.message}", reason=error.code, **error.fields)
    cell.paused = True
    for item in [item for item in cell.mailbox if item.stored is None]:
        cell.mailbox.remove(item)
        cell.finish(item, Reply(error=refusal))
