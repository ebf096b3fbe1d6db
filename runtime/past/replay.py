"""All of a shard folded at once: the state of every actor in it (replay, not re-run: no effects)."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from actors.registry import ActorType, Registry
from events.facts import Fact
from events.ids import StreamId, parse_stream_id
from events.limits import PAGE_EVENTS_MAX
from events.store import LogReader, ScanReader
from runtime.turns.recovery import fold

Decode = Callable[[bytes], Any]


async def fold_shard(reader: ScanReader, registry: Registry, shard: int) -> dict[StreamId, Any]:
    """The state of every actor of `shard` that has one, from verified events and the code in `registry`.

    All states are in memory at the end, so this is for logs whose states fit there. Actors whose type the registry lacks are left out.

    Raises:
        CorruptLogError: an event does not verify, or does not fit its type. UnknownEventTypeError: the code does not know it.
    """
    plain: dict[str, Decode] = {tag: decode for kind in registry.types.values() for tag, decode in kind.plain.items()}
    states: dict[StreamId, Any] = {}
    apart: dict[StreamId, ActorType[Any]] = {}
    """Streams that take more than their payloads: older schema versions, sealed or erased events, a beginning elsewhere."""

    def take(facts: Sequence[Fact]) -> None:
        for _, stream, tag, payload in facts:
            state = states.get(stream)
            if state is None:
                kind = registry.types.get(parse_stream_id(stream)[0])
                if kind is None:
                    continue
                state = states[stream] = kind.initial()
            try:
                fact = None if payload is None else plain[tag](payload)
            except (msgspec.DecodeError, UnicodeDecodeError):
                fact = None  # the ordinary way says what is wrong with it
            if fact is None:
                apart[stream] = registry.types[parse_stream_id(stream)[0]]
            elif not apart or stream not in apart:
                fact.apply(state)

    await reader.scan(shard, plain, take)
    for stream, kind in apart.items():
        states[stream] = await _folded(reader, kind, stream)
    return states


async def _folded(reader: LogReader, kind: ActorType[Any], stream: StreamId) -> Any:
    state, version = kind.initial(), 0
    while page := await reader.read_stream(stream, after=version, limit=PAGE_EVENTS_MAX):
        state, version = fold(kind, page, state=state, after=version)
    return state
