"""`restore`: the backup's log in place of the other, under a new incarnation and far higher epochs (S3, I-21, F-19)."""

import asyncio
from pathlib import Path

import pytest

from events.errors import ConfigurationError, CorruptLogError, SupersededError
from events.keeping.backup import back_up
from events.keeping.restore import EPOCHS_AHEAD, restore, shards_to_lock
from events.keeping.verify import verify
from events.log_directory import anchor_path, create_log, read_identity, shard_path
from events.sqlite.anchor import read_anchor
from events.sqlite.store_sqlite import SqliteShard
from events.store import Committed
from tests.support.logs import append_one, deposited, stream_in, without_guards

SHARDS = 2
STREAMS = [stream_in(shard, SHARDS, "s") for shard in range(SHARDS)]


async def append(directory: Path, version: int, count: int = 1) -> list[SqliteShard]:
    """Owners that have appended to each shard, still open."""
    stores = [await SqliteShard.open(directory, shard) for shard in range(SHARDS)]
    for store, stream in zip(stores, STREAMS, strict=True):
        await store.take("w")
        await append_one(store, stream, version, *(deposited(n) for n in range(count)))
    return stores


def anchored_epochs(directory: Path) -> list[int]:
    anchors = [read_anchor(anchor_path(directory, shard)) for shard in range(SHARDS)]
    return [anchor.epoch for anchor in anchors if anchor is not None]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log with 5 events per shard, backed up, then 3 more."""
    directory = tmp_path / "data" / "log"
    create_log(directory, SHARDS)

    async def make() -> None:
        for store in await append(directory, 0, 5):
            await store.close()
        back_up(directory, tmp_path / "backup")
        for store in await append(directory, 5, 3):
            await store.close()

    asyncio.run(make())
    return directory


def test_the_log_is_that_of_the_backup_with_a_new_incarnation_and_higher_epochs(log: Path, tmp_path: Path) -> None:
    before = read_identity(log)
    epochs = anchored_epochs(log)
    done = restore(tmp_path / "backup", log)
    after = read_identity(log)
    assert after.incarnation == done.incarnation != before.incarnation
    assert (after.shards, after.created) == (before.shards, before.created)
    assert done.positions == [5, 5]
    assert done.epochs == [epoch + EPOCHS_AHEAD for epoch in epochs]
    assert anchored_epochs(log) == done.epochs
    assert verify(log) == []


async def test_the_head_hashes_are_those_of_the_source_at_that_position(log: Path, tmp_path: Path) -> None:
    """I-21, and work goes on from there without a warning."""
    source = [await SqliteShard.open(log, shard) for shard in range(SHARDS)]
    hashes = [(await store.load(stream, ""))[1][4].hash for store, stream in zip(source, STREAMS, strict=True)]
    for store in source:
        await store.close()
    restore(tmp_path / "backup", log)
    for store, stream, hash_ in zip(await append(log, 5), STREAMS, hashes, strict=True):
        assert (await store.load(stream, ""))[1][4].hash == hash_
        assert (await store.info()).warnings == ()
        await store.close()


async def test_an_owner_of_the_former_log_is_fenced(log: Path, tmp_path: Path) -> None:
    """It did not run, says the caller's lock; if it runs nevertheless, its append reaches nobody and says so."""
    stores = await append(log, 8)
    restore(tmp_path / "backup", log)
    with pytest.raises(SupersededError, match="replaced"):
        await append_one(stores[0], STREAMS[0], 9, deposited())
    for store in stores:
        await store.close()
    assert verify(log) == []


async def test_the_replaced_files_are_kept_as_a_log_that_opens(log: Path, tmp_path: Path) -> None:
    before = read_identity(log)
    done = restore(tmp_path / "backup", log)
    assert done.replaced is not None
    kept = Path(done.replaced)
    assert read_identity(kept) == before
    assert verify(kept) == []
    store = await SqliteShard.open(kept, 0)
    head = await store.head(STREAMS[0])
    assert head is not None
    assert head.version == 8
    await store.close()


def test_a_destroyed_log_and_an_empty_folder_take_a_backup_too(log: Path, tmp_path: Path) -> None:
    shard_path(log, 0).write_bytes(b"rubbish" * 1_000)
    anchor_path(log, 1).unlink()
    done = restore(tmp_path / "backup", log)
    assert verify(log) == []
    assert done.replaced is not None
    assert shard_path(Path(done.replaced), 0).read_bytes().startswith(b"rubbish")
    done = restore(tmp_path / "backup", tmp_path / "empty" / "log")
    assert done.replaced is None
    assert verify(tmp_path / "empty" / "log") == []


def test_a_backup_with_another_number_of_shards_leaves_none_of_the_old(log: Path, tmp_path: Path) -> None:
    create_log(tmp_path / "small" / "log", 1)
    assert shards_to_lock(tmp_path / "small", log) == SHARDS
    restore(tmp_path / "small", log)
    assert sorted(path.name for path in log.glob("shard-*.db")) == ["shard-0.db"]
    assert verify(log) == []
    restore(tmp_path / "backup", log)
    assert verify(log) == []


def test_a_damaged_backup_changes_nothing(log: Path, tmp_path: Path) -> None:
    before = read_identity(log)
    without_guards(shard_path(tmp_path / "backup" / "log", 1), "UPDATE events SET payload = '{}' WHERE position = 2")
    with pytest.raises(CorruptLogError, match="shard 1"):
        restore(tmp_path / "backup", log)
    assert read_identity(log) == before
    assert verify(log) == []
    assert not list(log.glob("re*"))


def test_what_is_no_backup_is_refused(log: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no backup"):
        restore(tmp_path, log)
    with pytest.raises(ConfigurationError, match="itself"):
        restore(log.parent, log)


async def test_events_after_a_restore_have_the_epoch_of_their_owner(log: Path, tmp_path: Path) -> None:
    done = restore(tmp_path / "backup", log)
    stores = await append(log, 5)
    for shard, store in enumerate(stores):
        outcome = await append_one(store, STREAMS[shard], 6, deposited())
        assert isinstance(outcome, Committed)
        assert outcome.events[0].owner_epoch == done.epochs[shard] + 1
        await store.close()
