"""One stream as a history: which version was at a moment, what each event changed, which one set a value. Folds, and changes nothing."""

from collections.abc import AsyncGenerator
from typing import Any, Final

import msgspec

from actors.errors import BadPayload, Unknown
from actors.registry import ActorType, Registry
from events.clock import Clock, SystemClock
from events.envelope import Kind, RecordedEvent
from events.facts import FORKED
from events.ids import StreamId
from events.store import LogReader
from runtime.branches.lineage import last_until, read_lineage
from runtime.past.conditions import MISSING, Moment, at_pointer, parse_pointer
from runtime.past.filters import moment_us
from runtime.past.inspection import find_event
from runtime.past.states import Fold, code_of, head_version, json_patch, no_code

_PAGE: Final = 500


async def version_at(reader: LogReader, stream: StreamId, text: str, clock: Clock | None = None) -> int:
    """The version that `text` names: a number; an event (id or SHARD:POSITION), of this stream or of another; a duration ago, or a time.

    An event of another stream, and a time, name the moment: the newest version recorded by then, 0 before the first.

    Raises:
        Unknown: no such stream, version or event. BadPayload: none of these forms.
    """
    if text.isdecimal():
        return int(text)
    try:
        at_us = moment_us(text, (clock or SystemClock()).wall_us())
    except BadPayload:
        try:
            found = await find_event(reader, text)
        except BadPayload as error:
            raise BadPayload(f"{text!r} is no version, event id, SHARD:POSITION, duration such as 5m, or time: {error.message}") from error
        if found.stream == stream:
            return int(found.version)
        at_us = found.time
    return await last_until(reader, stream, at_us, low=0, high=await head_version(reader, stream))


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a stream with the state around it as plain JSON values; both None without code (S32).

    mismatch: where, up to here, this code parted from what was recorded (S34).
    """

    event: RecordedEvent
    before: Any
    after: Any
    mismatch: str | None = None

    def patch(self) -> list[dict[str, Any]]:
        """What the event changed, as JSON Patch."""
        return [] if self.before == self.after else json_patch(self.before, self.after)

    def moment(self) -> Moment:
        """What a condition is asked of."""
        event = self.event
        facts = {
            "event": msgspec.json.decode(event.payload), "type": event.type, "stream": event.stream, "version": event.version,
            "error": event.error, "sender": event.sender,
        }  # fmt: skip
        return Moment(self.before, self.after, facts)


async def walk(reader: LogReader, kind: ActorType[Any] | None, stream: StreamId, *, to: int | None = None) -> AsyncGenerator[Step, None]:
    """Every event of `stream` up to version `to`, with what it did to the state. A page of events and two states in memory.

    Raises:
        Unknown: there is no such stream or version.
    """
    newest = await head_version(reader, stream)
    end = newest if to is None else to
    if not 0 <= end <= newest:
        raise Unknown(f"{stream} has versions 1 to {newest}, not {end}", stream=stream, version=end)
    fold = None if kind is None else Fold(kind, stream)
    before = None if fold is None else fold.plain()
    version = 0
    while version < end:
        page = await read_lineage(reader, stream, after=version, limit=min(_PAGE, end - version))
        if not page:
            return
        for event in page:
            version = event.version
            if fold is None:
                yield Step(event=event, before=None, after=None)
                continue
            fold.add(event)
            after = fold.plain() if event.kind is Kind.STATE or event.type == FORKED else before
            yield Step(event=event, before=before, after=after, mismatch=fold.mismatch)
            before = after


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One event that gave the value at a pointer another content. new and old: None where nothing stood, see `came` and `went`."""

    event: RecordedEvent
    pointer: str
    old: Any
    new: Any
    came: bool
    went: bool


class Blame(msgspec.Struct, frozen=True, kw_only=True):
    """All changes of one value up to a version, oldest first; note: why there are none (S32)."""

    stream: StreamId
    version: int
    changes: list[Change] = []
    note: str | None = None
    mismatch: str | None = None


async def blame(reader: LogReader, registry: Registry | None, stream: StreamId, pointer: str, *, at: int | None = None) -> Blame:
    """Which events set what stands at the JSON pointer; the last of them set the value that is there at version `at` (None = now).

    Raises:
        Unknown: no such stream or version, or nothing ever stood there. BadPayload: no JSON pointer.
    """
    parts = parse_pointer(pointer)
    version = await head_version(reader, stream) if at is None else at
    kind = code_of(registry, stream)
    if kind is None:
        return Blame(stream=stream, version=version, note=no_code(registry, stream))
    changes: list[Change] = []
    mismatch = None
    stood = bool(at_pointer(msgspec.json.decode(kind.encode_state(kind.initial())), parts) is not MISSING)
    async for step in walk(reader, kind, stream, to=version):
        mismatch = mismatch or step.mismatch
        if step.before is step.after:
            continue
        old, new = at_pointer(step.before, parts), at_pointer(step.after, parts)
        if old != new:
            changes.append(
                Change(
                    event=step.event, pointer=pointer, old=None if old is MISSING else old, new=None if new is MISSING else new,
                    came=old is MISSING, went=new is MISSING,
                )
            )  # fmt: skip
    if not changes and not stood:
        raise Unknown(f"nothing ever stood at {pointer or 'the root'} of {stream}", stream=stream, pointer=pointer)
    return Blame(stream=stream, version=version, changes=changes, mismatch=mismatch)
