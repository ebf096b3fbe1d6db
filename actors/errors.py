"""What a caller can be told: one table of number, name and class (design.md 3), and the body that travels.

CuebookError
 +- ActorError                 travels as a reply with a number; raised again as the same class at the caller
     +- Waiting           202  +- Rejected         409  +- Cancelled       499  +- DeadlinePassed  504
     +- BadPayload        400  +- IdReused         409  +- HandlerFailed   500  +- LogFull         507
     +- Unknown           404  +- Gone             410  +- Unavailable     503  +- CallCycle       508
     +- TooLarge          413  +- Overloaded       429  +- Stopped         503  +- OutcomeUnknown  520
 +- StepFailed                 a step raised: the handler may catch it; it is recorded and repeats on a re-run
 +- WaitExpired                nobody answered a wait in time: the handler may catch it, as StepFailed
 +- NondeterminismError        a re-run does not follow its journal (S19): the turn is parked
"""

from typing import Any, ClassVar, Final

import msgspec

from events.errors import CuebookError

NOT_DONE: Final = "not_done"
UNKNOWN: Final = "unknown"
DONE: Final = "done"


class ActorError(CuebookError):
    """A command was not answered with a result. `number` is what the wire carries; `outcome` says whether it may have been done."""

    number: ClassVar[int] = 500
    error: ClassVar[str] = "failed"
    retryable: ClassVar[bool] = False
    outcome: ClassVar[str] = NOT_DONE
    final = False
    """The log remembers it under the command's id: asking again with that id gets it again, whatever the class says (S24)."""


class Waiting(ActorError):
    """The turn waits for a person or another actor; the same id attaches later."""

    number, error, retryable, outcome = 202, "waiting", True, UNKNOWN


class BadPayload(ActorError):
    """The body is not a JSON object of the method's arguments; `field` names the place where known."""

    number, error = 400, "bad_payload"


class Unknown(ActorError):
    """No such actor type or method."""

    number, error = 404, "unknown"


class Rejected(ActorError):
    """The actor refused, by its own rules. Never logged as a failure. Keyword fields travel to the caller."""

    number, error = 409, "rejected"


class Denied(Rejected):
    """A refusal that stays in the log, as ``turn.refused`` with its fields: somebody may want to know who tried. Its caller is told
    `Rejected`."""


class IdReused(ActorError):
    """The command id was used before with another method or other arguments (S24)."""

    number, error = 409, "id_reused"


class Gone(ActorError):
    """The stream is archived or erased."""

    number, error = 410, "gone"


class TooLarge(ActorError):
    """Arguments, reply, event or turn beyond `events.limits` (S12)."""

    number, error = 413, "too_large"


class Overloaded(ActorError):
    """Mailbox or outbox full; `retry_after_ms` says when to try again."""

    number, error, retryable = 429, "overloaded", True


class Cancelled(ActorError):
    """Cancelled before its append was queued (S22)."""

    number, error = 499, "cancelled"


class HandlerFailed(ActorError):
    """The handler raised; nothing of the turn was kept. `event_id` names the recorded failure."""

    number, error = 500, "failed"


class Unavailable(ActorError):
    """No owner yet, draining, parked, or no server in reach; `retry_after_ms` says when to try again."""

    number, error, retryable = 503, "unavailable", True


class Stopped(ActorError):
    """The actor failed too often and is not started any more; `reason` names the error. Other code, or a person, starts it again."""

    number, error = 503, "stopped"


class DeadlinePassed(ActorError):
    """The deadline passed before the turn began; it will never run (S10)."""

    number, error = 504, "deadline_passed"


class LogFull(ActorError):
    """The disk is full: the log is read-only until space returns."""

    number, error, retryable = 507, "full", True


class CallCycle(ActorError):
    """The ask would wait for itself; `path` names the way round (S23)."""

    number, error = 508, "call_cycle"


class OutcomeUnknown(ActorError):
    """Not known whether it was done: ask again with the same id."""

    number, error, retryable, outcome = 520, "unknown_outcome", True, UNKNOWN


class StepFailed(CuebookError):
    """A step raised. `type` is the name of the exception's class, kept as data and never imported."""

    code = "step_failed"


class WaitExpired(CuebookError):
    """Nobody answered a wait before its timeout (S20). Fields: `name`, `wait_id`."""

    code = "wait_expired"


class NondeterminismError(CuebookError):
    """A re-run asks for other steps than its journal holds; `recorded` and `asked` name both sides."""

    code = "nondeterminism"


WIRE_ERRORS: Final[tuple[type[ActorError], ...]] = (
    Waiting, BadPayload, Unknown, Rejected, IdReused, Gone, TooLarge, Overloaded, Cancelled, HandlerFailed, Unavailable, Stopped,
    DeadlinePassed, LogFull, CallCycle, OutcomeUnknown,
)  # fmt: skip
_BY_NAME: Final = {(kind.number, kind.error): kind for kind in WIRE_ERRORS}
_BY_NUMBER: Final = {kind.number: kind for kind in reversed(WIRE_ERRORS)}
_RESERVED: Final = frozenset({"code", "error", "message", "retryable", "outcome", "self"})  # "self" cannot be a keyword field


def error_body(error: ActorError) -> dict[str, Any]:
    """The JSON body of an error reply: ``code, error, message, retryable, outcome`` and the error's own fields."""
    body: dict[str, Any] = {
        "code": error.number,
        "error": error.error,
        "message": error.message,
        "retryable": error.retryable and not error.final,
        "outcome": error.outcome,
    }
    body.update((key, value) for key, value in error.fields.items() if key not in _RESERVED)
    return body


def error_from_body(body: bytes) -> ActorError:
    """The error that `error_body` described, as the same class; a number that is not in the table promises nothing: unknown."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, Any])
        number, name, message = int(fields["code"]), str(fields["error"]), str(fields["message"])
    except (msgspec.DecodeError, KeyError, ValueError, TypeError, RecursionError):
        return OutcomeUnknown("the reply is neither a result nor an error that this client understands")
    kind = _BY_NAME.get((number, name)) or _BY_NUMBER.get(number) or OutcomeUnknown
    told = kind(message, **{key: value for key, value in fields.items() if key not in _RESERVED})
    told.final = kind.retryable and fields.get("retryable") is False
    return told
