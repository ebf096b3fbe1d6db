"""Whatever agents and people did to a workspace, it comes back as it was: every byte, all permissions, links as links, and what was not
there is not there. And a listing that says what git would, without asking git."""

import os
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from actors.files import DEFAULT_RULES, checkpoints
from actors.files.disk import DiskRefusalError
from actors.files.listing import listing
from actors.testing import ActorTest
from tests.unit.files.conftest import refusals
from tests.unit.files.test_path_tricks import tree


async def test_a_checkpoint_brings_back_bytes_permissions_links_and_absence(files: ActorTest, workspace: Path) -> None:
    (workspace / "src" / "raw.bin").write_bytes(bytes(range(256)))
    (workspace / "src" / "secret.txt").write_text("for the owner only")
    (workspace / "src" / "secret.txt").chmod(0o600)
    (workspace / "src" / "tool.sh").write_text("#!/bin/sh\n")
    (workspace / "src" / "tool.sh").chmod(0o750)
    (workspace / "src" / "way").symlink_to("../README.md")
    (workspace / "src" / "gone").symlink_to("/nowhere/at/all")
    (workspace / "folder").symlink_to("src")
    (workspace / "empty" / "inner").mkdir(parents=True)
    (workspace / "src" / "becomes-a-folder").write_text("file")
    (workspace / "src" / "becomes-a-file").mkdir()
    (workspace / "src" / "becomes-a-file" / "x.py").write_text("inner")
    before = tree(workspace)
    made = await files.when("checkpoint")

    (workspace / "src" / "raw.bin").write_bytes(b"other")
    (workspace / "src" / "secret.txt").chmod(0o644)
    (workspace / "src" / "tool.sh").unlink()
    (workspace / "src" / "way").unlink()
    (workspace / "src" / "way").write_text("a file now")
    (workspace / "src" / "gone").unlink()
    (workspace / "src" / "gone").symlink_to("/somewhere/else")
    (workspace / "folder").unlink()
    (workspace / "folder").mkdir()
    (workspace / "folder" / "new.py").write_text("new")
    (workspace / "empty" / "inner" / "file.txt").write_text("new")
    (workspace / "src" / "becomes-a-folder").unlink()
    (workspace / "src" / "becomes-a-folder" / "deep").mkdir(parents=True)
    (workspace / "src" / "becomes-a-folder" / "deep" / "x.py").write_text("new")
    (workspace / "src" / "becomes-a-file" / "x.py").unlink()
    (workspace / "src" / "becomes-a-file").rmdir()
    (workspace / "src" / "becomes-a-file").symlink_to("cart.py")
    (workspace / "link-that-came").symlink_to("README.md")
    after = tree(workspace)
    restored = await files.when("restore", commit=made.reply["commit"])
    assert restored.reply["refused"] == []
    assert tree(workspace) == before
    assert isinstance(checkpoints.restore(str(workspace), restored.reply["before"], DEFAULT_RULES), checkpoints.Restored)
    assert tree(workspace) == after, "and forth again"


async def test_undo_brings_back_permissions_and_takes_new_folders_away(files: ActorTest, workspace: Path) -> None:
    (workspace / "src" / "cart.py").chmod(0o4640)
    before = tree(workspace)
    for path in ("src/a/b/one.py", "src/a/b/two.py", "src/a/three.py", "src/cart.py"):
        await files.when("write", path=path, content="new", agent="fixer")
    assert stat.S_IMODE((workspace / "src" / "cart.py").stat().st_mode) == 0o640, "new content never runs as somebody else"
    await files.when("delete", path="src/a/b/one.py", agent="fixer")
    await files.when("write", path="src/a/b/one.py", content="again", agent="fixer")
    assert (await files.when("undo", to=0)).reply == ["src/a/b/one.py", "src/a/b/two.py", "src/a/three.py", "src/cart.py"]
    assert tree(workspace) == before


async def test_undo_leaves_a_folder_in_which_somebody_put_something(files: ActorTest, workspace: Path) -> None:
    await files.when("write", path="src/a/b/one.py", content="new", agent="fixer")
    (workspace / "src" / "a" / "theirs.txt").write_text("theirs")
    await files.when("undo", to=0)
    assert [path.name for path in (workspace / "src" / "a").iterdir()] == ["theirs.txt"]


@pytest.mark.parametrize("what", ["too large", "second name"])
async def test_a_restore_never_destroys_what_it_could_not_keep(files: ActorTest, workspace: Path, what: str) -> None:
    """What grew beyond the limit since cannot be taken back, so it is not overwritten; what was refused then and fits now stays as well."""
    small, refused = workspace / "src" / "small.bin", workspace / "src" / "refused.bin"
    small.write_bytes(b"small")
    refused.write_bytes(b"x" * 11 * 1024 * 1024)
    made = await files.when("checkpoint")
    refused.write_bytes(b"small now")
    if what == "too large":
        small.write_bytes(b"y" * 11 * 1024 * 1024)
    else:
        (workspace.parent / "second").hardlink_to(small)
        small.write_bytes(b"y")
    restored = await files.when("restore", commit=made.reply["commit"])
    assert [left["path"] for left in restored.reply["refused"]] == ["src/small.bin"]
    assert small.read_bytes()[:1] == b"y"
    assert refused.read_bytes() == b"small now"


