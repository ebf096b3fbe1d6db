"""One thread in memory: what its events fold to. Nothing in here reads or writes anything (S38).

Values are kept as the JSON that was recorded. A list that only ever grew is a chain of what was appended; it becomes one text when asked
for.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeVar

import msgspec
from msgspec import UNSET

from actors.graph import recorded
from actors.graph.folding import Folded
from actors.graph.packing import Packer
from events.errors import CorruptLogError

T = TypeVar("T")
WriteKey = tuple[str, int]
"""(task, index): what a write is known by on its checkpoint."""
Versions = dict[str, int | float | str]
Place = tuple[str, str]
"""(namespace, checkpoint id)"""
NODE_BYTES: Final = 2_000
"""About what a checkpoint takes in memory beside its values."""


class Value:
    """The value of a channel. Immutable in what it says."""

    __slots__ = ("_base", "_text", "_whole")

    def __init__(self, text: bytes, base: "Value | None" = None) -> None:
        self._base = base
        self._text = text
        """All of it; with a base, the JSON list of what was appended."""
        self._whole: bytes | None = None

    @property
    def is_whole(self) -> bool:
        return self._base is None

    def grown(self) -> "tuple[Value, bytes] | None":
        """The list that this one grew from, and the JSON list of what was appended; None if it is told as a whole."""
        return None if self._base is None else (self._base, self._text)

    def text(self) -> bytes:
        """All of it as JSON."""
        if self._base is None:
            return self._text
        if self._whole is not None:
            return self._whole
        chunks = [self._text[1:]]
        value = self._base
        while value._base is not None:
            chunks.append(value._text[1:-1])
            value = value._base
        chunks.append(value._text[:-1])
        return b",".join(reversed(chunks))

    def remember(self, text: bytes) -> None:
        """`text` is all of it: kept for the next comparison, instead of that of the value before."""
        if self._base is not None:
            self._whole = text
            self._base._whole = None


class Write(msgspec.Struct, frozen=True):
    """A pending write of a task."""

    channel: str
    value: bytes
    path: str


class Checkpoint(msgspec.Struct, gc=True):
    """One checkpoint. metadata and rest hold packed JSON. home: version of the event that brought it into the stream: its own, or the one
    by which the thread became a copy of another. order: they were recorded in this order. at_us, text: `recorded.Saved.at_us` and `ts`."""

    id: str
    ns: str
    parent: str | None
    v: int
    at_us: int | None
    text: str | None
    values: dict[str, Value]
    versions: Versions
    seen: dict[str, Versions]
    metadata: dict[str, bytes]
    updated: list[str] | None
    rest: dict[str, bytes]
    home: int
    order: int
    shown: bool = True

    @property
    def ts(self) -> str | None:
        """LangGraph's field of that name; None if there was none."""
        return self.text if self.at_us is None else recorded.iso_of(self.at_us)


