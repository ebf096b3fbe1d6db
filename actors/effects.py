"""Small parts of the turn engine: how an effect's input, result and failure become data, and come back from it."""

import functools
import typing
from datetime import datetime, timedelta
from typing import Any

from actors.errors import ActorError, BadPayload, NondeterminismError, StepFailed, TooLarge, WaitExpired, error_body, error_from_body
from actors.journal import PARKED_STEP, Use, Wait, derived_id
from actors.json_schema import outcome_schema
from events.codec import encode, encode_checked
from events.ids import CommandId, StreamId, is_token
from events.limits import ARGUMENTS_BYTES_MAX, EVENT_BYTES_MAX, TIMER_ID_CHARACTERS
from events.memo import memo
from events.store import TimerEntry


def duration_us(duration: float | timedelta) -> int:
    """Raises: BadPayload: not between 0 and 100 years."""
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else float(duration)
    if not 0 <= seconds <= 100 * 366 * 86_400:
        raise BadPayload(f"{duration!r} is no duration between 0 and 100 years")
    return int(seconds * 1_000_000)


def json_value(given: dict[str, Any]) -> dict[str, Any]:
    """What a step was given, for the record; what JSON cannot carry is named by its type, since it is never read back."""
    try:
        encode(given)
    except (TypeError, ValueError, OverflowError):
        return {"args": None, "not_json": type(given).__name__}
    return given


def returns_of(function: Any) -> Any:
    """The annotated result type of `function`, Any where there is none."""
    while isinstance(function, functools.partial):
        function = function.func
    # A memo would keep what a method or a function made in a call holds, and find the next one new.
    function = getattr(function, "__func__", function)
    if getattr(function, "__closure__", None):
        return _return_type.__wrapped__(function)
    try:
        return _return_type(function)
    except TypeError:  # not hashable
        return _return_type.__wrapped__(function)


@memo("types of results", 4_096)
def _return_type(function: Any) -> Any:
    try:
        found = typing.get_type_hints(function).get("return", Any)
    except (TypeError, NameError, AttributeError):
        return Any
    return None if found is type(None) else found


def arguments_of(receiver: str, method: str, arguments: dict[str, Any]) -> bytes:
    """The arguments of an ask, a send or a timer as JSON. Raises: BadPayload, EncodingError, TooLarge."""
    if not is_token(method):
        raise BadPayload(f"{method!r} is no name of a method")
    body = encode_checked(arguments, f"the arguments of {receiver}.{method}")
    if len(body) > ARGUMENTS_BYTES_MAX:
        raise TooLarge(f"the arguments of {receiver}.{method} have {len(body):,} bytes, allowed are {ARGUMENTS_BYTES_MAX:,}")
    return body


def sized(result: bytes, use: Use) -> bytes:
    """`result`, if an event can hold it. Raises: TooLarge."""
    if len(result) > EVENT_BYTES_MAX:
        raise TooLarge(f"the result of {use} has {len(result):,} bytes, allowed are {EVENT_BYTES_MAX:,}")
    return result


def failure_of(error: Exception) -> dict[str, Any]:
    if isinstance(error, ActorError):
        return {"type": type(error).__name__, "message": error.message, "reply": error_body(error)}
    return {"type": type(error).__name__, "message": str(error)}


def raised_again(failure: dict[str, Any], use: Use) -> Exception:
    """The exception that the handler sees, made from the record alone, so that it is the same on a re-run."""
    if use.kind == "wait":
        return WaitExpired(failure["message"], name=use.name, wait_id=failure["wait_id"])
    if "reply" in failure:
        return error_from_body(encode(failure["reply"]))
    why = {"reason": failure["reason"]} if "reason" in failure else {}
    return StepFailed(f"{use}: {failure['type']}: {failure['message']}", type=failure["type"], **why)


def diverged(unused: list[Use], asked: Use | None) -> NondeterminismError:
    recorded = ", ".join(map(str, unused[:5]))
    wanted = f"the code now asks for {asked}" if asked else "the code now ends without it"
    return NondeterminismError(f"the journal holds {recorded}; {wanted}", recorded=recorded, asked=str(asked) if asked else None)


def once_question(stream: StreamId, command_id: CommandId, use: Use, attempt: int, function: Any) -> Wait:
    """The wait that holds the actor while nobody knows what became of an attempt of a ``once`` step (S21)."""
    wait_id = derived_id(stream, command_id, "once", use.name, use.key, use.n, attempt)
    schema = outcome_schema(returns_of(function), use.name)
    return Wait(name=f"{PARKED_STEP}{use.name}", n=attempt, wait_id=wait_id, schema=schema, step=use)


def timer_entry(
    stream: StreamId,
    timer_id: str,
    when: float | timedelta | datetime,
    every: float | timedelta | None,
    method: str,
    body: bytes,
    now_us: int,
    correlation_id: str,
) -> TimerEntry:
    """A durable timer as its author asked for it (S26). Raises: BadPayload."""
    if not is_token(timer_id) or len(timer_id) > TIMER_ID_CHARACTERS:
        raise BadPayload(f"{timer_id!r} is no name of a timer: 1 to {TIMER_ID_CHARACTERS} letters, digits, '_' or '-'")
    every_us = None if every is None else duration_us(every)
    if every_us is not None and every_us < 1_000:
        raise BadPayload("a timer recurs at most every millisecond")
    if isinstance(when, datetime):
        if when.tzinfo is None:
            raise BadPayload("a date needs a time zone")
        due_us = int(when.timestamp() * 1_000_000)
    else:
        due_us = now_us + duration_us(when)
    return TimerEntry(
        stream=stream, timer_id=timer_id, due_us=due_us, wall=isinstance(when, datetime), every_us=every_us, method=method, args=body,
        set_at_us=now_us, correlation_id=correlation_id,
    )  # fmt: skip
