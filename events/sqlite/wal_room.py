"""Room in the write-ahead log before it is needed.

A commit that makes its file longer waits for the journal of the file system too: on ext4 an append and its fdatasync take 180 to 250 us,
over bytes that are there 95 to 130 (2026-11). SQLite begins the log anew when all of it was checkpointed and nobody reads it, and
overwrites it from then on. Until there is as much of it as that takes, the writer of a shard puts zeros behind its end: they are no frame,
since a frame carries the salt of the log's header and a checksum (sqlite.org/fileformat2.html, 4.2).

Commits that carry many groups go without: what they wait for is shared.
"""

import os
from typing import Final

from events.limits import MIB
from events.sqlite.sqlite_library import AUTOCHECKPOINT_PAGES

ROOM_FRAMES: Final = 256
"""About 1 MiB, which the next fdatasync writes as well: 0.7 ms in every fifty commits that come alone."""
LOW_FRAMES: Final = 64
"""With less than that ahead there is more made. A commit that comes alone takes about five."""
FREE_BYTES_MIN: Final = 1_024 * MIB
"""A disk with less has better use for it."""
_HEADER_BYTES: Final = 32
_FRAME_HEADER_BYTES: Final = 24
_MAGIC: Final = b"\x37\x7f\x06"


def keep_room(wal: int) -> None:
    """Make the write-ahead log longer if its end is near. Only within a transaction that writes: else somebody else may append meanwhile.

    Args:
        wal: its file descriptor, for reading and writing.
    Raises:
        OSError: it cannot be done. Nothing is lost by it.
    """
    header = os.pread(wal, _HEADER_BYTES, 0)
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        return
    frame_bytes = _FRAME_HEADER_BYTES + int.from_bytes(header[8:12], "big")
    size = os.fstat(wal).st_size
    frames = (size - _HEADER_BYTES) // frame_bytes
    near_the_end = _HEADER_BYTES + max(0, frames - LOW_FRAMES) * frame_bytes
    is_there = os.pread(wal, 8, near_the_end + 8) == header[16:24]  # the salt of what SQLite has written since it began the log anew
    if frames >= AUTOCHECKPOINT_PAGES or not is_there:
        return
    disk = os.fstatvfs(wal)
    if disk.f_bavail * disk.f_frsize >= FREE_BYTES_MIN:
        os.pwrite(wal, bytes(_HEADER_BYTES + (frames + ROOM_FRAMES) * frame_bytes - size), size)
