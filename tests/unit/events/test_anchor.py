"""The anchor survives a torn write and never prefers what a superseded owner wrote (S28)."""

from pathlib import Path

import pytest

from events.sqlite.anchor import SLOT_BYTES, AnchorFile, read_anchor

INCARNATION = "0a" * 16


def write(file: AnchorFile, position: int, epoch: int = 1) -> None:
    file.write(
        epoch=epoch, token=bytes(16), incarnation=INCARNATION, position=position, eventless=0, rolling_hash=bytes(32), event_hash=bytes(32),
        identity=(1, 2),
    )  # fmt: skip


def test_the_newest_write_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "anchor"
    assert read_anchor(path) is None
    file = AnchorFile(path)
    assert read_anchor(path) is None
    for position in (1, 2, 3):
        write(file, position)
        newest = read_anchor(path)
        assert newest is not None
        assert newest.position == position
    file.close()


@pytest.mark.parametrize("writes", [1, 2, 3, 4])
@pytest.mark.parametrize("kept", [0, 1, 60, 151, 167])
def test_a_torn_write_costs_at_most_the_commit_it_was_for(tmp_path: Path, writes: int, kept: int) -> None:
    """F-18: only the first bytes of the newest slot reached the disk, the rest is the slot's older content."""
    path = tmp_path / "anchor"
    file = AnchorFile(path)
    contents = [b""]
    for position in range(1, writes + 1):
        write(file, position)
        contents.append(path.read_bytes().ljust(2 * SLOT_BYTES, b"\0"))
    file.close()
    start = (writes % 2) * SLOT_BYTES
    before = contents[-2].ljust(2 * SLOT_BYTES, b"\0")
    torn = bytearray(before)
    torn[start : start + kept] = contents[-1][start : start + kept]
    path.write_bytes(torn)
    found = read_anchor(path)
    assert (found.position if found is not None else 0) == writes - 1


def test_a_reopened_anchor_goes_on_with_its_sequence(tmp_path: Path) -> None:
    path = tmp_path / "anchor"
    for position in range(1, 6):
        file = AnchorFile(path)
        write(file, position)
        file.close()
        newest = read_anchor(path)
        assert newest is not None
        assert (newest.position, newest.sequence) == (position, position)


def test_a_superseded_owner_cannot_make_its_slot_look_newer(tmp_path: Path) -> None:
    """F-7: both have the file open; the old one wakes and writes more often than the new one."""
    path = tmp_path / "anchor"
    old = AnchorFile(path)
    for position in range(1, 4):
        write(old, position, epoch=1)
    new = AnchorFile(path)
    write(new, 10, epoch=2)
    write(old, 4, epoch=1)
    write(new, 11, epoch=2)
    newest = read_anchor(path)
    assert newest is not None
    assert (newest.epoch, newest.position) == (2, 11)
    old.close()
    new.close()


def test_a_file_of_noise_is_no_anchor(tmp_path: Path) -> None:
    path = tmp_path / "anchor"
    path.write_bytes(bytes(range(256)) * 32)
    assert read_anchor(path) is None
    path.write_bytes(b"short")
    assert read_anchor(path) is None


def test_it_is_synced_at_most_once_a_second_and_only_when_dirty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S28: a fdatasync per commit cost 37 %."""
    synced: list[int] = []
    monkeypatch.setattr("events.sqlite.anchor._datasync", synced.append)
    file = AnchorFile(tmp_path / "anchor")
    file.sync_if_due(0.0)
    assert len(synced) == 0
    for now in (1.0, 1.1, 1.9, 2.0, 2.5, 3.2):
        write(file, 1)
        file.sync_if_due(now)
    assert len(synced) == 3
    file.sync(3.3)
    file.sync(3.4)
    assert len(synced) == 3
    file.close()
    file.close()
    assert len(synced) == 3
