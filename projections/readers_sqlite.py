"""Reads of a view by its operations: read-only connections, each read in one transaction, so that an answer is of one checkpoint."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import aiosqlite

from events.sqlite.sqlite_library import SqliteConnection, SqliteError, close_connections, connect, error_name, on_thread, open_reader
from projections.errors import NotReadyError
from projections.view_sqlite import away_or_damaged

T = TypeVar("T")

READERS_PER_VIEW: Final = 4
"""Threads that read one view at once; further operations wait for one. Python runs one of them at a time, SQLite all."""


class ViewReaders:
    """Connections to one file, made when they are needed. Must be closed, else their threads keep the interpreter alive."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._room = asyncio.Semaphore(READERS_PER_VIEW)
        self._idle: list[aiosqlite.Connection] = []
        self._all: list[aiosqlite.Connection] = []
        self._busy = 0
        self._closed = False
        self._rested = asyncio.Event()
        self._rested.set()

    async def run(self, function: Callable[..., T], *args: Any, timeout_s: float, **kwargs: Any) -> tuple[T, dict[int, int]]:
        """What ``function(db, *args, **kwargs)`` returns, and the checkpoint of what it saw.

        Cancelled or too late: what runs on the thread is interrupted, nothing was changed.

        Raises:
            NotReadyError: not done within `timeout_s`, or the view was replaced. ViewUnavailableError, RebuildNeededError: as the view.
                Else what `function` raised.
        """
        if self._closed:
            raise NotReadyError("the view was just replaced", retry_after_ms=10)
        self._busy += 1
        self._rested.clear()
        try:
            try:
                async with asyncio.timeout(timeout_s), self._room:
                    return await self._run(function, args, kwargs)
            except TimeoutError:
                raise NotReadyError(f"no answer within {timeout_s:g} s", retry_after_ms=1_000) from None
        finally:
            self._busy -= 1
            if not self._busy:
                self._rested.set()

    async def _run(self, function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[T, dict[int, int]]:
        try:
            db = self._idle.pop() if self._idle else await self._connect()
        except SqliteError as error:
            raise away_or_damaged(error) from error
        try:
            return await on_thread(db, _in_transaction, function, args, kwargs)
        except asyncio.CancelledError:
            # The statement under way ends with SQLITE_INTERRUPT; the connection is whole after it.
            with suppress(ValueError):  # it was closed meanwhile
                await db.interrupt()
            raise
        finally:
            self._idle.append(db)

    async def _connect(self) -> aiosqlite.Connection:
        db = await connect(lambda: open_reader(self._path))
        if self._closed:  # by somebody who did not wait until this one was there
            await close_connections([db])
            raise NotReadyError("the view was just replaced", retry_after_ms=10)
        self._all.append(db)
        return db

    async def close(self) -> None:
        """After the operations that run; cancelled, without waiting for them."""
        self._closed = True
        try:
            await self._rested.wait()
        finally:
            connections, self._all, self._idle = self._all, [], []
            await close_connections(connections)


def _in_transaction(
    db: SqliteConnection, function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[T, dict[int, int]]:
    db.execute("BEGIN")
    try:
        positions = dict(db.execute("SELECT shard, position FROM cue_positions").fetchall())
        return function(db, *args, **kwargs), positions
    except SqliteError as error:
        if error_name(error).startswith("SQLITE_INTERRUPT"):
            raise NotReadyError("the operation took too long and was interrupted", retry_after_ms=1_000) from error
        raise
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")
