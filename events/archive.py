"""`cuebook archive`: a stream that takes no more commands. It is verified, its last event says so, and it stays readable. Blocks.

Its events stay where they are, so its highest version can never fall and its id can never start anew at version 1. The caller holds the
lock of the shard, or is its owner.
"""

from contextlib import closing
from pathlib import Path

import msgspec

from events.backup_folder import UnknownStreamError
from events.clock import Clock, Entropy, SystemClock, SystemEntropy
from events.codec import encode
from events.envelope import Kind, NewEvent
from events.errors import ConfigurationError, CuebookError, InvariantError
from events.ids import StreamId, Version, parse_stream_id, shard_of
from events.limits import PAGE_EVENTS_MAX
from events.log_directory import anchor_path, read_identity, shard_path
from events.reads_sqlite import FoundHead, find_head, in_snapshot, read_chain
from events.sqlite_library import SqliteConnection, SqliteError, open_writer, translated
from events.store import Append, Committed
from events.writer_sqlite import ShardWriter

WORKER = "archive"


class StreamBusyError(CuebookError):
    """The stream has commands, waits or sends under way, or dead letters: finish, cancel or drop them first."""

    code = "busy"


class Archived(msgspec.Struct, frozen=True, kw_only=True):
    """version, hash: of the last event of the stream, `stream.archived`. already: it was archived before."""

    stream: str
    shard: int
    version: int
    hash: str
    already: bool


def archive(directory: Path, stream: StreamId, *, clock: Clock | None = None, entropy: Entropy | None = None) -> Archived:
    """Verify `stream` from its first event on and close it for good. Its timers are cancelled. Doing it twice does no harm.

    Raises:
        UnknownStreamError: it has no events. StreamBusyError: something of it is under way. CorruptLogError: it does not verify.
        ConfigurationError: there is no log, or the stream is erased.
    """
    identity = read_identity(directory)
    shard = shard_of(*parse_stream_id(stream), identity.shards)
    path = shard_path(directory, shard)
    clock, entropy = clock or SystemClock(), entropy or SystemEntropy()
    writer = ShardWriter(path, anchor_path(directory, shard), identity, shard, clock, entropy)
    try:
        with closing(open_writer(path, "disk")) as connection:
            writer.prepare(connection)
            head = in_snapshot(connection, lambda: _verified_head(connection, shard, stream))
            if head.status == "archived":
                return Archived(stream=stream, shard=shard, version=head.version, hash=head.hash.hex(), already=True)
            if head.status != "live":
                raise ConfigurationError(f"{stream} is {head.status}", stream=stream)
            writer.take(connection, WORKER)
            outcome = writer.archive(connection, _closing(connection, stream, head))
    except SqliteError as error:
        raise translated(error, path) from error
    finally:
        writer.close_anchor()
    if not isinstance(outcome, Committed):
        raise InvariantError(f"{stream} was not archived: {outcome}", stream=stream)
    return Archived(stream=stream, shard=shard, version=outcome.version, hash=outcome.events[-1].hash, already=False)


def _verified_head(connection: SqliteConnection, shard: int, stream: StreamId) -> FoundHead:
    head = find_head(connection, stream)
    if head is None or head.position == 0:
        raise UnknownStreamError(f"the log has no stream {stream}", stream=stream)
    for after in range(head.base_version, head.version, PAGE_EVENTS_MAX):
        read_chain(connection, shard, stream, head, after, min(after + PAGE_EVENTS_MAX, head.version))
    return head


def _closing(connection: SqliteConnection, stream: StreamId, head: FoundHead) -> Append:
    """The last group of the stream: its timers cancelled, then that it is archived."""
    for what, sql, key in (
        ("unfinished commands", "SELECT count(*) FROM inbox WHERE stream_id = ? AND status IN ('queued', 'running')", head.stream_id),
        ("dead letters", "SELECT count(*) FROM letters WHERE stream = ? AND state = 'dead'", stream),
        ("open waits", "SELECT count(*) FROM waits WHERE stream = ?", stream),
        ("sends that have not arrived", "SELECT count(*) FROM outbox WHERE sender = ?", stream),
    ):
        count = connection.execute(sql, (key,)).fetchall()[0][0]
        if count:
            raise StreamBusyError(f"{stream} has {count} {what}", stream=stream, count=count)
    timers = [row[0] for row in connection.execute("SELECT timer_id FROM timers WHERE stream = ? ORDER BY timer_id", (stream,)).fetchall()]
    events = [NewEvent(type="timer.cancelled", kind=Kind.TIMER, payload=encode({"timer_id": timer_id})) for timer_id in timers]
    sealed = {"version": head.version, "hash": head.hash.hex()}
    events.append(NewEvent(type="stream.archived", kind=Kind.CONTROL, payload=encode(sealed)))
    return Append(stream=stream, expected_version=Version(head.version), command_id=None, events=events, timers_gone=timers)
