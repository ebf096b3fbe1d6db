"""The client's connection over NATS: adapter of `runtime.link.Link`.

All calls share one subscription for their answers, so a call costs one publish and one future; the answer to an earlier attempt of a call
is as good as that to the last one, which `Client.request` of nats-py cannot do.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final
from urllib.parse import urlsplit

import nats.errors
from nats.aio.client import Client as Connection
from nats.aio.msg import Msg

from events.errors import InvariantError, TransientError
from runtime.link import Answer
from runtime.over_nats.incoming_nats import DirectClient, Message, take
from runtime.wire import ERROR_CODE

_MESSAGES_MAX: Final = 10_000


class _Replies:
    """Adapter of `Replies`."""

    __slots__ = ("_arrived", "_link", "_reply", "_sent", "_waiter")

    def __init__(self, link: "NatsLink", reply: str) -> None:
        self._link = link
        self._reply = reply
        self._sent = 0
        self._arrived: deque[Answer] = deque()
        self._waiter: asyncio.Future[None] | None = None

    async def send(self, subject: str, body: bytes, headers: dict[str, str] | None) -> None:
        # Each sending has its own subject for answers, so that it is known which of them was not done.
        attempt = self._sent + 1
        await self._link.publish(subject, body, self._reply if attempt == 1 else f"{self._reply}-{attempt}", headers)
        self._sent = attempt

    async def next(self, timeout_s: float) -> Answer | None:
        if not self._arrived:
            self._waiter = asyncio.get_running_loop().create_future()
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._waiter
            self._waiter = None
        return self._arrived.popleft() if self._arrived else None

    def arrive(self, answer: Answer) -> None:
        self._arrived.append(answer)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _News:
    """Adapter of `News`."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def forget(self) -> None:
        self._event.clear()

    def tell(self) -> None:
        self._event.set()

    async def wait(self, timeout_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._event.wait()


class _Mail:
    """Adapter of `Mail`."""

    __slots__ = ("_away", "arrived", "some")

    def __init__(self) -> None:
        self.arrived: deque[tuple[str, bytes]] = deque(maxlen=_MESSAGES_MAX)
        self.some = asyncio.Event()
        self._away = False

    def tell(self) -> None:
        """The connection was away."""
        self._away = True
        self.some.set()

    def was_away(self) -> bool:
        was, self._away = self._away, False
        return was

    async def next(self, timeout_s: float) -> tuple[str, bytes] | None:
        if not self.arrived:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self.some.wait()
            self.some.clear()
        return self.arrived.popleft() if self.arrived else None


class NatsLink:
    """Adapter of `Link` over a connection that its maker opens and closes."""

    def __init__(self, connection: Connection) -> None:
        self._nc = connection
        self._inbox = ""
        self._next = 0
        self._open: dict[str, _Replies] = {}
        self._news: set[_News | _Mail] = set()

    @property
    def payload_bytes_max(self) -> int:
        return self._nc.max_payload

    async def start(self) -> None:
        self._inbox = self._nc.new_inbox()
        await take(self._nc, f"{self._inbox}.*", self._on_reply)

    def _on_reply(self, message: Message) -> None:
        token, _, attempt = message.subject[len(self._inbox) + 1 :].partition("-")
        replies = self._open.get(token)
        if replies is None:
            return
        headers = message.headers or {}
        nobody = not message.data and headers.get("Status") == "503"
        replies.arrive(Answer(message.data, ERROR_CODE in headers, nobody, int(attempt or 1)))

    @contextmanager
    def replies(self) -> Iterator[_Replies]:
        self._next += 1
        token = f"{self._next:x}"
        replies = self._open[token] = _Replies(self, f"{self._inbox}.{token}")
        try:
            yield replies
        finally:
            del self._open[token]

    @asynccontextmanager
    async def listen(self, subject: str) -> AsyncIterator[_News]:
        news = _News()

        async def hint(_message: Msg) -> None:
            news.tell()

        async with self._subscribed(subject, hint):
            self._news.add(news)
            try:
                yield news
            finally:
                self._news.discard(news)

    @asynccontextmanager
    async def messages(self, subject: str) -> AsyncIterator[_Mail]:
        mail = _Mail()

        async def put(message: Msg) -> None:
            mail.arrived.append((message.subject, message.data))
            mail.some.set()

        async with self._subscribed(subject, put):
            self._news.add(mail)
            try:
                yield mail
            finally:
                self._news.discard(mail)

    @asynccontextmanager
    async def _subscribed(self, subject: str, callback: Callable[[Msg], Awaitable[None]]) -> AsyncIterator[None]:
        try:
            subscription = await self._nc.subscribe(subject, cb=callback)
            # The server has the subscription before the caller goes on: what happens from here on is heard of.
            await self._nc.flush()
        except (nats.errors.Error, OSError) as error:
            raise TransientError(f"cannot subscribe to {subject}: {error!r}") from error
        try:
            yield
        finally:
            with suppress(nats.errors.Error, OSError):
                await subscription.unsubscribe()

    async def on_reconnect(self) -> None:
        """Hints may have been lost meanwhile: everybody looks again."""
        for news in self._news:
            news.tell()

    async def publish(self, subject: str, body: bytes, reply: str, headers: dict[str, str] | None) -> None:
        try:
            await self._nc.publish(subject, body, reply=reply, headers=headers)
        except nats.errors.ConnectionClosedError as error:
            raise InvariantError("the client is closed") from error
        except (nats.errors.Error, OSError) as error:
            raise TransientError(f"the NATS connection does not take messages: {error!r}") from error


@asynccontextmanager
async def open_link(*, wait_s: float, options: dict[str, Any]) -> AsyncIterator[NatsLink]:
    """Connect with the keyword arguments of ``nats.connect``, and close at the end of the block.

    Raises:
        TransientError: no server answers within `wait_s`, or it refuses the credentials.
    """
    connection = DirectClient()
    link = NatsLink(connection)
    errors: list[Exception] = []

    async def on_error(error: Exception) -> None:
        # The last one says why; nats-py would print each with a traceback.
        errors[:] = [error]

    try:
        async with asyncio.timeout(wait_s):
            await connection.connect(
                **{"name": "cuebook client", "max_reconnect_attempts": -1, "reconnect_time_wait": 0.25, "connect_timeout": 2, **options},
                error_cb=on_error,
                reconnected_cb=link.on_reconnect,
            )
            await link.start()
    except (nats.errors.Error, OSError, TimeoutError) as error:
        await _close(connection.close)
        raise TransientError(f"no NATS server answers at {_public(options)} ({(errors or [error])[0]!r})") from error
    except BaseException:
        await _close(connection.close)
        raise
    try:
        yield link
    finally:
        await _close(connection.close)


async def _close(close: Callable[[], Awaitable[None]]) -> None:
    with suppress(nats.errors.Error, OSError, TimeoutError):
        async with asyncio.timeout(5.0):
            await close()


def _public(options: dict[str, Any]) -> str:
    """The servers without user and password."""
    servers = options["servers"] if isinstance(options["servers"], list) else [options["servers"]]
    return ", ".join(urlsplit(str(server))._replace(netloc=urlsplit(str(server)).netloc.rpartition("@")[2]).geturl() for server in servers)
