"""What `backup`, `import` and `restore` share: a folder that appears whole or not at all, one instant of all shards, and the copy of a
shard. Blocks; knows no locks of running workers.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from events.crash_points import CrashPoint, reached
from events.errors import ConfigurationError, CorruptLogError, InvariantError, TransientError
from events.folder_sync import sync_folder, sync_tree
from events.log_directory import LOG_FILE, LogIdentity, anchor_path, check_identity, read_identity, shard_path
from events.sqlite.anchor import Anchor, AnchorFile, read_anchor
from events.sqlite.heads import ShardMemory, load_memory
from events.sqlite.schema import file_version
from events.sqlite.sqlite_library import SqliteConnection, SqliteError, library, open_reader, open_writer, translated

CUT_ATTEMPTS: Final = 20
_STATE: Final = "SELECT (SELECT max(position) FROM events), epoch, eventless FROM owner"
"""Changes with every commit that an answer depends on, and with every takeover (S28)."""


# A folder that appears whole


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A folder to fill, which is renamed to `target` when the block ends well and removed when it does not.

    A process that dies in between leaves ``.NAME.partial`` beside `target`; the next one clears it away.

    Raises:
        ConfigurationError: `target` exists and is not an empty folder, or somebody else fills it now.
    """
    target = target.absolute()
    _check_free(target)
    partial = target.parent / f".{target.name}.partial"
    partial.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(partial, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        _lock_folder(descriptor, partial, target)
        _empty(partial)
        # Inside, because `create_log` locks the folder of a log and the lock on this one is ours.
        content = partial / "content"
        content.mkdir(mode=0o700)
        try:
            yield content
            sync_tree(content)
            reached(CrashPoint.COPY_FILLED)
            _check_free(target)
            content.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        sync_folder(target.parent)
    finally:
        os.close(descriptor)


def _check_free(target: Path) -> None:
    if target.is_dir():
        if any(target.iterdir()):
            raise ConfigurationError(f"{target} is not empty. Name a folder that is new or empty", path=str(target))
    elif target.exists() or target.is_symlink():
        raise ConfigurationError(f"{target} is no folder. Name one that is new or empty", path=str(target))


def _lock_folder(descriptor: int, partial: Path, target: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Renamed or removed by whoever had it before us.
        same = os.path.samestat(os.fstat(descriptor), partial.stat())
    except (BlockingIOError, FileNotFoundError):
        same = False
    if not same:
        raise ConfigurationError(f"another process writes {target} at this moment", path=str(target))


def _empty(folder: Path) -> None:
    for leftover in folder.iterdir():
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


# One instant of all shards


class ShardCut(NamedTuple):
    """One shard at that instant: a connection inside a read transaction, and the anchor as it was before."""

    shard: int
    path: Path
    connection: SqliteConnection
    anchor: Anchor | None


class Cut(NamedTuple):
    """All shards. exact: none of them committed between the first and the last that was looked at."""

    identity: LogIdentity
    shards: tuple[ShardCut, ...]
    exact: bool


@contextmanager
def cut(directory: Path) -> Iterator[Cut]:
    """Read transactions on every shard, opened at one instant if the log leaves a gap of about 0.1 ms for it.

    One instant, because an effect must not be in the copy of one shard while its cause is missing from that of another. No lock is taken,
    so nobody waits. Where no try was `exact` the shards lie well under a millisecond apart, less than a message takes from one to the next.
    Until the block ends the write-ahead logs of the shards cannot shrink (facts/durability.md 1.5).

    Raises:
        ConfigurationError: no log there. CorruptLogError, TransientError: a shard file is missing or cannot be read.
    """
    identity = read_identity(directory)
    with contextlib.ExitStack() as stack:
        paths = [shard_path(directory, shard) for shard in range(identity.shards)]
        for path in paths:
            if not path.exists():
                raise CorruptLogError(f"{path} is missing: the log has lost a shard. Restore a backup", path=str(path))
        path = paths[0]
        try:
            readers: list[SqliteConnection] = []
            watchers: list[SqliteConnection] = []
            for shard, path in enumerate(paths):
                for found in (readers, watchers):
                    connection = stack.enter_context(closing(open_reader(path)))
                    file_version(connection, path)
                    check_identity(connection, path, identity, shard)
                    found.append(connection)
            # Before the files, so that these can only be ahead.
            anchors = [read_anchor(anchor_path(directory, shard)) for shard in range(identity.shards)]
            exact = any(_look(readers, watchers, last=attempt == CUT_ATTEMPTS - 1) for attempt in range(CUT_ATTEMPTS))
        except SqliteError as error:
            raise translated(error, path) from error
        shards = tuple(ShardCut(*each) for each in zip(range(identity.shards), paths, readers, anchors, strict=True))
        yield Cut(identity, shards, exact)


def _look(readers: list[SqliteConnection], watchers: list[SqliteConnection], *, last: bool) -> bool:
    """Begin on all; whether nothing was committed meanwhile. The transactions stay open if so, or if it was the last try."""
    states = []
    for reader in readers:
        reader.execute("BEGIN")
        states.append(reader.execute(_STATE).fetchall())
    exact = states == [watcher.execute(_STATE).fetchall() for watcher in watchers]
    if not exact and not last:
        for reader in readers:
            reader.execute("ROLLBACK")
    return exact


# The copy of a shard


def copy_shard(source: ShardCut, target: Path) -> None:
    """Copy the shard as the cut sees it, page by page through SQLite, never the files (S31).

    One step: a stepwise backup starts over with each commit of the owner and never ends under load (facts/durability.md 1.5). The copy is
    durable after `sync_tree`.

    Raises:
        TransientError: it cannot be written, such as on a full disk. CorruptLogError: the source cannot be read.
    """
    try:
        with closing(library.connect(target, isolation_level=None)) as copy:
            copy.execute("PRAGMA journal_mode=OFF").fetchall()
            copy.execute("PRAGMA synchronous=OFF").fetchall()
            source.connection.backup(copy, pages=-1)
    except SqliteError as error:
        if isinstance(translated(error, source.path), CorruptLogError):
            raise translated(error, source.path) from error
        raise TransientError(f"{target} cannot be written: {error}", path=str(target)) from error


def loaded(connection: SqliteConnection, shard: int, path: Path, anchor: Anchor | None) -> ShardMemory:
    """Where the shard of `connection` ends, checked against `anchor`; in a transaction of its own unless one is open. Raises as
    `load_memory`."""
    if connection.in_transaction:
        return load_memory(connection, shard, str(path), anchor)
    connection.execute("BEGIN")
    try:
        return load_memory(connection, shard, str(path), anchor)
    finally:
        connection.execute("ROLLBACK")


def finish_shard(
    directory: Path, identity: LogIdentity, shard: int, change: Callable[[SqliteConnection], None] | None = None
) -> ShardMemory:
    """Give the shard file that was just written its WAL mode and its anchor; `change` may alter it first, in a transaction of its own."""
    path = shard_path(directory, shard)
    with closing(open_writer(path, "process")) as connection:
        if change is not None:
            change(connection)
        check_identity(connection, path, identity, shard)
        memory = loaded(connection, shard, path, None)
        epoch, token = connection.execute("SELECT epoch, token FROM owner").fetchall()[0]
    status = path.stat()
    anchor_path(directory, shard).unlink(missing_ok=True)
    anchor = AnchorFile(anchor_path(directory, shard))
    anchor.write(
        epoch=epoch, token=token, incarnation=identity.incarnation, position=memory.position, eventless=memory.eventless,
        rolling_hash=memory.rolling, event_hash=memory.event_hash, identity=(status.st_dev, status.st_ino),
    )  # fmt: skip
    anchor.close()
    return memory


def same_end(source: ShardMemory, copy: ShardMemory, shard: int) -> None:
    """I-21. The rolling hash is over all events of the shard, so with it every head is the same.

    Raises:
        InvariantError: the copy does not end where its source does.
    """
    ends = [(each.position, each.rolling, each.event_hash, each.eventless) for each in (source, copy)]
    if ends[0] != ends[1]:
        raise InvariantError(f"the copy of shard {shard} ends at {ends[1][0]}, its source at {ends[0][0]}, or their hashes differ")


def write_identity(directory: Path, identity: LogIdentity) -> None:
    """``log.json``, the last file of a log."""
    (directory / LOG_FILE).write_bytes(msgspec.json.encode(identity) + b"\n")
