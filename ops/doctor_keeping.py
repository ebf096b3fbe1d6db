"""Checks of how a log is kept: what a crash, a full disk or a lost key would cost, each with its remedy. Changes nothing."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from ops.finding import Finding
from ops.settings import Settings

WAL_BYTES_MAX = 256 * 1024**2
"""Six times the size at which the owner checkpoints: somebody reads for long, or nobody owns the shard."""


def keeping(settings: Settings) -> Iterator[Finding]:
    """Durability, anchors, write-ahead logs, unfinished erasures, the folder of keys.

    Raises:
        CuebookError: there is no log, or a shard file cannot be read.
    """
    from events.log_directory import anchor_path, read_identity, shard_path

    folder = Path(settings.data) / "log"
    process = settings.durability == "process"
    yield Finding(
        check="durability", ok=True, found=settings.durability,
        remedy="an acknowledged command does not survive a power loss; durability = \"disk\" makes it" if process else None,
    )  # fmt: skip
    for shard in range(read_identity(folder).shards):
        path = shard_path(folder, shard)
        wal = Path(f"{path}-wal")
        size = wal.stat().st_size if wal.exists() else 0
        if size > WAL_BYTES_MAX:
            yield Finding(
                check=f"write-ahead log of shard {shard}", ok=False, found=f"{size / 1024**2:,.0f} MiB in {wal.name}",
                remedy="somebody holds an old state of the file open: end long readers; an owner shrinks it then",
            )  # fmt: skip
        waiting, unfinished = _state(path)
        if waiting and not anchor_path(folder, shard).exists():
            yield Finding(
                check=f"anchor of shard {shard}", ok=False, found="missing: a lost tail would not be noticed (S28)",
                remedy="the next owner writes a new one; if nobody removed it on purpose, compare with a backup first (cuebook verify)",
            )  # fmt: skip
        for stream in unfinished:
            yield Finding(
                check=f"erasure of {stream}", ok=False, found="begun and not finished: keys or old bytes of it are still there",
                remedy=f"cuebook erase {stream} --yes completes it, as does the next owner of shard {shard}",
            )  # fmt: skip
    keys = settings.keys_folder
    if keys.is_dir():
        private = not keys.stat().st_mode & 0o077
        yield Finding(
            check="keys", ok=private, found=f"{keys}" if private else f"others may open {keys}",
            remedy="keep a copy of it apart from the backups of the log: what is sealed cannot be read without" if private
            else f"chmod 700 {keys}",
        )  # fmt: skip


def _state(path: Path) -> tuple[bool, list[str]]:
    """Whether the shard holds events, and which erasures in it are not finished."""
    from events.sqlite.closing_sqlite import read_erasures
    from events.sqlite.schema import has_keys
    from events.sqlite.sqlite_library import SqliteError, open_reader, translated

    try:
        with closing(open_reader(path)) as connection:
            holds = bool(connection.execute("SELECT 1 FROM events LIMIT 1").fetchall())
            return holds, [each.stream for each in read_erasures(connection)] if has_keys(connection) else []
    except SqliteError as error:
        raise translated(error, path) from error
