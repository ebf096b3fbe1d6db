"""Stands between a process of ours and a program that it starts, and ends all that the program has started: when the program ends, when
it is told to, and when the process of ours is gone, also by SIGKILL, which could end nothing itself.

Run by `actors.child` as ``python -I -S child_guard.py CHANNEL LIMITS PROGRAM [ARGUMENT ...]``, so it imports nothing of ours. CHANNEL is
the number of a socket: one line goes out when the program has begun (``0``) or could not (the errno); its end of file means that nobody
wants the program any more. SIGUSR1 means the same; other signals to end are handed on to the program's group. LIMITS is
``WHICH:MOST,...`` of `resource`. It ends as the program has ended.

On Linux it is the reaper of its descendants (prctl(2), PR_SET_CHILD_SUBREAPER): whoever loses its parent becomes a child of it, in
whichever session, so that killing children until there are none ends them all. Elsewhere it ends the program's group.
"""

import contextlib
import ctypes
import os
import resource
import select
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import NoReturn

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_HANDED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


def main(channel: int, limits: str, words: Sequence[bytes]) -> NoReturn:
    """Run the program; ends this process."""
    os.set_inheritable(channel, False)
    environment = _environment()
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is not None:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    woken = _wake_by_signals()
    if select.select([channel], [], [], 0)[0]:
        os._exit(1)  # nobody wants it any more
    program, error = _start(words, environment, limits, libc)
    with contextlib.suppress(OSError):
        os.write(channel, b"%d\n" % error)
    if error:
        os._exit(127)
    # What the program reads and writes ends with the program, not with us.
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    _end_as(_end_all(program, _wait(program, channel, woken)))


def _environment() -> dict[bytes, bytes]:
    """What we were started with: Python adds to its own where that names no locale."""
    try:
        with open("/proc/self/environ", "rb") as file:  # noqa: PTH123  pathlib takes longer to import than all else
            named = [each.partition(b"=") for each in file.read().split(b"\0") if each]
    except OSError:
        return dict(os.environb)
    return {name: value for name, _, value in named}


def _wake_by_signals() -> int:
    """From now on signals can be read from the descriptor that is returned, one byte each."""

    def nothing(number: int, frame: FrameType | None) -> None:
        """The byte is what counts."""

    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGUSR1, *_HANDED_ON):
        signal.signal(number, nothing)
    return woken


def _start(words: Sequence[bytes], environment: dict[bytes, bytes], limits: str, libc: "ctypes.CDLL | None") -> tuple[int, int]:
    """Pid and 0, or pid and the errno that kept the program from beginning."""
    us = os.getpid()
    reading, writing = os.pipe()
    try:
        pid = os.fork()
    except OSError as error:
        return 0, error.errno or 1
    if pid == 0:
        try:
            if libc is not None:
                libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() == us:
                os.setpgid(0, 0)  # a program that ends its own group does not mean us
                for number in _IGNORED_BY_PYTHON:
                    signal.signal(number, signal.SIG_DFL)
                _limit(limits)
                os.execvpe(words[0], list(words), environment)
        except OSError as error:
            os.write(writing, b"%d" % (error.errno or 1))
        finally:
            os._exit(127)
    os.close(writing)
    said = os.read(reading, 16)
    os.close(reading)
    return pid, int(said or 0)


def _limit(limits: str) -> None:
    for each in limits.split(",") if limits else ():
        what, most = map(int, each.split(":"))
        _, hard = resource.getrlimit(what)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        # Some systems refuse a limit that they do not know; then this one does not hold, and the others do.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(what, (most, most))


def _wait(program: int, channel: int, woken: int) -> int | None:
    """The status of the program; None if it is to be ended first."""
    while True:
        ready, _, _ = select.select([channel, woken], [], [])
        # Read before the look at children: whoever ends later wakes us again.
        signals = os.read(woken, 512) if woken in ready else b""
        for pid, status in _reaped(os.WNOHANG):
            if pid == program:
                return status
        if channel in ready or signal.SIGUSR1 in signals:
            return None
        for number in signals:
            if number in _HANDED_ON:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(program, number)


def _reaped(how: int) -> Iterator[tuple[int, int]]:
    """Children of ours that have ended, their own or those of others that became ours."""
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, how))[0]:
            yield found


def _end_all(program: int, status: int | None) -> int:
    """Kill whoever is left; the status of the program.

    A process that loses its parent is ours before that parent can be reaped (exit_notify in the kernel), so as long as there are any, a
    child of ours is among those that are killed, and its end wakes us for another look.
    """
    if sys.platform != "linux":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(program, signal.SIGKILL)
        return os.waitpid(program, 0)[1] if status is None else status
    _kill_children()
    for pid, ended in _reaped(0):
        status = ended if pid == program else status
        _kill_children()
    return status or 0


def _kill_children() -> None:
    for name in os.listdir("/proc"):  # noqa: PTH208  no pathlib: see above
        if name.isdigit() and _parent(name) == os.getpid():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(int(name), signal.SIGKILL)


def _parent(pid: str) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123  no pathlib: see above
            # The program's name stands in brackets and may hold anything, so count from the last one.
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def _end_as(status: int) -> NoReturn:
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], [os.fsencode(word) for word in sys.argv[3:]])
