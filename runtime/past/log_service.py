"""``cue.log.<operation>``: the log for readers without its files, as bytes in and bytes out (S31). Knows no transport.

Every operation reads committed rows only and answers one page; ``next`` of a reply is what to send as ``after`` for the next page, null at
the end. Events leave in the one record shape.

  read     {stream, after: version} | {shard, after: position, before, backwards} | {positions: {shard: position}}; {filter, limit}
                                         -> {events, next, positions}; backwards: newest first, `next` is the next page's `before`
  state    {stream, version}             -> {stream, version, head, state, state_hash, note}
  diff     {stream, from, to}            -> {stream, from_version, to_version, patch, note}
  streams  {after: name, limit}          -> {streams, next}
  trace    {correlation_id, positions}   -> {events, next, positions}
  head     {} | {stream}                 -> {positions, shards, watermark: {time, shard, why}} | {stream, version, position, hash, status}
                                            watermark.time: the merged order is final up to there (S30), null = to the end
  command  {stream, command_id}          -> what is remembered of a command, without its arguments and reply
  under_way, letters, stopped {shard}    -> what the shard has yet to do, what failed there, which actors are stopped; no arguments
  formats  {shard}                       -> what was ever written to it (S7)
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from actors.errors import ActorError, BadPayload, HandlerFailed, TooLarge, Unavailable, Unknown
from actors.registry import Registry, field_of
from events.clock import Clock, SystemClock
from events.codec import decode_strict, encode
from events.envelope import RecordedEvent
from events.errors import CuebookError, EncodingError, TransientError
from events.ids import CommandId, StreamId, parse_stream_id
from events.limits import PAGE_EVENTS_MAX, REPLY_BYTES_MAX, SELECT_ROWS_MAX
from events.selection import Selection, correlated, matches
from events.store import LogReader
from runtime.past.filters import parse_filter
from runtime.past.merging import Merge, head
from runtime.past.states import diff, state_at
from runtime.past.watermark import FINAL, watermark_of

PAGE_BYTES_MAX: Final = REPLY_BYTES_MAX - 64 * 1024
SCANNED_MAX: Final = SELECT_ROWS_MAX
"""A filtered page ends after about so many events were looked at, found or not: one short read (S31), never the whole log at once."""

Count = Annotated[int, msgspec.Meta(ge=1, le=PAGE_EVENTS_MAX)]
Natural = Annotated[int, msgspec.Meta(ge=0)]
Places = dict[Natural, Natural]


class Read(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of: a stream by version, a shard by position, or all shards in merged order from `positions`."""

    stream: str | None = None
    shard: Natural | None = None
    after: Natural = 0
    before: Natural | None = None
    backwards: bool = False
    positions: Places | None = None
    filter: str = ""
    limit: Count = 100


class State(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    stream: str
    version: Natural | None = None


class Diff(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"from_version": "from", "to_version": "to"}):
    stream: str
    from_version: Natural
    to_version: Natural


class Streams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    after: str = ""
    limit: Count = PAGE_EVENTS_MAX


class Trace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    correlation_id: str
    positions: Places | None = None
    limit: Count = 100


