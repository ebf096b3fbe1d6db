"""Turns that cannot suspend (S14): run to their end on the spot, with no loop, no task and no journal."""

from typing import Any

from actors.turn import Turn
from events.errors import InvariantError


def decide_now(turn: Turn, arguments: dict[str, Any]) -> bytes:
    """`Turn.decide` for a method that is `short`. Raises as that does."""
    method = turn.method
    result = method.function(turn.kind.cls(turn), **arguments)
    if method.asynchronous:
        try:
            result.send(None)
        except StopIteration as ended:
            result = ended.value
        else:
            result.close()
            raise InvariantError(f"{method.name} was taken for a method that awaits nothing")
    return turn.encode_reply(result)
