"""What is measured, and the order in which it is: one sample of every case per round, so that a disturbance meets figure and limit alike.

Knows neither the log nor NATS: a `Case` is anything that runs for some seconds and returns a `Sample`.
"""

import asyncio
import gc
import itertools
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One case in one round. p50_us, p99_us: time of one operation; None where a case has no single operations."""

    count: int
    per_s: float
    p50_us: float | None = None
    p99_us: float | None = None


Case = Callable[[float], Awaitable[Sample]]
"""Runs for about so many seconds, at least one operation."""


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the report. `name` and `limit` are names of cases; target: the least ratio that we are content with."""

    name: str
    title: str
    limit: str
    limit_title: str
    target: float | None = None


SQLITE_1: Final = "sqlite-1"
SQLITE_100: Final = "sqlite-100"
SQLITE_REPLAY: Final = "sqlite-replay"
ECHO_1: Final = "echo-1"
ECHO_100: Final = "echo-100"
_ONE, _HUNDRED = "bare SQLite, 1 event per commit", "bare SQLite, 100 events per commit"
_ECHO_ONE, _ECHO_HUNDRED = "nats-py echo, 1 in flight", "nats-py echo, 100 in flight"

# Targets: facts/limits.md 9.
MEASURES: Final = (
    Measure(name="in-process-1", title="in process, 1 in flight", limit=SQLITE_1, limit_title=_ONE, target=0.45),
    Measure(name="in-process-100", title="in process, 100 in flight, 1,000 actors", limit=SQLITE_100, limit_title=_HUNDRED, target=0.25),
    Measure(name="in-process-one", title="in process, 100 in flight, one actor", limit=SQLITE_100, limit_title=_HUNDRED, target=0.25),
    Measure(name="nats-1", title="ask over NATS, 1 in flight", limit=ECHO_1, limit_title=_ECHO_ONE, target=0.33),
    Measure(name="nats-100", title="ask over NATS, 100 in flight", limit=ECHO_100, limit_title=_ECHO_HUNDRED, target=0.33),
    Measure(name="client-1", title="the same by our client, 1 in flight", limit=ECHO_1, limit_title=_ECHO_ONE),
    Measure(name="client-100", title="the same by our client, 100 in flight", limit=ECHO_100, limit_title=_ECHO_HUNDRED),
    Measure(name="replay", title="full replay to state", limit=SQLITE_REPLAY, limit_title="bare fetch, decode, apply", target=0.4),
    Measure(name="appends-100", title="group commit, 100 waiting", limit=SQLITE_100, limit_title=_HUNDRED),
)  # fmt: skip


def selected(names: Sequence[str]) -> list[Measure]:
    """The measures called `names`; ``nats`` stands for every ``nats-...``; no names for all.

    Raises:
        ValueError: a name that fits none.
    """
    for name in names:
        if not any(_fits(measure, name) for measure in MEASURES):
            raise ValueError(name)
    return [measure for measure in MEASURES if not names or any(_fits(measure, name) for name in names)]


def _fits(measure: Measure, name: str) -> bool:
    return measure.name == name or measure.name.startswith(f"{name}-")


def sample(count: int, elapsed_s: float, latencies_s: Sequence[float] = ()) -> Sample:
    """A sample of `count` operations."""
    per_s = count / elapsed_s if elapsed_s > 0 else 0.0
    if not latencies_s:
        return Sample(count=count, per_s=per_s)
    ordered = sorted(latencies_s)
    # Nearest rank: an observed value, also of few.
    p50, p99 = ordered[(len(ordered) - 1) // 2], ordered[(len(ordered) - 1) * 99 // 100]
    return Sample(count=count, per_s=per_s, p50_us=p50 * 1e6, p99_us=p99 * 1e6)


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


async def in_turn(operation: Callable[[int], Awaitable[object]], count: int) -> None:
    """Operations 0 to `count` - 1, all at once: to wake every actor, so that no sample contains a recovery."""
    async with asyncio.TaskGroup() as callers:
        for number in range(count):
            callers.create_task(_awaited(operation(number)))


async def _awaited(result: Awaitable[object]) -> None:
    await result


async def run_rounds(
    cases: Mapping[str, Case], *, rounds: int, seconds: float, on_round: Callable[[int], None]
) -> dict[str, list[Sample]]:
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


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the report: medians over the rounds. ratio: the median of each round's own ratio, so it need not be figure / limit."""

    measure: str
    title: str
    per_s: float
    limit: str
    limit_per_s: float
    ratio: float
    target: float | None
    p50_us: float | None
    p99_us: float | None
    limit_p50_us: float | None
    limit_p99_us: float | None
    spread: float
    """(largest - smallest) / median of the ratios."""
    count: int
    rounds: int


def result(measure: Measure, found: Mapping[str, Sequence[Sample]]) -> Result:
    """The row of `measure` from the samples of all cases."""
    ours, limits = found[measure.name], found[measure.limit]
    ratios = [own.per_s / limit.per_s for own, limit in zip(ours, limits, strict=True)]
    ratio = statistics.median(ratios)
    return Result(
        measure=measure.name, title=measure.title, per_s=statistics.median(each.per_s for each in ours), limit=measure.limit_title,
        limit_per_s=statistics.median(each.per_s for each in limits), ratio=ratio, target=measure.target,
        p50_us=_median(each.p50_us for each in ours), p99_us=_median(each.p99_us for each in ours),
        limit_p50_us=_median(each.p50_us for each in limits), limit_p99_us=_median(each.p99_us for each in limits),
        spread=(max(ratios) - min(ratios)) / ratio, count=sum(each.count for each in ours), rounds=len(ours),
    )  # fmt: skip


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
