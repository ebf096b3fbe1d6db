"""Checkpoints of a workspace: commits in a git repository of our own beside it, so that the user's repository, index, hooks and filters are
never touched and a workspace without git has them too.

Bytes go in by ``hash-object --no-filters`` and come out by ``cat-file``: line-ending and clean/smudge filters play no part, and what is
restored is byte for byte what was there. Only called inside steps. `git --git-dir=.cuebook/checkpoints.git log --all` shows them.
"""

import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from actors.files.disk import delete_below, own_folder, write_below
from actors.files.limits import CHECKPOINT_FILES_MAX, GIT_TIMEOUT_S, READ_BYTES_MAX
from actors.files.rules import Refusal, Rules, holds_secrets, path_parts
from actors.tools.git import run_git

_NAMES_SHOWN = 100
_AUTHOR = {
    f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in (("NAME", "Cuebook"), ("EMAIL", "cuebook@localhost"))
}


class CheckpointError(Exception):
    """Git is absent, fails, or does not know the checkpoint."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint as git has it: the commit, the files in it, and those left out (links, devices, names that hold secrets)."""

    commit: str
    files: int
    left_out: int


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What a restore did. The lists name the first hundred."""

    written: int
    removed: int
    written_paths: list[str]
    removed_paths: list[str]
    before: str
    """Checkpoint of what was there before, so that a restore can be taken back."""


def make(root: str, label: str, parent: str | None, rules: Rules) -> Kept:
    """Keep every file of the workspace that git would not ignore.

    Raises:
        CheckpointError: git failed, or there are more than 50,000 files.
        DiskRefusalError: the workspace's own folder is a link.
    """
    with _repository(root) as git:
        listed, left_out = _listed(root, git, rules)
        blobs = _blobs(git, [path for path, _ in listed])
        lines = [f"{mode} {blob} 0\t{path}\0" for (path, mode), blob in zip(listed, blobs, strict=True)]
        git("update-index", "-z", "--index-info", stdin="".join(lines).encode("utf-8", "surrogateescape"))
        tree = git("write-tree").decode().strip()
        above = [] if parent is None else ["-p", parent]
        commit = git("commit-tree", tree, *above, "-m", label or "checkpoint").decode().strip()
        git("update-ref", f"refs/heads/checkpoint-{commit[:12]}", commit)
    return Kept(commit=commit, files=len(listed), left_out=left_out)


def restore(root: str, commit: str, rules: Rules) -> Restored:
    """Make the workspace what it was, byte for byte: files that differ are written, files that came since are removed.

    What git ignores and what holds secrets is left alone. Running it again after a crash finishes what was begun.

    Raises:
        CheckpointError: git failed or the checkpoint is gone; nothing was changed.
        DiskRefusalError: a link stands where a file was; the files before it in order are restored.
    """
    before = make(root, f"before the restore of {commit[:12]}", commit, rules).commit
    with _repository(root) as git:
        wanted: dict[str, tuple[str, str]] = {}
        for line in git("ls-tree", "-r", "-z", commit).split(b"\0")[:-1]:
            facts, _, path = line.decode("utf-8", "surrogateescape").partition("\t")
            mode, _, blob = facts.split(" ")
            wanted[path] = (mode, blob)
        listed, _ = _listed(root, git, rules)
        there = {path: (mode, blob) for (path, mode), blob in zip(listed, _blobs(git, [path for path, _ in listed]), strict=True)}
        removed = sorted(there.keys() - wanted.keys())
        written = sorted(path for path, facts in wanted.items() if there.get(path) != facts)
        # Removed first: a file may stand where a folder is needed.
        for path in removed:
            delete_below(root, path.split("/"))
        for path in written:
            mode, blob = wanted[path]
            write_below(root, path.split("/"), git("cat-file", "blob", blob), int(mode, 8) & 0o777)
    shown = slice(_NAMES_SHOWN)
    return Restored(written=len(written), removed=len(removed), written_paths=written[shown], removed_paths=removed[shown], before=before)


def compare(root: str, first: str, second: str) -> str:
    """The differences between two checkpoints as a unified diff, cut after 512 KiB. Raises: CheckpointError."""
    with _repository(root) as git:
        shown = git("diff", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", first, second)
    return shown[:READ_BYTES_MAX].decode("utf-8", "replace")


class _Git:
    def __init__(self, root: str, repository: Path, index: str) -> None:
        self._root = Path(root)
        self._words = (f"--git-dir={repository}", f"--work-tree={root}")
        self._environment: Mapping[str, str] = {"GIT_INDEX_FILE": index, **_AUTHOR}

    def __call__(self, *arguments: str, stdin: bytes | None = None) -> bytes:
        done = run_git(self._root, *self._words, *arguments, timeout_s=GIT_TIMEOUT_S, stdin=stdin, more=self._environment)
        if done is None:
            raise CheckpointError(f"git {arguments[0]} failed in the checkpoints of {self._root}; is git installed?")
        return done


@contextmanager
def _repository(root: str) -> Iterator[_Git]:
    """Our repository, made where it is missing, with an index that lives for one call."""
    repository = own_folder(root) / "checkpoints.git"
    if not (repository / "HEAD").is_file() and run_git(Path(root), "init", "--bare", "--quiet", "--template=", str(repository)) is None:
        raise CheckpointError("git cannot make a repository for checkpoints; is it installed?")
    with tempfile.TemporaryDirectory(dir=repository, prefix="index-") as folder:
        yield _Git(root, repository, f"{folder}/index")


def _listed(root: str, git: _Git, rules: Rules) -> tuple[list[tuple[str, str]], int]:
    """(path, mode) of the regular files that git does not ignore, sorted, and how many others there are."""
    listed: list[tuple[str, str]] = []
    left_out = 0
    for name in git("ls-files", "-z", "--others", "--exclude-standard").split(b"\0")[:-1]:
        path = name.decode("utf-8", "surrogateescape")
        parts = path_parts(path)
        # A name that ends in '/' is another repository inside this one.
        if isinstance(parts, Refusal) or holds_secrets(path, rules.protected_files):
            left_out += 1
            continue
        try:
            seen = os.lstat(os.path.join(root, path))  # noqa: PTH118  a Path per file costs more than the call
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(seen.st_mode):
            left_out += 1
            continue
        listed.append((path, "100755" if seen.st_mode & stat.S_IXUSR else "100644"))
    if len(listed) > CHECKPOINT_FILES_MAX:
        raise CheckpointError(f"{len(listed):,} files; at most {CHECKPOINT_FILES_MAX:,} fit: list in .gitignore what is made, not written")
    return sorted(listed), left_out


def _blobs(git: _Git, paths: list[str]) -> list[str]:
    if not paths:
        return []
    names = "\n".join(paths).encode("utf-8", "surrogateescape") + b"\n"
    return git("hash-object", "-w", "--no-filters", "--stdin-paths", stdin=names).decode().split()
