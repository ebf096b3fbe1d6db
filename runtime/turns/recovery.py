"""Snapshot and events to state: the one fold, shared by activation, replay and every tool that shows a state."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from actors.journal import TURN_ENDS, TURN_RETRIED, TURN_STARTED, Forked
from actors.registry import ActorType
from events.closing import CLOSED_BY
from events.envelope import Kind, RecordedEvent
from events.errors import CorruptLogError
from events.facts import FORKED, PlainEvent
from events.store import Snapshot


class Recovered(msgspec.Struct, kw_only=True):
    """An actor as its log says. `journal` holds what open turns have recorded, nothing of ended ones; tail_bytes is what was folded
    after the snapshot, snapshot_bytes the snapshot itself. fork: where it branched off, if it did (S33)."""

    state: Any
    version: int
    journal: list[RecordedEvent]
    snapshot_version: int
    tail_bytes: int
    snapshot_bytes: int = 0
    closed: str | None = None
    """"archived" or "erased": then nothing is folded, since nothing is decided any more."""
    fork: Forked | None = None


def recover(kind: ActorType[Any], snapshot: Snapshot | None, events: Sequence[RecordedEvent | PlainEvent]) -> Recovered:
    """Fold `events`, of which those in `kind.plain` may be plain, upon `snapshot`, or upon the initial state.

    Raises:
        CorruptLogError: versions do not follow each other, or a payload does not fit.
        UnknownEventTypeError: an event type or schema version that this program does not know.
    """
    last = events[-1] if events else None
    if isinstance(last, RecordedEvent) and (closed := CLOSED_BY.get(last.type)) is not None:
        version = int(last.version)
        return Recovered(state=kind.initial(), version=version, journal=[], snapshot_version=version, tail_bytes=0, closed=closed)
    try:
        state, version = (kind.initial(), 0) if snapshot is None else (kind.decode_state(snapshot.state), int(snapshot.version))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptLogError(f"the snapshot of {snapshot.stream if snapshot else kind.name} cannot be read: {error}") from error
    found = Recovered(state=state, version=version, journal=[], snapshot_version=version, tail_bytes=0)
    found.snapshot_bytes = 0 if snapshot is None else len(snapshot.state)
    plain = kind.plain
    for event in events:
        if isinstance(event, tuple):
            if event[0] != found.version + 1:
                raise _out_of_order(kind, found.version, event[0])
            found.version, tag, payload = event
            try:
                fact = plain[tag](payload)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise CorruptLogError(f"version {found.version} of an actor {kind.name}: {error}", version=found.version) from error
            fact.apply(found.state)
            found.tail_bytes += len(payload)
            continue
        if found.version == 0 and event.type == FORKED:
            found.fork, found.state = forked_state(kind, event)
            found.version = event.version
            continue
        if event.version != found.version + 1:
            raise CorruptLogError(
                f"{event.stream}: version {found.version} is followed by {event.version}",
                stream=event.stream, expected=found.version + 1, found=event.version, position=f"{event.shard}:{event.position}",
            )  # fmt: skip
        found.version = event.version
        if event.kind is Kind.STATE:
            kind.apply(found.state, event)
            found.tail_bytes += len(bytes(event.payload))
        elif event.type in TURN_ENDS:
            found.journal = [entry for entry in found.journal if entry.command_id != event.command_id]
        elif event.kind is Kind.STEP or event.type == TURN_STARTED:
            found.journal.append(event)
        elif event.type == TURN_RETRIED and any(entry.command_id == event.command_id for entry in found.journal):
            found.journal.append(event)  # of a turn that stays open; a short one has left nothing to go on with
    return found


def _out_of_order(kind: ActorType[Any], version: int, following: int) -> CorruptLogError:
    text = f"an actor {kind.name}: version {version} is followed by {following}"
    return CorruptLogError(text, expected=version + 1, found=following)


def fold(
    kind: ActorType[Any], events: Iterable[RecordedEvent], *, state: Any = None, after: int = 0, to: int | None = None
) -> tuple[Any, int]:
    """State and version after the state events with `after` < version <= `to`."""
    state = kind.initial() if state is None else state
    version = after
    for event in events:
        if event.version <= after:
            continue
        if to is not None and event.version > to:
            break
        version = event.version
        if event.kind is Kind.STATE:
            kind.apply(state, event)
        elif event.type == FORKED:
            state = forked_state(kind, event)[1]
    return state, version


def forked_state(kind: ActorType[Any], event: RecordedEvent) -> tuple[Forked, Any]:
    """What ``stream.forked`` says, and the state that it begins with.

    Raises:
        CorruptLogError: it, or the state in it, is not of the shape that this code has.
    """
    try:
        fork = msgspec.json.decode(event.payload, type=Forked)
        return fork, kind.decode_state(bytes(fork.state))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptLogError(
            f"the state that {event.stream} was forked with cannot be read: {error}",
            stream=event.stream, version=event.version, position=f"{event.shard}:{event.position}",
        ) from error  # fmt: skip
