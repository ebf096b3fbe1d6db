"""What an erasure does to views (S29): a projector that runs forgets the stream as it comes to it, and is waited for; where none does, the
view's files go."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from events.errors import CuebookError
from events.sqlite_library import SqliteError, open_reader
from ops.views import FOLDER
from projections.generations_sqlite import read_active
from projections.locking import lock_holder
from projections.view_sqlite import VIEW_FILE, read_state

CACHE: Final = "cache"
WAIT_S: Final = 30.0
"""How long `erase` waits for the views of a running deployment."""
_LOOK_S: Final = 0.1

AskView = Callable[[str, str], Awaitable[Any]]
"""``ask(projection, operation)``: what a projection of the running deployment answers. Raises: CuebookError."""


def drop_unattended(data: Path) -> list[str]:
    """Remove the files of every view that no projector applies: nobody would take what was erased out of them before the next start, and a
    view is only ever a copy. They are built anew from the log then. Returns their names."""
    dropped: list[str] = []
    for path in _views(data):
        if lock_holder(path) is None:
            shutil.rmtree(path)
            dropped.append(path.name)
    return dropped


async def wait_forgotten(data: Path, shard: int, position: int, ask: AskView, *, timeout_s: float = WAIT_S) -> list[str]:
    """Wait until every view that a projector applies has passed `position` of `shard`, where the erasure stands, and no byte of what was
    erased is left in its files; names of those that were not there within `timeout_s`. Changes nothing; may be cancelled."""
    left = [path.name for path in _views(data) if lock_holder(path) is not None]
    ends = asyncio.get_running_loop().time() + timeout_s
    while True:
        left = [name for name in left if not await _has_forgotten(data / FOLDER / name, shard, position, ask)]
        if not left or asyncio.get_running_loop().time() >= ends:
            return left
        await asyncio.sleep(_LOOK_S)


def _views(data: Path) -> list[Path]:
    folder = data / FOLDER
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


async def _has_forgotten(path: Path, shard: int, position: int, ask: AskView) -> bool:
    if path.name == CACHE:
        try:
            view = (await ask(CACHE, "_status"))["view"]
        except CuebookError:
            return False
        return view is not None and int(view["positions"].get(str(shard), 0)) >= position
    return _files_have_forgotten(path, shard, position)


def _files_have_forgotten(path: Path, shard: int, position: int) -> bool:
    active = read_active(path)
    others = [each for each in path.glob("v*-*") if each.is_dir() and (active is None or each.name != active.folder)]
    if active is None or others:
        return False  # one that is being built, or was replaced and is still being read: it may hold what came before the erasure
    try:
        with closing(open_reader(path / active.folder / VIEW_FILE)) as db:
            state = read_state(db)
    except (CuebookError, SqliteError):
        return False
    return state.positions.get(shard, 0) >= position and not state.scrub_due
