"""`cuebook restore`: a backup takes the place of a log, so that nobody who knew the former one can mistake it (S3, F-19). Blocks.

The caller holds the locks of all shards: nothing runs on the folder. Two halves. *Prepare* copies the backup into ``restore/`` below the
log, gives the copy its new incarnation and epochs, and verifies it; until it is done the log is untouched, and a crash leaves only that
folder. ``restore.json`` then says that the switch has begun, and from there every step may be done again until all are: whoever comes next
finishes it. ``log.json`` goes first and comes back last, so no program opens a log that is half the one and half the other.
"""

import fcntl
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from events.clock import Clock, Entropy, SystemClock, SystemEntropy
from events.crash_points import CrashPoint, reached
from events.errors import ConfigurationError, CorruptLogError, CuebookError
from events.folder_sync import sync_folder, sync_tree
from events.keeping.backup import log_of, require_sound
from events.keeping.backup_folder import Cut, copy_shard, cut, finish_shard, loaded, same_end, write_identity
from events.keeping.quarantine import Quarantine
from events.log_directory import LOG_FILE, LogIdentity, anchor_path, read_identity, shard_path
from events.sqlite.anchor import read_anchor
from events.sqlite.sqlite_library import SqliteConnection, SqliteError, open_reader

EPOCHS_AHEAD: Final = 1_000
"""S3: far above whatever an owner of the former log may still write with."""
_PREPARED: Final = "restore"
_INTENT: Final = "restore.json"
_SHARD_FILE: Final = re.compile(r"shard-(\d+)\.(db|anchor)")


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """The log as it is now. replaced: folder with the former files, None if there were none. epochs, positions: by shard."""

    backup: str
    incarnation: str
    shards: int
    positions: list[int]
    epochs: list[int]
    replaced: str | None


Say = Callable[[str], None]


def pending(directory: Path) -> Restored | None:
    """The restore that died after it had begun to switch files, None if there is none."""
    try:
        return msgspec.json.decode((directory / _INTENT).read_bytes(), type=Restored)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        # Written under another name and renamed, so a crash cannot leave half of it.
        raise CorruptLogError(f"{directory / _INTENT} is damaged: {error}", path=str(directory / _INTENT)) from error


def shards_to_lock(backup: Path, directory: Path) -> int:
    """How many shard locks a restore needs: of whichever log has more.

    Raises:
        ConfigurationError: `backup` holds no log.
    """
    known = pending(directory)
    counts = [0 if known is None else known.shards, read_identity(log_of(backup)).shards]
    found = [_SHARD_FILE.fullmatch(path.name) for path in directory.glob("shard-*")] if directory.is_dir() else []
    return max(*counts, *(int(match[1]) + 1 for match in found if match), 1)


def restore(
    backup: Path, directory: Path, say: Say = lambda _: None, *, clock: Clock | None = None, entropy: Entropy | None = None
) -> Restored:
    """Put the log of `backup` into `directory` and keep what was there in ``replaced-<time>`` below it.

    If an earlier restore died while it switched files, that one is finished first; if it was of the same backup, that is all.

    Raises:
        ConfigurationError: `backup` holds no log, or is this very folder. CorruptLogError: it does not verify; the log is as before.
    """
    source = log_of(backup).resolve()
    if source == directory.resolve() or source.is_relative_to(directory.resolve() / _PREPARED):
        raise ConfigurationError(f"{backup} is the log itself. Name a backup", path=str(backup))
    known = pending(directory)
    if known is not None:
        say("finishing a restore that was interrupted")
        done = _switch(directory, known)
        if known.backup == str(source):
            return done
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    reached(CrashPoint.RESTORE_BEGUN)
    plan = _prepare(source, directory, say, clock or SystemClock(), entropy or SystemEntropy())
    return _switch(directory, plan)


