"""Asks from this process, over a NATS server, to a worker process; beside an echo between two processes over the same server."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import nats
import nats.errors
from nats.aio.client import Client

from ops import child
from ops.bench.case_names import ECHO_1, ECHO_100
from ops.bench.echo_nats import SUBJECT, URL_VARIABLE
from ops.bench.limits import STREAMS
from ops.bench.measure import Case, Cases, Sample, Setting, Unavailable, closed_loop, in_turn
from ops.exits import CommandError, Exit
from ops.settings import PREFIX, Settings
from ops.up import Deployment, running
from ops.up_state import read_up
from runtime.client import connect

_APP: Final = "ops.examples.bank:app"
BODY: Final = b'{"cents":500}'
TIMEOUT_S: Final = 30.0
_ECHO_UP_S: Final = 10.0


@asynccontextmanager
async def deployment_of(folder: Path, *, workers: int) -> AsyncIterator[Deployment]:
    """The bank as a deployment of its own below `folder`, with its own server."""
    settings = Settings(data=folder / "deployment", namespace="cue", log_level="warning")
    with _no_settings_from_outside():
        async with running(settings, app=_APP, workers=workers) as deployment:
            yield deployment


@asynccontextmanager
async def nats_cases(setting: Setting) -> AsyncIterator[Cases]:
    """Deposits over NATS to one worker: by a plain nats-py client, and by ours, whose ids make every ask repeatable."""
    folder = setting.folder
    setting.progress("starting a worker")
    async with deployment_of(folder, workers=1) as deployment:
        url = deployment.connection.client_url
        echo = child.spawn(
            [sys.executable, "-P", "-m", "ops.bench.echo_nats"], environment={**os.environ, URL_VARIABLE: url}, output=folder / "echo.log"
        )
        client = await nats.connect(**deployment.connection.nats_options())
        try:
            async with connect(url) as cue:

                async def send(subject: str) -> None:
                    answer = await client.request(subject, BODY, timeout=TIMEOUT_S)
                    if answer.headers:  # only an error has headers
                        raise CommandError(f"an ask of the bench failed: {answer.data.decode()}")

                async def ask(number: int) -> None:
                    await send(f"cue.ask.account.{number % STREAMS}.deposit")

                async def ask_by_ours(number: int) -> None:
                    await cue.ref("account", str(number % STREAMS)).ask("deposit", cents=500)

                async def ask_echo(number: int) -> None:
                    await send(f"{SUBJECT}.account.{number % STREAMS}.deposit")

                await _wait_for_echo(client)
                await in_turn(ask, STREAMS)
                cases: dict[str, Case | Unavailable] = {
                    name: guarded(deployment, partial(closed_loop, operation, in_flight))
                    for name, operation, in_flight in (
                        (ECHO_1, ask_echo, 1), ("nats-1", ask, 1), ("client-1", ask_by_ours, 1),
                        (ECHO_100, ask_echo, 100), ("nats-100", ask, 100), ("client-100", ask_by_ours, 100),
                    )
                }  # fmt: skip
                yield cases | {"worker-memory": _resident_of_worker(deployment)}
        finally:
            await client.close()
            await child.stop(echo, 2.0)


def _resident_of_worker(deployment: Deployment) -> Case | Unavailable:
    """What the worker keeps of physical memory: interpreter and libraries, 1,000 live actors, SQLite's caches."""
    state = read_up(Path(deployment.settings.data))
    pids = [process.pid for process in state.processes if process.role.startswith("worker")] if state is not None else []
    if sys.platform != "linux" or not pids:
        return Unavailable("only Linux tells it in /proc")

    def resident() -> float:
        return float(Path(f"/proc/{pids[0]}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    async def run(_: float) -> Sample:
        return Sample(count=1, per_s=0.0, size_bytes=resident())

    return run


def guarded(deployment: Deployment, case: Case) -> Case:
    """`case`; once Ctrl-C has begun to stop the deployment, what fails has failed for that reason."""

    async def run(seconds: float) -> Sample:
        try:
            if not deployment.tree.is_stopping():
                return await case(seconds)
        except (BaseExceptionGroup, CommandError):
            if not deployment.tree.is_stopping():
                raise
        raise CommandError("the bench was interrupted", code=Exit.INTERRUPTED)

    return run


async def _wait_for_echo(client: Client) -> None:
    async with asyncio.timeout(_ECHO_UP_S):
        while True:
            try:
                await client.request(f"{SUBJECT}.up", b"", timeout=_ECHO_UP_S)
            except nats.errors.NoRespondersError:
                await asyncio.sleep(0.02)
            else:
                return


@contextmanager
def _no_settings_from_outside() -> Iterator[None]:
    """The worker must not be led elsewhere by a CUEBOOK_* variable that is meant for another deployment."""
    taken = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(PREFIX)}
    try:
        yield
    finally:
        os.environ.update(taken)
