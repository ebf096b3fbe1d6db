"""Two runs beside each other: where each stream first diverges, how the states differ, and what each side cost.

A side is a conversation (a correlation id) or one stream. Events are compared by what they say, not by when or under which id they say it:
times, ids, seeds and deadlines differ between any two runs and mean nothing.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from actors.errors import Unknown
from actors.journal import TURN_STARTED, Forked
from actors.registry import Registry
from events.envelope import Kind, RecordedEvent
from events.facts import FORKED
from events.ids import StreamId, parse_stream_id
from events.selection import correlated
from events.store import LogReader
from runtime.past.merging import merged
from runtime.past.states import json_patch, state_at

_PAGE: Final = 1_000
_IDS_AND_TIMES: Final = frozenset({
    "command_id", "wait_id", "timer_id", "event_id", "correlation_id", "causation_id", "idempotency_key", "seed", "now_us", "due_us",
    "expires_at_us", "opened_at_us", "state_version", "code_version", "deadline_ms", "deadline_us", "missed", "stood",
})  # fmt: skip
"""Members of our own events (FORMAT.md 7) that differ in every run."""
_TOKENS_IN: Final = ("input_tokens", "prompt_tokens")
_TOKENS_OUT: Final = ("output_tokens", "completion_tokens")


class Usage(msgspec.Struct, kw_only=True):
    """What a side took. elapsed_us: from its first to its last event; step_us: sum over its finished effects.

    Tokens and cost are those that step results state (``usage`` or ``usage_metadata`` with input and output tokens, ``cost_usd``); 0 where
    none does.
    """

    events: int = 0
    turns: int = 0
    steps: int = 0
    failures: int = 0
    elapsed_us: int = 0
    step_us: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two runs, with what it took in all and per stream."""

    name: str
    usage: Usage
    streams: dict[str, Usage]


class Divergence(msgspec.Struct, frozen=True, kw_only=True):
    """The first place where two streams say different things. what: type | payload | error | end (one side has no more events).

    patch: how the right payload differs from the left one (RFC 6902), where both have one.
    """

    what: str
    left: RecordedEvent | None
    right: RecordedEvent | None
    patch: list[dict[str, Any]] | None = None


class StreamPair(msgspec.Struct, frozen=True, kw_only=True):
    """Two streams that stand for each other; None where one side has none. same: how many events they begin with alike.

    state_patch: from the left to the right state after the last event of each; None where there is no code or only one stream.
    """

    left: StreamId | None
    right: StreamId | None
    same: int
    divergence: Divergence | None
    state_patch: list[dict[str, Any]] | None = None
    note: str | None = None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """streams: in the order in which they appear. first: the earliest divergence by logical time, None if both are alike."""

    left: Side
    right: Side
    streams: list[StreamPair]
    first: StreamPair | None


async def compare(reader: LogReader, registry: Registry | None, left: str, right: str) -> Comparison:
    """Compare two conversations, or two streams, of one log.

    Raises:
        Unknown: nothing is recorded under one of the names.
    """
    sides = [await _events(reader, name) for name in (left, right)]
    by_stream = [_grouped(side) for side in sides]
    names = _pairs(by_stream[0], by_stream[1])
    known_as = {str(one): f"stream {index}" for index, pair in enumerate(names) for one in pair if one is not None}
    pairs = [
        await _pair(reader, registry, known_as, (a, by_stream[0].get(a or "", [])), (b, by_stream[1].get(b or "", []))) for a, b in names
    ]
    apart = [pair for pair in pairs if pair.divergence is not None]
    return Comparison(
        left=_side(left, by_stream[0]),
        right=_side(right, by_stream[1]),
        streams=pairs,
        first=min(apart, key=_when, default=None),
    )


def _when(pair: StreamPair) -> int:
    divergence = pair.divergence
    events = [] if divergence is None else [event for event in (divergence.left, divergence.right) if event is not None]
    return events[0].time if events else 0


async def _events(reader: LogReader, name: str) -> list[RecordedEvent]:
    if (stream := await _stream(reader, name)) is None:
        found = [event async for event in merged(reader, correlated(name))]
        if not found:
            raise Unknown(f"there is neither a stream nor a conversation {name}", name=name)
        return await _with_parents(reader, found)
    events: list[RecordedEvent] = []
    while page := await reader.read_stream(stream, after=int(events[-1].version) if events else 0, limit=_PAGE):
        events.extend(page)
    return await _with_parents(reader, events)


async def _with_parents(reader: LogReader, events: list[RecordedEvent]) -> list[RecordedEvent]:
    """`events` with what their forks share with their parents instead of the beginning of each fork (S33): of a conversation only its own
    events, of a stream all. What is shared stands under the name of the fork."""
    found: list[RecordedEvent] = []
    for event in events:
        if event.type != FORKED:
            found.append(event)
            continue
        fork = msgspec.json.decode(event.payload, type=Forked)
        page: Sequence[RecordedEvent] = await _events(reader, fork.parent) if fork.version else []
        found.extend(
            msgspec.structs.replace(shared, stream=event.stream)
            for shared in page
            if shared.version <= fork.version and fork.correlation_id in (None, shared.correlation_id)
        )
    return found


async def _stream(reader: LogReader, name: str) -> StreamId | None:
    try:
        parse_stream_id(name)
    except ValueError:
        return None
    return None if await reader.head(StreamId(name)) is None else StreamId(name)


def _grouped(events: Sequence[RecordedEvent]) -> dict[str, list[RecordedEvent]]:
    grouped: dict[str, list[RecordedEvent]] = defaultdict(list)
    for event in events:
        grouped[event.stream].append(event)
    return dict(grouped)


