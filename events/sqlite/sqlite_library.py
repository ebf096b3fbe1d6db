"""Which SQLite we run on, and the one way to reach it from asyncio. The only file that imports sqlite3, pysqlite3 or
aiosqlite.
 SQLite 3.7.0 to 3.51.2 can corrupt a WAL database that several connections share: the "WAL-reset" fault, where one
connection commits while another checkpoints (fixed in 3.51.3, and in 3.50.7 and 3.44.6; facts/durability.md 0.1).
Worker, projector and readers share every shard file, so an affected library is refused for a log, not only warned
about.
 One process must never open a file with two SQLite libraries (POSIX locks are per process: closing one copy's handle
drops the locks of the other), so everything in this process that opens a log goes through `connect`.
"""

import asyncio
import os
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, Final, Literal, ParamSpec, TypeVar

import aiosqlite

from events.errors import ConfigurationError, CorruptLogError, TransientError
from events.limits import WRITE_LOCK_S

if TYPE_CHECKING:
    import sqlite3 as sqlite
else:
    try:
        import pysqlite3.dbapi2 as sqlite
    except ImportError:
        import sqlite3 as sqlite

P = ParamSpec("P")
T = TypeVar("T")

Durability = Literal["process", "disk"]
"""What an acknowledged append survives: "process" = kill -9 (synchronous=NORMAL), "disk" = power loss of an honest disk
(FULL)."""

BUSY_S: Final = WRITE_LOCK_S
"""How long a write waits for another process's transaction before it is a `TransientError` (S2)."""
CACHE_KIB: Final = 64 * 1024
AUTOCHECKPOINT_PAGES: Final = 10_000
"""With the 64 MB cache 1.8x the appends at a million rows (facts/limits.md 2.4)."""
TIGHT_CHECKPOINT_PAGES: Final = 250
"""Once a disk was full, until the next start: write-ahead logs of 40 MB per shard would take what was freed before anything is given
back."""

LIBRARY_NAME: Final[str] = sqlite.__name__.partition(".")[0]
LIBRARY_VERSION: Final[tuple[int, ...]] = tuple(int(part) for part in sqlite.sqlite_version.split("."))

library = sqlite
"""The chosen module itself."""
SqliteError = sqlite.Error
SqliteConnection = sqlite.Connection


def has_wal_reset_fix(version: tuple[int, ...]) -> bool:
    """True if SQLite `version` is safe for a WAL file that several connections share."""
    if version >= (3, 51, 3):
        return True
    return (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)


def library_fault(name: str = LIBRARY_NAME, version: tuple[int, ...] = LIBRARY_VERSION) -> str | None:
    """Why this library may not share a log, with what to do about it; None if it may."""
    if has_wal_reset_fix(version):
        return None
    return (
        f"SQLite {'.'.join(map(str, version))} (module {name}) can corrupt a log that several connections share: one commits while another "
        f"checkpoints (WAL-reset fault, fixed in 3.51.3, 3.50.7 and 3.44.6). Install pysqlite3 0.6.1 or newer "
        f"(pip install 'pysqlite3>=0.6.1'), or a Python with a fixed SQLite"
    )


def require_safe_library() -> None:
    """Refuse to go on with a library that can corrupt the log.

    Raises:
        ConfigurationError: the SQLite of this process has the WAL-reset fault.
    """
    fault = library_fault()
    if fault is not None:
        raise ConfigurationError(fault, library=LIBRARY_NAME, version=list(LIBRARY_VERSION))


