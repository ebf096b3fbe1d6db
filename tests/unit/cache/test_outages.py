"""What an outage of the cache's server does to those around it: little is said, and nobody who is told to end goes on (S37, I-18)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from events.clock import SystemClock
from ops.cache_connection import make_secrets
from ops.cache_server import CacheServer, find_program
from ops.settings import Settings
from projections.cache.address import ServerAddress
from projections.cache.connection_redis import open_client
from projections.cache.values import Values
from projections.cache.view_redis import RedisCacheView
from projections.hints import Hints
from projections.runner import Runner
from projections.single import SingleGeneration
from runtime.tasks import Tasks, end
from tests.support.deployment import wait_until_async
from tests.support.valkey import Valkey
from tests.support.views import SHARDS, WrittenLog, as_is


async def test_a_client_never_loses_a_cancellation(server: Valkey) -> None:
    """Wherever it arrives; on Python 3.11 `asyncio.wait_for` loses one that arrives while the command is just sent."""
    client = open_client(server.address, timeout_s=5.0)
    await client.ping()

    async def ask_on_and_on() -> None:
        while True:
            await client.ping()

    try:
        for turns in range(60):
            asking = asyncio.get_running_loop().create_task(ask_on_and_on())
            for _ in range(turns):
                await asyncio.sleep(0)
            asking.cancel()
            done, _ = await asyncio.wait([asking], timeout=1.0)
            lost = not done
            await end(asking)
            assert not lost, f"cancelled after {turns} turns of the loop, it went on"
    finally:
        await client.aclose()


@contextlib.asynccontextmanager
async def refusing(folder: Path, seen: list[int]) -> AsyncIterator[ServerAddress]:
    """A place that takes every connection and closes it."""

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(1)
        writer.close()

    listening = await asyncio.start_unix_server(refuse, folder / "away.sock")
    try:
        yield ServerAddress(socket=str(folder / "away.sock"))
    finally:
        listening.close()
        await listening.wait_closed()


async def test_i18_a_projector_says_once_that_the_server_is_away(tmp_path: Path) -> None:
    log = WrittenLog(tmp_path / "log")
    await log.start()
    seen: list[int] = []
    async with refusing(tmp_path, seen) as address:
        made = SingleGeneration(
            lambda: RedisCacheView(address, Values("0" * 32, b"seal"), SystemClock()), "cache", 1, tmp_path / "views"
        )  # fmt: skip
        with capture_logs() as lines:
            runner = Runner(made, await log.reader(), Hints(SHARDS), upcast=as_is)
            running = asyncio.get_running_loop().create_task(runner.run())
            await wait_until_async(lambda: len(seen) >= 4, "it was tried four times")
            await end(running)
    await log.close()
    assert [(line["log_level"], line["event"]) for line in lines if line["event"].startswith("projection_")] == [
        ("warning", "projection_view_away")
    ]


async def test_i18_up_says_once_that_the_server_does_not_start_again(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("v")
    starts, broken = folder / "starts", folder / "broken"
    program = folder / "server"
    program.write_text(f'#!/bin/sh\necho >> "{starts}"\ntest -e "{broken}" && exit 3\nexec "{find_program()}" "$@"\n')
    program.chmod(0o700)
    settings = Settings(data=folder / "d")
    make_secrets(settings)
    server = CacheServer(settings, program=program)
    await server.start()
    tasks = Tasks()
    watching = tasks.spawn(server.supervise(), name="watch")

    def tried() -> int:
        return len(starts.read_text().splitlines())

    with capture_logs() as lines:
        broken.touch()
        process = server._process
        assert process is not None
        process.kill()
        await wait_until_async(lambda: tried() >= 4, "it was started three times more")
        broken.unlink()
        await wait_until_async(lambda: server.statistics().pid is not None and server.statistics().starts == 2, "it runs again")
    await server.stop()
    await end(watching)
    assert [(line["log_level"], line["event"]) for line in lines] == [
        ("warning", "cache_server_died"), ("warning", "cache_server_restart_failed"), ("info", "cache_server_started_again"),
    ]  # fmt: skip
