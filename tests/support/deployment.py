"""A real deployment for tests: `cuebook up` as a child process on a folder of its own.

Whatever happens in the test, nothing of it is left running: the child gets SIGTERM when this process dies, and `stop` kills by pidfd
what does not end by itself.
"""

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from events.log_directory import read_identity
from ops import child
from ops.up_state import UpState, read_up
from runtime.ownership.survey import Facts, survey

T = TypeVar("T")
BANK = "ops.examples.bank:app"
READY_S = 75.0
"""Longer than `up` itself waits for its workers. What is slow on a busy machine is the start of interpreters, not what is tested."""
STOP_S = 20.0
TOO_SLOW = ("has an owner after", "it said nothing within")
"""What `up` says when it gives up on a machine that is too busy to start it."""


def wait_until(condition: Callable[[], T | None], what: str | Callable[[], str], timeout_s: float = 45.0) -> T:
    """The first true value of `condition`; looks every 10 ms. what: a function is asked when it was in vain."""
    give_up = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > give_up:
            raise AssertionError(f"after {timeout_s:.0f} s still not: {what if isinstance(what, str) else what()}")
        time.sleep(0.01)


async def wait_until_async(condition: Callable[[], T | None], what: str, timeout_s: float = 45.0) -> T:
    """`wait_until` that lets the event loop run."""
    give_up = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > give_up:
            raise AssertionError(f"after {timeout_s:.0f} s still not: {what}")
        await asyncio.sleep(0.01)


def cuebook_argv(*arguments: str) -> list[str]:
    """The installed command, as a user calls it."""
    script = Path(sysconfig.get_path("scripts")) / "cuebook"
    return [str(script), *arguments] if script.exists() else [sys.executable, "-P", "-m", "ops", *arguments]


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours without settings of Cuebook, so that a test does not depend on who runs it. What must be aborted shows its stacks."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CUEBOOK_")}
    return {**kept, "PYTHONFAULTHANDLER": "1", **(extra or {})}


