"""The process tree of `cuebook up`: role processes, restarted when they die, drained when asked to stop.

Knows processes, not actors: what a dead worker means for its shards is told to the runtime through `on_child_reaped`.
Children run in sessions of their own, so that Ctrl-C reaches this process only and the drain keeps its order.
"""

import asyncio
import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import structlog

from events.clock import SystemClock
from ops import child
from ops.exits import CommandError, Exit
from ops.private_files import make_private_folder, write_private
from ops.up_state import ChildState, UpState, read_up
from runtime.tasks import Tasks
from runtime.wire import iso_time

RESTART_DELAY_MIN_S, RESTART_DELAY_MAX_S = 0.1, 10.0
# A process takes more than half a second of a processor to start, and then a share of the shards from those who serve them. Several at once
# would disturb those who live at the moment when they have just taken what the dead ones left; where nobody lives, the first is there the
# sooner. A sixth of the processors may start: with 0.8 s between two on two processors, three of four killed workers held the one that was
# left down for 3 to 4 s (2026-11).
RESTART_GAP_S = 4.0 / (os.cpu_count() or 1)
HEALTHY_AFTER_S = 30.0
TOLD_WITHIN_S = 2.0
"""The longest that a start waits for `on_child_reaped`."""
# On top of the drain that the children are allowed: to flush, release and exit.
DRAIN_MARGIN_S = 5.0
# A child that ends with one of these found something that another start would find again.
REFUSALS = frozenset({int(Exit.USAGE), int(Exit.CONFLICT)})

Reaped = Callable[[str, int], Awaitable[None]]
log = structlog.get_logger(__name__)


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """A process that should run: its unique name (`worker-1`) and the arguments after `cuebook`."""

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = {}


def role_argv(role: Role) -> list[str]:
    """Return the command of a role: the same interpreter; -P keeps the current folder off the front of its path."""
    return [sys.executable, "-P", "-m", "ops", *role.arguments]


class ProcessTree:
    """Holds the deployment's lock while it is entered, runs roles until told to stop.

    Args:
        data: the deployment's folder.
        drain_s: how long children may take to finish after the first signal.
        on_child_reaped: called with (role, pid) as soon as a dead child is reaped and before it is started again, so
            that its shards can be handed over at once (S4). What it raises is logged and changes nothing; one that takes longer than
            `TOLD_WITHIN_S` is cancelled, and no start waits for it any more.
        argv_of: the command of a role.
    """

    def __init__(
        self,
        data: Path,
        *,
        drain_s: float = 30.0,
        on_child_reaped: Reaped | None = None,
        argv_of: Callable[[Role], Sequence[str]] = role_argv,
    ) -> None:
        self._data = data
        self._drain_s = drain_s
        self._on_child_reaped = on_child_reaped
        self._argv_of = argv_of
        self._live: dict[str, ChildState] = {}
        self._verdict = 0
        self._last_start = -RESTART_GAP_S
        self._tasks = Tasks()
        self._stop = asyncio.Event()
        self._now = asyncio.Event()
        self._lock: int | None = None
        self._nats_url: str | None = None
        self._ready = False
        self._started_at = iso_time(SystemClock().wall_us())

    async def __aenter__(self) -> "ProcessTree":
        make_private_folder(self._data)
        descriptor = os.open(self._data / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise _already_up(self._data) from None
        self._lock = descriptor
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.request_stop)
        self.publish()
        return self

    async def __aexit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        # Before the lock is free: a successor's file must not be removed.
        (self._data / "up.json").unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def is_stopping(self) -> bool:
        """Whether a stop was asked for."""
        return self._stop.is_set()

    async def wait_stopping(self) -> None:
        """Wait until a stop is asked for."""
        await self._stop.wait()

    def request_stop(self) -> None:
        """Drain at the first call, stop at once at the second; what SIGTERM and Ctrl-C do."""
        if self._stop.is_set():
            self._now.set()
        self._stop.set()

    def publish(self, *, nats_url: str | None = None, ready: bool | None = None) -> None:
        """Rewrite up.json; what is not given stays as it was."""
        self._nats_url = nats_url if nats_url is not None else self._nats_url
        self._ready = ready if ready is not None else self._ready
        state = UpState(
            pid=os.getpid(),
            started=child.process_started(os.getpid()),
            started_at=self._started_at,
            nats_url=self._nats_url,
            ready=self._ready,
            processes=self.children(),
        )
        write_private(self._data / "up.json", msgspec.json.encode(state).decode() + "\n")

    def children(self) -> tuple[ChildState, ...]:
        """Return the live children oldest start first."""
        return tuple(self._live.values())

    async def run(self, roles: Sequence[Role]) -> int:
        """Keep every role running until a stop is asked for; return when all children are gone.

        If cancelled, children are stopped within `DRAIN_MARGIN_S` before the cancellation goes on.

        Returns:
            0, or the exit code of a child that refused to start (usage, conflict): starting it again would not help, so
            the whole tree stops.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for role in roles:
                    group.create_task(self._keep(role), name=f"keep {role.name}")
        finally:
            await self._tasks.cancel_all()
        return self._verdict

    async def _keep(self, role: Role) -> None:
        """Start one role again and again, with backoff, until the tree stops."""
        delay, restarts = RESTART_DELAY_MIN_S, 0
        while not self.is_stopping():
            began = time.monotonic()
            code = await self._run_once(role, restarts)
            if self.is_stopping():
                return
            if code in REFUSALS:
                log.error("process_refused", role=role.name, exit_code=code)
                self._verdict = code
                self.request_stop()
                return
            if time.monotonic() - began > HEALTHY_AFTER_S:
                delay = RESTART_DELAY_MIN_S
            pause = self._turn_to_start(delay)
            log.warning("process_died", role=role.name, exit_code=code, restart_in_s=round(pause, 3))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stop.wait()
            delay, restarts = min(delay * 2, RESTART_DELAY_MAX_S), restarts + 1

    def _turn_to_start(self, delay: float) -> float:
        """Seconds until a dead role may start again, at least `delay`: one role at a time."""
        now = time.monotonic()
        at = max(now + delay, self._last_start + RESTART_GAP_S)
        self._last_start = at
        return at - now

    async def _run_once(self, role: Role, restarts: int) -> int:
        """Start a role, wait for its end and tell it; a role that cannot be started counts as ended with 1."""
        try:
            process = child.spawn(self._argv_of(role), environment={**os.environ, **role.environment})
        except OSError as error:
            log.error("process_not_started", role=role.name, reason=str(error))
            return int(Exit.FAILURE)
        started = child.process_started(process.pid)
        state = ChildState(role=role.name, pid=process.pid, started=started, restarts=restarts)
        self._live[role.name] = state
        try:
            self.publish()
            code = await self._watch(process)
        finally:
            # Reached with a live child only if cancelled, or if up.json cannot be written.
            child.stop_blocking(process, DRAIN_MARGIN_S)
            del self._live[role.name]
        self.publish()
        if not self.is_stopping():
            # Asked to end and not waited for: what swallows a cancellation (`tasks.end`) would keep the role from ever being started.
            telling = self._tasks.spawn(self._tell_reaped(role.name, process.pid), name=f"tell of {role.name}")
            await asyncio.wait([telling], timeout=TOLD_WITHIN_S)
            if telling.cancel():
                log.warning("child_reaped_hook_slow", role=role.name, pid=process.pid)
        return code

    async def _watch(self, process: subprocess.Popen[bytes]) -> int:
        """Wait for the child's end, hurrying it when the tree stops."""
        async with asyncio.TaskGroup() as group:
            hurry = group.create_task(self._hurry(process), name=f"hurry {process.pid}")
            code = await child.wait_exit(process)
            hurry.cancel()
        return code

    async def _hurry(self, process: subprocess.Popen[bytes]) -> None:
        """SIGTERM at the first stop request; SIGKILL at the second, or when the time to drain is over."""
        await self._stop.wait()
        process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._drain_s + DRAIN_MARGIN_S):
                await self._now.wait()
        log.warning("process_killed", pid=process.pid, reason="second signal" if self._now.is_set() else "drain_s")
        process.kill()

    async def _tell_reaped(self, role: str, pid: int) -> None:
        if self._on_child_reaped is None:
            return
        try:
            await self._on_child_reaped(role, pid)
        except Exception:
            # A hint: losing it costs time, while ending the tree would cost every other role.
            log.exception("child_reaped_hook_failed", role=role, pid=pid)


