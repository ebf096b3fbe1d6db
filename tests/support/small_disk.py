"""A file system of a few megabytes, so that full means full for every process at once."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class SmallDisk:
    """A mounted tmpfs that can be filled to its last byte and freed again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self, leave_bytes: int = 0) -> None:
        """Take what is free, all but `leave_bytes`."""
        usage = os.statvfs(self.folder)
        block = b"\0" * 4096
        left = usage.f_bavail * usage.f_frsize - leave_bytes
        descriptor = os.open(self._filler, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while left > 0 or leave_bytes == 0:
                left -= os.write(descriptor, block)
        except OSError:
            pass
        finally:
            os.close(descriptor)

    def free(self) -> None:
        """Give it all back."""
        self._filler.unlink()

    @property
    def free_bytes(self) -> int:
        usage = os.statvfs(self.folder)
        return usage.f_bavail * usage.f_frsize


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[SmallDisk]:
    """Mount a tmpfs on `folder`; skips the test where that is not allowed, except in CI."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        if os.environ.get("CI") and os.geteuid() == 0:
            pytest.fail(f"a tmpfs cannot be mounted: {mounted.stderr}")
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
