"""How the bench measures, and what a row of its report is.

One sample of every case per round, so that a disturbance meets figure and limit alike.

Knows neither the log nor NATS: a `Case` is anything that runs for some seconds and returns a `Sample`.
"""

import asyncio
import gc
import itertools
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One case in one round. p50_us, p99_us: time of one operation; None where a case has no single operations. lag_us: how late the event
    loop was, at p99, while the case ran. blocked_us: for how long the loop was held up, for each operation. size_bytes: of one thing, where
    that is what the case finds out. share: of all, likewise."""

    count: int
    per_s: float
    p50_us: float | None = None
    p99_us: float | None = None
    lag_us: float | None = None
    blocked_us: float | None = None
    size_bytes: float | None = None
    share: float | None = None


Case = Callable[[float], Awaitable[Sample]]
"""Runs for about so many seconds, at least one operation."""


class Unavailable(msgspec.Struct, frozen=True):
    """In place of a case that cannot run here. reason: what is missing and how to get it."""

    reason: str


Cases = Mapping[str, Case | Unavailable]

Figure = Literal["rate", "tail", "lag", "p50", "p99", "blocked", "bytes", "share"]
"""rate: operations per second, as a multiple of the limit's. tail: p99 / p50. lag: the event loop's, in ms. p50, p99: time of one
operation, in ms. blocked: how long one operation holds the loop up, as a multiple of the limit's. bytes: of one thing. share: how much of
what there is was found, 0 to 1."""
UNITS: Final[dict[Figure, str]] = {
    "rate": "x", "tail": "p99/p50", "lag": "ms", "p50": "ms", "p99": "ms", "blocked": "x", "bytes": "bytes", "share": "of 1",
}  # fmt: skip


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the report.

    Fields:
        theme: names the preparation in `ops.bench.table` that makes its cases.
        case, limit: names of cases; without `case` it is the row's own name, without `limit` the row stands alone.
        target, good: what we must reach, and what we would like to; None where the row only informs. For a rate the least, else the most.
    """

    name: str
    theme: str
    title: str
    case: str = ""
    limit: str | None = None
    limit_title: str = ""
    figure: Figure = "rate"
    target: float | None = None
    good: float | None = None
    only_asked_for: bool = False
    """whether it is left out where no rows are asked for: its preparation takes minutes"""

    @property
    def cases(self) -> tuple[str, ...]:
        """The cases that it needs."""
        own = self.case or self.name
        return (own,) if self.limit is None else (own, self.limit)

    @property
    def more_is_better(self) -> bool:
        return self.figure in {"rate", "share"}

    def reaches(self, figure: float, bound: float) -> bool:
        """Whether `figure` is at least, or at most, `bound`."""
        return figure >= bound if self.more_is_better else figure <= bound


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """How much is prepared. The full sizes are those that the table promises; the small ones show only that everything runs."""

    actors: int
    """live in the row with many actors"""
    idle: int
    """actors whose bytes are counted"""
    log_events: int
    """in the big log"""
    log_streams: int
    cold_actors: int
    """with 1,000 events each, woken one after another"""
    cold_events: int = 1_000
    replay_events_per_s: int = 50_000
    vectors: int = 100_000
    """that are searched"""
    memories: int = 100_000
    """in the larger workspace; a tenth of it in the smaller ones"""


