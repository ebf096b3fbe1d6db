"""Every trick to make a declared program do what nobody declared: by its arguments, by its environment, by what lies in the workspace. What
is said is refused with an event; what lies there is not run. One row per trick."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from actors.files import CommandTool, Files, Grant, Rules
from actors.files.records import AccessDenied
from actors.testing import ActorTest, Result
from actors.tools.git import run_git, search_path
from actors.workspace_id import workspace_id

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

GIT = {
    "status": ("status", "--porcelain"), "diff": ("diff",), "external": ("diff", "--ext-diff"), "add": ("add", "-A"),
    "commit": ("commit", "--quiet", "--allow-empty", "-m", "x"), "signed": ("commit", "--quiet", "--allow-empty", "-m", "x"),
    "checkout": ("checkout", "--quiet", "other"), "fetch": ("fetch", "origin"), "archive": ("archive", "--format=evil", "HEAD"),
    "alias": ("evil",), "merge": ("merge", "--quiet", "--no-edit", "other"), "log": ("log", "-p", "-1"), "edit": ("commit", "--amend"),
}  # fmt: skip
SHOWN = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]))"
COMMANDS = {
    **{name: CommandTool(argv=("git", *words)) for name, words in GIT.items()},
    "show": CommandTool(argv=("python", "-c", SHOWN), options=("-x", "--name="), paths=True),
    "plain": CommandTool(argv=("git", "log"), options=("-n=",), paths=True),
    "evil": CommandTool(argv=("evil-tool",)),
    "local": CommandTool(argv=("./evil-tool",)),
}
RULES = Rules(agents={"fixer": Grant(commands=tuple(COMMANDS))}, commands=COMMANDS)


@pytest.fixture
async def files(workspace: Path) -> ActorTest:
    actor = ActorTest(Files, workspace_id(workspace))
    await actor.when("open", root=str(workspace), rules=RULES)
    return actor


def denied(result: Result) -> list[str]:
    return [event.refusal.rule for event in result.events if isinstance(event, AccessDenied)]


ARGUMENTS = [
    ("an option that is not listed", "plain", ["--output=/elsewhere/x"], "argument"),
    ("another program for the other side", "plain", ["--upload-pack=touch evil"], "argument"),
    ("a setting", "plain", ["-c", "core.fsmonitor=touch evil"], "argument"),
    ("a setting in one word", "plain", ["-ccore.fsmonitor=touch evil"], "argument"),
    ("a program", "plain", ["--exec=touch evil"], "argument"),
    ("another folder", "plain", ["-C", "/"], "argument"),
    ("another repository", "plain", ["--git-dir=/etc"], "argument"),
    ("an end of options", "plain", ["--", "x"], "argument"),
    ("standard input", "plain", ["-"], "argument"),
    ("a listed option as the start of another", "show", ["--name"], "argument"),
    ("a listed flag with a value", "show", ["-x=1"], "argument"),
    ("a listed flag with more letters", "show", ["-xe"], "argument"),
    ("a line break in a value", "show", ["--name=a\n--exec=b"], "argument"),
    ("NUL in a value", "show", ["--name=a\0b"], "argument"),
    ("a path where none is taken", "status", ["src/cart.py"], "argument"),
    ("an absolute path", "show", ["/etc/passwd"], "outside_workspace"),
    ("a path that climbs", "show", ["../x"], "outside_workspace"),
    ("a command in a path", "show", ["$(touch evil)"], "path_invalid"),
    ("a secret", "show", [".env"], "protected"),
    ("the repository", "show", [".git/config"], "protected"),
    ("one good, one bad", "show", ["src/cart.py", "../x"], "outside_workspace"),
    ("a command that is not declared", "rm", ["-rf", "src"], "unknown_command"),
    ("a command with words", "status; rm -rf src", [], "unknown_command"),
    ("a command by its path", "/bin/sh", [], "unknown_command"),
    ("a command that looks like an option", "--help", [], "unknown_command"),
]


@pytest.mark.parametrize(("trick", "command", "arguments", "rule"), ARGUMENTS, ids=[one[0] for one in ARGUMENTS])
async def test_an_argument_is_refused_with_an_event(
    files: ActorTest, workspace: Path, trick: str, command: str, arguments: list[str], rule: str
) -> None:
    before = sorted(workspace.rglob("*"))
    result = await files.when("run", command=command, arguments=arguments, agent="fixer")
    assert (result.reply["type"], result.reply["rule"]) == ("refused", rule), trick
    assert denied(result) == [rule]
    assert sorted(workspace.rglob("*")) == before


async def test_what_is_allowed_is_one_word_each_and_never_an_option(files: ActorTest, workspace: Path) -> None:
    (workspace / "src" / "-x; touch evil").touch()
    arguments = ["-x", "--name=$(touch evil) --x", "src/-x; touch evil", "src"]
    result = await files.when("run", command="show", arguments=arguments, agent="fixer")
    assert "--name=$(touch evil) --x" in result.reply["output"]
    assert "./src/-x; touch evil" in result.reply["output"]
    assert not list(workspace.rglob("evil"))


async def test_a_path_that_looks_like_an_option_is_refused(files: ActorTest, workspace: Path) -> None:
    """At the top, such a file could only be named by its bare name."""
    (workspace / "-rf").touch()
    assert denied(await files.when("run", command="show", arguments=["-rf"], agent="fixer")) == ["argument"]


HOSTILE = {
    "GIT_DIR": "/nowhere", "GIT_WORK_TREE": "/", "GIT_INDEX_FILE": "/nowhere", "GIT_SSH_COMMAND": "canary", "GIT_EXTERNAL_DIFF": "canary",
    "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.fsmonitor", "GIT_CONFIG_VALUE_0": "canary", "GIT_EXEC_PATH": "/nowhere",
    "LD_LIBRARY_PATH": "/canary", "PYTHONPATH": "/canary", "PYTHONSTARTUP": "/canary", "BASH_ENV": "/canary", "ENV": "/canary",
    "NODE_OPTIONS": "--canary", "CUEBOOK_TOKEN": "canary", "ANTHROPIC_API_KEY": "canary", "PAGER": "canary", "EDITOR": "canary",
}  # fmt: skip


async def test_the_environment_of_a_program_is_its_own(files: ActorTest, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LD_PRELOAD", "")
    result = await files.when("run", command="show", agent="fixer")
    assert "canary" not in result.reply["output"]
    assert "GIT_" not in result.reply["output"]
    assert "LD_PRELOAD" not in result.reply["output"]
    subprocess.run(["git", "init", "--quiet", str(workspace)], check=True, env={"PATH": os.environ["PATH"]})
    shown = await files.when("run", command="status", agent="fixer")
    assert "?? src/" in shown.reply["output"]


async def test_a_home_that_came_with_the_code_is_nobodys(files: ActorTest, workspace: Path) -> None:
    """Start-up code and settings of many programs lie in the home folder."""
    home = workspace / ".cuebook" / "home"
    place = home / ".local" / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    place.mkdir(parents=True)
    (place / "evil.pth").write_text(f"import os; open({str(workspace / 'ran')!r}, 'w')\n")
    (home / ".gitconfig").write_text("[alias]\n\tevil = !touch ran\n")
    result = await files.when("run", command="show", agent="fixer")
    assert str(home) not in result.reply["output"]
    subprocess.run(["git", "init", "--quiet", str(workspace)], check=True)
    await files.when("run", command="alias", agent="fixer")
    assert not (workspace / "ran").exists()


@pytest.mark.parametrize("command", ["evil", "local"])
@pytest.mark.parametrize("path", ["{workspace}", ".", "", "bin/../{workspace}", "{links}"])
async def test_a_program_that_lies_in_the_workspace_is_refused_with_an_event(
    files: ActorTest, workspace: Path, monkeypatch: pytest.MonkeyPatch, command: str, path: str
) -> None:
    links = workspace.parent / "links"
    links.mkdir()
    (links / "evil-tool").symlink_to(workspace / "evil-tool")
    (workspace / "evil-tool").write_text("#!/bin/sh\ntouch ran\n")
    (workspace / "evil-tool").chmod(0o755)
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("PATH", f"{path.format(workspace=workspace, links=links)}:{os.environ['PATH']}")
    result = await files.when("run", command=command, agent="fixer")
    assert denied(result) == ["program"]
    assert not (workspace / "ran").exists()


def test_git_of_the_workspace_is_not_taken_for_git(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workspace / "git").write_text("#!/bin/sh\ntouch ran\n")
    (workspace / "git").chmod(0o755)
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("PATH", f".::{os.environ['PATH']}")
    assert run_git(workspace, "--version") is not None
    assert not (workspace / "ran").exists()
    assert "." not in search_path().split(os.pathsep)


EVIL = "sh -c 'touch {marker}; cat' evil"
PROGRAMS: list[tuple[str, str, Mapping[str, str], str]] = [
    # how it is called, the command that would run it, the settings of the repository, its attributes
    ("a monitor", "status", {"core.fsmonitor": "touch {marker}"}, ""),
    ("a hook", "commit", {}, ""),
    ("a hook elsewhere", "commit", {"core.hooksPath": "{hooks}"}, ""),
    ("a hook after checkout", "checkout", {}, ""),
    ("a filter, cleaning", "add", {"filter.x.clean": EVIL}, "*.py filter=x"),
    ("a filter, cleaning for a look", "diff", {"filter.x.clean": EVIL}, "*.py filter=x"),
    ("a filter that must work", "add", {"filter.x.clean": EVIL, "filter.x.required": "true"}, "*.py filter=x"),
    ("a filter that stays", "add", {"filter.x.process": EVIL}, "*.py filter=x"),
    ("a filter, smudging", "checkout", {"filter.x.smudge": EVIL}, "*.py filter=x"),
    ("a filter with an equals sign", "add", {"filter.a=b.clean": EVIL}, "*.py filter=a=b"),
    ("a filter with capitals", "add", {"FILTER.Xy.CLEAN": EVIL}, "*.py filter=Xy"),
    ("a converter of text", "diff", {"diff.x.textconv": EVIL}, "*.py diff=x"),
    ("a converter of text in a log", "log", {"diff.x.textconv": EVIL}, "*.py diff=x"),
    ("a program for differences", "external", {"diff.external": "touch {marker}"}, ""),
    ("a program for some differences", "external", {"diff.x.command": "touch {marker}"}, "*.py diff=x"),
    ("an alias", "alias", {"alias.evil": "!touch {marker}"}, ""),
    ("a program for merges", "merge", {"merge.x.driver": "touch {marker}"}, "*.py merge=x"),
    ("a program for signatures", "signed", {"commit.gpgSign": "true", "gpg.program": "{script}"}, ""),
    ("an editor", "edit", {"core.editor": "touch {marker}; true"}, ""),
    ("a program for the network", "fetch", {"core.sshCommand": "touch {marker}", "remote.origin.url": "ssh://nowhere/x"}, ""),
    ("a program on the other side", "fetch", {"remote.origin.url": "{workspace}", "remote.origin.uploadpack": "touch {marker}; false"}, ""),
    ("a transport of its own", "fetch", {"remote.origin.url": "ext::sh -c touch% {marker}", "protocol.ext.allow": "always"}, ""),
    ("a packer", "archive", {"tar.evil.command": "touch {marker}; cat"}, ""),
]


INCLUDED = [(*one, True) for one in PROGRAMS if one[0] in {"a monitor", "a filter, cleaning", "an alias"}]


@pytest.mark.parametrize(
    ("trick", "command", "settings", "attributes", "included"),
    [*((*one, False) for one in PROGRAMS), *INCLUDED],
    ids=[*(one[0] for one in PROGRAMS), *(f"{one[0]}, included" for one in INCLUDED)],
)
async def test_what_the_workspaces_repository_names_is_not_run(
    files: ActorTest, workspace: Path, trick: str, command: str, settings: Mapping[str, str], attributes: str, included: bool
) -> None:
    """Git by itself runs it, which is asserted too; through the tool it does not."""
    marker, hooks, script = workspace.parent / "ran", workspace.parent / "hooks", workspace.parent / "script"
    script.write_text(f"#!/bin/sh\ntouch {marker}\nexit 1\n")
    script.chmod(0o755)
    environment = {"PATH": os.environ["PATH"], "HOME": str(workspace.parent), "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}

    def git(*words: str) -> None:
        subprocess.run(
            ["git", *words], cwd=workspace, env=environment, capture_output=True, check=False, stdin=subprocess.DEVNULL, timeout=30
        )

    git("init", "--quiet", "-b", "main")
    for name, value in (("user.name", "x"), ("user.email", "x@localhost")):
        git("config", name, value)
    (workspace / ".gitattributes").write_text(attributes + "\n")
    for branch, text in (("other", "theirs\n"), ("main", "ours\n")):
        git("checkout", "--quiet", "-B", branch)
        (workspace / "src" / "cart.py").write_text(text)
        git("add", "-A")
        git("commit", "--quiet", "-m", branch, *(["--allow-empty"] if branch == "main" else []))
        if branch == "other":
            git("checkout", "--quiet", "--orphan", "main")
    if command == "merge":
        git("config", "merge.renormalize", "false")
        git("checkout", "--quiet", "other")
        git("checkout", "--quiet", "-B", "main", "other")
        (workspace / "src" / "cart.py").write_text("ours\n")
        git("commit", "--quiet", "-am", "ours")
        git("checkout", "--quiet", "other")
        (workspace / "src" / "cart.py").write_text("theirs again\n")
        git("commit", "--quiet", "-am", "theirs")
        git("checkout", "--quiet", "main")
    elif command not in {"checkout", "commit", "signed", "edit", "log", "fetch", "archive"}:
        (workspace / "src" / "cart.py").write_text("changed\n")
    for folder in (workspace / ".git" / "hooks", hooks):
        folder.mkdir(exist_ok=True)
        if "hook" in trick and (folder == hooks) == ("elsewhere" in trick):
            for hook in ("pre-commit", "post-checkout"):
                (folder / hook).write_text(f"#!/bin/sh\ntouch {marker}\n")
                (folder / hook).chmod(0o755)
    place = workspace / ".git" / "more" if included else workspace / ".git" / "config"
    if included:
        git("config", "include.path", str(place))
    for name, value in settings.items():
        git("config", "--file", str(place), name, value.format(marker=marker, hooks=hooks, script=script, workspace=workspace))
    shutil.copytree(workspace, workspace.parent / "twin", symlinks=True)
    subprocess.run(
        ["git", *GIT[command]], cwd=workspace.parent / "twin", env=environment, capture_output=True, check=False, stdin=subprocess.DEVNULL,
        timeout=30,
    )  # fmt: skip
    assert marker.exists(), f"{trick}: git by itself runs it"
    marker.unlink()
    await files.when("run", command=command, agent="fixer")
    assert not marker.exists(), trick
    await files.when("checkpoint")
    assert not marker.exists(), trick
