"""Verbs that start and stop processes."""

import time
from typing import Annotated

from cyclopts import Parameter

from ops import event_loop, log_setup
from ops.commands.common import DEFAULTS, Common
from ops.exits import CommandError, Exit
from ops.output import print_record, progress
from ops.processes import DRAIN_MARGIN_S, stop_running


def up(
    *,
    app: Annotated[str | None, Parameter(help="MODULE:OBJECT of the app; remembered in the deployment's own cuebook.toml.")] = None,
    workers: Annotated[int | None, Parameter(help="Worker processes (default 2).")] = None,
    nats: Annotated[str | None, Parameter(help="URL of your NATS server (default: an embedded one).")] = None,
    redis: Annotated[str | None, Parameter(help="URL of your Redis or Valkey for the cache (default: an embedded one).")] = None,
    common: Common = DEFAULTS,
) -> int:
    """Start a deployment: a NATS server and workers, until Ctrl-C.

    Example: cuebook up --app ops.examples.bank:app
    """
    from ops.up import running

    settings = common.load(app=app, workers=workers, nats_url=nats, redis_url=redis).settings
    if settings.app is None:
        raise CommandError(
            "no app is named",
            why="a deployment runs the actors of an app",
            next_step="cuebook up --app ops.examples.bank:app",
            code=Exit.USAGE,
        )
    log_setup.configure("up", data=settings.data, level=settings.log_level)
    began = time.monotonic()

    async def main() -> None:
        async with running(settings, app=settings.app or "", workers=settings.workers) as deployment:
            if not deployment.tree.is_stopping():
                progress(
                    f"ready after {time.monotonic() - began:.1f} s: {settings.workers} workers, {deployment.shards} shards, loop "
                    f"{event_loop.loop_name()}, nats {deployment.connection.public_url}, data {settings.data}"
                )
            await deployment.tree.wait_stopping()
            progress("draining")

    event_loop.run(main())
    return 0


def worker(
    *,
    app: Annotated[str | None, Parameter(help="MODULE:OBJECT of the app.")] = None,
    name: Annotated[str, Parameter(help="Names the log file and, with the process id, the worker.")] = "worker",
    nats: Annotated[str | None, Parameter(help="URL of your NATS server (default: the deployment's embedded one).")] = None,
    quiet: Annotated[bool, Parameter(help="Write the log to DATA/logs only.")] = False,
    common: Common = DEFAULTS,
) -> int:
    """Run one worker process for a deployment whose server runs."""
    from ops.worker import run_worker

    return run_worker(common.load(app=app, nats_url=nats).settings, name, quiet=quiet)


def projector(
    *,
    app: Annotated[str | None, Parameter(help="MODULE:OBJECT of the app.")] = None,
    name: Annotated[str, Parameter(help="Names the log file and, with the process id, the projector.")] = "projector",
    nats: Annotated[str | None, Parameter(help="URL of your NATS server (default: the deployment's embedded one).")] = None,
    quiet: Annotated[bool, Parameter(help="Write the log to DATA/logs only.")] = False,
    common: Common = DEFAULTS,
) -> int:
    """Run one projector process: it keeps the app's projections; a second one stands by.

    `cuebook up` starts one by itself.
    """
    from ops.projector import run_projector

    return run_projector(common.load(app=app, nats_url=nats).settings, name, quiet=quiet)


def stop(
    *,
    now: Annotated[bool, Parameter(help="Do not wait for running turns; they run again at the next start.")] = False,
    common: Common = DEFAULTS,
) -> None:
    """Stop the running deployment: drain, then end its processes.

    Signals only the process that up.json names, after checking that it is
    still the same one. Exits 3 if nothing runs, 6 if it still drains.
    """
    settings = common.load().settings
    progress(f"stopping what runs on {settings.data}")
    # Workers drain at once, then the server stops: twice the margin on top of the drain.
    stopped = stop_running(settings.data, timeout_s=settings.drain_s + 2 * DRAIN_MARGIN_S, now=now)
    print_record({"stopped": stopped.pid, "processes": len(stopped.processes)}, json=common.json)
