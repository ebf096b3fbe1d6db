"""`cuebook backup`: a consistent copy of a log, made while it is written (I-21, F-19)."""

from collections.abc import Callable
from pathlib import Path

import msgspec

from events.errors import ConfigurationError, CorruptLogError
from events.keeping.backup_folder import appearing, copy_shard, cut, finish_shard, loaded, same_end, write_identity
from events.keeping.verify import verify
from events.log_directory import LOG_FILE, shard_path

Say = Callable[[str], None]
"""Takes one line of progress for people."""

LOG_FOLDER = "log"


class CopiedShard(msgspec.Struct, frozen=True, kw_only=True):
    """One shard of a backup. bytes: size of the copy; hash: rolling hash of all its events (S27)."""

    shard: int
    position: int
    bytes: int
    hash: str


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """What was copied. exact: all shards as of one instant, see `backup_folder.cut`."""

    incarnation: str
    exact: bool
    shards: tuple[CopiedShard, ...]


def back_up(directory: Path, target: Path, say: Say = lambda _: None) -> Backup:
    """Copy the log in `directory` to ``target/log``, verify the copy, and only then let `target` appear. Blocks.

    `target` is a data folder: every verb that reads works on it with ``--data``. The owners of the shards go on writing.

    Raises:
        ConfigurationError: there is no log, or `target` is not new or empty, or lies inside the log.
        CorruptLogError: log or copy do not verify; there is no `target` then. TransientError: the disk is full.
    """
    if target.resolve().is_relative_to(directory.resolve()):
        raise ConfigurationError(f"{target} lies inside the log {directory}. Name a folder elsewhere", path=str(target))
    with appearing(target) as partial:
        folder = partial / LOG_FOLDER
        folder.mkdir(mode=0o700)
        copied = []
        with cut(directory) as now:
            for source in now.shards:
                path = shard_path(folder, source.shard)
                say(f"shard {source.shard}: copying {source.path.stat().st_size:,} bytes")
                copy_shard(source, path)
                end = loaded(source.connection, source.shard, source.path, source.anchor)
                # This shard's write-ahead log may shrink again.
                source.connection.execute("ROLLBACK")
                memory = finish_shard(folder, now.identity, source.shard)
                same_end(end, memory, source.shard)
                copied.append(
                    CopiedShard(shard=source.shard, position=memory.position, bytes=path.stat().st_size, hash=memory.rolling.hex())
                )
        write_identity(folder, now.identity)
        say("verifying the copy")
        require_sound(folder)
    return Backup(incarnation=now.identity.incarnation, exact=now.exact, shards=tuple(copied))


def require_sound(directory: Path) -> None:
    """Verify the whole log in `directory`.

    Raises:
        CorruptLogError: it does not verify; names the first finding.
    """
    damages = verify(directory)
    if damages:
        first = damages[0]
        where = f"shard {first.shard}" + (f", position {first.position}" if first.position else "")
        raise CorruptLogError(
            f"{len(damages)} findings in the copy, the first in {where}, table {first.table or '-'}: {first.message}. Run: cuebook verify",
            shard=first.shard, position=first.position, stream=first.stream,
        )  # fmt: skip


def log_of(folder: Path) -> Path:
    """The log of a backup, or of any data folder; a log's own folder is taken as it is.

    Raises:
        ConfigurationError: there is none.
    """
    for found in (folder / LOG_FOLDER, folder):
        if (found / LOG_FILE).is_file():
            return found
    raise ConfigurationError(f"{folder} is no backup: there is no {LOG_FOLDER}/{LOG_FILE} in it", path=str(folder))
