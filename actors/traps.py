"""A trap around pure code: folding events must not read a clock, draw randomness, or touch files, network or processes (S16, I-9)."""

import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from events.errors import InvariantError

_FORBIDDEN_AUDIT = (
    "open", "socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.remove", "os.rename", "os.mkdir",
    "os.listdir", "os.scandir", "shutil.", "urllib.", "sqlite3.connect",
)  # fmt: skip
_PATCHED: tuple[tuple[Any, str], ...] = (
    (time, "time"), (time, "time_ns"), (time, "monotonic"), (time, "monotonic_ns"), (time, "perf_counter"),
    (random, "random"), (random, "randint"), (random, "choice"), (random, "shuffle"), (random, "randrange"), (random, "uniform"),
)  # fmt: skip
_pure = threading.local()
_installed = False


class ImpureError(InvariantError):
    """`apply` reached outside of state and event."""

    code = "impure"


def _audit(event: str, _args: object) -> None:
    if getattr(_pure, "inside", False) and event.startswith(_FORBIDDEN_AUDIT):
        raise ImpureError(f"apply() caused {event}: an event may change nothing but the state")


def _forbidding(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if getattr(_pure, "inside", False):
            raise ImpureError(f"apply() called {name}(): put what it returns into the event instead")
        return original(*args, **kwargs)

    return call


@contextmanager
def pure() -> Iterator[None]:
    """Inside, on this thread only, the clock, randomness, files, network and processes raise `ImpureError`."""
    global _installed
    if not _installed:
        # An audit hook cannot be removed, so it is installed once and asks a thread-local flag.
        sys.addaudithook(_audit)
        _installed = True
    originals = [(module, name, getattr(module, name)) for module, name in _PATCHED]
    for module, name, original in originals:
        setattr(module, name, _forbidding(f"{module.__name__}.{name}", original))
    _pure.inside = True
    try:
        yield
    finally:
        _pure.inside = False
        for module, name, original in originals:
            setattr(module, name, original)
