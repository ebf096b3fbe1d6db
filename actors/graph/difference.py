"""What a write of LangGraph's changes about a thread, as the events that will be recorded (S38).

Storage grows with what is new: a list that grew is its new items, a channel that stayed as it was is not mentioned, content that stands in
the thread already is a reference.
"""

from collections.abc import Callable, Mapping, Sequence
from operator import is_
from typing import Any, Final

import msgspec
from langgraph.checkpoint.base import WRITES_IDX_MAP
from msgspec import Raw

from actors.graph import recorded
from actors.graph.folding import Folded
from actors.graph.packing import Packer
from actors.graph.thread_state import Checkpoint, ThreadState, Value, Versions
from events.envelope import NewEvent
from events.errors import EncodingError
from events.limits import EVENT_BYTES_MAX, SUMMARY_BYTES_MAX

PARTS_BYTES: Final = EVENT_BYTES_MAX // 2
"""Of one event: what else it says fits the other half (S12)."""
_KNOWN: Final = frozenset({"v", "id", "ts", "channel_values", "channel_versions", "versions_seen", "updated_channels"})
_TAG_OF: Final[dict[type, str]] = {
    recorded.Saved: recorded.SAVED, recorded.Writes: recorded.WRITES, recorded.PartsAdded: recorded.PARTS,
    recorded.Claimed: recorded.CLAIMED, recorded.Removed: recorded.REMOVED, recorded.Deleted: recorded.DELETED,
    recorded.Rebased: recorded.REBASED, recorded.Kept: recorded.KEPT,
    recorded.Copied: recorded.COPIED, recorded.Thread: recorded.THREAD, recorded.ItemsChanged: recorded.ITEMS,
}  # fmt: skip
_encode: Final = msgspec.json.Encoder().encode


def write(state: Folded, build: Callable[[], Sequence[tuple[msgspec.Struct, str | None]]]) -> list[NewEvent]:
    """The events that `build` says, with the parts that they add; `state` is as if they were recorded.

    If they are not, `state` must be thrown away. If this raises, it is as before.

    Args:
        build: events in order, each with what is said of it to people.

    Raises:
        EncodingError: an event would be larger than the log takes (S12), or holds what JSON cannot carry.
    """
    mark = len(state.packer.parts)
    try:
        said = build()
        events: list[NewEvent] = []
        for struct, summary in said:
            if isinstance(struct, recorded._Recorded) and len(state.packer.parts) > mark:
                for some in parts_before(struct, state.packer.parts.since(mark), mark):
                    events.append(event_of(some, None))
                mark = len(state.packer.parts)
            events.append(event_of(struct, summary))
    except BaseException:
        state.packer.take_back(mark)
        raise
    version = state.version + len(events) - len(said)
    for number, (struct, _) in enumerate(said, 1):
        state.apply(struct, version + number)
    state.version += len(events)
    for event in events:
        state.said += len(event.payload)
    return events


def parts_before(struct: recorded._Recorded, parts: Sequence[bytes], first: int) -> list[recorded.PartsAdded]:
    """Gives `struct` the last of `parts`; what is too much for one event comes as events before it."""
    before: list[recorded.PartsAdded] = []
    some: list[Raw] = []
    size = 0
    for text in parts:
        if size + len(text) > PARTS_BYTES and some:
            before.append(recorded.PartsAdded(first=first, parts=some))
            first += len(some)
            some, size = [], 0
        some.append(Raw(text))
        size += len(text)
    if some:
        struct.first, struct.parts = first, some
    return before


def event_of(struct: msgspec.Struct, summary: str | None) -> NewEvent:
    """`struct` as it is recorded, with what is said of it to people.

    Raises:
        EncodingError: it would be larger than the log takes (S12), or holds what JSON cannot carry.
    """
    try:
        payload = _encode(struct)
    except (UnicodeEncodeError, ValueError, TypeError) as error:
        raise EncodingError(f"a name in the checkpoint cannot be stored: {error}") from error
    if len(payload) > EVENT_BYTES_MAX:
        raise EncodingError(f"an event of {len(payload)} bytes is larger than the {EVENT_BYTES_MAX} that the log takes (S12)")
    if summary is not None and len(summary.encode(errors="replace")) > SUMMARY_BYTES_MAX:
        summary = summary.encode(errors="replace")[: SUMMARY_BYTES_MAX - 3].decode(errors="ignore") + "…"
    return NewEvent(type=_TAG_OF[type(struct)], payload=payload, summary=summary)


