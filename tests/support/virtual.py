"""The runtime inside one process on virtual time and a log in memory: hours of waiting pass at once, and every run is the same."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

from actors.models.port import Models
from events.in_memory.store_memory import MemoryLog
from runtime.app import App
from runtime.exchange_memory import MemoryExchange
from runtime.local import LocalRuntime
from runtime.ownership.leaving import leave
from runtime.shard import Shard
from runtime.tasks import Tasks
from tests.support.logs import SeededEntropy
from tests.support.sim_loop import SimClock, SimLoop

T = TypeVar("T")


class Virtual:
    """A log in memory and the clock of the loop that runs it."""

    def __init__(self, loop: SimLoop, seed: int = 1) -> None:
        self.clock = SimClock(loop)
        self._seed = seed
        self.log = MemoryLog(1, clock=self.clock, entropy=SeededEntropy())

    @asynccontextmanager
    async def runtime(self, app: App, models: Models | None = None, *, killed: bool = False) -> AsyncIterator[LocalRuntime]:
        """Own the log; it can be left and owned again, as by a restart. killed: nothing is handed over at the end, as by SIGKILL."""
        store = self.log.shard(0)
        ownership = await store.take("virtual")
        tasks, threads = Tasks(), ThreadPoolExecutor(1)
        exchange = MemoryExchange(1, tasks, self.clock)
        exchange.models = models
        entropy = SeededEntropy(self._seed * 1_000 + ownership.epoch)
        shard = Shard(store, ownership, app, exchange, tasks, self.clock, entropy, threads, lambda _: None)
        exchange.serve(shard)
        await shard.load()
        shard.start()
        try:
            yield LocalRuntime(exchange, [shard], self.clock)
        finally:
            if killed:
                shard.abandon()
            else:
                await leave(shard, 5.0)
            await tasks.cancel_all()
            threads.shutdown()


def virtually(main: Callable[[Virtual], Awaitable[T]], *, seed: int = 1) -> T:
    """Run `main` to its end on virtual time."""
    loop = SimLoop(random.Random(seed), steps_max=100_000_000)

    async def whole() -> T:
        return await main(Virtual(loop, seed))

    try:
        return loop.run_until_complete(whole())
    finally:
        loop.close()
