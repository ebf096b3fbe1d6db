"""A worker that dies where it is told to, and is started anew: ``python -m tests.support.forked_worker DATA APP``.

Each life is a process of its own: everything is imported once, before there is any thread, and then forked, so that a death costs a tenth
of a second and not the start of an interpreter. What the actors print goes to DATA/said, one line ``PID LINE`` at a time, written before
the print returns, so that a SIGKILL loses none of it. The next death is ordered through DATA/die, as ``POINT N``: at the n-th time that the
crash point is reached from then on. Where the file is gone, that has happened; what is left in it was not reached.
"""

import contextlib
import ctypes
import gc
import importlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

from events.crash_points import CrashPoint, install
from ops.__main__ import main
from ops.event_loop import loop_factory
from ops.worker import load_app

SAID, DIE = "said", "die"
BEGINS_WITH = ("cyclopts", "ops.cache", "ops.commands.run", "runtime.node", "runtime.sealer_aesgcm", "langchain_core.tracers.stdout")
"""What a worker imports only when it begins."""
_PR_SET_PDEATHSIG = 1


def order_death(data: Path, point: CrashPoint, n: int) -> None:
    """The living worker dies when it is at `point` for the n-th time from now."""
    _write(data / DIE, f"{point.value} {n}")


def take_back(data: Path) -> int:
    """How many times were left of what `order_death` said; 0: it has died of it."""
    try:
        _, left = (data / DIE).read_text().split()
    except FileNotFoundError:
        return 0
    (data / DIE).unlink()
    return int(left)


def _write(path: Path, text: str) -> None:
    """So that a reader never sees half of it."""
    written = path.with_suffix(".new")
    written.write_text(text)
    written.rename(path)


class _Lines(io.TextIOBase):
    """Standard output: each line of each thread is one write to a file."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._begun = threading.local()

    def write(self, text: str) -> int:
        *lines, self._begun.text = (getattr(self._begun, "text", "") + text).split("\n")
        for line in lines:
            os.write(self._descriptor, f"{os.getpid()} {line}\n".encode())
        return len(text)


def _live(data: Path, app: str, parent: int) -> NoReturn:
    """One life, in the forked process."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    lock = threading.Lock()

    def hook(at: CrashPoint) -> None:
        with lock, contextlib.suppress(FileNotFoundError):
            point, left = (data / DIE).read_text().split()
            if at.value != point:
                return
            if int(left) > 1:
                order_death(data, at, int(left) - 1)
                return
            (data / DIE).unlink()
            os.kill(os.getpid(), signal.SIGKILL)
            signal.pause()

    install(hook)
    sys.stdout = _Lines(data / SAID)
    code = 1
    try:
        code = main(["worker", "--app", app, "--data", str(data), "--name", "forked", "--quiet"])
    finally:
        os._exit(code)


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Without SIGTERM in this block: it comes afterwards."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def run(data: Path, app: str) -> int:
    """Keep a worker alive until SIGTERM, or until one ends by anything but SIGKILL; its exit code."""
    for name in BEGINS_WITH:
        importlib.import_module(name)
    loop_factory()
    load_app(app)
    gc.collect()
    gc.freeze()  # else each life begins by looking at all of it, and so copies it
    if threading.active_count() != 1:
        raise RuntimeError("a process with threads must not be forked")
    living, stopping = 0, False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        if living:
            os.kill(living, signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    while True:
        with _held_back():
            parent = os.getpid()
            living = os.fork()
            if not living:
                _live(data, app, parent)
        os.waitid(os.P_PID, living, os.WEXITED | os.WNOWAIT)  # not reaped yet: until then its pid is nobody else's
        with _held_back():
            ended = os.waitstatus_to_exitcode(os.waitpid(living, 0)[1])
            living = 0
        if stopping or ended != -signal.SIGKILL:
            return ended


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), sys.argv[2]))
