"""The inventory of a folder: which files there are, what they are, and the digest that keys every later result.

Everything that reads a file of the code base goes through `read_file` here, so that one place decides what may be read:
regular files below the root, reached without following a symbolic link.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import msgspec

from actors.tools.errors import FileChangedError, WorkspaceError
from actors.tools.git import is_governed_by_git, run_git
from actors.tools.languages import OTHER, language_of
from actors.tools.limits import BINARY_PROBE_BYTES, FILE_BYTES_MAX, FILES_MAX, READ_CHUNK_BYTES
from actors.workspace_id import OWN_FOLDER


class SourceFile(msgspec.Struct, frozen=True, kw_only=True):
    """One regular file.

    `lines` counts newline bytes, plus one for a last line without newline; binary content has 0 lines.
    """

    path: str
    language: str
    lines: int
    size_bytes: int
    sha256: str


class LanguageTotal(msgspec.Struct, frozen=True, kw_only=True):
    language: str
    files: int
    lines: int


class Skipped(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen and left out, so that a count which differs from `find` can be explained."""

    symbolic_links: int = 0
    special_files: int = 0
    unreadable: int = 0
    virtual_environments: list[str] = []


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """All files below a root, sorted by path.

    `package_prefix` is the dotted package that the root itself is (`rich` when `rich/` with its `__init__.py` was
    given), else empty: without it the modules of a reviewed package would carry names that nobody imports.
    """

    root_name: str
    package_prefix: str
    under_git: bool
    files: list[SourceFile]
    languages: list[LanguageTotal]
    skipped: Skipped


class _Walk:
    """What one listing collects besides paths."""

    def __init__(self) -> None:
        self.symbolic_links = 0
        self.special_files = 0
        self.unreadable = 0
        self.virtual_environments: set[str] = set()


def resolve_root(path: str | os.PathLike[str]) -> Path:
    """The real folder behind `path`.

    Raises:
        WorkspaceError: it does not exist, is no folder, or cannot be read.
    """
    try:
        root = Path(path).resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise WorkspaceError(f"{os.fspath(path)!r} cannot be opened: {error}") from error
    if not root.is_dir():
        raise WorkspaceError(f"{os.fspath(path)!r} is not a folder")
    if not os.access(root, os.R_OK | os.X_OK):
        raise WorkspaceError(f"{os.fspath(path)!r} is not readable")
    return root


def file_below(root: Path, path: str) -> Path:
    """The absolute place of an inventory path.

    Raises:
        WorkspaceError: `path` is absolute, has a `..`, or passes through a symbolic link.
    """
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or "\0" in path or ".." in parts:
        raise WorkspaceError(f"{path!r} is not a path inside the examined folder")
    place = root
    for part in parts:
        place = place / part
        if place.is_symlink():
            raise WorkspaceError(f"{path!r} passes through a symbolic link")
    return place


