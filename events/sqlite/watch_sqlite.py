"""Whether somebody has committed to a shard file, for the price of one number in its shared memory (S31)."""

from pathlib import Path

import aiosqlite

from events.errors import CorruptLogError
from events.log_directory import LogIdentity, read_identity, shard_path
from events.sqlite.sqlite_library import SqliteConnection, SqliteError, close_connections, connect, on_thread, open_reader, translated


class _Watched:
    """One file: its connection, which file it was made for, and what it last said."""

    def __init__(self) -> None:
        self.connection: aiosqlite.Connection | None = None
        self.file: tuple[int, int] | None = None
        self.version: int | None = None


class SqliteWatch:
    """Adapter of `projections.hints.ShardWatch`. Must be closed, else its threads keep the interpreter alive."""

    def __init__(self, directory: Path, identity: LogIdentity) -> None:
        self.shards = identity.shards
        self._paths = [shard_path(directory, shard) for shard in range(identity.shards)]
        self._watched = [_Watched() for _ in range(identity.shards)]

    @classmethod
    async def open(cls, directory: Path) -> "SqliteWatch":
        """Watch the log in `directory`. Raises: ConfigurationError: there is none."""
        return cls(directory, read_identity(directory))

    async def changed(self, shard: int) -> int | None:
        """The position that `shard` has reached, if anything was committed to it since the last call, or its file was replaced.

        Raises:
            TransientError: the file cannot be read now. CorruptLogError: it is damaged or gone.
        """
        path, watched = self._paths[shard], self._watched[shard]
        try:
            status = path.stat()
        except FileNotFoundError:
            raise CorruptLogError(f"{path} is missing: the log has lost a shard. Restore a backup", path=str(path)) from None
        file = (status.st_dev, status.st_ino)
        try:
            if watched.connection is None or file != watched.file:
                await self._forget(watched)
                watched.connection = await connect(lambda: open_reader(path))
                watched.file = file
            version, position = await on_thread(watched.connection, _look, watched.version)
        except SqliteError as error:
            raise translated(error, path) from error
        watched.version = version
        return position

    async def _forget(self, watched: _Watched) -> None:
        connection, watched.connection, watched.version = watched.connection, None, None
        await close_connections([connection])

    async def close(self) -> None:
        """Idempotent. Nothing is looked at any more when this is called."""
        connections = [watched.connection for watched in self._watched]
        for watched in self._watched:
            watched.connection = watched.version = None
        await close_connections(connections)


def _look(connection: SqliteConnection, last: int | None) -> tuple[int, int | None]:
    # A commit of another connection changes the number, one after which nothing was read on this one too (sqlite.org/pragma.html).
    version: int = connection.execute("PRAGMA data_version").fetchall()[0][0]
    if version == last:
        return version, None
    position: int = connection.execute("SELECT coalesce(max(position), 0) FROM events").fetchall()[0][0]
    return version, position
