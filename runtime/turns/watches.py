"""Queries of one shard that have no answer yet (`actors.patience.NotYet`): run again when a commit has made their condition true.

They are nowhere but here. An owner that dies or hands its shard over loses them, and they come again, because an ask is repeated by id
until its deadline (S8, S9). They cost one look at a condition per commit of their actor, no task, and no actor in memory.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from actors.errors import ActorError, Gone
from events.ids import StreamId
from runtime.exchange import Reply
from runtime.items import Item

if TYPE_CHECKING:
    from runtime.shard import Shard

_EARLY_MS: Final = 50
"""How long before its deadline an asker hears that time is up: the word must arrive while it listens."""


class Watch:
    """One query that waits. late: its deadline."""

    __slots__ = ("item", "late", "ready")

    def __init__(self, item: Item, ready: Callable[[Any], bool]) -> None:
        self.item = item
        self.ready = ready
        self.late: asyncio.TimerHandle | None = None


class Watches:
    """open: by stream, then by command id. A stream without any is not in it."""

    def __init__(self, shard: "Shard") -> None:
        self._shard = shard
        self.open: dict[StreamId, dict[str, Watch]] = {}
        self._looking: set[StreamId] = set()

    def add(self, item: Item, ready: Callable[[Any], bool]) -> None:
        """`item` has been asked and has no answer yet. One that its caller repeats waits once, and answers the last repeat."""
        stream = item.command.stream
        watch = Watch(item, ready)
        waiting = self.open.setdefault(stream, {})
        if (before := waiting.get(item.command.command_id)) is not None:
            _stop(before)
        waiting[item.command.command_id] = watch
        if item.command.deadline_ms is not None:
            left_s = (item.command.deadline_ms - self._shard.now_ms() - _EARLY_MS) / 1_000
            watch.late = asyncio.get_running_loop().call_later(max(0.0, left_s), self._late, watch)

    def moved(self, stream: StreamId) -> None:
        """Something of this actor was committed. However much is committed in one turn of the loop is looked at once."""
        if stream in self.open and stream not in self._looking:
            self._looking.add(stream)
            asyncio.get_running_loop().call_soon(self._look, stream)

    def _look(self, stream: StreamId) -> None:
        self._looking.discard(stream)
        if self._shard.lost or stream not in self.open:
            return
        # Where nobody knows the state at this moment, because a turn is being undone, everybody is asked once it is folded.
        state = self._shard.cell_of(stream).state
        for watch in list(self.open[stream].values()):
            if state is None or watch.ready(state):
                self._ask(watch)

    def _ask(self, watch: Watch) -> None:
        """As if it had just come in: on the state that a query may see, behind the commit of what it sees (S17)."""
        item = watch.item
        self._drop(watch)
        item.command = msgspec.structs.replace(item.command, received_at_us=self._shard.clock.wall_us())
        try:
            self._shard.cell_of(item.command.stream).receive(item)
        except ActorError as error:
            item.answer(Reply(error=error))

    def _late(self, watch: Watch) -> None:
        self._drop(watch)
        watch.item.answer(Reply(error=self._shard.deadline_passed()))

    def _drop(self, watch: Watch) -> None:
        _stop(watch)
        stream = watch.item.command.stream
        waiting = self.open[stream]
        del waiting[watch.item.command.command_id]
        if not waiting:
            del self.open[stream]

    def _all(self) -> list[Watch]:
        return [watch for waiting in self.open.values() for watch in waiting.values()]

    def forget(self, stream: str) -> None:
        """The stream was erased."""
        for watch in list(self.open.get(StreamId(stream), {}).values()):
            self._drop(watch)
            watch.item.answer(Reply(error=Gone(f"{stream} is erased", stream=stream)))

    def stop(self) -> None:
        """Tell nobody anything more."""
        for watch in self._all():
            self._drop(watch)

    def hand_on(self) -> None:
        """The next owner answers who still listens (S5, S9)."""
        for watch in self._all():
            self._drop(watch)
            self._shard.forward(watch.item)


def _stop(watch: Watch) -> None:
    if watch.late is not None:
        watch.late.cancel()
