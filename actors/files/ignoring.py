"""Rules of a ``.gitignore``, matched as git does (gitignore(5), wildmatch.c of git 2.39), without asking git. Pure."""

import re
from typing import Final, NamedTuple

from actors.files.globs import ANY, Segment, fits, segment

_CLASSES: Final = {
    "alnum": "0-9A-Za-z", "alpha": "A-Za-z", "blank": r" \t", "cntrl": r"\x00-\x1f\x7f", "digit": "0-9", "graph": r"\x21-\x7e",
    "lower": "a-z", "print": r"\x20-\x7e", "punct": r"\x21-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e", "space": r" \t\n\r\f\v", "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}  # fmt: skip


class Pattern(NamedTuple):
    """One line: whether it ignores or takes back, folders only or not, and what it fits."""

    ignores: bool
    folders_only: bool
    names: tuple[Segment, ...]


def patterns_of(text: str) -> list[Pattern]:
    """The rules of a file, in order; lines that git skips are skipped."""
    read = (_pattern(line.removesuffix("\r")) for line in text.removeprefix("\ufeff").split("\n"))
    return [pattern for pattern in read if pattern is not None]


def said_of(path: str, is_folder: bool, patterns: list[Pattern]) -> bool | None:
    """Whether `path`, relative to the folder of the file, is ignored: by the last rule that fits it, and only it, not what is in it. None =
    no rule says anything."""
    names = path.split("/")
    for pattern in reversed(patterns):
        if (is_folder or not pattern.folders_only) and fits(names, pattern.names):
            return pattern.ignores
    return None


def _pattern(line: str) -> Pattern | None:
    if line.startswith("#"):
        return None
    ignores = not line.startswith("!")
    line = _trimmed(line if ignores else line[1:])
    folders_only = line.endswith("/")
    line = line.removesuffix("/")
    if not line.strip("/"):
        return None
    # A slash at the start or inside binds it to the folder of the file; else it fits a name anywhere below.
    bound = "/" in line
    names: list[Segment] = [] if bound else [None]
    parts = line.removeprefix("/").split("/")
    for number, part in enumerate(parts):
        if bound and len(part) >= 2 and not part.strip("*"):
            # Behind the last slash it is what lies below, not the folder itself.
            names += [ANY, None] if number == len(parts) - 1 else [None]
            continue
        fixed = _fixed(part)
        if fixed is None:
            return None
        names.append(segment(fixed))
    return Pattern(ignores, folders_only, tuple(names))


def _trimmed(line: str) -> str:
    """Without the spaces behind, unless a backslash holds one."""
    bare = line.rstrip(" ")
    if bare == line:
        return line
    held = (len(bare) - len(bare.rstrip("\\"))) % 2
    return bare + " " * held


def _fixed(pattern: str) -> list[str] | None:
    """The expressions between the stars of one name. None = git takes it for one that fits nothing."""
    out = [""]
    at = 0
    while at < len(pattern):
        one = pattern[at]
        if one == "*":
            if pattern[at - 1 : at] != "*" or at == 0:
                out.append("")
        elif one == "?":
            out[-1] += "."
        elif one == "[":
            bracket = _bracket(pattern, at)
            if bracket is None:
                return None
            out[-1] += bracket[0]
            at = bracket[1]
            continue
        else:
            if one == "\\":
                at += 1
                if at == len(pattern):
                    return None
            out[-1] += re.escape(pattern[at])
        at += 1
    return out


def _bracket(pattern: str, start: int) -> tuple[str, int] | None:
    """The expression of a set that opens at `start`, and where it ends; None = it is not closed, or names an unknown class."""
    at = start + 1
    without = pattern[at : at + 1] in {"!", "^"}
    at += without
    items: list[str] = []
    first = at
    while at < len(pattern):
        if pattern[at] == "]" and at > first:
            inner = "".join(items)
            return (f"[^{inner}]" if without and inner else "." if without else f"[{inner}]" if inner else "(?!)"), at + 1
        if pattern.startswith("[:", at) and (closed := pattern.find(":]", at)) > 0:
            name = pattern[at + 2 : closed]
            if name not in _CLASSES:
                return None
            items.append(_CLASSES[name])
            at = closed + 2
            continue
        low, at = _letter(pattern, at)
        if low is None:
            return None
        if pattern[at : at + 1] == "-" and pattern[at + 1 : at + 2] not in {"", "]"}:
            high, at = _letter(pattern, at + 1)
            if high is None:
                return None
            if low <= high:
                items.append(f"{re.escape(low)}-{re.escape(high)}")
            continue
        items.append(re.escape(low))
    return None


def _letter(pattern: str, at: int) -> tuple[str | None, int]:
    if pattern[at] != "\\":
        return pattern[at], at + 1
    return (pattern[at + 1], at + 2) if at + 1 < len(pattern) else (None, at + 1)
