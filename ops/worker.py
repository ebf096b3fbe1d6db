"""One worker process: settings to a running node, and its orderly end."""

import asyncio
import os
import signal
from pathlib import Path

import structlog

from events.errors import ConfigurationError
from ops import event_loop, log_setup
from ops.embedders import EmbedderName, embedder_of
from ops.exits import StartError
from ops.memory import with_memory
from ops.models import open_models, with_providers
from ops.nats_connection import connection_of
from ops.people import people_of, with_people
from ops.search_path import load_object
from ops.settings import Settings
from runtime.app import App

log = structlog.get_logger("cuebook.worker")


def load_app(spec: str | None, embedder: EmbedderName | None = None) -> App:
    """The app that `spec` (MODULE:OBJECT) names, with what every deployment has.

    Raises:
        StartError: none is named, or what is found is no App; or `embedder` (of the settings) is not installed.
    """
    if spec is None:
        raise StartError("no app is named", why="a worker must know which actors it runs", next_step="add --app MODULE:OBJECT")
    found = load_object(spec)
    if not isinstance(found, App):
        raise StartError(
            f"{spec} is a {type(found).__name__}, not an App", next_step="write app = App(actors=[...]) and name it as MODULE:app"
        )
    return with_providers(with_memory(found, embedder_of(embedder)))


def check_sealed(settings: Settings, app: App) -> None:
    """What sealed actors need (S29), before anything is started.

    Raises:
        StartError: the cipher is not installed, or the keys' folder lies inside the data folder.
    """
    from runtime.sealed import INSTALL, open_sealer

    try:
        open_sealer(settings.keys_folder, settings.data / "log", app.registry)
    except ConfigurationError as error:
        step = INSTALL if "cipher" in error.message else "name another folder: setting keys, or CUEBOOK_KEYS"
        raise StartError(error.message, next_step=step) from error


def run_worker(settings: Settings, name: str, *, quiet: bool = False) -> int:
    """Run a worker until it is told to stop; returns its exit code."""
    log_setup.configure(name, data=settings.data, level=settings.log_level, console=False if quiet else None)
    app = with_people(load_app(settings.app, settings.embedder), people_of(settings))
    check_sealed(settings, app)
    return event_loop.run(_main(settings, name, app))


async def _main(settings: Settings, name: str, app: App) -> int:
    from events.log_directory import create_log
    from ops.cache import open_step_cache
    from ops.versions import distribution_version, sqlite_version
    from runtime.node import Node, NodeConfig
    from runtime.passivation import LiveBounds

    stop, now = asyncio.Event(), asyncio.Event()

    def asked() -> None:
        if stop.is_set():
            now.set()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked)
    connection = connection_of(settings.data, url=settings.nats_url, credentials=settings.nats_credentials)
    config = NodeConfig(
        worker=f"{name}-{os.getpid()}",
        data=Path(settings.data),
        namespace=settings.namespace,
        shards=settings.shard_count,
        nats_options=connection.nats_options(),
        durability=settings.durability,
        drain_s=settings.drain_s,
        live=LiveBounds(idle_s=settings.passivate_after_s),
        version=distribution_version("cuebook") or "0",
        keys=settings.keys_folder,
    )
    log.info(
        "worker_starting", loop=event_loop.loop_name(), codec=f"msgspec {distribution_version('msgspec')}", sqlite=sqlite_version(),
        version=config.version, nats=connection.public_url, app=settings.app,
    )  # fmt: skip
    create_log(config.data / "log", config.shards)  # what is cached is of one incarnation of the log
    try:
        async with open_step_cache(settings) as step_cache, open_models(settings) as models:
            return await Node(config, app, step_cache=step_cache, models=models).run(stop, now)
    except Exception:
        log.exception("worker_failed")  # the terminal shows one line, the log file where it came from
        raise