def _pairs(
    left: Mapping[str, list[RecordedEvent]], right: Mapping[str, list[RecordedEvent]]
) -> list[tuple[StreamId | None, StreamId | None]]:
    """Which stream stands for which: the same one, a fork for its parent, else those of one actor type in their order."""
    free, found = dict.fromkeys(right), dict[str, str | None]()
    for match in (_same, _fork, _type):
        for a in left:
            if a in found:
                continue
            b = next((name for name in free if match(a, name, left[a], right[name])), None)
            if b is not None:
                found[a] = b
                del free[b]
    pairs: list[tuple[StreamId | None, StreamId | None]] = []
    for a in left:
        b = found.get(a)
        pairs.append((StreamId(a), None if b is None else StreamId(b)))
    return [*pairs, *((None, StreamId(b)) for b in free)]


def _same(a: str, b: str, _left: Sequence[RecordedEvent], _right: Sequence[RecordedEvent]) -> bool:
    return a == b


def _fork(a: str, b: str, left: Sequence[RecordedEvent], right: Sequence[RecordedEvent]) -> bool:
    parents = {(event.parent or "").partition("@")[0] for event in (*left, *right)} - {""}
    return bool({a, b} & parents) or (len(parents) == 1 and left[0].parent is not None and right[0].parent is not None)


def _type(a: str, b: str, _left: Sequence[RecordedEvent], _right: Sequence[RecordedEvent]) -> bool:
    return parse_stream_id(a)[0] == parse_stream_id(b)[0]


async def _pair(
    reader: LogReader,
    registry: Registry | None,
    known_as: Mapping[str, str],
    left: tuple[StreamId | None, list[RecordedEvent]],
    right: tuple[StreamId | None, list[RecordedEvent]],
) -> StreamPair:
    same, divergence = _first_difference(known_as, left[1], right[1])
    patch, note = None, None
    if left[0] is not None and right[0] is not None:
        views = [
            await state_at(reader, registry, stream, int(events[-1].version))
            for stream, events in ((left[0], left[1]), (right[0], right[1]))
        ]
        note = views[0].note
        patch = json_patch(views[0].state, views[1].state) if note is None else None
    return StreamPair(left=left[0], right=right[0], same=same, divergence=divergence, state_patch=patch, note=note)


def _first_difference(
    known_as: Mapping[str, str], left: Sequence[RecordedEvent], right: Sequence[RecordedEvent]
) -> tuple[int, Divergence | None]:
    for index in range(max(len(left), len(right))):
        a = left[index] if index < len(left) else None
        b = right[index] if index < len(right) else None
        if a is None or b is None:
            return index, Divergence(what="end", left=a, right=b)
        if (a.type, a.schema_version, a.kind) != (b.type, b.schema_version, b.kind):
            return index, Divergence(what="type", left=a, right=b)
        said = [_meaning(event, known_as) for event in (a, b)]
        if said[0] != said[1]:
            return index, Divergence(what="payload", left=a, right=b, patch=json_patch(*said))
        if a.error != b.error:
            return index, Divergence(what="error", left=a, right=b)
    return len(left), None


def _meaning(event: RecordedEvent, known_as: Mapping[str, str]) -> Any:
    """The payload without what differs in every run, and with each stream under the name that both sides know it by."""
    payload = msgspec.json.decode(event.payload)
    if event.kind is Kind.STATE:
        return payload
    return _plain(payload, known_as)


def _plain(value: Any, known_as: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner, known_as) for key, inner in value.items() if key not in _IDS_AND_TIMES}
    if isinstance(value, list):
        return [_plain(inner, known_as) for inner in value]
    if isinstance(value, str):
        # A stream as such, or as the first part of an ask's name, TYPE/ID.METHOD.
        stream, dot, method = value.partition(".")
        return f"{known_as[stream]}{dot}{method}" if stream in known_as else value
    return value


# -- sums ---------------------------------------------------------------------------------------------------------------------------------


def _side(name: str, by_stream: Mapping[str, list[RecordedEvent]]) -> Side:
    every = sorted((event for events in by_stream.values() for event in events), key=lambda event: event.time)
    return Side(name=name, usage=usage_of(every), streams={stream: usage_of(events) for stream, events in by_stream.items()})


def usage_of(events: Sequence[RecordedEvent]) -> Usage:
    """The sums over `events`, given in the order of their times."""
    found = Usage(events=len(events), elapsed_us=events[-1].time - events[0].time if events else 0)
    turns: set[tuple[str, str | None]] = set()
    began: dict[tuple[Any, ...], int] = {}
    for event in events:
        turns.add((event.stream, event.command_id))
        found.failures += event.error is not None and event.type != TURN_STARTED
        if event.kind is not Kind.STEP:
            continue
        payload = msgspec.json.decode(event.payload)
        effect, _, outcome = event.type.partition(".")
        use = (event.stream, event.command_id, effect, payload.get("name"), payload.get("key"), payload.get("n"))
        if outcome == "started":
            began[use] = event.time
            continue
        found.step_us += event.time - began.pop(use, event.time)
        found.steps += effect == "step"
        if event.type == "step.completed":
            _add_tokens(found, payload.get("result"))
    found.turns = len(turns)
    return found


def _add_tokens(found: Usage, result: Any) -> None:
    if not isinstance(result, dict):
        return
    usage = result.get("usage_metadata") or result.get("usage") or {}
    if isinstance(usage, dict):
        found.input_tokens += next((int(usage[name]) for name in _TOKENS_IN if isinstance(usage.get(name), int)), 0)
        found.output_tokens += next((int(usage[name]) for name in _TOKENS_OUT if isinstance(usage.get(name), int)), 0)
    for place in (result, usage):
        if isinstance(place, dict) and isinstance(cost := place.get("cost_usd"), int | float):
            found.cost_usd += float(cost)
            return
