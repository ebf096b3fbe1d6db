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
from pathlib import Path

from events.clock import SystemEntropy

_PR_SET_PDEATHSIG = 1
# Loaded before any fork: the child of a threaded process must not take the loader's lock.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_MARK = "CHILD_MARK"
_BUFFER_BYTES = 64 * 1024
_ROUNDS = 1_000
GRACE_S = 2.0
"""Between the polite signal and the one that cannot be ignored."""

LAST_WORDS_S = 1.0
"""For what stands in the pipe of a program that has ended."""

Limits = Sequence[tuple[int, int]]
"""(which of `resource`'s limits, how much)."""


class _Protocol(asyncio.subprocess.SubprocessStreamProtocol):
    """Asyncio's, which also says when the program itself has ended, whoever still holds its pipes."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit=_BUFFER_BYTES, loop=loop)
        self.exited = asyncio.Event()

    def process_exited(self) -> None:
        self.exited.set()
        super().process_exited()


class Child(asyncio.subprocess.Process):
    """A program under way."""

    def __init__(self, transport: asyncio.SubprocessTransport, protocol: _Protocol, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(transport, protocol, loop)
        self._exited = protocol.exited

    async def wait_exited(self) -> None:
        """Until the program has ended. Unlike `wait`, not until its pipes are closed, which somebody who left its group may hold open."""
        await self._exited.wait()


@contextlib.asynccontextmanager
async def child(
    words: Sequence[str], *, cwd: str | None, environment: Mapping[str, str], stdin: int, stderr: int, limits: Limits = ()
) -> AsyncIterator[Child]:
    """A program without a shell, its standard output a pipe.

    When the block ends - normally, by an error or by cancellation - its whole process group is killed and the child is reaped, and on Linux
    what it started in sessions of their own is killed too; the child itself dies with this process. Start it from the main thread: the
    kernel watches the thread that forked.

    Raises:
        OSError: it cannot be started.
        ValueError: a word holds a NUL.
    """
    if any("\0" in word for word in words):
        # Asyncio says so too; uvloop cuts the word off there.
        raise ValueError("a word of a command holds a NUL")
    mark = f"{_MARK}={SystemEntropy().token_bytes(16).hex()}"
    name, _, token = mark.partition("=")
    loop = asyncio.get_running_loop()
    # As asyncio.create_subprocess_exec does it, but with the transport in hand.
    transport, protocol = await loop.subprocess_exec(
        lambda: _Protocol(loop), *words, cwd=cwd, env={**environment, name: token}, stdin=stdin, stdout=asyncio.subprocess.PIPE,
        stderr=stderr, start_new_session=True, preexec_fn=partial(_prepare, tuple(limits)),
    )  # fmt: skip
    process = Child(transport, protocol, loop)
    try:
        yield process
    finally:
        # Also what the program left behind in its group, after a normal end.
        signal_group(process, signal.SIGKILL)
        # asyncio's wait() waits for the pipes as well, which somebody who left the group may hold open for ever.
        for number in range(3):
            pipe = transport.get_pipe_transport(number)
            if pipe is not None:
                pipe.close()
        await asyncio.shield(process.wait())
        await asyncio.shield(asyncio.to_thread(_end_marked, mark.encode()))


def _end_marked(mark: bytes) -> None:
    """Kill every process that was started with `mark` in its environment, as those do that leave their session (Linux; elsewhere nothing
    tells them)."""
    for _ in range(_ROUNDS if sys.platform == "linux" else 0):
        found = False
        for place in Path("/proc").iterdir():
            if place.name.isdigit() and _is_marked(place, mark):
                # By a handle, and looked at again: the number may belong to somebody else by now.
                with contextlib.suppress(OSError):
                    handle = os.pidfd_open(int(place.name))
                    try:
                        if _is_marked(place, mark):
                            signal.pidfd_send_signal(handle, signal.SIGKILL)
                            found = True
                    finally:
                        os.close(handle)
        # One that was being started meanwhile is found the next time; a zombie has no environment any more.
        if not found:
            return


def _is_marked(place: Path, mark: bytes) -> bool:
    try:
        return mark in (place / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


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


async def end_politely(process: Child) -> None:
    """Ask it to end; insist after `GRACE_S`."""
    signal_group(process, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(GRACE_S):
            await process.wait_exited()
    signal_group(process, signal.SIGKILL)
    await process.wait_exited()


async def listen(process: Child, take: Callable[[bytes], None]) -> None:
    """Hand on what the program says until it has ended and has said everything; what others who hold its pipe say later is left."""
    async with asyncio.TaskGroup() as both:
        reading = both.create_task(drain(process.stdout, take))
        await process.wait_exited()
        await asyncio.wait([reading], timeout=LAST_WORDS_S)
        reading.cancel()


async def drain(stream: asyncio.StreamReader | None, take: Callable[[bytes], None]) -> None:
    """Hand on everything that comes, until the end of the stream."""
    while stream is not None:
        block = await stream.read(64 * 1024)
        if not block:
            return
        take(block)
