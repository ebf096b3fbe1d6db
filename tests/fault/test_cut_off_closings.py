"""What is open is closed although its closing is cut off, again and again (S5): the thread of one forgotten connection would keep a
process from ending, until it is killed. A busy machine does that, because `runtime.tasks.end` cancels until the task has ended."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from events.errors import InvariantError
from events.log_directory import create_log
from events.sqlite.reader_sqlite import SqliteLogReader
from events.sqlite.store_sqlite import SqliteShard
from events.sqlite.watch_sqlite import SqliteWatch
from projections.database import Database
from projections.errors import NotReadyError
from projections.generations_sqlite import SqliteGenerations
from projections.hints import Hints
from projections.projection import operation
from projections.readers_sqlite import ViewReaders
from projections.runner import Runner
from tests.support.eventually import until
from tests.support.views import SHARDS, Notes, WrittenLog, as_is, noted, streams

(A,) = streams(1)


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[WrittenLog]:
    async with WrittenLog(tmp_path / "log") as made:
        await made.write(A, noted())
        yield made


class Threads:
    """The threads of connections that were made since."""

    def __init__(self) -> None:
        self._before = self._now()

    @staticmethod
    def _now() -> set[threading.Thread]:
        return {each for each in threading.enumerate() if "_connection_worker_thread" in each.name}

    @property
    def made(self) -> set[threading.Thread]:
        return self._now() - self._before

    async def assert_ended(self, made: int) -> None:
        """made: how many there were, so that a test cannot pass because nothing was open."""
        assert made > 0
        await until(lambda: not self.made, f"no thread is left of {made}: {self.made}", 5.0)


async def cut_off(work: Coroutine[Any, Any, Any]) -> None:
    """Run `work`, and cancel it in every turn of the loop until it has ended."""
    task = asyncio.get_running_loop().create_task(work)
    await asyncio.sleep(0)
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)
    assert task.cancelled() or task.exception() is None


async def log_reader(log: WrittenLog) -> SqliteLogReader:
    reader = await SqliteLogReader.open(log.directory)
    async with asyncio.TaskGroup() as group:
        for shard in (*range(SHARDS), *range(SHARDS)):
            group.create_task(reader.info(shard))
    return reader


async def watch(log: WrittenLog) -> SqliteWatch:
    made = await SqliteWatch.open(log.directory)
    for shard in range(SHARDS):
        await made.changed(shard)
    return made


async def writer(log: WrittenLog) -> SqliteShard:
    create_log(log.directory.with_name("other"), 1)
    store = await SqliteShard.open(log.directory.with_name("other"), 0)
    await store.take("w")
    return store


async def view_readers(log: WrittenLog) -> ViewReaders:
    view = await SqliteGenerations(Notes, log.directory.with_name("views"), log.incarnation).begin({})
    readers = ViewReaders(view.path)
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(readers.run(Notes().count, timeout_s=5))
    await view.close()
    return readers


@pytest.mark.parametrize("opened", [log_reader, watch, writer, view_readers], ids=lambda opened: opened.__name__)
async def test_s5_a_closing_that_is_cut_off_leaves_no_thread(log: WrittenLog, opened: Callable[[WrittenLog], Awaitable[Any]]) -> None:
    threads = Threads()
    subject = await opened(log)
    made = len(threads.made)
    await cut_off(subject.close())
    await threads.assert_ended(made)


async def test_s5_what_is_opened_while_it_is_closed_is_closed_too(log: WrittenLog) -> None:
    threads = Threads()
    reader, readers = await SqliteLogReader.open(log.directory), await view_readers(log)
    empty = ViewReaders(readers._path)
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(_refused(reader.info(0), InvariantError)), group.create_task(_refused(_read(empty), NotReadyError))]
        await asyncio.sleep(0)
        made = len(threads.made)
        await reader.close()
        await cut_off(empty.close())
        await readers.close()
    assert all(each.result() for each in asked), "both were asked of what was closed meanwhile"
    await threads.assert_ended(made)


async def _read(readers: ViewReaders) -> Any:
    return await readers.run(Notes().count, timeout_s=5)


async def _refused(work: Awaitable[object], error: type[Exception]) -> bool:
    try:
        await work
    except error:
        return True
    return False


class Held(Notes):
    """Its operation ends when it is let go."""

    entered = threading.Event()
    let_go = threading.Event()

    @operation
    def count(self, db: Database) -> int:
        self.entered.set()
        self.let_go.wait(20)
        return 0


@pytest.mark.parametrize("replaced", [False, True], ids=["of the view that serves", "of a view that was replaced"])
async def test_s5_a_runner_that_ends_while_an_operation_runs_leaves_no_thread(log: WrittenLog, tmp_path: Path, replaced: bool) -> None:
    Held.entered.clear()
    Held.let_go.clear()
    threads, loop = Threads(), asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        reader = await SqliteLogReader.open(log.directory)
        stack.push_async_callback(reader.close)
        runner = Runner(SqliteGenerations(Held, tmp_path / "views", log.incarnation), reader, Hints(SHARDS), upcast=as_is)
        running = loop.create_task(runner.run())
        await until(lambda: runner.status().state == "live", "live")
        asked = loop.create_task(runner.query("count", b""))
        await until(Held.entered.is_set, "the operation runs")
        if replaced:
            runner.rebuild()
            await until(lambda: len(runner._retired) == 1, "the view that is read was replaced")
        made = len(threads.made)
        await cut_off(_ended(running))
        assert running.done()
        Held.let_go.set()
        asked.cancel()
        await asyncio.wait([asked])
    await threads.assert_ended(made)


async def _ended(task: "asyncio.Task[None]") -> None:
    """`runtime.tasks.end` in a hurry."""
    while not task.done():
        task.cancel()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            continue
