"""What runs on a deployment's folder, from up.json, lock files, shard files and one look at NATS. Disturbs nobody."""

import contextlib
from pathlib import Path
from typing import Any

import msgspec

from ops.cache_health import mode as cache_mode
from ops.embedders import vectors_mode
from ops.event_loop import loop_name
from ops.exits import CommandError, Exit
from ops.in_process import in_process
from ops.nats_connection import connection_of
from ops.settings import Settings
from ops.up_state import UpState, read_up
from ops.versions import sqlite_version, versions


class ProcessStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One role process and the shards that it owns."""

    role: str
    pid: int
    shards: list[int]


class ShardStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where a shard stands."""

    shard: int
    position: int
    owner_epoch: int


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of ``status --json`` (design.md 9). nats_url: with its credentials, a client with it can connect; None = nothing runs.

    ready: every shard has an owner that is not stalled, and the server answers. log_file: the folder of the shard files.
    gateway_url: None until there is one. cache: where it is and what serves it, or that it is off and why; and what the memos of the
    processes spare. vectors: what searches them and what they are made with.
    """

    ready: bool
    nats_url: str | None
    gateway_url: str | None
    data: str
    log_file: str | None
    loop: str
    codec: str
    sqlite: str
    cache: str | None
    vectors: str | None
    versions: dict[str, object]
    processes: list[ProcessStatus]
    shards: list[ShardStatus]


async def collect(settings: Settings) -> tuple[Status, Exit]:
    """The status, and what its verb exits with: 0 ready, 1 running but not ready, 3 nothing runs, 5 the server does not answer."""
    data = Path(settings.data)
    up = read_up(data)
    shards, owners = await _shards(data)
    answers = up is not None and await answers_ping(settings)
    ready = up is not None and up.ready and answers and bool(shards) and len(owners) == len(shards)
    parts = versions()
    status = Status(
        ready=ready,
        nats_url=_url(settings, up),
        gateway_url=None,
        data=str(data),
        log_file=str(data / "log") if shards else None,
        loop=loop_name(),
        codec=str(parts["codec"]),
        sqlite=sqlite_version(),
        cache="; ".join(filter(None, (await cache_mode(settings), (await in_process(settings)).line))),
        vectors=vectors_mode(settings.embedder),
        versions=parts,
        processes=_processes(up, owners),
        shards=shards,
    )
    if up is None:
        return status, Exit.NOT_FOUND
    return status, Exit.OK if ready else Exit.FAILURE if answers else Exit.CANNOT_CONNECT


def _url(settings: Settings, up: UpState | None) -> str | None:
    if up is None:
        return None
    return up.nats_url or settings.nats_url


def _processes(up: UpState | None, owners: dict[int, int]) -> list[ProcessStatus]:
    if up is None:
        return []
    children = [("up", up.pid), *((child.role, child.pid) for child in up.processes)]
    return [
        ProcessStatus(role=role, pid=pid, shards=sorted(shard for shard, owner in owners.items() if owner == pid)) for role, pid in children
    ]


async def _shards(data: Path) -> tuple[list[ShardStatus], dict[int, int]]:
    """All shards, and pid by shard of those whose owner is alive; nothing where there is no log."""
    from events.sqlite.reader_sqlite import SqliteLogReader
    from runtime.ownership.survey import survey

    if not (data / "log" / "log.json").is_file():
        return [], {}
    reader = await SqliteLogReader.open(data / "log")
    try:
        infos = [await reader.info(shard) for shard in range(reader.shards)]
    finally:
        await reader.close()
    owners: dict[int, int] = {}
    for facts in survey(data, len(infos)).shards:
        if facts.owner is not None and facts.owner.record is not None and not facts.owner.stale:
            owners[facts.shard] = facts.owner.record.pid
    return [ShardStatus(shard=info.shard, position=info.position, owner_epoch=info.owner_epoch) for info in infos], owners


async def answers_ping(settings: Settings) -> bool:
    """Whether the server of the deployment takes a client."""
    from events.errors import TransientError
    from runtime.client import connect

    with contextlib.suppress(TransientError, CommandError):
        connection = connection_of(Path(settings.data), url=settings.nats_url, credentials=settings.nats_credentials)
        async with connect(namespace=settings.namespace, wait_s=2.0, **connection.nats_options()):
            return True
    return False


def as_row(status: Status) -> dict[str, Any]:
    """The status as plain values."""
    row: dict[str, Any] = msgspec.to_builtins(status)
    return row
