"""`archive` and `erase` of one stream in memory: the same answers as `closing_sqlite`."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from events.closing import CLOSED_BY, Closed, Erasure
from events.codec import encode
from events.envelope import Kind, NewEvent, RecordedEvent
from events.errors import InvariantError, StreamBusyError, StreamClosedError, UnknownStreamError
from events.ids import StreamId, Version
from events.in_memory.content_memory import MemoryShardContent
from events.letters import LetterState
from events.store import Append, Head, InboxStatus


class Putting(Protocol):
    """The part of `store_memory.MemoryShard` that ends a stream."""

    shard: int

    def put(self, group: Append) -> Sequence[RecordedEvent]: ...


def archive_in(store: Putting, content: MemoryShardContent, stream: StreamId) -> Closed:
    """`ShardStore.archive`."""
    head = content.head(stream)
    if head is None:
        raise UnknownStreamError(f"the log has no stream {stream}", stream=stream)
    if head.status == "erased":
        raise StreamClosedError(f"{stream} is erased", stream=stream)
    if head.status == "archived":
        return _closed(store, head, already=True)
    open_ = (InboxStatus.QUEUED, InboxStatus.RUNNING)
    for what, count in (
        ("unfinished commands", sum(entry.stream == stream and entry.status in open_ for entry in content.inbox.values())),
        ("dead letters", sum(key[0] == stream and each.state is LetterState.DEAD for key, each in content.letters.items())),
        ("open waits", sum(key[0] == stream for key in content.waits)),
        ("sends that have not arrived", sum(key[0] == stream for key in content.outbox)),
    ):
        if count:
            raise StreamBusyError(f"{stream} has {count} {what}", stream=stream, count=count)
    timers = sorted(timer_id for name, timer_id in content.timers if name == stream)
    events = [NewEvent(type="timer.cancelled", kind=Kind.TIMER, payload=encode({"timer_id": timer_id})) for timer_id in timers]
    seal = {"version": head.version, "hash": head.hash.hex()}
    events.append(NewEvent(type="stream.archived", kind=Kind.CONTROL, payload=encode(seal)))
    return _end(store, content, stream, head.version, events, "archived", timers)


def erase_in(store: Putting, content: MemoryShardContent, stream: StreamId, requested_by: str) -> Closed:
    """`ShardStore.erase`."""
    head = content.head(stream)
    if head is None and not any(name == stream for _, name in content.inbox):
        raise UnknownStreamError(f"the log has no stream {stream}", stream=stream)
    key_ids = tuple(sorted(content.keys.get(stream, ())))
    if head is not None and head.status == "erased":
        return _closed(store, head, already=True, key_ids=key_ids)
    version = Version(0) if head is None else head.version
    content.statuses.pop(stream, None)
    said = {"version": version, "key_ids": list(key_ids), "by": requested_by}
    event = NewEvent(type="stream.erased", kind=Kind.CONTROL, payload=encode(said))
    clear = [found for found in content.streams.get(stream, []) if found.key_id is None and found.salt is not None]
    for found in clear:
        nothing = {"payload": msgspec.Raw(b"null"), "salt": None, "summary": None, "error": None, "state_hash": None}
        _replace(content, found, msgspec.structs.replace(found, **nothing))
    content.snapshots.pop(stream, None)
    content.outbox = {key: send for key, send in content.outbox.items() if key[0] != stream}
    content.timers = {key: timer for key, timer in content.timers.items() if key[0] != stream}
    content.waits = {key: wait for key, wait in content.waits.items() if key[0] != stream}
    content.letters = {key: letter for key, letter in content.letters.items() if key[0] != stream}
    content.stopped.pop(stream, None)
    content.inbox = {key: entry for key, entry in content.inbox.items() if key[1] != stream}
    closed = _end(store, content, stream, version, [event], "erased", (), key_ids)
    is_plain = not key_ids or any(found.type not in CLOSED_BY for found in clear)
    content.erasures[stream] = Erasure(stream=stream, requested_by=requested_by, key_ids=key_ids, is_plain=is_plain)
    return closed


def _replace(content: MemoryShardContent, old: RecordedEvent, new: RecordedEvent) -> None:
    content.events[old.position - 1] = new
    events = content.streams[old.stream]
    events[old.version - 1] = new


def _end(
    store: Putting, content: MemoryShardContent, stream: StreamId, version: Version, events: Sequence[NewEvent], status: str,
    timers: Sequence[str], key_ids: Sequence[str] = (),
) -> Closed:  # fmt: skip
    group = Append(stream=stream, expected_version=version, command_id=None, events=events, timers_gone=timers)
    recorded = store.put(group)
    content.statuses[stream] = status
    head = content.head(stream)
    if head is None:
        raise InvariantError(f"{stream} has no event after its last one", stream=stream)
    return msgspec.structs.replace(_closed(store, head, already=False, key_ids=key_ids), events=tuple(recorded))


def _closed(store: Putting, head: Head, *, already: bool, key_ids: Sequence[str] = ()) -> Closed:
    return Closed(
        stream=head.stream, shard=store.shard, version=head.version, hash=head.hash.hex(), status=head.status, already=already,
        key_ids=tuple(key_ids),
    )  # fmt: skip
