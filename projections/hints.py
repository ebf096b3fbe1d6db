"""How a follower learns that a shard may have something new (S31): a hint per commit, a look at everything after a reconnect, and once per
second the version number of each shard file. Hints may be lost, doubled and late; losing all of them costs a second.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from events.clock import Clock
from events.errors import CuebookError

log = structlog.get_logger("cuebook.projections")

LOOK_EVERY_S: Final = 1.0
PACE_S: Final = 0.1

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


class Heard:
    """What one listener has heard since its last look at the log, and when the next is due.

    A look costs reads, a transaction of the view and their thread hops, however little is new: one per commit would take more of the
    processor than the commits. So the first after a pause comes at once, and so does one that a reader waits for; the others keep `PACE_S`.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._hints: dict[int, int | None] = {}
        self._taken_at = -PACE_S
        self._hurry = False

    def add(self, shard: int, position: int | None) -> bool:
        """Note a hint; returns whether it is the first for the next look."""
        first, known = not self._hints, self._hints.get(shard, 0)
        self._hints[shard] = None if position is None or known is None else max(position, known)
        return first

    def hurry(self) -> None:
        """The next look is due at once: somebody waits for it."""
        self._hurry = True

    def due_s(self) -> float | None:
        """Seconds until the next look, 0 if it is due; None if nothing was heard."""
        if not self._hints:
            return None
        return 0.0 if self._hurry else max(0.0, self._taken_at + PACE_S - self._clock.monotonic())

    def take(self) -> dict[int, int | None]:
        """What was heard, if the next look is due; else nothing, and it is kept."""
        if self.due_s() != 0.0:
            return {}
        heard, self._hints = self._hints, {}
        self._taken_at, self._hurry = self._clock.monotonic(), False
        return heard


class ShardWatch(Protocol):
    """Adapters: `events.sqlite.watch_sqlite.SqliteWatch` on the files."""

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
