"""apply reads nothing but state and event: the traps of actors.testing and `replay --verify` (S16)."""

import gc
import os
import random
import socket
import subprocess
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from random import random as bare_random
from time import time as bare_time
from typing import Any

import pytest

from actors import Actor, Event, State, command
from actors.testing import ActorTest
from actors.traps import ImpureError, pure
from events.errors import InvariantError


class Log(State):
    seen: list[str] = []


TRAPPED: dict[str, Callable[[], Any]] = {
    "time.time": lambda: time.time(),
    "time.time_ns": lambda: time.time_ns(),
    "time.monotonic": lambda: time.monotonic(),
    "time.monotonic_ns": lambda: time.monotonic_ns(),
    "time.perf_counter": lambda: time.perf_counter(),
    "random.random": lambda: random.random(),
    "random.randint": lambda: random.randint(1, 6),
    "random.choice": lambda: random.choice("ab"),
    "random.shuffle": lambda: random.shuffle([1, 2]),
    "random.randrange": lambda: random.randrange(6),
    "random.uniform": lambda: random.uniform(0, 1),
    "open": lambda: Path(__file__).read_bytes(),
    "open to write": lambda: Path(os.devnull).write_text("x"),
    "os.open": lambda: os.open(os.devnull, os.O_RDONLY),
    "os.listdir": lambda: list(Path().iterdir()),
    "os.scandir": lambda: os.scandir("."),
    "os.mkdir": lambda: Path("made-by-apply").mkdir(),
    "os.remove": lambda: Path("made-by-apply").unlink(),
    "os.rename": lambda: Path("made-by-apply").rename("renamed-by-apply"),
    "socket": lambda: socket.socket(),
    "name service": lambda: socket.getaddrinfo("127.0.0.1", 1),
    "urllib": lambda: urllib.request.urlopen("http://127.0.0.1:1/"),
    "subprocess": lambda: subprocess.run(["/bin/true"], check=True),
    "os.system": lambda: os.system("true"),
}
OPEN_DOORS: dict[str, Callable[[], Any]] = {
    "datetime.now": lambda: datetime.now(UTC),
    "a clock imported by name": lambda: bare_time(),
    "time.localtime": lambda: time.localtime(),
    "a random number imported by name": lambda: bare_random(),
    "random.sample": lambda: random.sample([1, 2], 1),
    "random.gauss": lambda: random.gauss(0, 1),
    "random.Random": lambda: random.Random().random(),
    "os.urandom": lambda: os.urandom(1),
    "uuid.uuid4": lambda: uuid.uuid4(),
    "Path.exists": lambda: Path("/").exists(),
}
"""Written down as not trapped yet: the trap replaces attributes of `time` and `random` and hears audit events, and these pass both by."""


class Reached(Event[Log], tag="log.reached"):
    what: str

    def apply(self, state: Log) -> None:
        (TRAPPED | OPEN_DOORS | {"nothing": str})[self.what]()
        state.seen.append(self.what)


