"""Which actors stay in memory: the lately used ones, within bounds of time, number and bytes.

One timer per shard, and none while nobody is idle. Nothing is scanned: the cells stand in the order in which they last came to rest, so
whoever is due stands in front. Passivation saves memory, never data: an actor is folded again when somebody asks.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from events.ids import StreamId
from events.limits import LIVE_ACTORS_MAX, LIVE_STATE_BYTES_MAX, PASSIVATE_AFTER_S

if TYPE_CHECKING:
    from runtime.cell import Cell


class LiveBounds(msgspec.Struct, frozen=True, kw_only=True):
    """Per shard. idle_s: an actor goes after so long without a command. actors: how many may be live before the longest idle ones go.
    state_bytes: what their states may take as JSON, a few times that as Python objects: each at most its snapshot and the events since."""

    idle_s: float = PASSIVATE_AFTER_S
    actors: int = LIVE_ACTORS_MAX
    state_bytes: int = LIVE_STATE_BYTES_MAX


class Passivation:
    """The bounds of one shard, over its `cells`, which stay in the order in which they last came to rest."""

    def __init__(self, cells: "OrderedDict[StreamId, Cell]", bounds: LiveBounds, monotonic: Callable[[], float]) -> None:
        self._cells = cells
        self._bounds = bounds
        self._monotonic = monotonic
        self._handle: asyncio.TimerHandle | None = None
        self.busy = 0
        """How many cells have something to do."""
        self.state_bytes = 0
        self.passivated = 0

    def rested(self, cell: "Cell") -> None:
        """`cell` has nothing to do from now on."""
        if not cell.resting:
            cell.resting = True
            self.busy -= 1
        cells, bounds = self._cells, self._bounds
        if cells.get(cell.stream) is not cell:
            return
        cells.move_to_end(cell.stream)
        cell.rested_at = self._monotonic()
        weight = cell.base_bytes + cell.snapshot_bytes
        self.state_bytes += weight - cell.weight
        cell.weight = weight
        if self.state_bytes > bounds.state_bytes or len(cells) > bounds.actors:
            self._shrink()
        if self._handle is None:
            self._arm(self._bounds.idle_s)

    def forget(self, cell: "Cell") -> None:
        """Drop an idle cell now."""
        if self._cells.get(cell.stream) is cell:
            self._remove(cell)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _remove(self, cell: "Cell") -> None:
        del self._cells[cell.stream]
        self.state_bytes -= cell.weight
        cell.weight = 0
        self.passivated += 1

    def _shrink(self) -> None:
        """Let the longest idle ones go until the bounds hold; who is busy stays, and is looked at again only when it rests."""
        for _ in range(len(self._cells)):
            if len(self._cells) <= self._bounds.actors and self.state_bytes <= self._bounds.state_bytes:
                return
            cell = next(iter(self._cells.values()))
            if not cell.idle:
                self._cells.move_to_end(cell.stream)
            elif len(self._cells) == 1:
                return  # one alone may be larger than the bound
            else:
                self._remove(cell)

    def _sweep(self) -> None:
        self._handle = None
        now = self._monotonic()
        for _ in range(len(self._cells)):
            cell = next(iter(self._cells.values()))
            if not cell.idle:
                self._cells.move_to_end(cell.stream)
                continue
            left_s = cell.rested_at + self._bounds.idle_s - now
            if left_s > 0:
                self._arm(left_s)
                return
            self._remove(cell)

    def _arm(self, delay_s: float) -> None:
        self._handle = asyncio.get_running_loop().call_later(delay_s, self._sweep)
