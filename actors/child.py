"""Programs that agents start: a session of their own, and gone - with all that they started - when the block that started them ends."""

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial

_PR_SET_PDEATHSIG = 1
# Loaded before any fork: the child of a threaded process must not take the loader's lock.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
GRACE_S = 2.0
"""Between the polite signal and the one that cannot be ignored."""

Limits = Sequence[tuple[int, int]]
"""(which of `resource`'s limits, how much)."""


@contextlib.asynccontextmanager
async def child(
    words: Sequence[str], *, cwd: str | None, environment: Mapping[str, str], stdin: int, stderr: int, limits: Limits = ()
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program without a shell, its standard output a pipe.

    When the block ends - normally, by an error or by cancellation - its whole process group is killed and the child is reaped; on Linux it
    dies with this process too. Start it from the main thread: the kernel watches the thread that forked.

    Raises:
        OSError: it cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        *words, cwd=cwd, env=dict(environment), stdin=stdin, stdout=asyncio.subprocess.PIPE, stderr=stderr, start_new_session=True,
        preexec_fn=partial(_prepare, tuple(limits)),
    )  # fmt: skip
    try:
        yield process
    finally:
        # Also what the program left behind in its group, after a normal end.
        signal_group(process, signal.SIGKILL)
        await asyncio.shield(process.wait())


def _prepare(limits: Limits) -> None:
    """Runs in the child between fork and exec: system calls only."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for what, most in limits:
        _, hard = resource.getrlimit(what)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        # Some systems refuse a limit that they do not know; then this one does not hold, and the others do.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(what, (most, most))


def signal_group(process: asyncio.subprocess.Process, what: signal.Signals) -> None:
    """Send `what` to the program and all that it started; nothing if they are gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, what)


async def end_politely(process: asyncio.subprocess.Process) -> None:
    """Ask it to end; insist after `GRACE_S`."""
    signal_group(process, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(GRACE_S):
            await process.wait()
    signal_group(process, signal.SIGKILL)


async def drain(stream: asyncio.StreamReader | None, take: Callable[[bytes], None]) -> None:
    """Hand on everything that comes, until the end of the stream."""
    while stream is not None:
        block = await stream.read(64 * 1024)
        if not block:
            return
        take(block)