def read_file(root: Path, path: str, *, sha256: str | None = None, bytes_max: int = FILE_BYTES_MAX) -> bytes | None:
    """The content of one regular file; None when it is larger than `bytes_max`.

    Args:
        sha256: when given, the content must have this digest, so a result can be stored under the inventory's key.

    Raises:
        FileChangedError: the content has another digest, or the file is gone.
        WorkspaceError: the path is not a regular file below the root.
    """
    place = file_below(root, path)
    try:
        handle = os.open(place, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise FileChangedError(path) from error
    with os.fdopen(handle, "rb") as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise WorkspaceError(f"{path!r} is not a regular file")
        if status.st_size > bytes_max:
            return None
        content = stream.read(bytes_max + 1)
    if len(content) > bytes_max:
        return None
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise FileChangedError(path)
    return content


def inventory(root: str | os.PathLike[str]) -> Inventory:
    """List every file below `root` except `.git`, virtual environments, what git ignores, and what Cuebook keeps there itself.

    Symbolic links are counted, never followed and never listed: their target is listed once where it really is.

    Raises:
        WorkspaceError: `root` is no readable folder, or has more than `FILES_MAX` files.
    """
    folder = resolve_root(root)
    walk = _Walk()
    under_git = is_governed_by_git(folder)
    paths = _git_paths(folder, "", walk) if under_git else _walked_paths(folder, "", walk)
    files: dict[str, SourceFile] = {}
    for path in paths:
        if path in files:
            continue
        entry = _examine(folder, path, walk)
        if entry is not None:
            files[entry.path] = entry
        if len(files) > FILES_MAX:
            raise WorkspaceError(f"the folder has more than {FILES_MAX} files")
    listed = [files[path] for path in sorted(files)]
    return Inventory(
        root_name=_printable(folder.name),
        package_prefix=_package_prefix(folder),
        under_git=under_git,
        files=listed,
        languages=_language_totals(listed),
        skipped=Skipped(
            symbolic_links=walk.symbolic_links,
            special_files=walk.special_files,
            unreadable=walk.unreadable,
            virtual_environments=sorted(walk.virtual_environments),
        ),
    )


def _git_paths(root: Path, prefix: str, walk: _Walk) -> Iterator[str]:
    """Paths git does not ignore; a nested repository answers for itself."""
    answer = run_git(root / prefix, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate", "--", ".")
    if answer is None:
        yield from _walked_paths(root, prefix, walk)
        return
    environments: dict[str, bool] = {}
    for raw in answer.split(b"\0"):
        name = os.fsdecode(raw).rstrip("/")
        if not name:
            continue
        path = prefix + name
        if ".git" in PurePosixPath(name).parts or _in_environment(root, path, prefix, environments, walk):
            continue
        place = root / path
        if not place.is_symlink() and place.is_dir():
            # A submodule or an untracked repository inside this one: git lists only its folder.
            yield from _nested_paths(root, path + "/", walk)
        else:
            yield path


def _nested_paths(root: Path, prefix: str, walk: _Walk) -> Iterator[str]:
    if (root / prefix / "pyvenv.cfg").is_file():
        walk.virtual_environments.add(prefix.rstrip("/"))
    elif (root / prefix / ".git").exists() and is_governed_by_git(root / prefix):
        yield from _git_paths(root, prefix, walk)
    else:
        yield from _walked_paths(root, prefix, walk)


def _in_environment(root: Path, path: str, prefix: str, known: dict[str, bool], walk: _Walk) -> bool:
    """True when a folder between `prefix` and the file is a virtual environment."""
    parents = [str(parent) for parent in PurePosixPath(path).parents if len(str(parent)) > len(prefix.rstrip("/"))]
    for parent in reversed(parents):
        if parent == ".":
            continue
        if parent not in known:
            known[parent] = (root / parent / "pyvenv.cfg").is_file()
        if known[parent]:
            walk.virtual_environments.add(_printable(parent))
            return True
    return False


def _walked_paths(root: Path, prefix: str, walk: _Walk) -> Iterator[str]:
    """Paths below a folder that no git governs: nothing is ignored."""

    def count_unreadable(_: OSError) -> None:
        walk.unreadable += 1

    for folder, names, files in os.walk(root / prefix, onerror=count_unreadable):
        here = Path(folder)
        relative = here.relative_to(root).as_posix()
        start = "" if relative == "." else relative + "/"
        kept = []
        for name in sorted(names):
            if name == ".git" or (not start and name == OWN_FOLDER):
                continue
            if (here / name).is_symlink():
                walk.symbolic_links += 1
            elif (here / name / "pyvenv.cfg").is_file():
                walk.virtual_environments.add(_printable(start + name))
            else:
                kept.append(name)
        names[:] = kept
        for name in sorted(files):
            if name != ".git":
                yield start + name


def _examine(root: Path, path: str, walk: _Walk) -> SourceFile | None:
    """Digest and count one file as a stream, so that its size costs time and not memory."""
    try:
        place = file_below(root, path)
        handle = os.open(place, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except WorkspaceError:
        walk.symbolic_links += 1
        return None
    except FileNotFoundError:
        # Git still lists a tracked file that was deleted from the disk.
        return None
    except OSError:
        walk.unreadable += 1
        return None
    with os.fdopen(handle, "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            walk.special_files += 1
            return None
        digest = hashlib.sha256()
        start = b""
        size = newlines = 0
        last = b"\n"
        while chunk := stream.read(READ_CHUNK_BYTES):
            start = start or chunk[:BINARY_PROBE_BYTES]
            digest.update(chunk)
            size += len(chunk)
            newlines += chunk.count(b"\n")
            last = chunk[-1:]
    lines = 0 if b"\0" in start else newlines + (last != b"\n")
    printable = _printable(path)
    # A name that is not UTF-8 cannot travel as JSON and come back, so such a file is listed and never opened again.
    language = language_of(path, start) if printable == path else OTHER
    return SourceFile(path=printable, language=language, lines=lines, size_bytes=size, sha256=digest.hexdigest())


def _printable(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _package_prefix(root: Path) -> str:
    names: list[str] = []
    folder = root
    while (folder / "__init__.py").is_file() and folder.parent != folder and folder.name.isidentifier():
        names.append(folder.name)
        folder = folder.parent
    return ".".join(reversed(names))


def _language_totals(files: list[SourceFile]) -> list[LanguageTotal]:
    totals: dict[str, tuple[int, int]] = {}
    for file in files:
        count, lines = totals.get(file.language, (0, 0))
        totals[file.language] = (count + 1, lines + file.lines)
    ordered = sorted(totals.items(), key=lambda item: (-item[1][1], -item[1][0], item[0]))
    return [LanguageTotal(language=name, files=count, lines=lines) for name, (count, lines) in ordered]
