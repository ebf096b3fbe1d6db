"""A view in one place, a real server, kept by a runner: emptied, lost and ended under it."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from events.clock import SystemClock
from events.envelope import Kind, NewEvent
from events.ids import StreamId
from ops.cache_server import find_program
from projections.cache.view_redis import RedisCacheView
from projections.hints import Hints
from projections.runner import Runner
from projections.single import SingleGeneration
from projections.view import Parked, Positions
from tests.support.eventually import until
from tests.support.programs import needs_program
from tests.support.sage import values
from tests.support.valkey import Valkey, valkey
from tests.support.views import SHARDS, WrittenLog, as_is


@pytest.fixture(scope="module")
def server() -> Iterator[Valkey]:
    needs_program(find_program)
    with valkey() as made:
        yield made


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[WrittenLog]:
    async with WrittenLog(tmp_path / "log") as made:
        yield made


def result(number: int) -> NewEvent:
    caching = {"namespace": "api", "key": f"{number:064x}", "ttl_us": 3_600_000_000}
    return NewEvent(type="step.completed", kind=Kind.STEP, payload=msgspec.json.encode({"result": number, "cache": caching}))


@asynccontextmanager
async def kept(make: Any, log: WrittenLog, folder: Path) -> AsyncIterator[tuple[Runner[Any], Hints]]:
    hints = Hints(SHARDS)
    runner: Runner[Any] = Runner(SingleGeneration(make, "cache", 1, folder), await log.reader(), hints, upcast=as_is)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(runner.run())
        try:
            yield runner, hints
        finally:
            task.cancel()


def is_level(runner: Runner[Any]) -> bool:
    status = runner.status()
    return status.state == "live" and status.view is not None and status.view.lag_s == 0


def held(server: Valkey) -> list[bytes]:
    return [name for name in server.names() if not name.endswith(b":checkpoint")]


async def test_i18_a_server_that_loses_everything_is_filled_again_and_rebuilt_in_place(
    server: Valkey, log: WrittenLog, tmp_path: Path
) -> None:
    server.admin.flushall()
    stream = StreamId("sage/a")
    await log.write(stream, *[result(number) for number in range(20)])

    def make() -> RedisCacheView:
        return RedisCacheView(server.address, values(log.incarnation), SystemClock())

    async with kept(make, log, tmp_path / "views") as (runner, hints):
        await until(lambda: is_level(runner) and len(held(server)) == 20, "filled")
        before = held(server)
        server.admin.flushall()
        # Nothing is recorded meanwhile: that it is lost is seen all the same.
        await until(lambda: held(server) == before, "filled again", 10.0)
        server.admin.set(before[0], b"planted")
        runner.rebuild()
        await until(lambda: server.admin.get(before[0]) not in (None, b"planted"), "rebuilt")
        shard, position = await log.write(stream, result(99))
        hints.tell(shard, position)
        after = msgspec.json.encode({"_after": {str(shard): position}})
        ((tally,), _) = await runner.query("stats", after)
        assert (tally.hits, tally.misses) == (0, 21)
        assert len(held(server)) == 21


async def test_a_lost_cancellation_does_not_keep_a_projector_from_ending(log: WrittenLog, tmp_path: Path) -> None:
    """As a client library loses one that comes while it cleans up."""
    checking = asyncio.Event()

    class Swallowing:
        name, version, handles, sealed = "cache", 1, (), False

        async def positions(self) -> Positions:
            return {}

        async def parked(self) -> Sequence[Parked]:
            return ()

        async def apply(self, *args: object, **kwargs: object) -> None: ...

        async def release(self, *args: object, **kwargs: object) -> None: ...

        async def clear(self) -> None: ...

        async def check(self) -> None:
            checking.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return

        async def close(self) -> None: ...

    async with asyncio.timeout(10), kept(Swallowing, log, tmp_path / "views"):
        await checking.wait()
