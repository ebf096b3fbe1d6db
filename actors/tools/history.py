"""What git's log says about a folder: how much, by how many, and which files change most."""

from __future__ import annotations

from pathlib import Path

import msgspec

from actors.tools.git import is_governed_by_git, run_git
from actors.tools.limits import HISTORY_COMMITS_MAX, HISTORY_FILES_MAX, HISTORY_TIMEOUT_S

_FORMAT = "%x01%H%x02%ae%x02%cI"


class ChangedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file and its share of the examined commits; lines are 0 for binary content."""

    path: str
    commits: int
    added: int
    deleted: int


class History(msgspec.Struct, frozen=True, kw_only=True):
    """Facts of the newest `commits_examined` commits that touch the folder; `commits` counts all of them.

    `last_commit_date` is git's committer date with its zone (ISO 8601). Only files that still exist are listed.
    """

    commits: int
    commits_examined: int
    authors: int
    last_commit_date: str
    most_changed: list[ChangedFile]


def git_history(root: Path) -> History | None:
    """The history of one folder; None without git, without commits, or when git exceeds `HISTORY_TIMEOUT_S`."""
    if not is_governed_by_git(root):
        return None
    counted = run_git(root, "rev-list", "--count", "HEAD", "--", ".", timeout_s=HISTORY_TIMEOUT_S)
    answer = run_git(
        root,
        "log",
        f"--max-count={HISTORY_COMMITS_MAX}",
        "--no-ext-diff",
        "--no-textconv",
        "--no-renames",
        "--no-show-signature",
        "--no-mailmap",
        "--no-color",
        "--numstat",
        "-z",
        "--relative",
        f"--format={_FORMAT}",
        "HEAD",
        "--",
        ".",
        timeout_s=HISTORY_TIMEOUT_S,
    )
    if counted is None or not answer:
        return None
    return _read_log(root, answer.decode("utf-8", "replace"), int(counted))


def _read_log(root: Path, text: str, commits: int) -> History | None:
    authors: set[str] = set()
    dates: list[str] = []
    changes: dict[str, list[int]] = {}
    for commit in text.split("\x01")[1:]:
        head, _, body = commit.partition("\0")
        fields = head.split("\x02")
        if len(fields) != 3:
            continue
        authors.add(fields[1].lower())
        dates.append(fields[2].strip())
        for record in body.split("\0"):
            numbers = record.strip("\n").split("\t", 2)
            if len(numbers) == 3 and numbers[2]:
                count = changes.setdefault(numbers[2], [0, 0, 0])
                count[0] += 1
                count[1] += int(numbers[0]) if numbers[0].isdigit() else 0
                count[2] += int(numbers[1]) if numbers[1].isdigit() else 0
    if not dates:
        return None
    ordered = sorted(changes.items(), key=lambda item: (-item[1][0], -(item[1][1] + item[1][2]), item[0]))
    existing = [(path, count) for path, count in ordered if (root / path).is_file()]
    return History(
        commits=commits,
        commits_examined=len(dates),
        authors=len(authors),
        last_commit_date=dates[0],
        most_changed=[
            ChangedFile(path=path, commits=count[0], added=count[1], deleted=count[2]) for path, count in existing[:HISTORY_FILES_MAX]
        ],
    )
