"""SIGKILL of a projector at each point of a view's life, twice in a row (F-5): rows and checkpoint stay together, nothing is applied twice,
and whoever asked before a rebuild is answered by the old view until the new one is whole (I-11, I-12).
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from events.crash_points import CrashPoint
from events.ids import StreamId
from events.log_directory import read_identity
from projections.comparing import Row
from projections.generations_sqlite import SqliteGenerations, read_active
from tests.support.crashing import environment
from tests.support.views import POISON, Notes, WrittenLog, counted, noted, rebuilt, rows, streams

pytestmark = pytest.mark.crash
ROOT = Path(__file__).resolve().parents[2]
PROJECTOR = """
import asyncio, sys
from pathlib import Path
from tests.support.crashing import arm
from tests.support.eventually import until
from tests.support.views import Notes, WrittenLog, running
arm()
folder, verb = Path(sys.argv[1]), sys.argv[2]
async def main():
    log = WrittenLog(folder / "log")
    async with running(Notes, folder / "views", log) as (runner, hints):
        await until(lambda: runner.status().state == "live" and runner.status().view.lag_s == 0, "level")
        if verb == "rebuild":
            runner.rebuild()
            await until(lambda: runner.status().state == "rebuilding", "rebuilding")
            await until(lambda: runner.status().state == "live" and len(list((folder / "views" / "notes").glob("v1-*"))) == 1, "rebuilt")
    await log.close()
    print("done")
asyncio.run(main())
"""
ERASED = streams(7)[6]


def projector(folder: Path, verb: str, point: CrashPoint | None = None, n: int = 1) -> None:
    """Run a projector to the end of the log; with `point` it dies there."""
    mark = folder / "mark"
    extra = {} if point is None else environment(point, mark, n)
    done = subprocess.run(
        [sys.executable, "-c", PROJECTOR, str(folder), verb], cwd=ROOT, env={**os.environ, **extra}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    if point is None:
        assert done.stdout.endswith("done\n"), done.stderr
    else:
        assert done.returncode == -signal.SIGKILL, done.stderr
        mark.unlink()


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[WrittenLog]:
    async with WrittenLog(tmp_path / "log") as made:
        yield made


async def fill(log: WrittenLog, seed: int) -> None:
    for number in range(150):
        stream = streams(7)[(number * 3 + seed) % 6]
        await log.write(stream, noted(f"word{number % 17} of {seed}"), counted(number))
    if seed == 0:
        await log.write(ERASED, noted("top secret"), counted(5))
        await log.write(StreamId("desk/poisoned"), counted(1), POISON, counted(2))


async def rows_of(folder: Path) -> list[Row]:
    generations = SqliteGenerations(Notes, folder / "views", read_identity(folder / "log").incarnation)
    view = await generations.open_active()
    assert view is not None
    try:
        assert [(each.stream, each.held) for each in await view.parked()] == [("desk/poisoned", 1)]
        return await rows(view)
    finally:
        await view.close()


@pytest.mark.parametrize(("point", "n"), [(CrashPoint.VIEW_CREATED, 1), (CrashPoint.VIEW_APPLIED, 2), (CrashPoint.VIEW_COMMITTED, 2)])
async def test_a_projector_killed_while_it_applies_loses_and_doubles_nothing(
    log: WrittenLog, tmp_path: Path, point: CrashPoint, n: int
) -> None:
    await fill(log, 0)
    await asyncio.to_thread(projector, tmp_path, "follow", point, n)
    # VIEW_CREATED is passed once per file: the second death is that of the file which a rebuild makes.
    if point is CrashPoint.VIEW_CREATED:
        await asyncio.to_thread(projector, tmp_path, "rebuild", point)
    else:
        await asyncio.to_thread(projector, tmp_path, "follow", point, 1)
    await fill(log, 1)
    await asyncio.to_thread(projector, tmp_path, "follow")
    assert await rows_of(tmp_path) == await rebuilt(Notes, log.directory, tmp_path / "again")


@pytest.mark.parametrize(
    "point", [CrashPoint.REBUILD_BUILT, CrashPoint.REBUILD_POINTED, CrashPoint.REBUILD_SWAPPED, CrashPoint.REBUILD_REMOVED]
)
async def test_a_rebuild_killed_anywhere_leaves_one_view_that_answers(log: WrittenLog, tmp_path: Path, point: CrashPoint) -> None:
    await fill(log, 0)
    await asyncio.to_thread(projector, tmp_path, "follow")
    before = await rows_of(tmp_path)
    await asyncio.to_thread(projector, tmp_path, "rebuild", point)
    assert await rows_of(tmp_path) == before  # the old one or the new one, and either is whole
    # Once more. Where the first death left nothing to do, another rebuild is asked for and dies too.
    await asyncio.to_thread(projector, tmp_path, "rebuild", point)
    assert await rows_of(tmp_path) == before
    await fill(log, 1)
    await asyncio.to_thread(projector, tmp_path, "rebuild")
    assert await rows_of(tmp_path) == await rebuilt(Notes, log.directory, tmp_path / "again")
    active = read_active(tmp_path / "views" / "notes")
    assert active is not None
    assert [path.name for path in (tmp_path / "views" / "notes").iterdir() if path.is_dir()] == [active.folder]


async def test_s29_an_erasure_killed_before_the_bytes_are_gone_is_finished_by_the_next_projector(log: WrittenLog, tmp_path: Path) -> None:
    await fill(log, 0)
    await asyncio.to_thread(projector, tmp_path, "follow")
    await log.erase(ERASED)
    for _ in range(2):
        await asyncio.to_thread(projector, tmp_path, "follow", CrashPoint.VIEW_ERASED)
    await asyncio.to_thread(projector, tmp_path, "follow")
    assert await rows_of(tmp_path) == await rebuilt(Notes, log.directory, tmp_path / "again")
    for path in (tmp_path / "views").rglob("*"):
        assert path.is_dir() or b"secret" not in path.read_bytes(), path
