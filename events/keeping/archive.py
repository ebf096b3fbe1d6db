"""`cuebook archive` without an owner: a stream that takes no more commands, closed on the files. Blocks.

The caller holds the lock of the shard. A running owner does the same through `ShardStore.archive`.
"""

from contextlib import closing
from pathlib import Path

from events.clock import Clock, Entropy, SystemClock, SystemEntropy
from events.closing import Closed
from events.ids import StreamId, parse_stream_id, shard_of
from events.log_directory import anchor_path, read_identity, shard_path
from events.sqlite.closing_sqlite import ARCHIVED, archive_stream
from events.sqlite.reads_sqlite import find_head
from events.sqlite.sqlite_library import SqliteError, open_writer, translated
from events.sqlite.writer_sqlite import ShardWriter

WORKER = "archive"


def archive(directory: Path, stream: StreamId, *, clock: Clock | None = None, entropy: Entropy | None = None) -> Closed:
    """Verify `stream` from its first event on and close it for good. Its timers are cancelled. Doing it twice does no harm.

    Raises:
        UnknownStreamError: it has no events. StreamBusyError: something of it is under way. StreamClosedError: it is erased.
            CorruptLogError: it does not verify. ConfigurationError: there is no log.
    """
    identity = read_identity(directory)
    shard = shard_of(*parse_stream_id(stream), identity.shards)
    path = shard_path(directory, shard)
    clock, entropy = clock or SystemClock(), entropy or SystemEntropy()
    writer = ShardWriter(path, anchor_path(directory, shard), identity, shard, clock, entropy)
    try:
        with closing(open_writer(path, "disk")) as connection:
            writer.prepare(connection)
            head = find_head(connection, stream)
            if head is not None and head.status != ARCHIVED:
                writer.take(connection, WORKER)
            return archive_stream(writer, connection, stream)
    except SqliteError as error:
        raise translated(error, path) from error
    finally:
        writer.close_anchor()
