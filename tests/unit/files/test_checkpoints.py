"""Checkpoints: whole states of a workspace, byte for byte, beside whatever git the user has."""

import shutil
import subprocess
from pathlib import Path

import pytest

from actors.files import checkpoints
from actors.files.checkpoints import CheckpointError
from actors.files.rules import DEFAULT_RULES
from actors.testing import ActorTest
from tests.unit.files.conftest import refusals

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def tree(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink() and ".cuebook" not in path.parts and ".git" not in path.parts
    }


async def test_restore_is_byte_for_byte_and_can_be_taken_back(files: ActorTest, workspace: Path) -> None:
    (workspace / ".gitattributes").write_text("* text=auto eol=crlf\n*.py filter=shout\n")
    (workspace / "src" / "data.bin").write_bytes(bytes(range(256)) * 10)
    (workspace / "src" / "mixed.txt").write_bytes(b"a\r\nb\nc\r")
    before = tree(workspace)
    made = await files.when("checkpoint", label="start")
    assert made.reply["files"] == len(before)
    (workspace / "src" / "mixed.txt").write_bytes(b"a\nb\n")
    (workspace / "src" / "data.bin").unlink()
    (workspace / "src" / "new" / "deep").mkdir(parents=True)
    (workspace / "src" / "new" / "deep" / "x.py").write_text("new")
    changed = tree(workspace)
    restored = await files.when("restore", commit=made.reply["commit"])
    assert tree(workspace) == before
    assert (restored.reply["written"], restored.reply["removed"]) == (2, 1)
    checkpoints.restore(str(workspace), restored.reply["before"], DEFAULT_RULES)
    assert tree(workspace) == changed


async def test_secrets_and_ignored_files_are_left_alone_and_links_are_kept_as_links(
    files: ActorTest, workspace: Path, tmp_path: Path
) -> None:
    (workspace / ".gitignore").write_text("build/\n")
    (workspace / "build").mkdir()
    (workspace / "build" / "out").write_text("made")
    (workspace / "src" / ".env").write_text("KEY=canary-secret")
    (tmp_path / "outside.txt").write_text("outside")
    (workspace / "src" / "link").symlink_to(tmp_path / "outside.txt")
    made = await files.when("checkpoint")
    assert made.reply["left_out"] == 1
    assert [(left.path, left.refusal.rule) for left in refusals(made)] == [("src/.env", "protected")]
    (workspace / "build" / "out").write_text("made anew")
    (workspace / "src" / ".env").write_text("KEY=other")
    await files.when("restore", commit=made.reply["commit"])
    assert (workspace / "build" / "out").read_text() == "made anew"
    assert (workspace / "src" / ".env").read_text() == "KEY=other"
    objects = subprocess.run(
        ["git", f"--git-dir={workspace}/.cuebook/checkpoints.git", "ls-tree", "-r", "--name-only", made.reply["commit"]],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert objects == [".cuebook/checkpoint.json", ".gitignore", "README.md", "src/cart.py", "src/link"]


async def test_the_users_own_repository_and_its_programs_are_never_touched(files: ActorTest, workspace: Path) -> None:
    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(workspace), *words], capture_output=True, text=True, check=True).stdout

    git("init", "--quiet")
    marker = workspace.parent / "ran"
    for name in ("pre-commit", "post-commit", "reference-transaction", "post-index-change"):
        hook = workspace / ".git" / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\ntouch {marker}\n")
        hook.chmod(0o755)
    git("config", "filter.shout.clean", f"touch {marker}")
    git("config", "core.fsmonitor", f"touch {marker}")
    (workspace / ".gitattributes").write_text("* filter=shout\n")
    status = git("-c", "core.fsmonitor=false", "status", "--porcelain=v2", "--untracked-files=all")
    made = await files.when("checkpoint", label="x")
    (workspace / "src" / "cart.py").write_text("changed")
    await files.when("restore", commit=made.reply["commit"])
    assert not marker.exists()
    assert git("-c", "core.fsmonitor=false", "status", "--porcelain=v2", "--untracked-files=all") == status
    assert not (workspace / ".git" / "index").exists()


async def test_a_diff_between_two(files: ActorTest, workspace: Path) -> None:
    first = (await files.when("checkpoint", label="first")).reply["commit"]
    (workspace / "src" / "cart.py").write_text("one\n2\nthree\n")
    second = (await files.when("checkpoint", label="second")).reply["commit"]
    shown = (await files.when("compare", first=first, second=second)).reply
    assert "-two\n+2\n" in shown
    assert (await files.when("compare", first=first, second="HEAD")).refused
    assert (await files.when("restore", commit="HEAD")).refused
    assert [kept["label"] for kept in (await files.when("kept")).reply] == ["first", "second"]


def test_a_checkpoint_that_is_gone_changes_nothing(workspace: Path) -> None:
    before = tree(workspace)
    with pytest.raises(CheckpointError):
        checkpoints.restore(str(workspace), "0" * 40, DEFAULT_RULES)
    assert tree(workspace) == before
