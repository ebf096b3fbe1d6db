"""What an erasure does to views (S29): a projector that runs forgets the stream as it comes to it, and is waited for; where none does, the
view's files go, and what came from the stream goes from the cache's server, which others may keep running."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from events.errors import CuebookError
from events.ids import StreamId
from events.sqlite.sqlite_library import SqliteError, open_reader
from ops.settings import Settings
from ops.up_state import read_up
from ops.views import CACHE, FOLDER
from projections.generations_sqlite import read_active
from projections.locking import lock_holder
from projections.view_sqlite import VIEW_FILE, read_state

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
        if path.name != CACHE and lock_holder(path) is None:
            shutil.rmtree(path)
            dropped.append(path.name)
    return dropped


async def forget_cached(settings: Settings, stream: StreamId) -> bool:
    """Remove what came from `stream` from the cache's server, where no projector does; whether none of it is left there. A server that does
    not answer keeps it until its time is over, or a projector comes to the erasure. May be repeated, also when cancelled."""
    from ops.cache import cache_view
    from ops.cache_connection import cache_place
    from projections.errors import ViewUnavailableError

    data, place = Path(settings.data), cache_place(settings)
    if place.address is None or lock_holder(data / FOLDER / CACHE) is not None:
        return True  # there is none, or its projector is waited for (`wait_forgotten`)
    if place.embedded and read_up(data) is None:
        return True  # it ended with the deployment, and keeps nothing
    if (view := cache_view(settings)) is None:
        return True
    try:
        await view.forget(stream)
    except ViewUnavailableError:
        return False
    finally:
        await view.close()
    return True


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