def _prepare(source: Path, directory: Path, say: Say, clock: Clock, entropy: Entropy) -> Restored:
    prepared = directory / _PREPARED
    if prepared.exists():
        shutil.rmtree(prepared)
    prepared.mkdir(mode=0o700)
    try:
        with cut(source) as now:
            identity = msgspec.structs.replace(now.identity, incarnation=entropy.token_bytes(16).hex())
            epochs = _epochs(now, source, directory)
            positions = []
            for each in now.shards:
                say(f"shard {each.shard}: copying {each.path.stat().st_size:,} bytes")
                copy_shard(each, shard_path(prepared, each.shard))
                end = loaded(each.connection, each.shard, each.path, each.anchor)
                change = _renamed(identity, epochs[each.shard], entropy.token_bytes(16), clock.wall_us())
                memory = finish_shard(prepared, identity, each.shard, change)
                same_end(end, memory, each.shard)
                positions.append(memory.position)
        write_identity(prepared, identity)
        reached(CrashPoint.RESTORE_COPIED)
        say("verifying the copy")
        require_sound(prepared)
        sync_tree(prepared)
    except BaseException:
        shutil.rmtree(prepared, ignore_errors=True)
        raise
    plan = Restored(
        backup=str(source), incarnation=identity.incarnation, shards=identity.shards, positions=positions, epochs=epochs,
        replaced=str(directory.resolve() / f"replaced-{clock.wall_us()}"),
    )  # fmt: skip
    intent = directory / f"{_INTENT}.new"
    with intent.open("wb") as file:
        file.write(msgspec.json.encode(plan) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    intent.rename(directory / _INTENT)
    sync_folder(directory)
    reached(CrashPoint.RESTORE_PREPARED)
    return plan


def _epochs(now: Cut, source: Path, directory: Path) -> list[int]:
    """By shard: above all that the files and anchors of the backup and of the log say (S3)."""
    return [EPOCHS_AHEAD + max(_epoch_known(folder, shard) for folder in (source, directory)) for shard in range(now.identity.shards)]


def _epoch_known(folder: Path, shard: int) -> int:
    """The highest epoch that file or anchor know; 0 for a file that is missing or cannot be read, which is why one restores."""
    try:
        anchor = read_anchor(anchor_path(folder, shard))
    except OSError:
        anchor = None
    epoch = 0 if anchor is None else anchor.epoch
    path = shard_path(folder, shard)
    if path.exists():
        try:
            connection = open_reader(path)
            try:
                stored = connection.execute("SELECT epoch FROM owner").fetchall()
            finally:
                connection.close()
            epoch = max([epoch, *(row[0] for row in stored if isinstance(row[0], int))])
        except (SqliteError, CuebookError):
            return epoch
    return epoch


def _renamed(identity: LogIdentity, epoch: int, token: bytes, now_us: int) -> Callable[[SqliteConnection], None]:
    def change(connection: SqliteConnection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE identity SET incarnation = ?", (identity.incarnation,))
        # A token that nobody holds: whoever takes the shard next gets one of its own.
        connection.execute("UPDATE owner SET epoch = ?, token = ?, worker = NULL, taken_at_us = ?", (epoch, token, now_us))
        connection.execute("COMMIT")

    return change


def _switch(directory: Path, plan: Restored) -> Restored:
    """Each step is left out if it was done before."""
    prepared, replaced = directory / _PREPARED, Path(plan.replaced or "")
    # Where it stands now: the folder may have been moved since.
    replaced = directory / replaced.name
    replaced.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # As `create_log`: somebody who starts now waits here, and then finds the log.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        current = directory / LOG_FILE
        if current.exists() and (prepared / LOG_FILE).exists():
            _keep(current, replaced)
            current.unlink()
            sync_folder(directory)
        reached(CrashPoint.RESTORE_HIDDEN)
        found = [_SHARD_FILE.fullmatch(path.name) for path in directory.glob("shard-*")]
        old = {int(match[1]) for match in found if match}
        for shard in sorted(old | set(range(plan.shards))):
            _switch_shard(directory, prepared, replaced, shard, wanted=shard < plan.shards)
            if shard == 0:
                reached(CrashPoint.RESTORE_FIRST_SHARD)
        sync_folder(directory)
        reached(CrashPoint.RESTORE_ALL_SHARDS)
        if (prepared / LOG_FILE).exists():
            (prepared / LOG_FILE).rename(current)
        sync_folder(directory)
        reached(CrashPoint.RESTORE_SHOWN)
        shutil.rmtree(prepared, ignore_errors=True)
        kept = any(replaced.iterdir())
        if not kept:
            replaced.rmdir()
        Quarantine(directory).clear()  # the files that it was about lie in `replaced` now
        (directory / _INTENT).unlink()
        sync_folder(directory)
    finally:
        os.close(descriptor)
    return msgspec.structs.replace(plan, replaced=str(replaced) if kept else None)


def _switch_shard(directory: Path, prepared: Path, replaced: Path, shard: int, *, wanted: bool) -> None:
    """The former files stay a set that SQLite can open: file, write-ahead log and shared memory together."""
    path, new = shard_path(directory, shard), shard_path(prepared, shard)
    if new.exists() or not wanted:
        # The path itself leads somewhere at every moment, or `create_log` would take the folder for an empty one.
        if path.exists():
            _keep(path, replaced)
        for leftover in (Path(f"{path}-wal"), Path(f"{path}-shm")):
            # Under the new file an old write-ahead log would be replayed into it.
            if leftover.exists():
                leftover.rename(replaced / leftover.name)
        sync_folder(replaced)
        sync_folder(directory)
        if wanted:
            new.rename(path)
        else:
            path.unlink(missing_ok=True)
    anchor, new_anchor = anchor_path(directory, shard), anchor_path(prepared, shard)
    if new_anchor.exists() or not wanted:
        if anchor.exists():
            _keep(anchor, replaced)
        if wanted:
            new_anchor.rename(anchor)
        else:
            anchor.unlink(missing_ok=True)


def _keep(path: Path, replaced: Path) -> None:
    if not (replaced / path.name).exists():
        os.link(path, replaced / path.name)
    sync_folder(replaced)
