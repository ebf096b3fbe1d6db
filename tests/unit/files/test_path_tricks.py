"""Every trick to reach what lies outside, or is nobody's business, on every operation of the files of a workspace: refused, with an event
that names the rule. One row per trick and operation."""

import hashlib
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from actors.files import CommandTool, Files, Grant, Rules
from actors.files.records import AccessDenied
from actors.testing import ActorTest, Result
from actors.workspace_id import workspace_id
from tests.unit.files.conftest import refusals

SECRET = "canary that lies outside\n"
SHOW = CommandTool(argv=("python", "-c", "import sys\nprint([open(path).read() for path in sys.argv[1:]])"), paths=True)
# Nothing but the trick itself is in the way.
RULES = Rules(agents={"fixer": Grant(file_write=True, allowed_paths=("**",), commands=("show",))}, commands={"show": SHOW})

Operation = Callable[[ActorTest, str], Awaitable[Result]]
OPERATIONS: dict[str, Operation] = {
    "read": lambda files, path: files.when("read", path=path, agent="fixer"),
    "write": lambda files, path: files.when("write", path=path, content="evil", agent="fixer"),
    "edit": lambda files, path: files.when("edit", path=path, edits=[{"kind": "insert", "first": 1, "text": "evil"}], agent="fixer"),
    "delete": lambda files, path: files.when("delete", path=path, agent="fixer"),
    "move": lambda files, path: files.when("move", path=path, to="src/new.py", overwrite=True, agent="fixer"),
    "move to": lambda files, path: files.when("move", path="src/cart.py", to=path, overwrite=True, agent="fixer"),
    "find": lambda files, path: files.when("find", folder=path, agent="fixer"),
    "search": lambda files, path: files.when("search", text="", folder=path, agent="fixer"),
    "run": lambda files, path: files.when("run", command="show", arguments=[path], agent="fixer"),
}

RECORDED = {"edit": "write", "move to": "move"}
# To find below nothing is to find below all.
OF_FOLDERS = {"find", "search"}

NAMES: list[tuple[str, str, str]] = [
    ("climbs out", "../outside/x.py", "outside_workspace"),
    ("climbs out from inside", "src/../../outside/x.py", "outside_workspace"),
    ("climbs and comes back", "src/../src/cart.py", "outside_workspace"),
    ("absolute", "/etc/passwd", "outside_workspace"),
    ("absolute, into the workspace", "{root}/src/cart.py", "outside_workspace"),
    ("two slashes", "//etc/passwd", "outside_workspace"),
    ("root of a process", "/proc/self/root/etc/passwd", "outside_workspace"),
    ("a prefix twin", "../shop-evil/x.py", "outside_workspace"),
    ("home", "~/x.py", "outside_workspace"),
    ("home of another", "~root/x.py", "outside_workspace"),
    ("a variable", "$HOME/x.py", "path_invalid"),
    ("a variable in braces", "src/${HOME}/x.py", "path_invalid"),
    ("a command in a name", "src/$(id)/x.py", "path_invalid"),
    ("a variable of Windows", "%TEMP%/x.py", "path_invalid"),
    ("backslashes", "..\\outside\\x.py", "outside_workspace"),
    ("a drive", "C:/x.py", "outside_workspace"),
    ("a stream of NTFS", "src/cart.py:evil", "not_a_file"),
    ("NUL", "src/cart.py\0.md", "path_invalid"),
    ("a line break", "src/cart\n.py", "path_invalid"),
    ("nothing", "", "path_invalid"),
    ("an empty name", "src//cart.py", "path_invalid"),
    ("here", "./src/cart.py", "path_invalid"),
    ("a slash behind", "src/cart.py/", "path_invalid"),
    ("a dot behind", "src/cart.py.", "path_invalid"),
    ("a space behind", "src/cart.py ", "path_invalid"),
    ("a very long path", "a/" * 600 + "x.py", "path_invalid"),
    ("a very long name", "a" * 300 + ".py", "path_invalid"),
    ("a long name of wide letters", "ä" * 128 + ".py", "path_invalid"),
    ("a device of Windows", "src/nul.py", "not_a_file"),
    ("a device of Windows, written small", "src/com\u00b9.py", "not_a_file"),
    (".git", ".git/config", "protected"),
    (".git as a file", "src/.git", "protected"),
    (".git in capitals", ".GIT/hooks/pre-commit", "protected"),
    (".git with a dot behind", ".git./config", "path_invalid"),
    (".git with a space behind", ".git /config", "path_invalid"),
    (".git on FAT", "src/git~1/config", "protected"),
    (".git with an unseen letter", ".g\u200cit/config", "path_invalid"),
    (".git full-width", "\uff0egit/config", "protected"),
    (".git with a Cyrillic letter", ".g\u0456t/config", "path_invalid"),
    (".svn with a letter that folds", ".\u017fvn/entries", "protected"),
    ("full-width dots", "\uff0e\uff0e/outside/x.py", "outside_workspace"),
    ("two dots in one letter", "\u2025/outside/x.py", "outside_workspace"),
    ("a letter like a slash", "src\u2215cart.py", "path_invalid"),
    ("a decomposed letter", "src/u\u0308ber.py", "path_invalid"),
    ("letters in the wrong direction", "src/\u202eyp.trac", "path_invalid"),
    ("our own folder", ".cuebook/backups/x", "protected"),
    ("our own folder in capitals", ".CueBook/x", "protected"),
    ("a secret", "src/.env", "protected"),
    ("a secret in capitals", "SERVER.PEM", "protected"),
    ("a secret full-width", "src/\uff0eenv", "protected"),
    ("a folder that is a secret", "server.key/readme.md", "protected"),
]


