"""One commit for many turns: what arrives while a commit runs is the next batch (limits.md 1: worth 20x, and no linger
time is needed).
 The only caller of `ShardStore.commit` of its shard. The hot path makes no future and no task per group: a group comes
with a callback, and the one worker task lives only while there is something to write.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import msgspec

from events.commit_slot import CommitSlot
from events.errors import AppendOutcomeUnknownError, CuebookError, TransientError
from events.ids import StreamId
from events.limits import COMMIT_BYTES_MAX, COMMIT_TURNS_MAX, OUTCOMES_AT_ONCE
from events.store import Accepted, Append, Arrival, Outcome, ShardStore

T = TypeVar("T")
OnOutcome = Callable[[Outcome | CuebookError], None]
Send = tuple[StreamId, StreamId, str, int]
_Group = tuple[Append, OnOutcome, int]
"""With its size in bytes."""


class GroupCommitStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since the start, and what waits now. errors: batches that failed as a whole; callback_errors: callbacks
    that raised."""

    commits: int
    groups: int
    events: int
    arrivals: int
    acknowledged: int
    errors: int
    callback_errors: int
    waiting: int
    largest_batch: int


class GroupCommit:
    """Batches everything that one shard writes.

    Args:
        store: the shard, taken.
        spawn: makes the worker's task; the caller owns it, so it is the caller that sees it end.
        on_unknown: called before anybody hears that the outcome of a batch is unknown: what it wrote into inbox and outbox, if it did, no
            outcome will tell.
        slot: shared with the other shards of this loop; one of its own if there is none.
    """

    def __init__(
        self,
        store: ShardStore,
        spawn: Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"],
        on_unknown: Callable[[], None] = lambda: None,
        *,
        slot: CommitSlot | None = None,
    ) -> None:
        self._on_unknown = on_unknown
        self._slot = slot or CommitSlot()
        self._store = store
        self._spawn = spawn
        self._groups: deque[_Group] = deque()
        self._group_bytes = 0
        self._arrivals: deque[tuple[Sequence[Arrival], asyncio.Future[Sequence[Accepted]], int]] = deque()
        self._sends: deque[tuple[Sequence[Send], asyncio.Future[None]]] = deque()
        self._floor = 0
        self._working = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._commits = self._group_count = self._event_count = self._arrival_count = self._acknowledged = 0
        self._errors = self._callback_errors = self._largest = 0

    def submit(self, group: Append, on_outcome: OnOutcome) -> None:
        """Queue `group`; `on_outcome` is called on the loop, once, in order of submission, after its transaction ended.

        Returns at once. Nothing can be cancelled from here on: if the process dies first, the group is not written.
        """
        size = _size_of_group(group)
        self._groups.append((group, on_outcome, size))
        self._group_bytes += size
        if not self._working:
            self._wake()

    def accept(self, arrivals: Sequence[Arrival]) -> Awaitable[Sequence[Accepted]]:
        """Queue tells for the inbox; the result comes after their commit. Cancelling the caller does not take them
        back."""
        future: asyncio.Future[Sequence[Accepted]] = asyncio.get_running_loop().create_future()
        self._arrivals.append((arrivals, future, sum(_size_of_arrival(arrival) for arrival in arrivals)))
        self._wake()
        return future

    def acknowledge(self, sends: Sequence[Send]) -> Awaitable[None]:
        """Queue the deletion of outbox rows that have arrived. Need not be awaited."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Nobody may be waiting: an error that is not fetched must not be reported as forgotten.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._sends.append((sends, future))
        self._wake()
        return future

    def floor(self, now_us: int) -> int:
        """A logical time at or below which nothing will be recorded (S30): raised to `now_us` while nothing is under way, else as it was.

        Events that flow raise it without this: each is later than the last.
        """
        if not self._working:
            self._floor = self._store.raise_floor(now_us)
        return self._floor

    async def drain(self) -> None:
        """Wait until nothing is queued and nothing is being written."""
        while self._working:
            await self._idle.wait()

    def statistics(self) -> GroupCommitStatistics:
        return GroupCommitStatistics(
            commits=self._commits, groups=self._group_count, events=self._event_count, arrivals=self._arrival_count,
            acknowledged=self._acknowledged, errors=self._errors, callback_errors=self._callback_errors,
            waiting=len(self._groups) + len(self._arrivals) + len(self._sends), largest_batch=self._largest,
        )  # fmt: skip

    def _wake(self) -> None:
        if self._working:
            return
        self._working = True
        self._idle.clear()
        work = self._work()
        try:
            task = self._spawn(work)
        except Exception as error:  # noqa: BLE001 - a spawner that is shutting down; those who wait must hear it
            work.close()
            self._stop(TransientError(f"the writer of this shard cannot be started: {error}; nothing was written"))
            return
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        # Here and not in a `finally` of the worker: one that is cancelled before its first step runs none of its code.
        if task.cancelled() or task.exception() is not None:
            self._stop(TransientError("the writer of this shard was stopped; nothing was written"))
            return
        self._working = False
        if self._groups or self._arrivals or self._sends:
            self._wake()
        else:
            self._idle.set()

    def _stop(self, error: CuebookError) -> None:
        batch = _Batch()
        batch.groups = self._take_groups()
        batch.arrivals = [(arrivals, future) for arrivals, future, _ in self._arrivals]
        batch.sends = list(self._sends)
        self._arrivals.clear()
        self._sends.clear()
        self._working = False
        self._idle.set()
        self._fail(batch, error)

    async def _work(self) -> None:
        while self._groups or self._arrivals or self._sends:
            batch = _Batch()
            try:
                await self._commit(batch)
            except asyncio.CancelledError:
                if batch.begun and not batch.ended:
                    # The transaction goes on in its thread, so what is in it may be done.
                    self._fail(batch, AppendOutcomeUnknownError("the writer of this shard was cancelled; look up the command id"))
                raise

    def _fill(self, batch: "_Batch") -> None:
        """Arrivals first, then groups in order, up to the bounds of a commit; at least one of something."""
        size = turns = 0
        while self._arrivals and turns < COMMIT_TURNS_MAX and (not turns or size + self._arrivals[0][2] <= COMMIT_BYTES_MAX):
            arrivals, future, bytes_ = self._arrivals.popleft()
            batch.arrivals.append((arrivals, future))
            size += bytes_
            turns += len(arrivals)
        if turns + len(self._groups) <= COMMIT_TURNS_MAX and size + self._group_bytes <= COMMIT_BYTES_MAX:
            batch.groups = self._take_groups()
        while self._groups and turns < COMMIT_TURNS_MAX and (not turns or size + self._groups[0][2] <= COMMIT_BYTES_MAX):
            batch.groups.append(self._groups.popleft())
            bytes_ = batch.groups[-1][2]
            self._group_bytes -= bytes_
            size += bytes_
            turns += 1
        while self._sends:
            batch.sends.append(self._sends.popleft())

    def _take_groups(self) -> "deque[_Group]":
        """All that wait."""
        groups, self._groups, self._group_bytes = self._groups, deque(), 0
        return groups

    async def _commit(self, batch: "_Batch") -> None:
        """Fill `batch` and write it."""
        try:
            async with self._slot.held():
                self._fill(batch)  # not before: what comes while others commit comes along
                batch.begun = True
                groups = [each[0] for each in batch.groups]
                arrivals = [arrival for many, _ in batch.arrivals for arrival in many]
                sends = [send for many, _ in batch.sends for send in many]
                outcomes, accepted = await self._store.commit(groups, arrivals, sends)
        except CuebookError as error:
            self._errors += 1
            self._fail(batch, error)
            return
        except Exception as error:  # noqa: BLE001 - an unforeseen failure must reach those who wait, and leave the loop running
            self._errors += 1
            unknown = AppendOutcomeUnknownError(f"the append failed in an unforeseen way: {error!r}; look up the command id")
            unknown.__cause__ = error
            self._report("an append failed in an unforeseen way", error)
            self._fail(batch, unknown)
            return
        self._commits += 1
        self._group_count += len(groups)
        self._event_count += sum([len(group.events) for group in groups])
        self._arrival_count += len(arrivals)
        self._acknowledged += len(sends)
        self._largest = max(self._largest, len(groups))
        start = 0
        for many, future in batch.arrivals:
            _resolve(future, accepted[start : start + len(many)])
            start += len(many)
        for _, done in batch.sends:
            _resolve(done, None)
        await self._tell_all(batch, outcomes)

    async def _tell_all(self, batch: "_Batch", outcomes: Sequence[Outcome]) -> None:
        """Each its outcome, in order. The loop turns after every few: whoever is told goes on at once, and a thousand of them in a row
        would hold up timers and messages for as long as they all take. The next batch waits meanwhile, so it becomes no smaller."""
        batch.ended = True
        left = list(zip(batch.groups, outcomes, strict=True))
        try:
            while len(left) > OUTCOMES_AT_ONCE:
                first, left = left[:OUTCOMES_AT_ONCE], left[OUTCOMES_AT_ONCE:]
                self._tell(first)
                await asyncio.sleep(0)
        finally:
            self._tell(left)  # also if we are cancelled in between: the outcomes are known all the same

    def _tell(self, told: "Sequence[tuple[_Group, Outcome | CuebookError]]") -> None:
        for (_, on_outcome, _), outcome in told:
            try:
                on_outcome(outcome)
            except Exception as error:  # noqa: BLE001 - one bad callback must not keep the others from hearing
                self._callback_errors += 1
                self._report("a callback of a commit raised", error)

    def _fail(self, batch: "_Batch", error: CuebookError) -> None:
        if isinstance(error, AppendOutcomeUnknownError):
            self._on_unknown()
        for _, future in batch.arrivals:
            if not future.done():
                future.set_exception(error)
        for _, done in batch.sends:
            if not done.done():
                done.set_exception(error)
        self._tell([(group, error) for group in batch.groups])

    def _report(self, message: str, error: Exception) -> None:
        asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})


class _Batch:
    """What goes into one transaction."""

    def __init__(self) -> None:
        self.groups: deque[_Group] = deque()
        self.arrivals: list[tuple[Sequence[Arrival], asyncio.Future[Sequence[Accepted]]]] = []
        self.sends: list[tuple[Sequence[Send], asyncio.Future[None]]] = []
        self.begun = False
        """What is in it may be written."""
        self.ended = False
        """Its outcome is known."""


def _resolve(future: "asyncio.Future[T]", value: T) -> None:
    if not future.done():
        future.set_result(value)


def _size_of_group(group: Append) -> int:
    """Bytes of the large parts of a group; its columns are small beside them."""
    size = 0
    for event in group.events:
        size += len(event.payload)
    if group.inbox is not None:
        size += len(group.inbox.args or b"") + len(group.inbox.reply or b"")
    for send in group.outbox:
        size += len(send.args)
    if group.snapshot is not None:
        size += len(group.snapshot.state)
    return size


def _size_of_arrival(arrival: Arrival) -> int:
    return len(arrival.entry.args or b"")
