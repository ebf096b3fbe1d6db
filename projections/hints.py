"""How a follower learns that a shard may have something new (S31): a hint per commit, a look at everything after a reconnect, and once per
second the version number of each shard file. Hints may be lost, doubled and late; losing all of them costs a second.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from events.errors import CuebookError

log = structlog.get_logger("cuebook.projections")

LOOK_EVERY_S: Final = 1.0

Listener = Callable[[int, int | None], None]
"""Called with a shard and the position that it has reached, None where that is not known."""


class Hints:
    """Passes what is heard on to every follower of this process. All on one event loop."""

    def __init__(self, shards: int) -> None:
        self.shards = shards
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with every hint from now on; returns what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def tell(self, shard: int, position: int | None = None) -> None:
        """Somebody heard that `shard` has reached `position`. What cannot be true (a shard that the log has not) is passed over."""
        if 0 <= shard < self.shards:
            for listener in tuple(self._listeners):
                listener(shard, position)

    def tell_all(self) -> None:
        """Hints may have been lost: after a reconnect."""
        for shard in range(self.shards):
            self.tell(shard)


class ShardWatch(Protocol):
    """Adapters: `events.watch_sqlite.SqliteWatch` on the files."""

    shards: int

    async def changed(self, shard: int) -> int | None:
        """The position that `shard` has reached, if anything was committed to it since the last call; None if not. Looks at one number in
        shared memory where nothing was. Raises: TransientError, CorruptLogError."""
        ...


async def watch_files(watch: ShardWatch, hints: Hints, *, every_s: float = LOOK_EVERY_S) -> None:
    """Look at every shard file once per `every_s` and tell what changed; never ends. A file that cannot be read is tried again."""
    failing: set[int] = set()
    while True:
        for shard in range(watch.shards):
            try:
                position = await watch.changed(shard)
            except CuebookError as error:
                if shard not in failing:
                    failing.add(shard)
                    log.warning("shard_not_watched", shard=shard, error=error.message)
                continue
            failing.discard(shard)
            if position is not None:
                hints.tell(shard, position)
        await asyncio.sleep(every_s)