class LogActor(Actor[Log], name="log"):
    @command
    async def reach(self, what: str) -> None:
        self.emit(Reached(what=what))

    @command
    async def reach_in_the_handler(self) -> float:
        return time.monotonic()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty working folder with one file that an apply could remove."""
    (tmp_path / "made-by-apply").touch()
    monkeypatch.chdir(tmp_path)
    yield
    assert [path.name for path in tmp_path.iterdir()] == ["made-by-apply"]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("what", TRAPPED)
def test_clock_randomness_files_network_and_processes_are_trapped(what: str) -> None:
    """S16."""
    with pytest.raises(ImpureError, match=r"apply\(\)"), pure():
        TRAPPED[what]()


@pytest.mark.parametrize("what", ["time.time", "random.random", "os.listdir"])
async def test_an_apply_that_reaches_outside_is_caught_by_actor_test(what: str) -> None:
    """S16, S36: by `when`, and by folding what was given."""
    with pytest.raises(ImpureError):
        await ActorTest(LogActor).when("reach", what=what)
    with pytest.raises(ImpureError):
        ActorTest(LogActor).given(Reached(what=what)).state()


@pytest.mark.parametrize("what", OPEN_DOORS)
def test_every_other_way_to_a_clock_or_to_randomness_is_trapped(what: str) -> None:
    """S16: however it was imported."""
    with pytest.raises(ImpureError), pure():
        OPEN_DOORS[what]()


async def test_a_pure_apply_is_left_alone_and_a_handler_is_not_trapped() -> None:
    assert (await ActorTest(LogActor).when("reach", what="nothing")).state.seen == ["nothing"]
    assert (await ActorTest(LogActor).when("reach_in_the_handler")).reply > 0


def test_an_impure_apply_is_a_broken_promise() -> None:
    assert issubclass(ImpureError, InvariantError)
    assert ImpureError("x").code == "impure"


def test_the_trap_is_gone_afterwards_also_after_an_error() -> None:
    clock, draw = time.time, random.random
    with pytest.raises(ImpureError), pure():
        time.time()
    with pytest.raises(ZeroDivisionError), pure():
        _ = 1 / 0
    assert (time.time, random.random) == (clock, draw)
    assert time.time() > 0
    Path(__file__).read_bytes()


def test_other_threads_are_not_trapped() -> None:
    """The writer thread and heartbeat of a worker go on while a replay folds."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(time.time).result()
        with pure():
            elsewhere = pool.submit(lambda: (time.time(), random.random(), len(Path(__file__).read_bytes()))).result()
            with pytest.raises(ImpureError):
                time.time()
    assert all(elsewhere)


def test_a_thread_inside_the_trap_does_not_trap_this_one() -> None:
    inside, leave = threading.Event(), threading.Event()

    def fold() -> bool:
        with pure():
            inside.set()
            leave.wait()
            try:
                time.time()
            except ImpureError:
                return True
        return False

    with ThreadPoolExecutor(1) as pool:
        folding = pool.submit(fold)
        inside.wait()
        try:
            assert time.time() > 0
            assert Path(__file__).read_bytes()
        finally:
            leave.set()
        assert folding.result()


def test_a_trap_inside_a_trap_leaves_the_outer_one_on() -> None:
    def fold_inside_a_fold() -> None:
        with pure():
            with pure():
                pass
            Path(__file__).read_bytes()

    with pytest.raises(ImpureError):
        fold_inside_a_fold()


def test_two_threads_that_fold_at_once_leave_no_trap_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two replays in one process; afterwards `time.time` is the real one again."""
    clock = time.time
    for module, name in _replaced():
        monkeypatch.setattr(module, name, getattr(module, name))
    first_in, second_in, first_out = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with pure():
            first_in.set()
            second_in.wait()
        first_out.set()

    def second() -> None:
        first_in.wait()
        with pure():
            second_in.set()
            first_out.wait()

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(first), pool.submit(second)]:
            done.result()
    assert time.time is clock


def _replaced() -> list[tuple[Any, str]]:
    """What the trap may replace, for putting back whatever a broken trap leaves."""
    return [
        *((time, name) for name in ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter")),
        *((random, name) for name in ("random", "randint", "choice", "shuffle", "randrange", "uniform")),
    ]


def test_what_a_finalizer_opens_while_garbage_is_collected_is_not_held_against_apply() -> None:
    class Opens:
        def __del__(self) -> None:
            opened.append(Path(__file__).stat().st_size)

    opened: list[int] = []
    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        with pure():
            one = Opens()
            one.itself = one  # type: ignore[attr-defined]
            del one
            kept = [[] for _ in range(1_000)]  # type: ignore[var-annotated]
        assert gc.isenabled()
    finally:
        gc.set_threshold(*before)
    del kept
    gc.collect()
    assert opened  # it ran, and outside
