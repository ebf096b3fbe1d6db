"""One projector process: the projections of an app on the log of a deployment, until it is told to stop."""

import asyncio
import os
import signal
from pathlib import Path

import structlog

from ops import event_loop, log_setup
from ops.memory import TYPE as MEMORY
from ops.memory import report_to_actors
from ops.nats_connection import connection_of
from ops.settings import Settings
from ops.worker import load_app
from runtime.app import App

log = structlog.get_logger("cuebook.projector")


def run_projector(settings: Settings, name: str, *, quiet: bool = False) -> int:
    """Run a projector until it is told to stop; returns its exit code. A second one on the same folder stands by."""
    log_setup.configure(name, data=settings.data, level=settings.log_level, console=False if quiet else None)
    return event_loop.run(_main(settings, name, load_app(settings.app, settings.embedder)))


async def _main(settings: Settings, name: str, app: App) -> int:
    from ops.versions import distribution_version
    from ops.views import open_views
    from ops.views_nats import ProjectorService, connected, listening, serving
    from projections.hints import watch_files
    from runtime.over_nats.service_nats import semver
    from runtime.tasks import Tasks, end
    from runtime.wire import Subjects, iso_time

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    failed: list[BaseException] = []

    def on_fatal(error: BaseException) -> None:
        failed.append(error)
        stop.set()

    tasks = Tasks(on_fatal)
    connection = connection_of(Path(settings.data), url=settings.nats_url, credentials=settings.nats_credentials)
    worker = f"{name}-{os.getpid()}"
    async with open_views(settings, app) as views:
        subjects = Subjects(settings.namespace, views.hints.shards)
        log.info("projector_starting", projections=sorted(views.runners), nats=connection.public_url, app=settings.app)
        running = [tasks.spawn(runner.run(), name=f"projection {name}") for name, runner in views.runners.items()]
        running.append(tasks.spawn(watch_files(views.watch, views.hints), name="watch"))
        try:
            async with connected(connection.nats_options(), worker, views, stop, tasks) as client:
                if client is not None:
                    service = ProjectorService(
                        client, subjects, views, worker=worker, version=semver(distribution_version("cuebook") or "0"),
                        incarnation=views.reader.incarnation, started=iso_time(views.clock.wall_us()),
                    )  # fmt: skip
                    await service.start()
                    if MEMORY in views.runners:
                        running.append(tasks.spawn(report_to_actors(settings.namespace, connection.nats_options()), name="accesses"))
                    async with listening(client, subjects, views), serving(client, subjects, views, tasks):
                        await stop.wait()
        finally:
            for task in running:
                await end(task)
            await tasks.cancel_all()
    log.info("projector_stopped", failed=[repr(error) for error in failed])
    return 1 if failed else 0
