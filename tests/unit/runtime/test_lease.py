"""Lock files, their records, heartbeats, and what may be killed (S1, S2, S6). Processes: tests/fault/test_ownership_processes.py."""

import errno
import fcntl
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.clock import SystemClock
from events.errors import ConfigurationError, TransientError
from events.limits import LOOP_BLOCKED_S, STALL_AFTER_S
from runtime.ownership import lease as lease_module
from runtime.ownership.heartbeat import Heartbeat
from runtime.ownership.lease import (
    RECORD_BYTES,
    Lease,
    Record,
    heartbeat_age,
    is_free,
    kill_stalled,
    own_record,
    process_started,
    read_floor,
    read_record,
    remove_if_free,
)
from runtime.ownership.local_disk import check_local_filesystem


class Time:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now

    def wall_us(self) -> int:
        return int(self.now * 1e6)


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shard-0.lock"


def acquired(path: Path, clock: Time) -> Lease:
    lease = Lease.try_acquire(path, own_record("w", "owner"), clock)
    assert lease is not None
    return lease


def age_of(path: Path, clock: Time) -> float:
    record = read_record(path)
    assert record is not None
    return heartbeat_age(record, clock)


def test_one_lease_excludes_another_until_it_is_released(path: Path, clock: Time) -> None:
    """S1."""
    assert is_free(path)
    lease = acquired(path, clock)
    assert not is_free(path)
    assert Lease.try_acquire(path, own_record("other", "owner"), clock) is None
    lease.release()
    lease.release()
    assert not lease.is_held
    assert is_free(path)
    assert path.exists()
    acquired(path, clock).release()


def test_the_record_says_who_holds_the_file(path: Path, clock: Time) -> None:
    lease = acquired(path, clock)
    lease.update(epoch=7, purpose="takeover")
    record = read_record(path)
    assert record == lease.record
    assert record is not None
    assert (record.worker, record.pid, record.epoch, record.purpose) == ("w", os.getpid(), 7, "takeover")
    assert record.started == process_started(os.getpid())
    assert path.read_bytes()[:1] == b"{"
    assert path.stat().st_size == RECORD_BYTES + 8
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_released_file_names_nobody(path: Path, clock: Time) -> None:
    """Else its former holder could be killed in the place of the next one."""
    acquired(path, clock).release()
    assert read_record(path) is None


