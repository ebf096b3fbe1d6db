"""`verify` of a view: a second one is made of the log in a folder of its own, up to the same positions, and the two are compared (I-11)."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from events.clock import Clock, SystemClock
from events.selection import Selected, Selection
from events.sqlite.sqlite_library import library, open_reader
from events.store import LogReader
from projections.comparing import Difference, Row, first_difference
from projections.errors import NotReadyError
from projections.follower import Follower, Upcast
from projections.generations_sqlite import SCRATCH, read_active
from projections.projection import ProjectionFactory
from projections.view import Positions
from projections.view_sqlite import VIEW_FILE, SqliteView

_ROWS_AT_ONCE: Final = 2_000


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What a comparison came to. rows: compared; difference: the first, None = equal; events: read for the rebuild, `rate` per second."""

    name: str
    version: int
    positions: dict[int, int]
    rows: int
    events: int
    rate: float
    difference: Difference | None


class UpTo:
    """A log as it was when its shards stood at `positions`: as much of `LogReader` as a follower that catches up needs."""

    def __init__(self, reader: LogReader, positions: Positions) -> None:
        self.shards = reader.shards
        self._reader = reader
        self._positions = positions

    async def select(self, shard: int, wanted: Selection, *, after: int = 0, limit: int = 1_000) -> Selected:
        return await self._reader.select(shard, wanted, after=after, before=self._positions.get(shard, 0) + 1, limit=limit)


async def verify(
    make: ProjectionFactory,
    folder: Path,
    log: str,
    reader: LogReader,
    *,
    upcast: Upcast,
    clock: Clock | None = None,
    tell: Callable[[int, int, float], None] | None = None,
) -> Verified:
    """Compare the active view of a projection with one made anew. Reads only; the view goes on serving and following meanwhile.

    Args:
        folder: ``views`` of the deployment.
        tell: called with events read, events to read, and events per second.

    Raises:
        NotReadyError: there is no view of this version yet. RebuildNeededError: it is damaged.
    """
    clock = clock or SystemClock()
    path = folder / make().name
    active = read_active(path)
    if active is None or active.version != make().version or active.log != log:
        raise NotReadyError(f"there is no view of version {make().version} of {make().name} yet", retry_after_ms=1_000)
    with scratch(path) as place:
        (place / "copy").mkdir()
        _copy(path / active.folder / VIEW_FILE, place / "copy" / VIEW_FILE)
        view = await SqliteView.open(make(), place / "copy", log, clock=clock)
        try:
            positions = dict(await view.positions())
            rebuilt = await SqliteView.open(make(), place / "rebuilt", log, clock=clock, heads=positions)
            try:
                rate = await build(rebuilt, reader, positions, upcast=upcast, clock=clock, tell=tell)
                rows, difference = await _compare(view, rebuilt)
            finally:
                await rebuilt.close()
        finally:
            await view.close()
    return Verified(
        name=view.name, version=view.version, positions=positions, rows=rows, events=sum(positions.values()), rate=rate,
        difference=difference,
    )  # fmt: skip


async def build(
    view: SqliteView,
    reader: LogReader,
    positions: Positions,
    *,
    upcast: Upcast,
    clock: Clock,
    tell: Callable[[int, int, float], None] | None = None,
) -> float:
    """Bring `view` to `positions`; events per second."""
    follower = Follower(view, UpTo(reader, positions), upcast=upcast, clock=clock)  # type: ignore[arg-type]
    total, began = sum(positions.values()), clock.monotonic()
    while await follower.step():
        if tell is not None:
            seen = sum(follower.statistics().positions_seen.values())
            tell(seen, total, seen / max(clock.monotonic() - began, 0.001))
    return total / max(clock.monotonic() - began, 0.001)


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """A folder of this process beside the generations for the block. If the process dies, the next projector removes it."""
    path = path / f"{SCRATCH}{os.getpid()}"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o700, parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    """In one step, so that it is of one checkpoint whoever writes meanwhile."""
    with closing(open_reader(source)) as db, closing(library.connect(target)) as copy:
        db.backup(copy)


async def _compare(view: SqliteView, rebuilt: SqliteView) -> tuple[int, Difference | None]:
    mine, other = await _rows(view), await _rows(rebuilt)
    count = 0
    while True:
        some, others = await _next(view, mine), await _next(rebuilt, other)
        same, difference = first_difference(some, others)
        count += same
        if difference is not None or not some:
            return count, difference


async def _rows(view: SqliteView) -> Iterator[Row]:
    return await view.run(lambda db: iter(view.projection.comparable(db)))


async def _next(view: SqliteView, rows: Iterator[Row]) -> list[Row]:
    return await view.run(lambda db: list(islice(rows, _ROWS_AT_ONCE)))
