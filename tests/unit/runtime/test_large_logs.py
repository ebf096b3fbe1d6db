"""One stream of a million events, a million streams: what they cost (F-27). By hand: ``pytest -m long -s``; LARGE_LOG sets the count."""

import asyncio
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from events.envelope import NewEvent
from events.ids import StreamId, Version
from events.limits import COMMIT_TURNS_MAX, LIVE_ACTORS_MAX, SNAPSHOT_EVENTS
from events.log_directory import create_log
from events.sqlite.store_sqlite import SqliteShard
from events.store import Append
from ops.examples.bank import app
from runtime.local import local_runtime

COUNT = int(os.environ.get("LARGE_LOG", "1000000"))
SHAPE = app.registry.type("account").shape


async def write(directory: Path, groups: Iterator[Append]) -> float:
    """Fill the one shard of a new log; returns the seconds that it took."""
    create_log(directory, 1)
    store = await SqliteShard.open(directory, 0, durability="process")
    await store.take("w")
    began = time.perf_counter()
    batch: list[Append] = []
    for group in groups:
        batch.append(group)
        if len(batch) == COMMIT_TURNS_MAX:
            await store.append(batch)
            batch = []
    await store.append(batch)
    await store.close()
    return time.perf_counter() - began


def deposit(stream: str, version: int) -> Append:
    event = NewEvent(type="account.deposited", payload=b'{"cents":1}')
    return Append(stream=StreamId(stream), expected_version=Version(version), command_id=None, events=(event,))


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.long
@pytest.mark.timeout(1_800)
async def test_f27_one_stream_of_a_million_events_is_folded_once_and_then_read_from_its_snapshot(tmp_path: Path) -> None:
    wrote_s = await write(tmp_path, (deposit("account/long", version) for version in range(COUNT)))
    async with local_runtime(app, tmp_path, shards=1) as runtime:
        began = time.perf_counter()
        assert await runtime.ask("account/long", "balance", timeout_s=1_000) == COUNT
        fold_s = time.perf_counter() - began
        await runtime.ask("account/long", "deposit", cents=1)
    async with local_runtime(app, tmp_path, shards=1) as runtime:
        began = time.perf_counter()
        assert await runtime.ask("account/long", "balance") == COUNT + 1
        cold_s = time.perf_counter() - began
        _, events = await runtime.shards[0].store.load(StreamId("account/long"), SHAPE)
    figures = f"folded {fold_s:.1f} s, cold with a snapshot {cold_s * 1e3:.1f} ms, {peak_mib():.0f} MiB"
    print(f"\n{COUNT:,} events: written {wrote_s:.1f} s, {figures}")

    assert len(events) <= SNAPSHOT_EVENTS
    assert cold_s < 1.0


@pytest.mark.long
@pytest.mark.timeout(1_800)
async def test_f27_a_million_streams_cost_what_the_live_ones_cost(tmp_path: Path) -> None:
    wrote_s = await write(tmp_path, (deposit(f"account/n{number}", 0) for number in range(COUNT)))
    before = peak_mib()
    async with local_runtime(app, tmp_path, shards=1) as runtime:
        began = time.perf_counter()
        asked = min(COUNT, LIVE_ACTORS_MAX * 3 // 2)
        for start in range(0, asked, 100):
            names = [f"account/n{number * (COUNT // asked)}" for number in range(start, start + 100)]
            assert await asyncio.gather(*(runtime.ask(name, "balance") for name in names)) == [1] * 100
        took_s = time.perf_counter() - began
        live = len(runtime.shards[0].cells)
        passivated = runtime.shards[0].passivation.passivated
    print(
        f"\n{COUNT:,} streams: written {wrote_s:.1f} s; {asked:,} cold starts {took_s / asked * 1e3:.2f} ms each, "
        f"{live:,} live, {passivated:,} passivated, {peak_mib() - before:.0f} MiB more"
    )
    assert live <= LIVE_ACTORS_MAX
