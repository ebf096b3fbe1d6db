"""The main job: the team examines a code base."""

import asyncio
import os
import shlex
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from ops import event_loop, log_setup
from ops.commands.access import as_command_error, open_client
from ops.commands.common import DEFAULTS, Common
from ops.exits import CommandError, Exit, command_name
from ops.output import cell, print_json, progress, wants_json
from ops.review_progress import EVERY_S, ReviewProgress
from ops.settings import Settings, default_data

if TYPE_CHECKING:
    from actors.team import ReviewSummary
    from actors.tools.report import Since
    from runtime.client import Client

TEAM_APP = "ops.team_app:app"
_TIMEOUT_S = 6 * 3_600.0


class _StoppedError(Exception):
    """Somebody asked the deployment to stop while it reviewed."""


def review(
    path: Annotated[Path, Parameter(help="Folder of the Python code base; nothing in it is imported, run or changed.")],
    /,
    *,
    once: Annotated[bool, Parameter(help="Start a deployment for this review and stop it afterwards.")] = False,
    out: Annotated[Path | None, Parameter(help="Folder for the reports (default: DATA/reviews/WORKSPACE).")] = None,
    workers: Annotated[int | None, Parameter(help="Worker processes of --once (default 2).")] = None,
    screen: Annotated[bool, Parameter(help="Print the summary for people also into a pipe.")] = False,
    common: Common = DEFAULTS,
) -> int:
    """Examine a Python code base and write report.md, report.html and report.json.

    Results of unchanged files are taken from the log. Without --once the
    deployment that runs must run the team: cuebook up --app ops.team_app:app
    """
    from actors.team import workspace_id

    settings = common.load(workers=workers).settings
    root = _folder(path)
    workspace = workspace_id(root)
    reports = (Path.cwd() / out) if out is not None else Path(settings.data) / "reviews" / workspace

    async def main() -> "tuple[ReviewSummary, str]":
        async with _deployment(settings, once) as (cue, stopping):
            return await _review(cue, workspace, root, reports, stopping, settings.explaining_model)

    if once:
        # What the agents do is shown by their progress; the log goes to its file.
        log_setup.configure("review", data=settings.data, level=settings.log_level, console=False)
    summary, correlation_id = event_loop.run(main())
    if wants_json(common.json) and not screen:
        print_json({**msgspec.to_builtins(summary), "correlation_id": correlation_id})
    else:
        for line in last_screen(summary, next_commands(summary, correlation_id, settings.data)):
            print(line)
    return int(Exit.OK)


def _folder(path: Path) -> Path:
    from actors.tools.errors import WorkspaceError
    from actors.tools.workspace import resolve_root

    try:
        return resolve_root(path)
    except WorkspaceError as error:
        raise CommandError(str(error), next_step="cuebook review FOLDER", code=Exit.NOT_FOUND) from error


@asynccontextmanager
async def _deployment(settings: Settings, once: bool) -> "AsyncIterator[tuple[Client, Any]]":
    """A client of the deployment to review with, and what to await for its end, None if that is not ours to watch."""
    if not once:
        async with open_client(settings) as cue:
            yield cue, None
        return
    from actors.errors import ActorError
    from ops.up import running
    from runtime.client import connect

    progress(f"starting a NATS server and {settings.workers} workers on {settings.data}")
    async with running(settings, app=TEAM_APP, workers=settings.workers, remember=settings.app is None, quiet=True) as deployment:
        try:
            async with connect(namespace=settings.namespace, **deployment.connection.nats_options()) as cue:
                yield cue, deployment.tree.wait_stopping
        except ActorError as error:
            raise as_command_error(error) from error
        except KeyboardInterrupt:
            # The second request: at once. A drain would wait for the review that nobody waits for; its turns go on at the next start.
            progress("stopping; what is done so far is kept, and the next review goes on from there")
            deployment.tree.request_stop()
            raise


async def _review(
    cue: "Client", workspace: str, root: Path, reports: Path, stopping: Any, model: str | None
) -> "tuple[ReviewSummary, str]":
    """Ask the orchestrator and show the progress of all until it answers; also returns the correlation id of it all."""
    from actors.errors import Unknown
    from actors.team import Orchestrator

    command_id = cue.new_command_id()
    board = ReviewProgress()
    async with _watching(cue, workspace, board, stopping):
        try:
            summary = await cue.ref(Orchestrator, workspace).ask(
                "review", path=str(root), out=str(reports), timeout_s=_TIMEOUT_S, command_id=command_id,
                **({} if model is None else {"model": model}),
            )  # fmt: skip
        except Unknown as error:
            raise CommandError(
                "the deployment that runs has no review team",
                why=error.message,
                next_step=f"cuebook review {shlex.quote(str(root))} --once --data ANOTHER-FOLDER",
                code=Exit.NOT_FOUND,
            ) from error
    for line in board.lines(time.monotonic()):
        progress(line)
    return summary, command_id


