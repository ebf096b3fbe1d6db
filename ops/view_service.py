"""``cue.view.<projection>.<operation>`` as bytes in and bytes out, with the errors of the wire. Knows no transport."""

from collections.abc import Mapping
from typing import Any

from actors.errors import ActorError, BadPayload, HandlerFailed, TooLarge, Unavailable, Unknown
from events.codec import encode
from events.limits import REPLY_BYTES_MAX
from projections.errors import (
    BadArgumentsError,
    NotReadyError,
    OperationFailedError,
    PoisonError,
    ProjectionError,
    UnknownOperationError,
)
from projections.runner import OPERATION_S, Runner
from projections.view import Positions


async def answer(runner: Runner[Any], operation: str, body: bytes, timeout_s: float = OPERATION_S) -> tuple[bytes, Positions]:
    """The JSON reply to one request, and the checkpoint of what it saw. Changes nothing; safe to repeat.

    Raises:
        Unknown: no such operation. BadPayload: names the field. Unavailable: nothing can answer yet. HandlerFailed: the operation raised,
        or returned what is no JSON. TooLarge: the answer has more than 1 MiB.
    """
    try:
        result, positions = await runner.query(operation, body, timeout_s)
    except ProjectionError as error:
        raise on_the_wire(error) from error
    try:
        reply = encode(result)
    except (TypeError, ValueError, OverflowError) as error:
        raise HandlerFailed(f"{runner.name}.{operation} returned what is no JSON: {error}") from error
    if len(reply) > REPLY_BYTES_MAX:
        raise TooLarge(f"the answer of {runner.name}.{operation} has {len(reply):,} bytes, allowed are {REPLY_BYTES_MAX:,}")
    return reply, positions


def on_the_wire(error: ProjectionError) -> ActorError:
    """An error of a projection as what a caller is told (design.md 3)."""
    match error:
        case UnknownOperationError():
            return Unknown(error.message, **error.fields)
        case BadArgumentsError():
            return BadPayload(error.message, **error.fields)
        case NotReadyError():
            return Unavailable(error.message, **error.fields)
        case OperationFailedError() | PoisonError():
            return HandlerFailed(error.message, **error.fields)
        case _:
            return Unavailable(error.message, retry_after_ms=1_000)


def in_process(runners: Mapping[str, Runner[Any]]) -> Any:
    """What `runtime.exchange_memory.MemoryExchange.on_view` wants: views without a server."""

    async def ask(projection: str, operation: str, body: bytes, timeout_s: float) -> bytes:
        if projection not in runners:
            raise Unknown(f"there is no projection {projection!r} here (there are: {', '.join(sorted(runners)) or 'none'})")
        return (await answer(runners[projection], operation, body, timeout_s))[0]

    return ask