def stop_running(data: Path, *, timeout_s: float, now: bool = False) -> UpState:
    """Ask the tree on `data` to drain and wait until it is gone; return what ran.

    Args:
        timeout_s: how long to wait; the tree goes on draining after that.
        now: do not drain: children are killed. Nothing is lost, but open turns run again at the next start.

    Raises:
        CommandError: NOT_FOUND, nothing runs there; TIMEOUT, still draining; FAILURE, it belongs to somebody else.
    """
    state = read_up(data)
    if state is None:
        raise CommandError(f"nothing runs on {data}", next_step="cuebook up", code=Exit.NOT_FOUND)
    try:
        with _Target(state) as target:
            target.send(signal.SIGTERM)
            if now:
                # A pending SIGTERM absorbs a second one; SIGINT asks for the same.
                target.send(signal.SIGINT)
            if target.wait_gone(timeout_s):
                return state
    except ProcessLookupError:
        return state  # gone between the look and the signal
    except PermissionError as error:
        raise CommandError(f"process {state.pid} cannot be stopped", why="it belongs to another user") from error
    raise CommandError(
        f"process {state.pid} still drains after {timeout_s:.0f} s",
        why="a running step is finished first",
        next_step="cuebook stop again, or cuebook stop --now",
        code=Exit.TIMEOUT,
    )


class _Target:
    """The process of an up.json, held so that a later process with the same pid can never be meant."""

    def __init__(self, state: UpState) -> None:
        self._state = state
        self._descriptor: int | None = None

    def __enter__(self) -> "_Target":
        if hasattr(os, "pidfd_open"):
            self._descriptor = os.pidfd_open(self._state.pid)
        # Looked at after opening: from here the descriptor means this process or none.
        if child.process_started(self._state.pid) != self._state.started:
            self.__exit__()
            raise ProcessLookupError
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def send(self, number: signal.Signals) -> None:
        if self._descriptor is not None:
            signal.pidfd_send_signal(self._descriptor, number)
        else:
            os.kill(self._state.pid, number)

    def wait_gone(self, timeout_s: float) -> bool:
        if self._descriptor is not None:
            return bool(select.select([self._descriptor], [], [], timeout_s)[0])
        give_up = time.monotonic() + timeout_s
        while time.monotonic() < give_up:
            if child.process_started(self._state.pid) != self._state.started:
                return True
            time.sleep(0.05)
        return False


def _already_up(data: Path) -> CommandError:
    state = read_up(data)
    return CommandError(
        f"a deployment runs on {data} already",
        why=f"process {state.pid} since {state.started_at}" if state else "its lock is held; it is just starting",
        next_step="cuebook status, cuebook stop, or name another folder with --data",
        code=Exit.CONFLICT,
    )
