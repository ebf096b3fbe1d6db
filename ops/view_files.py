"""How the views of a deployment stand, from their files and those of the log: with or without a projector, and without the app's code."""

from contextlib import closing
from pathlib import Path

import msgspec

from events.clock import SystemClock
from events.errors import CuebookError
from events.sqlite.sqlite_library import SqliteError, open_reader
from events.store import LogReader
from ops.views import FOLDER
from projections.generations_sqlite import ACTIVE_FILE, read_active
from projections.locking import lock_holder
from projections.view import Parked
from projections.view_sqlite import VIEW_FILE, ViewState, away_or_damaged, read_state


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """One projection. projector: pid of the process that applies it, None if none does. lag: positions behind the log; idle_s: seconds
    since its last commit. building: a new view is on its way. fault: why its file cannot be read, None if it can."""

    name: str
    version: int | None
    projector: int | None
    lag: int | None
    idle_s: float | None
    building: bool
    bytes: int
    parked: list[Parked]
    fault: str | None = None


async def standings(data: Path, reader: LogReader) -> list[Standing]:
    """Every projection that has files in `data`, by name."""
    folder = data / FOLDER
    heads: dict[int, int] = {shard: (await reader.info(shard)).position for shard in range(reader.shards)}
    paths = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    return [_standing(path, heads) for path in paths if (path / ACTIVE_FILE).exists() or any(path.glob("v*-*"))]


def _standing(path: Path, heads: dict[int, int]) -> Standing:
    active = read_active(path)
    folders = [each for each in path.glob("v*-*") if each.is_dir()]
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    building = any(active is None or each.name != active.folder for each in folders)
    state: ViewState | None = None
    fault: str | None = None
    if active is not None:
        try:
            state = _state(path / active.folder / VIEW_FILE)
        except CuebookError as error:
            fault = error.message
    lag = None if state is None else sum(max(0, head - state.positions.get(shard, 0)) for shard, head in heads.items())
    return Standing(
        name=path.name, version=None if active is None else active.version, projector=lock_holder(path), lag=lag,
        idle_s=None if state is None else (SystemClock().wall_us() - state.applied_at_us) / 1e6, building=building, bytes=size,
        parked=[] if state is None else state.parked, fault=fault,
    )  # fmt: skip


def _state(path: Path) -> ViewState:
    try:
        with closing(open_reader(path)) as db:
            return read_state(db)
    except SqliteError as error:
        raise away_or_damaged(error) from error
