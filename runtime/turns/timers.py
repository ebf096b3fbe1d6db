"""The durable timers of one shard: a heap with one wake-up for the next of them, never a poll (S26).

A timer row is set by a turn's own commit. When it is due it becomes an inbox row with the id (timer, due time) in one transaction with its
removal, or with its next date if it recurs, so it fires once in effect whatever dies when. Durations run on the monotonic clock and so
survive steps of the wall clock while a process lives; dates follow the wall clock.
"""

import asyncio
import heapq
import itertools
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from events.clock import Clock
from events.codec import args_hash
from events.ids import CommandId
from events.store import Arrival, InboxEntry, InboxStatus, TimerEntry

# A step of the wall clock is noticed this late; only dates need to look again.
_WALL_LOOK_S: Final = 30.0
_LATE_RETRY_S: Final = 1.0
_NO_MORE: Final = ("closed", "gone")


class Timers:
    """Calls `fire` with what is due; its caller commits the arrivals, and gives what it could not commit to `again`."""

    def __init__(self, clock: Clock, fire: Callable[[list[TimerEntry]], None]) -> None:
        self._clock = clock
        self._fire = fire
        self._heap: list[tuple[float, int, TimerEntry]] = []
        self._live: dict[tuple[str, str], TimerEntry] = {}
        self._firing: set[tuple[str, str]] = set()
        self._count = itertools.count()
        self._handle: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._live)

    def set(self, timers: Iterable[TimerEntry]) -> None:
        """Arm timers whose rows are committed; one with the id of another replaces it."""
        for timer in timers:
            self._live[timer.stream, timer.timer_id] = timer
            self._firing.discard((timer.stream, timer.timer_id))
            in_s = max(0, timer.due_us - self._clock.wall_us()) / 1_000_000
            heapq.heappush(self._heap, (self._clock.monotonic() + in_s, next(self._count), timer))
        self._arm()

    def knows(self, timer: TimerEntry) -> bool:
        """Whether that timer is armed, with the same date."""
        live = self._live.get((timer.stream, timer.timer_id))
        return live is not None and live.due_us == timer.due_us

    def remove(self, stream: str, timer_ids: Iterable[str]) -> None:
        for timer_id in timer_ids:
            self._live.pop((stream, timer_id), None)
            self._firing.discard((stream, timer_id))

    def forget(self, stream: str) -> None:
        """Disarm every timer of `stream`, whose rows are gone."""
        for key in [key for key in self._live if key[0] == stream]:
            del self._live[key]
        self._firing = {key for key in self._firing if key[0] != stream}

    def firing(self, timers: Iterable[TimerEntry]) -> list[TimerEntry]:
        """Due timers on their way into the inbox, until `fired` or `again`: one that is taken back or set anew meanwhile does not go on."""
        found = list(timers)
        self._firing.update((timer.stream, timer.timer_id) for timer in found)
        return found

    def fired(self, timers: Iterable[TimerEntry], following: Iterable[TimerEntry | None], results: Iterable[str]) -> None:
        """They are committed. following: the next date of each, None if there is none. results: what the store made of each."""
        self.set(
            [
                after
                for timer, after, result in zip(timers, following, results, strict=True)
                if self._ends_firing(timer) and after is not None and result not in _NO_MORE
            ]
        )

    def _ends_firing(self, timer: TimerEntry) -> bool:
        key = (timer.stream, timer.timer_id)
        was = key in self._firing
        self._firing.discard(key)
        return was

    def again(self, timers: Iterable[TimerEntry]) -> None:
        """What was due could not be committed: try once more in a moment."""
        for timer in timers:
            if self._ends_firing(timer) and self._live.setdefault((timer.stream, timer.timer_id), timer) is timer:
                heapq.heappush(self._heap, (self._clock.monotonic() + _LATE_RETRY_S, next(self._count), timer))
        self._arm()

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._heap.clear()
        self._live.clear()
        self._firing.clear()

    def _arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._heap:
            wait_s = self._heap[0][0] - self._clock.monotonic()
            if any(timer.wall for _, _, timer in self._heap[:1]):
                wait_s = min(wait_s, _WALL_LOOK_S)
            self._handle = asyncio.get_running_loop().call_later(max(0.0, wait_s), self._wake)

    def _wake(self) -> None:
        self._handle = None
        now, now_us = self._clock.monotonic(), self._clock.wall_us()
        due: list[TimerEntry] = []
        later: list[TimerEntry] = []
        while self._heap and (self._heap[0][0] <= now or (self._heap[0][2].wall and self._heap[0][2].due_us <= now_us)):
            timer = heapq.heappop(self._heap)[2]
            if self._live.get((timer.stream, timer.timer_id)) is not timer:
                continue  # removed or replaced meanwhile
            if timer.wall and timer.due_us > now_us:
                later.append(timer)  # the wall clock went back
                continue
            del self._live[timer.stream, timer.timer_id]
            due.append(timer)
        if due:
            self._fire(due)
        self.set(later)


def arrival_of_timer(timer: TimerEntry, now_us: int) -> tuple[Arrival, TimerEntry | None]:
    """A due timer as the tell that it becomes, and its next date if it recurs. One that was missed several times fires once and says how
    many dates it stands for."""
    missed = 0
    following = None
    if timer.every_us:
        missed = max(0, now_us - timer.due_us) // timer.every_us
        following = msgspec.structs.replace(timer, due_us=timer.due_us + (missed + 1) * timer.every_us)
    entry = InboxEntry(
        stream=timer.stream, command_id=CommandId(f"timer-{timer.timer_id}-{timer.due_us}"), method=timer.method,
        args_hash=args_hash(timer.method, timer.args), status=InboxStatus.QUEUED, args=timer.args, sender=timer.stream,
        correlation_id=timer.correlation_id, source=f"timer:{timer.timer_id}:{timer.due_us}:{missed}", received_at_us=now_us,
    )  # fmt: skip
    return Arrival(entry=entry, timer_id=timer.timer_id, timer_next=following), following
