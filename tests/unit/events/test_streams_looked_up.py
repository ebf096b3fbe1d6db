"""The streams of a batch that are not in memory are looked up together: each statement gives up the GIL, which a busy loop returns late."""

import threading
from collections.abc import Sequence
from pathlib import Path

from events.envelope import NewEvent
from events.ids import StreamId, Version
from events.keeping.verify import verify
from events.log_directory import create_log
from events.sqlite.sqlite_library import SqliteConnection
from events.sqlite.threaded_sqlite import ThreadedShard
from events.sqlite.writer_sqlite import ShardWriter
from events.store import Append, Committed, Conflict, Outcome

STREAMS = [StreamId(f"thing/{number}") for number in range(50)]


def group(stream: StreamId, expected: int) -> Append:
    return Append(
        stream=stream, expected_version=Version(expected), command_id=None, events=[NewEvent(type="said", payload=b"1")]
    )  # fmt: skip


class Counted:
    """A writer of one shard that says how often its batches asked for streams."""

    def __init__(self, log: Path) -> None:
        self.shard = ThreadedShard.open(log, 0, worker="test")
        self.lookups = 0
        self.shard.write(self._trace).result()

    def _trace(self, _: ShardWriter, connection: SqliteConnection) -> None:
        def note(sql: str) -> None:
            self.lookups += sql.startswith("SELECT") and "FROM streams" in sql

        connection.set_trace_callback(note)

    def commit(self, groups: Sequence[Append]) -> list[Outcome]:
        """All in one transaction."""
        held = threading.Event()
        waiting = self.shard.write(lambda *_: held.wait())
        submitted = [self.shard.submit(each) for each in groups]
        before = self.shard.statistics().commits
        held.set()
        waiting.result()
        outcomes = [each.result() for each in submitted]
        assert self.shard.statistics().commits == before + 1
        return outcomes


def test_i2_a_batch_looks_its_streams_up_once_whether_they_are_there_or_not(tmp_path: Path) -> None:
    log = tmp_path / "log"
    create_log(log, 1)
    writer = Counted(log)
    assert all(isinstance(outcome, Committed) for outcome in writer.commit([group(stream, 0) for stream in STREAMS[:30]]))
    assert writer.lookups == 1
    writer.shard.close()
    writer = Counted(log)  # a new owner, which knows none of them
    outcomes = writer.commit([group(stream, 1 if number < 30 else 0) for number, stream in enumerate(STREAMS)])
    assert all(isinstance(outcome, Committed) for outcome in outcomes)
    outcomes = writer.commit([group(stream, 7) for stream in STREAMS])
    assert all(isinstance(outcome, Conflict) for outcome in outcomes)
    assert writer.lookups == 1, "and knows them from then on"
    writer.shard.close()
    assert verify(log) == []


def test_i20_a_damaged_row_among_them_refuses_its_own_stream_only(tmp_path: Path) -> None:
    log = tmp_path / "log"
    create_log(log, 1)
    writer = Counted(log)
    writer.commit([group(stream, 0) for stream in STREAMS])
    writer.shard.close()
    writer = Counted(log)
    writer.shard.write(lambda _, connection: connection.execute("UPDATE streams SET row_check = 1 WHERE name = ?", (STREAMS[7],))).result()
    outcomes = writer.commit([group(stream, 1) for stream in STREAMS])
    refused = [stream for stream, outcome in zip(STREAMS, outcomes, strict=True) if not isinstance(outcome, Committed)]
    assert refused == [STREAMS[7]]
    outcome = outcomes[7]
    assert isinstance(outcome, Conflict)
    assert "thing/7 in table streams is damaged" in outcome.reason
    writer.shard.close()