class ThreadState(Folded):
    """A thread as of `version` of its stream. Changed only by `apply`."""

    def __init__(self, thread_id: str, stream: str, packer: Packer) -> None:
        super().__init__(thread_id, stream, packer)
        self.claim = 0
        self.life = 0
        """How often it began anew: it was deleted, or told anew as what is left of it."""
        self._recorded = 0
        self._held = 0
        """How many checkpoints are in memory."""
        self._checkpoints: dict[str, dict[str, Checkpoint]] = {}
        self._writes: dict[Place, dict[WriteKey, Write]] = {}
        self._homes: dict[int, list[Place]] = {}
        self._newest: dict[str, Checkpoint] = {}
        """Per namespace, what an event without a parent means: the last recorded, shown or not."""

    @property
    def thread_id(self) -> str:
        return self.name

    def first_words(self) -> list[tuple[msgspec.Struct, str | None]]:
        """The thread's own id, where it is not the name of its stream."""
        said = self.stream.partition("/")[2] != self.name
        return [(recorded.Thread(thread=self.name), self.name)] if said else []

    @property
    def bytes(self) -> int:
        return self.packer.parts.bytes + NODE_BYTES * self._held

    # What there is

    def namespaces(self) -> list[str]:
        return list(self._checkpoints)

    def checkpoints(self, ns: str) -> Iterator[Checkpoint]:
        """Those of a namespace that are shown, newest first: in the order in which they were first recorded, whatever their ids say."""
        return (each for each in reversed(list(self._checkpoints.get(ns, {}).values())) if each.shown)

    def every(self, ns: str) -> Iterator[Checkpoint]:
        """Those of a namespace, shown or not, in the order in which they were first recorded."""
        return iter(list(self._checkpoints.get(ns, {}).values()))

    def find(self, ns: str, checkpoint_id: str | None) -> Checkpoint | None:
        """A checkpoint that is shown, or the newest of the namespace."""
        if checkpoint_id is None:
            return next(self.checkpoints(ns), None)
        found = self._checkpoints.get(ns, {}).get(checkpoint_id)
        return found if found is not None and found.shown else None

    def any(self, ns: str, checkpoint_id: str) -> Checkpoint | None:
        """A checkpoint that was recorded, shown or not: values may be told as a difference from it."""
        return self._checkpoints.get(ns, {}).get(checkpoint_id)

    def at_home(self, version: int) -> list[Place]:
        """The checkpoints that the event of that version brought into the stream, shown or not."""
        return self._homes.get(version, [])

    def newest(self, ns: str) -> Checkpoint | None:
        return self._newest.get(ns)

    def writes(self, ns: str, checkpoint_id: str) -> dict[WriteKey, Write]:
        return self._writes.get((ns, checkpoint_id), {})

    def places_written(self) -> list[Place]:
        """Where something was written on, also on checkpoints that were not saved."""
        return list(self._writes)

    def is_empty(self) -> bool:
        return not any(each.shown for by_id in self._checkpoints.values() for each in by_id.values())

    def hides(self) -> bool:
        """Whether a checkpoint is in memory that is not shown."""
        return not all(each.shown for by_id in self._checkpoints.values() for each in by_id.values())

    def has_writes(self) -> bool:
        return bool(self._writes)

    # Folding

    def apply(self, event: Any, home: int) -> None:
        """One event, read or about to be written."""
        if isinstance(event, recorded.Saved):
            self.add_parts(event)
            self._save(event, home)
        elif isinstance(event, recorded.Writes):
            self.add_parts(event)
            self._write(event)
        elif isinstance(event, recorded.PartsAdded):
            self.add_parts(event)
        elif isinstance(event, recorded.Claimed):
            self.claim = max(self.claim, event.owner)  # never back: a handle that lost stays lost
        elif isinstance(event, recorded.Removed):
            for ns, checkpoint_id in event.checkpoints:
                self._hide(ns, checkpoint_id)
        elif isinstance(event, recorded.Deleted | recorded.Rebased):
            self._clear()

    def _clear(self) -> None:
        self._checkpoints, self._writes, self._newest, self._homes = {}, {}, {}, {}
        self._held = 0
        # Not emptied: somebody may be about to unpack what it packed.
        self.packer = self.packer.fresh()
        self.life += 1
        self.said = 0

    def _save(self, event: recorded.Saved, home: int) -> None:
        newest = self._newest.get(event.ns)
        parent_id = (newest.id if newest is not None else None) if event.parent is UNSET else event.parent
        base = None if parent_id is None else self.any(event.ns, parent_id)
        values = {} if base is None else dict(base.values)
        for channel in event.gone:
            values.pop(channel, None)
        for channel, raw in event.set.items():
            values[channel] = Value(bytes(raw))
        for channel, raw in event.append.items():
            before = values.get(channel)
            if before is None:
                raise CorruptLogError(f"{self.stream}: {event.id} appends to {channel!r}, which has no value", stream=self.stream)
            values[channel] = Value(self.packer.resolved(bytes(raw)), self._list(before))
        checkpoint = Checkpoint(
            event.id, event.ns, parent_id, event.v, event.at_us, event.ts, values,
            _changed({} if base is None else base.versions, event.versions, event.versions_gone),
            _seen({} if base is None else base.seen, event),
            _changed({} if base is None else base.metadata, {key: bytes(raw) for key, raw in event.metadata.items()}, event.metadata_gone),
            event.updated_channels(),
            {key: bytes(raw) for key, raw in event.rest.items()}, home, self._recorded,
            not (isinstance(event, recorded.Kept) and event.hidden),
        )  # fmt: skip
        self._recorded += 1
        # One that is saved again keeps its place in the order, and its home.
        former = self.any(event.ns, event.id)
        if former is not None:
            checkpoint.home, checkpoint.order = former.home, former.order
        else:
            self._held += 1
            self._homes.setdefault(home, []).append((event.ns, event.id))
        self._checkpoints.setdefault(event.ns, {})[event.id] = checkpoint
        self._newest[event.ns] = checkpoint

    def _list(self, value: Value) -> Value:
        """`value` with its items standing in it, where all of it is a reference."""
        if not value.is_whole:
            return value
        text = value.text()
        resolved = self.packer.resolved(text)
        return value if resolved is text else Value(resolved)

    def _write(self, event: recorded.Writes) -> None:
        newest = self._newest.get(event.ns)
        checkpoint_id = (newest.id if newest is not None else "") if event.checkpoint is UNSET else event.checkpoint
        found = self._writes.setdefault((event.ns, checkpoint_id), {})
        for index, channel, raw in event.writes:
            found[event.task, index] = Write(channel, bytes(raw), event.path)

    def _hide(self, ns: str, checkpoint_id: str) -> None:
        # It and its writes stay in memory: what was recorded after it may be told as a difference from it, and a DeltaChannel reads back
        # through it.
        found = self.any(ns, checkpoint_id)
        if found is not None:
            found.shown = False


def _seen(before: dict[str, Versions], event: recorded.Saved) -> dict[str, Versions]:
    if not event.seen and not event.seen_gone:
        return before
    seen = {node: versions for node, versions in before.items() if node not in event.seen_gone} if event.seen_gone else dict(before)
    for node, versions in event.seen.items():
        seen[node] = {**seen.get(node, {}), **versions}
    return seen


def _changed(before: dict[str, T], new: dict[str, T], gone: Sequence[str]) -> dict[str, T]:
    if not new and not gone:
        return before
    return {**({key: item for key, item in before.items() if key not in gone} if gone else before), **new}
