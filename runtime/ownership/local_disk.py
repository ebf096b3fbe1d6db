"""Whether a folder lies on a disk of this host: all workers, projectors and readers of a log share one (S6)."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from events.errors import ConfigurationError

# Where flock is not seen by other hosts, or SQLite's shared memory does not work. 9p is also what WSL 2 shows of Windows drives.
# fmt: off
_REMOTE: Final = (
    "nfs", "nfs3", "nfs4", "cifs", "smb2", "smb3", "smbfs", "9p", "afs", "ceph", "coda", "davfs", "glusterfs", "lustre", "beegfs", "gpfs",
    "gfs", "gfs2", "ocfs2", "orangefs", "pvfs2", "ncpfs", "panfs", "moosefs", "juicefs",
)
_REMOTE_FUSE: Final = (
    *_REMOTE, "sshfs", "ceph-fuse", "davfs2", "rclone", "s3fs", "gcsfuse", "mount-s3", "goofys", "blobfuse", "blobfuse2", "curlftpfs",
    "smbnetfs", "mfs", "hdfs",
)
# fmt: on
NETWORK_FILESYSTEMS: Final = frozenset(_REMOTE) | {f"fuse.{name}" for name in _REMOTE_FUSE}


def check_local_filesystem(path: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> None:
    """Refuse a folder on a network file system (S6); it need not exist yet. Where there is no mountinfo (macOS) nothing is checked.

    Raises:
        ConfigurationError: it lies on one.
    """
    try:
        mounts = list(_mounts(mountinfo.read_text(encoding="utf-8", errors="surrogateescape")))
    except OSError:
        return
    real = path.resolve()
    below = [(point, kind) for point, kind in mounts if real.is_relative_to(point)]
    if not below:
        return
    # The deepest mount point; of several on the same point the last one hides the others.
    point, kind = max(reversed(below), key=lambda mount: len(mount[0].parts))
    if kind in NETWORK_FILESYSTEMS:
        raise ConfigurationError(
            f"{path} lies on {point}, which is a network file system ({kind}): locks and SQLite's shared memory do not hold there. "
            "Name a folder on a local disk with --data DIR",
            path=str(path),
            filesystem=kind,
        )


def _mounts(text: str) -> Iterator[tuple[Path, str]]:
    """Mount point and type of each line of proc(5) mountinfo: optional fields end at a lone dash."""
    for line in text.splitlines():
        left, dash, right = line.partition(" - ")
        fields = left.split(" ")
        if dash and len(fields) > 4:
            point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
            yield Path(point), right.split(" ")[0]
