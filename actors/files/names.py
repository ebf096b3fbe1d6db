"""Names of files: which paths an agent may say at all. Pure, so that what is refused here never reaches a disk.

Only plain relative paths with `/` are taken, as they are written: nothing is normalised, because every rewriting is a chance to mean two
things. A path that some disk, shell or reader would take for another one is refused, also where this disk would not.
"""

import re
import unicodedata
from typing import Final, Literal

import msgspec

from actors.files.limits import NAME_BYTES_MAX, PATH_BYTES_MAX
from actors.workspace_id import OWN_FOLDER

Rule = Literal[
    "path_invalid", "outside_workspace", "protected", "not_granted", "outside_grant", "link", "not_a_file", "too_large", "not_permitted",
    "unknown_command", "argument", "program",
]  # fmt: skip

WORKSPACE_FOLDER: Final = OWN_FOLDER
"""Backups and checkpoints, at the top of the workspace. No agent may touch it, no checkpoint holds it."""

_CLOSED_FOLDERS: Final = (".git", ".hg", ".svn", WORKSPACE_FOLDER)
# Names that Windows gives to devices whatever stands behind the dot; refused everywhere, so that a workspace can be moved.
_DEVICES: Final = re.compile(r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9]|conin\$|conout\$)(\..*)?")
# What a shell, or a program that helps, would replace: $HOME, ${HOME}, $(id), %TEMP%. `$id.tsx` and `Foo$Bar.class` are names of files.
_VARIABLE: Final = re.compile(r"\$(\{.*|\(.*|[A-Z_][A-Z0-9_]*)|%[A-Za-z_][A-Za-z0-9_]*%")
# Control, format (zero width, direction), surrogate, private and unassigned characters, line and paragraph separators: nobody sees them,
# and some disks leave them out when they compare names (HFS+, CVE-2014-9390).
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# What a reader takes for '/' or a backslash.
_SEPARATORS: Final = frozenset("\u2044\u2215\u2216\u2571\u29f5\u29f8\uff0f\uff3c")
# Scripts whose letters look like Latin ones. In one word they are mixed only to deceive (Unicode TR 39, 5.2, "highly restrictive").
_ALIKE: Final = frozenset({"CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC", "GEORGIAN", "LISU"})


class Refusal(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """Why something was not done: the rule for programs, the reason for people."""

    rule: Rule
    reason: str


def path_parts(path: str) -> tuple[str, ...] | Refusal:
    """The names that lead from the workspace's top to a file, or why `path` does not name one there."""
    if not path or len(path.encode("utf-8", "surrogatepass")) > PATH_BYTES_MAX:
        return Refusal(rule="path_invalid", reason=f"a path has 1 to {PATH_BYTES_MAX:,} bytes")
    if path.isascii():
        if not path.isprintable():
            return Refusal(rule="path_invalid", reason="the path holds a control character")
    else:
        refusal = _letters(path)
        if refusal is not None:
            return refusal
        # Full-width and other forms of the same characters: what one of them could stand for is judged as well. (A full-width colon is
        # customary in Chinese names, and no disk takes it for the one that names devices.)
        plain = unicodedata.normalize("NFKC", path).replace(":", "_")
        alike = None if plain == path else _plain_parts(plain)
        if isinstance(alike, Refusal):
            return Refusal(rule=alike.rule, reason=f"{path!r} looks like another path: {alike.reason}")
    return _plain_parts(path)


def _plain_parts(path: str) -> tuple[str, ...] | Refusal:
    if path.startswith(("/", "~")) or "\\" in path or re.match(r"[A-Za-z]:", path):
        return Refusal(rule="outside_workspace", reason=f"{path!r} is not relative to the workspace")
    parts = tuple(path.split("/"))
    if ".." in parts:
        return Refusal(rule="outside_workspace", reason=f"{path!r} climbs out with '..'")
    if any(part in {"", "."} or part != part.rstrip(". ") for part in parts):
        return Refusal(rule="path_invalid", reason=f"{path!r} has an empty name, '.', or a name that ends in a dot or a space")
    if any(len(part.encode("utf-8", "surrogatepass")) > NAME_BYTES_MAX for part in parts):
        return Refusal(rule="path_invalid", reason=f"a name in the path has more than {NAME_BYTES_MAX} bytes")
    if any(_VARIABLE.fullmatch(part) for part in parts):
        return Refusal(rule="path_invalid", reason=f"{path!r} holds a variable, which nothing here replaces")
    if any(_DEVICES.fullmatch(part) for part in parts) or ":" in path:
        return Refusal(rule="not_a_file", reason=f"{path!r} names a device")
    # Compared without case: on many disks .GIT is the same folder. Git's own short name on FAT counts as well.
    if any(part.casefold() in _CLOSED_FOLDERS or part.casefold() == "git~1" for part in parts):
        return Refusal(rule="protected", reason=f"{path!r} lies in a folder that no agent may touch")
    return parts


def _letters(path: str) -> Refusal | None:
    """Why the letters of `path` cannot be trusted to be what they look like."""
    if any(unicodedata.category(character) in _UNSEEN for character in path):
        return Refusal(rule="path_invalid", reason="the path holds a character that nobody sees, or half of one")
    if not _SEPARATORS.isdisjoint(path):
        return Refusal(rule="path_invalid", reason=f"{path!r} holds a character that looks like a separator")
    if not unicodedata.is_normalized("NFC", path):
        return Refusal(rule="path_invalid", reason=f"{path!r} is not in normal form (NFC): on some disks it is the same as another name")
    scripts: set[str] = set()
    for character in path:
        if not character.isalpha():
            scripts.clear()
            continue
        scripts.add(unicodedata.name(character, "?").split(" ", 1)[0])
        if "LATIN" in scripts and not scripts.isdisjoint(_ALIKE):
            return Refusal(rule="path_invalid", reason=f"{path!r} mixes letters that look alike in one word")
    return None
