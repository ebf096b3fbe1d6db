"""An event loop that a seed owns: virtual time, several processes on one loop, and the order between them drawn at random.

Every callback belongs to the process in whose context it was made. Within a process callbacks run in order, as asyncio promises; between
processes any order may happen. A paused process (SIGSTOP) runs nothing until it is resumed, a killed one nothing ever again: not even a
``finally``.
"""

import asyncio
import heapq
import random
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, Final

from tests.support.logs import START_US

_SPIN_MAX: Final = 20_000
"""So many callbacks without virtual time moving on are no work: something wakes itself for ever."""
_STEPS_MAX: Final = 250_000
"""A run has 65,000 at most; one that goes on so long repeats something for ever, with some virtual time in between."""


class SimulationError(Exception):
    """The run itself cannot go on: nothing will ever happen again, or something spins."""


class Process:
    """One operating system process of the simulation: what runs in its `context` stops with it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.paused = False
        self.ready: deque[asyncio.Handle] = deque()
        self._context = copy_context()
        self._context.run(PROCESS.set, self)

    @property
    def context(self) -> Context:
        """A fresh copy: one context cannot be entered twice."""
        return self._context.copy()

    def set(self, variable: ContextVar[Any], value: Any) -> None:
        """Give everything that this process starts from now on a value."""
        self._context.run(variable.set, value)

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call `function` now, as this process."""
        return self.context.run(function, *args, **kwargs)

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """A task of this process, made from outside of it."""
        return asyncio.get_running_loop().create_task(coroutine, context=self.context)


PROCESS: ContextVar[Process | None] = ContextVar("sim_process", default=None)


class SimLoop(asyncio.BaseEventLoop):
    """Time stands still while anything can run, then jumps to the next timer.

    Args:
        disorder: chance that a callback overtakes others of its own process, which asyncio does not do: 0 unless asked for.
        steps_max: after so many callbacks the run counts as one without end.
    """

    def __init__(self, chance: random.Random, *, disorder: float = 0.0, steps_max: int = _STEPS_MAX) -> None:
        super().__init__()
        self._chance = chance
        self._disorder = disorder
        self._steps_max = steps_max
        self._now = 0.0
        self._outside = Process("world")
        self._lanes: list[Process] = [self._outside]
        self._spin = 0
        self.steps = 0
        self.cleaning = False

    def time(self) -> float:
        return self._now

    def add(self, process: Process) -> None:
        self._lanes.append(process)

    def _process_events(self, event_list: Any) -> None:
        raise AssertionError("a simulation has no files and no sockets")

    def _write_to_self(self) -> None:
        """Nobody sleeps in a selector."""

    def _run_once(self) -> None:
        while True:
            self._sort()
            lanes = [lane for lane in self._lanes if lane.ready and (self.cleaning or (lane.alive and not lane.paused))]
            if lanes:
                break
            self._advance()
        lane = lanes[0] if len(lanes) == 1 else self._chance.choice(lanes)
        if self._disorder and len(lane.ready) > 1 and self._chance.random() < self._disorder:
            lane.ready.rotate(-self._chance.randrange(len(lane.ready)))
        handle = lane.ready.popleft()
        self._spin += 1
        self.steps += 1
        if self.steps > self._steps_max:
            raise SimulationError(f"no end after {self.steps:,} callbacks, at {self._now:.3f} s")
        if self._spin > _SPIN_MAX:
            raise SimulationError(f"{lane.name} spins at {self._now:.3f} s: {handle!r}")
        if not handle._cancelled:
            handle._run()

    def _sort(self) -> None:
        """Every callback that became ready goes to its process."""
        ready: deque[asyncio.Handle] = self._ready  # type: ignore[attr-defined]
        while ready:
            self._lane(ready.popleft())

    def _lane(self, handle: asyncio.Handle) -> None:
        process = handle._context.get(PROCESS)  # type: ignore[attr-defined]
        (process or self._outside).ready.append(handle)

    def _advance(self) -> None:
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        moved = False
        while scheduled and (not moved or scheduled[0].when() <= self._now):
            timer = heapq.heappop(scheduled)
            timer._scheduled = False  # type: ignore[attr-defined]
            if timer._cancelled:
                self._timer_cancelled_count -= 1  # type: ignore[attr-defined]
                continue
            if timer.when() > self._now:
                self._now = timer.when()
                self._spin = 0
            moved = True
            self._lane(timer)
        if not moved:
            raise SimulationError(f"nothing will ever happen again after {self._now:.3f} s")


class SimClock:
    """The clock port on virtual time."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop
        self._off_us = self._highest_us = self._lowest_us = 0

    def step(self, seconds: float) -> None:
        """Somebody sets the wall clock."""
        self._off_us += int(seconds * 1_000_000)
        self._highest_us, self._lowest_us = max(self._highest_us, self._off_us), min(self._lowest_us, self._off_us)

    @property
    def swing_s(self) -> float:
        """How much longer a timer may take than it was set for: a new owner knows its due time by the wall clock only (S26)."""
        return (self._highest_us - self._lowest_us) / 1_000_000

    def wall_us(self) -> int:
        return START_US + self._off_us + int(self._loop.time() * 1_000_000)

    def monotonic(self) -> float:
        return self._loop.time()
