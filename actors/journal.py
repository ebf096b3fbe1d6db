"""The journal of one turn as data: which effects it asked for, and what came back (S15, S19).

The event types are ours and their payloads are part of the log's format (events/FORMAT.md). They are kind=step or kind=control and never
touch state.
"""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from actors.recovery import is_single
from events.codec import encode
from events.envelope import Kind, NewEvent, RecordedEvent
from events.facts import FORKED
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
    TURN_STARTED, TURN_COMPLETED, TURN_REFUSED, TURN_FAILED, TURN_PARKED, "turn.cancelled", FORKED, "stream.archived",
    "stream.erased", TURN_RETRIED, DEAD_LETTER, DEAD_RETRIED, DEAD_DROPPED, ACTOR_STOPPED, ACTOR_RESTARTED, "wait.opened",
    "wait.answered", "wait.expired", "timer.set", "timer.fired", "timer.cancelled", "message.sent",
    *(f"{kind}.{outcome}" for kind in _EFFECTS for outcome in ("started", "completed", "failed")),
})  # fmt: skip
"""Tags of our own events (events/FORMAT.md 7); an app's events have others."""
_STARTED: Final = frozenset(f"{kind}.started" for kind in _EFFECTS)
_COMPLETED: Final = frozenset(f"{kind}.completed" for kind in _EFFECTS)
_FAILED: Final = frozenset(f"{kind}.failed" for kind in _EFFECTS)
WAIT_OPENED: Final = "wait.opened"
WAIT_ANSWERED: Final = "wait.answered"
WAIT_EXPIRED: Final = "wait.expired"
_WAIT_ENDS: Final = frozenset({WAIT_ANSWERED, WAIT_EXPIRED})
MESSAGE_SENT: Final = "message.sent"
PARKED_STEP: Final = "once:"
"""The name of the wait that an ambiguous ``once`` step holds its actor with begins like this (S21)."""


class Use(NamedTuple):
    """What an effect is matched by on a re-run: not its arrival, but the n-th use of a name (S19)."""

    kind: str
    name: str
    key: str | None
    n: int

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" + (f" [{self.key}]" if self.key is not None else "") + (f" #{self.n}" if self.n > 1 else "")


class Stood(NamedTuple):
    """Where the shard of another actor stood when that answered. shards: of the log then; with another number of them it says nothing."""

    shard: int
    shards: int
    position: int


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
    attempts: int = 0
    """How often its intent was recorded."""
    parked: bool = False
    """A person has been asked what became of the last attempt (S21)."""
    cleared: bool = False
    """... and said that it shall be repeated."""
    wait_id: str | None = None
    """Of the last wait that was opened for it."""
    stood: Stood | None = None
    """Of an ask that was answered; older logs do not say it."""
    past: bool = False
    """Of a finished segment: it stays as it is, also if a later attempt fails."""

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


class Forked(msgspec.Struct, frozen=True, kw_only=True):
    """Payload of ``stream.forked``, the first event of a fork (S33): all that it needs to go on without its parent.

    parent, version, hash: the event of the parent after which it branches off. state: the whole state there, with `edit` applied (a JSON
    Patch, RFC 6902). live: what it sends leaves the fork. siblings: which fork stands for which stream among those that were forked
    together; what is sent to one of these streams goes to its fork. correlation_id: the conversation that was forked. id: what its code
    knows itself by, the id of its first parent, so that it names others and its effects as its parent did.
    """

    parent: str
    version: int
    hash: str
    state: msgspec.Raw
    edit: list[dict[str, Any]] | None = None
    branch: str
    live: bool = False
    siblings: dict[str, str] = {}
    correlation_id: str | None = None
    id: str = ""


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """A wait that a turn opens. schema: JSON Schema of what may be answered, None = anything. step: what an ambiguous ``once`` step is
    matched by, None for `wait_for`."""

    name: str
    n: int
    wait_id: str
    timeout_us: int | None = None
    schema: bytes | None = None
    step: Use | None = None


class Segment(msgspec.Struct, kw_only=True):
    """A part of a turn that a wait has ended (S20): what it emitted and sent, which a re-run is compared with.

    first_version: of its first event; what stood before it is what the handler saw.
    """

    first_version: int
    emitted: list[tuple[str, int, bytes]]
    sent: list[bytes]


