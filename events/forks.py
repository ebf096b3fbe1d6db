"""Which streams branched off another one (S33). Blocks."""

from contextlib import closing
from pathlib import Path

from events.ids import StreamId
from events.log_directory import read_identity, shard_path
from events.reads_sqlite import find_head, in_snapshot, read_chain
from events.sqlite_library import SqliteConnection, SqliteError, open_reader, translated


def forks_of(directory: Path, parent: StreamId) -> list[str]:
    """Names of the streams that branched off `parent`, in order. A fork keeps a copy of the state that it began with.

    Raises:
        ConfigurationError: there is no log. CorruptLogError, TransientError: a shard cannot be read.
    """
    found: list[str] = []
    for shard in range(read_identity(directory).shards):
        path = shard_path(directory, shard)
        try:
            with closing(open_reader(path)) as connection:
                found += in_snapshot(connection, lambda: _of_shard(connection, shard, parent))  # noqa: B023  called at once
        except SqliteError as error:
            raise translated(error, path) from error
    return sorted(found)


def _of_shard(connection: SqliteConnection, shard: int, parent: str) -> list[str]:
    names = [row[0] for row in connection.execute("SELECT name FROM streams WHERE base_version > 0").fetchall()]
    found = []
    for name in names:
        head = find_head(connection, name)
        if head is None or head.version <= head.base_version:
            continue
        first = read_chain(connection, shard, name, head, head.base_version, head.base_version + 1)[0]
        if first.parent is not None and first.parent.rpartition("@")[0] == parent:
            found.append(name)
    return found
