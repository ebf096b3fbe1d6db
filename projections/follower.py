"""One view along the log: page after page, each applied with its checkpoint, until nothing is known to be new.

It has no task of its own: whoever drives it calls `step`, so that a view and the one that is built beside it never compete, and every
interleaving can be tested. What it must not know: files, transports, how a view stores anything.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec
import structlog

from events.clock import Clock, SystemClock
from events.closing import CLOSED_BY
from events.envelope import RecordedEvent
from events.errors import CorruptLogError, CuebookError
from events.ids import StreamId
from events.limits import PAGE_EVENTS_MAX
from events.selection import Selected, Selection, Term, literal
from events.store import LogReader
from projections.errors import PoisonError
from projections.view import ERASED, Parked, Positions, View

log = structlog.get_logger("cuebook.projections")

Upcast = Callable[[RecordedEvent], RecordedEvent]
"""An event with its payload in the newest schema version. Raises CuebookError where there is no way to it."""

PAGE_BYTES: Final = 8 * 1024 * 1024
"""Pages are sized so that they hold about so much; an event has at most 1 MiB."""
_PAGE_FIRST: Final = 64
_RATE_OVER_S: Final = 10.0
_SEALED_PAYLOAD: Final = msgspec.Raw(b"null")


class FollowerStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """How a view stands. positions: its stored checkpoint; positions_seen: how far it looked, stored or not; lag: positions between the
    checkpoint and what is known to be recorded; lag_s: for how long it has not been level; rate: positions per second over the last ten;
    seen: positions looked at since the start; applied: events handed to the view; sealed: passed over because a sealed actor said them;
    erased: passed over because nothing is left of them; parked: streams; held: events that wait behind them."""

    positions: dict[int, int]
    positions_seen: dict[int, int]
    lag: int
    lag_s: float
    rate: float
    seen: int
    applied: int
    batches: int
    sealed: int
    erased: int
    parked: int
    held: int


class Follower:
    """See the module. Not safe for concurrent calls; `hint` may come at any time."""

    def __init__(self, view: View, reader: LogReader, *, upcast: Upcast, clock: Clock | None = None) -> None:
        self.view = view
        self._reader = reader
        self._upcast = upcast
        self._clock = clock or SystemClock()
        self._wanted = selection_of(view)
        self._stored: dict[int, int] = {}
        self._seen: dict[int, int] = {}
        self._heads: dict[int, int] = {}
        self._parked: dict[str, Parked] = {}
        self._in_doubt = True
        self._pending: deque[int] = deque(range(reader.shards))
        self._limit = _PAGE_FIRST
        self._rates: deque[tuple[float, int]] = deque()
        self._behind_since: float | None = None
        self._looked_at = self._applied = self._batches = self._sealed = self._erased = 0

    async def load(self) -> None:
        """Take the checkpoint from the view: at the start, and after anything that leaves it in doubt."""
        stored = dict(await self.view.positions())
        self._parked = {_key(parked): parked for parked in await self.view.parked()}
        self._stored, self._seen = stored, dict(stored)
        self._in_doubt = False
        for shard in range(self._reader.shards):
            self._expect(shard)

    # -- what is known of the log ---------------------------------------------------------------------------------------------------

    def heard(self, shard: int, position: int | None) -> bool:
        """Note that `shard` may have reached `position` (None: anything). Whether that is news, for which `hint` is to be called."""
        if position is None:
            return True
        if position <= self._seen.get(shard, 0):
            return False
        self._heads[shard] = max(position, self._heads.get(shard, 0))
        if self._behind_since is None:
            self._behind_since = self._clock.monotonic()
        return True

    def hint(self, shard: int, position: int | None) -> bool:
        """`shard` may have reached `position`. Whether that is news: only then is the log asked."""
        if not self.heard(shard, position):
            return False
        self._expect(shard)
        return True

    def _expect(self, shard: int) -> None:
        if shard not in self._pending:
            self._pending.append(shard)
        if self._behind_since is None:
            self._behind_since = self._clock.monotonic()

    @property
    def is_level(self) -> bool:
        """Whether everything that is known to be recorded is applied and stored."""
        if self._pending or self._seen != self._stored:
            return False
        return all(self._seen.get(shard, 0) >= head for shard, head in self._heads.items())

    @property
    def positions(self) -> Positions:
        """The stored checkpoint."""
        return self._stored

    @property
    def parked(self) -> Sequence[Parked]:
        return list(self._parked.values())

    def has(self, wanted: Positions) -> bool:
        """Whether the stored checkpoint is at least `wanted`."""
        return all(self._stored.get(shard, 0) >= position for shard, position in wanted.items())

    # -- the way along it -------------------------------------------------------------------------------------------------------------

    async def step(self) -> bool:
        """Read one page and apply it; False if nothing is known to be new.

        Cancelled or raised: the page was applied or not, and the next step asks the view which.

        Raises:
            ProjectionError: as `View.apply`, without PoisonError. TransientError, CorruptLogError: the log cannot be read.
        """
        if self._in_doubt:
            await self.load()
        if not self._pending:
            if self._seen == self._stored:
                return False
            await self._store([], ())
            return True
        # Taken out before the read: a hint that comes during it counts for the next step.
        shard = self._pending.popleft()
        try:
            await self._page(shard)
        except BaseException:
            self._expect(shard)
            self._in_doubt = True
            raise
        if not self._pending and self._seen != self._stored:
            await self._store([], ())
        if self.is_level:
            self._behind_since = None
        return True

    async def _page(self, shard: int) -> None:
        after = self._seen.get(shard, 0)
        head = self._heads.get(shard, 0)
        page = await self._read(shard, after)
        moved = max(after, page.upto, self._seen.get(shard, 0))
        now = self._heads.get(shard, 0)
        # What was heard before this read, and did not come out of it, was wrong.
        self._heads[shard] = moved if page.end and now == head else max(moved, now)
        await self._take(shard, moved, await self._readable(page.events))
        if moved > after:
            self._measure(moved - after)
        if not page.end:
            self._expect(shard)

    async def _read(self, shard: int, after: int) -> Selected:
        try:
            page = await self._reader.select(shard, self._wanted, after=after, limit=self._limit)
        except CorruptLogError:
            return await self._read_one(shard, after)
        if page.events:
            size = sum(len(bytes(event.payload)) + 512 for event in page.events) // len(page.events)
            self._limit = max(1, min(PAGE_EVENTS_MAX, PAGE_BYTES // size, self._limit * 4))
        return page

    async def _read_one(self, shard: int, after: int) -> Selected:
        """Event by event, since one of the page is damaged: it is parked with its stream, the others go on (I-20)."""
        try:
            return await self._reader.select(shard, self._wanted, after=after, limit=1)
        except CorruptLogError as error:
            position = error.fields.get("position")
            if not isinstance(position, int) or position <= after:
                raise
            stream, version = StreamId(str(error.fields.get("stream") or "")), int(error.fields.get("version") or 0)
            if (known := self._parked.get(stream)) is None:
                parked = self._park(stream, shard, position, version, "", error.message)
            else:
                parked = self._parked[stream] = msgspec.structs.replace(known, held=known.held + 1)
            self._seen[shard] = position
            await self._store([], [parked])
            return Selected(events=[], upto=position, end=False)

    async def _readable(self, events: Iterable[RecordedEvent]) -> list[RecordedEvent]:
        """Without what nobody can or may read: what erased streams said, and what sealed actors say (S29)."""
        kept: list[RecordedEvent] = []
        erased: dict[StreamId, bool] = {}
        for event in events:
            if event.type == ERASED:
                kept.append(event)
            elif event.salt is None and bytes(event.payload) == b"null":
                self._erased += 1
            elif event.key_id is None:
                kept.append(event)
            elif self.view.sealed and await self._is_erased(event.stream, erased):
                self._erased += 1
            elif self.view.sealed:
                kept.append(msgspec.structs.replace(event, payload=_SEALED_PAYLOAD, summary=None, error=None, state_hash=None))
            else:
                self._sealed += 1
        return kept

    async def _is_erased(self, stream: StreamId, known: dict[StreamId, bool]) -> bool:
        """Whether a sealed stream was erased: its events stay as they were, since what opens them is gone, so they do not say it."""
        if stream not in known:
            head = await self._reader.head(stream)
            known[stream] = head is not None and head.status == CLOSED_BY[ERASED]
        return known[stream]

    async def _take(self, shard: int, upto: int, events: Sequence[RecordedEvent]) -> None:
        """Apply a page. An event that cannot be applied parks its stream, and the rest of the page is tried without it."""
        batch, changed = self._sorted(events)
        self._seen[shard], before = upto, self._seen.get(shard, 0)
        try:
            while batch or changed:
                try:
                    await self._store(batch, changed.values())
                    break
                except PoisonError as error:
                    poison = batch[error.index]
                    self._park(poison.stream, shard, poison.position, poison.version, poison.type, error.reason)
                    batch, more = self._sorted(batch)
                    changed |= more
        except BaseException:
            self._seen[shard] = before
            raise

    def _sorted(self, events: Iterable[RecordedEvent]) -> tuple[list[RecordedEvent], dict[str, Parked]]:
        """What is to be applied, in the newest schema version; and the parked streams that have changed by the rest."""
        batch: list[RecordedEvent] = []
        changed: dict[str, Parked] = {}
        for event in events:
            parked = self._parked.get(event.stream)
            if event.type == ERASED:
                self._parked.pop(event.stream, None)
                changed.pop(event.stream, None)
                batch.append(event)
                continue
            if parked is None or event.position < parked.position:
                try:
                    batch.append(self._upcast(event))
                    continue
                except CuebookError as error:
                    reason = f"{type(error).__name__}: {error.message}"
                    self._park(event.stream, event.shard, event.position, event.version, event.type, reason)
            elif event.position > parked.position:
                self._parked[event.stream] = msgspec.structs.replace(parked, held=parked.held + 1)
            changed[event.stream] = self._parked[event.stream]
        return batch, changed

    def _park(self, stream: StreamId, shard: int, position: int, version: int, type: str, reason: str) -> Parked:
        parked = Parked(
            stream=stream, shard=shard, position=position, version=version, type=type, reason=reason[:500],
            parked_at_us=self._clock.wall_us(),
        )  # fmt: skip
        self._parked[_key(parked)] = parked
        # The alarm: `doctor`, `projections parked` and the statistics go on saying it until it is released.
        log.error(
            "event_parked", projection=self.view.name, stream=stream, at=f"{shard}:{position}", version=version, type=type, reason=reason
        )
        return parked

    async def _store(self, events: Sequence[RecordedEvent], parked: Iterable[Parked]) -> None:
        positions = dict(self._seen)
        await self.view.apply(events, expected=self._stored, positions=positions, parked=list(parked))
        self._stored = positions
        self._applied += len(events)
        self._batches += 1

    # -- what was parked --------------------------------------------------------------------------------------------------------------

    async def release(self, stream: StreamId) -> int:
        """Apply what was held back of `stream`, in order, and go on with it; how many events that were.

        Raises:
            KeyError: it is not parked. PoisonError: it cannot be applied yet; nothing of it was. Else as `step`.
        """
        if self._in_doubt:
            await self.load()
        parked = self._parked[stream]
        events: list[RecordedEvent] = []
        version = parked.version - 1
        upto = self._seen.get(parked.shard, 0)
        while page := await self._reader.read_stream(stream, after=version, limit=PAGE_EVENTS_MAX):
            version = page[-1].version
            wanted = [event for event in page if event.position <= upto and (event.type in self.view.handles or event.type == ERASED)]
            events += [event if event.type == ERASED else self._upcast(event) for event in await self._readable(wanted)]
            if page[-1].position >= upto:
                break
        try:
            await self.view.release(stream, events, expected=self._stored)
        except BaseException:
            self._in_doubt = True
            raise
        del self._parked[stream]
        self._applied += len(events)
        log.info("stream_released", projection=self.view.name, stream=stream, events=len(events))
        return len(events)

    # -- figures ----------------------------------------------------------------------------------------------------------------------

    def _measure(self, positions: int) -> None:
        now = self._clock.monotonic()
        self._looked_at += positions
        self._rates.append((now, positions))
        while self._rates[0][0] < now - _RATE_OVER_S:
            self._rates.popleft()

    def statistics(self) -> FollowerStatistics:
        now = self._clock.monotonic()
        recent = [(at, count) for at, count in self._rates if at >= now - _RATE_OVER_S]
        span = max(now - recent[0][0], 0.001) if recent else 1.0
        return FollowerStatistics(
            positions=dict(self._stored), positions_seen=dict(self._seen),
            lag=sum(max(0, head - self._stored.get(shard, 0)) for shard, head in self._heads.items()),
            lag_s=0.0 if self._behind_since is None else now - self._behind_since,
            rate=sum(count for _, count in recent[1:]) / span if len(recent) > 1 else float(sum(count for _, count in recent)),
            seen=self._looked_at, applied=self._applied, batches=self._batches, sealed=self._sealed, erased=self._erased,
            parked=len(self._parked), held=sum(parked.held for parked in self._parked.values()),
        )  # fmt: skip


def _key(parked: Parked) -> str:
    return parked.stream or f"{parked.shard}:{parked.position}"


def selection_of(view: View) -> Selection:
    """Which events a view is shown."""
    terms = tuple(Term(field="type", pattern=literal(tag)) for tag in dict.fromkeys((*view.handles, ERASED)))
    return Selection(included=(terms,))
