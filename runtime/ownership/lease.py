"""Who is alive, told by the operating system: lock files that die with their process, and a heartbeat inside them (S1, S2).

A lock file is ``DATA/log/shard-<n>.lock`` or ``.take`` (ownership: `runtime.ownership.placement`), or
``DATA/workers/<worker>.lock`` (presence).
It holds one record of fixed size as JSON, padded with blanks, then at a fixed offset the last heartbeat: CLOCK_MONOTONIC in nanoseconds,
8 bytes, aligned so that a reader never sees half of it. That clock is one for the whole host and does not follow steps of the wall clock.
The next 8 bytes are the floor: the logical time at or below which the owner records nothing more (S30). It outlives its holder, whose
successor keeps the promise; a file without these bytes has the floor 0.
Nothing is synced: after a power loss there is no holder anyway.

A lock only says who *should* work. Who may write is decided by the epoch inside the append transaction (S3): a lease, however fresh,
cannot exclude a process that was stopped right after it looked (M. Kleppmann, "How to do distributed locking", 2016; Jepsen, etcd 3.4.3).

Looking must not disturb: a look that takes the lock, even shared and for a microsecond, makes a take at that moment fail, and if its
process is stopped just then, keeps the file locked by somebody who never meant to own it. So a holder also sets an OFD lock on the file,
which anybody can ask about without taking anything (fcntl(2), F_OFD_GETLK). Where there is none (macOS) the look is a shared flock.

This module knows nothing of shards, logs or event loops.
"""

import contextlib
import errno
import fcntl
import os
import signal
import struct
import sys
import threading
from pathlib import Path
from typing import Final

import msgspec

from events.clock import Clock, SystemClock
from events.errors import ConfigurationError, InvariantError, TransientError
from events.ids import is_token
from events.limits import STALL_AFTER_S

