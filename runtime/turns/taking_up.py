"""After an append with an unknown outcome: what it wrote all the same is taken up, and in order (S18, I-16).

Such an append may have put tells into the inbox, sends into the outbox and timers into their table, and nobody was told. So from the moment
its outcome is unknown, what later commits put into the inbox is not handed to actors directly: it would overtake what was written before.
Everything is read from the log instead, once more after each such commit, until a whole read was handed out and nothing came in meanwhile.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import structlog

from events.errors import CuebookError
from events.limits import FULL_RETRY_S

log = structlog.get_logger("cuebook.shard")


class _Owner(Protocol):
    """What is needed of a shard."""

    number: int

    @property
    def decides(self) -> bool:
        """False once it is leaving: then the next owner takes everything up."""
        ...

    async def take_up(self) -> Callable[[], None]:
        """Read what stands in the log and is not finished; the result hands out what is not under way."""
        ...

    def spawn(self, coroutine: Coroutine[Any, Any, Any], *, name: str) -> "asyncio.Task[Any]": ...


class TakingUp:
    """One per shard; there is a task only while something is in doubt."""

    __slots__ = ("_again", "_owner", "_task")

    def __init__(self, owner: _Owner) -> None:
        self._owner = owner
        self._task: asyncio.Task[Any] | None = None
        self._again = False

    @property
    def in_doubt(self) -> bool:
        """What is committed now must not be handed out directly: call `begin`."""
        return self._task is not None

    def begin(self) -> None:
        """Read the log from now on, even if a read is under way."""
        self._again = True
        if self._task is None:
            self._task = self._owner.spawn(self._run(), name=f"take up {self._owner.number}")

    async def _run(self) -> None:
        try:
            while self._again and self._owner.decides:
                self._again = False
                try:
                    hand_out = await self._owner.take_up()
                except CuebookError as error:
                    log.warning("take_up_failed", shard=self._owner.number, error=error.message)
                    self._again = True
                    await asyncio.sleep(FULL_RETRY_S)
                else:
                    hand_out()
        finally:
            self._task = None
