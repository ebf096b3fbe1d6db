"""The file actor on a real folder: what it changes, refuses, records and takes back."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from actors.files import DEFAULT_RULES, Files, Rules, files_with
from actors.files.disk import DiskRefusalError, Found, digest, read_below, write_below
from actors.files.records import FilesState, WorkspaceOpened
from actors.files.steps import FileChangedError, keep, put
from actors.testing import ActorTest
from actors.workspace_id import workspace_id
from tests.unit.files.conftest import RULES


def event_types(result: Any) -> list[str]:
    return [type(event).__name__ for event in result.events]


async def write(files: ActorTest, path: str, content: str, **more: Any) -> Any:
    return await files.when("write", path=path, content=content, agent="fixer", **more)


async def test_a_write_is_recorded_and_undone_byte_for_byte(files: ActorTest, workspace: Path) -> None:
    place = workspace / "src" / "cart.py"
    place.chmod(0o755)
    before = place.read_bytes()
    result = await write(files, "src/cart.py", "new\n")
    assert event_types(result) == ["FileWritten"]
    assert place.read_bytes() == b"new\n"
    assert stat.S_IMODE(place.stat().st_mode) == 0o755
    await write(files, "src/deep/er/added.py", "added\n")
    await files.when("delete", path="README.md", agent="fixer")
    assert not (workspace / "README.md").exists()
    undone = await files.when("undo", to=0)
    assert undone.reply == ["README.md", "src/cart.py", "src/deep/er/added.py"]
    assert place.read_bytes() == before
    assert (workspace / "README.md").read_bytes() == b"# Shop\r\n"
    assert not (workspace / "src/deep/er/added.py").exists()
    assert files.state().changes == []


async def test_undo_never_loses_what_somebody_else_wrote(files: ActorTest, workspace: Path) -> None:
    await write(files, "src/cart.py", "by the agent\n")
    (workspace / "src" / "cart.py").write_text("by the user\n")
    result = await files.when("undo", to=0)
    assert result.refused
    assert (workspace / "src" / "cart.py").read_text() == "by the user\n"
    assert len(files.state().changes) == 1


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("../outside.md", "outside_workspace"), ("/etc/x.md", "outside_workspace"), ("srcevil/x.py", "outside_grant"),
        (".git/config", "protected"), ("src/.env", "protected"), ("src/key.pem", "protected"),
    ],
)  # fmt: skip
async def test_every_refusal_is_an_event(files: ActorTest, workspace: Path, path: str, rule: str) -> None:
    before = sorted(workspace.parent.rglob("*"))
    result = await write(files, path, "x")
    assert result.reply["type"] == "refused"
    assert result.reply["rule"] == rule
    assert event_types(result) == ["AccessDenied"]
    assert files.state().denied == 1
    assert sorted(workspace.parent.rglob("*")) == before


async def test_links_and_devices_are_refused_where_they_lie(files: ActorTest, workspace: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.py").write_text("theirs")
    (workspace / "src" / "way").symlink_to(outside)
    (workspace / "src" / "link.py").symlink_to(outside / "x.py")
    os.link(outside / "x.py", workspace / "src" / "hard.py")
    os.mkfifo(workspace / "src" / "pipe.py")
    for path, rule in (("src/way/x.py", "link"), ("src/link.py", "link"), ("src/hard.py", "link"), ("src/pipe.py", "not_a_file")):
        deleted = await files.when("delete", path=path, agent="fixer")
        tried = (await write(files, path, "ours"), await files.when("read", path=path), deleted)
        for result in tried:
            assert result.reply["type"] == "refused", path
            assert result.reply["rule"] == rule, path
            assert event_types(result) == ["AccessDenied"]
    assert (outside / "x.py").read_text() == "theirs"


async def test_a_file_of_11_mb_is_neither_read_nor_changed(files: ActorTest, workspace: Path) -> None:
    (workspace / "src" / "big.py").write_bytes(b"x" * 11 * 1024 * 1024)
    for result in (await files.when("read", path="src/big.py"), await write(files, "src/big.py", "small")):
        assert result.reply["rule"] == "too_large"
        assert event_types(result) == ["AccessDenied"]
    assert (workspace / "src" / "big.py").stat().st_size == 11 * 1024 * 1024


async def test_a_writer_that_saw_an_older_file_is_refused(files: ActorTest, workspace: Path) -> None:
    read = await files.when("read", path="src/cart.py")
    assert read.reply["text"] == "one\ntwo\nthree\n"
    (workspace / "src" / "cart.py").write_text("changed\n")
    assert (await write(files, "src/cart.py", "mine", expected=read.reply["sha256"])).refused
    assert (await write(files, "src/cart.py", "mine", overwrite=False)).refused
    assert (workspace / "src" / "cart.py").read_text() == "changed\n"


async def test_edits_speak_of_the_lines_as_they_were(files: ActorTest, workspace: Path) -> None:
    edits = [
        {"kind": "replace", "first": 1, "text": "ONE"},
        {"kind": "insert", "first": 3, "text": "two and a half\n"},
        {"kind": "delete", "first": 2},
        {"kind": "insert", "first": 4, "text": "four"},
    ]
    result = await files.when("edit", path="src/cart.py", edits=edits, agent="fixer")
    assert event_types(result) == ["FileWritten"]
    assert (workspace / "src" / "cart.py").read_bytes() == b"ONE\ntwo and a half\nthree\nfour"
    overlap = [{"kind": "replace", "first": 1, "last": 2, "text": "x"}, {"kind": "delete", "first": 2}]
    assert (await files.when("edit", path="src/cart.py", edits=overlap, agent="fixer")).refused
    assert (await files.when("edit", path="src/cart.py", edits=[{"kind": "delete", "first": 9}], agent="fixer")).refused


async def test_a_page_of_a_long_file(files: ActorTest, workspace: Path) -> None:
    (workspace / "src" / "long.py").write_text("".join(f"{number}\n" for number in range(1, 1_001)))
    page = await files.when("read", path="src/long.py", first=10, last=12)
    assert (page.reply["text"], page.reply["first"], page.reply["last"], page.reply["lines"]) == ("10\n11\n12\n", 10, 12, 1_000)


async def test_only_the_folder_of_this_id_can_be_opened(workspace: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    actor = ActorTest(Files, workspace_id(workspace))
    for root in (str(other), "/", "/etc", str(tmp_path / "missing")):
        assert (await actor.when("open", root=root)).refused
    assert (await actor.when("write", path="README.md", content="x", agent="fixer")).refused
    assert (await actor.when("open", root=str(workspace), rules=RULES)).reply == str(workspace)
    assert (await actor.when("open", root=str(workspace))).events == []


async def test_the_rules_of_the_app_hold_until_people_set_others(workspace: Path) -> None:
    """An app with other rules brings them to workspaces for which nobody chose any, and to no other."""
    root, key = str(workspace), workspace_id(workspace)
    actor = ActorTest(files_with(RULES), key)
    await actor.when("open", root=root)
    assert (await actor.when("write", path="src/a.py", content="a", agent="fixer")).reply["type"] == "changed"
    later = ActorTest(files_with(Rules()), key)
    for opened in ({"root": root}, {"root": root, "rules": RULES}, {"root": root}):
        await later.when("open", **opened)
    assert later.state().rules == RULES, "chosen by people"
    assert (await later.when("open", root=root)).events == []


def test_rules_of_an_older_log_count_as_chosen() -> None:
    state = FilesState()
    WorkspaceOpened(root="/x", rules=RULES, rules_sha256="").apply(state)
    assert state.chosen
    WorkspaceOpened(root="/x", rules=DEFAULT_RULES, rules_sha256="").apply(state)
    assert not state.chosen


def test_put_can_be_repeated_after_a_crash_and_never_overwrites_another(workspace: Path) -> None:
    root, path = str(workspace), "src/cart.py"
    before = keep(root, path, 1_000)
    assert isinstance(before, Found)
    after = Found(sha256=digest(b"new"), size_bytes=3, mode=0o644)
    put(root, path, after, before, 1_000, "new")
    put(root, path, after, before, 1_000, "new")
    assert (workspace / path).read_bytes() == b"new"
    (workspace / path).write_text("theirs")
    with pytest.raises(FileChangedError):
        put(root, path, after, before, 1_000, "new")
    assert (workspace / path).read_text() == "theirs"
    put(root, path, before, Found(sha256=digest(b"theirs"), size_bytes=6, mode=0o644), 1_000)
    assert (workspace / path).read_bytes() == b"one\ntwo\nthree\n"


def test_a_damaged_backup_is_not_restored(workspace: Path) -> None:
    root, path = str(workspace), "src/cart.py"
    before = keep(root, path, 1_000)
    assert isinstance(before, Found)
    kept = workspace / ".cuebook" / "backups" / before.sha256[:2] / before.sha256
    kept.write_bytes(b"damaged")
    (workspace / path).write_text("new")
    with pytest.raises(FileNotFoundError, match="damaged"):
        put(root, path, before, Found(sha256=digest(b"new"), size_bytes=3, mode=0o644), 1_000)
    assert (workspace / path).read_text() == "new"


def test_a_link_put_in_place_between_look_and_write_is_not_followed(workspace: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (workspace / "src").rename(workspace / "was")
    (workspace / "src").symlink_to(outside)
    with pytest.raises(DiskRefusalError):
        write_below(str(workspace), ("src", "x.py"), b"x", 0o644)
    assert list(outside.iterdir()) == []
    with pytest.raises(DiskRefusalError):
        read_below(str(workspace), ("src", "x.py"), 10)


async def test_agents_are_who_asks_not_who_they_say(workspace: Path) -> None:
    actor = ActorTest(Files, workspace_id(workspace), sender="reviewer/x")
    await actor.when("open", root=str(workspace))
    result = await actor.when("write", path="README.md", content="x", agent="docs")
    assert result.reply["rule"] == "not_granted"
    assert (await actor.when("open", root=str(workspace), rules=RULES)).refused
