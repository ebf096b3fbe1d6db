"""The journal of one turn as data: which effects it asked for, and what came back (S15, S19).

The event types are ours and their payloads are part of the log's format (events/FORMAT.md). They are kind=step or kind=control and never
touch state.
"""

import base64
import hashlib
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec

from events.codec import encode
from events.envelope import Kind, NewEvent, RecordedEvent
from events.store import TimerEntry

TURN_STARTED: Final = "turn.started"
TURN_COMPLETED: Final = "turn.completed"
TURN_REFUSED: Final = "turn.refused"
TURN_FAILED: Final = "turn.failed"
TURN_PARKED: Final = "turn.parked"
TURN_CANCELLED: Final = "turn.cancelled"
TURN_RETRIED: Final = "turn.retried"
"""An attempt failed and the command is tried again: no end, so that what its journal holds stays good."""
DEAD_LETTER: Final = "dead.letter"
DEAD_RETRIED: Final = "dead.retried"
DEAD_DROPPED: Final = "dead.dropped"
ACTOR_STOPPED: Final = "actor.stopped"
ACTOR_RESTARTED: Final = "actor.restarted"
TURN_ENDS: Final = frozenset({TURN_COMPLETED, TURN_REFUSED, TURN_FAILED, TURN_PARKED, TURN_CANCELLED})
_EFFECTS: Final = ("step", "ask", "view")
RESERVED_TAGS: Final = frozenset({
    TURN_STARTED, TURN_COMPLETED, TURN_REFUSED, TURN_FAILED, TURN_PARKED, "turn.cancelled", "stream.forked", "stream.archived",
    "stream.erased", TURN_RETRIED, DEAD_LETTER, DEAD_RETRIED, DEAD_DROPPED, ACTOR_STOPPED, ACTOR_RESTARTED, "wait.opened",
    "wait.answered", "wait.expired", "timer.set", "timer.fired", "timer.cancelled", "message.sent",
    *(f"{kind}.{outcome}" for kind in _EFFECTS for outcome in ("started", "completed", "failed")),
})  # fmt: skip
"""Tags of our own events (events/FORMAT.md 7); an app's events have others."""
_STARTED: Final = frozenset(f"{kind}.started" for kind in _EFFECTS)
_COMPLETED: Final = frozenset(f"{kind}.completed" for kind in _EFFECTS)
_FAILED: Final = frozenset(f"{kind}.failed" for kind in _EFFECTS)


class Use(NamedTuple):
    """What an effect is matched by on a re-run: not its arrival, but the n-th use of a name (S19)."""

    kind: str
    name: str
    key: str | None
    n: int

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" + (f" [{self.key}]" if self.key is not None else "") + (f" #{self.n}" if self.n > 1 else "")


class Entry(msgspec.Struct, kw_only=True):
    """One effect of the journal. Finished if `result` or `failure` is set."""

    use: Use
    started: dict[str, Any]
    result: msgspec.Raw | None = None
    failure: dict[str, Any] | None = None
    at_us: int = 0
    consumed: bool = False
    carried: bool = False
    """From an attempt that failed: offered to the next one, which may take another way."""

    @property
    def finished(self) -> bool:
        return self.result is not None or self.failure is not None


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """Payload of ``turn.started``: what is needed to run the turn again."""

    command: str
    arguments: msgspec.Raw
    sender: str | None
    command_id: str
    deadline_ms: int | None
    seed: str
    now_us: int
    state_version: int
    code_version: str | None


