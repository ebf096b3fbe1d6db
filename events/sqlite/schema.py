"""The tables of one shard file, and the numbered steps by which a file reaches them. Every column is explained in
FORMAT.md.
 A migration is one transaction that ends by setting ``PRAGMA user_version``, so a crash leaves either the old file or
the new one. A file that is newer than the program is refused. The columns hold all that we know will be needed: an
event log cannot be rewritten later.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from events.crash_points import CrashPoint, reached
from events.errors import ConfigurationError, TransientError
from events.sqlite.sqlite_library import SqliteConnection, SqliteError, is_busy

APPLICATION_ID: Final = 0x43554542
"""``PRAGMA application_id`` of a shard file: "CUEB"."""

_TABLES: Final = (
    # Who this file is: a file under another shard's name, or of another log, is refused at open.
    """CREATE TABLE identity (
        one INTEGER PRIMARY KEY CHECK (one = 1), incarnation TEXT NOT NULL, shard INTEGER NOT NULL, shards INTEGER NOT
        NULL, created_at_us INTEGER NOT NULL) STRICT""",
    """CREATE TABLE migrations (
        number INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at_us INTEGER NOT NULL) STRICT""",
    # S2, S3: the right to write. One row. eventless: how many commits held no event; with the highest position it dates
    # the file (S28).
    """CREATE TABLE owner (
        one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER NOT NULL, token BLOB NOT NULL, worker TEXT,
        taken_at_us INTEGER NOT NULL, eventless INTEGER NOT NULL DEFAULT 0) STRICT""",
    # S7: every (tag, schema version), actor type and format that was ever written here.
    """CREATE TABLE formats (
        kind TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, first_position INTEGER NOT NULL,
        PRIMARY KEY (kind, name, version)) STRICT, WITHOUT ROWID""",
    # head_* lag by up to HEADS_FLUSH_EVENTS events: the truth is the newest `heads` row plus the events after it.
    # base_*: where a fork branched off (S33); its first event has version base_version + 1 and continues from
    # base_hash.
    """CREATE TABLE streams (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, type TEXT NOT NULL, key TEXT NOT NULL, status TEXT NOT NULL
        DEFAULT 'live', head_version INTEGER NOT NULL, head_position INTEGER NOT NULL, head_hash BLOB NOT NULL,
        base_version INTEGER NOT NULL DEFAULT 0, base_hash BLOB, row_check INTEGER NOT NULL) STRICT""",
    # The two newest flushes: all stream heads stand in `streams` as of `position`.
    """CREATE TABLE heads (
        position INTEGER PRIMARY KEY, rolling_hash BLOB NOT NULL, time INTEGER NOT NULL, row_check INTEGER NOT NULL) STRICT""",
    # No index but the rowid: one more halves appends in a big log (facts/limits.md 2.3, 2.4). prev_position chains a
    # stream backwards. payload_digest is null except after `erase`, which leaves only the digest that the hash needs
    # (S29).
    """CREATE TABLE events (
        position INTEGER PRIMARY KEY, stream_id INTEGER NOT NULL, prev_position INTEGER NOT NULL, time INTEGER NOT NULL,
        version INTEGER NOT NULL, event_id TEXT NOT NULL, type TEXT NOT NULL, schema_version INTEGER NOT NULL,
        recorded_at_us INTEGER NOT NULL, command_id TEXT, causation_id TEXT, correlation_id TEXT, traceparent TEXT,
        sender TEXT, branch TEXT NOT NULL, parent TEXT, kind TEXT NOT NULL, owner_epoch INTEGER NOT NULL, code_version
        TEXT, duration_us INTEGER, summary TEXT, error TEXT, salt BLOB, key_id TEXT, state_hash TEXT, hash BLOB NOT
        NULL, row_check INTEGER NOT NULL, payload_digest BLOB, payload TEXT NOT NULL) STRICT""",
    # One row per STREAM_PAGE_VERSIONS versions: where a page of a long stream can be entered.
    """CREATE TABLE stream_pages (
        stream_id INTEGER NOT NULL, version INTEGER NOT NULL, position INTEGER NOT NULL,
        PRIMARY KEY (stream_id, version)) STRICT, WITHOUT ROWID""",
    # S24. The index starts with the id, not the stream: ids that we make up are ordered by time, so they land at its
    # right edge.
    """CREATE TABLE inbox (
        id INTEGER PRIMARY KEY, stream_id INTEGER NOT NULL, command_id TEXT NOT NULL, method TEXT NOT NULL, args_hash
        TEXT NOT NULL, status TEXT NOT NULL, code INTEGER, sender TEXT, causation_id TEXT, correlation_id TEXT,
        traceparent TEXT, deadline_ms INTEGER, source TEXT, explicit INTEGER NOT NULL, received_at_us INTEGER NOT NULL,
        received_time INTEGER NOT NULL, completed_at_us INTEGER, row_check INTEGER NOT NULL, args BLOB, reply BLOB)
        STRICT""",
    "CREATE UNIQUE INDEX inbox_command ON inbox (command_id, stream_id)",
    "CREATE INDEX inbox_unfinished ON inbox (status) WHERE status IN ('queued', 'running')",
    # S25. n counts per (sender, receiver) under one incarnation of the log, so that numbers start anew after a restore.
    """CREATE TABLE outbox (
        id INTEGER PRIMARY KEY, sender TEXT NOT NULL, receiver TEXT NOT NULL, incarnation TEXT NOT NULL, n INTEGER NOT
        NULL, method TEXT NOT NULL, command_id TEXT NOT NULL, causation_id TEXT, correlation_id TEXT, traceparent TEXT,
        deadline_ms INTEGER, time INTEGER NOT NULL, row_check INTEGER NOT NULL, args BLOB NOT NULL) STRICT""",
    "CREATE UNIQUE INDEX outbox_pair ON outbox (sender, receiver, incarnation, n)",
    """CREATE TABLE sent_heads (
        sender TEXT NOT NULL, receiver TEXT NOT NULL, incarnation TEXT NOT NULL, n INTEGER NOT NULL, row_check INTEGER
        NOT NULL, PRIMARY KEY (sender, receiver, incarnation)) STRICT, WITHOUT ROWID""",
    """CREATE TABLE received_heads (
        sender TEXT NOT NULL, receiver TEXT NOT NULL, incarnation TEXT NOT NULL, n INTEGER NOT NULL, row_check INTEGER
        NOT NULL, PRIMARY KEY (sender, receiver, incarnation)) STRICT, WITHOUT ROWID""",
    """CREATE TABLE timers (
        stream TEXT NOT NULL, timer_id TEXT NOT NULL, due_us INTEGER NOT NULL, wall INTEGER NOT NULL, every_us INTEGER,
        method TEXT NOT NULL, set_at_us INTEGER NOT NULL, correlation_id TEXT, row_check INTEGER NOT NULL, args BLOB NOT
        NULL, PRIMARY KEY (stream, timer_id)) STRICT, WITHOUT ROWID""",
    """CREATE TABLE waits (
        stream TEXT NOT NULL, wait_id TEXT NOT NULL, name TEXT NOT NULL, command_id TEXT NOT NULL, opened_at_us INTEGER
        NOT NULL, expires_at_us INTEGER, row_check INTEGER NOT NULL, schema BLOB, PRIMARY KEY (stream, wait_id)) STRICT,
        WITHOUT ROWID""",
    """CREATE TABLE snapshots (
        stream TEXT PRIMARY KEY, version INTEGER NOT NULL, shape TEXT NOT NULL, row_check INTEGER NOT NULL, state BLOB
        NOT NULL) STRICT""",
    # The documented switch of the triggers below: `archive` and `erase` set it to 1 and back to 0 inside their own
    # transaction, so no other connection ever sees it open, and a crash in between rolls it back. `verify` reports a
    # switch that was left open.
    "CREATE TABLE switches (name TEXT PRIMARY KEY, is_open INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    "INSERT INTO switches VALUES ('rewrite_events', 0)",
    """CREATE TRIGGER events_refuse_update BEFORE UPDATE ON events
        WHEN (SELECT is_open FROM switches WHERE name = 'rewrite_events') IS NOT 1
        BEGIN SELECT RAISE(ABORT, 'events are never changed, see FORMAT.md'); END""",
    """CREATE TRIGGER events_refuse_delete BEFORE DELETE ON events
        WHEN (SELECT is_open FROM switches WHERE name = 'rewrite_events') IS NOT 1
        BEGIN SELECT RAISE(ABORT, 'events are never deleted, see FORMAT.md'); END""",
)

_SUPERVISION: Final = (
    # Stored commands whose handler failed: to be tried again, or dead (design.md 6). Few rows: what goes well leaves none.
    """CREATE TABLE letters (
        stream TEXT NOT NULL, command_id TEXT NOT NULL, state TEXT NOT NULL, method TEXT NOT NULL, args_hash TEXT NOT NULL, attempts
        INTEGER NOT NULL, reason TEXT NOT NULL, failed_at_us INTEGER NOT NULL, next_try_us INTEGER, event_ids TEXT NOT NULL, sender TEXT,
        causation_id TEXT, correlation_id TEXT, traceparent TEXT, source TEXT, received_at_us INTEGER NOT NULL, row_check INTEGER NOT
        NULL, args BLOB, PRIMARY KEY (stream, command_id)) STRICT, WITHOUT ROWID""",
    """CREATE TABLE stopped (
        stream TEXT PRIMARY KEY, reason TEXT NOT NULL, message TEXT NOT NULL, failures INTEGER NOT NULL, stopped_at_us INTEGER NOT NULL,
        code_version TEXT, row_check INTEGER NOT NULL) STRICT, WITHOUT ROWID""",
    # What an actor has queued, in its order: its mailbox is filled from here. Asks are never queued, so they do not pay for it.
    "CREATE INDEX inbox_queued ON inbox (stream_id) WHERE status = 'queued'",
)

_KEEPING: Final = (
    # S29: every key that anything of a stream was ever sealed under. Without this table a key whose rows were forgotten could not be
    # destroyed, and a backup that still holds them could be read.
    """CREATE TABLE stream_keys (
        stream TEXT NOT NULL, key_id TEXT NOT NULL, row_check INTEGER NOT NULL, PRIMARY KEY (stream, key_id)) STRICT, WITHOUT ROWID""",
    # An erasure is written here with the transaction that makes it, and finished once its keys and every stale byte are gone.
    """CREATE TABLE erasures (
        stream TEXT PRIMARY KEY, requested_by TEXT NOT NULL, asked_at_us INTEGER NOT NULL, is_plain INTEGER NOT NULL,
        finished_at_us INTEGER, row_check INTEGER NOT NULL) STRICT, WITHOUT ROWID""",
)

MIGRATIONS: Final[Sequence[tuple[str, Sequence[str]]]] = (
    ("first tables", _TABLES),
    ("supervision", _SUPERVISION),
    ("sealed actors and erasures", _KEEPING),
)
"""(name, statements) of migration 1, 2, ... Released ones never change: a later need is a later migration."""

SCHEMA_VERSION: Final = len(MIGRATIONS)


def file_version(connection: SqliteConnection, path: Path) -> int:
    """Number of the last migration that `path` has had; 0 for an empty file.

    Raises:
        ConfigurationError: not a file of ours, or made by a newer program.
    """
    version: int = connection.execute("PRAGMA user_version").fetchall()[0][0]
    application: int = connection.execute("PRAGMA application_id").fetchall()[0][0]
    pages: int = connection.execute("PRAGMA page_count").fetchall()[0][0]
    if application != APPLICATION_ID and (version != 0 or (application != 0 and pages > 0)):
        raise ConfigurationError(f"{path} is an SQLite database, but no Cuebook log. Name the right folder with --data", path=str(path))
    if version > SCHEMA_VERSION:
        raise ConfigurationError(
            f"{path} has format {version}; this program reads up to {SCHEMA_VERSION}. "
            "Use the version of Cuebook that wrote it, or a newer one",
            path=str(path),
            found=version,
            expected=SCHEMA_VERSION,
        )
    return version


def has_keys(connection: SqliteConnection) -> bool:
    """Whether the file has had migration 3: a reader must not migrate, so it meets older ones."""
    version: int = connection.execute("PRAGMA user_version").fetchall()[0][0]
    return version >= 3


def has_sealed_streams(connection: SqliteConnection) -> bool:
    """Whether the file has ever had a sealed stream."""
    return has_keys(connection) and bool(connection.execute("SELECT 1 FROM stream_keys LIMIT 1").fetchall())


def migrate(connection: SqliteConnection, path: Path, now_us: int) -> int:
    """Bring the file to `SCHEMA_VERSION`, one transaction per step; returns how many steps ran. Safe when several
    processes do it at once.

    Raises:
        ConfigurationError: as `file_version`.
        TransientError: another process held the write lock for over a second.
    """
    applied = 0
    while (version := file_version(connection, path)) < SCHEMA_VERSION:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except SqliteError as error:
            if is_busy(error):
                raise TransientError(f"{path} is locked by another process; try again", path=str(path)) from error
            raise
        try:
            # Looked up again under the lock: the process before us may have run this very step.
            if file_version(connection, path) == version:
                name, statements = MIGRATIONS[version]
                for statement in statements:
                    connection.execute(statement)
                    reached(CrashPoint.MIGRATION_STATEMENT)
                connection.execute("INSERT INTO migrations VALUES (?, ?, ?)", (version + 1, name, now_us))
                connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version={version + 1}")
                applied += 1
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    return applied
