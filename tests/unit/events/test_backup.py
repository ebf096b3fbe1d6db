"""`backup`: a copy under load that verifies and opens as a log (I-21), or nothing at all."""

import asyncio
import shutil
from pathlib import Path

import pytest

from events.envelope import GENESIS_HASH, rolling_hash
from events.errors import ConfigurationError, CorruptLogError
from events.keeping.backup import back_up, log_of
from events.keeping.backup_folder import appearing, cut
from events.keeping.verify import verify
from events.log_directory import LOG_FILE, anchor_path, read_identity, shard_path
from events.sqlite.anchor import read_anchor
from events.sqlite.reader_sqlite import SqliteLogReader
from events.sqlite.store_sqlite import SqliteShard
from events.store import Committed
from tests.support.logs import SqliteLogUnderTest, append_one, command, deposited, group, stream_in, without_guards

SHARDS = 2
STREAMS = [stream_in(shard, SHARDS, "s") for shard in range(SHARDS)]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    directory = tmp_path / "data" / "log"

    async def make() -> None:
        opened = SqliteLogUnderTest(SHARDS, directory)
        for shard, stream in enumerate(STREAMS):
            store = await opened.shard(shard)
            for version in range(5):
                await append_one(store, stream, version, deposited(version), inbox=command(stream, f"c{version}", reply=b"1"))
        await opened.close()

    asyncio.run(make())
    return directory


async def test_a_copy_made_under_load_verifies_and_is_a_beginning_of_the_log(tmp_path: Path) -> None:
    """The owners append all the while; what was acknowledged before the backup began is in it."""
    opened = SqliteLogUnderTest(SHARDS, tmp_path / "data" / "log")
    stores = [await opened.shard(shard) for shard in range(SHARDS)]
    versions = [0] * SHARDS
    running = True

    async def write(shard: int) -> None:
        while running:
            await append_one(stores[shard], STREAMS[shard], versions[shard], *(deposited(n) for n in range(20)))
            versions[shard] += 20

    async with asyncio.TaskGroup() as writers:
        for shard in range(SHARDS):
            writers.create_task(write(shard))
        for number in range(3):
            while min(versions) < 200 * (number + 1):
                await asyncio.sleep(0.001)
            before = list(versions)
            backup = await asyncio.to_thread(back_up, opened.directory, tmp_path / f"backup-{number}")
            assert min(versions) > max(before[0], before[1]) or versions > before, "the writers went on"
            for shard, copied in enumerate(backup.shards):
                assert before[shard] <= copied.position <= versions[shard]
        running = False
    for number in range(3):
        copy = tmp_path / f"backup-{number}" / "log"
        assert verify(copy) == []
        reader = await SqliteLogReader.open(copy)
        source = await opened.reader()
        for shard, stream in enumerate(STREAMS):
            head = await reader.head(stream)
            assert head is not None
            event = await source.at(shard, head.position)
            assert event is not None
            assert (event.version, event.hash) == (head.version, head.hash.hex())
        await reader.close()
    await opened.close()


async def test_the_copy_opens_as_a_log_with_anchors_of_its_own(log: Path, tmp_path: Path) -> None:
    backup = back_up(log, tmp_path / "backup")
    assert backup.exact
    copy = log_of(tmp_path / "backup")
    assert read_identity(copy) == read_identity(log)
    for shard, stream in enumerate(STREAMS):
        anchor = read_anchor(anchor_path(copy, shard))
        assert anchor is not None
        assert (anchor.position, anchor.rolling_hash.hex()) == (backup.shards[shard].position, backup.shards[shard].hash)
        assert anchor.inode == shard_path(copy, shard).stat().st_ino
        store = await SqliteShard.open(copy, shard)
        await store.take("w")
        assert (await store.info()).warnings == ()
        assert isinstance(await append_one(store, stream, 5, deposited()), Committed)
        await store.close()
    assert verify(copy) == []


