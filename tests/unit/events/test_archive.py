"""`archive`: the stream is closed for good, stays readable, and its version never falls."""

from pathlib import Path

import msgspec
import pytest

from events.errors import CorruptLogError, StreamBusyError, UnknownStreamError
from events.ids import StreamId, parse_stream_id, shard_of
from events.keeping.archive import archive
from events.keeping.export import export
from events.keeping.export_import import import_log
from events.keeping.verify import verify
from events.log_directory import shard_path
from events.sqlite.reader_sqlite import SqliteLogReader
from events.sqlite.store_sqlite import SqliteShard
from events.store import Conflict, Duplicate, InboxStatus
from tests.support.logs import ManualClock, SqliteLogUnderTest, append_one, command, deposited, stream_in, timer, wait, without_guards

A = stream_in(0, 1, "a")
B = stream_in(0, 1, "b")


async def made(directory: Path, **last: object) -> Path:
    log = SqliteLogUnderTest(1, directory)
    store = await log.shard()
    await append_one(store, B, 0, deposited())
    await append_one(store, A, 0, deposited(1), deposited(2), inbox=command(A, "c1", reply=b"3"), command_id="c1", timers=[timer(A, "t")])
    if last:
        await append_one(store, A, 2, **last)
    await log.close()
    return directory


async def test_an_archived_stream_refuses_appends_and_answers_what_it_remembers(tmp_path: Path) -> None:
    log = await made(tmp_path / "log")
    clock = ManualClock()
    done = archive(log, A, clock=clock)
    # The cancelled timer and the event that says so.
    assert (done.version, done.already) == (4, False)
    store = await SqliteShard.open(log, 0, clock=clock)
    await store.take("w")
    refused = await append_one(store, A, 4, deposited(), inbox=command(A, "c2"), command_id="c2")
    assert isinstance(refused, Conflict)
    assert (refused.actual, refused.reason) == (4, f"{A} is archived")
    again = await append_one(store, A, 0, deposited(), inbox=command(A, "c1"), command_id="c1")
    assert isinstance(again, Duplicate)
    assert again.entry.reply == b"3"
    assert await store.timers() == []
    head = await store.head(A)
    assert head is not None
    assert (head.version, head.status) == (4, "archived")
    await append_one(store, B, 1, deposited())
    await store.close()
    assert verify(log) == []


async def test_it_stays_readable_and_archiving_again_changes_nothing(tmp_path: Path) -> None:
    log = await made(tmp_path / "log")
    first = archive(log, A)
    assert archive(log, A) == msgspec.structs.replace(first, already=True, events=())
    reader = await SqliteLogReader.open(log)
    events = await reader.read_stream(A)
    assert [event.type for event in events][-2:] == ["timer.cancelled", "stream.archived"]
    assert bytes(events[-1].payload) == b'{"version":2,"hash":"%s"}' % events[1].hash.encode()
    assert {info.stream: info.status for info in await reader.streams()} == {A: "archived", B: "live"}
    await reader.close()


@pytest.mark.parametrize("shards", [1, 3])
async def test_an_export_keeps_it_archived(tmp_path: Path, shards: int) -> None:
    log = await made(tmp_path / "log")
    archive(log, A)
    export(log, tmp_path / "x.jsonl")
    import_log(tmp_path / "x.jsonl", tmp_path / "new", shards)
    store = await SqliteShard.open(tmp_path / "new", shard_of(*parse_stream_id(A), shards))
    await store.take("w")
    assert isinstance(await append_one(store, A, 4, deposited()), Conflict)
    await store.close()


@pytest.mark.parametrize("what", ["command", "wait"])
async def test_a_stream_with_work_under_way_is_refused_and_stays_as_it_is(tmp_path: Path, what: str) -> None:
    under_way: dict[str, object] = (
        {"inbox": command(A, "c2", InboxStatus.RUNNING), "command_id": "c2"} if what == "command" else {"waits": [wait(A, "w")]}
    )
    log = await made(tmp_path / "log", **under_way)
    with pytest.raises(StreamBusyError, match="1 "):
        archive(log, A)
    reader = await SqliteLogReader.open(log)
    assert {info.stream: info.status for info in await reader.streams()} == {A: "live", B: "live"}
    await reader.close()


async def test_an_unknown_or_damaged_stream_is_refused(tmp_path: Path) -> None:
    log = await made(tmp_path / "log")
    with pytest.raises(UnknownStreamError):
        archive(log, StreamId("actor/none"))
    without_guards(shard_path(log, 0), "UPDATE events SET payload = '{}' WHERE version = 1")
    with pytest.raises(CorruptLogError):
        archive(log, A)
