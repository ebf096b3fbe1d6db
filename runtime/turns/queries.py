"""Queries of one actor: what it answers, and on which state (S17)."""

from typing import TYPE_CHECKING, Any

import structlog

from actors.errors import ActorError, HandlerFailed
from actors.patience import NotYet
from runtime.exchange import Reply
from runtime.items import Item
from runtime.saying import said
from runtime.turns.driver import TurnDriver

if TYPE_CHECKING:
    from runtime.cell import Cell

log = structlog.get_logger("cuebook.cell")


def query_reply(cell: "Cell", item: Item, state: Any) -> Reply | None:
    """The answer on `state`; None if there is none yet, and it waits. Never raises: a query that fails fails alone."""
    turn = cell.new_turn(item, state, TurnDriver(cell, item))
    try:
        return cell.stand(turn.answer(item.arguments))
    except NotYet as later:
        cell.shard.waits.watches.add(item, later.ready)
        return None
    except ActorError as error:
        return Reply(error=error)
    except Exception as error:  # noqa: BLE001  a query may raise anything; it becomes its answer
        log.warning("query_failed", stream=cell.stream, method=item.method.name, **said(cell.kind.sealed, str(error), error))
        return Reply(error=HandlerFailed(f"{cell.kind.name}.{item.method.name} raised {type(error).__name__}: {error}"))


def answer_beside(cell: "Cell", item: Item) -> bool:
    """Answer while a turn with a journal holds the mailbox: on the committed state. False where nobody has that at this moment, because
    the turn is being undone: then the query takes its place in the mailbox."""
    committed = None if cell.driver is None else cell.driver.committed_state
    state = cell.state if committed is None else committed
    if state is None:
        return False
    answer_with(item, query_reply(cell, item, state))
    return True


def answer_with(item: Item, reply: Reply | None) -> None:
    """Nothing is said where there is no answer yet."""
    if reply is not None:
        item.answer(reply)
