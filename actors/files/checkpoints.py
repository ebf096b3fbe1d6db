"""Checkpoints of a workspace: commits in a git repository of our own beside it, so that the user's repository, index, hooks and filters are
never touched and a workspace without git has them too.

Git sees no file of the workspace: it is given bytes and gives them back, so line-ending and clean/smudge filters play no part, no link is
followed, and what is restored is byte for byte what was there. What git does not keep (permissions, which folders were empty, what was
refused) stands in a file of each commit, ``.cuebook/checkpoint.json``. Only called inside steps.
`git --git-dir=.cuebook/checkpoints.git log --all` shows them.
"""

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from actors.files.disk import DiskRefusalError, delete_below, folder_of, link_below, own_folder, read_below, read_link, write_below
from actors.files.limits import CHECKPOINT_FILES_MAX, GIT_TIMEOUT_S, READ_BYTES_MAX, REFUSALS_SHOWN
from actors.files.listing import LeftOut, Listing, listing, shown
from actors.files.names import WORKSPACE_FOLDER, Refusal
from actors.files.rules import Rules
from actors.tools.git import feed_git, run_git

_NAMES_SHOWN = 100
_REPOSITORY: Final = (WORKSPACE_FOLDER, "checkpoints.git")
_FACTS: Final = f"{WORKSPACE_FOLDER}/checkpoint.json"
_FILE, _PROGRAM, _LINK = "100644", "100755", "120000"
_USUAL: Final = {_FILE: 0o644, _PROGRAM: 0o755, _LINK: 0o777}
_CONFIG: Final = b"[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n"
# With these a repository takes its settings, objects or history from somewhere else.
_REDIRECTS: Final = (
    ("commondir",), ("config.worktree",), ("shallow",), ("info", "grafts"), ("objects", "info", "alternates"),
    ("objects", "info", "http-alternates"),
)  # fmt: skip
_ENVIRONMENT: Final = {
    "GIT_AUTHOR_NAME": "Cuebook",
    "GIT_AUTHOR_EMAIL": "cuebook@localhost",
    "GIT_COMMITTER_NAME": "Cuebook",
    "GIT_COMMITTER_EMAIL": "cuebook@localhost",
    "GIT_NO_REPLACE_OBJECTS": "1",
}


class CheckpointError(Exception):
    """Git is absent, fails, or does not know the checkpoint."""


class Kept(msgspec.Struct, frozen=True, kw_only=True, tag="kept"):
    """A checkpoint as git has it: the commit, the files and links in it, and how many others were refused. refused: the first hundred of
    them."""

    commit: str
    files: int
    left_out: int
    refused: list[LeftOut] = []


class Restored(msgspec.Struct, frozen=True, kw_only=True, tag="restored"):
    """What a restore did. The lists name the first hundred."""

    written: int
    removed: int
    written_paths: list[str]
    removed_paths: list[str]
    before: str
    """Checkpoint of what was there before, so that a restore can be taken back."""

    refused: list[LeftOut] = []
    """What was left as it is, because a rule or the disk refuses it."""


class _Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What git does not keep. modes: permissions other than the usual ones. left_out: what was there and refused. empty: folders."""

    modes: dict[str, int] = {}
    left_out: list[str] = []
    empty: list[str] = []


class _Item(NamedTuple):
    """A file of a checkpoint: git's mode, the name of its content, and all its permission bits."""

    mode: str
    blob: str
    permissions: int


def make(root: str, label: str, parent: str | None, rules: Rules) -> Kept | Refusal:
    """Keep every file and link of the workspace that git would not ignore and `rules` do not refuse.

    Returns: the checkpoint; a refusal where the workspace's own folder is not what was made there.

    Raises:
        CheckpointError: git failed, or there are more than 50,000 files.
    """
    try:
        with _repository(root) as git:
            return _make(root, git, label, parent, rules)
    except DiskRefusalError as error:
        return error.refusal


def restore(root: str, commit: str, rules: Rules) -> Restored | Refusal:
    """Make the workspace what it was, byte for byte: files that differ are written, files that came since are removed, with the folders
    that came with them.

    What git ignores and what is refused is left alone. Running it again after a crash finishes what was begun.

    Returns: what was done; a refusal where the workspace's own folder is not what was made there.

    Raises:
        CheckpointError: git failed or the checkpoint is gone; nothing was changed.
    """
    try:
        with _repository(root) as git:
            return _restore(root, git, commit, rules)
    except DiskRefusalError as error:
        return error.refusal