class _Effect(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    key: str | None = None
    n: int
    result: msgspec.Raw = msgspec.Raw(b"null")  # msgspec reads Raw only where it stands alone, not in a union with None


def started_event(started: Started) -> NewEvent:
    return NewEvent(type=TURN_STARTED, kind=Kind.CONTROL, payload=encode(started), summary=f"{started.command} began"[:200])


def effect_event(use: Use, outcome: str, fields: dict[str, Any], *, duration_us: int | None = None) -> NewEvent:
    """`outcome` is started, completed or failed; `fields` are the kind's own."""
    error = str(fields["message"])[:500] if outcome == "failed" else None
    return NewEvent(
        type=f"{use.kind}.{outcome}",
        kind=Kind.STEP,
        payload=encode({"name": use.name, "key": use.key, "n": use.n, **fields}),
        summary=f"{use} {outcome}"[:200],
        duration_us=duration_us,
        error=error,
    )


def end_event(type: str, fields: dict[str, Any], *, duration_us: int | None = None, error: str | None = None) -> NewEvent:
    """The control event that closes a turn which had a journal, or names a failure."""
    return NewEvent(
        type=type, kind=Kind.CONTROL, payload=encode(fields), summary=type.replace(".", " "), duration_us=duration_us, error=error
    )


def open_turn(events: Iterable[RecordedEvent], command_id: str) -> tuple[Started, dict[Use, Entry], int] | None:
    """The journal of `command_id` from the events of its stream: what it started with, its entries, and the time it started (µs).

    None if there is no ``turn.started`` of that command.
    """
    started: Started | None = None
    at_us = 0
    entries: dict[Use, Entry] = {}
    for event in events:
        if event.command_id != command_id:
            continue
        if event.type == TURN_STARTED:
            started, at_us, entries = msgspec.json.decode(event.payload, type=Started), event.recorded_at_us, {}
        elif event.type == TURN_RETRIED:
            for entry in entries.values():
                # What is finished is not repeated; what failed is done again.
                entry.carried, entry.failure = True, None
        elif event.type in _STARTED or event.type in _COMPLETED or event.type in _FAILED:
            _note(entries, event)
    return None if started is None else (started, entries, at_us)


def _note(entries: dict[Use, Entry], event: RecordedEvent) -> None:
    kind = event.type.partition(".")[0]
    effect = msgspec.json.decode(event.payload, type=_Effect)
    use = Use(kind, effect.name, effect.key, effect.n)
    if event.type in _STARTED:
        entries[use] = Entry(use=use, started=msgspec.json.decode(event.payload))
        return
    entry = entries.setdefault(use, Entry(use=use, started={}))
    entry.at_us = event.recorded_at_us
    if event.type in _COMPLETED:
        entry.result = effect.result
    else:
        entry.failure = msgspec.json.decode(event.payload)


def sent_event(receiver: str, method: str, args: bytes, command_id: str) -> NewEvent:
    """The record of a tell: the edge between two actors is written down where it leaves, never inferred."""
    return NewEvent(
        type="message.sent",
        kind=Kind.MESSAGE,
        payload=encode({"receiver": receiver, "method": method, "command_id": command_id, "arguments": msgspec.Raw(args)}),
        summary=f"told {receiver} to {method}"[:200],
    )


def timer_event(outcome: str, timer_id: str, fields: dict[str, Any]) -> NewEvent:
    """`outcome` is set, fired or cancelled."""
    payload = encode({"timer_id": timer_id, **fields})
    return NewEvent(type=f"timer.{outcome}", kind=Kind.TIMER, payload=payload, summary=f"timer {timer_id} {outcome}")


def timer_events(timers: Iterable[TimerEntry], gone: Iterable[str]) -> list[NewEvent]:
    """The record of what a turn did to its timers."""
    events = [timer_event("cancelled", timer_id, {}) for timer_id in gone]
    for timer in timers:
        fields = {"due_us": timer.due_us, "wall": timer.wall, "every_us": timer.every_us, "method": timer.method}
        events.append(timer_event("set", timer.timer_id, {**fields, "arguments": msgspec.Raw(timer.args)}))
    return events


def fired_events(source: str | None) -> list[NewEvent]:
    """The first event of a turn that a timer called: ``source`` is ``timer:<id>:<due>:<missed>``."""
    if source is None or not source.startswith("timer:"):
        return []
    _, timer_id, due_us, missed = source.split(":")
    return [timer_event("fired", timer_id, {"due_us": int(due_us), "missed": int(missed)})]


def derived_id(*parts: object) -> str:
    """A name of 26 characters that depends on `parts` only: ids inside a turn repeat on a re-run, so the receiver knows them again."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return base64.b32encode(digest[:16]).decode().rstrip("=").lower()