def test_a_checkpoint_from_before_links_were_kept_removes_none(workspace: Path) -> None:
    """Such a one has no file of facts."""
    made = checkpoints.make(str(workspace), "", None, DEFAULT_RULES)
    assert isinstance(made, checkpoints.Kept)
    repository = f"--git-dir={workspace}/.cuebook/checkpoints.git"

    def git(*words: str, stdin: str = "") -> str:
        said = ["git", repository, "-c", "user.name=x", "-c", "user.email=x", *words]
        return subprocess.run(said, input=stdin, capture_output=True, text=True, check=True).stdout.strip()

    git("read-tree", made.commit)
    git("update-index", "--index-info", stdin=f"0 {'0' * 40}\t.cuebook/checkpoint.json\n")
    old = git("commit-tree", git("write-tree"), "-m", "old")
    (workspace / "src" / "way").symlink_to("cart.py")
    (workspace / "src" / "cart.py").write_bytes(b"changed")
    restored = checkpoints.restore(str(workspace), old, DEFAULT_RULES)
    assert isinstance(restored, checkpoints.Restored)
    assert (workspace / "src" / "way").is_symlink()
    assert (workspace / "src" / "cart.py").read_bytes() == b"one\ntwo\nthree\n"


HOSTILE = ("commondir", "objects/info/alternates", "config.worktree", "info/grafts")


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_repository_that_came_with_the_code_leads_nowhere(files: ActorTest, workspace: Path, name: str) -> None:
    await files.when("checkpoint")
    place = workspace / ".cuebook" / "checkpoints.git" / name
    place.parent.mkdir(exist_ok=True, parents=True)
    place.write_text("/somewhere/else\n")
    result = await files.when("checkpoint")
    assert (result.reply["type"], result.reply["rule"]) == ("refused", "protected")
    assert [type(event).__name__ for event in result.events] == ["AccessDenied"]


async def test_the_settings_of_a_repository_that_came_with_the_code_are_not_read(files: ActorTest, workspace: Path) -> None:
    marker = workspace.parent / "ran"
    repository = workspace / ".cuebook" / "checkpoints.git"
    (repository / "hooks").mkdir(parents=True)
    for hook in ("reference-transaction", "post-commit"):
        (repository / "hooks" / hook).write_text(f"#!/bin/sh\ntouch {marker}\n")
        (repository / "hooks" / hook).chmod(0o755)
    (repository / "config").write_text(f"[include]\n\tpath = /dev/zero\n[core]\n\tfsmonitor = touch {marker}\n\tworktree = /\n")
    made = await files.when("checkpoint")
    assert made.reply["files"] == 2
    (workspace / "src" / "cart.py").write_text("changed")
    assert (await files.when("restore", commit=made.reply["commit"])).reply["written"] == 1
    assert not marker.exists()
    assert b"include" not in (repository / "config").read_bytes()


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "name", [".gitignore", ".gitattributes", "src/.gitignore", "nested/.git/HEAD", "nested/.git/commondir", "nested/.git"]
)
async def test_a_named_pipe_where_git_looks_for_rules_holds_nothing_up(files: ActorTest, workspace: Path, name: str) -> None:
    (workspace / name).parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(workspace / name)
    made = await files.when("checkpoint")
    assert made.reply["files"] == 2
    assert {left.path: left.refusal.rule for left in refusals(made)} == (
        {"nested": "protected"} if name.startswith("nested") else {name: "not_a_file"}
    )


PATTERNS = st.sampled_from(
    ["*.log", "!keep.log", "/a", "b/", "a/*.py", "**/c", "a/**", "!a/b", "# note", "", "*.p[yx]", "a/b/", "\\#x", "c ", "!", "[", "/*",
     "!/a/",
     "[!k]*.log", "[[:alpha:]].py", "a/[a-b]/*", "x.??", "**/b/**", "a/**/x.py", "/", "b\\", "!/a/b/", "c.t**", "**", "/**/a",
     " x", "x.py  "]
)  # fmt: skip
RULES_TEXT = st.lists(PATTERNS, max_size=6).map(lambda lines: "\n".join(lines) + "\n")
PLACES = [f"{folder}{name}" for folder in ("", "a/", "b/", "a/b/", "c/a/", "a/c/") for name in ("x.py", "x.log", "keep.log", "#x", "c.txt")]


@example(top="a/**\n", inner="!keep.log\n")
@example(top="b/\n!/a/\n", inner="\n")
@settings(max_examples=int(os.environ.get("CUEBOOK_TEST_IGNORE_EXAMPLES", "60")), deadline=None, suppress_health_check=list(HealthCheck))
@given(top=RULES_TEXT, inner=RULES_TEXT)
def test_the_same_files_are_ignored_as_by_git(tmp_path_factory: pytest.TempPathFactory, top: str, inner: str) -> None:
    root = tmp_path_factory.mktemp("ignored")
    for place in PLACES:
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_text(place)
    (root / ".gitignore").write_text(top)
    (root / "a" / ".gitignore").write_text(inner)
    subprocess.run(["git", "init", "--quiet", str(root)], check=True)
    words = ["git", "-c", "core.excludesFile=/dev/null", "ls-files", "-z", "--others", "--exclude-standard"]
    said = subprocess.run(words, cwd=root, capture_output=True, text=True, check=True).stdout.split("\0")[:-1]
    assert [entry.path for entry in listing(str(root), DEFAULT_RULES).entries] == sorted(said)


def test_a_workspace_that_became_a_link_is_refused(workspace: Path) -> None:
    workspace.rename(workspace.parent / "real")
    workspace.symlink_to(workspace.parent / "real")
    with pytest.raises(DiskRefusalError):
        listing(str(workspace), DEFAULT_RULES)