def compare(root: str, first: str, second: str) -> str | Refusal:
    """The differences between two checkpoints as a unified diff, cut after 512 KiB. Raises: CheckpointError."""
    try:
        with _repository(root) as git:
            words = ("diff", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", first, second)
            return git(*words, "--", f":(exclude){_FACTS}")[:READ_BYTES_MAX].decode("utf-8", "replace")
    except DiskRefusalError as error:
        return error.refusal


class _Git:
    def __init__(self, repository: Path, index: str) -> None:
        self._repository = repository
        self._environment: Mapping[str, str] = {**_ENVIRONMENT, "GIT_INDEX_FILE": index}

    def __call__(self, *arguments: str, stdin: bytes | None = None) -> bytes:
        words = (f"--git-dir={self._repository}", *arguments)
        done = run_git(self._repository, *words, timeout_s=GIT_TIMEOUT_S, stdin=stdin, more=self._environment)
        return self._done(done, arguments[0])

    def keep(self, contents: Iterable[bytes]) -> None:
        """Put each of `contents` among the objects."""
        words = (f"--git-dir={self._repository}", "fast-import", "--quiet", "--done")
        fed = feed_git(self._repository, *words, blocks=_stream(contents), timeout_s=GIT_TIMEOUT_S, more=self._environment)
        self._done(b"" if fed else None, "fast-import")

    def _done(self, output: bytes | None, what: str) -> bytes:
        if output is None:
            raise CheckpointError(f"git {what} failed in the checkpoints of {self._repository.parent.parent}; is git installed?")
        return output


def _stream(contents: Iterable[bytes]) -> Iterator[bytes]:
    for content in contents:
        yield b"blob\ndata %d\n" % len(content)
        yield content
        yield b"\n"
    yield b"done\n"


@contextmanager
def _repository(root: str) -> Iterator[_Git]:
    """Our repository, made where it is missing, with an index that lives for one call.

    A code base may bring a folder of this name along. So its settings are ours before git reads them, and one that points elsewhere is
    refused.
    """
    repository = own_folder(root) / _REPOSITORY[-1]
    if not _is_there(root, (*_REPOSITORY, "HEAD")):
        write_below(root, (*_REPOSITORY, "config"), _CONFIG, 0o644)
        if run_git(Path(root), "init", "--bare", "--quiet", "--template=", "--object-format=sha1", str(repository)) is None:
            raise CheckpointError("git cannot make a repository for checkpoints; is it installed?")
    held = read_below(root, (*_REPOSITORY, "config"), READ_BYTES_MAX)
    if held is None or held[0] != _CONFIG:
        write_below(root, (*_REPOSITORY, "config"), _CONFIG, 0o644)
    for redirect in _REDIRECTS:
        if _is_there(root, (*_REPOSITORY, *redirect)):
            reason = f"{'/'.join((*_REPOSITORY, *redirect))} leads out of the repository that was made here"
            raise DiskRefusalError(Refusal(rule="protected", reason=reason))
    for inner in (("objects", ""), ("refs", "heads", "")):
        with folder_of(root, (*_REPOSITORY, *inner), make=True):
            pass
    with tempfile.TemporaryDirectory(dir=repository, prefix="index-") as folder:
        yield _Git(repository, f"{folder}/index")


def _is_there(root: str, parts: tuple[str, ...]) -> bool:
    """Raises: DiskRefusalError: a link stands on the way, or in its place."""
    try:
        with folder_of(root, parts) as folder:
            seen = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    if stat.S_ISLNK(seen.st_mode):
        raise DiskRefusalError(Refusal(rule="link", reason=f"{'/'.join(parts)!r} is a link"))
    return True


def _make(root: str, git: _Git, label: str, parent: str | None, rules: Rules) -> Kept:
    there = listing(root, rules)
    if len(there.entries) > CHECKPOINT_FILES_MAX:
        count = f"{len(there.entries):,} files; at most {CHECKPOINT_FILES_MAX:,} fit"
        raise CheckpointError(f"{count}: list in .gitignore what is made, not written")
    items: dict[str, _Item] = {}
    had = {line.split(b"\t", 1)[0].split(b" ")[2].decode() for line in _lines(git, parent)}
    git.keep(_contents(root, there, rules, items, had))
    facts = _Facts(
        modes={shown(path): item.permissions for path, item in items.items() if item.permissions != _USUAL[item.mode]},
        left_out=[one.path for one in there.left_out], empty=there.empty,
    )  # fmt: skip
    encoded = msgspec.json.encode(facts)
    git.keep([encoded])
    lines = [f"{item.mode} {item.blob} 0\t{path}\0" for path, item in items.items()]
    lines.append(f"{_FILE} {_named(encoded)} 0\t{_FACTS}\0")
    git("update-index", "-z", "--index-info", stdin="".join(lines).encode("utf-8", "surrogateescape"))
    tree = git("write-tree").decode().strip()
    above = [] if parent is None else ["-p", parent]
    commit = git("commit-tree", tree, *above, stdin=_message(label)).decode().strip()
    git("update-ref", f"refs/heads/checkpoint-{commit[:12]}", commit)
    return Kept(commit=commit, files=len(items), left_out=len(there.left_out), refused=there.left_out[:REFUSALS_SHOWN])


def _message(label: str) -> bytes:
    return (label.replace("\0", " ").strip() or "checkpoint").encode("utf-8", "backslashreplace")


def _contents(root: str, there: Listing, rules: Rules, items: dict[str, _Item], had: set[str]) -> Iterator[bytes]:
    """The contents that git does not have yet. What cannot be read after all moves to what is left out."""
    for path, link in there.entries:
        parts = path.split("/")
        try:
            if link:
                target = read_link(root, parts)
                read = None if target is None else (target, _USUAL[_LINK])
            else:
                read = read_below(root, parts, rules.max_file_bytes)
        except DiskRefusalError as error:
            there.left_out.append(LeftOut(path=shown(path), refusal=error.refusal))
            continue
        if read is None:
            continue
        content, permissions = read
        blob = _named(content)
        items[path] = _Item(_LINK if link else _PROGRAM if permissions & stat.S_IXUSR else _FILE, blob, permissions)
        if blob not in had:
            had.add(blob)
            yield content


def _restore(root: str, git: _Git, commit: str, rules: Rules) -> Restored:
    wanted, then = _tree(git, commit)
    kept = _make(root, git, f"before the restore of {commit[:12]}", commit, rules)
    there, now = _tree(git, kept.commit)
    untouched = set() if then is None else {*then.left_out}
    # A checkpoint from before links were kept says nothing of them.
    came = there.keys() - wanted.keys() - untouched
    removed = sorted(path for path in came if then is not None or there[path].mode != _LINK)
    written = sorted(path for path, item in wanted.items() if there.get(path) != item)
    folders = _above(wanted) | (set() if then is None else {folder for path in then.empty for folder in (*_above([path]), path)})
    refused: list[LeftOut] = []
    removed_paths: list[str] = []
    written_paths: list[str] = []
    # Removed first: a file may stand where a folder is needed.
    for path in removed:
        parts = path.split("/")
        new = sum("/".join(parts[:number]) not in folders for number in range(1, len(parts)))
        with _collected(path, refused, removed_paths):
            delete_below(root, parts, new)
    # What was refused is not in the checkpoint of what was there before, so writing over it could not be taken back.
    safe = set() if now is None else {*now.left_out}
    for path in written:
        parts, item = path.split("/"), wanted[path]
        with _collected(path, refused, written_paths):
            if path in safe:
                refusal = next((one.refusal for one in kept.refused if one.path == path), None)
                raise DiskRefusalError(refusal or Refusal(rule="protected", reason=f"{path!r} was refused when it was to be kept"))
            if path in there and (there[path].mode == _LINK) != (item.mode == _LINK):
                delete_below(root, parts)
            content = git("cat-file", "blob", item.blob)
            if item.mode == _LINK:
                link_below(root, parts, content)
            else:
                write_below(root, parts, content, item.permissions)
    return Restored(
        written=len(written_paths), removed=len(removed_paths), written_paths=written_paths[:_NAMES_SHOWN],
        removed_paths=removed_paths[:_NAMES_SHOWN], before=kept.commit, refused=refused[:REFUSALS_SHOWN],
    )  # fmt: skip


@contextmanager
def _collected(path: str, refused: list[LeftOut], done: list[str]) -> Iterator[None]:
    try:
        yield
        done.append(path)
    except DiskRefusalError as error:
        refused.append(LeftOut(path=path, refusal=error.refusal))


def _above(paths: Iterable[str]) -> set[str]:
    """All folders that lead to `paths`."""
    found: set[str] = set()
    for path in paths:
        while "/" in path:
            path = path.rpartition("/")[0]
            found.add(path)
    return found


def _tree(git: _Git, commit: str) -> tuple[dict[str, _Item], _Facts | None]:
    """The files of a checkpoint; None in the place of the facts for one from before they were kept."""
    items: dict[str, _Item] = {}
    facts: _Facts | None = None
    for line in _lines(git, commit):
        about, _, path = line.decode("utf-8", "surrogateescape").partition("\t")
        mode, _, blob = about.split(" ")
        if path == _FACTS:
            facts = msgspec.json.decode(git("cat-file", "blob", blob), type=_Facts)
        else:
            items[path] = _Item(mode, blob, _USUAL[mode])
    if facts is not None:
        items.update({path: items[path]._replace(permissions=mode) for path, mode in facts.modes.items() if path in items})
    return items, facts


def _lines(git: _Git, commit: str | None) -> list[bytes]:
    return [] if commit is None else git("ls-tree", "-r", "-z", commit).split(b"\0")[:-1]


def _named(content: bytes) -> str:
    """Git's name for a content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
