"""What there is in a workspace, found without following a link and without opening anything that is no file.

Git's own listing would open what is called ``.gitignore`` or ``.git/HEAD``, a named pipe for example, and wait for ever; so the rules are
read here (`actors.files.disk`), and matched as git does.
"""

import os
import stat
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from actors.files.disk import DiskRefusalError, folder_of, read_below
from actors.files.ignoring import Pattern, patterns_of, said_of
from actors.files.limits import IGNORE_BYTES_MAX
from actors.files.names import WORKSPACE_FOLDER, Refusal, path_parts
from actors.files.rules import Rules, holds_secrets, too_large

_SILENT: Final = frozenset({(".git",), (WORKSPACE_FOLDER,)})


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """A file or folder that was refused, and by which rule. Bytes of a name that are not UTF-8 are shown as escapes."""

    path: str
    refusal: Refusal


class Entry(NamedTuple):
    """A regular file or a symbolic link."""

    path: str
    link: bool


class Listing(msgspec.Struct, kw_only=True):
    """Files and links, sorted; what was refused; folders in which there is nothing at all."""

    entries: list[Entry] = []
    left_out: list[LeftOut] = []
    empty: list[str] = []


class _Ignore(NamedTuple):
    """The rules of one folder, which speak of what lies below it."""

    prefix: int
    patterns: list[Pattern]


def listing(root: str, rules: Rules) -> Listing:
    """Everything that git would not ignore, apart from what `rules` refuse.

    Raises:
        DiskRefusalError: the workspace itself is a link.
        OSError: the disk fails.
    """
    found = Listing()
    # Each folder is entered from the top by name, so that one that is swapped for a link meanwhile is refused.
    ahead: list[tuple[tuple[str, ...], tuple[_Ignore, ...]]] = [((), ())]
    while ahead:
        parts, ignore = ahead.pop()
        try:
            with folder_of(root, (*parts, "")) as folder:
                names = sorted(os.listdir(folder))  # noqa: PTH208  of a descriptor, not of a path
                seen = [(name, _looked_at(name, folder)) for name in names]
        except (DiskRefusalError, FileNotFoundError) as error:
            if not parts:
                raise
            if isinstance(error, DiskRefusalError):
                found.left_out.append(_left_out(parts, error.refusal))
            continue
        if parts and ".git" in names:
            found.left_out.append(_left_out(parts, Refusal(rule="protected", reason="it is a repository of its own")))
            continue
        if parts and not names:
            found.empty.append("/".join(parts))
        if ".gitignore" in names:
            ignore = (*ignore, *_rules_of(root, parts))
        for name, status in seen:
            inner = (*parts, name)
            if status is None or inner in _SILENT:
                continue
            is_folder = stat.S_ISDIR(status.st_mode)
            if _ignored("/".join(inner), is_folder, ignore):
                continue
            refusal = _refusal("/".join(inner), status, rules)
            if refusal is not None:
                found.left_out.append(_left_out(inner, refusal))
            elif is_folder:
                ahead.append((inner, ignore))
            else:
                found.entries.append(Entry("/".join(inner), stat.S_ISLNK(status.st_mode)))
    found.entries.sort()
    found.left_out.sort(key=lambda one: one.path)
    return found


def _looked_at(name: str, folder: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _refusal(path: str, status: os.stat_result, rules: Rules) -> Refusal | None:
    parts = path_parts(path)
    if isinstance(parts, Refusal):
        return parts
    if holds_secrets(path, rules.protected_files):
        return Refusal(rule="protected", reason="its name is one of those that hold secrets")
    if stat.S_ISDIR(status.st_mode) or stat.S_ISLNK(status.st_mode):
        return None
    if not stat.S_ISREG(status.st_mode):
        return Refusal(rule="not_a_file", reason="it is a device, a named pipe or a socket")
    if status.st_nlink > 1:
        return Refusal(rule="link", reason="it has a second name (hard link)")
    return too_large(status.st_size, rules)


def _left_out(parts: Sequence[str], refusal: Refusal) -> LeftOut:
    return LeftOut(path=shown("/".join(parts)), refusal=refusal)


def shown(path: str) -> str:
    """`path` as text that can be recorded: what is not UTF-8 in it becomes escapes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _rules_of(root: str, parts: tuple[str, ...]) -> Iterable[_Ignore]:
    try:
        read = read_below(root, (*parts, ".gitignore"), IGNORE_BYTES_MAX)
    except DiskRefusalError:
        # No rules then: it is listed among what was left out, and more is kept rather than less.
        return
    if read is None:
        return
    yield _Ignore(len("/".join((*parts, ""))), patterns_of(read[0].decode("utf-8", "surrogateescape")))


def _ignored(path: str, is_folder: bool, ignore: tuple[_Ignore, ...]) -> bool:
    """The last rule of the deepest folder that says anything about `path` counts."""
    for rules in reversed(ignore):
        said = said_of(path[rules.prefix :], is_folder, rules.patterns)
        if said is not None:
            return said
    return False
