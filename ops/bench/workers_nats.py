"""Two workers beside one: two deployments, each with its own server, under the same load from processes of their own.

`python -m ops.bench.workers_nats` is one load generator. Where there are fewer than about six cores, generators, server and workers take
them from each other, and the row shows that machine rather than the workers; `embedded` shows what a second process is worth by itself.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

import nats
from nats.aio.client import Client

from ops import event_loop
from ops.bench.children import measuring, serve
from ops.bench.limits import STREAMS
from ops.bench.measure import Case, Cases, Setting, closed_loop, in_turn
from ops.bench.over_nats import BODY, TIMEOUT_S, deployment_of, guarded
from ops.exits import CommandError

_URL: Final = "CUEBOOK_BENCH_LOAD_URL"
_FIRST: Final = "CUEBOOK_BENCH_LOAD_FIRST"
_GENERATORS: Final = 2
_SHARE: Final = STREAMS // _GENERATORS


@asynccontextmanager
async def worker_cases(setting: Setting) -> AsyncIterator[Cases]:
    """Deposits from two generators with 100 in flight each, to accounts of their own, on one worker and on two."""
    async with AsyncExitStack() as stack:
        cases: dict[str, Case] = {}
        for name, workers in (("workers-nats-1", 1), ("workers-nats", 2)):
            setting.progress(f"starting {workers} worker{'s' if workers > 1 else ''}")
            folder = setting.folder / name
            folder.mkdir()
            deployment = await stack.enter_async_context(deployment_of(folder, workers=workers))
            environments = [{_URL: deployment.connection.client_url, _FIRST: str(number * _SHARE)} for number in range(_GENERATORS)]
            load = await stack.enter_async_context(measuring("ops.bench.workers_nats", environments, folder))
            cases[name] = guarded(deployment, load.run)
        yield cases


async def generate(url: str, first: int) -> None:
    """Ask, 100 in flight, whenever told to."""
    client: Client = await nats.connect(url)

    async def ask(number: int) -> None:
        answer = await client.request(f"cue.ask.account.{first + number % _SHARE}.deposit", BODY, timeout=TIMEOUT_S)
        if answer.headers:  # only an error has headers
            raise CommandError(f"an ask of the bench failed: {answer.data.decode()}")

    try:
        await in_turn(ask, _SHARE, at_once=100)
        await serve(partial(closed_loop, ask, 100))
    finally:
        async with asyncio.timeout(2.0):
            await client.close()


if __name__ == "__main__":
    sys.exit(event_loop.run(generate(os.environ[_URL], int(os.environ[_FIRST]))))
