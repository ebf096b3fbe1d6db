"""Actors that an ambiguous ``once`` step holds (S21)."""

from runtime.local import LocalRuntime
from tests.support.eventually import eventually


async def held_by(runtime: LocalRuntime) -> str:
    """The id of the wait that holds an actor, once one does."""

    async def first() -> str | None:
        return next((wait_id for shard in runtime.shards for wait_id in shard.waits.held.values()), None)

    return await eventually(first, "an actor is held", 20.0)
