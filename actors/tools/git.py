"""Ask git about a folder that we do not trust.

The repository's own configuration can name programs (fsmonitor, hooks, pagers, external diffs, signature checkers,
transports). Every call here switches them off on the command line, where they beat the repository's values, and runs
with an environment that carries no configuration of the user.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

from actors.tools.limits import GIT_TIMEOUT_S

_NO_PROGRAMS = (
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.untrackedCache=false",
    "core.pager=cat",
    # A folder of the code base that looks like a repository without a work tree is none, whoever made it look so.
    "safe.bareRepository=explicit",
    "core.quotePath=false",
    "log.showSignature=false",
    "protocol.allow=never",
    # Ownership checks exist to keep a stranger's configuration from running programs; with the lines above it cannot,
    # and without this one a folder of another user would lose its ignore rules.
    "safe.directory=*",
)


def search_path() -> str:
    """Where programs are looked for: the absolute folders of our own search path. A relative one would name a place in whatever folder the
    program is started in, which is the one that we do not trust."""
    own = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(folder for folder in own if os.path.isabs(folder))  # noqa: PTH117  an empty one means the current folder


def git_environment() -> dict[str, str]:
    """The whole environment of a git child: a search path, and nothing that anybody configured."""
    return {
        "PATH": search_path(),
        "LC_ALL": "C",
        "HOME": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_LAZY_FETCH": "1",
        # A partial clone would fetch missing objects through a transport of its choice.
        "GIT_ALLOW_PROTOCOL": "none",
    }


def _words(git: str, arguments: Iterable[str]) -> list[str]:
    return [git, "--no-pager", *(part for setting in _NO_PROGRAMS for part in ("-c", setting)), *arguments]


_NAMING_PROGRAMS = re.compile(
    r"(?is)filter\..*\.(?:clean|smudge|process)|diff\..*\.(?:textconv|command)|merge\..*\.driver|diff\.external|pager\..*"
    r"|core\.(?:fsmonitor|hookspath|pager|editor|sshcommand|gitproxy|askpass|alternaterefscommand)|sequence\.editor|gpg\.(?:.*\.)?program"
    r"|credential\.(?:.*\.)?helper|interactive\.difffilter|alias\..*|trailer\..*\.(?:command|cmd)|remote\..*\.(?:uploadpack|receivepack|vcs|proxy)"
    r"|(?:difftool|mergetool|browser|man)\..*\.(?:cmd|path)|submodule\..*\.update|sendemail\..*|gc\..*hook|uploadpack\.packobjectshook"
    r"|tar\..*\.command|hook\..*|(?:web|help|instaweb|guitool)\..*|filter\..*\.required|commit\.gpgsign|tag\.gpgsign|log\.showsignature|url\..*\.(?:insteadof|pushinsteadof)"
)
# An empty value is "none" for most; for some git wants a word.
_INSTEAD = {
    "required": "false", "fsmonitor": "false", "hookspath": "/dev/null", "gpgsign": "false", "showsignature": "false", "update": "none",
    "pager": "cat", "textconv": "cat",
}  # fmt: skip


def switched_off(folder: Path) -> tuple[list[str], dict[str, str]] | None:
    """Arguments for git, before its command, and its whole environment, with which nothing that the repository of `folder` names is run:
    hooks, filters, monitors, programs for differences, merges, signatures, transports and credentials, aliases. Content then is what is in
    the files, and no other machine is spoken to.

    None when git is absent, or cannot read these settings.
    """
    words, environment = _words("git", ())[1:], git_environment()
    if run_git(folder, "rev-parse", "--git-dir") is None:
        # No repository, so nothing is configured. Whether git is there at all shows when it is started.
        return words, environment
    listed = run_git(folder, "config", "--includes", "--name-only", "--null", "--list")
    if listed is None:
        return None
    names = dict.fromkeys(raw.decode("utf-8", "surrogateescape") for raw in listed.split(b"\0")[:-1])
    for number, name in enumerate(name for name in names if _NAMING_PROGRAMS.fullmatch(name)):
        section, last = name.partition(".")[0].lower(), name.rpartition(".")[2].lower()
        # Not by `-c name=value`: a name may hold a '=' of its own, and would then be another one.
        environment |= {
            "GIT_CONFIG_COUNT": str(number + 1),
            f"GIT_CONFIG_KEY_{number}": name,
            f"GIT_CONFIG_VALUE_{number}": "cat" if section == "pager" else _INSTEAD.get(last, ""),
        }
    return words, environment


def run_git(
    folder: Path, *arguments: str, timeout_s: float = GIT_TIMEOUT_S, stdin: bytes | None = None, more: Mapping[str, str] | None = None
) -> bytes | None:
    """Standard output of one git command in `folder`; None when git is absent, fails or exceeds `timeout_s`.

    `stdin` is what it reads; `more` is added to its environment.
    """
    git = shutil.which("git", path=search_path())
    if git is None:
        return None
    try:
        done = subprocess.run(
            _words(git, arguments),
            cwd=folder,
            env={**git_environment(), **(more or {})},
            stdin=subprocess.DEVNULL if stdin is None else None,
            input=stdin,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None


def feed_git(folder: Path, *arguments: str, blocks: Iterable[bytes], timeout_s: float, more: Mapping[str, str] | None = None) -> bool:
    """Hand `blocks` to one git command that says nothing, one after the other; False where `run_git` gives None. All of `blocks` are taken,
    whatever becomes of git."""
    git = shutil.which("git", path=search_path())
    if git is None:
        return False
    nothing = subprocess.DEVNULL
    with subprocess.Popen(
        _words(git, arguments), cwd=folder, env={**git_environment(), **(more or {})}, stdin=subprocess.PIPE, stdout=nothing, stderr=nothing
    ) as process:
        if process.stdin is None:
            return False
        timer = threading.Timer(timeout_s, process.kill)
        timer.start()
        broken = False
        try:
            for block in blocks:
                try:
                    if not broken:
                        process.stdin.write(block)
                except OSError:
                    broken = True
            try:
                process.stdin.close()
            except OSError:
                broken = True
            return process.wait() == 0 and not broken
        finally:
            timer.cancel()
            process.kill()


def is_governed_by_git(folder: Path) -> bool:
    """True when `folder` is in a work tree that does not itself ignore the folder.

    Whoever asks for a review of an ignored folder (a checkout below `vendor/`, a package in `site-packages`) wants that
    folder examined, so the outer repository's rules and history do not apply to it.
    """
    inside = run_git(folder, "rev-parse", "--is-inside-work-tree", "--show-prefix")
    if inside is None:
        return False
    answer, _, prefix = inside.partition(b"\n")
    if answer.strip() != b"true":
        return False
    if not prefix.strip(b"\n"):
        return True
    ignored = run_git(folder, "check-ignore", "--quiet", "--", ".")
    return ignored is None
