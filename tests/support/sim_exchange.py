"""A message broker that loses, delays, repeats and reorders, and connections to it that look like nats-py's.

The exchange between the workers is the real `NatsExchange`, the clients are the real `Client` over the real `NatsLink`: only the server and
the sockets are simulated.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any

import msgspec
from nats.aio.msg import Msg

from events.ids import shard_of
from runtime.wire import Subjects, decode_envelopes
from tests.support.sim_jetstream import SimJetStream, SimJetStreamContext
from tests.support.sim_loop import PROCESS, Process, SimLoop

Trace = Callable[..., None]
OnMessage = Callable[[Msg], Awaitable[None]]


class Weather(msgspec.Struct, kw_only=True):
    """How bad the network is: chances per message, delays in seconds."""

    drop: float = 0.0
    repeat: float = 0.0
    slow: float = 0.0
    delay_s: float = 0.002
    slow_s: float = 5.0


class Subscription:
    """One interest in a subject. A message is handed over when it arrives: none is ever pending. arrives_at: when the newest does of those
    that come in order."""

    pending_msgs = 0

    def __init__(
        self, broker: "SimBroker", connection: "SimConnection", process: Process, subject: str, queue: str, on_message: OnMessage
    ) -> None:
        self._prefix = subject.rstrip(">*")
        self._wild = self._prefix != subject
        self.arrives_at = 0.0
        self.connection = connection
        self.process = process
        self.queue = queue
        self.on_message = on_message
        self._broker = broker

    def wants(self, subject: str) -> bool:
        return subject.startswith(self._prefix) if self._wild else subject == self._prefix

    async def unsubscribe(self) -> None:
        self._broker.forget(self)

    async def drain(self) -> None:
        self._broker.forget(self)


class SimBroker:
    """The server: at most once, to every subscriber, and its own 503 where there is none."""

    def __init__(self, loop: SimLoop, chance: random.Random, subjects: Subjects, weather: Weather, trace: Trace, *, mapped: bool) -> None:
        self.weather = weather
        self.cut: set[Process] = set()
        """Processes whose network cable is out."""
        self.copied: set[str] = set()
        """Commands that were delivered more than once for one attempt: a refusal of one copy says nothing about the other."""
        self._loop = loop
        self._chance = chance
        self._subjects = subjects
        self._trace = trace
        self._mapped = mapped
        self._subscriptions: list[Subscription] = []
        self._context = Context()
        ns = subjects.namespace
        self._asks = f"{ns}.ask."
        self._tells = f"{ns}.tell."
        self.jetstream = SimJetStream(subjects.stream_name, self._deliver, self._later)
        self._hints = (f"{ns}.event.", f"{ns}._commit.", f"{ns}.chunk.")

    def delay_s(self) -> float:
        """Of one request and its answer."""
        return self._chance.random() * 2 * self.weather.delay_s

    def add(self, subscription: Subscription) -> None:
        self._subscriptions.append(subscription)

    def forget(self, subscription: Subscription) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    def disconnect(self, process: Process) -> None:
        """The process is gone: so are its sockets, and what was in them."""
        self._subscriptions = [subscription for subscription in self._subscriptions if subscription.process is not process]

    def publish(self, subject: str, data: bytes, reply: str, headers: dict[str, str] | None) -> None:
        if subject.startswith(self._hints):
            return
        sender = PROCESS.get()
        if sender in self.cut:
            self._trace("cut off", subject)
            return
        if subject.startswith("$JS."):
            self.jetstream.take(subject, data, reply)
            return
        if subject.startswith(self._tells) and self.jetstream.exists:
            self._tell(subject[len(self._tells) :], data, reply)
            return
        if self._mapped and subject.startswith(self._asks):
            tokens = subject[len(self._asks) :].split(".")
            shard = shard_of(tokens[0], tokens[1], self._subjects.shards)
            subject = f"{self._subjects.shard(shard)}.ask.{'.'.join(tokens)}"
        receivers = self._receivers(subject)
        message = (subject, reply, data, headers)
        if not receivers and reply:
            # The server's own answer where nobody is subscribed.
            message = (reply, "", b"", {"Status": "503"})
            receivers = self._receivers(reply)
        if len(receivers) > 1:
            # A superseded owner that does not know it yet is still subscribed, and forwards its copy: an attempt of its own (S5).
            self._note_copy(message)
        for receiver in receivers:
            self._carry(receiver, message)

    def _receivers(self, subject: str) -> list[Subscription]:
        found: list[Subscription] = []
        queues: dict[str, list[Subscription]] = {}
        for subscription in self._subscriptions:
            if subscription.wants(subject):
                if subscription.queue:
                    queues.setdefault(subscription.queue, []).append(subscription)
                else:
                    found.append(subscription)
        found.extend(self._chance.choice(members) for members in queues.values())
        return found

    def _carry(self, receiver: Subscription, message: tuple[str, str, bytes, dict[str, str] | None]) -> None:
        weather, chance = self.weather, self._chance
        if chance.random() < weather.drop or receiver.process in self.cut:
            self._trace("lost", f"{message[0]} to {receiver.process.name}")
            return
        # One answer to one attempt: what a client counts by, and what NATS keeps. Everything else may come twice.
        copies = 2 if chance.random() < weather.repeat and not message[0].startswith("_INBOX.clients") else 1
        if copies > 1:
            self._note_copy(message)
        for _ in range(copies):
            slow = chance.random() < weather.slow
            delay_s = chance.random() * (weather.slow_s if slow else weather.delay_s)
            self._loop.call_later(delay_s, self._arrive, receiver, message, context=self._context)

    def _tell(self, address: str, data: bytes, reply: str) -> None:
        """Kept, then acknowledged to the publisher; that answer may be lost."""
        type_name, key, _ = address.split(".", 2)
        said = self.jetstream.store(f"{self._subjects.tell_shard(shard_of(type_name, key, self._subjects.shards))}.{address}", data)
        for receiver in self._receivers(reply):
            self._carry(receiver, (reply, "", said, None))

    def _deliver(self, inbox: str, subject: str, reply: str, data: bytes, headers: dict[str, str] | None) -> None:
        """From the server to a consumer: in order, as on one connection, and lost where that is cut or the receiver too slow."""
        weather, chance = self.weather, self._chance
        for receiver in self._receivers(inbox):
            if chance.random() < weather.drop or receiver.process in self.cut:
                self._trace("lost", f"{subject} to {receiver.process.name}")
                continue
            receiver.arrives_at = max(receiver.arrives_at + 1e-6, self._loop.time() + chance.random() * weather.delay_s)
            message = (subject, reply, data, headers)
            self._loop.call_at(receiver.arrives_at, self._arrive, receiver, message, context=self._context)

    def _later(self, delay_s: float, function: Callable[..., object], *args: object) -> None:
        self._loop.call_later(delay_s, function, *args, context=self._context)

    def _note_copy(self, message: tuple[str, str, bytes, dict[str, str] | None]) -> None:
        if ".ask." in message[0]:
            self.copied.add(message[0].rpartition(".")[2])
        elif message[0].endswith(".call"):
            self.copied.update(envelope.command_id for envelope in decode_envelopes(message[2]) if envelope.kind == "ask")

    def _arrive(self, receiver: Subscription, message: tuple[str, str, bytes, dict[str, str] | None]) -> None:
        if receiver.process.alive and receiver in self._subscriptions:
            self._loop.call_soon(self._hand, receiver, message, context=receiver.process.context)

    def _hand(self, receiver: Subscription, message: tuple[str, str, bytes, dict[str, str] | None]) -> None:
        subject, reply, data, headers = message
        heard = Msg(_client=receiver.connection, subject=subject, reply=reply, data=data, headers=headers)  # type: ignore[arg-type]
        self._loop.create_task(receiver.on_message(heard))  # type: ignore[arg-type]


class SimConnection:
    """What the exchange and the client's link use of a nats-py client."""

    max_payload = 2 * 1024 * 1024
    is_closed = False
    is_connected = True

    def __init__(self, broker: SimBroker, process: Process) -> None:
        self._broker = broker
        self._process = process
        self._inboxes = 0

    def new_inbox(self) -> str:
        self._inboxes += 1
        return f"_INBOX.{self._process.name}-{self._inboxes}"

    async def subscribe(self, subject: str, queue: str = "", cb: OnMessage | None = None, **_limits: Any) -> Subscription:
        assert cb is not None
        subscription = Subscription(self._broker, self, self._process, subject, queue, cb)
        self._broker.add(subscription)
        return subscription

    async def publish(self, subject: str, payload: bytes = b"", reply: str = "", headers: dict[str, str] | None = None) -> None:
        self._broker.publish(subject, payload, reply, headers)

    def jetstream(self) -> SimJetStreamContext:
        broker = self._broker
        return SimJetStreamContext(broker.jetstream, lambda: self._process not in broker.cut, broker.delay_s)

    async def flush(self) -> None:
        await asyncio.sleep(0)
