"""What a live actor costs in memory while it has nothing to do."""

import gc
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from ops.bench.in_process import depositing
from ops.bench.measure import Cases, Sample, Setting, in_turn
from ops.examples.bank import Account, app
from runtime.local import local_runtime

_WARM: Final = 200
"""Actors woken before the count, so that nothing that is made once is counted."""


@asynccontextmanager
async def idle_cases(setting: Setting) -> AsyncIterator[Cases]:
    """Bytes that Python holds more after `idle` actors have each done one command and rest, divided by their number.

    The state of each is taken off; what the store remembers of each stream (its head) is counted, as it is there because the actor is.
    """
    rounds = 0

    async def idle(_: float) -> Sample:
        nonlocal rounds
        rounds += 1
        return await _bytes_per_actor(setting.folder / f"idle-{rounds}", setting.scale.idle)

    yield {"idle-bytes": idle}


async def _bytes_per_actor(directory: Path, actors: int) -> Sample:
    async with local_runtime(app, directory) as runtime:
        await in_turn(depositing(runtime, _WARM), _WARM)
        gc.collect()
        tracemalloc.start()
        try:
            before = _held()
            await in_turn(depositing(runtime, _WARM + actors), _WARM + actors)
            held = _held() - before
            state = _held_by(lambda: [Account(cents=1_000 + number) for number in range(actors)])
        finally:
            tracemalloc.stop()
        live = sum(len(shard.cells) for shard in runtime.shards)
    return Sample(count=actors, per_s=0.0, size_bytes=(held - state) / min(actors, live - _WARM))


def _held() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def _held_by(make: Callable[[], object]) -> int:
    before = _held()
    made = make()
    held = _held() - before
    del made
    return held
