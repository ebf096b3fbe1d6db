"""Commands and appends without NATS: the runtime inside this process, on a log of its own."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from events.clock import SystemClock, SystemEntropy
from events.envelope import NewEvent
from events.errors import CuebookError, InvariantError
from events.group_commit import GroupCommit
from events.ids import CommandId, StreamId, Version
from events.log_directory import create_log
from events.sqlite.store_sqlite import SqliteShard
from events.store import Append, Committed, Outcome
from ops.bench.limits import STREAMS, sqlite_cases
from ops.bench.measure import Case, Cases, Sample, Setting, closed_loop, in_turn, sample
from ops.examples.bank import app
from runtime.local import LocalRuntime, local_runtime
from runtime.tasks import Tasks

# One file, as the limit has: more shards would compare the sum of several disks' queues with one.
_SHARDS = 1


@asynccontextmanager
async def command_cases(setting: Setting) -> AsyncIterator[Cases]:
    """Deposits, each a turn with one event, to actors that are awake already; appends without turns; and what SQLite alone does."""
    async with AsyncExitStack() as stack:
        runtime = await stack.enter_async_context(awake_runtime(setting.folder / "commands", STREAMS))
        deposit = depositing(runtime, STREAMS)
        cases: dict[str, Case] = sqlite_cases(setting.folder) | {
            "in-process-1": partial(closed_loop, deposit, 1),
            "in-process-100": partial(closed_loop, deposit, 100),
            "in-process-one": partial(closed_loop, depositing(runtime, 1), 100),
        }
        if "appends-100" in setting.wanted:
            cases["appends-100"] = await stack.enter_async_context(append_cases(setting.folder))
        yield cases


@asynccontextmanager
async def awake_runtime(directory: Path, actors: int, *, shards: int = _SHARDS, deposits: int | None = None) -> AsyncIterator[LocalRuntime]:
    """The bank on a new log, after `deposits` to `actors` accounts in turn; by default one to each."""
    async with local_runtime(app, directory, shards=shards) as runtime:
        await in_turn(depositing(runtime, actors), actors if deposits is None else deposits)
        yield runtime


def depositing(runtime: LocalRuntime, actors: int) -> Callable[[int], Awaitable[object]]:
    """Deposit number n goes to account n modulo `actors`."""

    async def deposit(number: int) -> None:
        await runtime.ask(f"account/{number % actors}", "deposit", cents=500)

    return deposit


def append_group(stream: int, version: int, payload: bytes) -> Append:
    """One event, and nothing beside it: what an append costs without a turn."""
    return Append(
        stream=StreamId(f"account/{stream}"), expected_version=Version(version), command_id=CommandId(f"{version:014x}-{stream:x}"),
        events=(NewEvent(type="account.deposited", payload=payload),),
    )  # fmt: skip


@asynccontextmanager
async def append_cases(folder: Path) -> AsyncIterator[Case]:
    """Appends by the group commit, a hundred of them waiting at any time; no actors, no inbox."""
    clock, entropy, tasks = SystemClock(), SystemEntropy(), Tasks()
    directory = folder / "appends"
    create_log(directory, 1, clock=clock, entropy=entropy)
    store = await SqliteShard.open(directory, 0, clock=clock, entropy=entropy)
    try:
        await store.take("bench")
        commit = GroupCommit(store, lambda work: tasks.spawn(work, name="commit"))
        versions = [0] * STREAMS

        async def run(seconds: float) -> Sample:
            return await _appends(commit, versions, seconds)

        yield run
        await commit.drain()
    finally:
        await store.close()


async def _appends(commit: GroupCommit, versions: list[int], seconds: float) -> Sample:
    numbers = itertools.count()
    latencies: list[float] = []
    clock = time.perf_counter
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    start = clock()
    waiting = 0

    def submit() -> None:
        nonlocal waiting
        stream = next(numbers) % STREAMS
        group = append_group(stream, versions[stream], b'{"cents":500}')
        versions[stream] += 1
        waiting += 1
        began = clock()

        def done(outcome: Outcome | CuebookError) -> None:
            nonlocal waiting
            now = clock()
            waiting -= 1
            latencies.append(now - began)
            if not isinstance(outcome, Committed):
                if not ended.done():
                    ended.set_exception(InvariantError(f"an append of the bench was not committed: {outcome}"))
            elif now - start < seconds:
                submit()
            elif not waiting and not ended.done():
                ended.set_result(None)

        commit.submit(group, done)

    for _ in range(100):
        submit()
    await ended
    return sample(len(latencies), clock() - start, latencies)