def saved(
    state: ThreadState, ns: str, parent_id: str | None, checkpoint: Mapping[str, Any], metadata: Mapping[str, Any],
    new_versions: Mapping[str, Any], texts: dict[str, bytes],
) -> tuple[recorded.Saved, str]:  # fmt: skip
    """A checkpoint as what is different from its parent. texts: filled with the whole text of each list that grew."""
    packer = state.packer
    base = None if parent_id is None else state.any(ns, parent_id)
    newest = state.newest(ns)
    event = recorded.Saved(id=checkpoint["id"], ns=ns, v=checkpoint.get("v", 4))
    event.tell_time(checkpoint.get("ts"))
    if parent_id != (None if newest is None else newest.id):
        event.parent = parent_id
    _tell_values(event, packer, base, checkpoint, new_versions, texts)
    versions: Versions = dict(checkpoint.get("channel_versions", {}))
    event.versions, event.versions_gone = different({} if base is None else base.versions, versions)
    tell_seen(event, {} if base is None else base.seen, checkpoint.get("versions_seen", {}))
    known = {} if base is None else base.metadata
    texts = {key: packer.shared(value) for key, value in metadata.items()}
    event.metadata = {key: Raw(text) for key, text in texts.items() if known.get(key) != text}
    event.metadata_gone = [key for key in known if key not in texts]
    updated = checkpoint.get("updated_channels")
    if updated != event.updated_channels():
        event.updated = None if updated is None else list(updated)
    event.rest = {key: Raw(packer.text(value)) for key, value in checkpoint.items() if key not in _KNOWN}
    return event, _said(event, metadata)


def _said(event: recorded.Saved, metadata: Mapping[str, Any]) -> str:
    changes = [*(f"{name} +" for name in event.append), *event.set, *(f"{name} -" for name in event.gone)]
    where = f"{event.ns} " if event.ns else ""
    return f"{where}{metadata.get('source', '')} {metadata.get('step', '')}: {', '.join(changes) or 'nothing new'}"


def _tell_values(
    event: recorded.Saved, packer: Packer, base: Checkpoint | None, checkpoint: Mapping[str, Any], new_versions: Mapping[str, Any],
    texts: dict[str, bytes],
) -> None:  # fmt: skip
    values: Mapping[str, Any] = checkpoint["channel_values"]
    versions: Mapping[str, Any] = checkpoint.get("channel_versions", {})
    before: Mapping[str, Value] = {} if base is None else base.values
    for channel, value in values.items():
        known = before.get(channel)
        if known is None:
            event.set[channel] = Raw(packer.shared(value))
        elif channel in new_versions or base is None or not _same(base.versions.get(channel), versions.get(channel)):
            _tell_value(event, packer, channel, known, value, texts)
    for channel in before:
        # A channel that is not given but keeps its version keeps its value, as in LangGraph's savers that store by version.
        if channel not in values and (channel in new_versions or channel not in versions):
            event.gone.append(channel)


def _tell_value(event: recorded.Saved, packer: Packer, channel: str, known: Value, value: Any, texts: dict[str, bytes]) -> None:
    text = packer.text(value)
    if type(value) is not list:
        text = packer.reference(text)
        if text != known.text():
            event.set[channel] = Raw(text)
        return
    old = packer.resolved(known.text()) if known.is_whole else known.text()
    if old == text:
        return
    if len(old) > 2 and old.startswith(b"[") and text.startswith(old[:-1]) and text[len(old) - 1] == _COMMA:
        event.append[channel] = Raw(packer.reference(b"[" + text[len(old) :]))
        texts[channel] = text
    else:
        event.set[channel] = Raw(packer.reference(text))


_COMMA: Final = ord(",")
_ABSENT: Final = object()


def tell_seen(event: recorded.Saved, before: Mapping[str, Versions], seen: Mapping[str, Mapping[str, Any]]) -> None:
    """Note in `event` what of LangGraph's ``versions_seen`` is not as before."""
    for node, versions in seen.items():
        known = before.get(node)
        if known is None:
            event.seen[node] = dict(versions)
            continue
        if known == versions and (all(map(is_, known.values(), versions.values())) or _types(known) == _types(versions)):
            continue  # nearly all of them
        new, gone = different(known, versions)
        if gone:
            event.seen_gone.append(node)
            event.seen[node] = dict(versions)
        elif new:
            event.seen[node] = new
    if not before.keys() <= seen.keys():
        event.seen_gone += [node for node in before if node not in seen]


def _types(versions: Mapping[str, Any]) -> list[type]:
    return list(map(type, versions.values()))


def different(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What `after` has that `before` has not, and the keys that it has no more."""
    find = before.get
    new = {key: value for key, value in after.items() if (known := find(key, _ABSENT)) is not value and not _same(known, value)}
    return new, [] if before.keys() <= after.keys() else [key for key in before if key not in after]


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def writes(
    state: ThreadState, ns: str, checkpoint_id: str, task: str, path: str, pairs: Sequence[tuple[str, Any]]
) -> tuple[recorded.Writes, None] | None:
    """Writes of a task that are new: one that is there stays, but those of the special channels are replaced. None if there is nothing."""
    known = state.writes(ns, checkpoint_id)
    newest = state.newest(ns)
    event = recorded.Writes(ns=ns, task=task, path=path, writes=[])
    if newest is None or newest.id != checkpoint_id:
        event.checkpoint = checkpoint_id
    for position, (channel, value) in enumerate(pairs):
        index = WRITES_IDX_MAP.get(channel, position)
        before = known.get((task, index))
        if before is not None and index >= 0:
            continue
        text = state.packer.shared(value)
        if before is None or (before.channel, before.value, before.path) != (channel, text, path):
            event.writes.append((index, channel, Raw(text)))
    if not event.writes:
        return None
    return event, None