class Command(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    stream: str
    command_id: str


class OfShard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    shard: Natural


class Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    stream: str | None = None


OPERATIONS: Final[Mapping[str, type[msgspec.Struct]]] = {
    "read": Read, "state": State, "streams": Streams, "trace": Trace, "head": Head, "diff": Diff, "command": Command,
    "under_way": OfShard, "formats": OfShard, "letters": OfShard, "stopped": OfShard,
}  # fmt: skip
"""Operation to its arguments: `msgspec.json.schema` of one is what ``$SRV`` endpoint metadata names."""


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Events and where to go on; `next` has the form of the request's `after` (or `positions`), None at the end.

    positions: how far a read of all shards looked, found or not: where a follower goes on after the end.
    """

    events: list[RecordedEvent]
    next: int | dict[int, int] | None
    positions: dict[int, int] | None = None


class LogService:
    """Answers ``cue.log`` from committed rows. Any process that can read the files may answer; ownership plays no part (S31)."""

    def __init__(self, reader: LogReader, registry: Registry | None, clock: Clock | None = None, *, data: Path | None = None) -> None:
        """
        Args:
            data: the folder of the deployment whose owners write the log; None = nobody does.
        """
        self._data = data
        self._reader = reader
        self._registry = registry
        self._clock = clock or SystemClock()
        self._handlers: dict[str, Callable[[Any], Awaitable[Any]]] = {
            "read": self._read, "state": self._state, "streams": self._streams, "trace": self._trace, "head": self._head,
            "diff": self._diff, "command": self._command, "under_way": self._under_way, "formats": self._formats,
            "letters": self._letters, "stopped": self._stopped,
        }  # fmt: skip

    async def handle(self, operation: str, body: bytes) -> bytes:
        """The JSON reply to one request; an empty body stands for no arguments. Changes nothing; safe to repeat.

        Raises:
            BadPayload: arguments that do not fit; names the field. Unknown: no such operation, stream or version.
            HandlerFailed: the log or the code does not fit what is recorded. TooLarge: a state or patch beyond 1 MiB.
            Unavailable: the files cannot be read right now.
        """
        if operation not in OPERATIONS:
            raise Unknown(f"cue.log has no operation {operation!r} (it has: {', '.join(OPERATIONS)})", method=operation)
        arguments = _arguments(OPERATIONS[operation], operation, body)
        try:
            reply = encode(await self._handlers[operation](arguments))
        except ActorError:
            raise
        except TransientError as error:
            raise Unavailable(error.message, retry_after_ms=500) from error
        except CuebookError as error:
            raise HandlerFailed(error.message, **error.fields) from error
        except Exception as error:  # a state is folded by the author's apply(), which may raise anything
            raise HandlerFailed(f"{operation} failed: {type(error).__name__}: {error}") from error
        # A page of one event may pass 1 MiB by its envelope: refusing it would stop every reader there for ever.
        if len(reply) > REPLY_BYTES_MAX and operation in ("state", "diff"):
            raise TooLarge(f"the answer of cue.log.{operation} has {len(reply):,} bytes, allowed are {REPLY_BYTES_MAX:,}")
        return reply

    async def _read(self, given: Read) -> Page:
        if sum(value is not None for value in (given.stream, given.shard, given.positions)) > 1:
            raise BadPayload("read: give one of stream, shard and positions", field="stream")
        wanted = parse_filter(given.filter, now_us=self._clock.wall_us())
        if given.stream is not None:
            page = await self._reader.read_stream(_stream(given.stream), after=given.after, limit=given.limit)
            kept, taken = _fitting([event for event in page if matches(wanted, event)], given.limit)
            ends = taken and len(page) < given.limit
            return Page(events=kept, next=None if ends else (page if taken else kept)[-1].version)
        if given.shard is not None:
            return await self._shard_page(given.shard, wanted, given)
        return await self._scan(dict(given.positions or {}), wanted, given.limit)

    async def _shard_page(self, shard: int, wanted: Selection, given: Read) -> Page:
        found = await self._reader.select(
            self._known(shard), wanted, after=given.after, before=given.before, limit=given.limit, backwards=given.backwards
        )
        kept, all_fit = _fitting(found.events, given.limit)
        upto = found.upto if all_fit else kept[-1].position
        return Page(events=kept, next=None if all_fit and found.end else upto, positions={shard: upto})

    async def _trace(self, given: Trace) -> Page:
        return await self._scan(dict(given.positions or {}), correlated(given.correlation_id), given.limit)

    async def _scan(self, start: dict[int, int], wanted: Selection, limit: int) -> Page:
        """One page of the merged order."""
        if any(shard >= self._reader.shards for shard in start):
            raise BadPayload(f"the log has shards 0 to {self._reader.shards - 1}", field="positions")
        merge = Merge(self._reader, wanted, after=start, looked_max=SCANNED_MAX)
        kept: list[RecordedEvent] = []
        place, size = start, 0
        while (event := await merge.next()) is not None:
            size += _size(event)
            if kept and (len(kept) >= limit or size > PAGE_BYTES_MAX):
                return Page(events=kept, next=place, positions=place)
            kept.append(event)
            place = start | merge.places()
        place = start | merge.places()
        return Page(events=kept, next=place if merge.stopped else None, positions=place)

    async def _state(self, given: State) -> Any:
        return await state_at(self._reader, self._registry, _stream(given.stream), given.version)

    async def _diff(self, given: Diff) -> Any:
        return await diff(self._reader, self._registry, _stream(given.stream), given.from_version, given.to_version)

    async def _streams(self, given: Streams) -> Any:
        found = await self._reader.streams(after=given.after, limit=given.limit)
        return {"streams": found, "next": found[-1].stream if len(found) == given.limit else None}

    async def _command(self, given: Command) -> Any:
        found = await self._reader.inbox(_stream(given.stream), CommandId(given.command_id))
        if found is None:
            raise Unknown(f"{given.stream} remembers no command {given.command_id}", stream=given.stream)
        return msgspec.structs.replace(found, args=None, reply=None)

    async def _under_way(self, given: OfShard) -> Any:
        found = await self._reader.under_way(self._known(given.shard))
        return msgspec.structs.replace(
            found,
            commands=[msgspec.structs.replace(entry, args=None) for entry in found.commands],
            sends=[msgspec.structs.replace(send, entry=msgspec.structs.replace(send.entry, args=b"{}")) for send in found.sends],
            timers=[msgspec.structs.replace(timer, args=b"{}") for timer in found.timers],
        )

    async def _formats(self, given: OfShard) -> Any:
        return await self._reader.formats(self._known(given.shard))

    async def _letters(self, given: OfShard) -> Any:
        return [msgspec.structs.replace(letter, args=None) for letter in await self._reader.letters(self._known(given.shard))]

    async def _stopped(self, given: OfShard) -> Any:
        return await self._reader.stopped(self._known(given.shard))

    def _known(self, shard: int) -> int:
        if shard >= self._reader.shards:
            raise BadPayload(f"the log has shards 0 to {self._reader.shards - 1}", field="shard")
        return shard

    async def _head(self, given: Head) -> Any:
        if given.stream is None:
            shards = [await self._reader.info(shard) for shard in range(self._reader.shards)]
            watermark = FINAL if self._data is None else await watermark_of(self._data, self._reader, clock=self._clock)
            return {"positions": await head(self._reader), "shards": shards, "watermark": watermark}
        newest = await self._reader.head(_stream(given.stream))
        if newest is None:
            raise Unknown(f"there is no stream {given.stream}", stream=given.stream)
        return {**msgspec.structs.asdict(newest), "hash": newest.hash.hex()}


def _arguments(kind: type[msgspec.Struct], operation: str, body: bytes) -> msgspec.Struct:
    body = body or b"{}"
    try:
        decode_strict(body)
        return msgspec.json.decode(body, type=kind)
    except (EncodingError, msgspec.ValidationError) as error:
        raise BadPayload(f"{operation}: {error}", field=field_of(error)) from error


def _stream(name: str) -> StreamId:
    try:
        parse_stream_id(name)
    except ValueError as error:
        raise BadPayload(str(error), field="stream") from error
    return StreamId(name)


def _size(event: RecordedEvent) -> int:
    """About how many bytes `event` takes in a reply; the envelope around the payload has at most some hundred and its own texts."""
    return len(bytes(event.payload)) + 1_024 + 4 * (len(event.summary or "") + len(event.error or ""))


def _fitting(events: Sequence[RecordedEvent], limit: int) -> tuple[list[RecordedEvent], bool]:
    """As many of `events` as fit one reply, and whether those are all."""
    kept: list[RecordedEvent] = []
    size = 0
    for event in events:
        size += _size(event)
        if kept and (size > PAGE_BYTES_MAX or len(kept) >= limit):
            return kept, False
        kept.append(event)
    return kept, True
