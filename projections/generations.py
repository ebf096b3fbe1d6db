"""The port between a runner and the place where the views of one projection are kept."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from projections.operations import Operation
from projections.view import Positions, View

V = TypeVar("V", bound=View)


class Answers(Protocol):
    """What serves the operations of one view. Adapter: `answers.ProjectionAnswers`."""

    @property
    def operations(self) -> Mapping[str, Operation]: ...

    async def ask(self, name: str, arguments: Mapping[str, Any], timeout_s: float) -> tuple[Any, Positions]:
        """What the operation returns, and the checkpoint of what it saw. Raises as `Runner.query`."""
        ...

    async def positions(self, timeout_s: float) -> Positions:
        """The checkpoint of what is answered from now; empty where that is not to be had. Raises: NotReadyError."""
        ...

    @property
    def busy(self) -> bool: ...

    async def close(self) -> None:
        """After the operations that run."""
        ...


async def covers(answers: Answers, wanted: Positions, timeout_s: float) -> bool:
    """Whether a view that answers without being followed, since it is of an older version (`Projection.answers_from`), had come so far."""
    stood = await answers.positions(max(0.001, timeout_s))
    return all(stood.get(shard, 0) >= position for shard, position in wanted.items())


class Generations(Protocol[V]):
    """Where the views of one projection are kept. Adapters: `generations_sqlite.SqliteGenerations`, `single.SingleGeneration`."""

    name: str
    version: int

    def try_lock(self) -> bool:
        """Become the one that applies, until `unlock` or the end of the process; False if another process is."""
        ...

    def unlock(self) -> None: ...

    async def open_active(self) -> V | None:
        """The view that serves; None if there is none of this version and log, or it is damaged."""
        ...

    async def open_unfinished(self) -> V | None:
        """A view whose building was cut short; None if there is none to go on with."""
        ...

    async def begin(self, heads: Positions) -> V:
        """An empty view beside the active one. heads: how far the log was recorded just before: of a stream whose erasure lies below them
        the view is never given anything."""
        ...

    async def restart(self, view: V) -> bool:
        """Empty the active view where it is, to be filled again; False if a new one is to be built beside it."""
        ...

    def activate(self, view: V) -> None:
        """From now on `view` is the active one, also after a crash; atomic. Raises: ViewUnavailableError."""
        ...

    async def discard(self, view: V) -> None:
        """Close it and remove everything of it."""
        ...

    def answers(self, view: V) -> Answers: ...

    def stale_answers(self) -> Answers | None:
        """Answers from a view of an older version, while there is none of this one."""
        ...

    async def tend(self, view: V) -> bool:
        """Housekeeping of a view that has nothing to apply; whether there is more to do in a second."""
        ...

    def sweep(self, keep: Sequence[V]) -> None:
        """Remove everything but the active view and those in `keep`: what was replaced, and what a crash left half removed."""
        ...
