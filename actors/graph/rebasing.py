"""What is left of a thread, told anew: nothing in it refers to what was said before, so that can go (S38).

Checkpoints are stored as what is different from their parents, and content once for all that refer to it. So one that is removed goes on
taking room as long as others are told by it. A rebase is one `graph.rebased` and, in the same transaction, all that is left, as if the
thread had begun with it; `freeing_sqlite` removes what was said before in that transaction too.

Values stay packed: what a program did not register, or registers no more, is told anew all the same.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

from actors.graph import recorded
from actors.graph.difference import different, event_of, parts_before, tell_seen
from actors.graph.kinds import KEY
from actors.graph.packing import LONG_JSON, Packer
from actors.graph.thread_state import Checkpoint, Place, ThreadState, Value
from events.envelope import NewEvent

GAIN_MIN: Final = 0.25
"""Of what a thread stores: a rebase writes what is left, so below that it costs more than it gives. So what is left takes at least three
quarters of the room, and each byte is told anew a few times at most, however often somebody prunes."""
ROW_BYTES: Final = 400
"""What an event takes in the file beside its payload, and keeps when that is removed."""
_MARK: Final = b'"~":'
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder().decode


def rebase(state: ThreadState, gone: Collection[Place], why: str, room: int) -> list[NewEvent]:
    """The events that tell `state` anew without `gone`, and `state` as if they were recorded; none, and `state` as it was, if that would
    not save a quarter of `room`.

    If they are not recorded, `state` must be thrown away.

    Args:
        gone: checkpoints that are shown and should not be any more.
        room: bytes of payload that can be removed then.

    Raises:
        EncodingError: an event would be larger than the log takes (S12).
    """
    if room <= ROW_BYTES:
        return []
    told = _Telling(state, frozenset(gone)).all()
    said: list[tuple[msgspec.Struct, int]] = [(recorded.Rebased(why=why, gone=len(gone)), 0), *told]
    events = [event_of(struct, _summary(struct)) for struct, _ in said]
    if sum(len(event.payload) + ROW_BYTES for event in events) > (1 - GAIN_MIN) * room:
        return []
    for number, (struct, home) in enumerate(said, 1):
        state.apply(struct, home or state.version + number)
    state.version += len(events)
    state.said += sum(len(event.payload) for event in events)
    return events


def _summary(struct: msgspec.Struct) -> str | None:
    if isinstance(struct, recorded.Rebased):
        return f"{struct.why}: {struct.gone} checkpoints, and what was said before"
    return None


class _Mover:
    """Packed values of one thread as those of another, in which parts have other numbers. Only what is moved becomes a part there."""

    def __init__(self, source: Packer, target: Packer) -> None:
        self._source = source
        self._target = target
        self._numbers: dict[int, int] = {}

    def text(self, text: bytes) -> bytes:
        """`text` with the numbers of the other thread."""
        return _encode(self._walk(_decode(text))) if _MARK in text else text

    def shared(self, text: bytes) -> bytes:
        """As `text`, but a reference if it is large."""
        return self._target.reference(self.text(text))

    def _walk(self, packed: Any) -> Any:
        cls = type(packed)
        if cls is list:
            return [self._walk(item) for item in packed]
        if cls is not dict:
            return packed
        name = packed.get(KEY)
        if type(name) is int:
            return {KEY: self._part(name)}
        if name == LONG_JSON:
            # Its chunks are strings, and a reference may lie across the seam of two.
            return _decode(self.shared(self._source.joined(packed).encode()))
        return {key: self._walk(item) for key, item in packed.items()}

    def _part(self, number: int) -> int:
        moved = self._numbers.get(number)
        if moved is None:
            moved = self._numbers[number] = self._target.parts.number(self.text(self._source.parts.text(number)))
        return moved


class _Telling:
    """Of one rebase. What is told is folded at once into a thread of its own, so that the next is told as what differs from that."""

    def __init__(self, state: ThreadState, gone: Collection[Place]) -> None:
        self._state = state
        self._gone = gone
        self._anew = ThreadState(state.name, state.stream, state.packer.fresh())
        self._move = _Mover(state.packer, self._anew.packer)
        self._said: list[tuple[recorded.Kept | recorded.Writes, int]] = []

    def all(self) -> list[tuple[msgspec.Struct, int]]:
        """Each with its home, or 0; parts before whatever refers to them."""
        read_through = self._read_through()
        left = [each for each in self._everything() if self._is_shown(each) or (each.ns, each.id) in read_through]
        for each in sorted(left, key=lambda each: each.order):
            channels = None if self._is_shown(each) else read_through[each.ns, each.id]
            self._tell(self._checkpoint(each, channels, read_through), each.home)
            self._tell_writes((each.ns, each.id), channels)
        for ns, checkpoint_id in self._state.places_written():
            if self._state.any(ns, checkpoint_id) is None:  # it may come yet
                self._tell_writes((ns, checkpoint_id), None)
        if not self._said:
            return []
        return [*((each, 0) for each in parts_before(self._said[0][0], self._anew.packer.parts.since(0), 0)), *self._said]

    def _tell(self, struct: recorded.Kept | recorded.Writes, home: int) -> None:
        self._anew.apply(struct, home)
        self._said.append((struct, home))

    def _everything(self) -> Iterator[Checkpoint]:
        return (each for ns in self._state.namespaces() for each in self._state.every(ns))

    def _is_shown(self, each: Checkpoint) -> bool:
        return each.shown and (each.ns, each.id) not in self._gone

    def _read_through(self) -> dict[Place, set[str]]:
        """The checkpoints that are not shown and that one which is shown needs: a channel that has a version there and no value is read
        back through its ancestors to the nearest value (DeltaChannel). With each the channels that are read in it."""
        found: dict[Place, set[str]] = {}
        beyond: dict[tuple[Place, str], bool] = {}
        for each in self._everything():
            if self._is_shown(each):
                for channel in each.versions:
                    if channel not in each.values:
                        self._walk_back(each, channel, found, beyond)
        return found

    def _walk_back(self, each: Checkpoint, channel: str, found: dict[Place, set[str]], beyond: dict[tuple[Place, str], bool]) -> None:
        path = [each]
        while path[-1].parent is not None and channel not in path[-1].values:
            above = self._state.any(each.ns, path[-1].parent)
            if above is None:
                break
            path.append(above)
            if ((above.ns, above.id), channel) in beyond:
                break
        says = False
        for above, below in zip(reversed(path), reversed(path[:-1]), strict=False):
            place = (above.ns, above.id)
            says = beyond.get((place, channel), says)
            if channel in above.values or any(write.channel == channel for write in self._state.writes(*place).values()):
                says = True
                if not self._is_shown(above):
                    found.setdefault(place, set()).add(channel)
            beyond[place, channel] = says
            if says and self._is_shown(below) and not self._is_shown(above):
                found.setdefault(place, set())  # it names its parent, so that must be there to go on from

    def _parent(self, each: Checkpoint, read_through: Mapping[Place, set[str]]) -> str | None:
        """What is read after it on the way back. One that is shown names its own parent, whether that is left or not."""
        parent_id = each.parent
        while not self._is_shown(each) and parent_id is not None:
            above = self._state.any(each.ns, parent_id)
            if above is None or self._is_shown(above) or (each.ns, parent_id) in read_through:
                break
            parent_id = above.parent
        return parent_id

    def _checkpoint(self, each: Checkpoint, channels: set[str] | None, read_through: Mapping[Place, set[str]]) -> recorded.Kept:
        parent_id = self._parent(each, read_through)
        newest = self._anew.newest(each.ns)
        base = None if parent_id is None else self._anew.any(each.ns, parent_id)
        event = recorded.Kept(id=each.id, ns=each.ns, v=each.v, home=each.home, hidden=channels is not None)
        event.tell_time(each.ts)
        if parent_id != (None if newest is None else newest.id):
            event.parent = parent_id
        self._tell_values(event, each, base, channels)
        if channels is not None:
            return event
        event.versions, event.versions_gone = different({} if base is None else base.versions, each.versions)
        tell_seen(event, {} if base is None else base.seen, each.seen)
        metadata = {key: self._move.text(text) for key, text in each.metadata.items()}
        known = {} if base is None else base.metadata
        event.metadata = {key: Raw(text) for key, text in metadata.items() if known.get(key) != text}
        event.metadata_gone = [key for key in known if key not in metadata]
        if each.updated != event.updated_channels():
            event.updated = None if each.updated is None else list(each.updated)
        event.rest = {key: Raw(self._move.text(text)) for key, text in each.rest.items()}
        return event

    def _tell_values(self, event: recorded.Kept, each: Checkpoint, base: Checkpoint | None, channels: set[str] | None) -> None:
        values = {channel: value for channel, value in each.values.items() if channels is None or channel in channels}
        before: Mapping[str, Value] = {} if base is None else base.values
        former = None if base is None or not base.shown else self._state.any(base.ns, base.id)
        packer = self._anew.packer
        for channel, value in values.items():
            was = None if former is None else former.values.get(channel)
            if was is value:
                continue
            items = None if was is None else self._grown(was, value)
            if items is not None:
                event.append[channel] = Raw(self._move.shared(items))
                continue
            text = self._move.shared(value.text())
            known = before.get(channel)
            if known is None or packer.resolved(known.text()) != packer.resolved(text):
                event.set[channel] = Raw(text)
        event.gone = [channel for channel in before if channel not in values]

    def _grown(self, was: Value, value: Value) -> bytes | None:
        """The items by which a list is more than it was, where that is how it is stored."""
        grown = value.grown()
        if grown is None:
            return None
        start, items = grown
        # One that was stored as a reference was resolved before it grew.
        same = start is was or (start.is_whole and was.is_whole and start.text() == self._state.packer.resolved(was.text()))
        return items if same else None

    def _tell_writes(self, place: Place, channels: set[str] | None) -> None:
        ns, checkpoint_id = place
        tasks: dict[tuple[str, str], list[tuple[int, str, Raw]]] = {}
        for (task, index), write in self._state.writes(ns, checkpoint_id).items():
            if channels is None or write.channel in channels:
                tasks.setdefault((task, write.path), []).append((index, write.channel, Raw(self._move.text(write.value))))
        newest = self._anew.newest(ns)
        for (task, path), rows in tasks.items():
            event = recorded.Writes(ns=ns, task=task, path=path, writes=rows)
            if newest is None or newest.id != checkpoint_id:
                event.checkpoint = checkpoint_id
            self._tell(event, 0)
