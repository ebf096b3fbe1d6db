"""Two owners, replaced files, damaged files: nothing that others will not keep is ever called done (S3, S28, I-1, I-4, I-5)."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from events.errors import ConfigurationError, CorruptLogError, InvariantError, SupersededError
from events.keeping.verify import verify
from events.log_directory import anchor_path, create_log, shard_path
from events.sqlite.anchor import SLOT_BYTES, read_anchor
from events.sqlite.reader_sqlite import SqliteLogReader
from events.sqlite.sqlite_library import library as sqlite
from events.sqlite.store_sqlite import SqliteShard
from events.store import Committed, Conflict, ShardStore
from tests.support.logs import SqliteLogUnderTest, append_one, arrival, command, deposited, group, stream_in, without_guards

A = stream_in(0, 1, "a")
B = stream_in(0, 1, "b")


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[SqliteLogUnderTest]:
    opened = SqliteLogUnderTest(1, tmp_path / "log")
    yield opened
    await opened.close()


async def fill(store: ShardStore, count: int = 20) -> None:
    for version in range(count):
        await store.append([group(A, version, deposited(version)), group(B, version, deposited(version))])


async def test_an_owner_whose_file_was_replaced_never_says_committed(log: SqliteLogUnderTest) -> None:
    """S3: an append into the deleted inode would be acknowledged and lost."""
    store = await log.shard()
    await fill(store, 2)
    path = shard_path(log.directory, 0)
    copy = path.with_suffix(".copy")
    shutil.copy(path, copy)
    copy.replace(path)
    with pytest.raises(SupersededError):
        await append_one(store, A, 2, deposited())
    with pytest.raises(SupersededError):
        await store.take("again")


async def test_a_writer_with_our_epoch_is_noticed_by_the_position(log: SqliteLogUnderTest) -> None:
    """The lock is one comparison of position: whatever was appended beside us changes it."""
    store = await log.shard()
    await fill(store, 2)
    columns = "stream_id, 0, time + 1, 9, 'x', type, 1, 1, branch, kind, 1, hash, 0, payload"
    without_guards(
        shard_path(log.directory, 0),
        "INSERT INTO events (position, stream_id, prev_position, time, version, event_id, type, schema_version, recorded_at_us, branch, "
        f"kind, owner_epoch, hash, row_check, payload) SELECT position + 1, {columns} FROM events ORDER BY position DESC LIMIT 1",
    )
    with pytest.raises(SupersededError, match="position"):
        await append_one(store, A, 2, deposited())


async def test_events_refuse_to_be_changed_or_deleted(log: SqliteLogUnderTest) -> None:
    store = await log.shard()
    await fill(store, 1)
    connection = sqlite.connect(shard_path(log.directory, 0), isolation_level=None)
    for statement in ("UPDATE events SET payload = '{}'", "DELETE FROM events", "UPDATE events SET summary = 'x' WHERE position = 1"):
        with pytest.raises(sqlite.IntegrityError, match=r"FORMAT\.md"):
            connection.execute(statement)
    connection.close()


@pytest.mark.parametrize("kept", [0, 3, 39])
@pytest.mark.parametrize("closed", [True, False], ids=["closed", "killed"])
async def test_a_removed_tail_is_detected_at_open(log: SqliteLogUnderTest, tmp_path: Path, kept: int, closed: bool) -> None:
    """S28, F-18: by the file's own notes if they were flushed at close, else by the anchor alone."""
    store = await log.shard()
    await fill(store)
    if closed:
        await store.close()
    copy = tmp_path / "copy"
    shutil.copytree(log.directory, copy)
    without_guards(shard_path(copy, 0), f"DELETE FROM events WHERE position > {kept}")
    with pytest.raises(CorruptLogError) as raised:
        await SqliteShard.open(copy, 0)
    assert (raised.value.fields["expected"], raised.value.fields["found"]) == (40, kept)
    assert any("tail" in damage.message for damage in verify(copy))


async def test_a_lost_write_ahead_log_is_detected_at_open(log: SqliteLogUnderTest, tmp_path: Path) -> None:
    """F-19: a .db copied without its -wal opens without complaint in SQLite, with nothing in it."""
    store = await log.shard()
    await fill(store)
    copy = tmp_path / "copy"
    shutil.copytree(log.directory, copy)
    for leftover in copy.glob("shard-0.db-*"):
        leftover.unlink()
    with pytest.raises(CorruptLogError, match=r"lost|removed"):
        await SqliteShard.open(copy, 0)
    assert verify(copy) != []


async def test_a_lost_commit_without_events_is_detected_too(log: SqliteLogUnderTest, tmp_path: Path) -> None:
    """An acknowledged tell is only an inbox row: no position shows that it is gone."""
    store = await log.shard()
    await fill(store, 1)
    await store.close()
    store = await log.shard()
    before = tmp_path / "before"
    shutil.copytree(log.directory, before)
    await store.accept([arrival(A, "told")])
    await store.close()
    shutil.copy(anchor_path(log.directory, 0), anchor_path(before, 0))
    with pytest.raises(CorruptLogError, match="without events"):
        await SqliteShard.open(before, 0)


async def test_an_older_copy_put_in_place_is_detected_at_open(log: SqliteLogUnderTest, tmp_path: Path) -> None:
    """F-19."""
    store = await log.shard()
    await fill(store, 5)
    await store.close()
    older = tmp_path / "older.db"
    shutil.copy(shard_path(log.directory, 0), older)
    again = await log.shard()
    await append_one(again, A, 5, deposited())
    await again.close()
    shutil.copy(older, shard_path(log.directory, 0))
    with pytest.raises(CorruptLogError):
        await log.shard()


