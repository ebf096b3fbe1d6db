"""What becomes of an effect whose attempt was cut off, and the key that makes repeating it safe."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, Literal, NamedTuple

from actors.errors import BadPayload

Recovery = Literal["repeat", "verify", "ask", "never"]
"""After a crash between the intent and the result of a step:

- ``repeat`` runs it again under the same idempotency key: right for what reads, and for services that know a key again;
- ``verify`` asks first whether it happened, and runs it only if it did not;
- ``ask`` holds the actor until a person says what became of it (S21);
- ``never`` records it as failed with type ``unknown`` and goes on.

The same after the deadline of a step, for an attempt that was ended at it, or that a crash cut off and that comes up again behind it - but
then nothing is run again: ``repeat``, and ``verify`` if it did not happen, record the step as failed with type ``deadline``.
"""
RECOVERIES: Final = ("repeat", "verify", "ask", "never")
UNKNOWN: Final = "unknown"
"""Type of the failure of an attempt that is not repeated and that nobody knows the outcome of."""
DEADLINE: Final = "deadline"
"""Type of the failure of a step whose deadline has passed; also the `reason` of an `UNKNOWN` one."""

_KEY: ContextVar[str] = ContextVar("cuebook_idempotency_key")


def idempotency_key() -> str:
    """The key of the step that runs now, 26 letters and digits, for the service that is called: the same whenever this use of the step is
    run again - after a crash, by another worker, in a retry of its command, in a fork -, another for every other use. Also in the thread
    of a plain function and in the tasks that a step starts.

    Raises:
        LookupError: no step is running.
    """
    try:
        return _KEY.get()
    except LookupError:
        raise LookupError("there is an idempotency key only while a step runs") from None


@contextmanager
def keyed(key: str) -> Iterator[None]:
    """`idempotency_key` in this context."""
    token = _KEY.set(key)
    try:
        yield
    finally:
        _KEY.reset(token)


class Plan(NamedTuple):
    """How one step is repeated or not. key: its idempotency key. function: what it calls, whose type a person's answer must have. verify:
    runs the step's check and returns the result as JSON, or None if the effect did not happen. timeout_us: from an intent to its deadline;
    None = no deadline."""

    recovery: Recovery
    key: str
    function: Callable[..., Any]
    verify: Callable[[], Any] | None = None
    timeout_us: int | None = None

    @property
    def single(self) -> bool:
        """At most one attempt without somebody's word: it is not cut off by choice (S5), and a failure of it is final (S21)."""
        return self.recovery in ("ask", "never")

    def fields(self, deadline_us: int | None) -> dict[str, Any]:
        """What ``step.started`` says of it; the default is left out. ``once`` is what the format has always called ``ask``."""
        said: dict[str, Any] = {"idempotency_key": self.key}
        if deadline_us is not None:
            said["deadline_us"] = deadline_us
        if self.recovery == "ask":
            said["once"] = True
        elif self.recovery != "repeat":
            said["recovery"] = self.recovery
        return said


def recovery_of(step: str, recovery: Recovery | None, once: bool, verify: Callable[..., Any] | None) -> Recovery:
    """What the author of a step asked for. Raises: BadPayload: it contradicts itself."""
    if once and recovery not in (None, "ask"):
        raise BadPayload(f"step {step}: once=True is recovery='ask', not {recovery!r}")
    chosen: Recovery = recovery or ("ask" if once else "repeat")
    if chosen not in RECOVERIES:
        raise BadPayload(f"step {step}: recovery is one of {', '.join(RECOVERIES)}, not {recovery!r}")
    if (verify is not None) != (chosen == "verify"):
        raise BadPayload(f"step {step}: recovery='verify' and verify= belong together")
    return chosen


def is_single(started: dict[str, Any]) -> bool:
    """Of the payload of a ``step.started``: `Plan.single`."""
    return started.get("once") is True or started.get("recovery") == "never"


def unknown_outcome(attempts: int) -> dict[str, Any]:
    """The failure that is recorded for an attempt that is never repeated."""
    return {"type": UNKNOWN, "message": f"attempt {attempts} was cut off; nobody knows whether it happened, and it is not repeated"}


def late_outcome(recovery: Recovery, attempts: int) -> dict[str, Any]:
    """The failure that is recorded for a step whose deadline has passed. attempts: those begun; 0 = it has not happened."""
    if attempts == 0:
        return {"type": DEADLINE, "message": "its deadline passed before it began; it was not done"}
    if recovery == "never":
        return {**unknown_outcome(attempts), "reason": DEADLINE}
    return {"type": DEADLINE, "message": f"attempt {attempts} had not ended at the deadline; it is not repeated"}