RECORD_BYTES: Final = 512
_BEAT: Final = struct.Struct("<Q")
_FLOOR: Final = struct.Struct("<Q")
_FLOOR_AT: Final = RECORD_BYTES + _BEAT.size
_FILE_BYTES: Final = _FLOOR_AT + _FLOOR.size
# How often a take starts anew because the file was unlinked under it.
_UNLINKED_RETRIES: Final = 16
# struct flock of 64-bit Linux: type, whence, start, length (0 = to the end), pid (must be 0 for OFD locks).
_FLOCK: Final = struct.Struct("hhqqi4x")
_HAS_OFD_LOCKS: Final = sys.platform == "linux" and struct.calcsize("P") == 8


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a holder says of itself.

    started: start of the process in clock ticks after boot (proc(5), /proc/pid/stat field 22); with boot and pid namespace it tells
    the process from any other that has, had or will have the same pid. epoch: that of the shard as this holder took it, 0 until it has.
    beat_ns, floor: the last heartbeat and the floor, filled in by `read_record`; not part of the JSON.
    """

    worker: str
    pid: int
    started: int
    boot: str
    pid_namespace: int
    purpose: str
    epoch: int = 0
    beat_ns: int = 0
    floor: int = 0


def own_record(worker: str, purpose: str) -> Record:
    """The record of this process.

    Raises:
        ConfigurationError: `worker` cannot be a file name and a subject token.
    """
    if not is_token(worker):
        raise ConfigurationError(f"{worker!r} is not a worker id: 1 to 64 letters, digits, '_' or '-'", worker=worker)
    pid = os.getpid()
    return Record(
        worker=worker,
        pid=pid,
        started=process_started(pid) or 0,
        boot=_boot_id(),
        pid_namespace=_pid_namespace(),
        purpose=purpose,
    )


def now_ns(clock: Clock) -> int:
    """`clock.monotonic` as the unit of the heartbeat."""
    return int(clock.monotonic() * 1e9)


class Lease:
    """One lock file held by this process until `release` or its death. Safe to use from two threads: the loop's and the heartbeat's.

    A child made by fork without exec would share the lock and keep it after our death; ours are exec'd, which closes it.
    """

    def __init__(self, path: Path, descriptor: int, record: Record, clock: Clock) -> None:
        """Only through `try_acquire`."""
        self.path = path
        self._clock = clock
        # Guards the descriptor: a heartbeat written after `close` could land in whatever file has got its number since.
        self._guard = threading.Lock()
        self._descriptor: int | None = descriptor
        self._record = record
        self._unwritten = False
        # What others can see of us. Never later than what is in the file.
        self._beat_ns = record.beat_ns
        self._floor = record.floor
        self._doubted = False

    @classmethod
    def try_acquire(cls, path: Path, record: Record, clock: Clock | None = None) -> "Lease | None":
        """Take the lock of `path` if it is free, and write `record` and a first heartbeat; the file is made if missing.

        The floor in it stays, unless `record` has one.

        Returns:
            None if another process, or another `Lease` of this one, holds it.

        Raises:
            TransientError: the file cannot be opened or written (disk full, permissions). The lock is not held then.
        """
        clock = clock or SystemClock()
        try:
            descriptor = _open_locked(path)
            if descriptor is None:
                return None
            try:
                _set_mark(descriptor, fcntl.F_WRLCK)
                content = _BEAT.pack(now_ns(clock))
                if record.floor:
                    content += _FLOOR.pack(record.floor)
                _write(descriptor, _encode(record) + content, 0)
                record = msgspec.structs.replace(record, beat_ns=_BEAT.unpack_from(content)[0], floor=_floor_of(descriptor))
            except BaseException:
                _unlock(descriptor)
                raise
        except OSError as error:
            raise TransientError(f"{path} cannot be locked: {error.strerror}", path=str(path)) from error
        return cls(path, descriptor, record, clock)

    @property
    def record(self) -> Record:
        """What this holder says of itself, with the last heartbeat and floor that were written."""
        return msgspec.structs.replace(self._record, beat_ns=self._beat_ns, floor=self._floor)

    @property
    def is_held(self) -> bool:
        """False once released."""
        return self._descriptor is not None

    @property
    def in_doubt(self) -> bool:
        """Whether others may have judged this holder stalled: there was, or is, no heartbeat of ours for `STALL_AFTER_S`.

        True as soon as the process runs again after a stop, and until `settle`. While False nobody can have taken over, because
        they judge by the same clock, the same bound, and a heartbeat that is never later than the one we go by.
        """
        return self._doubted or self._is_overdue(now_ns(self._clock))

    def settle(self) -> None:
        """The doubt is resolved: the epoch in the shard's file is still ours. Beat first, or it rises again at once."""
        self._doubted = False

    def beat(self) -> None:
        """Write a heartbeat of now; nothing if released.

        Raises:
            OSError: not written; others see the old one, and `in_doubt` goes by it.
        """
        with self._guard:
            if self._descriptor is None:
                return
            now = now_ns(self._clock)
            if self._is_overdue(now):
                self._doubted = True
            if self._unwritten:
                self._write_record(self._descriptor)
            _write(self._descriptor, _BEAT.pack(now), RECORD_BYTES)
            self._beat_ns = now

    def update(self, *, epoch: int | None = None, purpose: str | None = None) -> None:
        """Change what the record says. If the disk refuses, the next heartbeat writes it."""
        with self._guard:
            self._record = msgspec.structs.replace(
                self._record,
                epoch=self._record.epoch if epoch is None else epoch,
                purpose=self._record.purpose if purpose is None else purpose,
            )
            self._unwritten = True
            if self._descriptor is not None:
                with contextlib.suppress(OSError):
                    self._write_record(self._descriptor)

    def note_floor(self, floor: int) -> None:
        """Tell readers that nothing more is recorded at or below the logical time `floor` (S30); they go on by the old one if the disk
        refuses. Nothing if released."""
        with self._guard:
            if self._descriptor is not None and floor != self._floor:
                with contextlib.suppress(OSError):
                    _write(self._descriptor, _FLOOR.pack(floor), _FLOOR_AT)
                    self._floor = floor

    def is_in_place(self) -> bool:
        """False if the path no longer leads to the file that we locked: somebody removed or replaced it, and may hold another."""
        with self._guard:
            return self._descriptor is not None and _is_same_file(self._descriptor, self.path)

    def release(self, *, remove: bool = False) -> None:
        """Let go; idempotent. The file stays, its record blank, unless `remove` (presence files only).

        Blank, because the next holder may be stopped before it has written its own: nobody must then take us for it, and kill us.
        """
        with self._guard:
            descriptor, self._descriptor = self._descriptor, None
            if descriptor is None:
                return
            try:
                with contextlib.suppress(OSError):
                    _write(descriptor, _blank(), 0)
                if remove and _is_same_file(descriptor, self.path):
                    self.path.unlink(missing_ok=True)
            finally:
                _unlock(descriptor)

    def _is_overdue(self, now: int) -> bool:
        return now - self._beat_ns > STALL_AFTER_S * 1e9

    def _write_record(self, descriptor: int) -> None:
        _write(descriptor, _encode(self._record), 0)
        self._unwritten = False


def is_free(path: Path) -> bool:
    """Whether nobody holds `path`. A fact of the moment: only `Lease.try_acquire` decides.

    Raises:
        TransientError: the file cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError as error:
        raise TransientError(f"{path} cannot be opened: {error.strerror}", path=str(path)) from error
    try:
        marked = _is_marked(descriptor)
        return _try_flock(descriptor, fcntl.LOCK_SH) if marked is None else not marked
    finally:
        os.close(descriptor)


def read_record(path: Path) -> Record | None:
    """What the last holder of `path` wrote, held or not; None if there is no such file, or it is blank or holds anything else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        content = os.pread(descriptor, _FILE_BYTES, 0)
        record = msgspec.json.decode(content[:RECORD_BYTES], type=Record)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    finally:
        os.close(descriptor)
    beat = _BEAT.unpack_from(content, RECORD_BYTES)[0] if len(content) >= _FLOOR_AT else 0
    floor = _FLOOR.unpack_from(content, _FLOOR_AT)[0] if len(content) == _FILE_BYTES else 0
    return msgspec.structs.replace(record, beat_ns=beat, floor=floor)


