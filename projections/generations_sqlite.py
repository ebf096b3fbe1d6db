"""The files of one projection: a lock, one folder per generation of its view, and a pointer that says which of them serves.

    views/<name>/lock          held by the one projector that applies; its pid stands in it
    views/<name>/active.json   names the folder that serves; replaced by rename, so it always names a whole one
    views/<name>/v2-7/         generation 7, of version 2: view.db, and what the projection keeps beside it

A folder that is not active is a view on its way (continued after a crash) or one that was replaced (removed).
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from events.clock import Clock
from events.crash_points import CrashPoint, reached
from events.errors import ConfigurationError
from events.folder_sync import sync_folder
from events.ids import is_token
from projections.answers import ProjectionAnswers
from projections.errors import RebuildNeededError, ViewUnavailableError
from projections.locking import lock_file
from projections.projection import Projection, ProjectionFactory
from projections.view import Positions
from projections.view_sqlite import VIEW_FILE, SqliteView

ACTIVE_FILE: Final = "active.json"
SCRATCH: Final = "scratch-"
"""A folder of a verification: the pid of its process follows."""


class Active(msgspec.Struct, frozen=True, kw_only=True):
    """The pointer. folder: name of the generation; log: incarnation of the log that it is a view of."""

    folder: str
    version: int
    log: str


def read_active(path: Path) -> Active | None:
    """The pointer of the projection whose files are in `path`; None if there is none, or it cannot be read, or names nothing."""
    try:
        active = msgspec.json.decode((path / ACTIVE_FILE).read_bytes(), type=Active)
    except (OSError, msgspec.DecodeError):
        return None
    return active if is_token(active.folder) and (path / active.folder / VIEW_FILE).is_file() else None


class SqliteGenerations:
    """Adapter of `runner.Generations` for a `Projection`."""

    def __init__(self, make: ProjectionFactory, folder: Path, log: str, *, clock: Clock | None = None) -> None:
        """
        Args:
            folder: ``views`` of the deployment.
            log: incarnation of the log.

        Raises:
            ConfigurationError: the projection has no proper name or version.
        """
        self._make = make
        self.projection = make()
        self.name = self.projection.name
        self.version = self.projection.version
        check_named(self.projection)
        self._path = folder / self.name
        self._log = log
        self._clock = clock
        self._lock: int | None = None

    def try_lock(self) -> bool:
        self._lock = lock_file(self._path)
        return self._lock is not None

    def unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def open_active(self) -> SqliteView | None:
        active = read_active(self._path)
        if active is None or active.version != self.version or active.log != self._log:
            return None
        try:
            return await self._open(self._path / active.folder)
        except RebuildNeededError:
            self._remove(self._path / active.folder)
            return None

    def answers(self, view: SqliteView) -> ProjectionAnswers:
        return ProjectionAnswers(view.projection, view.path)

    def stale_answers(self) -> ProjectionAnswers | None:
        active = read_active(self._path)
        if active is None or active.log != self._log or active.version not in self.projection.answers_from:
            return None
        return ProjectionAnswers(self._make(), self._path / active.folder / VIEW_FILE, opened=False)

    async def tend(self, view: SqliteView) -> bool:
        if view.scrub_due:
            await view.scrub()
        return view.scrub_due

    async def open_unfinished(self) -> SqliteView | None:
        """The newest one is gone on with, if it can be; all others are removed."""
        active = read_active(self._path)
        keep = None if active is None else active.folder
        found: SqliteView | None = None
        for folder in sorted(self._folders(), key=_number, reverse=True):
            if folder.name == keep:
                continue
            if found is None and folder.name.startswith(f"v{self.version}-"):
                try:
                    found = await self._open(folder)
                    continue
                except RebuildNeededError:
                    pass
            self._remove(folder)
        return found

    async def begin(self, heads: Positions) -> SqliteView:
        """The next generation: numbers are never used twice while an older folder stands."""
        number = 1 + max(map(_number, self._folders()), default=0)
        return await self._open(self._path / f"v{self.version}-{number}", heads)

    async def _open(self, folder: Path, heads: Positions | None = None) -> SqliteView:
        return await SqliteView.open(self._make(), folder, self._log, clock=self._clock, heads=heads)

    async def restart(self, view: SqliteView) -> bool:
        return False

    def activate(self, view: SqliteView) -> None:
        temporary = self._path / f"{ACTIVE_FILE}.new"
        body = msgspec.json.encode(Active(folder=view.folder.name, version=self.version, log=self._log))
        try:
            with temporary.open("wb") as file:
                file.write(body + b"\n")
                file.flush()
                os.fsync(file.fileno())
            sync_folder(view.folder)
            reached(CrashPoint.REBUILD_POINTED)
            temporary.rename(self._path / ACTIVE_FILE)
            sync_folder(self._path)
        except OSError as error:
            raise ViewUnavailableError(f"{self._path} cannot be written: {error.strerror}", path=str(self._path)) from error
        reached(CrashPoint.REBUILD_SWAPPED)

    async def discard(self, view: SqliteView) -> None:
        await view.close()
        self._remove(view.folder)
        reached(CrashPoint.REBUILD_REMOVED)

    def _folders(self) -> list[Path]:
        return [path for path in self._path.glob("v*-*") if path.is_dir() and path.name.rpartition("-")[2].isdecimal()]

    def _remove(self, folder: Path) -> None:
        # Renamed first: a crash half-way must not leave a folder that looks like a view on its way.
        gone = self._path / f"gone-{folder.name}"
        shutil.rmtree(gone, ignore_errors=True)
        try:
            folder.rename(gone)
        except FileNotFoundError:
            return
        shutil.rmtree(gone, ignore_errors=True)

    def sweep(self, keep: Sequence[SqliteView]) -> None:
        active = read_active(self._path)
        kept = {view.folder.name for view in keep} | ({active.folder} if active is not None else set())
        for folder in self._folders():
            if folder.name not in kept:
                self._remove(folder)
        for path in self._path.glob("gone-*"):
            shutil.rmtree(path, ignore_errors=True)
        for path in self._path.glob(f"{SCRATCH}*"):
            if not _is_alive(path.name.removeprefix(SCRATCH)):
                shutil.rmtree(path, ignore_errors=True)


def check_named(projection: Projection) -> None:
    """Raises: ConfigurationError: the name cannot stand in a subject, the version counts from 1, or it handles nothing."""
    kind = type(projection).__qualname__
    if not is_token(str(getattr(projection, "name", ""))):
        raise ConfigurationError(f"the projection {kind} needs a name of 1 to 64 letters, digits, '_' or '-'")
    if projection.version < 1:
        raise ConfigurationError(f"the version of the projection {projection.name} is {projection.version!r}; it counts from 1")
    if isinstance(projection.handles, str) or not projection.handles:
        raise ConfigurationError(f"the projection {projection.name} handles no events: handles = (\"account.deposited\", ...)")


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def _number(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])