def open_writer(path: Path, durability: Durability, *, create: bool = False) -> SqliteConnection:
    """A connection that writes `path`: WAL, and as durable as asked. Blocks; see `connect` for asyncio.

    Raises:
        ConfigurationError: WAL did not take effect (a network file system), or the library is faulty.
    """
    require_safe_library()
    uri = f"{path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
    connection = sqlite.connect(uri, uri=True, isolation_level=None, timeout=BUSY_S, check_same_thread=False)
    try:
        # Every cursor is read to its end: an unread PRAGMA cursor makes a later COMMIT fail with "statements in
        # progress".
        mode = connection.execute("PRAGMA journal_mode=WAL").fetchall()[0][0]
        if mode != "wal":
            raise ConfigurationError(
                f"{path} cannot use a write-ahead log (journal mode stays {mode!r}): is it on a network file system? "
                "Put the data on a local disk (--data DIR)",
                path=str(path),
            )
        for pragma in (
            f"synchronous={'FULL' if durability == 'disk' else 'NORMAL'}",
            f"wal_autocheckpoint={AUTOCHECKPOINT_PAGES}",
            f"cache_size=-{CACHE_KIB}",
            "trusted_schema=OFF",
            "foreign_keys=ON",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
    except UnicodeDecodeError as error:
        connection.close()
        raise undecodable(error) from error
    except BaseException:
        connection.close()
        raise
    return connection


def open_reader(path: Path) -> SqliteConnection:
    """A connection that can only read `path`, which must exist. Blocks; see `connect` for asyncio.

    It neither writes nor checkpoints (S31). SQLite makes the shared index beside the file (``-shm``) where there is none; in a folder that
    cannot be written it needs none, provided that nobody has the file open: a copy on a read-only medium can be read.

    Raises:
        ConfigurationError: the library is faulty.
    """
    require_safe_library()
    uri = path.absolute().as_uri() + "?mode=ro"
    # An open file has both beside it. Without them nobody writes, and in such a folder nobody of this user will.
    if not os.access(path.parent, os.W_OK) and not any(Path(f"{path}{end}").exists() for end in ("-wal", "-shm")):
        uri += "&immutable=1"
    connection = sqlite.connect(uri, uri=True, isolation_level=None, timeout=BUSY_S, check_same_thread=False)
    try:
        for pragma in ("query_only=ON", "trusted_schema=OFF", f"cache_size=-{CACHE_KIB // 8}"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
    except UnicodeDecodeError as error:
        connection.close()
        raise undecodable(error) from error
    except BaseException:
        connection.close()
        raise
    return connection


async def connect(opener: Callable[[], SqliteConnection]) -> aiosqlite.Connection:
    """A connection made by `opener` with a thread of its own. The caller must `close_connection` it: the thread is not
    a daemon, so a forgotten one keeps the interpreter from ending."""
    # Given as `connector`, so aiosqlite runs on the library chosen above without a swap in sys.modules.
    connection = aiosqlite.Connection(connector=opener, iter_chunk_size=64)
    try:
        return await connection
    except BaseException:
        # Its thread is told to stop, but not waited for: it reports to this loop, which may be gone by then.
        await asyncio.get_running_loop().run_in_executor(None, connection._thread.join)
        raise


async def on_thread(
    db: aiosqlite.Connection,
    fn: Callable[Concatenate[SqliteConnection, P], T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Run ``fn(connection, *args)`` from start to end on the connection's own thread.

    The only use of aiosqlite's private `_execute` (verified on 0.22.1; tests/fault holds its promises). The public
    methods are one thread hop per statement, and a caller cancelled between two of them leaves an open transaction that
    blocks every other writer, or lets the next commit publish half a turn (facts/durability.md 0.3). So begin to commit
    is one function here.

    Cancelling the caller does not stop `fn`: it runs to its end, and its outcome is unknown to the caller.
    """
    if db._connection is None:
        raise ValueError("the connection is closed")
    try:
        result: T = await db._execute(fn, db._connection, *args, **kwargs)  # type: ignore[no-untyped-call]
    except UnicodeDecodeError as error:
        raise undecodable(error) from error
    return result


def undecodable(error: UnicodeDecodeError) -> SqliteError:
    """Python fails to put SQLite's complaint into words where the complaint quotes damaged text, such as a statement of the schema."""
    return sqlite.DatabaseError(f"Could not decode to UTF-8: {error.object!r}"[:300])


async def close_connection(db: aiosqlite.Connection) -> None:
    """Close `db` and end its thread, after what is under way on it. Idempotent."""
    try:
        await db.close()
    except (sqlite.Error, ValueError):
        # Closing after an I/O error may report that error again; the thread has been told to stop all the same.
        await asyncio.sleep(0)


async def close_connections(connections: Iterable[aiosqlite.Connection | None]) -> None:
    """`close_connection` of each that is one, in this order: the last one of a file checkpoints it, which a reader cannot. Cancelled or
    failed half-way: the others are closed all the same, because the thread of one that is forgotten keeps the process from ending."""
    async with AsyncExitStack() as stack:
        for connection in reversed(list(connections)):
            if connection is not None:
                stack.push_async_callback(close_connection, connection)


def error_name(error: BaseException) -> str:
    """SQLite's own name of an error, such as ``SQLITE_FULL``; empty if it has none."""
    return getattr(error, "sqlite_errorname", None) or ""


def is_full(error: BaseException, path: Path) -> bool:
    """True if `error` says that the disk (or the allowed size) is used up."""
    name = error_name(error)
    if name == "SQLITE_FULL":
        return True
    if name not in ("SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE", "SQLITE_IOERR_TRUNCATE", "SQLITE_CANTOPEN"):
        return False
    return no_space(path)


def no_space(path: Path) -> bool:
    """True if the file system of `path` has less than 64 KiB left for us."""
    try:
        usage = os.statvfs(path.parent)
    except OSError:
        return False
    return usage.f_bavail * usage.f_frsize < 64 * 1024


def is_busy(error: BaseException) -> bool:
    """True if another connection holds the lock that was needed."""
    return error_name(error).startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def is_corrupt(error: BaseException) -> bool:
    """True if SQLite found its own structures damaged, or the file is no database."""
    return error_name(error).startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or "Could not decode to UTF-8" in str(error)


def is_statement_fault(error: BaseException) -> bool:
    """True if `error` blames one group of a batch, by its values or by a damaged row that it met: the others may go on without it."""
    return (
        isinstance(error, (ValueError, TypeError, OverflowError, CorruptLogError))
        or error_name(error).startswith(("SQLITE_CONSTRAINT", "SQLITE_MISMATCH", "SQLITE_TOOBIG"))
        or (isinstance(error, (sqlite.InterfaceError, sqlite.ProgrammingError, sqlite.DataError)) and not error_name(error))
    )


def translated(error: BaseException, path: Path) -> Exception:
    """A failed read as an error of ours: damaged, or away for a time."""
    if is_corrupt(error):
        return CorruptLogError(f"{path} is damaged: {error}", path=str(path))
    return TransientError(f"{path} cannot be read now: {error}", path=str(path))
