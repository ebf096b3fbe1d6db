"""Child processes that never outlive their parent, and are only ever signalled by the one who started them.

On Linux the kernel delivers a signal to the child when its parent dies, also by SIGKILL (prctl(2), PR_SET_PDEATHSIG).
It fires on the death of the *thread* that forked, so `spawn` insists on the main thread. Elsewhere there is no such
signal and an orphan is possible after SIGKILL of the parent.
"""

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1
# Loaded before any fork: the child of a threaded process must not take the loader's lock.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def spawn(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    output: Path | None = None,
    death_signal: signal.Signals = signal.SIGKILL,
    pass_fds: Sequence[int] = (),
    own_session: bool = True,
) -> subprocess.Popen[bytes]:
    """Start a program that dies with this process.

    Args:
        argv: program and arguments; no shell.
        environment: default: ours.
        output: file that stdout and stderr replace; None leaves them where ours go.
        death_signal: what the child gets when this process dies without stopping it.
        pass_fds: descriptors that stay open in the child; a lock held through one lives as long as either process.
        own_session: keep a terminal's Ctrl-C from the child, so that its parent decides when it stops.

    Raises:
        RuntimeError: not called on the main thread.
        OSError: the program cannot be started.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("spawn from the main thread: the child would die with this thread")
    with warnings.catch_warnings():
        # Python 3.12 warns of fork in a threaded process; the hook below only makes two system calls.
        warnings.simplefilter("ignore", DeprecationWarning)
        log = None if output is None else output.open("wb")
        try:
            return subprocess.Popen(
                list(argv),
                env=None if environment is None else dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=None if log is None else subprocess.STDOUT,
                pass_fds=tuple(pass_fds),
                start_new_session=own_session,
                preexec_fn=_die_with_parent(os.getpid(), death_signal),
            )
        finally:
            if log is not None:
                log.close()


def _die_with_parent(parent: int, death_signal: int) -> Callable[[], None] | None:
    if _LIBC is None:
        return None
    prctl = _LIBC.prctl

    def hook() -> None:
        prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        # The parent may have died between fork and prctl; then the signal would never come.
        if os.getppid() != parent:
            os._exit(1)

    return hook


async def wait_exit(process: subprocess.Popen[bytes]) -> int:
    """Wait until a child has ended, reap it, return its code (negative = the signal). Cancelling leaves it running."""
    if process.poll() is None:
        try:
            descriptor = os.pidfd_open(process.pid)
        except (AttributeError, OSError):  # not Linux, or a kernel before 5.3
            while process.poll() is None:  # noqa: ASYNC110  nothing but the child itself can be waited on
                await asyncio.sleep(0.05)
        else:
            await _readable(descriptor)
    return process.wait()


async def _readable(descriptor: int) -> None:
    """Wait until `descriptor`, which this call owns and closes, is readable."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def on_readable() -> None:
        loop.remove_reader(descriptor)
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(descriptor, on_readable)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def stop(process: subprocess.Popen[bytes], grace_s: float) -> int:
    """SIGTERM, then SIGKILL after `grace_s` seconds; return the exit code. The child is reaped when this returns."""
    if process.poll() is None:
        process.terminate()
        try:
            async with asyncio.timeout(grace_s):
                return await wait_exit(process)
        except TimeoutError:
            process.kill()
    return await wait_exit(process)


def stop_blocking(process: subprocess.Popen[bytes], grace_s: float) -> int:
    """Do what `stop` does where no event loop runs."""
    if process.poll() is None:
        process.terminate()
        try:
            return process.wait(grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def process_started(pid: int) -> str | None:
    """Return an opaque text that tells a process from a later one with the same pid; None if there is no such process.

    Linux: boot id and start time in clock ticks (proc(5), /proc/pid/stat field 22). Elsewhere: what ps says.
    """
    if sys.platform == "linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return None
        # The program's name stands in brackets and may hold anything, so count from the last one.
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else f"{boot}:{fields[19]}"
    else:
        shown = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return shown.stdout.strip() or None
