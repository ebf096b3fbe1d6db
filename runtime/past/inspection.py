"""The read side of a log: events by name, streams, verification of states. No NATS, no files: a `LogReader`.

Everything here is the same for the command line on files, for ``cue.log`` and for tests.
"""

import re
import string
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec

from actors.errors import BadPayload, Unknown
from actors.registry import ActorType, Registry
from actors.traps import pure
from events.appending import TIME_DIGITS
from events.codec import canonical_hash
from events.envelope import RecordedEvent
from events.errors import CorruptLogError, CuebookError
from events.facts import FORKED
from events.ids import Position, StreamId, parse_stream_id, shard_of
from events.store import LogReader, Snapshot, StreamInfo
from runtime.past.merging import Positions, merged, positions_at
from runtime.past.open_turns import OpenTurn, OpenTurns
from runtime.past.states import FOLD_PAGE, code_of, head_version, no_code
from runtime.turns.recovery import fold

_PLACE: Final = re.compile(r"(\d{1,4}):(\d{1,18})")


async def find_event(reader: LogReader, text: str) -> RecordedEvent:
    """The event that `text` names: ``SHARD:POSITION``, an event id, or the beginning of one.

    Raises:
        Unknown: there is none. BadPayload: neither form, or several events begin like that.
    """
    if (place := _PLACE.fullmatch(text)) is not None:
        shard, position = int(place[1]), int(place[2])
        found = await reader.at(shard, Position(position)) if shard < reader.shards else None
        if found is None:
            raise Unknown(f"there is no event at {text}", event=text)
        return found
    digits = text[:TIME_DIGITS]
    if not all(digit in string.hexdigits for digit in digits) or not text:
        raise BadPayload(f"{text!r} is neither SHARD:POSITION nor the beginning of an event id", field="event")
    # An id begins with the logical time, so a beginning of it is a span of time.
    low, high = (int(digits.ljust(TIME_DIGITS, fill), 16) for fill in "0f")
    matches: list[RecordedEvent] = []
    async for event in merged(reader, after=await positions_at(reader, low)):
        if event.time > high or len(matches) > 4:
            break
        if event.event_id.startswith(text):
            matches.append(event)
    if not matches:
        raise Unknown(f"there is no event {text}", event=text)
    if len(matches) > 1:
        raise BadPayload(f"several events begin with {text}: {', '.join(event.event_id for event in matches)}", field="event")
    return matches[0]


async def streams(reader: LogReader, *, after: str = "") -> AsyncIterator[StreamInfo]:
    """Every stream by name."""
    while page := await reader.streams(after=after, limit=1_000):
        for info in page:
            yield info
        after = page[-1].stream


# -- replay --verify ----------------------------------------------------------------------------------------------------------------------


class LiveState(msgspec.Struct, frozen=True, kw_only=True):
    """What a live actor says of its committed state, over the reserved query ``_state``."""

    version: int
    state_hash: str


AskLive = Callable[[StreamId], Awaitable[LiveState | None]]
"""None = the deployment cannot say."""


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """The first place where a fold does not lead to what was recorded. what: state_hash | snapshot | live | fold | turn | code.

    turn: an open turn cannot run again under this code. code: the app lacks the actor type; only of `verify_states` as an upgrade gate.
    """

    stream: StreamId
    version: int
    what: str
    expected: str
    found: str


class StateCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What was compared for one stream. hashes: recorded state hashes that were met. open_turns: at its end, all of them."""

    stream: StreamId
    version: int
    events: int
    hashes: int
    snapshot: bool
    live: bool
    state_hash: str | None = None
    difference: Difference | None = None
    note: str | None = None
    open_turns: list[OpenTurn] = []


class _Verifier:
    """Folds one stream and compares on the way."""

    def __init__(self, kind: ActorType[Any], stream: StreamId, snapshot: Snapshot | None, live: LiveState | None) -> None:
        self.kind = kind
        self.stream = stream
        self.snapshot = snapshot if snapshot is not None and snapshot.shape == kind.shape else None
        self.live = live
        self.state = kind.initial()
        self.version = 0
        self.events = self.hashes = 0
        self.met_snapshot = self.met_live = False
        self.difference: Difference | None = None
        self.turns = OpenTurns()
        self.open_turns: list[OpenTurn] = []

    def add(self, page: Sequence[RecordedEvent]) -> None:
        for event in page:
            if self.version == 0 and event.type == FORKED:
                self.version = int(event.version) - 1  # a fork begins with the whole state (S33)
            if event.version != self.version + 1:
                self._differs("fold", event.version, f"version {self.version + 1}", f"version {event.version}")
                return
            try:
                with pure():
                    self.state, self.version = fold(self.kind, (event,), state=self.state, after=self.version)
            except Exception as error:  # noqa: BLE001  apply() is the author's code and may raise anything
                text = error.message if isinstance(error, CuebookError) else f"{type(error).__name__}: {error}"
                self._differs("fold", event.version, f"{event.type} applies", text)
                return
            self.events += 1
            self.turns.add(event)
            self._compare(event)
            if self.difference is not None:
                return

    def _compare(self, event: RecordedEvent) -> None:
        due_snapshot = self.snapshot is not None and self.snapshot.version == self.version
        due_live = self.live is not None and self.live.version == self.version
        if event.state_hash is None and not due_snapshot and not due_live:
            return
        found = canonical_hash(self.state)
        if event.state_hash is not None:
            self.hashes += 1
            self._expect("state_hash", event.state_hash, found)
        if due_snapshot and self.snapshot is not None:
            self.met_snapshot = True
            self._expect("snapshot", canonical_hash(self.kind.decode_state(self.snapshot.state)), found)
        if due_live and self.live is not None:
            self.met_live = True
            self._expect("live", self.live.state_hash, found)

    def _expect(self, what: str, expected: str, found: str) -> None:
        if expected != found and self.difference is None:
            self._differs(what, self.version, expected, found)

    def _differs(self, what: str, version: int, expected: str, found: str) -> None:
        self.difference = Difference(stream=self.stream, version=version, what=what, expected=expected, found=found)

    def end(self) -> None:
        """A live actor that knows versions which the log has not is ahead of what is durable; a turn that is open must be able to go on."""
        if self.difference is not None:
            return
        self.open_turns = self.turns.found(self.kind)
        for turn in self.open_turns:
            if turn.problem is not None:
                self._differs("turn", turn.version, f"the open turn {turn.method} ({turn.command_id}) runs again", turn.problem)
                return
        if self.live is not None and not self.met_live and self.live.version > 0:
            self._differs("live", self.live.version, f"version {self.live.version}", f"the log ends at version {self.version}")

    def check(self) -> StateCheck:
        return StateCheck(
            stream=self.stream, version=self.version, events=self.events, hashes=self.hashes, snapshot=self.met_snapshot,
            live=self.met_live, state_hash=canonical_hash(self.state) if self.difference is None else None, difference=self.difference,
            open_turns=self.open_turns,
        )  # fmt: skip


async def verify_state(
    reader: LogReader,
    registry: Registry | None,
    stream: StreamId,
    live: AskLive | None = None,
    *,
    to: int | None = None,
    gate: bool = False,
) -> StateCheck:
    """Fold `stream` from its first event and compare with every recorded state hash, the newest snapshot and the live state (S34).

    Events are applied in a trap: one that reads a clock, draws randomness or touches a file is a difference (S16).

    Args:
        to: last version to fold; None = the end, where turns that are open are checked too.
        gate: the question is whether this code may follow the one that wrote the log: a type that it lacks is a difference (S7).

    Raises:
        Unknown: there is no such stream.
    """
    newest = await head_version(reader, stream)
    kind = code_of(registry, stream)
    if kind is None:
        lacks = Difference(
            stream=stream, version=1, what="code", expected=f"actor type {stream.partition('/')[0]}", found="none in this app"
        )
        return StateCheck(
            stream=stream, version=newest, events=0, hashes=0, snapshot=False, live=False, note=no_code(registry, stream),
            difference=lacks if gate and registry is not None else None,
        )  # fmt: skip
    # Asked first: by the time the log is read, everything that the live state rests on stands in it.
    alive = await live(stream) if live is not None and to is None else None
    verifier = _Verifier(kind, stream, await reader.snapshot(stream), alive)
    end = newest if to is None else min(to, newest)
    try:
        while verifier.difference is None and (to is None or verifier.version < end):
            limit = FOLD_PAGE if to is None else min(FOLD_PAGE, end - verifier.version)
            page = await reader.read_stream(stream, after=verifier.version, limit=limit)
            if not page:
                break
            verifier.add(page)
    except CorruptLogError as error:
        verifier._differs("fold", int(error.fields.get("version") or verifier.version + 1), "an undamaged event", error.message)
    if to is None:
        verifier.end()
    return verifier.check()


async def verify_states(
    reader: LogReader, registry: Registry | None, live: AskLive | None = None, *, gate: bool = False, upto: Positions | None = None
) -> AsyncIterator[StateCheck]:
    """`verify_state` of every stream, by name; upto: as of these positions, without streams that begin later."""
    async for info in streams(reader):
        to = None if upto is None else await _version_at(reader, info.stream, upto)
        if to != 0:
            yield await verify_state(reader, registry, info.stream, live, to=to, gate=gate)


async def _version_at(reader: LogReader, stream: StreamId, upto: Positions) -> int | None:
    """The last version of `stream` that stands within `upto`: 0 = none, None = all do."""
    newest = await reader.head(stream)
    if newest is None:
        return 0
    end = upto.get(shard_of(*parse_stream_id(stream), reader.shards), 0)
    if newest.position <= end:
        return None
    low, high = 0, int(newest.version)
    while low < high:
        middle = (low + high) // 2
        page = await reader.read_stream(stream, after=middle, limit=1)
        if page and page[0].position <= end:
            low = page[0].version
        else:
            high = middle
    return low