def read_floor(path: Path) -> int:
    """The floor that the last holder of `path` wrote, also where its record is blank; 0 if there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        return _floor_of(descriptor)
    except OSError:
        return 0
    finally:
        os.close(descriptor)


def heartbeat_age(record: Record, clock: Clock | None = None) -> float:
    """Seconds since the last heartbeat of `record`; 0 if that lies ahead (written after the clock was read)."""
    return max(0, now_ns(clock or SystemClock()) - record.beat_ns) / 1e9


def remove_if_free(path: Path) -> bool:
    """Unlink a lock file that nobody holds, under its lock; whether it was unlinked.

    Who opened it before and locks it after finds that the path leads elsewhere, and starts anew (`_open_locked`).
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if not _try_flock(descriptor, fcntl.LOCK_EX) or not _is_same_file(descriptor, path):
            return False
        path.unlink(missing_ok=True)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def kill_stalled(record: Record) -> bool:
    """SIGKILL the process that wrote `record`, and never any other (S2).

    Returns:
        True if the signal was delivered; the process may take a moment to be gone, longer if it hangs in the kernel. False if it is gone
        already, is this process, lives in another pid namespace (a container), or may not be signalled, and where there are no pidfds.
    """
    if record.pid == os.getpid() or record.boot != _boot_id() or record.pid_namespace != _pid_namespace():
        return False
    if sys.platform != "linux":
        return False
    try:
        descriptor = os.pidfd_open(record.pid)
    except (OSError, ValueError, OverflowError):
        return False
    try:
        # Looked at after opening: from here the descriptor means this process or none.
        if process_started(record.pid) != record.started:
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def is_stopped(record: Record) -> bool:
    """Whether the process that wrote `record` is stopped by a signal or a debugger right now. False where that cannot be known."""
    if record.boot != _boot_id() or record.pid_namespace != _pid_namespace():
        return False
    fields = _stat(record.pid)
    return fields is not None and fields[0] in "Tt" and int(fields[19]) == record.started


def process_started(pid: int) -> int | None:
    """Start of a process in clock ticks after boot; None if there is none, it has ended but not been reaped, or there is no /proc."""
    fields = _stat(pid)
    return None if fields is None or fields[0] in "ZX" else int(fields[19])


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/pid/stat from the state on; None if there is no such process, or no /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The program's name stands in brackets and may hold anything, so count from the last one.
    return stat.rpartition(")")[2].split()


def _open_locked(path: Path) -> int | None:
    """A descriptor of the file that `path` leads to, locked; None if it is held."""
    for _ in range(_UNLINKED_RETRIES):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not _try_flock(descriptor, fcntl.LOCK_EX):
            os.close(descriptor)
            return None
        if _is_same_file(descriptor, path):
            return descriptor
        os.close(descriptor)
    return None


def _try_flock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unlock(descriptor: int) -> None:
    """Unlock before closing: a child between fork and exec still has the file open, and would keep the lock for that long."""
    try:
        _set_mark(descriptor, fcntl.F_UNLCK)
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _set_mark(descriptor: int, kind: int) -> None:
    """What `_is_marked` sees. Without support the flock alone counts."""
    if sys.platform == "linux" and _HAS_OFD_LOCKS:
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, 0, 0, 0))


def _is_marked(descriptor: int) -> bool | None:
    """Whether another open file has set its mark; None where the kernel cannot tell."""
    if sys.platform == "linux" and _HAS_OFD_LOCKS:
        with contextlib.suppress(OSError):
            answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
            return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
    return None


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        there = path.stat()
    except OSError:
        return False
    here = os.fstat(descriptor)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _write(descriptor: int, content: bytes, at: int) -> None:
    if os.pwrite(descriptor, content, at) != len(content):
        raise OSError(errno.ENOSPC, "short write")


def _floor_of(descriptor: int) -> int:
    content = os.pread(descriptor, _FLOOR.size, _FLOOR_AT)
    return int(_FLOOR.unpack(content)[0]) if len(content) == _FLOOR.size else 0


def _blank() -> bytes:
    return b" " * (RECORD_BYTES - 1) + b"\n"


def _encode(record: Record) -> bytes:
    content = msgspec.json.encode(msgspec.structs.replace(record, beat_ns=0, floor=0))
    if len(content) >= RECORD_BYTES:
        raise InvariantError("the record of a lock file does not fit", bytes=len(content))
    return content.ljust(RECORD_BYTES - 1) + b"\n"


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _pid_namespace() -> int:
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0
