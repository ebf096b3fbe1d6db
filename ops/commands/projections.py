"""Verbs about projections. They work on the files; where a projector runs it is asked, else the verb does it itself."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from ops import event_loop
from ops.commands.access import is_up, log_folder, open_client, open_log
from ops.commands.common import DEFAULTS, Common
from ops.commands.look import AppOption
from ops.exits import CommandError, Exit
from ops.output import print_json, print_rows, progress
from ops.renewing import TYPE, renew_all
from ops.settings import Settings

if TYPE_CHECKING:
    from projections.runner import Runner
    from runtime.client import Client

_LOOK_S = 0.25


def ls(*, common: Common = DEFAULTS) -> int:
    """List the projections: how far they are, who applies them, what is parked."""
    from ops.view_files import standings

    settings = common.load().settings
    log_folder(settings)

    async def main() -> list[dict[str, Any]]:
        async with open_log(settings) as reader:
            found = await standings(Path(settings.data), reader)
        return [{**msgspec.structs.asdict(each), "parked": len(each.parked)} for each in found]

    rows = event_loop.run(main())
    print_rows(rows, json=common.json)
    if not rows:
        progress("no projection has run here yet")
    return int(Exit.OK)


def parked(*, common: Common = DEFAULTS) -> int:
    """List the streams that a projection applies no further because one of their events could not be applied."""
    from ops.view_files import standings

    settings = common.load().settings
    log_folder(settings)

    async def main() -> list[dict[str, Any]]:
        async with open_log(settings) as reader:
            found = await standings(Path(settings.data), reader)
        return [{"projection": each.name, **msgspec.structs.asdict(one)} for each in found for one in each.parked]

    rows = event_loop.run(main())
    print_rows(rows, json=common.json)
    return int(Exit.OK)


def release(name: str, stream: str | None = None, /, *, app: AppOption = None, common: Common = DEFAULTS) -> int:
    """Apply what was held back of a parked stream, in order, and go on with it; without STREAM, of all that are parked."""
    settings = common.load(app=app).settings

    async def ask(client: "Client") -> Any:
        return await client.ask_view(name, "_release", **({} if stream is None else {"stream": stream}))

    async def here(runner: "Runner[Any]") -> Any:
        return {"events": await runner.release(stream)}

    print_rows([event_loop.run(_where_it_runs(settings, name, ask, here))], json=common.json)
    return int(Exit.OK)


def rebuild(
    name: str,
    /,
    *,
    dry_run: Annotated[bool, Parameter(help="Say how much there is to do and about how long it takes; change nothing.")] = False,
    new_vectors: Annotated[
        bool, Parameter(negative="", help="First give memories whose vectors are of another model vectors of the present one.")
    ] = False,
    app: AppOption = None,
    common: Common = DEFAULTS,
) -> int:
    """Build a view anew from the log beside the old one, which answers meanwhile, and switch over.

    Interrupted, it goes on by itself at the next start of a projector.
    """
    settings = common.load(app=app).settings
    if dry_run:
        print_rows([event_loop.run(_estimate(settings, name))], json=common.json)
        return int(Exit.OK)
    began = time.monotonic()
    if new_vectors and (name != TYPE or not is_up(settings)):
        raise CommandError("new vectors are for the projection memory of a deployment that runs", next_step="cuebook up", code=Exit.USAGE)

    async def ask(client: "Client") -> Any:
        if new_vectors:
            await renew_all(client, lambda done, total: progress(f"{name}: {done:,} of {total:,} memories have new vectors"))
        await client.ask_view(name, "_rebuild")
        while True:
            status = await client.ask_view(name, "_status")
            if not _told(status):
                return status
            await asyncio.sleep(_LOOK_S)

    async def here(runner: "Runner[Any]") -> Any:
        runner.rebuild()
        await asyncio.sleep(0)
        while True:
            await asyncio.sleep(_LOOK_S)
            status = msgspec.to_builtins(runner.status())
            if not _told(status):
                return status

    status = event_loop.run(_where_it_runs(settings, name, ask, here))
    if status["failure"]:
        raise CommandError(f"{name} was not built anew", why=status["failure"], next_step="see logs/projector.log")
    print_rows([{"projection": name, "version": status["version"], "seconds": round(time.monotonic() - began, 2)}], json=common.json)
    return int(Exit.OK)


def verify(name: str, /, *, app: AppOption = None, common: Common = DEFAULTS) -> int:
    """Build a view anew in a folder of its own and compare the two; exits 4 and names the first difference.

    The view goes on answering meanwhile.
    """
    from ops.views import open_views
    from ops.worker import load_app
    from projections.errors import NotReadyError
    from projections.verifying_sqlite import Verified
    from projections.verifying_sqlite import verify as verify_view

    settings = common.load(app=app).settings
    log_folder(settings)
    last = 0.0

    def tell(seen: int, total: int, rate: float) -> None:
        nonlocal last
        if time.monotonic() - last > 1.0:
            last = time.monotonic()
            progress(f"{seen:,} of {total:,} events, {rate:,.0f}/s, {(total - seen) / max(rate, 1):,.0f} s left")

    async def main() -> Verified:
        async with open_views(settings, load_app(settings.app, settings.embedder), only=[name]) as views:
            return await verify_view(
                views.make(name), views.folder, views.reader.incarnation, views.reader, upcast=views.upcast, clock=views.clock, tell=tell
            )

    try:
        done = event_loop.run(main())
    except NotReadyError as error:
        raise CommandError(error.message, next_step="cuebook projections ls", code=Exit.NOT_FOUND) from error
    print_rows([msgspec.to_builtins(done)], json=common.json)
    if done.difference is not None:
        progress(f"{name} differs from its rebuild; cuebook projections rebuild {name} puts the rebuilt one in its place")
        return int(Exit.VERIFICATION_FAILED)
    progress(f"{name}: {done.rows:,} rows equal those of a rebuild from {done.events:,} events ({done.rate:,.0f}/s)")
    return int(Exit.OK)


def ask(name: str, operation: str, arguments: str = "{}", /, *, common: Common = DEFAULTS) -> int:
    """Ask a projection of the running deployment and print its reply."""
    settings = common.load().settings
    try:
        given = msgspec.json.decode(arguments, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise CommandError("the arguments are no JSON object", why=str(error), code=Exit.USAGE) from error

    async def main() -> Any:
        async with open_client(settings) as client:
            return await client.ask_view(name, operation, **given)

    print_json(event_loop.run(main()))
    return int(Exit.OK)


def _told(status: dict[str, Any]) -> bool:
    """Say how far a build is; whether it is still under way."""
    if status["state"] not in ("building", "rebuilding", "opening"):
        return False
    if status["progress"] is not None:
        rate = (status["build"] or {}).get("rate", 0.0)
        left = "" if status["eta_s"] is None else f", {status['eta_s']:,.0f} s left"
        progress(f"{status['progress']:.0%}, {rate:,.0f} events/s{left}")
    return True


async def _where_it_runs(
    settings: Settings, name: str, ask: "Callable[[Client], Any]", here: "Callable[[Runner[Any]], Any]"
) -> Any:
    """Ask the projector that runs, or do its work for as long as it takes."""
    from ops.views import FOLDER, open_views
    from ops.worker import load_app
    from projections.errors import ProjectionError
    from projections.hints import watch_files
    from projections.locking import lock_holder
    from runtime.tasks import Tasks, end

    log_folder(settings)
    if is_up(settings) and lock_holder(Path(settings.data) / FOLDER / name) is not None:
        async with open_client(settings) as client:
            return await ask(client)
    async with open_views(settings, load_app(settings.app, settings.embedder), only=[name]) as views:
        if name not in views.runners:
            raise CommandError(f"{settings.app} has no projection {name!r}", next_step="cuebook projections ls", code=Exit.NOT_FOUND)
        runner, tasks = views.runners[name], Tasks()
        running = [tasks.spawn(runner.run(), name=name), tasks.spawn(watch_files(views.watch, views.hints), name="watch")]
        try:
            while runner.status().state not in ("live", "failed"):
                _told(msgspec.to_builtins(runner.status()))
                await asyncio.sleep(_LOOK_S)
            return await here(runner)
        except ProjectionError as error:
            raise CommandError(error.message) from error
        finally:
            for task in running:
                await end(task)


async def _estimate(settings: Settings, name: str) -> dict[str, Any]:
    """What a rebuild would take, from the first events of each shard."""
    from ops.views import open_views
    from ops.worker import load_app
    from projections.verifying_sqlite import build, scratch
    from projections.view_sqlite import SqliteView

    sample = 2_000
    async with open_views(settings, load_app(settings.app, settings.embedder), only=[name]) as views:
        make = views.make(name)
        heads = {shard: (await views.reader.info(shard)).position for shard in range(views.reader.shards)}
        some = {shard: min(position, sample) for shard, position in heads.items()}
        with scratch(views.folder / name) as place:
            view = await SqliteView.open(make(), place, views.reader.incarnation, heads=some)
            try:
                rate = await build(view, views.reader, some, upcast=views.upcast, clock=views.clock)
            finally:
                await view.close()
            size = sum(path.stat().st_size for path in place.iterdir())
    events, tried = sum(heads.values()), max(1, sum(some.values()))
    return {
        "projection": name, "events": events, "rate": round(rate), "eta_s": round(events / max(rate, 1.0), 1),
        "bytes": round(size * events / tried),
    }  # fmt: skip
