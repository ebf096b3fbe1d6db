"""A path that changes between the look and the use: another process swaps a folder, or a file, for a link to the outside as fast as it can.
CUEBOOK_TEST_SWAPS says how often each operation is tried meanwhile."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from actors.files import checkpoints
from actors.files.disk import DiskRefusalError, Found, delete_below, digest, missing_folders, read_below, write_below
from actors.files.rules import DEFAULT_RULES
from actors.files.steps import FileChangedError, keep, put, read_text

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="names are exchanged by a call of Linux")
TRIES = int(os.environ.get("CUEBOOK_TEST_SWAPS", "300"))
SECRET = b"canary that lies outside"
# The kernel exchanges two names at once (renameat2, Linux 3.15), so something stands there at every moment: the link or what belongs there.
SWAPPER = """
import ctypes, os, sys
place, other, target, folder = sys.argv[1:]
libc = ctypes.CDLL(None)
print("ready", flush=True)
while True:
    if libc.renameat2(-100, os.fsencode(place), -100, os.fsencode(other), 2) == 0:
        continue
    try:
        if os.path.islink(other):
            os.mkdir(place) if folder == "folder" else os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        else:
            os.symlink(target, place)
    except FileExistsError:
        pass
"""


@contextmanager
def swapping(place: Path, link_to: Path) -> Iterator[None]:
    """While the block runs, `place` is now what it was and now a link to `link_to`."""
    other = place.with_name("the-other")
    other.symlink_to(link_to)
    words = [sys.executable, "-c", SWAPPER, str(place), str(other), str(link_to), "folder" if place.is_dir() else "file"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield
        finally:
            process.kill()


def tries(root: Path, path: str) -> dict[str, int]:
    """Everything that files can be asked for, over and over. Returns: how it ended."""
    ended: dict[str, int] = {}
    top, parts = str(root), path.split("/")
    for number in range(TRIES):
        for operation in (
            lambda: read_below(top, parts, 1_000),
            lambda: read_text(top, path, 1_000, 1, None),
            lambda: keep(top, path, 1_000),
            lambda number=number: write_below(top, parts, b"ours %d" % number, 0o644),
            lambda: delete_below(top, parts),
            lambda: missing_folders(top, parts),
        ):
            try:
                said = repr(operation())
            except (DiskRefusalError, FileNotFoundError) as error:
                said = type(error).__name__
            assert SECRET.decode() not in said
            assert digest(SECRET) not in said
            ended[said.partition("(")[0]] = ended.get(said.partition("(")[0], 0) + 1
    return ended


def outside_of(workspace: Path) -> Path:
    outside = workspace.parent / "outside"
    outside.mkdir()
    (outside / "x.py").write_bytes(SECRET)
    return outside


def untouched(outside: Path) -> bool:
    return [path.name for path in outside.iterdir()] == ["x.py"] and (outside / "x.py").read_bytes() == SECRET


def test_a_folder_that_becomes_a_link_between_look_and_use_is_never_followed(workspace: Path) -> None:
    outside = outside_of(workspace)
    (workspace / "way").mkdir()
    with swapping(workspace / "way", outside):
        ended = tries(workspace, "way/x.py")
    assert untouched(outside)
    assert ended["DiskRefusalError"] > 0, "the link was never there when somebody looked"


def test_a_file_that_becomes_a_link_between_look_and_use_is_never_followed(workspace: Path) -> None:
    outside = outside_of(workspace)
    (workspace / "src" / "x.py").write_bytes(b"ours")
    with swapping(workspace / "src" / "x.py", outside / "x.py"):
        ended = tries(workspace, "src/x.py")
    assert untouched(outside)
    assert ended["DiskRefusalError"] > 0, "the link was never there when somebody looked"


def test_the_workspaces_own_folder_that_becomes_a_link_is_never_followed(workspace: Path) -> None:
    """Backups and drafts would land outside."""
    outside = outside_of(workspace)
    keep(str(workspace), "src/cart.py", 1_000)
    before = sorted(outside.iterdir())
    with swapping(workspace / ".cuebook" / "backups", outside):
        for number in range(TRIES):
            (workspace / "src" / "cart.py").write_bytes(b"version %d" % number)
            try:
                found = keep(str(workspace), "src/cart.py", 1_000)
                if isinstance(found, Found):
                    put(str(workspace), "src/cart.py", None, found, 1_000)
            except (DiskRefusalError, FileChangedError, FileNotFoundError):
                pass
    assert sorted(outside.iterdir()) == before
    assert untouched(outside)


def test_a_checkpoint_taken_while_a_folder_is_swapped_holds_nothing_from_outside(workspace: Path) -> None:
    """Git would open the names that it was told before: it is given bytes instead."""
    outside = outside_of(workspace)
    for number in range(50):
        (outside / f"{number}.py").write_bytes(SECRET)
    (workspace / "way").mkdir()
    for number in range(50):
        (workspace / "way" / f"{number}.py").write_bytes(b"ours %d" % number)
    commits = []
    with swapping(workspace / "way", outside):
        for _ in range(max(TRIES // 30, 5)):
            kept = checkpoints.make(str(workspace), "", None, DEFAULT_RULES)
            assert isinstance(kept, checkpoints.Kept)
            commits.append(kept.commit)
    repository = workspace / ".cuebook" / "checkpoints.git"
    name = subprocess.run(["git", "hash-object", "--stdin"], input=SECRET, capture_output=True, check=True).stdout.decode().strip()
    for commit in commits:
        listed = subprocess.run(["git", f"--git-dir={repository}", "ls-tree", "-r", commit], capture_output=True, text=True, check=True)
        assert name not in listed.stdout
