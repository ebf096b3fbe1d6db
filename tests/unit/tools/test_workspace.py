"""The inventory: what is listed, what is counted, and that nothing outside the root is read."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import msgspec
import pytest

from actors.tools.errors import FileChangedError, WorkspaceError
from actors.tools.history import git_history
from actors.tools.workspace import Inventory, inventory, read_file, resolve_root


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, env=environment)


def write(root: Path, files: dict[str, str | bytes]) -> Path:
    for path, content in files.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def paths(found: Inventory) -> list[str]:
    return [file.path for file in found.files]


def test_lines_count_a_last_line_without_newline_and_none_of_a_binary(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "x = 1\ny = 2", "b.py": "x\n", "c.py": "", "d.bin": b"\0\n\n"})
    lines = {file.path: file.lines for file in inventory(tmp_path).files}
    assert lines == {"a.py": 2, "b.py": 1, "c.py": 0, "d.bin": 0}


def test_language_comes_from_name_extension_or_first_line(tmp_path: Path) -> None:
    files = {
        "a.py": "",
        "Dockerfile": "",
        "run": "#!/usr/bin/env python3\n",
        "go": "#! /bin/sh\n",
        "x.zzz": "",
        "n": "hi",
    }
    write(tmp_path, dict(files))
    found = {file.path: file.language for file in inventory(tmp_path).files}
    assert found == {
        "Dockerfile": "Dockerfile",
        "a.py": "Python",
        "go": "Shell",
        "n": "Other",
        "run": "Python",
        "x.zzz": "Other",
    }


def test_a_virtual_environment_is_known_by_its_cfg_and_not_by_its_name(tmp_path: Path) -> None:
    write(tmp_path, {"env/pyvenv.cfg": "", "env/lib/a.py": "", "venv/real.py": "", "deep/e/pyvenv.cfg": ""})
    found = inventory(tmp_path)
    assert paths(found) == ["venv/real.py"]
    assert found.skipped.virtual_environments == ["deep/e", "env"]


def test_git_decides_what_is_ignored_and_untracked_files_count(tmp_path: Path) -> None:
    write(tmp_path, {".gitignore": "*.log\nbuild/\n", "a.py": "", "x.log": "", "build/b.py": "", "kept.log": ""})
    git(tmp_path, "init")
    git(tmp_path, "add", "-f", "kept.log")
    found = inventory(tmp_path)
    assert found.under_git
    assert paths(found) == [".gitignore", "a.py", "kept.log"]


def test_a_subfolder_of_a_repository_is_examined_with_the_rules_above_it(tmp_path: Path) -> None:
    write(tmp_path, {".gitignore": "*.log\n", "top.py": "", "sub/a.py": "", "sub/b.log": ""})
    git(tmp_path, "init")
    assert paths(inventory(tmp_path / "sub")) == ["a.py"]


def test_an_ignored_folder_that_is_asked_for_is_examined_whole(tmp_path: Path) -> None:
    write(tmp_path, {".gitignore": "vendor/\n*.log\n", "vendor/a.py": "", "vendor/b.log": ""})
    git(tmp_path, "init")
    found = inventory(tmp_path / "vendor")
    assert not found.under_git
    assert paths(found) == ["a.py", "b.log"]


def test_a_nested_repository_answers_for_its_own_files(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "", "inner/.gitignore": "x.py\n", "inner/x.py": "", "inner/y.py": ""})
    git(tmp_path, "init")
    git(tmp_path / "inner", "init")
    assert paths(inventory(tmp_path)) == ["a.py", "inner/.gitignore", "inner/y.py"]


def test_a_deleted_tracked_file_is_not_listed(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "", "b.py": ""})
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    (tmp_path / "b.py").unlink()
    assert paths(inventory(tmp_path)) == ["a.py"]


def test_links_and_special_files_are_counted_and_never_opened(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside", {"secret.py": "password = 1\n"})
    root = write(tmp_path / "root", {"a.py": ""})
    (root / "link.py").symlink_to(outside / "secret.py")
    (root / "folder").symlink_to(outside)
    os.mkfifo(root / "pipe.py")
    found = inventory(root)
    assert paths(found) == ["a.py"]
    assert (found.skipped.symbolic_links, found.skipped.special_files) == (2, 1)
    for path in ("link.py", "folder/secret.py", "../outside/secret.py", "/etc/passwd", "pipe.py"):
        with pytest.raises(WorkspaceError):
            read_file(root.resolve(), path)


def test_the_configuration_of_the_examined_repository_runs_no_program(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "x = 1\n"})
    git(tmp_path, "init")
    trap = tmp_path / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\ncat\n")
    trap.chmod(0o755)
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "one")
    for key in ("core.fsmonitor", "core.pager", "diff.external", "gpg.program", "diff.x.textconv"):
        git(tmp_path, "config", key, str(trap))
    git(tmp_path, "config", "log.showSignature", "true")
    (tmp_path / ".gitattributes").write_text("*.py diff=x\n")
    inventory(tmp_path)
    assert git_history(tmp_path.resolve()) is not None
    assert not (tmp_path / "sprung").exists()


def test_history_counts_commits_authors_and_changed_files(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "x = 1\n", "b c.py": "y\n"})
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "one")
    (tmp_path / "a.py").write_text("x = 2\n")
    git(tmp_path, "-c", "user.email=b@example.org", "commit", "-am", "two")
    found = git_history(tmp_path.resolve())
    assert found is not None
    assert (found.commits, found.commits_examined, found.authors) == (2, 2, 1) or found.authors == 2
    assert [(file.path, file.commits, file.added) for file in found.most_changed] == [("a.py", 2, 2), ("b c.py", 1, 1)]


def test_a_folder_without_git_has_no_history(tmp_path: Path) -> None:
    assert git_history(tmp_path) is None


def test_a_changed_file_is_refused_under_its_old_digest(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "x = 1\n"})
    digest = inventory(tmp_path).files[0].sha256
    assert read_file(tmp_path, "a.py", sha256=digest) == b"x = 1\n"
    (tmp_path / "a.py").write_text("x = 2\n")
    with pytest.raises(FileChangedError):
        read_file(tmp_path, "a.py", sha256=digest)


def test_a_name_that_is_not_utf8_still_makes_valid_json(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.py")).write_bytes(b"x\n")
    found = inventory(tmp_path)
    assert paths(found) == ["caf\\xe9.py"]
    assert msgspec.json.decode(msgspec.json.encode(found), type=Inventory) == found


def test_the_package_that_the_root_is_gives_its_prefix(tmp_path: Path) -> None:
    write(tmp_path, {"pkg/__init__.py": "", "pkg/sub/__init__.py": "", "pkg/sub/a.py": ""})
    assert inventory(tmp_path / "pkg" / "sub").package_prefix == "pkg.sub"
    assert inventory(tmp_path).package_prefix == ""


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": ""})
    for wrong in (tmp_path / "missing", tmp_path / "a.py"):
        with pytest.raises(WorkspaceError):
            resolve_root(wrong)
