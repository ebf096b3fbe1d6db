"""I-11 for everything that is kept from the log at once: deleted and built anew while new events arrive, it is what grew."""

import asyncio
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.cache_server import find_program
from tests.support.everything import WORKSPACES, Mixed, everything
from tests.support.programs import needs_program
from tests.support.valkey import Valkey, valkey
from tests.support.views import WrittenLog

pytest.importorskip("redis")
BATCH = 50


@pytest.fixture
def servers() -> Iterator[tuple[Valkey, Valkey]]:
    """One whose cache grows, one that loses it."""
    needs_program(find_program)
    with valkey() as kept, valkey() as lost:
        yield kept, lost


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize("count", [3_000, pytest.param(100_000, marks=pytest.mark.long)])
async def test_i11_memory_vectors_and_cache_deleted_and_rebuilt_while_events_arrive_equal_what_grew(
    tmp_path: Path, servers: tuple[Valkey, Valkey], count: int
) -> None:
    """Some events are of an earlier schema version; the long one prints rate and peak memory: pytest -m long -s."""
    mixed, log, written = Mixed(count), WrittenLog(tmp_path / "log"), 0
    await log.start()

    async def write(until_count: int) -> None:
        nonlocal written
        while written < until_count:
            stream, events = mixed.some(written, BATCH)
            await log.write(stream, *events)
            written += BATCH
            await asyncio.sleep(0)

    try:
        async with everything(tmp_path / "grown", log, servers[0]) as grown:
            await write(count // 4)
            async with everything(tmp_path / "lost", log, servers[1]) as lost:
                await write(count // 2)
                await lost.level()
                assert lost.cached(), "there is something to lose"
            shutil.rmtree(tmp_path / "lost")
            servers[1].admin.flushall()
            await write(count * 9 // 10)
            await grown.level()
            before, began = peak_mib(), time.monotonic()
            async with everything(tmp_path / "lost", log, servers[1]) as again:
                await write(count)
                await again.level()
                seconds = time.monotonic() - began
                print(
                    f"\n{written:,} events, three views rebuilt in {seconds:.1f} s while {count // 10:,} of them were written: "
                    f"{written / seconds:,.0f}/s; peak memory {peak_mib():,.0f} MiB, +{peak_mib() - before:,.0f} MiB"
                )
                await grown.level()
                for name in ("notes", "memory"):
                    mine = await grown.rows(name)
                    assert len(mine) > count // 10
                    assert mine == await again.rows(name), name
                nearest = await grown.nearest()
                assert sum(len(hits) == 10 for hits in nearest) > len(WORKSPACES)
                assert nearest == await again.nearest()
                held = grown.cached()
                assert len(held) > min(count, 10_000) // 20
                assert _differing(held, again.cached()) == []
                assert await grown.counts() == await again.counts()
                # One that serves is rebuilt in place, or beside itself: the same once more.
                for runner in again.runners.values():
                    runner.rebuild()
                await asyncio.sleep(0)
                await write(count + 500)
                await again.level()
                await grown.level()
                for name in ("notes", "memory"):
                    assert await grown.rows(name) == await again.rows(name), name
                assert _differing(grown.cached(), again.cached()) == []
                assert await grown.counts() == await again.counts()
        for tag in ("desk.counted", "memory.stored"):
            assert mixed.made[tag, 1] > 0
            assert mixed.made[tag, 2] > 0
    finally:
        await log.close()


def _differing(mine: dict[bytes, tuple[bytes, int]], other: dict[bytes, tuple[bytes, int]]) -> list[bytes]:
    """Names with another value or another time, or in one only."""
    return sorted(name for name in mine.keys() | other.keys() if mine.get(name) != other.get(name))