def test_looking_takes_nothing(path: Path, clock: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that is stopped half-way must not keep the file locked."""
    acquired(path, clock).release()
    monkeypatch.setattr(fcntl, "flock", lambda *_: pytest.fail("a look took the lock"))
    assert is_free(path)


@pytest.mark.parametrize("held", [False, True])
def test_looking_works_without_locks_that_can_be_asked(path: Path, clock: Time, monkeypatch: pytest.MonkeyPatch, held: bool) -> None:
    """As on macOS, or in a sandbox whose kernel lacks them."""
    monkeypatch.setattr(lease_module, "_HAS_OFD_LOCKS", False)
    lease = acquired(path, clock)
    if not held:
        lease.release()
    assert is_free(path) is not held
    lease.release()


@given(st.binary(max_size=700))
def test_any_content_reads_as_a_record_or_none(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("garbage") / "lock"
    path.write_bytes(content)
    assert read_record(path) is None
    lease = Lease.try_acquire(path, own_record("w", "owner"))
    assert lease is not None
    assert read_record(path) == lease.record
    lease.release()


def test_a_missing_or_cut_file_is_no_error(path: Path, clock: Time) -> None:
    assert read_record(path) is None
    lease = acquired(path, clock)
    os.truncate(path, RECORD_BYTES + 3)
    record = read_record(path)
    assert record is not None
    assert record.beat_ns == 0
    lease.release()


def test_a_heartbeat_is_as_old_as_the_clock_says(path: Path, clock: Time) -> None:
    lease = acquired(path, clock)
    clock.now += 3
    assert age_of(path, clock) == pytest.approx(3)
    lease.beat()
    assert age_of(path, clock) == 0
    clock.now -= 1
    assert age_of(path, clock) == 0
    lease.release()


def test_s30_the_floor_stands_beside_the_heartbeat_and_outlives_its_holder(path: Path, clock: Time) -> None:
    lease = acquired(path, clock)
    assert lease.record.floor == read_floor(path) == 0
    lease.note_floor(1_700)
    clock.now += 1
    lease.beat()
    lease.update(epoch=3)
    record = read_record(path)
    assert record == lease.record
    assert record is not None
    assert (record.floor, record.epoch, record.beat_ns) == (1_700, 3, int(clock.now * 1e9))
    lease.release()
    lease.note_floor(2_000)
    assert (read_record(path), read_floor(path)) == (None, 1_700)
    again = acquired(path, clock)
    assert again.record.floor == 1_700
    again.release()


def test_s30_a_lock_file_without_a_floor_reads_as_0(path: Path, clock: Time) -> None:
    """As earlier versions wrote it."""
    lease = acquired(path, clock)
    lease.note_floor(5)
    os.truncate(path, RECORD_BYTES + 8)
    record = read_record(path)
    assert record is not None
    assert (record.floor, record.beat_ns, read_floor(path)) == (0, int(clock.now * 1e9), 0)
    lease.release()
    assert read_floor(path.with_name("none")) == 0


def test_a_released_lease_writes_nowhere(path: Path, clock: Time) -> None:
    """Its descriptor may be another file's by now: a log's."""
    lease = acquired(path, clock)
    number = lease._descriptor
    assert number is not None
    lease.release()
    victim = os.open(path.with_name("victim"), os.O_RDWR | os.O_CREAT)
    assert victim == number
    lease.beat()
    lease.update(epoch=1)
    assert os.fstat(victim).st_size == 0
    os.close(victim)


def test_a_holder_is_in_doubt_exactly_while_others_may_think_it_stalled(path: Path, clock: Time) -> None:
    """S1, S3: the doubt rises before the first beat after a stop, outlives it, and ends only when settled."""
    lease = acquired(path, clock)
    found = []
    for passed_s in (STALL_AFTER_S, 0.1):
        clock.now += passed_s
        found.append(lease.in_doubt)
    lease.beat()
    found.append(lease.in_doubt)
    lease.settle()
    found.append(lease.in_doubt)
    assert found == [False, True, True, False]
    lease.release()


def test_a_full_disk_makes_a_take_fail_and_leaves_the_file_free(path: Path, clock: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(TransientError, match="No space left"):
            acquired(path, clock)
    assert is_free(path)
    lease = acquired(path, clock)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        lease.update(epoch=3)
    record = read_record(path)
    assert record is not None
    assert record.epoch == 0
    lease.beat()
    record = read_record(path)
    assert record is not None
    assert record.epoch == 3
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        lease.release()
    assert is_free(path)


def test_a_folder_that_is_missing_is_transient(tmp_path: Path, clock: Time) -> None:
    with pytest.raises(TransientError, match="No such file"):
        acquired(tmp_path / "missing" / "lock", clock)


def test_only_a_free_file_is_removed(path: Path, clock: Time) -> None:
    assert not remove_if_free(path)
    lease = acquired(path, clock)
    assert not remove_if_free(path)
    lease.release()
    assert remove_if_free(path)
    assert not path.exists()
    acquired(path, clock).release(remove=True)
    assert not path.exists()


def test_a_file_unlinked_between_open_and_lock_is_opened_anew(path: Path, clock: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else two processes would each hold "the" lock: one of the path, one of a file that nobody can find."""
    lock = fcntl.flock
    removed: list[Path] = []

    def unlink_then_lock(descriptor: int, kind: int) -> None:
        if not removed:
            path.unlink()
            removed.append(path)
        lock(descriptor, kind)

    monkeypatch.setattr(fcntl, "flock", unlink_then_lock)
    lease = acquired(path, clock)
    assert lease.is_in_place()
    assert not is_free(path)
    path.unlink()
    assert not lease.is_in_place()
    lease.release(remove=True)


def test_a_worker_id_must_be_a_token() -> None:
    with pytest.raises(ConfigurationError, match="not a worker id"):
        own_record("../shard-0", "worker")


def test_the_longest_record_fits(path: Path) -> None:
    record = Record(
        worker="w" * 64,
        pid=2**22,
        started=2**63,
        boot="b" * 36,
        pid_namespace=2**32,
        purpose="takeover",
        epoch=2**63,
    )
    lease = Lease.try_acquire(path, record)
    assert lease is not None
    lease.release()


def test_this_process_never_kills_itself() -> None:
    assert not kill_stalled(own_record("w", "owner"))


def test_start_times_of_no_process_are_none() -> None:
    assert process_started(2**22 + 1) is None


def test_heartbeats_go_on_while_the_loop_turns(path: Path, clock: Time) -> None:
    """S1: the loop may be busy for up to 15 s."""
    heartbeat = Heartbeat(clock=clock)
    lease = acquired(path, clock)
    heartbeat.add(lease)
    clock.now += LOOP_BLOCKED_S
    assert heartbeat.beat()
    assert age_of(path, clock) == 0
    clock.now += 0.1
    assert not heartbeat.beat()
    assert age_of(path, clock) == pytest.approx(0.1)
    heartbeat.loop_turned()
    assert heartbeat.beat()
    assert age_of(path, clock) == 0
    heartbeat.remove(lease)
    clock.now += 1
    heartbeat.beat()
    assert age_of(path, clock) == 1
    found = heartbeat.statistics()
    assert (found.leases, found.rounds, found.held_back, found.errors) == (0, 4, 1, 0)
    lease.release()


def test_one_file_that_cannot_be_written_does_not_stop_the_others(tmp_path: Path, clock: Time) -> None:
    heartbeat = Heartbeat(clock=clock)
    good, bad = acquired(tmp_path / "good", clock), acquired(tmp_path / "bad", clock)
    number = bad._descriptor
    assert number is not None
    read_only = os.open(bad.path, os.O_RDONLY)
    os.dup2(read_only, number)
    os.close(read_only)
    heartbeat.add(bad)
    heartbeat.add(good)
    clock.now += 2
    assert heartbeat.beat()
    assert age_of(good.path, clock) == 0
    assert age_of(bad.path, clock) == 2
    assert heartbeat.statistics().errors == 1
    clock.now += STALL_AFTER_S
    heartbeat.beat()
    assert bad.in_doubt
    good.release()
    bad.release()


def test_the_thread_outlives_any_error(monkeypatch: pytest.MonkeyPatch) -> None:
    heartbeat = Heartbeat(every_s=0.001)
    calls = threading.Semaphore(0)

    def fail() -> bool:
        calls.release()
        raise RuntimeError("no error may end the thread")

    monkeypatch.setattr(heartbeat, "beat", fail)
    heartbeat.start()
    assert calls.acquire(timeout=10)
    assert calls.acquire(timeout=10)
    heartbeat.stop()
    heartbeat.stop()
    assert "heartbeat" not in {thread.name for thread in threading.enumerate()}


def test_leases_come_and_go_while_the_thread_beats(tmp_path: Path) -> None:
    """No beat lands in a file that was closed: every record stays readable, every release blank."""
    clock = SystemClock()
    heartbeat = Heartbeat(clock=clock, every_s=0.0001)
    heartbeat.start()
    try:
        for n in range(300):
            lease = Lease.try_acquire(tmp_path / f"{n % 7}", own_record("w", "owner"), clock)
            assert lease is not None
            heartbeat.add(lease)
            assert read_record(lease.path) is not None
            heartbeat.remove(lease)
            lease.release()
            assert read_record(lease.path) is None
    finally:
        heartbeat.stop()
    assert heartbeat.statistics().errors == 0


MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 27 0:40 / /srv rw shared:1 master:2 - nfs4 server:/export rw
31 30 0:41 / /srv/local rw - xfs /dev/vdb rw
32 27 0:42 / /mnt/two\\040words rw - fuse.sshfs me@host: rw
33 27 0:43 / /mnt/over rw - cifs //server/share rw
34 27 0:44 / /mnt/over rw - tmpfs tmpfs rw
35 27 0:45 / /mnt/c rw - 9p C:\\134 rw
"""


@pytest.mark.parametrize(
    ("folder", "filesystem"),
    [
        ("/home/me/data", None),
        ("/srv/data", "nfs4"),
        ("/srv", "nfs4"),
        ("/srvdata", None),
        ("/srv/local/data", None),
        ("/mnt/two words/data", "fuse.sshfs"),
        ("/mnt/over/data", None),
        ("/mnt/c/Users/me", "9p"),
    ],
)
def test_network_file_systems_are_refused(tmp_path: Path, folder: str, filesystem: str | None) -> None:
    """S6."""
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(MOUNTS)
    if filesystem is None:
        check_local_filesystem(Path(folder), mountinfo)
        return
    with pytest.raises(ConfigurationError, match="--data DIR") as refused:
        check_local_filesystem(Path(folder), mountinfo)
    assert refused.value.fields["filesystem"] == filesystem


def test_this_folder_is_local(tmp_path: Path) -> None:
    check_local_filesystem(tmp_path / "not" / "yet")
    check_local_filesystem(tmp_path, tmp_path / "no-mountinfo-here")
