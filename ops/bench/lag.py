"""How late the event loop is while it works: the time by which a timer fires after it was due."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import msgspec

from ops.bench.in_process import append_cases, awake_runtime, depositing
from ops.bench.limits import STREAMS
from ops.bench.measure import Cases, Sample, Setting, closed_loop, percentile, sample

_EVERY_S: Final = 0.002
"""uvloop keeps whole milliseconds: a finer timer would show its rounding."""


_BEAT_S: Final = 0.01


class Lag:
    """Lateness in seconds of each timer so far."""

    def __init__(self) -> None:
        self.late_s: list[float] = []

    @property
    def p99_us(self) -> float:
        return percentile(sorted(self.late_s), 99) * 1e6 if self.late_s else 0.0


@contextmanager
def watched_lag() -> Iterator[Lag]:
    """Measure the running loop until the block ends."""
    loop, clock, found = asyncio.get_running_loop(), time.perf_counter, Lag()

    def fired(due: float) -> None:
        now = clock()
        # A timer that was due while the loop stood still is late too: without these a long stop would count as one short wait.
        while due <= now:
            found.late_s.append(now - due)
            due += _EVERY_S
        timers[0] = loop.call_later(due - now, fired, due)

    timers = [loop.call_later(_EVERY_S, fired, clock() + _EVERY_S)]
    try:
        yield found
    finally:
        timers[0].cancel()


class Blocked:
    """seconds: for how long in all the running loop did not come to a heartbeat that was due."""

    seconds: float = 0.0


@contextmanager
def watched_blocking() -> Iterator[Blocked]:
    """Measure the running loop until the block ends, by a heartbeat that counts its lateness once and is due again a while after it came.

    Between two beats the loop is left alone: unlike `watched_lag` it may stand beside threads that need the interpreter.
    """
    loop, clock, found = asyncio.get_running_loop(), time.perf_counter, Blocked()

    def beat(due: float) -> None:
        now = clock()
        # uvloop rounds to whole milliseconds: a beat may also come a little early.
        found.seconds += max(0.0, now - due)
        timers[0] = loop.call_later(_BEAT_S, beat, now + _BEAT_S)

    timers = [loop.call_later(_BEAT_S, beat, clock() + _BEAT_S)]
    try:
        yield found
    finally:
        timers[0].cancel()


@asynccontextmanager
async def lag_cases(setting: Setting) -> AsyncIterator[Cases]:
    """The loop with nothing to do; beside 100 durable commands in flight; beside 100 appends that wait for the group commit."""
    async with awake_runtime(setting.folder / "lag", STREAMS) as runtime, append_cases(setting.folder) as appends:
        deposit = depositing(runtime, STREAMS)

        async def bare(seconds: float) -> Sample:
            with watched_lag() as lag:
                await asyncio.sleep(max(seconds, 10 * _EVERY_S))
            return sample(len(lag.late_s), seconds, lag_us=lag.p99_us)

        async def commands(seconds: float) -> Sample:
            with watched_lag() as lag:
                found = await closed_loop(deposit, 100, max(seconds, 10 * _EVERY_S))
            return msgspec.structs.replace(found, lag_us=lag.p99_us)

        async def waiting(seconds: float) -> Sample:
            with watched_lag() as lag:
                found = await appends(max(seconds, 10 * _EVERY_S))
            return msgspec.structs.replace(found, lag_us=lag.p99_us)

        yield {"loop-bare": bare, "loop-lag": commands, "loop-lag-appends": waiting}
