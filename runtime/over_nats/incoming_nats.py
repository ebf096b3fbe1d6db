"""What comes into a process over NATS, handed over where it is parsed.

nats-py matches each message with regular expressions, puts it into a queue and wakes the task of its subscription: half of what a process
takes that only answers. A `DirectClient` is nats-py's client with a parser that reads MSG lines by itself and calls the handler of a
subscription made by `take` at once; everything else, messages with headers among it, is parsed by nats-py as before.

That needs parts of nats-py that are not public, so it is done only with the versions that were tried
(`tests/integration/test_incoming_nats.py`); with any other `take` is an ordinary subscription.
"""

import asyncio
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Final

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import ProtocolError
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

from events.limits import MESSAGES_AT_ONCE

_TRIED: Final = ((2, 15), (2, 16))
"""Versions of nats-py, by their first two numbers."""


class Message(msgspec.Struct, gc=False):
    """What handlers may use of a nats-py `Msg`, which they get as well."""

    subject: str
    reply: str
    data: bytes
    headers: dict[str, str] | None


Handler = Callable[[Any], None]
"""Takes a `Message` or a `Msg`, at once: nothing is read while it runs."""


def is_tried() -> bool:
    """Whether the inside of the installed nats-py is known."""
    return tuple(int(part) for part in version("nats-py").split(".")[:2] if part.isdecimal()) in _TRIED


class DirectClient(Client):
    """nats-py's client. direct: whether `take` hands messages over where they are parsed."""

    def __init__(self) -> None:
        super().__init__()
        self.handlers: dict[bytes, Handler] = {}
        """By the number of their subscription, as it stands in a MSG line."""
        self.direct = is_tried()
        if self.direct:
            self._ps = _DirectParser(self)

    async def take_directly(self, subject: str, handler: Handler, queue: str) -> Subscription:
        """See `take`."""

        async def callback(_message: Msg) -> None:
            """Never called: what comes for this subscription never reaches its queue."""

        # Known before the server is told of it, so that no message goes the other way and comes in behind a later one.
        number = b"%d" % (self._sid + 1)
        self.handlers[number] = handler
        try:
            return await self.subscribe(subject, queue=queue, cb=callback)
        except BaseException:
            self.handlers.pop(number, None)
            raise

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        self.handlers.pop(b"%d" % sid, None)
        super()._remove_sub(sid, max_msgs)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        """What the parser leaves to nats-py's own: messages with headers, and those that came in pieces."""
        handler = self.handlers.get(b"%d" % sid)
        if handler is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(data)
        message = Message(subject.decode(), reply.decode(), data, await self._process_headers(headers) if headers else None)
        try:
            handler(message)
        except Exception as error:  # noqa: BLE001 - as nats-py does with its callbacks: the connection goes on
            await self._error_cb(error)


class _DirectParser(Parser):
    """nats-py's parser, whose state is empty between messages; what it has of half a message is completed by it."""

    def __init__(self, client: DirectClient) -> None:
        self._client = client
        self._resets = 0
        self._taken = 0
        super().__init__(client)

    def reset(self) -> None:
        self._resets += 1
        super().reset()

    async def parse(self, data: bytes = b"") -> None:
        resets = self._resets
        if self.buf:
            data = await self._completed(data)
        client = self._client
        handlers = client.handlers
        at, end = 0, len(data)
        messages = size = 0
        try:
            # A connection that was lost meanwhile has taken its half-read message with it.
            while at < end and resets == self._resets:
                if self._taken >= MESSAGES_AT_ONCE:
                    # Each message may be a whole turn. (Not more often: what is taken in one go is one commit.)
                    self._taken = 0
                    await asyncio.sleep(0)
                    continue
                line_end = data.find(b"\r\n", at)
                words = data[at:line_end].split() if line_end >= 0 else []
                if len(words) < 4 or words[0] not in _MESSAGES:
                    await super().parse(data[at:] if line_end < 0 else data[at : line_end + 2])
                    at = end if line_end < 0 else line_end + 2
                    continue
                start = line_end + 2
                try:
                    stop = start + int(words[-1])
                except ValueError:
                    raise ProtocolError("nats: malformed MSG") from None
                self._taken += 1
                handler = handlers.get(words[2])
                if stop + 2 > end or handler is None or words[0] != b"MSG":
                    await super().parse(data[at : stop + 2])
                    at = stop + 2
                    continue
                at = stop + 2
                body = data[start:stop]
                messages += 1
                size += len(body)
                reply = words[3].decode() if len(words) == 5 else ""
                try:
                    handler(Message(words[1].decode(), reply, body, None))
                except Exception as error:  # noqa: BLE001 - as nats-py does with its callbacks: the connection goes on
                    await client._error_cb(error)
        finally:
            client.stats["in_msgs"] += messages
            client.stats["in_bytes"] += size

    async def _completed(self, data: bytes) -> bytes:
        """Complete the message that was left half; returns what is behind it."""
        if self.state == AWAITING_CONTROL_LINE:
            data, self.buf = bytes(self.buf) + data, bytearray()
            return data
        missing = self.needed + 2 - len(self.buf)
        await super().parse(data[:missing])
        return data[missing:]


_MESSAGES: Final = (b"MSG", b"HMSG")


async def take(client: Client, subject: str, handler: Handler, *, queue: str = "") -> Subscription:
    """Subscribe; `handler` is called with each message, in order. The loop turns after every `MESSAGES_AT_ONCE` of them.

    Args:
        queue: the queue group.

    Raises:
        nats.errors.Error: the connection is closed.
    """
    if isinstance(client, DirectClient) and client.direct:
        return await client.take_directly(subject, handler, queue)
    taken = 0
    subscription: Subscription | None = None

    async def callback(message: Msg) -> None:
        nonlocal taken
        handler(message)
        taken += 1
        if subscription is None or not subscription.pending_msgs:
            taken = 0
        elif taken >= MESSAGES_AT_ONCE:
            # nats-py hands over all that waits without letting go of the loop.
            taken = 0
            await asyncio.sleep(0)

    subscription = await client.subscribe(subject, queue=queue, cb=callback, pending_msgs_limit=-1, pending_bytes_limit=-1)
    return subscription
