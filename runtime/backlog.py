"""Mailboxes fill from the inbox (S11): of an actor's stored commands so many are in memory, the rest waits in its rows.

A slow actor then holds up nobody: what is told to it is committed and acknowledged as fast as the disk takes it, and costs no memory. What
is left in the inbox is taken up in the order in which it stands there, so the order of a sender holds.
"""

import asyncio
from typing import TYPE_CHECKING, Any

import structlog

from events.errors import CuebookError
from events.ids import StreamId
from events.limits import STORED_LOADED_LOW, STORED_LOADED_MAX, STORED_PER_SHARD_MAX

if TYPE_CHECKING:
    from runtime.shard import Shard

log = structlog.get_logger("cuebook.backlog")
_AGAIN_S = 0.5


class Backlog:
    """Which actors of one shard have more in the inbox than in memory."""

    def __init__(self, shard: "Shard") -> None:
        self._shard = shard
        self._behind: dict[StreamId, int] = {}
        """By stream: how often something was left in the inbox, so that a load knows whether it has seen everything."""
        self._filling: asyncio.Task[Any] | None = None

    def __len__(self) -> int:
        return len(self._behind)

    def leaves(self, stream: StreamId) -> bool:
        """Whether the next stored command of `stream` stays in the inbox; then it is taken up by itself once there is room."""
        behind = self._behind.get(stream)
        if behind is None:
            cell = self._shard.cells.get(stream)
            full = cell is not None and cell.mailbox.stored >= STORED_LOADED_MAX
            if not full and self._shard.tells < STORED_PER_SHARD_MAX:
                return False
            behind = 0
        self._behind[stream] = behind + 1
        self._soon()
        return True

    def less(self, stream: StreamId) -> None:
        """A stored command of `stream` has ended."""
        if self._behind and (stream in self._behind or self._shard.tells == STORED_PER_SHARD_MAX // 2):
            self._soon()

    def forget(self, stream: StreamId) -> None:
        """The actor is stopped: its rows wait for its restart."""
        self._behind.pop(stream, None)

    def _soon(self) -> None:
        if self._filling is None and not self._shard.lost and not self._shard.draining:
            self._filling = self._shard.spawn(self._fill(), name=f"fill {self._shard.number}")

    def _low(self, stream: StreamId) -> bool:
        cell = self._shard.cells.get(stream)
        return cell is None or cell.mailbox.stored <= STORED_LOADED_LOW

    async def _fill(self) -> None:
        shard = self._shard
        try:
            while not shard.lost and not shard.draining:
                low = [stream for stream in self._behind if self._low(stream)]
                if not low or shard.tells >= STORED_PER_SHARD_MAX:
                    return
                for stream in low:
                    await self._load(stream)
        except CuebookError as error:
            log.info("fill_failed", shard=shard.number, error=error.message)
            asyncio.get_running_loop().call_later(_AGAIN_S, self._soon)
        finally:
            self._filling = None

    async def _load(self, stream: StreamId) -> None:
        shard = self._shard
        left = self._behind.get(stream)
        if left is None:
            return
        before = self._under_way(stream)
        limit = len(before) + STORED_LOADED_MAX
        entries = await shard.store.queued(stream, limit)
        if shard.lost or shard.draining:
            return
        # Whatever ended while we read was under way before: its row is only seen as it was.
        known = before | self._under_way(stream)
        complete = len(entries) < limit and self._behind.get(stream) == left
        if complete:
            del self._behind[stream]
        for entry in entries:
            if entry.command_id not in known:
                shard.hand_over(entry)

    def _under_way(self, stream: StreamId) -> set[str]:
        cell = self._shard.cells.get(stream)
        if cell is None:
            return set()
        running = [] if cell.item is None else [cell.item]
        return {item.command.command_id for item in (*cell.mailbox, *cell.pending, *cell.requeued, *running)}
