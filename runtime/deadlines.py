"""Deadlines of many waits at the price of one timer.

Nearly every ask is answered long before its deadline. A timer each (`call_later` and `cancel`) costs several times what is done here: an
entry in a dictionary. The one timer stands at the earliest deadline that was seen; when it fires, the entries that are left are looked
through once. There is no timer while nothing waits for long.
"""

import asyncio
from collections.abc import Callable
from typing import Final

_AGAIN_S: Final = 0.001
"""The timer never stands closer than this, so that a clock that is a little early does not make it spin."""


class Deadlines:
    """Calls `on_late` of each wait that was not dropped in time, on the loop. Not for use from other threads."""

    __slots__ = ("_at", "_count", "_loop", "_timer", "_waits")

    def __init__(self) -> None:
        self._waits: dict[int, tuple[float, Callable[[], None]]] = {}
        self._count = 0
        self._at = float("inf")
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __len__(self) -> int:
        return len(self._waits)

    def add(self, delay_s: float, on_late: Callable[[], None]) -> int:
        """Begin a wait of at most `delay_s` from now; returns what `drop` takes."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        deadline = loop.time() + delay_s
        self._count += 1
        self._waits[self._count] = deadline, on_late
        if deadline < self._at:
            self._arm(deadline)
        return self._count

    def drop(self, wait: int) -> None:
        """The wait has ended. Idempotent."""
        self._waits.pop(wait, None)

    def _arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._at = deadline
        self._timer = loop.call_at(max(deadline, loop.time() + _AGAIN_S), self._due)

    def _due(self) -> None:
        self._timer, self._at = None, float("inf")
        now = asyncio.get_running_loop().time()
        late = [wait for wait, (deadline, _) in self._waits.items() if deadline <= now]
        for wait in late:
            self._waits.pop(wait)[1]()
        if self._waits:
            earliest = min(deadline for deadline, _ in self._waits.values())
            if earliest < self._at:
                self._arm(earliest)