@pytest.fixture
async def files(workspace: Path) -> ActorTest:
    """Opened; an agent that may do everything; beside it what must not be reached."""
    (workspace.parent / "outside").mkdir()
    (workspace.parent / "outside" / "x.py").write_text(SECRET)
    (workspace.parent / "shop-evil").mkdir()
    (workspace.parent / "shop-evil" / "x.py").write_text(SECRET)
    actor = ActorTest(Files, workspace_id(workspace))
    await actor.when("open", root=str(workspace), rules=RULES)
    return actor


def tree(root: Path) -> dict[str, tuple[int, str]]:
    """Everything below `root` but what Cuebook keeps there: kind and permissions, and the content or where a link leads."""
    found = {}
    for path in sorted(root.rglob("*")):
        if ".cuebook" in path.parts:
            continue
        mode = path.lstat().st_mode
        content = (
            str(path.readlink()) if stat.S_ISLNK(mode) else hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(mode) else ""
        )
        found[str(path.relative_to(root))] = (mode, content)
    return found


def denied(result: Result) -> list[tuple[str, str]]:
    return [(event.operation, event.refusal.rule) for event in result.events if isinstance(event, AccessDenied)]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(("trick", "path", "rule"), NAMES, ids=[name for name, _, _ in NAMES])
async def test_a_name_is_refused_with_an_event(files: ActorTest, workspace: Path, trick: str, path: str, rule: str, operation: str) -> None:
    if operation in OF_FOLDERS and not path:
        pytest.skip("the whole workspace")
    before = tree(workspace.parent)
    result = await OPERATIONS[operation](files, path.format(root=workspace) if "{root}" in path else path)
    assert result.reply["type"] == "refused", trick
    assert result.reply["rule"] == rule, result.reply
    assert denied(result) == [(RECORDED.get(operation, operation), rule)]
    assert tree(workspace.parent) == before


Lay = Callable[[Path, Path], object]


def _socket(place: Path, _: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.path.relpath(place))


