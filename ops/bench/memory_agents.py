"""Ten agents of one workspace, with 100 recalls and writes in flight: by the runtime and the projector in one event loop, and the same view
on sqlite3 in that loop, as the predecessor had it.

Either way a write is durable when it is acknowledged. Ours is an event of the memory actor, which the projector then brings into the view;
there it is the row of the view itself, with a commit of its own. Connection, tables and ranking are the same: kinder than the predecessor's
way, which opened the file for each operation.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from events.envelope import RecordedEvent
from events.errors import InvariantError
from events.sqlite.sqlite_library import open_writer
from ops.bench.lag import watched_blocking, watched_lag
from ops.bench.measure import Case, Sample, closed_loop, in_turn
from ops.bench.memory_texts import AGENTS, WORKSPACE, question_of, stored, text_of
from ops.memory import with_memory
from ops.settings import Settings
from ops.view_service import in_process
from ops.views import Views, open_views
from projections.embedding.hashing import HashEmbedder
from projections.hints import watch_files
from projections.memory.projection import MemoryProjection
from projections.operations import operations_of
from runtime import App
from runtime.local import LocalRuntime, local_runtime
from runtime.tasks import Tasks, end

IN_FLIGHT: Final = 100
_STREAM: Final = f"memory/{WORKSPACE}"
_ANSWER_S: Final = 30.0
_AT_ONCE: Final = 1_000

Work = Callable[[int], Awaitable[object]]


@asynccontextmanager
async def agent_cases(folder: Path, memories: int) -> AsyncIterator[dict[str, Case]]:
    """Both begin with so many memories, and have more after every sample."""
    app = with_memory(App([]))
    settings = Settings(data=folder / "data", cache="off")
    async with local_runtime(app, settings.data / "log", shards=1) as runtime, open_views(settings, app, only=["memory"]) as views:
        tasks = Tasks()
        running = [tasks.spawn(runner.run(), name="projection memory") for runner in views.runners.values()]
        running.append(tasks.spawn(watch_files(views.watch, views.hints), name="watch"))
        synchronous = Synchronous(folder, memories)
        try:
            agents = Agents(runtime, views)
            await agents.fill(memories)
            yield {"memory-agents": agents.run, "memory-sync": synchronous.run}
        finally:
            synchronous.close()
            for task in running:
                await end(task)


class Agents:
    """Our side. Counts what it was told is remembered, and looks for it after every sample."""

    def __init__(self, runtime: LocalRuntime, views: Views) -> None:
        self._runtime = runtime
        self._runner = views.runners["memory"]
        self._view = in_process(views.runners)
        self._acknowledged: set[str] = set()
        self._next = self._head = self._first = 0

        def committed(events: Sequence[RecordedEvent]) -> None:
            if events:
                self._head = events[-1].position
                views.hints.tell(events[-1].shard, self._head)

        runtime.exchange.on_events = committed

    async def fill(self, memories: int) -> None:
        self._first = memories
        await in_turn(self._remember, memories, at_once=_AT_ONCE)
        if not await self._runner.wait_answering(_ANSWER_S):
            raise InvariantError(f"the view did not answer within {_ANSWER_S:.0f} s")
        await self._check()

    async def run(self, seconds: float) -> Sample:
        found = await held_up(self._work, seconds)
        await self._check()
        return found

    async def _work(self, number: int) -> None:
        if number % 2:
            await self._recall(number)
        else:
            await self._remember(number)

    async def _remember(self, _: int) -> None:
        number, self._next = self._next, self._next + 1
        name = await self._runtime.ask(_STREAM, "remember", content=text_of(number), type="semantic", agent=f"a{number % AGENTS}")
        self._acknowledged.add(name)

    async def _recall(self, number: int) -> None:
        query = question_of(number % self._first)
        body = msgspec.json.encode({"workspace": WORKSPACE, "query": query, "k": 5})
        if await self._view("memory", "recall", body, _ANSWER_S) == b"[]":
            raise InvariantError(f"nothing was found of {query!r}")

    async def _check(self) -> None:
        """That nothing was lost. Raises InvariantError."""
        body = msgspec.json.encode({"workspace": WORKSPACE, "_after": {"0": self._head}})
        totals = msgspec.json.decode(await self._view("memory", "stats", body, _ANSWER_S))
        status = self._runner.status()
        if totals["memories"] != len(self._acknowledged) or status.parked or status.failure:
            raise InvariantError(
                f"{len(self._acknowledged):,} memories were acknowledged, {totals['memories']:,} are there", failure=status.failure
            )


class Synchronous:
    """Their side: one connection in the thread of the loop."""

    def __init__(self, folder: Path, memories: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._db = open_writer(folder / "sync.db", "disk", create=True)
        self._projection = MemoryProjection(HashEmbedder())
        self._recall = operations_of(self._projection)["recall"].function
        self._first = self._next = memories
        self._db.execute("BEGIN IMMEDIATE")
        self._projection.create(self._db)
        for number in range(memories):
            self._projection.apply(self._db, stored(number, number + 1))
        self._db.execute("COMMIT")
        self._projection.opened(self._db, folder)

    async def run(self, seconds: float) -> Sample:
        return await held_up(self._work, seconds)

    async def _work(self, number: int) -> None:
        if number % 2:
            query = question_of(number % self._first)
            if not await self._recall(self._read, workspace=WORKSPACE, query=query, k=5):
                raise InvariantError(f"nothing was found of {query!r}")
        else:
            self._next += 1
            self._db.execute("BEGIN IMMEDIATE")
            self._projection.apply(self._db, stored(self._next, self._next))
            self._db.execute("COMMIT")
        await asyncio.sleep(0)

    async def _read(self, function: Callable[..., Any], *args: Any) -> Any:
        self._db.execute("BEGIN")
        try:
            return function(self._db, *args)
        finally:
            self._db.execute("COMMIT")

    def close(self) -> None:
        self._projection.closing(self._db)
        self._db.close()


async def held_up(work: Work, seconds: float) -> Sample:
    """`work` with so many in flight, and how long the loop was held up meanwhile, for each of them."""
    with watched_blocking() as blocked, watched_lag() as lag:
        found = await closed_loop(work, IN_FLIGHT, seconds)
    return msgspec.structs.replace(found, lag_us=lag.p99_us, blocked_us=blocked.seconds / found.count * 1e6)
