"""The writers of one process fill their transactions in turn, and none waits long for one that is held up."""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from events.clock import SystemClock, SystemEntropy
from events.log_directory import create_log
from events.sqlite.append_sqlite import Draft
from events.sqlite.store_sqlite import SqliteShard
from events.store import Committed
from tests.support.logs import deposited, group, stream_in

SHARDS = 3
STREAMS = [stream_in(shard, SHARDS, "a") for shard in range(SHARDS)]


@pytest.fixture
async def stores(tmp_path: Path) -> Any:
    create_log(tmp_path, SHARDS, clock=SystemClock(), entropy=SystemEntropy())
    opened = [await SqliteShard.open(tmp_path, shard) for shard in range(SHARDS)]
    for store in opened:
        await store.take("w")
    yield opened
    for store in opened:
        await store.close()


async def committed(store: SqliteShard, version: int) -> None:
    (outcome,) = await store.append([group(STREAMS[store.shard], version, deposited(version))])
    assert isinstance(outcome, Committed)


async def test_no_two_shards_fill_their_transactions_at_once(stores: list[SqliteShard], monkeypatch: pytest.MonkeyPatch) -> None:
    """Else their threads take the interpreter's lock from each other in the middle of statements."""
    inside: list[int] = []
    most: list[int] = []
    decide = Draft.decide

    def slowly(self: Draft, *args: Any) -> Any:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.002)
        inside.pop()
        return decide(self, *args)

    monkeypatch.setattr(Draft, "decide", slowly)
    for version in range(5):
        async with asyncio.TaskGroup() as tasks:
            for store in stores:
                tasks.create_task(committed(store, version))
    assert (len(most), max(most)) == (5 * SHARDS, 1)


async def test_a_shard_that_is_held_up_in_its_transaction_holds_up_no_other(
    stores: list[SqliteShard], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its disk, say."""
    go_on, held = threading.Event(), threading.Event()
    decide = Draft.decide

    def holding(self: Draft, *args: Any) -> Any:
        if not held.is_set():
            held.set()
            go_on.wait(10)
        return decide(self, *args)

    monkeypatch.setattr(Draft, "decide", holding)
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(committed(stores[0], 0))
        await asyncio.get_running_loop().run_in_executor(None, held.wait, 10)
        for version in range(3):
            await committed(stores[1], version)
            await committed(stores[2], version)
        assert not first.done()
        go_on.set()
    await committed(stores[0], 1)
