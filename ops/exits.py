"""Exit codes of the `cuebook` command, and the one shape of its errors: what, why, next command.

Scripts depend on these numbers; a new meaning gets a new number. Imports the standard library only.
"""

import enum
import shlex
import shutil
import sys
from pathlib import Path
from typing import TextIO


class Exit(enum.IntEnum):
    """What the process tells its caller."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    NOT_FOUND = 3
    VERIFICATION_FAILED = 4
    CANNOT_CONNECT = 5
    TIMEOUT = 6
    CONFLICT = 7
    INTERRUPTED = 130


class CommandError(Exception):
    """A verb could not do its work; carries what a person needs to go on.

    Args:
        what: one line, what did not happen.
        why: one line, the cause; empty if `what` says it all.
        next_step: a command to paste or one line of advice; empty if there is none. A leading `cuebook` is printed as
            what starts it here.
        code: the exit code of the process.
    """

    code: Exit = Exit.FAILURE

    def __init__(self, what: str, *, why: str = "", next_step: str = "", code: Exit | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.next_step = next_step
        if code is not None:
            self.code = code


class StartError(CommandError):
    """Settings, search path or installation do not fit; raised at start only."""

    code = Exit.USAGE


def command_name() -> str:
    """Return how this person starts `cuebook`, so that a printed command works when pasted.

    Plain `cuebook` if the path leads to the running environment, else the script beside its interpreter, relative to
    the current folder where that is shorter.
    """
    script = Path(sys.executable).with_name("cuebook")
    found = shutil.which("cuebook")
    if found is not None and Path(found).resolve() == script.resolve():
        return "cuebook"
    if not script.exists():
        return f"{shlex.quote(sys.executable)} -P -m ops"
    try:
        return shlex.quote(str(script.relative_to(Path.cwd())))
    except ValueError:
        return shlex.quote(str(script))


def print_error(error: CommandError, stream: TextIO | None = None) -> None:
    """Write an error as at most three lines: what, why, next."""
    out = sys.stderr if stream is None else stream
    print(f"cuebook: {error.what}", file=out)
    if error.why:
        print(f"why: {error.why}", file=out)
    if error.next_step:
        words = error.next_step.split(" ", 1)
        if words[0] == "cuebook":
            words[0] = command_name()
        print(f"next: {' '.join(words)}", file=out)
