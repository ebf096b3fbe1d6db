"""Changes of a text by lines: replace, insert, delete. Pure."""

import io
from typing import Literal

import msgspec

from actors.errors import Rejected


class Edit(msgspec.Struct, frozen=True, kw_only=True):
    """One change. Lines count from 1, `last` is included, and both speak of the text before any edit of the same call.

    replace and delete change lines `first` to `last`; insert puts `text` before line `first` (number of lines + 1 = at the end).
    """

    kind: Literal["replace", "insert", "delete"]
    first: int
    last: int | None = None
    text: str = ""


def edited(content: str, edits: list[Edit]) -> str:
    """`content` with all of `edits`, which may not overlap. Line endings of the untouched lines stay as they are.

    Raises:
        Rejected: an edit names lines that are not there, or two overlap.
    """
    lines = _lines(content)
    ending = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
    free = len(lines) + 1
    # From the end, so that line numbers stay those of the text as given; what is inserted before a line comes after its own change.
    for _, edit in sorted(enumerate(edits), key=lambda one: (one[1].first, one[1].kind != "insert", one[0]), reverse=True):
        last = edit.first - 1 if edit.kind == "insert" else (edit.last if edit.last is not None else edit.first)
        if not 1 <= edit.first <= len(lines) + (edit.kind == "insert") or not edit.first - 1 <= last <= len(lines):
            raise Rejected(f"lines {edit.first} to {last} are not there: the file has {len(lines)}", first=edit.first, lines=len(lines))
        if last >= free:
            raise Rejected("two edits overlap", first=edit.first)
        free = edit.first
        new = [] if edit.kind == "delete" else _lines(edit.text)
        if new and not new[-1].endswith(("\n", "\r")) and last < len(lines):
            new[-1] += ending
        if new and edit.kind == "insert" and edit.first == len(lines) + 1 and lines and not lines[-1].endswith(("\n", "\r")):
            lines[-1] += ending
        lines[edit.first - 1 : last] = new
    return "".join(lines)


def _lines(text: str) -> list[str]:
    """With their endings. Unlike `str.splitlines`, only what editors call a line ends one."""
    return list(io.StringIO(text, newline=""))
