"""Patterns of paths, matched in time that grows with pattern times path and no faster, whoever wrote them: a hostile ``*a*a*a*b`` must not
hold the process up. Pure."""

import re
from collections.abc import Sequence
from typing import Final

Segment = re.Pattern[str] | None
"""One name of a path; None = any number of them, also none."""

ANY: Final = re.compile(r".+", re.DOTALL)


def segment(fixed: Sequence[str]) -> re.Pattern[str]:
    """A name: expressions of fixed length, with anything in between. Each but the last is taken where it is first found and never looked
    for again (an atomic group), which is all that a pattern with stars needs."""
    if len(fixed) == 1:
        return re.compile(fixed[0], re.DOTALL)
    first, *inner, last = fixed
    return re.compile(first + "".join(f"(?>.*?{one})" for one in inner if one) + ".*" + last, re.DOTALL)


def fits(path: Sequence[str], wanted: Sequence[Segment]) -> bool:
    """Whether the names of `path` are those of `wanted`, from the first to the last."""
    at = here = 0
    free, from_here = -1, 0
    while here < len(path):
        now = wanted[at] if at < len(wanted) else ANY
        if at < len(wanted) and now is None:
            free, from_here = at, here
            at += 1
        elif at < len(wanted) and now is not None and now.fullmatch(path[here]):
            at, here = at + 1, here + 1
        elif free >= 0:
            # The last free one takes one name more.
            from_here += 1
            at, here = free + 1, from_here
        else:
            return False
    return all(one is None for one in wanted[at:])