def _device(place: Path, _: Path) -> None:
    try:
        os.mknod(place, 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only root makes devices")


LAID: list[tuple[str, str, str, Lay]] = [
    # what stands there, the path that is asked for, the rule, how it is put there
    ("a link to a file", "src/it.py", "link", lambda place, outside: place.symlink_to(outside / "x.py")),
    ("a relative link", "src/it.py", "link", lambda place, _: place.symlink_to("../../outside/x.py")),
    ("a link inside the workspace", "src/it.py", "link", lambda place, _: place.symlink_to("cart.py")),
    ("a link to a folder", "src/it/x.py", "link", lambda place, outside: place.symlink_to(outside)),
    ("a link that dangles", "src/it.py", "link", lambda place, outside: place.symlink_to(outside / "missing.py")),
    ("a link to itself", "src/it.py", "link", lambda place, _: place.symlink_to(place.name)),
    ("a link to a device", "src/it.py", "link", lambda place, _: place.symlink_to("/dev/zero")),
    ("a link to a process's root", "src/it/etc/passwd", "link", lambda place, _: place.symlink_to("/proc/self/root")),
    ("a second name of a file outside", "src/it.py", "link", lambda place, outside: place.hardlink_to(outside / "x.py")),
    ("a named pipe", "src/it.py", "not_a_file", lambda place, _: os.mkfifo(place)),
    ("a socket", "src/it.py", "not_a_file", _socket),
    ("a device", "src/it.py", "not_a_file", _device),
    ("a file on the way", "src/it/x.py", "link", lambda place, _: place.touch()),
    ("a folder", "src/it.py", "not_a_file", lambda place, _: place.mkdir()),
    ("11 MB", "src/it.py", "too_large", lambda place, _: place.write_bytes(b"x" * 11 * 1024 * 1024)),
]
# A folder or a large file may be named to a program: it is the program that reads, within its own limits.
NOT_FOR_PROGRAMS = {"a folder", "11 MB"}


def lay(workspace: Path, path: str, put: Lay) -> Path:
    place = workspace / "/".join(path.split("/")[:2])
    put(place, workspace.parent / "outside")
    return place


async def shows_nothing_from_there(files: ActorTest, workspace: Path, operation: str, path: str, put: Lay) -> None:
    """Below what is no folder nothing is looked for, with an event; and looking below all of the workspace does not enter it."""
    place = lay(workspace, path, put)
    if not place.is_dir() or place.is_symlink():
        result = await OPERATIONS[operation](files, str(place.relative_to(workspace)))
        assert denied(result) == [(operation, "link")]
    whole = await OPERATIONS[operation](files, "src")
    assert SECRET.strip() not in str(whole.reply)
    assert "passwd" not in str(whole.reply)
    assert "outside" not in str(whole.reply)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(("trick", "path", "rule", "put"), LAID, ids=[one[0] for one in LAID])
async def test_what_lies_there_is_refused_with_an_event(
    files: ActorTest, workspace: Path, trick: str, path: str, rule: str, put: Lay, operation: str
) -> None:
    if operation == "run" and trick in NOT_FOR_PROGRAMS:
        pytest.skip("a program may be told of it")
    if operation in OF_FOLDERS:
        await shows_nothing_from_there(files, workspace, operation, path, put)
        return
    lay(workspace, path, put)
    before = tree(workspace.parent)
    result = await OPERATIONS[operation](files, path)
    assert result.reply["type"] == "refused", trick
    assert result.reply["rule"] == rule, result.reply
    assert denied(result) == [(RECORDED.get(operation, operation), rule)]
    assert tree(workspace.parent) == before


@pytest.mark.timeout(20)
@pytest.mark.parametrize(("trick", "path", "rule", "put"), LAID, ids=[one[0] for one in LAID])
async def test_undoing_a_change_whose_place_was_taken_is_refused_with_an_event(
    files: ActorTest, workspace: Path, trick: str, path: str, rule: str, put: Lay
) -> None:
    """Nothing is undone then, neither the changes before nor those after."""
    await files.when("write", path="src/cart.py", content="changed", agent="fixer")
    await files.when("write", path=path, content="new", agent="fixer")
    await files.when("write", path="README.md", content="changed", agent="fixer")
    place = workspace / "/".join(path.split("/")[:2])
    place.rename(workspace.parent / "aside")
    lay(workspace, path, put)
    before = tree(workspace.parent)
    result = await files.when("undo", to=0)
    assert (result.reply["type"], result.reply["rule"]) == ("refused", rule), trick
    assert denied(result) == [("undo", rule)]
    assert tree(workspace.parent) == before


@pytest.mark.timeout(30)
@pytest.mark.parametrize(("trick", "path", "rule", "put"), LAID, ids=[one[0] for one in LAID])
async def test_a_checkpoint_keeps_nothing_from_outside_and_names_what_it_refuses(
    files: ActorTest, workspace: Path, trick: str, path: str, rule: str, put: Lay
) -> None:
    """A link is kept as a link: where it leads, not what is there."""
    place = lay(workspace, path, put)
    made = await files.when("checkpoint")
    refused = {left.path: left.refusal.rule for left in refusals(made)}
    if place.is_symlink() or trick in {"a file on the way", "a folder"}:
        assert refused == {}
    else:
        assert refused == {str(place.relative_to(workspace)): rule}
    before = tree(workspace.parent)
    assert (await files.when("restore", commit=made.reply["commit"])).reply["refused"] == []
    assert tree(workspace.parent) == before
    for blob in (workspace / ".cuebook").rglob("*"):
        assert not blob.is_file() or SECRET.encode() not in blob.read_bytes()
    shown = await files.when("compare", first=made.reply["commit"], second=made.reply["commit"])
    assert shown.reply == ""


@pytest.mark.timeout(30)
@pytest.mark.parametrize(("trick", "path", "rule", "put"), LAID, ids=[one[0] for one in LAID])
async def test_a_restore_writes_through_nothing_that_took_a_files_place(
    files: ActorTest, workspace: Path, trick: str, path: str, rule: str, put: Lay
) -> None:
    await files.when("write", path=path, content="kept", agent="fixer")
    made = await files.when("checkpoint")
    place = workspace / "/".join(path.split("/")[:2])
    place.rename(workspace.parent / "aside")
    lay(workspace, path, put)
    outside = tree(workspace.parent / "outside")
    restored = await files.when("restore", commit=made.reply["commit"])
    assert tree(workspace.parent / "outside") == outside
    if place.is_symlink() or ((workspace / path).is_file() and (workspace / path).stat().st_size == 4):
        assert (workspace / path).read_text() == "kept"
        assert denied(restored) == []
    else:
        # It could not be kept before, so it is left as it is; the event says so.
        assert denied(restored) == [("restore", rule)], trick


@pytest.mark.parametrize("name", [".cuebook", ".cuebook/backups", ".cuebook/drafts"])
async def test_the_workspaces_own_folder_is_no_way_out(files: ActorTest, workspace: Path, name: str) -> None:
    """A code base may bring links of these names along."""
    before = tree(workspace.parent / "outside")
    (workspace / name).parent.mkdir(exist_ok=True)
    (workspace / name).symlink_to(workspace.parent / "outside")
    for operation in ("write", "delete"):
        result = await OPERATIONS[operation](files, "src/cart.py")
        assert result.reply["rule"] == "link"
        assert denied(result) == [(operation, "link")]
    assert (workspace / "src" / "cart.py").read_bytes() == b"one\ntwo\nthree\n"
    assert tree(workspace.parent / "outside") == before


async def test_what_is_refused_is_recorded_however_long_and_odd_it_is(files: ActorTest) -> None:
    """A refusal that is too long for an event would be one without an event."""
    for given in ({"command": "show", "arguments": ["-" + "\n" * 300_000]}, {"command": "\n" * 300_000, "arguments": []}):
        result = await files.when("run", agent="a" * 300_000, **given)
        assert denied(result), "an event"
    result = await files.when("read", path="\n" * 300_000, agent="x" * 300_000)
    assert denied(result) == [("read", "path_invalid")]


async def test_a_rare_name_is_no_trick(files: ActorTest, workspace: Path) -> None:
    """What people really call their files stays possible."""
    for path in (
        "src/$id.tsx", "src/Foo$Bar.java", "src/Größe.md", "src/отчёт.md", "src/说明：一.md", "src/日本語.py", "src/µm.md", "src/a b.py",
        "src/été/naïve.py", "src/x~", "src/..config", "src/...rest.ts", "src/[slug].tsx", "src/@types/x.d.ts", "src/-x.py", "src/#x.py",
    ):  # fmt: skip
        result: Any = (await files.when("write", path=path, content="x", agent="fixer")).reply
        assert result["type"] == "changed", path
        assert (workspace / path).read_text() == "x"
