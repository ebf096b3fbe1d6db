"""A trap around pure code: folding events must not read a clock, draw randomness, or touch files, network or processes (S16, I-9).

What Python audits (files, network, processes) is caught by an audit hook. Clocks and randomness are not audited: a profile function sees
every call into C on this thread and refuses those that reach for them, however they were imported. Nothing is patched: threads and nested
traps do not disturb each other.
"""

import gc
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from types import FrameType
from typing import Any

from events.errors import InvariantError

_FORBIDDEN_AUDIT = (
    "open", "socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.remove", "os.rename", "os.mkdir",
    "os.listdir", "os.scandir", "shutil.", "urllib.", "sqlite3.connect",
)  # fmt: skip
_CLOCKS = (
    "time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time", "process_time_ns", "thread_time",
    "thread_time_ns", "clock_gettime", "clock_gettime_ns", "localtime", "gmtime", "ctime", "asctime", "strftime", "sleep",
)  # fmt: skip
_SYSTEM = ("urandom", "getrandom", "stat", "lstat", "access", "getcwd", "getpid")
_FORBIDDEN_CALLS = frozenset(
    getattr(module, name) for module, names in ((time, _CLOCKS), (os, _SYSTEM)) for name in names if hasattr(module, name)
)
_FORBIDDEN_DATES = frozenset({"now", "utcnow", "today"})
_pure = threading.local()
_installed = False


class ImpureError(InvariantError):
    """`apply` reached outside of state and event."""

    code = "impure"


def _audit(event: str, _args: object) -> None:
    if getattr(_pure, "inside", False) and event.startswith(_FORBIDDEN_AUDIT):
        raise ImpureError(f"apply() caused {event}: an event may change nothing but the state")


def _is_forbidden(function: Any) -> bool:
    owner = getattr(function, "__self__", None)
    if isinstance(owner, random.Random):
        return True
    if isinstance(owner, type) and issubclass(owner, date):
        return function.__name__ in _FORBIDDEN_DATES
    try:
        return function in _FORBIDDEN_CALLS
    except TypeError:
        return False


def _profile(_frame: FrameType, event: str, function: Any) -> None:
    if event == "c_call" and _is_forbidden(function):
        # Raising ends the profiling of this thread, so everything after it in the same block is set up again by `pure` only.
        raise ImpureError(f"apply() called {function.__name__}(): put what it returns into the event instead")


@contextmanager
def pure() -> Iterator[None]:
    """Inside, on this thread only, the clock, randomness, files, network and processes raise `ImpureError`."""
    global _installed
    if not _installed:
        # An audit hook cannot be removed, so it is installed once and asks a thread-local flag.
        sys.addaudithook(_audit)
        _installed = True
    before: tuple[bool, Callable[..., Any] | None] = getattr(_pure, "inside", False), sys.getprofile()
    # A collection that begins in here would run finalizers of whatever is garbage, and what they open is not what `apply` opened.
    collecting = gc.isenabled()
    gc.disable()
    _pure.inside = True
    sys.setprofile(_profile)
    try:
        yield
    finally:
        sys.setprofile(before[1])
        _pure.inside = before[0]
        if collecting:
            gc.enable()
