"""One program, started without a shell and within limits, and gone when its step ends, however it ends."""

import asyncio
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from actors.child import child, end_politely, listen
from actors.files.limits import (
    COMMAND_FILE_BYTES_MAX,
    COMMAND_MEMORY_BYTES_MAX,
    COMMAND_OUTPUT_BYTES_MAX,
    COMMAND_PROCESSES_MAX,
)
from actors.tools.git import search_path, switched_off

_LIMITS = (
    (resource.RLIMIT_AS, COMMAND_MEMORY_BYTES_MAX),
    (resource.RLIMIT_FSIZE, COMMAND_FILE_BYTES_MAX),
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_NPROC, COMMAND_PROCESSES_MAX),
)


class Outcome(msgspec.Struct, frozen=True, kw_only=True, tag="ran"):
    """How a command ended. `exit_code` is negative where a signal ended it, as subprocess has it; `output` is both streams, at most 64 KiB,
    the middle left out."""

    exit_code: int
    output: str
    output_bytes: int
    timed_out: bool = False


class CommandMissingError(Exception):
    """The program is not installed, or lies inside the workspace, where anybody may have put it."""


async def run_command(root: str, words: Sequence[str], timeout_s: float) -> Outcome:
    """Start `words` in `root`, wait for its end, and hand over what it said.

    The program gets a session of its own, an environment without our settings and secrets, an empty home folder, no input, and limits of
    memory, file size and processes. What the workspace's repository says is to be run - hooks, filters, monitors, other programs for git -
    is not, where the program is git itself. When this coroutine ends - result, timeout, cancellation - or the worker
    does, by SIGKILL too, the program and all that it started are gone (`actors.child`).

    Raises:
        CommandMissingError: see there.
        OSError: it cannot be started.
    """
    # Empty, and nobody's: a home in the workspace could bring settings and start-up code along.
    home = await asyncio.to_thread(tempfile.mkdtemp, prefix="cuebook-home-")
    try:
        started, environment = await asyncio.to_thread(_prepared, root, tuple(words), home)
        return await _run(root, started, environment, timeout_s)
    finally:
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, home, ignore_errors=True))


async def _run(root: str, words: Sequence[str], environment: Mapping[str, str], timeout_s: float) -> Outcome:
    kept = _Kept(COMMAND_OUTPUT_BYTES_MAX)
    timed_out = False
    nothing, together = asyncio.subprocess.DEVNULL, asyncio.subprocess.STDOUT
    limits = (*_LIMITS, (resource.RLIMIT_CPU, int(timeout_s) + 1))
    async with child(words, cwd=root, environment=environment, stdin=nothing, stderr=together, limits=limits) as process:
        try:
            async with asyncio.timeout(timeout_s):
                await listen(process, kept.add)
        except TimeoutError:
            timed_out = True
            await end_politely(process)
            await listen(process, kept.add)
    return Outcome(exit_code=process.returncode or 0, output=kept.text(), output_bytes=kept.seen, timed_out=timed_out)


def _prepared(root: str, words: tuple[str, ...], home: str) -> tuple[list[str], Mapping[str, str]]:
    """What to start, and its whole environment. Raises: CommandMissingError, OSError."""
    name, *rest = words
    environment = {"PATH": os.defpath, "HOME": home, "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1"}
    if name == "python":
        return [sys.executable, *rest], environment
    program = shutil.which(name, path=search_path())
    if program is None:
        raise CommandMissingError(f"{name} is not installed on this machine")
    program = os.path.abspath(program)  # noqa: PTH100  a link keeps its name: some programs are several by it
    if any(Path(place).is_relative_to(Path(root).resolve()) for place in (program, Path(program).resolve())):
        raise CommandMissingError(f"{name} lies inside the workspace")
    if Path(program).name == "git":
        switched = switched_off(Path(root))
        if switched is None:
            raise CommandMissingError("git cannot say what the settings of this repository run")
        switches, its_own = switched
        return [program, *switches, *rest], {**environment, **its_own, "HOME": home}
    return [program, *rest], environment


class _Kept:
    """The first and the last half of an output of any length, in bounded memory."""

    def __init__(self, limit: int) -> None:
        self._half = limit // 2
        self._first = bytearray()
        self._last = bytearray()
        self.seen = 0

    def add(self, block: bytes) -> None:
        self.seen += len(block)
        room = self._half - len(self._first)
        self._first += block[:room]
        self._last += block[max(room, 0) :]
        del self._last[: -self._half]

    def text(self) -> str:
        left_out = self.seen - len(self._first) - len(self._last)
        middle = f"\n[{left_out:,} bytes left out]\n".encode() if left_out else b""
        return (bytes(self._first) + middle + bytes(self._last)).decode("utf-8", "replace")
