"""A whole deployment in one process tree: the server, the workers, and whoever watches them (design.md 10)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from ops.cache import serving_cache
from ops.cache_connection import CachePlace
from ops.exits import CommandError, Exit, StartError
from ops.nats_connection import Connection
from ops.nats_server import NatsServer
from ops.processes import ProcessTree, Role
from ops.settings import Settings, name_app
from ops.worker import check_sealed, load_app

if TYPE_CHECKING:
    from actors.registry import Registry

log = structlog.get_logger("cuebook.up")
_READY_S = 60.0
_LOOK_S = 0.05


class Deployment:
    """What `running` yields."""

    def __init__(self, settings: Settings, connection: Connection, tree: ProcessTree, shards: int, cache: CachePlace) -> None:
        self.settings = settings
        self.connection = connection
        self.tree = tree
        self.shards = shards
        self.cache = cache


@asynccontextmanager
async def running(settings: Settings, *, app: str, workers: int, remember: bool = True, quiet: bool = False) -> AsyncIterator[Deployment]:
    """Start the server and `workers` workers on `app`; yields when every shard has an owner that takes commands and every worker its share;
    stops all at the end. Asked to stop before that, it yields at once: `tree.is_stopping()` says so.

    Args:
        remember: write `app` into the deployment's own cuebook.toml, where reading verbs find it (S32).
        quiet: workers write their log to files only.

    Raises:
        CommandError: another deployment runs on the same folder (CONFLICT), or the workers do not come up.
    """
    from events.log_directory import create_log
    from ops.nats_hint import hint_change
    from runtime.tasks import Tasks
    from runtime.wire import Subjects

    loaded = load_app(app, settings.embedder)
    check_sealed(settings, loaded)
    registry = loaded.registry  # a mistake in the app is told here, in one line, and not by every worker in its log

    async def reaped(role: str, pid: int) -> None:
        log.warning("worker_died", role=role, pid=pid)
        await hint_change(server.connection, settings.namespace)

    async with ProcessTree(settings.data, drain_s=settings.drain_s, on_child_reaped=reaped) as tree:
        await check_code(settings, app, registry)
        if remember:
            name_app(settings.data, app)
        identity = create_log(Path(settings.data) / "log", settings.shard_count)
        mappings = Subjects(settings.namespace, identity.shards).server_mappings()
        server = NatsServer(settings.data, url=settings.nats_url, credentials=settings.nats_credentials, mappings=mappings)
        async with server, AsyncExitStack() as stack:
            tree.publish(nats_url=server.connection.client_url)
            tasks = Tasks()
            cache = await stack.enter_async_context(serving_cache(settings, tasks))
            watching = tasks.spawn(server.supervise(), name="nats-server")
            projects = bool(loaded.projections) or cache.address is not None
            kept = tasks.spawn(tree.run(_roles(settings, app, workers, quiet, projects=projects)), name="processes")
            try:
                if await _ready(Path(settings.data), identity.shards, workers, tree, kept):
                    tree.publish(ready=True)
                yield Deployment(settings, server.connection, tree, identity.shards, cache)
            finally:
                if not tree.is_stopping():  # a second request would mean: at once
                    tree.request_stop()
                await asyncio.wait([kept])
                watching.cancel()
            if code := kept.result():
                raise CommandError("a process refused to start", why=f"see the logs in {settings.data / 'logs'}", code=Exit(code))


async def check_code(settings: Settings, app: str, registry: "Registry") -> None:
    """S7, before anything starts: no worker would take a shard with types that its app lacks.

    Raises:
        StartError: names the first such shard and what is lacking.
    """
    from events.sqlite.reader_sqlite import SqliteLogReader
    from ops.doctor import lacking_code

    folder = Path(settings.data) / "log"
    if not (folder / "log.json").is_file():
        return
    reader = await SqliteLogReader.open(folder)
    try:
        async for finding in lacking_code(reader, registry):
            raise StartError(
                f"the log in {settings.data} belongs to another app than {app}: name another folder with --data",
                why=f"{finding.check}: {finding.found}; two apps share one folder only if each knows the types of both",
                next_step="the same command with --data ANOTHER-FOLDER, or --app with code that knows all of it",
            )
    finally:
        await reader.close()


def _roles(settings: Settings, app: str, workers: int, quiet: bool, *, projects: bool) -> list[Role]:
    """Workers get their settings through the environment: a child must not read another configuration than its parent."""
    given = {
        "CUEBOOK_DATA": str(settings.data),
        "CUEBOOK_NAMESPACE": settings.namespace,
        "CUEBOOK_APP": app,
        "CUEBOOK_DURABILITY": settings.durability,
        "CUEBOOK_DRAIN_S": str(settings.drain_s),
        "CUEBOOK_LOG_LEVEL": settings.log_level,
    }
    given["CUEBOOK_CACHE"] = settings.cache
    if settings.redis_url is not None:
        given["CUEBOOK_REDIS_URL"] = settings.redis_url
    if settings.nats_url is not None:
        given["CUEBOOK_NATS_URL"] = settings.nats_url
    if settings.nats_credentials is not None:
        given["CUEBOOK_NATS_CREDENTIALS"] = str(settings.nats_credentials)
    names = [f"worker-{number}" for number in range(1, workers + 1)]
    silent = ("--quiet",) if quiet else ()
    roles = [Role(name=name, arguments=("worker", "--name", name, *silent), environment=given) for name in names]
    if projects:
        roles.append(Role(name="projector", arguments=("projector", *silent), environment=given))
    return roles


async def _ready(data: Path, shards: int, workers: int, tree: ProcessTree, kept: asyncio.Task[int]) -> bool:
    """Wait until every shard has an owner that has bumped its epoch, and every worker its share, so that nothing moves right after the
    start; False if a stop was asked for before. The lock files say so; looking at them disturbs nobody."""
    from runtime.ownership.survey import survey

    try:
        async with asyncio.timeout(_READY_S):
            while not tree.is_stopping() and not kept.done():
                facts = survey(data, shards)
                owned = [each.owner.worker for each in facts.shards if each.owner and each.owner.epoch > 0 and not each.owner.stale]
                if len(owned) == shards and len(set(owned)) == min(workers, shards):
                    loads = [owned.count(worker) for worker in set(owned)]
                    if max(loads) - min(loads) <= 1:
                        return True
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        raise StartError(
            f"not every one of the {shards} shards has an owner after {_READY_S:.0f} s",
            why=f"see the logs in {data / 'logs'}",
            next_step="cuebook doctor",
        ) from None
    if tree.is_stopping():
        return False
    raise StartError("the workers ended at once", why=f"see the logs in {data / 'logs'}", next_step="cuebook doctor")
