"""The folder of a log: ``log.json``, and per shard ``shard-<n>.db``, ``shard-<n>.anchor`` (and ``shard-<n>.lock``,
which is runtime's)."""

import fcntl
import os
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec

from events.clock import Clock, Entropy, SystemClock, SystemEntropy
from events.errors import ConfigurationError, CorruptLogError
from events.limits import SHARDS_MIN
from events.sqlite.schema import migrate
from events.sqlite.sqlite_library import SqliteConnection, open_writer

LOG_FORMAT: Final = 1
LOG_FILE: Final = "log.json"
SHARDS_MAX: Final = 1_024


class LogIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """``log.json``. incarnation: 128 random bits as hex, new at `create_log` and at every restore (S3). created:
    microseconds since 1970."""

    format: int
    incarnation: str
    shards: int
    created: int


def shard_path(directory: Path, shard: int) -> Path:
    """The SQLite file of a shard."""
    return directory / f"shard-{shard}.db"


def anchor_path(directory: Path, shard: int) -> Path:
    """The anchor of a shard (S28)."""
    return directory / f"shard-{shard}.anchor"


def read_identity(directory: Path) -> LogIdentity:
    """Which log lives in `directory`.

    Raises:
        ConfigurationError: no log there, or one of a newer format.
        CorruptLogError: ``log.json`` is not what we write.
    """
    path = directory / LOG_FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ConfigurationError(
            f"there is no log in {directory}: {LOG_FILE} is missing. Name its folder with --data DIR", path=str(path)
        ) from None
    try:
        identity = msgspec.json.decode(content, type=LogIdentity)
        bytes.fromhex(identity.incarnation)
    except (msgspec.DecodeError, ValueError) as error:
        raise CorruptLogError(f"{path} is damaged: {error}", path=str(path)) from error
    if identity.format > LOG_FORMAT:
        raise ConfigurationError(
            f"{path} has format {identity.format}; this program reads up to {LOG_FORMAT}. Use a newer version of Cuebook", path=str(path)
        )
    if not 1 <= identity.shards <= SHARDS_MAX or len(identity.incarnation) != 32:
        raise CorruptLogError(f"{path} is damaged: {content[:200]!r}", path=str(path))
    return identity


def create_log(directory: Path, shards: int = SHARDS_MIN, *, clock: Clock | None = None, entropy: Entropy | None = None) -> LogIdentity:
    """Make the log in `directory`, or find it there; blocks. Safe when several processes call it at once, and after a
    crash in it.

    The number of shards is fixed by the first call: a later one with another number gets the log as it is.

    Raises:
        ConfigurationError: the folder cannot hold a log, or `shards` is out of range.
    """
    if not 1 <= shards <= SHARDS_MAX:
        raise ConfigurationError(f"a log has 1 to {SHARDS_MAX} shards, not {shards}")
    clock, entropy = clock or SystemClock(), entropy or SystemEntropy()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # One maker at a time; the others wait here and then find everything made.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if (directory / LOG_FILE).exists():
            return read_identity(directory)
        # log.json comes last: with it in place a missing shard file is a loss, never something to make anew.
        identity = _intended_identity(directory, shards, clock, entropy)
        for shard in range(identity.shards):
            path = shard_path(directory, shard)
            if not path.exists():
                _make_shard(path, identity, shard)
        os.fsync(descriptor)
        (directory / f"{LOG_FILE}.new").rename(directory / LOG_FILE)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return identity


def _intended_identity(directory: Path, shards: int, clock: Clock, entropy: Entropy) -> LogIdentity:
    """The identity under which the shard files are made: that of an attempt which died half-way, or a new one."""
    intent = directory / f"{LOG_FILE}.new"
    try:
        identity = msgspec.json.decode(intent.read_bytes(), type=LogIdentity)
    except (FileNotFoundError, msgspec.DecodeError):
        if shard_path(directory, 0).exists():
            raise ConfigurationError(
                f"{directory} holds shard files but no {LOG_FILE}: it was removed, or the folder is an incomplete copy. "
                f"Put {LOG_FILE} back, or name another folder with --data DIR",
                path=str(directory),
            ) from None
        identity = LogIdentity(format=LOG_FORMAT, incarnation=entropy.token_bytes(16).hex(), shards=shards, created=clock.wall_us())
        with intent.open("wb") as file:
            file.write(msgspec.json.encode(identity) + b"\n")
            file.flush()
            os.fsync(file.fileno())
    return identity


def _make_shard(path: Path, identity: LogIdentity, shard: int) -> None:
    """Under another name until complete, so that a file called shard-n.db always has its tables."""
    temporary = path.with_suffix(".new")
    for leftover in (temporary, Path(f"{temporary}-wal"), Path(f"{temporary}-shm")):
        leftover.unlink(missing_ok=True)
    with closing(open_writer(temporary, "disk", create=True)) as connection:
        migrate(connection, temporary, identity.created)
        connection.execute("INSERT INTO identity VALUES (1, ?, ?, ?, ?)", (identity.incarnation, shard, identity.shards, identity.created))
        connection.execute("INSERT INTO owner VALUES (1, 0, ?, NULL, 0, 0)", (bytes(16),))
        connection.execute("INSERT INTO formats VALUES ('format', 'shard', 1, 0)")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    temporary.rename(path)


def check_identity(connection: SqliteConnection, path: Path, identity: LogIdentity, shard: int) -> None:
    """Refuse a shard file that belongs to another log or another shard.

    Raises:
        ConfigurationError: it does.
        CorruptLogError: it does not say.
    """
    rows = connection.execute("SELECT incarnation, shard, shards FROM identity").fetchall()
    if len(rows) != 1:
        raise CorruptLogError(f"{path} does not say which log it belongs to", path=str(path))
    expected = (identity.incarnation, shard, identity.shards)
    if rows[0] != expected:
        raise ConfigurationError(
            f"{path} is shard {rows[0][1]} of {rows[0][2]} of log {rows[0][0]}, but this folder needs shard {shard} of {identity.shards} "
            f"of log {identity.incarnation}: a file of another log or shard was put here. Put the right one back",
            path=str(path),
            expected=list(expected),
            found=list(rows[0]),
        )
