"""A view that keeps itself in one place, such as a server: it is emptied and filled again instead of built anew beside itself."""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from projections.errors import NotReadyError, OperationFailedError, ProjectionError
from projections.locking import lock_file
from projections.operations import Operation, operations_of
from projections.view import Positions, View


class EmptiedView(View, Protocol):
    """A view that can be emptied."""

    async def clear(self) -> object:
        """Forget every value and the checkpoint. Raises: ViewUnavailableError."""
        ...

    async def check(self) -> None:
        """Raises: CheckpointError: what was written through this object is lost. ViewUnavailableError."""
        ...


V = TypeVar("V", bound=EmptiedView)


class OwnAnswers:
    """The operations of a view that has its own way to read: methods ``async def name(self, reads, ...)``; `reads` is None."""

    def __init__(self, view: View) -> None:
        self.operations: Mapping[str, Operation] = operations_of(view)
        self._name = view.name

    @property
    def busy(self) -> bool:
        return False

    async def ask(self, name: str, arguments: Mapping[str, Any], timeout_s: float) -> tuple[Any, Positions]:
        """Raises: NotReadyError: not done within `timeout_s`. OperationFailedError: it raised."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self.operations[name].function(None, **arguments), {}
        except ProjectionError:
            raise
        except TimeoutError as error:
            raise NotReadyError(f"{self._name}.{name} did not end within {timeout_s:g} s", retry_after_ms=1_000) from error
        except Exception as error:  # an operation may raise anything
            raise OperationFailedError(f"{self._name}.{name} failed: {type(error).__name__}: {error}") from error

    async def positions(self, timeout_s: float) -> Positions:
        """None: it answers as long as it is live only, and then its follower knows."""
        return {}

    async def close(self) -> None:
        """Nothing to close: the view is closed by whoever opened it."""


class SingleGeneration:
    """Adapter of `generations.Generations` for such a view. The lock is a file: all projectors of a log run on one host (S6)."""

    def __init__(self, make: Callable[[], Any], name: str, version: int, folder: Path) -> None:
        """
        Args:
            make: a fresh client of the view.
            folder: ``views`` of the deployment, where the lock stands.
        """
        self.name = name
        self.version = version
        self._make = make
        self._path = folder / name
        self._lock: int | None = None

    def try_lock(self) -> bool:
        self._lock = lock_file(self._path)
        return self._lock is not None

    def unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def open_active(self) -> Any:
        return self._make()

    async def open_unfinished(self) -> Any:
        return None

    async def begin(self, heads: Positions) -> Any:
        return self._make()

    async def restart(self, view: Any) -> bool:
        await view.clear()
        return True

    def activate(self, view: Any) -> None:
        """It always is."""

    async def discard(self, view: Any) -> None:
        await view.close()

    def answers(self, view: Any) -> OwnAnswers:
        return OwnAnswers(view)

    def stale_answers(self) -> OwnAnswers | None:
        return None

    async def tend(self, view: Any) -> bool:
        """Once a second, while nothing is recorded, whether the view still holds what it held."""
        await view.check()
        return True

    def sweep(self, keep: Sequence[Any]) -> None:
        """Nothing is left lying about."""
