"""Ask git about a folder that we do not trust.

The repository's own configuration can name programs (fsmonitor, hooks, pagers, external diffs, signature checkers,
transports). Every call here switches them off on the command line, where they beat the repository's values, and runs
with an environment that carries no configuration of the user.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from actors.tools.limits import GIT_TIMEOUT_S

_NO_PROGRAMS = (
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.untrackedCache=false",
    "core.pager=cat",
    "core.quotePath=false",
    "log.showSignature=false",
    "protocol.allow=never",
    # Ownership checks exist to keep a stranger's configuration from running programs; with the lines above it cannot,
    # and without this one a folder of another user would lose its ignore rules.
    "safe.directory=*",
)


def git_environment() -> dict[str, str]:
    """The whole environment of a git child: a search path, and nothing that anybody configured."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
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


def run_git(
    folder: Path, *arguments: str, timeout_s: float = GIT_TIMEOUT_S, stdin: bytes | None = None, more: Mapping[str, str] | None = None
) -> bytes | None:
    """Standard output of one git command in `folder`; None when git is absent, fails or exceeds `timeout_s`.

    `stdin` is what it reads; `more` is added to its environment.
    """
    git = shutil.which("git")
    if git is None:
        return None
    switches = [part for setting in _NO_PROGRAMS for part in ("-c", setting)]
    try:
        done = subprocess.run(
            [git, "--no-pager", *switches, *arguments],
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
