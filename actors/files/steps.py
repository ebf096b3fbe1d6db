"""What the file actor does outside of the log, as steps: plain functions, harmless to repeat after a crash."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec

from actors.files import disk
from actors.files.commands import CommandMissingError, Outcome, run_command
from actors.files.disk import DiskRefusalError, Found
from actors.files.limits import READ_BYTES_MAX
from actors.files.names import Refusal
from actors.tools.errors import WorkspaceError
from actors.tools.workspace import resolve_root

_SYSTEM_FOLDERS = ("bin", "boot", "dev", "etc", "lib", "lib64", "proc", "run", "sbin", "sys", "usr")


class Content(msgspec.Struct, frozen=True, kw_only=True, tag="content"):
    """Lines `first` to `last` of a text file, with the digest of the whole file: hand it back as `expected` when writing."""

    text: str
    first: int
    last: int
    lines: int
    sha256: str


class Whole(msgspec.Struct, frozen=True, kw_only=True, tag="whole"):
    """All of a text file."""

    text: str
    found: Found


class Missing(msgspec.Struct, frozen=True, kw_only=True, tag="missing"):
    """There is no file, nor the last `folders` of the folders that lead to it."""

    folders: int


class FileChangedError(Exception):
    """Somebody else changed the file in between."""


def workspace_folder(root: str) -> str:
    """The real folder behind `root`. Raises: WorkspaceError: none, or one of the system's."""
    place = resolve_root(root)
    if place == Path("/") or (len(place.parts) > 1 and place.parts[1] in _SYSTEM_FOLDERS):
        raise WorkspaceError(f"{place} is a folder of the system, no workspace")
    return str(place)


def read_text(root: str, path: str, limit: int, first: int, last: int | None) -> Content | Refusal | None:
    """Lines `first` to `last`, cut where a reply is full."""
    held = read_whole(root, path, limit)
    if held is None or isinstance(held, Refusal):
        return held
    lines = held.text.splitlines(keepends=True)
    chosen: list[str] = []
    room = READ_BYTES_MAX
    for line in lines[max(first, 1) - 1 : last]:
        room -= len(line.encode())
        if room < 0:
            break
        chosen.append(line)
    start = max(first, 1)
    return Content(text="".join(chosen), first=start, last=start + len(chosen) - 1, lines=len(lines), sha256=held.found.sha256)


def read_whole(root: str, path: str, limit: int) -> Whole | Refusal | None:
    """The text of a file; None where there is none."""
    try:
        read = disk.read_below(root, path.split("/"), limit)
    except DiskRefusalError as error:
        return error.refusal
    if read is None:
        return None
    content, mode = read
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return Refusal(rule="not_a_file", reason=f"{path!r} is not UTF-8 text")
    return Whole(text=text, found=Found(sha256=disk.digest(content), size_bytes=len(content), mode=mode))


def keep(root: str, path: str, limit: int) -> Found | Missing | Refusal:
    """What is there now, after its content was put among the backups."""
    parts = path.split("/")
    try:
        read = disk.read_below(root, parts, limit)
        if read is None:
            return Missing(folders=disk.missing_folders(root, parts))
        return Found(sha256=disk.keep_backup(root, read[0]), size_bytes=len(read[0]), mode=read[1])
    except DiskRefusalError as error:
        return error.refusal


def put(
    root: str, path: str, wanted: Found | None, expected: Found | None, limit: int, content: str | None = None, folders: int = 0
) -> Refusal | None:
    """Make the file `wanted` where it is `expected`; nothing where it is `wanted` already, so that a repeat after a crash is harmless.
    `content` is what to write; without it the backup of `wanted` is. Where a file goes, so do the last `folders` folders above it, if they
    are empty.

    Raises:
        FileChangedError: it is neither.
        FileNotFoundError: the backup of `wanted` is gone.
    """
    parts = path.split("/")
    try:
        there = disk.look(root, parts, limit)
        if there is None and wanted is None:
            # Also after a crash between the file and its folders.
            disk.delete_below(root, parts, folders)
            return None
        if there is not None and wanted is not None and there.sha256 == wanted.sha256:
            return None
        if (None if there is None else there.sha256) != (None if expected is None else expected.sha256):
            raise FileChangedError(f"{path} was changed by somebody else meanwhile")
        if wanted is None:
            disk.delete_below(root, parts, folders)
        else:
            raw = content.encode() if content is not None else disk.backup(root, wanted.sha256, limit)
            disk.write_below(root, parts, raw, wanted.mode)
    except DiskRefusalError as error:
        return error.refusal
    return None


def as_it_was(root: str, path: str, before: Found | None, after: Found | None, limit: int) -> Refusal | None:
    """Whether a file is what a change made of it, or what it was before: then the change can be taken back.

    Raises:
        FileChangedError: it is neither.
    """
    try:
        there = disk.look(root, path.split("/"), limit)
    except DiskRefusalError as error:
        return error.refusal
    digest = None if there is None else there.sha256
    if digest not in {None if found is None else found.sha256 for found in (before, after)}:
        raise FileChangedError(f"{path} was changed by somebody else meanwhile")
    return None


async def run_program(root: str, words: Sequence[str], paths: Sequence[str], timeout_s: float) -> Outcome | Refusal:
    """Run a program, if those of its arguments that are `paths` lie in the workspace: no link leads to them, and none of them is one."""
    for path in paths:
        refusal = await asyncio.to_thread(_plain, root, path)
        if refusal is not None:
            return refusal
    try:
        return await run_command(root, words, timeout_s)
    except CommandMissingError as error:
        return Refusal(rule="program", reason=str(error))
    except DiskRefusalError as error:
        return error.refusal


def _plain(root: str, path: str) -> Refusal | None:
    try:
        disk.check_below(root, path.split("/"))
    except DiskRefusalError as error:
        return error.refusal
    return None
