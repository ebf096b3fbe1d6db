"""Which files there are and which lines in them, and other names for them; all of it can be undone."""

import time
from pathlib import Path

import pytest

from actors.files.ignoring import patterns_of, said_of
from actors.files.rules import matches
from actors.testing import ActorTest
from tests.unit.files.test_path_tricks import tree


async def test_files_are_found_by_folder_and_pattern_in_pages(files: ActorTest, workspace: Path) -> None:
    (workspace / ".gitignore").write_text("build/\n")
    for path in ("build/out.py", "src/a/b.py", "src/a/c.md", "src/.env"):
        (workspace / path).parent.mkdir(parents=True, exist_ok=True)
        (workspace / path).write_text("x")
    (workspace / "src" / "way").symlink_to("/etc")
    assert (await files.when("find")).reply["paths"] == [".gitignore", "README.md", "src/a/b.py", "src/a/c.md", "src/cart.py", "src/way"]
    assert (await files.when("find", folder="src", pattern="**/*.py")).reply["paths"] == ["src/a/b.py", "src/cart.py"]
    page = await files.when("find", after="README.md", limit=2)
    assert page.reply == {"type": "paths", "paths": ["src/a/b.py", "src/a/c.md"], "more": True}
    assert (await files.when("find", folder="missing")).reply["paths"] == []


async def test_lines_are_found_letter_by_letter(files: ActorTest, workspace: Path) -> None:
    (workspace / "src" / "raw.bin").write_bytes(b"two\xff\xfe")
    (workspace / "src" / ".env").write_text("two=canary")
    (workspace / "src" / "way.py").symlink_to("cart.py")
    (workspace / "src" / "long.py").write_text("x\n" + "two" * 1_000)
    found = await files.when("search", text="two")
    assert [(line["path"], line["line"], len(line["text"])) for line in found.reply["lines"]] == [
        ("src/cart.py", 2, 3),
        ("src/long.py", 2, 300),
    ]
    assert not found.reply["more"]
    assert (await files.when("search", text="two", pattern="**/cart.py", limit=0)).reply == {"type": "lines", "lines": [], "more": True}
    assert (await files.when("search", text="t.o")).reply["lines"] == [], "no expression"


async def test_a_move_is_two_changes_and_is_undone_byte_for_byte(files: ActorTest, workspace: Path) -> None:
    (workspace / "src" / "raw.bin").write_bytes(bytes(range(256)))
    (workspace / "src" / "raw.bin").chmod(0o750)
    before = tree(workspace)
    moved = await files.when("move", path="src/raw.bin", to="src/new/raw.bin", agent="fixer")
    assert [type(event).__name__ for event in moved.events] == ["FileWritten", "FileDeleted"]
    assert (moved.reply["came"]["number"], moved.reply["went"]["number"]) == (1, 2)
    assert (workspace / "src" / "new" / "raw.bin").read_bytes() == bytes(range(256))
    assert (workspace / "src" / "new" / "raw.bin").stat().st_mode & 0o777 == 0o750
    assert not (workspace / "src" / "raw.bin").exists()
    assert (await files.when("undo", to=0)).reply == ["src/new/raw.bin", "src/raw.bin"]
    assert tree(workspace) == before


async def test_a_move_needs_both_names_and_replaces_nothing_unasked(files: ActorTest, workspace: Path) -> None:
    before = tree(workspace)
    for path, to, rule in (("src/cart.py", "docs/cart.py", "outside_grant"), ("docs/x.py", "src/x.py", "outside_grant")):
        assert (await files.when("move", path=path, to=to, agent="fixer")).reply["rule"] == rule
    for path, to in (("src/cart.py", "README.md"), ("src/none.py", "src/x.py"), ("src/cart.py", "src/Cart.py")):
        assert (await files.when("move", path=path, to=to, agent="fixer")).refused
    assert (await files.when("move", path="src/cart.py", to="README.md", agent="reviewer")).reply["rule"] == "not_granted"
    assert tree(workspace) == before
    await files.when("move", path="src/cart.py", to="README.md", agent="fixer", overwrite=True)
    assert (workspace / "README.md").read_bytes() == b"one\ntwo\nthree\n"
    await files.when("undo", to=0)
    assert tree(workspace) == before


@pytest.mark.parametrize("pattern", ["*a" * 60 + "b", "**/" * 200 + "b", "**/a/" * 60 + "b", "a*" * 100 + "?b", "**/*a*" * 40 + "b"])
def test_a_hostile_pattern_takes_no_longer_than_it_is_long(pattern: str) -> None:
    """Regular expressions with as many stars would not end in a lifetime, and would stop the whole process meanwhile."""
    begun = time.process_time()
    for path in ("a" * 255, "a/" * 500 + "a", "/".join(["a" * 250] * 4)):
        assert not matches(path, (pattern,))
        assert said_of(path, False, patterns_of(pattern)) is None
    assert time.process_time() - begun < 2.0