async def test_a_file_ahead_of_its_anchor_is_fine(log: SqliteLogUnderTest) -> None:
    """A kill between commit and pwrite leaves the anchor one commit behind."""
    store = await log.shard()
    await fill(store, 5)
    saved = anchor_path(log.directory, 0).read_bytes()
    await append_one(store, A, 5, deposited())
    await store.close()
    anchor_path(log.directory, 0).write_bytes(saved)
    again = await log.shard()
    assert isinstance(await append_one(again, A, 6, deposited()), Committed)
    assert verify(log.directory) == []


async def test_a_missing_anchor_is_a_warning(log: SqliteLogUnderTest) -> None:
    store = await log.shard()
    assert (await store.info()).warnings == ()
    await fill(store, 1)
    await store.close()
    anchor_path(log.directory, 0).unlink()
    again = await log.shard(take=False)
    assert "missing" in (await again.info()).warnings[0]


async def test_a_torn_anchor_slot_leaves_the_other_one(log: SqliteLogUnderTest) -> None:
    store = await log.shard()
    await fill(store, 5)
    path = anchor_path(log.directory, 0)
    newest = read_anchor(path)
    assert newest is not None
    content = bytearray(path.read_bytes())
    start = (newest.sequence % 2) * SLOT_BYTES
    content[start + 40 : start + 80] = bytes(40)
    path.write_bytes(content)
    older = read_anchor(path)
    assert older is not None
    assert older.sequence == newest.sequence - 1
    await store.close()
    assert isinstance(await append_one(await log.shard(), A, 5, deposited()), Committed)


async def test_a_shard_file_of_another_log_or_number_is_refused(tmp_path: Path) -> None:
    create_log(tmp_path / "one", 2)
    create_log(tmp_path / "two", 2)
    shutil.copy(shard_path(tmp_path / "two", 0), shard_path(tmp_path / "one", 0))
    with pytest.raises(ConfigurationError, match="another log"):
        await SqliteShard.open(tmp_path / "one", 0)
    shutil.copy(shard_path(tmp_path / "two", 0), shard_path(tmp_path / "two", 1))
    with pytest.raises(ConfigurationError):
        await SqliteShard.open(tmp_path / "two", 1)


async def test_a_missing_shard_file_is_a_loss_and_is_never_made_anew(log: SqliteLogUnderTest) -> None:
    store = await log.shard()
    await fill(store, 1)
    await store.close()
    shard_path(log.directory, 0).unlink()
    create_log(log.directory, 1)
    with pytest.raises(CorruptLogError, match="missing"):
        await SqliteShard.open(log.directory, 0)
    reader = await SqliteLogReader.open(log.directory)
    with pytest.raises(CorruptLogError, match="missing"):
        await reader.info(0)
    await reader.close()
    assert "missing" in verify(log.directory)[0].message


async def test_a_newer_file_is_refused_by_an_older_program(log: SqliteLogUnderTest) -> None:
    connection = sqlite.connect(shard_path(log.directory, 0), isolation_level=None)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(ConfigurationError, match="format 99"):
        await SqliteShard.open(log.directory, 0)
    reader = await SqliteLogReader.open(log.directory)
    with pytest.raises(ConfigurationError):
        await reader.info(0)


async def test_a_reader_notices_that_a_file_was_replaced(log: SqliteLogUnderTest, tmp_path: Path) -> None:
    store = await log.shard()
    await fill(store, 1)
    reader = await log.reader()
    assert (await reader.info(0)).position == 2
    await append_one(store, A, 1, deposited())
    await store.close()
    path = shard_path(log.directory, 0)
    copy = tmp_path / "copy.db"
    shutil.copy(path, copy)
    copy.replace(path)
    assert (await reader.info(0)).position == 3


async def test_a_damaged_log_json_is_named(log: SqliteLogUnderTest) -> None:
    path = log.directory / "log.json"
    path.write_bytes(b'{"format":1,')
    with pytest.raises(CorruptLogError, match=r"log\.json"):
        await SqliteShard.open(log.directory, 0)
    path.unlink()
    with pytest.raises(ConfigurationError, match=r"log\.json"):
        create_log(log.directory, 1)


async def test_a_damaged_event_is_refused_at_read_and_others_are_not(log: SqliteLogUnderTest) -> None:
    """I-20: quarantined by stream."""
    store = await log.shard()
    await fill(store, 3)
    without_guards(shard_path(log.directory, 0), "UPDATE events SET payload = '{\"cents\":999}' WHERE position = 3")
    reader = await log.reader()
    with pytest.raises(CorruptLogError) as raised:
        await reader.read_stream(A)
    assert raised.value.fields == {"shard": 0, "position": 3, "stream": A, "version": 2}
    with pytest.raises(CorruptLogError):
        await store.load(A, "s")
    with pytest.raises(CorruptLogError):
        await reader.read(0)
    assert len(await reader.read_stream(B)) == 3
    assert len((await store.load(B, "s"))[1]) == 3
    assert isinstance(await append_one(store, B, 3, deposited()), Committed)


async def test_a_damaged_inbox_row_stops_only_the_group_that_meets_it(log: SqliteLogUnderTest) -> None:
    store = await log.shard()
    await append_one(store, A, 0, deposited(), inbox=command(A, "c1", reply=b"500"))
    without_guards(shard_path(log.directory, 0), "UPDATE inbox SET reply = x'39'")
    outcomes = await store.append([group(A, 1, deposited(), inbox=command(A, "c1")), group(B, 0, deposited())])
    assert isinstance(outcomes[0], Conflict)
    assert "damaged" in outcomes[0].reason
    assert isinstance(outcomes[1], Committed)


async def test_closing_twice_and_using_after_close(log: SqliteLogUnderTest) -> None:
    store = await log.shard()
    await store.close()
    await store.close()
    with pytest.raises(InvariantError):
        await store.unfinished()
