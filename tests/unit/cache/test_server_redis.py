"""Asking the server: together, bounded, and not at all while it is away (S37, I-18)."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from projections.cache.server_redis import RedisCacheServer
from runtime.tasks import Tasks
from tests.support.deployment import wait_until_async
from tests.support.valkey import Valkey

MAX = 1_000


@asynccontextmanager
async def asking(server: Valkey, timeout_s: float = 2.0) -> AsyncIterator[RedisCacheServer]:
    tasks = Tasks()
    adapter = RedisCacheServer(server.address, tasks.spawn, timeout_s=timeout_s)
    try:
        yield adapter
    finally:
        await adapter.close()
        await tasks.cancel_all()


async def ask_all(adapter: RedisCacheServer, names: list[str]) -> list[bytes | None]:
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(adapter.get(name, MAX)) for name in names]
    return [each.result() for each in asked]


async def test_what_is_asked_at_the_same_time_goes_as_one_pipeline(server: Valkey) -> None:
    server.admin.mset({f"k{number}": f"v{number}" for number in range(100)})
    async with asking(server) as adapter:
        found = await ask_all(adapter, [f"k{number}" for number in range(100)] + ["none"])
        counts = adapter.statistics()
    assert found == [f"v{number}".encode() for number in range(100)] + [b""]
    assert (counts.gets, counts.pipelines) == (101, 1)


async def test_wrong_types_and_huge_values_are_misses_and_bounded(server: Valkey) -> None:
    """A value of another type, or of half a gigabyte, costs no more than one of ours."""
    server.admin.rpush("list", "x")
    server.admin.hset("hash", "field", "x")
    server.admin.setrange("huge", 50_000_000, "x")
    async with asking(server) as adapter:
        found = await ask_all(adapter, ["list", "hash", "huge"])
        assert found[:2] == [None, None]
        assert found[2] is not None
        assert len(found[2]) == MAX
        assert adapter.statistics().wrong == 2
        assert not adapter.statistics().away, "that is no outage"


async def test_i18_a_killed_server_costs_one_step_at_most_one_timeout_and_is_found_again(server: Valkey) -> None:
    async with asking(server) as adapter:
        server.admin.set("k", "v")
        assert await adapter.get("k", MAX) == b"v"
        server.kill()
        assert await adapter.get("k", MAX) is None
        assert adapter.statistics().away
        began = time.monotonic()
        for _ in range(1_000):
            assert await adapter.get("k", MAX) is None
        assert time.monotonic() - began < 1.0, "nobody waits while it is away"
        assert adapter.statistics().passed_over == 1_000
        server.start()
        server.admin.set("k", "new")
        await wait_until_async(lambda: not adapter.statistics().away, "the server is found again")
        assert await adapter.get("k", MAX) == b"new"
        assert adapter.statistics().outages == 1


async def test_i18_a_server_that_hangs_is_left_after_one_timeout(server: Valkey) -> None:
    async with asking(server, timeout_s=0.2) as adapter:
        server.admin.set("k", "v")
        assert await adapter.get("k", MAX) == b"v"
        server.pause()
        assert await ask_all(adapter, ["k"] * 10) == [None] * 10
        assert adapter.statistics().outages == 1
        assert await adapter.get("k", MAX) is None
        server.resume()
        await wait_until_async(lambda: not adapter.statistics().away, "the server is found again")
        assert await adapter.get("k", MAX) == b"v", "no answer of before is taken for this one"


async def test_a_caller_that_is_cancelled_leaves_the_answers_of_others_alone(server: Valkey) -> None:
    server.admin.mset({"a": "1", "b": "2"})
    async with asking(server) as adapter, asyncio.TaskGroup() as group:
        first = group.create_task(adapter.get("a", MAX))
        second = group.create_task(adapter.get("b", MAX))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == b"2"


async def test_closing_answers_who_waits(server: Valkey) -> None:
    async with asking(server) as adapter:
        server.pause()
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(adapter.get("k", MAX))
            await asyncio.sleep(0)
            await adapter.close()
        assert asked.result() is None
        assert await adapter.get("k", MAX) is None


async def test_a_wrong_password_is_an_outage_and_nothing_else(server: Valkey) -> None:
    from projections.cache.address import ServerAddress

    tasks = Tasks()
    adapter = RedisCacheServer(ServerAddress(url=f"unix://:wrong@{server.socket}"), tasks.spawn)
    assert await adapter.get("k", MAX) is None
    assert adapter.statistics().away
    await adapter.close()
    await tasks.cancel_all()


async def test_what_does_not_speak_the_protocol_is_an_outage(tmp_path_factory: pytest.TempPathFactory) -> None:
    from projections.cache.address import ServerAddress

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\xff\xfe*9999999\r\n$-7\r\n")
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(babble, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    tasks = Tasks()
    adapter = RedisCacheServer(ServerAddress(url=f"redis://127.0.0.1:{port}"), tasks.spawn)
    assert await adapter.get("k", MAX) is None
    assert adapter.statistics().away
    await adapter.close()
    await tasks.cancel_all()
    listening.close()
    await listening.wait_closed()
