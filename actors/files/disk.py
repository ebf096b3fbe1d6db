"""Files below a root, reached without following a single link: every folder on the way is opened by name inside the one before it.

Only called inside steps. A path that was checked and then opened by its name could be changed in between; here the look and the use are
the same descriptor (openat with O_NOFOLLOW), so a link that is put in place at any moment is refused and never followed.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from actors.files.rules import WORKSPACE_FOLDER, Refusal, Rule


class DiskRefusalError(Exception):
    """The disk shows something that the path did not: a link, a device, a folder, too much."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


class Found(msgspec.Struct, frozen=True, kw_only=True, tag="found"):
    """A regular file as it lay there: digest of its bytes, size, permission bits."""

    sha256: str
    size_bytes: int
    mode: int


def _refuse(rule: Rule, reason: str) -> DiskRefusalError:
    return DiskRefusalError(Refusal(rule=rule, reason=reason))


@contextmanager
def folder_of(root: str, parts: Sequence[str], *, make: bool = False) -> Iterator[int]:
    """A descriptor of the folder that holds the last of `parts`.

    Raises:
        DiskRefusalError: a link, or something that is no folder, stands on the way.
        FileNotFoundError: it is not there and `make` is false.
    """
    held = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for number, part in enumerate(parts[:-1]):
            if make:
                try:
                    os.mkdir(part, 0o755, dir_fd=held)
                    os.fsync(held)
                except FileExistsError:
                    pass
            try:
                inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=held)
            except OSError as error:
                if error.errno in {errno.ELOOP, errno.ENOTDIR}:
                    raise _refuse("link", f"{'/'.join(parts[: number + 1])!r} is a link or no folder") from None
                raise
            os.close(held)
            held = inner
        yield held
    finally:
        os.close(held)


def read_below(root: str, parts: Sequence[str], limit: int) -> tuple[bytes, int] | None:
    """Content and permission bits of a file; None where there is none.

    Raises:
        DiskRefusalError: a link, no regular file, or above `limit` bytes.
        OSError: the disk refuses.
    """
    try:
        with folder_of(root, parts) as folder:
            # O_NONBLOCK: opening a named pipe must not wait for somebody to write into it.
            handle = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.EMLINK}:
            raise _refuse("link", f"{'/'.join(parts)!r} is a link") from None
        if error.errno in {errno.ENXIO, errno.ENODEV}:
            raise _refuse("not_a_file", f"{'/'.join(parts)!r} is not a regular file") from None
        raise
    with os.fdopen(handle, "rb") as file:
        seen = os.fstat(file.fileno())
        if not stat.S_ISREG(seen.st_mode):
            raise _refuse("not_a_file", f"{'/'.join(parts)!r} is not a regular file")
        if seen.st_nlink > 1:
            # A second name may lie outside: writing through this one would change that one, and a backup would restore half.
            raise _refuse("link", f"{'/'.join(parts)!r} has a second name (hard link)")
        content = file.read(limit + 1)
        if len(content) > limit:
            raise _refuse("too_large", f"{max(seen.st_size, limit + 1):,} bytes; at most {limit:,} are allowed")
        return content, stat.S_IMODE(seen.st_mode)


def look(root: str, parts: Sequence[str], limit: int) -> Found | None:
    """As `read_below`, digest instead of content."""
    read = read_below(root, parts, limit)
    return None if read is None else Found(sha256=digest(read[0]), size_bytes=len(read[0]), mode=read[1])


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_below(root: str, parts: Sequence[str], content: bytes, mode: int) -> None:
    """Put `content` in place whole or not at all: temporary file, fsync, rename, fsync of the folder. A link in its place is replaced by
    the file, never written through.

    Raises:
        DiskRefusalError: a link on the way, or a folder in its place.
        OSError: the disk refuses; nothing has changed.
    """
    with folder_of(root, parts, make=True) as folder:
        try:
            there = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
            if not stat.S_ISREG(there.st_mode):
                raise _refuse("link" if stat.S_ISLNK(there.st_mode) else "not_a_file", f"{'/'.join(parts)!r} is not a regular file")
        except FileNotFoundError:
            pass
        draft = f".{parts[-1][:100]}.{os.getpid()}.draft"
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            os.replace(draft, parts[-1], src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            os.unlink(draft, dir_fd=folder)
            raise
        os.fsync(folder)


def delete_below(root: str, parts: Sequence[str]) -> None:
    """Remove a file; nothing happens where there is none. Raises: DiskRefusalError, OSError."""
    try:
        with folder_of(root, parts) as folder:
            os.unlink(parts[-1], dir_fd=folder)
            os.fsync(folder)
    except FileNotFoundError:
        return


def keep_backup(root: str, content: bytes) -> str:
    """Keep `content` in the workspace's own folder under its digest, once. Returns: the digest."""
    name = digest(content)
    place = (WORKSPACE_FOLDER, "backups", name[:2], name)
    own_folder(root)
    held = read_below(root, place, len(content))
    if held is None or held[0] != content:
        write_below(root, place, content, 0o600)
    return name


def backup(root: str, sha256: str, limit: int) -> bytes:
    """What `keep_backup` kept.

    Raises:
        FileNotFoundError: it is gone, or is no more what it was.
    """
    held = read_below(root, (WORKSPACE_FOLDER, "backups", sha256[:2], sha256), limit)
    if held is None or digest(held[0]) != sha256:
        raise FileNotFoundError(f"the backup {sha256[:12]} in {WORKSPACE_FOLDER}/backups is gone or damaged")
    return held[0]


def own_folder(root: str) -> Path:
    """The workspace's folder for backups and checkpoints, which git leaves out by itself. Raises: DiskRefusalError: it is a link."""
    if read_below(root, (WORKSPACE_FOLDER, ".gitignore"), 1_024) is None:
        write_below(root, (WORKSPACE_FOLDER, ".gitignore"), b"*\n", 0o644)
    return Path(root) / WORKSPACE_FOLDER
