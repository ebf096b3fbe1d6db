"""Which files there are, and which lines in them: what `listing` shows, so no link is followed and nothing is opened that is no file."""

import msgspec

from actors.files.disk import DiskRefusalError, folder_of, read_below
from actors.files.limits import LINE_CHARS_SHOWN, READ_BYTES_MAX
from actors.files.listing import listing
from actors.files.names import Refusal
from actors.files.rules import Rules, matches


class Paths(msgspec.Struct, frozen=True, kw_only=True, tag="paths"):
    """Files and links by path. more: there are others behind the last."""

    paths: list[str]
    more: bool


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a file, counted from 1; a long one is cut."""

    path: str
    line: int
    text: str


class Lines(msgspec.Struct, frozen=True, kw_only=True, tag="lines"):
    """Lines that hold what was searched, by path. more: there are others behind the last."""

    lines: list[Line]
    more: bool


def find_below(root: str, folder: str, rules: Rules, pattern: str, after: str, limit: int) -> Paths | Refusal:
    """Step: the files below `folder` that fit `pattern`, those behind `after`, as many as one reply takes."""
    try:
        found = _files(root, folder, rules, pattern, links=True)
    except DiskRefusalError as error:
        return error.refusal
    paths: list[str] = []
    room = READ_BYTES_MAX
    for path in found:
        if path <= after:
            continue
        room -= len(path.encode())
        if len(paths) >= limit or room < 0:
            return Paths(paths=paths, more=True)
        paths.append(path)
    return Paths(paths=paths, more=False)


def search_below(root: str, folder: str, rules: Rules, pattern: str, text: str, limit: int) -> Lines | Refusal:
    """Step: the lines that hold `text` in the files below `folder` that fit `pattern`, as many as one reply takes."""
    try:
        found = _files(root, folder, rules, pattern, links=False)
    except DiskRefusalError as error:
        return error.refusal
    lines: list[Line] = []
    room = READ_BYTES_MAX
    for path in found:
        for number, line in enumerate(_text(root, path, rules).splitlines(), 1):
            if text not in line:
                continue
            shown = line[:LINE_CHARS_SHOWN]
            room -= len(path.encode()) + len(shown.encode())
            if len(lines) >= limit or room < 0:
                return Lines(lines=lines, more=True)
            lines.append(Line(path=path, line=number, text=shown))
    return Lines(lines=lines, more=False)


def _files(root: str, folder: str, rules: Rules, pattern: str, *, links: bool) -> list[str]:
    """Raises: DiskRefusalError: a link leads to `folder`, or it is no folder."""
    if folder:
        try:
            with folder_of(root, (*folder.split("/"), "")):
                pass
        except FileNotFoundError:
            return []
    above = f"{folder}/" if folder else ""
    listed = listing(root, rules).entries
    return [one.path for one in listed if (links or not one.link) and one.path.startswith(above) and matches(one.path, (pattern,))]


def _text(root: str, path: str, rules: Rules) -> str:
    try:
        read = read_below(root, path.split("/"), rules.max_file_bytes)
    except DiskRefusalError:
        # Something else stands there by now: it is not shown, as it would not be the next time.
        return ""
    try:
        return "" if read is None else read[0].decode()
    except UnicodeDecodeError:
        return ""
