"""JetStream as far as tells need it (S11): a work queue that keeps each message until it is acknowledged, and a pull consumer per shard.

At least once: what was delivered and not acknowledged comes again, from the start when its consumer is made anew, else after the server's
waiting time. The intake of the workers is the real `TellIntake`.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec
import nats.errors
import nats.js.errors

_ACK_WAIT_S: Final = 60.0
_API_TIMEOUT_S: Final = 5.0


class Deliver(Protocol):
    """Hands a message to whoever is subscribed to `inbox`, in the order of the calls."""

    def __call__(self, inbox: str, subject: str, reply: str, data: bytes, headers: dict[str, str] | None) -> None: ...


class _Request(msgspec.Struct):
    inbox: str
    left: int
    open: bool = True


class _Consumer:
    """One pull consumer: what it gave out, and who waits for more."""

    def __init__(self, server: "SimJetStream", name: str, prefix: str) -> None:
        self._server = server
        self._name = name
        self._prefix = prefix
        self._numbers = itertools.count(1)
        self._given = 0
        self._again: deque[int] = deque()
        self.pending: dict[int, int] = {}
        """Stream sequence to how often it was delivered."""
        self._requests: deque[_Request] = deque()
        self._gone = False

    def request(self, inbox: str, batch: int, expires_s: float) -> None:
        request = _Request(inbox, batch)
        self._requests.append(request)
        self._server.later(expires_s, self._expire, request)
        self.give()

    def _expire(self, request: _Request) -> None:
        if request.open and not self._gone:
            request.open = False
            self._requests.remove(request)
            self._server.status(request.inbox, "408", request.left)

    def close(self) -> None:
        self._gone = True
        for request in self._requests:
            self._server.status(request.inbox, "409", request.left)

    def give(self) -> None:
        while self._requests and (sequence := self._next()) is not None:
            request = self._requests[0]
            request.left -= 1
            if not request.left:
                request.open = False
                self._requests.popleft()
            self.pending[sequence] = delivered = self.pending.get(sequence, 0) + 1
            self._server.give(request.inbox, self._name, sequence, next(self._numbers), delivered)
            self._server.later(_ACK_WAIT_S, self._redeliver, sequence, delivered)

    def _next(self) -> int | None:
        while self._again:
            sequence = self._again.popleft()
            if sequence in self._server.messages:
                return sequence
        for sequence, (subject, _) in self._server.messages.items():
            if sequence > self._given and subject.startswith(self._prefix):
                self._given = sequence
                return sequence
        return None

    def _redeliver(self, sequence: int, delivered: int) -> None:
        if not self._gone and self.pending.get(sequence) == delivered:
            self._again.append(sequence)
            self.give()


class SimJetStream:
    """The server's side."""

    def __init__(self, stream: str, deliver: Deliver, later: Callable[..., object]) -> None:
        self._stream = stream
        self._deliver = deliver
        self.later = later
        self.exists = False
        self.messages: dict[int, tuple[str, bytes]] = {}
        """By sequence: what is kept."""
        self._last = 0
        self._consumers: dict[str, _Consumer] = {}
        self.redelivered = 0

    def store(self, subject: str, data: bytes) -> bytes:
        """Keep a message; the acknowledgement for its publisher."""
        self._last += 1
        self.messages[self._last] = (subject, data)
        for consumer in self._consumers.values():
            consumer.give()
        return msgspec.json.encode({"stream": self._stream, "seq": self._last})

    def take(self, subject: str, data: bytes, reply: str) -> None:
        """A message to ``$JS.``: a request for messages, or an acknowledgement."""
        tokens = subject.split(".")
        consumer = self._consumers.get(tokens[3] if tokens[1] == "ACK" else tokens[-1])
        if tokens[1] == "ACK":
            # As the server does it: by the place in the stream, if this consumer has given it out.
            if consumer is not None and consumer.pending.pop(int(tokens[5]), None) is not None:
                self.messages.pop(int(tokens[5]), None)
        elif consumer is None:
            self.status(reply, "503", 0)
        else:
            wanted = msgspec.json.decode(data)
            consumer.request(reply, wanted["batch"], wanted["expires"] / 1e9)

    def give(self, inbox: str, name: str, sequence: int, number: int, delivered: int) -> None:
        self.redelivered += delivered > 1
        subject, data = self.messages[sequence]
        self._deliver(inbox, subject, f"$JS.ACK.{self._stream}.{name}.{delivered}.{sequence}.{number}.0.0", data, None)

    def status(self, inbox: str, code: str, left: int) -> None:
        self._deliver(inbox, inbox, "", b"", {"Status": code, "Nats-Pending-Messages": str(left)})

    def add_consumer(self, name: str, filter_subject: str) -> None:
        self._consumers[name] = _Consumer(self, name, filter_subject.rstrip(">"))

    def delete_consumer(self, name: str) -> bool:
        consumer = self._consumers.pop(name, None)
        if consumer is not None:
            consumer.close()
        return consumer is not None


class _StreamInfo(msgspec.Struct):
    created: None = None


class SimJetStreamContext:
    """What `TellIntake` uses of nats-py's JetStream client. reachable: whether the cable is in; delay_s: of one request."""

    def __init__(self, server: SimJetStream, reachable: Callable[[], bool], delay_s: Callable[[], float]) -> None:
        self._server = server
        self._reachable = reachable
        self._delay_s = delay_s

    async def _ask(self) -> None:
        if not self._reachable():
            await asyncio.sleep(_API_TIMEOUT_S)
            raise nats.errors.TimeoutError
        await asyncio.sleep(self._delay_s())

    async def add_stream(self, _config: Any) -> _StreamInfo:
        await self._ask()
        self._server.exists = True
        return _StreamInfo()

    async def delete_consumer(self, _stream: str, name: str) -> None:
        await self._ask()
        if not self._server.delete_consumer(name):
            raise nats.js.errors.NotFoundError

    async def add_consumer(self, _stream: str, config: Any) -> None:
        await self._ask()
        self._server.add_consumer(config.durable_name, config.filter_subject)
