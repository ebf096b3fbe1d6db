"""The write-ahead log is made longer before it is needed, and what is put there is nothing to anybody (S27, S28)."""

import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from events.envelope import NewEvent
from events.errors import SupersededError
from events.ids import StreamId, Version
from events.keeping.verify import verify
from events.log_directory import create_log, shard_path
from events.sqlite import wal_room
from events.sqlite.sqlite_library import open_reader, open_writer
from events.sqlite.threaded_sqlite import ThreadedShard
from events.store import Append, Committed

A = StreamId("thing/a")
COMMITS = 400


@pytest.fixture
def log(tmp_path: Path) -> Path:
    create_log(tmp_path / "log", 1)
    return tmp_path / "log"


@pytest.fixture
def shard(log: Path) -> Iterator[ThreadedShard]:
    opened = ThreadedShard.open(log, 0, worker="test")
    yield opened
    opened.close()


def wal_of(log: Path) -> Path:
    return Path(f"{shard_path(log, 0)}-wal")


def commit(shard: ThreadedShard, first: int, count: int, then: Callable[[], None] = lambda: None) -> None:
    """So many commits of one event."""
    for version in range(first, first + count):
        event = NewEvent(type="said", payload=b'"%04d"' % version)
        group = Append(stream=A, expected_version=Version(version), command_id=None, events=[event])
        assert isinstance(shard.submit(group).result(), Committed)
        then()


def payloads(path: Path) -> list[str]:
    connection = open_reader(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [row[0] for row in connection.execute("SELECT payload FROM events ORDER BY position").fetchall()]
    finally:
        connection.close()


def test_few_commits_make_the_file_longer(shard: ThreadedShard, log: Path) -> None:
    sizes: list[int] = []
    commit(shard, 0, COMMITS, lambda: sizes.append(wal_of(log).stat().st_size))
    # The first ones find no room; afterwards it is there before they come.
    longer = sum(one < other for one, other in pairwise(sizes[20:]))
    assert 0 < longer <= COMMITS // 20
    assert wal_of(log).read_bytes()[-100_000:].count(0) == 100_000


def test_s28_a_log_with_room_ahead_is_read_whole_after_a_crash_and_goes_on(shard: ThreadedShard, log: Path, tmp_path: Path) -> None:
    """Without the shared index, as after a power cut: what the file holds is all that is known."""
    expected: list[str] = []
    for round_ in range(5):
        commit(shard, round_ * 37, 37)
        expected += [f'"{version:04d}"' for version in range(round_ * 37, round_ * 37 + 37)]
        copy = tmp_path / f"copy{round_}"
        shutil.copytree(log, copy, ignore=shutil.ignore_patterns("*-shm"))
        assert payloads(shard_path(copy, 0)) == expected
        crashed = ThreadedShard.open(copy, 0, worker="next")
        commit(crashed, len(expected), 60)
        crashed.close()
        assert verify(copy) == []
        assert len(payloads(shard_path(copy, 0))) == len(expected) + 60


def test_a_log_that_was_begun_anew_has_room(shard: ThreadedShard, log: Path) -> None:
    """What was written before the checkpoint is there still, and is no sign that the end is near."""
    commit(shard, 0, COMMITS)
    before = wal_of(log).stat().st_size
    shard.write(lambda _, connection: connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()).result()
    commit(shard, COMMITS, 100)
    assert wal_of(log).stat().st_size == before
    shard.write(lambda _, connection: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()).result()
    commit(shard, COMMITS + 100, COMMITS)
    assert wal_of(log).stat().st_size >= before // 2
    assert verify(log) == []


@pytest.mark.parametrize(("name", "value"), [("AUTOCHECKPOINT_PAGES", 100), ("FREE_BYTES_MIN", 1 << 62)])
def test_no_more_room_than_is_of_use(shard: ThreadedShard, log: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: int) -> None:
    """SQLite begins anew there, or the disk is nearly full."""
    monkeypatch.setattr(wal_room, name, value)
    commit(shard, 0, COMMITS)
    frame = 4_096 + 24
    assert any(wal_of(log).read_bytes()[-frame:]), "it ends with a frame that SQLite wrote"


def test_s3_the_log_of_another_file_under_the_path_is_left_alone(shard: ThreadedShard, log: Path, tmp_path: Path) -> None:
    commit(shard, 0, 7)
    create_log(tmp_path / "other", 1)
    other = open_writer(shard_path(tmp_path / "other", 0), "disk")
    other.execute("CREATE TABLE IF NOT EXISTS of_another (number INTEGER)")
    for end in ("", "-wal", "-shm"):
        Path(f"{shard_path(tmp_path / 'other', 0)}{end}").replace(f"{shard_path(log, 0)}{end}")
    before = wal_of(log).read_bytes()
    assert before
    event = NewEvent(type="said", payload=b"1")
    submitted = shard.submit(Append(stream=A, expected_version=Version(7), command_id=None, events=[event]))
    with pytest.raises(SupersededError, match="replaced"):
        submitted.result()
    assert wal_of(log).read_bytes() == before
    other.close()
