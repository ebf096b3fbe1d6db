"""Cold starts: many streams are loaded in few hops, and what is wrong with one stays with it (F-27, I-20)."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from events.errors import CorruptLogError
from events.ids import StreamId
from events.limits import LOAD_EVENTS_MAX, LOAD_STREAMS_MAX
from events.log_directory import create_log, shard_path
from events.sqlite.loads_sqlite import Loads, Request
from events.sqlite.reads_sqlite import FoundHead
from events.sqlite.store_sqlite import SqliteShard
from tests.support.logs import deposited, group, without_guards


class Reads:
    """Notes what is read together, and waits until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self, requests: Sequence[Request]) -> list[Any]:
        self.batches.append([str(stream) for stream, *_ in requests])
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return [CorruptLogError(stream) if stream.startswith("bad") else (None, [stream]) for stream, *_ in requests]


def request(name: str, version: int | None = 1) -> Request:
    head = None if version is None else FoundHead(1, version, version, bytes(32), "live")
    return StreamId(name), "s", head, None


async def start(loads: Loads, *requests: Request) -> "list[asyncio.Task[Any]]":
    tasks = [asyncio.get_running_loop().create_task(loads.load(each)) for each in requests]
    await asyncio.sleep(0)
    return tasks


async def test_what_is_asked_for_while_a_load_runs_is_loaded_together_next() -> None:
    reads = Reads()
    loads = Loads(reads)
    tasks = await start(loads, *(request(f"s{n}") for n in range(10)))
    assert reads.batches == [["s0"]]
    reads.gate.set()
    assert [(await task)[1] for task in tasks] == [[f"s{n}"] for n in range(10)]
    assert reads.batches == [["s0"], [f"s{n}" for n in range(1, 10)]]
    assert [(await task)[1] for task in await start(loads, request("later"))] == [["later"]]


async def test_a_load_together_is_bounded_in_streams_and_in_events() -> None:
    reads = Reads()
    loads = Loads(reads)
    tasks = await start(loads, *(request(f"s{n}") for n in range(200)))
    reads.gate.set()
    await asyncio.wait(tasks)
    assert max(map(len, reads.batches)) == LOAD_STREAMS_MAX
    reads.batches.clear()
    await asyncio.wait(await start(loads, *(request(f"s{n}", LOAD_EVENTS_MAX) for n in range(5))))
    assert list(map(len, reads.batches)) == [1] * 5


async def test_what_is_wrong_with_one_stream_stays_with_it() -> None:
    reads = Reads()
    tasks = await start(Loads(reads), request("s0"), request("s1"), request("bad"), request("s2"))
    reads.gate.set()
    with pytest.raises(CorruptLogError):
        await tasks[2]
    assert [(await tasks[n])[1] for n in (0, 1, 3)] == [["s0"], ["s1"], ["s2"]]


async def test_whoever_is_cancelled_leaves_the_others_their_loads() -> None:
    """The first, one that waits, and the one that was to load for all."""
    for cancelled in ((0,), (1,), (2,), (0, 1), (0, 1, 2)):
        reads = Reads()
        loads = Loads(reads)
        tasks = await start(loads, *(request(f"s{n}") for n in range(4)))
        for index in cancelled:
            tasks[index].cancel()
        reads.gate.set()
        async with asyncio.timeout(5):
            for index, task in enumerate(tasks):
                if index in cancelled:
                    with pytest.raises(asyncio.CancelledError):
                        await task
                else:
                    assert (await task)[1] == [f"s{index}"]
            assert list((await loads.load(request("after")))[1]) == ["after"]  # type: ignore[comparison-overlap]


async def test_a_read_that_fails_is_told_to_all_who_shared_it_and_to_nobody_after() -> None:
    reads = Reads()
    loads = Loads(reads)
    tasks = await start(loads, request("s0"), request("s1"), request("s2"))
    reads.error = OSError("away")
    reads.gate.set()
    for task in tasks:
        with pytest.raises(OSError, match="away"):
            await task
    reads.error = None
    assert list((await loads.load(request("after")))[1]) == ["after"]  # type: ignore[comparison-overlap]


async def test_two_hundred_cold_streams_of_a_real_shard_take_a_few_hops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "log"
    create_log(directory, 1)
    store = await SqliteShard.open(directory, 0)
    await store.take("w")
    names = [StreamId(f"actor/a{n}") for n in range(200)]
    await store.append([group(name, 0, deposited(n), deposited(n)) for n, name in enumerate(names)])
    await store.close()
    without_guards(shard_path(directory, 0), "UPDATE events SET payload = '{\"cents\":99}' WHERE position = 7")
    store = await SqliteShard.open(directory, 0)
    hops = 0
    read = store._read

    async def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal hops
        hops += 1
        return await read(*args, **kwargs)

    monkeypatch.setattr(store, "_read", counted)
    results = await asyncio.gather(*(store.load(name, "s") for name in names), return_exceptions=True)
    await store.close()
    assert [index for index, result in enumerate(results) if isinstance(result, BaseException)] == [3]
    assert isinstance(results[3], CorruptLogError)
    assert all(len(result[1]) == 2 for result in results if not isinstance(result, BaseException))
    assert hops <= 6
