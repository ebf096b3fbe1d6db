"""The only spawner of tasks. Every task is named, held strongly until it ends, and its failure is never lost (style.md 7)."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import structlog

log = structlog.get_logger("cuebook.tasks")
_CANCEL_AGAIN_S: Final = 0.1


class Tasks:
    """All tasks of one process. A task that raises is node-fatal: `on_fatal` hears of it once, so that the process can end and be
    restarted; what may fail by itself (a handler, a connection) catches its own errors."""

    def __init__(self, on_fatal: Callable[[BaseException], None] | None = None) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._on_fatal = on_fatal

    def spawn(self, coroutine: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        log.error("task_failed", task=task.get_name(), exc_info=error)
        if self._on_fatal is not None:
            self._on_fatal(error)

    def __len__(self) -> int:
        return len(self._running)

    async def cancel_all(self, timeout_s: float = 5.0) -> None:
        """Cancel what still runs and wait for it, at most `timeout_s`."""
        current = asyncio.current_task()
        running = [task for task in self._running if task is not current]
        give_up = asyncio.get_running_loop().time() + timeout_s
        while running and asyncio.get_running_loop().time() < give_up:
            for task in running:
                task.cancel()
            _, rest = await asyncio.wait(running, timeout=_CANCEL_AGAIN_S)
            running = list(rest)


async def done_before(stop: asyncio.Event, work: Awaitable[object], tasks: Tasks) -> bool:
    """Wait for `work`, which may take for ever, unless `stop` is set first: then it is cancelled, and False returned. Raises what it
    raises. Cancelled: so is `work`."""
    failed: list[Exception] = []

    async def attempt() -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001  raised below, where it is waited for
            failed.append(error)

    attempting, stopping = tasks.spawn(attempt(), name="attempt"), tasks.spawn(stop.wait(), name="stop")
    try:
        await asyncio.wait([attempting, stopping], return_when=asyncio.FIRST_COMPLETED)
        done = attempting.done()
    finally:
        await end(stopping)
        await end(attempting)
    if failed:
        raise failed[0]
    return done


async def end(task: asyncio.Task[Any]) -> None:
    """Cancel `task` and wait until it has ended. Again and again, because `asyncio.wait_for` of Python 3.11, which nats-py uses, swallows
    a cancellation that arrives together with its result."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_CANCEL_AGAIN_S)
