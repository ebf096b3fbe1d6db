"""Files below a root, reached without following a single link: every folder on the way is opened by name inside the one before it.

Only called inside steps. A path that was checked and then opened by its name could be changed in between; here the look and the use are
the same descriptor (openat with O_NOFOLLOW), so a link that is put in place at any moment is refused and never followed. What the kernel
would do in one call (openat2 with RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS) is done name by name: Python 3.11 has no openat2, macOS neither.
"""

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from actors.files.names import WORKSPACE_FOLDER, Refusal, Rule
from events.clock import SystemEntropy

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DRAFTS = (WORKSPACE_FOLDER, "drafts", "")
# Of the process, not of a turn: a step that runs again must not meet the draft of the run before.
_ENTROPY = SystemEntropy()
_IS_A_LINK = frozenset({errno.ELOOP, errno.EMLINK})


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
def _told(path: str) -> Iterator[None]:
    """What the system refuses for good becomes a refusal like any other, so that it is recorded as one."""
    try:
        yield
    except OSError as error:
        if error.errno in _IS_A_LINK:
            raise _refuse("link", f"{path!r} is a link") from None
        if error.errno in {errno.ENXIO, errno.ENODEV, errno.EISDIR}:
            raise _refuse("not_a_file", f"{path!r} is not a regular file") from None
        if error.errno in {errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL}:
            raise _refuse("path_invalid", f"{path!r} is no name on this disk") from None
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise _refuse("not_permitted", f"{path!r}: {os.strerror(error.errno)}") from None
        raise


@contextmanager
def folder_of(root: str, parts: Sequence[str], *, make: bool = False) -> Iterator[int]:
    """A descriptor of the folder that holds the last of `parts`.

    Raises:
        DiskRefusalError: a link, or something that is no folder, stands on the way or in the place of `root`.
        FileNotFoundError: it is not there and `make` is false.
    """
    held = _enter(root, root, None)
    try:
        for number, part in enumerate(parts[:-1]):
            shown = "/".join(parts[: number + 1])
            if make:
                with _told(shown), contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=held)
                    os.fsync(held)
            inner = _enter(part, shown, held)
            os.close(held)
            held = inner
        yield held
    finally:
        os.close(held)


def _enter(name: str, shown: str, folder: int | None) -> int:
    try:
        with _told(shown):
            return os.open(name, _FOLDER, dir_fd=folder)
    except NotADirectoryError:
        raise _refuse("link", f"{shown!r} is a link or no folder") from None


def _regular(seen: os.stat_result, path: str, limit: int | None = None) -> None:
    """Raises: DiskRefusalError: not a file that belongs to this one name, or too large."""
    if not stat.S_ISREG(seen.st_mode):
        raise _refuse("link" if stat.S_ISLNK(seen.st_mode) else "not_a_file", f"{path!r} is {_kind(seen.st_mode)}, not a regular file")
    if seen.st_nlink > 1:
        # A second name may lie outside: writing through this one would change that one, and a backup would restore half.
        raise _refuse("link", f"{path!r} has a second name (hard link)")
    if limit is not None and seen.st_size > limit:
        raise _refuse("too_large", f"{seen.st_size:,} bytes; at most {limit:,} are allowed")


