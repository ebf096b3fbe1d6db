"""Lists of files that outgrow a message: pages in order of paths, and what a page says about what was known before."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Final

import msgspec

PAGE_FILES: Final = 2_000
PAGE_BYTES: Final = 512 * 1024
EVENT_FILES: Final = 200
"""Per event: at the longest path that Linux has (4,096 bytes) they still fit into one (S12)."""


class FilePage(msgspec.Struct, frozen=True, kw_only=True):
    """Digest by path, for every file with a path above the cursor and up to `next`; no `next` means up to the end."""

    files: dict[str, str]
    next: str | None


def page_of(files: Mapping[str, str], after: str) -> FilePage:
    """The files whose path is greater than `after`, as many as fit."""
    chosen: dict[str, str] = {}
    used = 0
    waiting = sorted(path for path in files if path > after)
    for path in waiting:
        used += len(path.encode()) + len(files[path]) + 8
        if len(chosen) == PAGE_FILES or (chosen and used > PAGE_BYTES):
            break
        chosen[path] = files[path]
    return FilePage(files=chosen, next=None if len(chosen) == len(waiting) else list(chosen)[-1])


def gone(known: Iterable[str], page: FilePage, after: str) -> list[str]:
    """Paths of `known` in the range of `page` that are not in it, sorted."""
    return sorted({path for path in known if path > after and (page.next is None or path <= page.next)} - set(page.files))


def in_lots(paths: Sequence[str], size: int = EVENT_FILES) -> Iterable[list[str]]:
    """`paths` cut into lists of at most `size`."""
    rest = iter(paths)
    while lot := list(islice(rest, size)):
        yield lot
