"""What leaves a worker over NATS: all that is said in one turn of the loop in one write to the socket.

`Client.publish` takes five times as long for a message as its PUB command does in such a block, and three more turns of the loop until it
is on its way. That needs parts of nats-py that are not public, so it is done only with the versions that were tried; with any other, while
the connection is down, and while the server does not take what it is sent, each message goes through `publish`, by a task that exists only
while something is queued.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.transport import TcpTransport

from events.crash_points import CrashPoint, reached
from runtime.over_nats.incoming_nats import is_tried
from runtime.tasks import Tasks

log = structlog.get_logger("cuebook.exchange")
_BLOCK_BYTES: Final = 128 * 1024
_UNSENT_BYTES: Final = 1024 * 1024
"""So much in the socket's own buffer, and no more is put there: nats-py's bound of what it keeps counts instead."""
_FEW: Final = 2


def can_write_blocks(client: Any) -> bool:
    """Whether `client` is a nats-py client whose inside is known."""
    return isinstance(client, Client) and is_tried()


class Outgoing:
    """The queue of one connection. published, dropped: counts since the start."""

    def __init__(self, client: Client, tasks: Tasks) -> None:
        self.published = 0
        self.dropped = 0
        self._nc = client
        self._tasks = tasks
        self._queue: deque[tuple[str, bytes, Mapping[str, str] | None, str]] = deque()
        self._more: Callable[[], None] | None = None
        self._due = False
        self._writer: asyncio.Task[None] | None = None
        self._blocks = can_write_blocks(client)

    def publish(self, subject: str, body: bytes, headers: Mapping[str, str] | None, reply: str) -> None:
        """Queue one message. What cannot be sent is dropped: replies are asked for again by id, sends are sent again, the rest are hints.

        subject, reply: tokens of ours or of the server, so that they need no check. body: not above the server's maximum. headers: names
        and values of one line.
        """
        self._queue.append((subject, body, headers, reply))
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._write_now)

    def put_off(self, more: Callable[[], None]) -> None:
        """Have `more` called once, still in this turn of the loop, to publish what nobody waits for: a reply that stands alone is sent
        before that, many leave together with it."""
        self._more = more
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._write_now)

    async def flush(self) -> None:
        """Write out what is queued: before this process ends."""
        self._write_now()
        while self._writer is not None:
            await asyncio.wait([self._writer])
        if self._nc.is_connected:
            await self._nc.flush()

    def _write_now(self) -> None:
        more, self._more = self._more, None
        try:
            if more is not None:
                if 0 < len(self._queue) <= _FEW and self._takes_blocks():
                    self._send(self._next_block(), at_once=True)
                more()
        finally:
            self._due = False
            while self._queue and self._takes_blocks():
                self._send(self._next_block())
            if self._queue and self._writer is None:
                self._writer = self._tasks.spawn(self._write_singly(), name="publish")

    def _takes_blocks(self) -> bool:
        """Whether what is written now leaves in its turn, and does not pile up."""
        nc: Any = self._nc
        if not self._blocks or self._writer is not None or not nc.is_connected or nc.is_draining_pubs:
            return False
        # What nats-py keeps for its own flusher was said before.
        return not nc._pending and isinstance(nc._transport, TcpTransport) and _socket_of(nc).get_write_buffer_size() < _UNSENT_BYTES

    def _next_block(self) -> bytes:
        """The commands of the next messages."""
        stats, queue = self._nc.stats, self._queue
        parts: list[bytes] = []
        size = count = 0
        while queue and size < _BLOCK_BYTES:
            subject, body, headers, reply = queue.popleft()
            length = len(body)
            if headers is None:
                parts += (f"PUB {subject} {reply} {length}\r\n".encode(), body, b"\r\n")
            else:
                head = _header_block(headers)
                parts += (f"HPUB {subject} {reply} {len(head)} {len(head) + length}\r\n".encode(), head, body, b"\r\n")
            size += length
            count += 1
        stats["out_msgs"] += count
        stats["out_bytes"] += size
        self.published += count
        return b"".join(parts)

    def _send(self, block: bytes, *, at_once: bool = False) -> None:
        """at_once: in this moment, and not, as uvloop does, when the loop has turned."""
        nc: Any = self._nc
        try:
            sent = _write_through(nc, block) if at_once else 0
            if sent < len(block):
                nc._transport.write(block[sent:])
        except (OSError, RuntimeError):
            # The socket is closed and nats-py does not know yet: it sends what it keeps as soon as it is connected again.
            nc._pending.append(block)
            nc._pending_data_size += len(block)
        reached(CrashPoint.PUBLISHED)

    async def _write_singly(self) -> None:
        try:
            while self._queue:
                subject, body, headers, reply = self._queue.popleft()
                try:
                    await self._nc.publish(subject, body, reply=reply, headers=None if headers is None else dict(headers))
                    self.published += 1
                except (nats.errors.Error, OSError) as error:
                    if self.dropped % 1_000 == 0:
                        log.warning("publish_dropped", error=repr(error), dropped=self.dropped + 1)
                    self.dropped += 1
            reached(CrashPoint.PUBLISHED)
        finally:
            self._writer = None


def _header_block(headers: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"NATS/1.0\r\n{lines}\r\n".encode()


def _socket_of(nc: Any) -> Any:
    """The asyncio transport below a connected client."""
    return nc._transport._io_writer.transport


def _write_through(nc: Any, block: bytes) -> int:
    """How much of `block` the kernel has taken; 0 where something stands before it, or it is to be encrypted. Raises: OSError."""
    transport = _socket_of(nc)
    socket = transport.get_extra_info("socket")
    if socket is None or transport.get_write_buffer_size() or transport.get_extra_info("ssl_object") is not None:
        return 0
    try:
        return os.write(socket.fileno(), block)
    except BlockingIOError:
        return 0
