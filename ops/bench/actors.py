"""Many actors: whether a command costs the same where 100,000 of them are used in turn."""

import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

from events.limits import SHARDS_MIN
from ops.bench.in_process import awake_runtime
from ops.bench.limits import STREAMS
from ops.bench.measure import Cases, Setting, closed_loop
from runtime.local import LocalRuntime


@asynccontextmanager
async def actor_cases(setting: Setting) -> AsyncIterator[Cases]:
    """Deposits to actors picked as if by lot, after each of them had one: few of them in one runtime, many in another.

    Both logs are equally long: with a short one for the few, the many came out faster, which measured the logs and not the actors.
    As many shards as a deployment has by default, because how many actors may be live is a bound of a shard.
    """
    many = setting.scale.actors
    setting.progress(f"waking {many:,} actors")
    async with (
        awake_runtime(setting.folder / "few", STREAMS, shards=SHARDS_MIN, deposits=many) as few,
        awake_runtime(setting.folder / "many", many, shards=SHARDS_MIN) as all_of_them,
    ):
        yield {
            "actors-few": partial(closed_loop, _scattered(few, STREAMS), 100),
            "actors-many": partial(closed_loop, _scattered(all_of_them, many), 100),
        }


def _scattered(runtime: LocalRuntime, actors: int) -> Callable[[int], Awaitable[object]]:
    async def deposit(number: int) -> None:
        await runtime.ask(f"account/{scattered(number, actors)}", "deposit", cents=500)

    return deposit


def scattered(number: int, among: int) -> int:
    """The n-th of a fixed sequence of numbers below `among` without visible order."""
    return zlib.crc32(number.to_bytes(8, "little")) % among