def _kind(mode: int) -> str:
    kinds = {stat.S_IFLNK: "a link", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def read_below(root: str, parts: Sequence[str], limit: int) -> tuple[bytes, int] | None:
    """Content and permission bits of a file; None where there is none.

    Raises:
        DiskRefusalError: a link, no regular file, above `limit` bytes, or not permitted.
        OSError: the disk fails.
    """
    path = "/".join(parts)
    try:
        with folder_of(root, parts) as folder, _told(path):
            # Looked at first, because opening a device can do something; what counts is what was opened.
            _regular(os.stat(parts[-1], dir_fd=folder, follow_symlinks=False), path, limit)
            # O_NONBLOCK: opening a named pipe must not wait for somebody to write into it.
            handle = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    try:
        seen = os.fstat(handle)
        _regular(seen, path, limit)
        with os.fdopen(handle, "rb", closefd=False) as file:
            content = file.read(limit + 1)
    finally:
        os.close(handle)
    if len(content) > limit:
        raise _refuse("too_large", f"more than {limit:,} bytes are not allowed")
    return content, stat.S_IMODE(seen.st_mode)


def check_below(root: str, parts: Sequence[str]) -> None:
    """Whether a path may be handed to a program: a file with one name, a folder, or nothing.

    A program opens it by name, later and in its own way: what changes in between is not seen (a program that may run may read anyway).

    Raises:
        DiskRefusalError: a link on the way or in its place, a device, or a second name.
    """
    path = "/".join(parts)
    with contextlib.suppress(FileNotFoundError), folder_of(root, parts) as folder, _told(path):
        seen = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISDIR(seen.st_mode):
            _regular(seen, path)


def read_link(root: str, parts: Sequence[str]) -> bytes | None:
    """What a symbolic link says, which is not looked up; None where there is none. Raises: DiskRefusalError: it is no link."""
    path = "/".join(parts)
    try:
        with folder_of(root, parts) as folder, _told(path):
            seen = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
            if not stat.S_ISLNK(seen.st_mode):
                raise _refuse("not_a_file", f"{path!r} is {_kind(seen.st_mode)}, no link any more")
            return os.fsencode(os.readlink(parts[-1], dir_fd=folder))
    except FileNotFoundError:
        return None


def look(root: str, parts: Sequence[str], limit: int) -> Found | None:
    """As `read_below`, digest instead of content."""
    read = read_below(root, parts, limit)
    return None if read is None else Found(sha256=digest(read[0]), size_bytes=len(read[0]), mode=read[1])


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_below(root: str, parts: Sequence[str], content: bytes, mode: int) -> None:
    """Put `content` in place whole or not at all: temporary file, fsync, rename, fsync of the folder. A link in its place is refused, and
    one that is put there meanwhile is replaced by the file, never written through.

    Raises:
        DiskRefusalError: a link on the way or in its place, a folder or device in its place, or not permitted.
        OSError: the disk fails; nothing has changed.
    """
    path = "/".join(parts)
    if parts[0] != WORKSPACE_FOLDER:
        own_folder(root)
    with folder_of(root, parts, make=True) as folder, _told(path):
        with contextlib.suppress(FileNotFoundError):
            there = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
            if not stat.S_ISREG(there.st_mode):
                raise _refuse("link" if stat.S_ISLNK(there.st_mode) else "not_a_file", f"{path!r} is {_kind(there.st_mode)}, not a file")
        try:
            with folder_of(root, _DRAFTS, make=True) as drafts:
                _replace(drafts, folder, parts[-1], content, mode)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # Another disk is mounted on the way: the draft has to lie on the same one.
            _replace(folder, folder, parts[-1], content, mode)
        os.fsync(folder)


def _replace(drafts: int, folder: int, name: str, content: bytes, mode: int) -> None:
    # O_EXCL and a name that nobody can foresee: what lies there already, a pipe or a second name of another file, is not opened.
    draft = f".{_ENTROPY.token_bytes(12).hex()}.draft"
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=drafts)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(draft, name, src_dir_fd=drafts, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft, dir_fd=drafts)
        raise


def link_below(root: str, parts: Sequence[str], target: bytes) -> None:
    """Put a symbolic link in place, as `write_below` does a file. Nothing is said of what it points at, and nothing looks there.

    Raises:
        DiskRefusalError: a link on the way, or a folder or device in its place.
        OSError: the disk fails; nothing has changed.
    """
    path = "/".join(parts)
    with folder_of(root, parts, make=True) as folder, _told(path):
        with contextlib.suppress(FileNotFoundError):
            there = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
            if not (stat.S_ISREG(there.st_mode) or stat.S_ISLNK(there.st_mode)):
                raise _refuse("not_a_file", f"{path!r} is {_kind(there.st_mode)}, not a file")
        draft = f".{_ENTROPY.token_bytes(12).hex()}.draft"
        os.symlink(target, draft, dir_fd=folder)
        try:
            os.replace(draft, parts[-1], src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft, dir_fd=folder)
            raise
        os.fsync(folder)


def delete_below(root: str, parts: Sequence[str], folders: int = 0) -> None:
    """Remove a file or a link; nothing happens where there is none. Of the folders that lead there, the last `folders` go too, if they are
    empty now.

    Raises:
        DiskRefusalError: a link on the way, a folder in its place, or not permitted.
        OSError: the disk fails.
    """
    path = "/".join(parts)
    try:
        with folder_of(root, parts) as folder, _told(path):
            os.unlink(parts[-1], dir_fd=folder)
            os.fsync(folder)
    except FileNotFoundError:
        pass
    for number in range(min(folders, len(parts) - 1)):
        above = parts[: len(parts) - 1 - number]
        try:
            with folder_of(root, above) as folder:
                os.rmdir(above[-1], dir_fd=folder)
                os.fsync(folder)
        except (OSError, DiskRefusalError):
            # Somebody else has put something there, or something else in its place.
            return


def missing_folders(root: str, parts: Sequence[str]) -> int:
    """How many of the folders that lead to a file are not there: the last ones. Raises: DiskRefusalError."""
    for missing in range(len(parts)):
        try:
            with folder_of(root, parts[: len(parts) - missing]):
                return missing
        except FileNotFoundError:
            continue
    return len(parts) - 1


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
