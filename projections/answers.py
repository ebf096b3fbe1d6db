"""The operations of one view, called on readers beside the one that writes it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from projections.database import Database
from projections.errors import NotReadyError, OperationFailedError, ProjectionError
from projections.operations import Operation, operations_of
from projections.projection import Projection
from projections.readers_sqlite import ViewReaders
from projections.view import Positions

T = TypeVar("T")


class ProjectionAnswers:
    """Adapter of `runner.Answers` for a `Projection`."""

    def __init__(self, projection: Projection, path: Path, *, opened: bool = True) -> None:
        """
        Args:
            opened: whether `projection` is the instance that writes the file; else its `opened` is called here, on a reader.

        Raises:
            ConfigurationError: an operation has a parameter that JSON cannot give.
        """
        self.operations: Mapping[str, Operation] = operations_of(projection)
        self._projection = projection
        self._path = path
        self._readers = ViewReaders(path)
        self._opened = opened
        self._opening = asyncio.Lock()
        self._under_way = 0
        self._at_rest = asyncio.Event()
        self._at_rest.set()
        if opened:
            projection.answering(path)

    @property
    def busy(self) -> bool:
        return self._under_way > 0

    async def ask(self, name: str, arguments: Mapping[str, Any], timeout_s: float) -> tuple[Any, Positions]:
        """What the operation returns, and the checkpoint of what it saw: of several reads the oldest, of none an empty one.

        Cancelled or too late: a statement under way is interrupted; nothing was changed.

        Raises:
            NotReadyError: not done within `timeout_s`. OperationFailedError: the operation raised; else as it raised.
        """
        operation = self.operations[name]
        try:
            async with self._reading(timeout_s):
                await self._open(timeout_s)
                if not operation.is_async:
                    return await self._readers.run(operation.function, timeout_s=timeout_s, **arguments)
                seen: list[Positions] = []

                async def reads(function: Any, *args: Any, **kwargs: Any) -> Any:
                    result, positions = await self._readers.run(function, *args, timeout_s=timeout_s, **kwargs)
                    seen.append(positions)
                    return result

                return await operation.function(reads, **arguments), _oldest(seen)
        except ProjectionError:
            raise
        except TimeoutError as error:
            raise NotReadyError(f"{self._projection.name}.{name} did not end within {timeout_s:g} s", retry_after_ms=1_000) from error
        except Exception as error:  # the author's code may raise anything
            raise OperationFailedError(f"{self._projection.name}.{name} failed: {type(error).__name__}: {error}") from error

    async def positions(self, timeout_s: float) -> Positions:
        """The checkpoint of the view as it is now. Raises: NotReadyError: not read within `timeout_s`, or the file is away."""
        try:
            async with self._reading(timeout_s):
                return (await self._readers.run(_nothing, timeout_s=timeout_s))[1]
        except TimeoutError as error:
            raise NotReadyError(f"{self._projection.name} was not read within {timeout_s:g} s", retry_after_ms=1_000) from error

    @asynccontextmanager
    async def _reading(self, timeout_s: float) -> AsyncIterator[None]:
        """The file stays open meanwhile. Raises: TimeoutError."""
        self._under_way += 1
        self._at_rest.clear()
        try:
            async with asyncio.timeout(timeout_s):
                yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._at_rest.set()

    async def _open(self, timeout_s: float) -> None:
        if self._opened:
            return
        async with self._opening:
            if not self._opened:
                await self._readers.run(self._projection.opened, self._path.parent, timeout_s=timeout_s)
                self._opened = True

    async def close(self) -> None:
        """After the operations that run; cancelled, without waiting for them."""
        try:
            await self._at_rest.wait()
        finally:
            await self._readers.close()


def _nothing(db: Database) -> None:
    """Asked for the sake of the checkpoint that comes with every answer."""


def _oldest(seen: list[Positions]) -> Positions:
    shards = {shard for positions in seen for shard in positions}
    return {shard: min(positions.get(shard, 0) for positions in seen) for shard in shards}
