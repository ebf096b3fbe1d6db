"""What a worker holds for one shard, from subscribing to letting go (S5).

Messages of a shard reach everybody who is subscribed to it, so two workers may hold copies of one: while a shard changes hands, and while a
worker that was stopped does not know yet that it was superseded. Who lost a shard that way drops its copies: had it handed them on, one
copy could be done after the caller was told "no room" of the other. The new owner has them, or the caller repeats by id (S9).

For the same reason an heir that was offered a shard keeps only what came in since: the owner that offers it says "no room" and "no time"
to nobody any more, because the heir may do the copy. One that owned it before or in between knew of no heir, and may have said so.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from events.store import ShardStore
from runtime.shard import Shard

Message = Any
"""A message of the client library, which this module does not know."""


class Seat:
    """A shard of this process."""

    __slots__ = ("_offered", "buffer", "handler", "listening", "shard", "store", "tells")

    def __init__(self) -> None:
        self.buffer: list[Message] = []
        self.handler: Callable[[Message], None] = self._hold
        self.shard: Shard | None = None
        self.store: ShardStore | None = None
        self.tells: asyncio.Task[Any] | None = None
        self.listening: Any = None
        """What ends its listening."""
        self._offered: int | None = None

    def _hold(self, message: Message) -> None:
        self.buffer.append(message)

    def offered(self, epoch: int) -> None:
        """The owner of `epoch` offers the shard. Until it hears that we listen it gets everything too, so nothing is lost here."""
        if self.shard is None:
            self.buffer.clear()
            self._offered = epoch

    def taken(self, epoch: int) -> None:
        """The shard is ours as of `epoch`; called before anything is handled."""
        if self._offered is not None and epoch != self._offered + 1:
            self.buffer.clear()
        self._offered = None

    def release_buffer(self) -> None:
        """Handle what came in while nobody could decide it."""
        waiting, self.buffer = self.buffer, []
        for message in waiting:
            self.handler(message)

    def take_listening(self) -> Any:
        """What ends its listening, once; None if somebody ends it already."""
        listening, self.listening = self.listening, None
        return listening

    def drop(self) -> None:
        """Another worker has taken the shard: what came in since it listens, it has too."""
        self.buffer.clear()
        self.handler = _dropped


def _dropped(_message: Message) -> None:
    """Nobody's any more."""