class Opened(NamedTuple):
    """The journal of a turn that has begun and not ended. epoch: of the owner that ran the last finished segment. time: logical time of its
    last entry, which what the turn asks from now on comes after (S30)."""

    started: Started
    entries: dict[Use, Entry]
    at_us: int
    segments: Sequence[Segment] = ()
    epoch: int = 0
    time: int = 0

    @property
    def open_wait(self) -> str | None:
        """The id of the wait that the turn stands in; None if it does not wait."""
        waiting = (entry for entry in self.entries.values() if not entry.finished and (entry.parked or entry.use.kind == "wait"))
        return next((entry.wait_id for entry in waiting), None)


class _Effect(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    key: str | None = None
    n: int
    stood: Stood | None = None
    result: msgspec.Raw = msgspec.Raw(b"null")  # msgspec reads Raw only where it stands alone, not in a union with None


class _Step(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    key: str | None
    n: int


class _WaitRecord(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    n: int
    wait_id: str
    value: msgspec.Raw = msgspec.Raw(b"null")
    step: _Step | None = None


def started_event(started: Started) -> NewEvent:
    return NewEvent(type=TURN_STARTED, kind=Kind.CONTROL, payload=encode(started), summary=f"{started.command} began"[:200])


def effect_event(
    use: Use, outcome: str, fields: dict[str, Any], *, duration_us: int | None = None, said: str | None = None
) -> NewEvent:
    """`outcome` is started, completed or failed; `fields` are the kind's own. said: of the outcome in the summary, if not its name."""
    error = str(fields["message"])[:500] if outcome == "failed" else None
    return NewEvent(
        type=f"{use.kind}.{outcome}",
        kind=Kind.STEP,
        payload=encode({"name": use.name, "key": use.key, "n": use.n, **fields}),
        summary=f"{use} {said or outcome}"[:200],
        duration_us=duration_us,
        error=error,
    )


def end_event(type: str, fields: dict[str, Any], *, duration_us: int | None = None, error: str | None = None) -> NewEvent:
    """The control event that closes a turn which had a journal, or names a failure."""
    return NewEvent(
        type=type, kind=Kind.CONTROL, payload=encode(fields), summary=type.replace(".", " "), duration_us=duration_us, error=error
    )


def wait_event(outcome: str, wait: Wait, fields: dict[str, Any]) -> NewEvent:
    """`outcome` is opened, answered or expired."""
    step = {} if wait.step is None else {"step": {"name": wait.step.name, "key": wait.step.key, "n": wait.step.n}}
    payload = encode({"name": wait.name, "n": wait.n, "wait_id": wait.wait_id, **fields, **step})
    return NewEvent(type=f"wait.{outcome}", kind=Kind.STEP, payload=payload, summary=f"wait {wait.name} {outcome}"[:200])


def opened_wait(event: RecordedEvent) -> Wait:
    """The wait that a ``wait.opened`` event records, without its timeout and schema."""
    record = msgspec.json.decode(event.payload, type=_WaitRecord)
    step = None if record.step is None else Use("step", record.step.name, record.step.key, record.step.n)
    return Wait(name=record.name, n=record.n, wait_id=record.wait_id, step=step)


def open_turn(events: Iterable[RecordedEvent], command_id: str) -> Opened | None:
    """The journal of `command_id` from the events of its stream: what it started with, its entries, when it started (µs), its segments.

    None if there is no ``turn.started`` of that command, or its turn has ended.
    """
    reading = _Reading()
    for event in events:
        if event.command_id == command_id:
            reading.add(event)
    if reading.started is None:
        return None
    return Opened(reading.started, reading.entries, reading.at_us, reading.segments, reading.epoch, reading.time)


class _Reading:
    """The events of one command, in order."""

    def __init__(self) -> None:
        self.time = 0
        self._begin(None, 0)

    def _begin(self, started: Started | None, at_us: int) -> None:
        self.started = started
        self.at_us = at_us
        self.epoch = 0
        self.entries: dict[Use, Entry] = {}
        self.segments: list[Segment] = []
        self._segment: Segment | None = None

    def add(self, event: RecordedEvent) -> None:
        self.time = event.time
        if event.type == TURN_STARTED:
            # A parked turn may be run again from its start under the same id: only its last journal counts.
            self._begin(msgspec.json.decode(event.payload, type=Started), event.recorded_at_us)
        elif event.type in TURN_ENDS:
            self._begin(None, 0)
            return
        elif event.type == TURN_RETRIED:
            self._retried()
            return
        if event.type in _WAIT_ENDS:
            self._answered(event)
            return
        if self._segment is None:
            self._segment = Segment(first_version=event.version, emitted=[], sent=[])
        if event.kind is Kind.STATE:
            self._segment.emitted.append((event.type, event.schema_version, bytes(event.payload)))
        elif event.type == MESSAGE_SENT:
            self._segment.sent.append(bytes(event.payload))
        elif event.type == WAIT_OPENED:
            self._opened(event, self._segment)
        elif event.type in _STARTED or event.type in _COMPLETED or event.type in _FAILED:
            _note(self.entries, event)

    def _retried(self) -> None:
        """What is finished is not repeated; what failed is done again, but for what may happen only once (S21)."""
        for entry in self.entries.values():
            if not entry.past:
                entry.carried = True
                if not is_single(entry.started):
                    entry.failure = None

    def _opened(self, event: RecordedEvent, segment: Segment) -> None:
        wait = opened_wait(event)
        if wait.step is not None:
            if (entry := self.entries.get(wait.step)) is not None:
                entry.parked, entry.cleared, entry.wait_id = True, False, wait.wait_id
            return
        use = Use("wait", wait.name, None, wait.n)
        self.entries[use] = Entry(use=use, started=msgspec.json.decode(event.payload), wait_id=wait.wait_id)
        for entry in self.entries.values():
            entry.past = True
        self.segments.append(segment)
        self._segment = None
        self.epoch = event.owner_epoch

    def _answered(self, event: RecordedEvent) -> None:
        record = msgspec.json.decode(event.payload, type=_WaitRecord)
        if record.step is not None:
            entry = self.entries.get(Use("step", record.step.name, record.step.key, record.step.n))
            if entry is not None:
                entry.parked, entry.cleared = False, msgspec.json.decode(record.value, type=dict[str, Any]).get("repeat") is True
            return
        entry = self.entries.get(Use("wait", record.name, None, record.n))
        if entry is None:
            return
        entry.at_us = event.recorded_at_us
        if event.type == WAIT_ANSWERED:
            entry.result = record.value
        else:
            entry.failure = {"type": "WaitExpired", "message": f"nobody answered {record.name} in time", "wait_id": record.wait_id}


def holder_of(events: Iterable[RecordedEvent]) -> str | None:
    """The command whose turn is in the middle of a segment at the end of `events`, the journals of open turns: it goes first when they run
    again, because nothing was decided since it went on (S15, S19)."""
    last: dict[str | None, str] = {}
    for event in events:
        if event.type in TURN_ENDS:
            last.pop(event.command_id, None)
        elif event.type.startswith("wait.") and opened_wait(event).step is not None:
            last[event.command_id] = "step"  # a parked step holds its actor all the while (S21)
        elif event.type == TURN_STARTED or event.kind is Kind.STEP:
            last[event.command_id] = event.type
    return next((command_id for command_id, type in last.items() if not type.startswith("wait.")), None)


def _note(entries: dict[Use, Entry], event: RecordedEvent) -> None:
    kind = event.type.partition(".")[0]
    effect = msgspec.json.decode(event.payload, type=_Effect)
    use = Use(kind, effect.name, effect.key, effect.n)
    if event.type in _STARTED:
        before = entries.get(use)
        attempts = 1 if before is None else before.attempts + 1
        entries[use] = Entry(use=use, started=msgspec.json.decode(event.payload), attempts=attempts)
        return
    entry = entries.setdefault(use, Entry(use=use, started={}))
    entry.at_us = event.recorded_at_us
    entry.stood = effect.stood
    if event.type in _COMPLETED:
        entry.result = effect.result
    else:
        entry.failure = msgspec.json.decode(event.payload)


def sent_event(receiver: str, method: str, args: bytes, command_id: str, *, held: bool = False) -> NewEvent:
    """The record of a tell: the edge between two actors is written down where it leaves, never inferred. held: it leaves no fork (S33)."""
    fields = {"receiver": receiver, "method": method, "command_id": command_id, "arguments": msgspec.Raw(args)}
    return NewEvent(
        type=MESSAGE_SENT,
        kind=Kind.MESSAGE,
        payload=encode({**fields, "held": True} if held else fields),
        summary=f"{'held: ' if held else ''}told {receiver} to {method}"[:200],
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