@asynccontextmanager
async def _watching(cue: "Client", workspace: str, board: ReviewProgress, stopping: Any) -> AsyncIterator[None]:
    """While the block runs, print the progress of the workspace's agents.

    Raises:
        KeyboardInterrupt: the deployment was asked to stop meanwhile.
    """
    from events.errors import TransientError

    async def listen() -> None:
        # Without progress the review goes on all the same.
        with suppress(TransientError):
            async with aclosing(cue.chunks(id=workspace)) as chunks:
                async for chunk in chunks:
                    board.take(chunk.stream.partition("/")[0], None if chunk.end else chunk.data, time.monotonic())

    async def print_lines() -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            for line in board.lines(time.monotonic()):
                progress(line)

    async def watch_for_stop() -> None:
        await stopping()
        raise _StoppedError

    try:
        async with asyncio.TaskGroup() as group:
            beside = [group.create_task(listen()), group.create_task(print_lines())]
            if stopping is not None:
                beside.append(group.create_task(watch_for_stop()))
            yield
            for task in beside:
                task.cancel()
    except BaseExceptionGroup as error:
        first = error.exceptions[0]
        if isinstance(first, _StoppedError):
            raise KeyboardInterrupt from None
        raise first from None


def last_screen(summary: "ReviewSummary", commands: list[str]) -> list[str]:
    """What a person sees at the end: at most 15 lines."""
    total = summary.results_reused + summary.results_made
    size = f"{summary.files:,} files, {summary.lines:,} lines, {summary.python_files:,} Python files"
    lines = [
        f"{cell(summary.root)}: {size} in {summary.duration_s:.1f} s; re-used {summary.results_reused:,} of {total:,} results",
        "findings  " + ", ".join(f"{severity} {count:,}" for severity, count in summary.findings.items()),
    ]
    if summary.since is not None:
        lines.append(f"changed   {cell(_since(summary.since))}"[:200])
    if summary.worst is not None:
        worst = summary.worst
        lines.append(f"worst     {cell(worst.name)} at {cell(worst.path)}:{worst.line}, complexity {worst.complexity}")
    lines.append(f"cycles    {_cycles(summary)}")
    lines += [f"missing   {cell(sentence)}"[:200] for sentence in summary.unavailable[:3]]
    if len(summary.unavailable) > 3:
        lines.append(f"missing   and {len(summary.unavailable) - 3} more, see the report")
    if summary.explanation is not None:
        lines.append(f"model     {cell(summary.explanation.missing or summary.explanation.summary)}"[:200])
    lines.append(f"report    {cell(summary.report_html)}")
    return [*lines, *(f"next      {command}" for command in commands)]


def _since(since: "Since") -> str:
    """What is different from the last review, by its worst example."""
    if since.missing:
        return since.missing
    if since.review is None:
        return "this is the first review of this folder"
    example = since.new_findings[:1] or [f"fixed {text}" for text in since.fixed_findings[:1]]
    named = f": {example[0]}" if example else ""
    return f"{since.new:,} new, {since.fixed:,} fixed since {since.at[:16].replace('T', ' ')}{named}"


def _cycles(summary: "ReviewSummary") -> str:
    if not summary.cycles:
        return "none"
    named = " -> ".join(summary.first_cycle[:4])
    rest = len(summary.first_cycle) - 4
    more = f" and {rest:,} more" if rest > 0 else ""
    return cell(f"{summary.cycles:,}, the first with {len(summary.first_cycle):,} modules: {named}{more}")


def next_commands(summary: "ReviewSummary", correlation_id: str, data: Path) -> list[str]:
    """Three commands that work when pasted, on the log of this review."""
    where = "" if Path(data) == default_data(os.environ) else f" --data {shlex.quote(str(data))}"
    start = command_name()
    return [
        f"{start} state docs/{summary.workspace}{where}",
        f"{start} trace {correlation_id}{where}",
        f"{start} log actor:reviewer/{summary.workspace} type:reviewer.*{where}",
    ]
