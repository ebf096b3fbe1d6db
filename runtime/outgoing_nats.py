"""What leaves a worker over NATS: one queue, and one task that exists only while something is in it.

Messages without headers are written as one block of PUB commands: `Client.publish` takes five times as long for each, and half of what a
worker sends is small. That needs two methods of nats-py that are not public, so it is done only with the versions that were tried; with any
other, and while the connection is down, each message goes through `publish`.
"""

import asyncio
from collections import deque
from importlib.metadata import version
from typing import Any, Final

import nats.errors
import structlog
from nats.aio.client import Client

from events.crash_points import CrashPoint, reached
from runtime.tasks import Tasks

log = structlog.get_logger("cuebook.exchange")
_BLOCK_BYTES: Final = 128 * 1024
_TRIED: Final = ((2, 15), (2, 16))
"""Versions of nats-py, by their first two numbers."""


def can_write_blocks(client: Any) -> bool:
    """Whether `client` is a nats-py client whose inside is known."""
    numbers = tuple(int(part) for part in version("nats-py").split(".")[:2] if part.isdecimal())
    return isinstance(client, Client) and numbers in _TRIED


class Outgoing:
    """The queue of one connection. published, dropped: counts since the start."""

    def __init__(self, client: Client, tasks: Tasks) -> None:
        self.published = 0
        self.dropped = 0
        self._nc = client
        self._tasks = tasks
        self._queue: deque[tuple[str, bytes, dict[str, str] | None, str]] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._blocks = can_write_blocks(client)

    def publish(self, subject: str, body: bytes, headers: dict[str, str] | None, reply: str) -> None:
        """Queue one message. What cannot be sent is dropped: replies are asked for again by id, sends are sent again, the rest are hints.

        subject, reply: tokens of ours or of the server, so that they need no check. body: not above the server's maximum.
        """
        self._queue.append((subject, body, headers, reply))
        if self._writer is None:
            self._writer = self._tasks.spawn(self._write(), name="publish")

    async def flush(self) -> None:
        """Write out what is queued: before this process ends."""
        while self._writer is not None:
            await asyncio.wait([self._writer])
        if self._nc.is_connected:
            await self._nc.flush()

    async def _write(self) -> None:
        try:
            while self._queue:
                count, block = self._next_block() if self._blocks and self._nc.is_connected else (0, b"")
                try:
                    if count:
                        await self._write_block(count, block)
                    else:
                        count = 1
                        subject, body, headers, reply = self._queue.popleft()
                        await self._nc.publish(subject, body, reply=reply, headers=headers)
                    self.published += count
                except (nats.errors.Error, OSError) as error:
                    if self.dropped % 1_000 == 0:
                        log.warning("publish_dropped", error=repr(error), dropped=self.dropped + count)
                    self.dropped += count
            reached(CrashPoint.PUBLISHED)
        finally:
            self._writer = None

    def _next_block(self) -> tuple[int, bytes]:
        """The PUB commands of the next messages up to one with headers, and their count."""
        queue = self._queue
        parts: list[bytes] = []
        size = count = 0
        while queue and size < _BLOCK_BYTES and queue[0][2] is None:
            subject, body, _, reply = queue.popleft()
            length = len(body)
            parts += (f"PUB {subject} {reply} {length}\r\n".encode(), body, b"\r\n")
            size += length
            count += 1
        return count, b"".join(parts)

    async def _write_block(self, count: int, block: bytes) -> None:
        nc: Any = self._nc
        nc.stats["out_msgs"] += count
        nc.stats["out_bytes"] += len(block)
        await nc._send_command(block)
        if nc._flush_queue is not None and nc._flush_queue.empty():
            await nc._flush_pending()