async def test_the_hash_of_a_shard_is_over_all_its_events(log: Path, tmp_path: Path) -> None:
    backup = back_up(log, tmp_path / "backup")
    reader = await SqliteLogReader.open(log)
    rolling = GENESIS_HASH
    for event in await reader.read(0):
        rolling = rolling_hash(rolling, bytes.fromhex(event.hash))
    await reader.close()
    assert backup.shards[0].hash == rolling.hex()


async def test_an_older_backup_put_in_place_by_hand_is_detected_by_the_anchor(log: Path, tmp_path: Path) -> None:
    """F-19: files copied over the log, as somebody would who does not know `restore`."""
    back_up(log, tmp_path / "backup")
    store = await SqliteShard.open(log, 0)
    await store.take("w")
    await append_one(store, STREAMS[0], 5, deposited())
    await store.close()
    shutil.copy(shard_path(tmp_path / "backup" / "log", 0), shard_path(log, 0))
    with pytest.raises(CorruptLogError, match="older copy was put here"):
        await SqliteShard.open(log, 0)
    with pytest.raises(CorruptLogError, match="older copy was put here"):
        back_up(log, tmp_path / "second")
    assert verify(log) != []


@pytest.mark.parametrize("what", ["a file in it", "it is a file", "inside the log"])
def test_a_target_in_use_is_refused_and_left_alone(log: Path, tmp_path: Path, what: str) -> None:
    target = log / "backup" if what == "inside the log" else tmp_path / "backup"
    if what == "a file in it":
        target.mkdir()
        (target / "mine").write_text("mine")
    elif what == "it is a file":
        target.write_text("mine")
    with pytest.raises(ConfigurationError):
        back_up(log, target)
    if what == "a file in it":
        assert (target / "mine").read_text() == "mine"
    assert not list(tmp_path.glob(".*"))


def test_an_empty_target_is_taken_and_a_second_process_refused(log: Path, tmp_path: Path) -> None:
    (tmp_path / "backup").mkdir()
    with appearing(tmp_path / "backup"), pytest.raises(ConfigurationError, match="another process"):
        back_up(log, tmp_path / "backup")
    assert (tmp_path / "backup").is_dir()
    (tmp_path / "backup").rmdir()
    (tmp_path / "backup").mkdir()
    back_up(log, tmp_path / "backup")
    assert (tmp_path / "backup" / "log" / LOG_FILE).is_file()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE events SET payload = '{}' WHERE position = 2",
        "UPDATE inbox SET reply = X'32' WHERE id = 1",
        "DELETE FROM events WHERE position = 2",
    ],
)
def test_a_damaged_log_gives_no_backup(log: Path, tmp_path: Path, damage: str) -> None:
    without_guards(shard_path(log, 1), damage)
    with pytest.raises(CorruptLogError, match="shard 1"):
        back_up(log, tmp_path / "backup")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_a_missing_shard_and_a_missing_log_are_named(log: Path, tmp_path: Path) -> None:
    shard_path(log, 1).unlink()
    with pytest.raises(CorruptLogError, match=r"shard-1\.db is missing"):
        back_up(log, tmp_path / "backup")
    with pytest.raises(ConfigurationError, match="no log"):
        back_up(tmp_path / "none", tmp_path / "backup")
    with pytest.raises(ConfigurationError, match="no backup"):
        log_of(tmp_path)


async def test_the_cut_is_one_instant_although_the_owners_write(log: Path) -> None:
    """What is committed after the cut is not in it, in any shard."""
    opened = [await SqliteShard.open(log, shard) for shard in range(SHARDS)]
    for store in opened:
        await store.take("w")
    with cut(log) as now:
        assert now.exact
        for store, stream in zip(opened, STREAMS, strict=True):
            await store.append([group(stream, 5, deposited())])
        ends = [each.connection.execute("SELECT max(position) FROM events").fetchall()[0][0] for each in now.shards]
    assert ends == [5, 5]
    for store in opened:
        await store.close()
