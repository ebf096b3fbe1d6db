"""Programs that agents start: a session of their own, and gone - with all that they started - when the block that started them ends, or
this process does, however it does."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

_BUFFER_BYTES: Final = 64 * 1024
_KILLED_WITHIN_S: Final = 10.0
"""Ending a family takes milliseconds: longer, and its guard is stopped or gone."""
_GUARD: Final = str(Path(__file__).with_name("child_guard.py"))
GRACE_S: Final = 2.0
"""Between the polite signal and the one that cannot be ignored."""
LAST_WORDS_S: Final = 1.0
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
    """A program under way. Its pid is that of its guard, who hands signals on to the program's group and ends as the program does."""

    def __init__(self, transport: asyncio.SubprocessTransport, protocol: _Protocol, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(transport, protocol, loop)
        self._exited = protocol.exited

    async def wait_exited(self) -> None:
        """Until the program has ended. Unlike `wait`, not until its pipes are closed, which whoever left its group holds open where that
        does not end him (not on Linux)."""
        await self._exited.wait()


@contextlib.asynccontextmanager
async def child(
    words: Sequence[str], *, cwd: str | None, environment: Mapping[str, str], stdin: int, stderr: int, limits: Limits = ()
) -> AsyncIterator[Child]:
    """A program without a shell, its standard output a pipe.

    When the block ends - normally, by an error or by cancellation - the program and whatever it started are killed, and it is reaped. The
    same happens if this process dies, by SIGKILL too: between the two stands a guard (`child_guard`). On Linux that holds for descendants
    in other groups and sessions as well.

    Raises:
        OSError: it cannot be started.
        ValueError: a word holds a NUL.
    """
    if any("\0" in word for word in words):
        # Asyncio says so too; uvloop cuts the word off there.
        raise ValueError("a word of a command holds a NUL")
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    with ours:
        ours.setblocking(False)
        bounds = ",".join(f"{which}:{most}" for which, most in limits)
        with theirs:
            # As asyncio.create_subprocess_exec does it, but with the transport in hand.
            transport, protocol = await loop.subprocess_exec(
                lambda: _Protocol(loop), sys.executable, "-I", "-S", _GUARD, str(theirs.fileno()), bounds, *words, cwd=cwd,
                env=dict(environment), stdin=stdin, stdout=asyncio.subprocess.PIPE, stderr=stderr, start_new_session=True,
                pass_fds=(theirs.fileno(),),
            )  # fmt: skip
        process = Child(transport, protocol, loop)
        try:
            await _begun(ours, words[0])
            yield process
        finally:
            ours.close()  # what the guard waits for
            await _ended(process)
            # asyncio's wait() waits for the pipes as well.
            for number in range(3):
                if (pipe := transport.get_pipe_transport(number)) is not None:
                    pipe.close()
            await asyncio.shield(process.wait())


async def _begun(channel: socket.socket, program: str) -> None:
    said = await asyncio.get_running_loop().sock_recv(channel, 16)
    if not said:
        raise OSError(f"{program} could not be started: its guard has ended")
    if code := int(said):
        raise OSError(code, os.strerror(code), program)


async def _ended(process: Child) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_KILLED_WITHIN_S):
            await process.wait_exited()
    with contextlib.suppress(ProcessLookupError):
        process.kill()  # the program dies with its guard; nothing if they are gone
    await asyncio.shield(process.wait_exited())


async def end_politely(process: Child) -> None:
    """Ask it to end; insist after `GRACE_S`. Whatever it started has ended with it."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(GRACE_S):
            await process.wait_exited()
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGUSR1)
    await _ended(process)


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
