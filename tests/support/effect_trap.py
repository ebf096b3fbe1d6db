"""Runs reading verbs in a trap: python -m tests.support.effect_trap DATA < JSON list of command lines. Prints exit codes and the catch.

Every effect on the world that Python audits is refused: connections, sends, name look-ups, files opened for writing, renames, removals,
folders, child processes, SQLite opened other than read-only. Randomness is refused by its sources. The app of the log is one whose handlers
end the process.
"""

import contextlib
import io
import json
import os
import random
import sys
import traceback
from typing import Any

FORBIDDEN = (
    "socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname", "subprocess.Popen",
    "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink",
    "os.truncate", "os.chmod", "os.chown", "os.kill", "os.utime", "shutil.", "tempfile.", "ftplib.", "http.client.", "urllib.", "smtplib.",
)  # fmt: skip
WRITES = os.O_WRONLY | os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC
caught: list[str] = []


class Effect(BaseException):
    """Not an Exception: nothing may swallow it."""


def refuse(what: str) -> None:
    caught.append(what + " " + " < ".join(frame.name for frame in reversed(traceback.extract_stack(limit=8)[:-2])))
    raise Effect(what)


def audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event.startswith(FORBIDDEN):
        refuse(event)
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES and arguments[0] != os.devnull:
        refuse(f"open {arguments[0]!r} for writing")
    if event == "sqlite3.connect" and "mode=ro" not in str(arguments[0]):
        refuse(f"sqlite3.connect {arguments[0]!r}")


def no_randomness(*_: Any, **__: Any) -> Any:
    refuse("randomness")


def main(data: str) -> None:
    lines = json.load(sys.stdin)
    # Loaded before: what an import reads and computes is no effect of a verb.
    import jsonpatch  # noqa: F401
    import uvloop  # noqa: F401

    from events.clock import SystemEntropy
    from ops.__main__ import main as cuebook

    sys.addaudithook(audit)
    SystemEntropy.token_bytes = no_randomness  # type: ignore[method-assign]
    os.urandom = random.random = random.randbytes = no_randomness
    codes = []
    for line in lines:
        out, err = io.StringIO(), io.StringIO()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = cuebook([*line, "--data", data])
        except Effect:
            code = -1
        codes.append({"line": line, "code": code, "rows": len(out.getvalue().splitlines()), "err": err.getvalue()})
    print(json.dumps({"codes": codes, "caught": caught}))


if __name__ == "__main__":
    main(sys.argv[1])
