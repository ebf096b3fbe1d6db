"""What a writer promises to readers, while its database thread is at work (S30)."""

import asyncio
import threading
from pathlib import Path

from events.clock import SystemClock
from events.log_directory import create_log
from events.sqlite.store_sqlite import SqliteShard
from events.store import Committed
from tests.support.logs import SeededEntropy, deposited, group, stream_in

A = stream_in(0, 1, "a")


class Held(SystemClock):
    """A clock that stops its reader, once it was read."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.read = threading.Event()

    def wall_us(self) -> int:
        now = super().wall_us()
        self.read.set()
        self.go.wait()
        return now


async def test_s30_a_transaction_that_has_looked_at_the_clock_is_not_overtaken(tmp_path: Path) -> None:
    """Else its event would be recorded below what readers were told to be final."""
    create_log(tmp_path / "log", 1)
    clock = Held()
    store = await SqliteShard.open(tmp_path / "log", 0, clock=clock, entropy=SeededEntropy(), durability="process")
    try:
        await store.take("w")
        clock.read.clear()
        clock.go.clear()
        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(store.append([group(A, 0, deposited())]))
            try:
                await asyncio.to_thread(clock.read.wait)
                promised = store.raise_floor(SystemClock().wall_us() + 1)
            finally:
                clock.go.set()
        (outcome,) = writing.result()
        assert isinstance(outcome, Committed)
        assert outcome.events[0].time > promised
        later = outcome.events[0].time + 1_000_000_000
        assert store.raise_floor(later) == later
    finally:
        await store.close()


async def test_s30_a_writer_in_doubt_promises_nothing(tmp_path: Path) -> None:
    """What a commit of unknown outcome wrote may show when the file is opened again."""
    create_log(tmp_path / "log", 1)
    store = await SqliteShard.open(tmp_path / "log", 0, entropy=SeededEntropy(), durability="process")
    try:
        await store.take("w")
        before = store.raise_floor(1)
        store._writer.must_reopen = True
        assert store.raise_floor(1_000) == before
        await store.append([group(A, 0, deposited())])
        assert store.raise_floor(1_000) > 1_000
    finally:
        await store.close()
