"""Whether the log slows down as it grows: appends to a big one beside appends to a small one, streams in no order."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from events.clock import SystemClock, SystemEntropy
from events.errors import InvariantError
from events.log_directory import create_log
from events.sqlite.store_sqlite import SqliteShard
from events.store import Committed
from ops.bench.actors import scattered
from ops.bench.in_process import append_group
from ops.bench.measure import Cases, Sample, Setting, sample

_PAYLOAD: Final = b'{"cents":500}'
_BATCH: Final = 100
_FILL_BATCH: Final = 1_000
_SMALL: Final = 10_000
_STRETCH: Final = 10_000
"""Events of one timed stretch: the small log is made anew for each, so that it is small again."""
_SAY_EVERY: Final = 100_000


class _Log:
    """A log that is appended to, and the versions of its streams."""

    def __init__(self, store: SqliteShard, streams: int) -> None:
        self.store = store
        self._versions = [0] * streams
        self.events = 0

    async def append(self, events: int, batch: int) -> None:
        """Append `events` more, `batch` per commit, each to the stream that is next by lot."""
        for first in range(0, events, batch):
            groups = []
            for _ in range(min(batch, events - first)):
                stream = scattered(self.events, len(self._versions))
                groups.append(append_group(stream, self._versions[stream], _PAYLOAD))
                self._versions[stream] += 1
                self.events += 1
            for outcome in await self.store.append(groups):
                if not isinstance(outcome, Committed):
                    raise InvariantError(f"an append of the bench was not committed: {outcome}")


@asynccontextmanager
async def growth_cases(setting: Setting) -> AsyncIterator[Cases]:
    """The same stretch of appends, durable as always, 100 per commit."""
    events, streams = setting.scale.log_events, setting.scale.log_streams
    made = 0

    async def small(seconds: float) -> Sample:
        nonlocal made
        took_s, count = 0.0, 0
        while took_s < seconds:
            made += 1
            async with _filled(setting.folder / f"small-{made}", _SMALL, streams, setting) as log:
                took_s += await _timed(log)
            count += _STRETCH
        return sample(count, took_s)

    async with _filled(setting.folder / "big", events, streams, setting) as log:

        async def big(seconds: float) -> Sample:
            took_s, count = 0.0, 0
            while took_s < seconds:
                took_s += await _timed(log)
                count += _STRETCH
            return sample(count, took_s)

        yield {"growth-small": small, "growth": big}


async def _timed(log: _Log) -> float:
    began = time.perf_counter()
    await log.append(_STRETCH, _BATCH)
    return time.perf_counter() - began


@asynccontextmanager
async def _filled(directory: Path, events: int, streams: int, setting: Setting) -> AsyncIterator[_Log]:
    """A log with `events` events: filled without waiting for the disk, then opened again as a deployment has it."""
    clock, entropy = SystemClock(), SystemEntropy()
    create_log(directory, 1, clock=clock, entropy=entropy)
    store = await SqliteShard.open(directory, 0, clock=clock, entropy=entropy, durability="process")
    log = _Log(store, streams)
    try:
        await store.take("bench")
        while log.events < events:
            await log.append(min(_SAY_EVERY, events - log.events), _FILL_BATCH)
            if events > _SAY_EVERY:
                setting.progress(f"{log.events:,} of {events:,} events written")
    finally:
        await store.close()
    log.store = await SqliteShard.open(directory, 0, clock=clock, entropy=entropy)
    try:
        await log.store.take("bench")
        yield log
    finally:
        await log.store.close()