FULL: Final = Scale(actors=100_000, idle=8_000, log_events=1_000_000, log_streams=20_000, cold_actors=50)
QUICK: Final = Scale(
    actors=5_000, idle=1_000, log_events=50_000, log_streams=5_000, cold_actors=10,
    replay_events_per_s=20_000, vectors=20_000, memories=5_000,
)  # fmt: skip


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What a preparation is given. folder: its own, empty, on the disk that matters. wanted: the cases it must make; more are ignored."""

    folder: Path
    seconds: float
    wanted: frozenset[str]
    scale: Scale
    progress: Callable[[str], None]


def sample(count: int, elapsed_s: float, latencies_s: Sequence[float] = (), *, lag_us: float | None = None) -> Sample:
    """A sample of `count` operations."""
    per_s = count / elapsed_s if elapsed_s > 0 else 0.0
    if not latencies_s:
        return Sample(count=count, per_s=per_s, lag_us=lag_us)
    ordered = sorted(latencies_s)
    return Sample(count=count, per_s=per_s, p50_us=percentile(ordered, 50) * 1e6, p99_us=percentile(ordered, 99) * 1e6, lag_us=lag_us)


def percentile(ordered: Sequence[float], percent: int) -> float:
    """By nearest rank: an observed value, also of few."""
    return ordered[(len(ordered) - 1) * percent // 100]


def repeated(operation: Callable[[], int], seconds: float) -> Sample:
    """`operation`, which returns how much it did, again and again in this thread."""
    count = 0
    start = now = time.perf_counter()
    while now - start < seconds or not count:
        count += operation()
        now = time.perf_counter()
    return sample(count, now - start)


async def closed_loop(operation: Callable[[int], Awaitable[object]], in_flight: int, seconds: float) -> Sample:
    """`in_flight` callers, each of which begins its next operation when its last one has ended. Operations are numbered from 0."""
    numbers = itertools.count()
    latencies: list[float] = []
    clock = time.perf_counter
    start = clock()
    end = start + seconds

    async def caller() -> None:
        began = clock()
        while True:
            await operation(next(numbers))
            now = clock()
            latencies.append(now - began)
            if now >= end:
                return
            began = now

    async with asyncio.TaskGroup() as callers:
        for _ in range(in_flight):
            callers.create_task(caller())
    return sample(len(latencies), clock() - start, latencies)


async def in_turn(operation: Callable[[int], Awaitable[object]], count: int, *, at_once: int = 1_000) -> None:
    """Operations 0 to `count` - 1, each once, at most `at_once` at a time: to wake every actor, so that no sample contains a recovery."""
    numbers = iter(range(count))

    async def caller() -> None:
        for number in numbers:
            await operation(number)

    async with asyncio.TaskGroup() as callers:
        for _ in range(min(at_once, count)):
            callers.create_task(caller())


async def run_rounds(cases: Mapping[str, Case], *, rounds: int, seconds: float, on_round: Callable[[int], None]) -> dict[str, list[Sample]]:
    """One sample of each case per round; every second round backwards, so that no case always follows the same one."""
    found: dict[str, list[Sample]] = {name: [] for name in cases}
    for number in range(rounds):
        on_round(number + 1)
        order = list(cases)
        if number % 2:
            order.reverse()
        for name in order:
            # What one case left behind must not be collected in the time of the next.
            gc.collect()
            found[name].append(await cases[name](seconds))
    return found


Mark = Literal["good", "meets", "misses"]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the report: medians over the rounds. figure: the median of each round's own, so it need not be per_s / limit_per_s.
    mark: None where nothing was promised, or nothing measured. unavailable: why nothing was measured."""

    measure: str
    title: str
    figure: float | None
    unit: str
    target: float | None
    good: float | None
    mark: Mark | None
    per_s: float | None = None
    p50_us: float | None = None
    p99_us: float | None = None
    lag_us: float | None = None
    limit: str = ""
    limit_per_s: float | None = None
    limit_p50_us: float | None = None
    limit_p99_us: float | None = None
    limit_lag_us: float | None = None
    spread: float | None = None
    """(largest - smallest) / median of the figures."""
    count: int = 0
    rounds: int = 0
    unavailable: str | None = None


def unmeasured(measure: Measure, reason: str) -> Result:
    """The row of a measure that could not run."""
    return Result(
        measure=measure.name, title=measure.title, figure=None, unit=UNITS[measure.figure], target=measure.target, good=measure.good,
        mark=None, limit=measure.limit_title, unavailable=reason,
    )  # fmt: skip


def result(measure: Measure, found: Mapping[str, Sequence[Sample]]) -> Result:
    """The row of `measure` from the samples of all cases."""
    ours = found[measure.cases[0]]
    limits = found[measure.limit] if measure.limit is not None else []
    figures = [_figure(measure, own, limits[number] if limits else None) for number, own in enumerate(ours)]
    figure = statistics.median(figures)
    return Result(
        measure=measure.name, title=measure.title, figure=figure, unit=UNITS[measure.figure], target=measure.target, good=measure.good,
        mark=_mark(measure, figure), per_s=_median(each.per_s for each in ours), p50_us=_median(each.p50_us for each in ours),
        p99_us=_median(each.p99_us for each in ours), lag_us=_median(each.lag_us for each in ours), limit=measure.limit_title,
        limit_per_s=_median(each.per_s for each in limits), limit_p50_us=_median(each.p50_us for each in limits),
        limit_p99_us=_median(each.p99_us for each in limits), limit_lag_us=_median(each.lag_us for each in limits),
        spread=(max(figures) - min(figures)) / figure if figure else None, count=sum(each.count for each in ours), rounds=len(ours),
    )  # fmt: skip


def _figure(measure: Measure, own: Sample, limit: Sample | None) -> float:
    if measure.figure == "rate" and limit is not None:
        return own.per_s / limit.per_s
    if measure.figure == "tail" and own.p50_us and own.p99_us is not None:
        return own.p99_us / own.p50_us
    if measure.figure == "lag" and own.lag_us is not None:
        return own.lag_us / 1_000
    if measure.figure == "p50" and own.p50_us is not None:
        return own.p50_us / 1_000
    if measure.figure == "p99" and own.p99_us is not None:
        return own.p99_us / 1_000
    if measure.figure == "blocked" and limit is not None and own.blocked_us is not None and limit.blocked_us:
        return own.blocked_us / limit.blocked_us
    if measure.figure == "bytes" and own.size_bytes is not None:
        return own.size_bytes
    if measure.figure == "share" and own.share is not None:
        return own.share
    raise TypeError(f"{measure.name}: its sample lacks what the row shows")


def _mark(measure: Measure, figure: float) -> Mark | None:
    if measure.good is not None and measure.reaches(figure, measure.good):
        return "good"
    if measure.target is None:
        return None
    return "meets" if measure.reaches(figure, measure.target) else "misses"


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
