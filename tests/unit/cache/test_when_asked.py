"""The client of the cache's server is loaded for the first step that asks it, and for nobody else."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from projections.cache.step_cache import CacheServerStatistics, Server
from projections.cache.when_asked import ServerWhenAsked
from runtime.tasks import Tasks


class Shelf:
    """A server that holds one value under every name."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.closed = False

    async def get(self, name: str, bytes_max: int) -> bytes | None:
        self.asked.append(name)
        return b"value"[:bytes_max]

    def statistics(self) -> CacheServerStatistics:
        return CacheServerStatistics(gets=len(self.asked))

    async def close(self) -> None:
        self.closed = True


class Loads:
    """Counts loads."""

    def __init__(self, error: Exception | None = None) -> None:
        self.count = 0
        self.shelf = Shelf()
        self._error = error

    def __call__(self) -> Callable[[], Server]:
        self.count += 1
        if self._error is not None:
            raise self._error
        return lambda: self.shelf


async def test_s37_all_who_ask_at_first_share_one_load() -> None:
    loads, tasks = Loads(), Tasks()
    server = ServerWhenAsked(loads, tasks.spawn)
    assert server.statistics() == CacheServerStatistics()
    assert loads.count == 0
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(server.get(str(number), 3)) for number in range(20)]
    assert {task.result() for task in asked} == {b"val"}
    assert (loads.count, len(loads.shelf.asked), server.statistics().gets) == (1, 20, 20)
    await server.close()
    assert loads.shelf.closed


async def test_s37_a_caller_that_is_cancelled_takes_the_client_from_nobody() -> None:
    loads, tasks = Loads(), Tasks()
    server = ServerWhenAsked(loads, tasks.spawn)
    first, second = (asyncio.ensure_future(server.get(name, 9)) for name in ("first", "second"))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await second == b"value"
    assert loads.count == 1


async def test_s37_a_client_that_cannot_be_loaded_is_a_miss_and_is_not_tried_again() -> None:
    loads, tasks = Loads(ImportError("no such module")), Tasks()
    server = ServerWhenAsked(loads, tasks.spawn)
    assert [await server.get("a", 9), await server.get("b", 9)] == [None, None]
    assert loads.count == 1
    await server.close()


async def test_s37_who_asks_after_the_end_gets_a_miss() -> None:
    loads, tasks = Loads(), Tasks()
    server = ServerWhenAsked(loads, tasks.spawn)
    await server.close()
    assert await server.get("a", 9) is None
    assert loads.count == 0


def test_a_process_with_a_cache_that_no_step_asks_loads_no_client(tmp_path: Path) -> None:
    pytest.importorskip("redis")
    program = """
import asyncio, sys
from pathlib import Path
import ops.worker
from events.log_directory import create_log
from ops.cache import open_step_cache
from ops.cache_connection import make_secrets
from ops.settings import Settings

async def main():
    settings = Settings(data=Path(sys.argv[1]))
    create_log(settings.data / "log", 1)
    make_secrets(settings)
    async with open_step_cache(settings) as cache:
        assert cache.statistics().server.gets == 0
asyncio.run(main())
print(sorted(name for name in sys.modules if name.partition(".")[0] == "redis"))
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "data")], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