class Process:
    """One child in a session of its own, that can be signalled without ever meaning a later process with the same pid."""

    def __init__(
        self, argv: Sequence[str], output: Path, *, folder: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        start = [] if folder is None else ["sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", str(folder)]
        self.output = output
        self._process = child.spawn([*start, *argv], environment=clean_environment(environment), output=output, death_signal=signal.SIGTERM)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        return self._process.poll()

    @property
    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self, timeout_s: float = STOP_S) -> int:
        return self._process.wait(timeout_s)

    def stop(self, grace_s: float = STOP_S) -> int:
        """SIGTERM, SIGKILL after `grace_s`; also for one that SIGSTOP holds."""
        if (code := self.stop_gently(grace_s)) is None:
            self._process.kill()
            code = self._process.wait()
        return code

    def stop_gently(self, grace_s: float) -> int | None:
        """SIGTERM; its exit code, None if it still runs after `grace_s`."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
        try:
            return self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            return None


class Deployment:
    """`cuebook up` on `data`. Start and stop as often as wanted; as a context manager it starts, and stops in the end."""

    def __init__(
        self,
        data: Path,
        *,
        app: str = BANK,
        workers: int = 2,
        nats: str | None = None,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.data = data
        self._arguments = ["up", "--app", app, "--workers", str(workers), "--data", str(data), *(["--nats", nats] if nats else [])]
        self._folder = folder
        self._environment = environment
        self._process: Process | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    # -- start and stop -----------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Return when it takes commands. `up` gives up by itself where the machine is too slow; then once more."""
        for attempt in (1, 2):
            output = self.data.parent / f"{self.data.name}-up.txt"
            self._process = Process(cuebook_argv(*self._arguments), output, folder=self._folder, environment=self._environment)
            try:
                wait_until(self._ready, "the deployment is ready", READY_S)
                return
            except BaseException as error:
                said = self._process.text
                self.stop(grace_s=2)
                if attempt == 1 and isinstance(error, AssertionError) and any(slow in said for slow in TOO_SLOW):
                    continue
                sys.stderr.write(f"{said}\n{self.logs()}\n")
                raise

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.code is None, f"`cuebook up` ended with {self._process.code}: {self._process.text}\n{self.logs()}"
        state = read_up(self.data)
        return state is not None and state.ready

    def stop(self, grace_s: float = STOP_S) -> int:
        """Drain and end; the exit code of `up`. 0 if it does not run."""
        if self._process is None:
            return 0
        state = read_up(self.data)
        held = _pidfds(state)
        try:
            for descriptor in held:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, signal.SIGCONT)
            if (code := self._process.stop_gently(grace_s)) is None:
                sys.stderr.write(f"`cuebook up` did not end in time\n{self._stacks(held)}\n{self.logs()}\n")
                code = self._process.stop(0) or -signal.SIGKILL
            for descriptor in held:
                if not select.select([descriptor], [], [], 5.0)[0]:
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            for descriptor in held:
                os.close(descriptor)
        self._process = None
        return code

    def _stacks(self, held: Sequence[int]) -> str:
        """What every thread of every child is at, by aborting them."""
        for descriptor in held:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGABRT)
            select.select([descriptor], [], [], 2.0)
        return self.said[-20_000:]

    # -- what runs ----------------------------------------------------------------------------------------------------------------

    @property
    def said(self) -> str:
        """What `up` printed."""
        assert self._process is not None
        return self._process.text

    @property
    def state(self) -> UpState:
        state = read_up(self.data)
        assert state is not None, f"nothing runs on {self.data}: {self.said}\n{self.logs()}"
        return state

    @property
    def nats_url(self) -> str:
        url = self.state.nats_url
        assert url is not None
        return url

    @property
    def workers(self) -> dict[str, int]:
        """Role to pid."""
        return {each.role: each.pid for each in self.state.processes if each.role.startswith("worker")}

    @property
    def shards(self) -> int:
        return read_identity(self.data / "log").shards

    def facts(self) -> Facts:
        return survey(self.data, self.shards)

    def owners(self) -> dict[int, int]:
        """Shard to the pid of its owner; only shards whose owner has bumped its epoch and is not stalled."""
        return owners(self.data, self.shards)

    def wait_owned(self, *, without: int = 0, timeout_s: float = READY_S) -> dict[int, int]:
        """Wait until every shard has an owner, none of them the pid `without`; where all died, that is as long as a start."""

        def owned() -> dict[int, int] | None:
            found = self.owners()
            return found if len(found) == self.shards and without not in found.values() else None

        return wait_until(owned, lambda: f"every shard has an owner other than {without}: {self._standing()}", timeout_s)

    def wait_balanced(self) -> dict[int, int]:
        """Wait until every worker has its share, so that nothing moves any more; shard to pid."""

        def balanced() -> dict[int, int] | None:
            found, pids = self.owners(), set(self.workers.values())
            loads = [list(found.values()).count(pid) for pid in pids]
            return found if len(found) == self.shards == sum(loads) and max(loads) - min(loads) <= 1 else None

        return wait_until(balanced, lambda: f"every worker has its share: {self._standing()}")

    def _standing(self) -> str:
        return f"{self.owners()} of {self.workers}\n{self.said[-2_000:]}\n{self.logs()}"

    def kill_worker(self, pid: int) -> None:
        """SIGKILL one worker of ours; returns when it is gone."""
        assert pid in self.workers.values(), f"{pid} is no worker of this deployment"
        kill(pid)

    def logs(self) -> str:
        """The last lines of every process, for the text of a failure."""
        parts = []
        for path in sorted((self.data / "logs").glob("*.log")):
            parts += [f"--- {path.name}", *path.read_text(errors="replace").splitlines()[-15:]]
        return "\n".join(parts)


def owners(data: Path, shards: int) -> dict[int, int]:
    found = {}
    for each in survey(data, shards).shards:
        owner = each.owner
        if owner is not None and owner.record is not None and owner.epoch > 0 and not owner.stale:
            found[each.shard] = owner.record.pid
    return found


def kill(pid: int) -> None:
    """SIGKILL `pid`, which the caller has started, and wait until it has gone."""
    descriptor = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        assert select.select([descriptor], [], [], 10.0)[0], f"{pid} outlives SIGKILL"
    finally:
        os.close(descriptor)


def _pidfds(state: UpState | None) -> list[int]:
    """The children of `up` while it lives: nobody else can have their pids until it has reaped them."""
    held = []
    for each in state.processes if state is not None else ():
        if child.process_started(each.pid) == each.started:
            with contextlib.suppress(ProcessLookupError):
                held.append(os.pidfd_open(each.pid))
    return held


def run_cuebook(*arguments: str, folder: Path | None = None, timeout_s: float = 90.0) -> "subprocess.CompletedProcess[str]":
    """One command to its end."""
    return subprocess.run(
        cuebook_argv(*arguments), cwd=folder, env=clean_environment(), capture_output=True, text=True, timeout=timeout_s, check=False
    )
