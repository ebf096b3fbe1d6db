"""The exchange over NATS: what reaches the shards of this process, and what leaves them.

Handlers only enqueue, because nothing is read while they run (`incoming_nats`), and everything that leaves goes through one queue
(`outgoing_nats`). What is a hint may be lost; what is not is repeated by its owner: asks by id until
their deadline, outbox rows until acknowledged.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from actors.errors import (
    ActorError,
    TooLarge,
    error_body,
)
from actors.models.port import Models
from actors.step_cache import StepCache
from actors.turn import Call, Command, Turn
from events.clock import Clock
from events.codec import canonical_hash, encode
from events.crash_points import CrashPoint, reached
from events.envelope import RecordedEvent
from events.errors import CuebookError
from events.ids import CommandId, StreamId, is_token, parse_stream_id, shard_of
from events.limits import ASK_DEADLINE_S, PUBLISH_RESERVE_BYTES
from events.store import Arrival, PendingSend
from runtime.exchange import Reply, ReplyTo
from runtime.over_nats.asks import NO_ROOM, Asks
from runtime.over_nats.incoming_nats import Handler, Message, take
from runtime.over_nats.outgoing_nats import Outgoing
from runtime.over_nats.views_nats import ask_view
from runtime.shard import Shard
from runtime.tasks import Tasks
from runtime.turns.edges import Probe, decode_probe, encode_probe
from runtime.turns.records import arrival_of
from runtime.wire import (
    ERROR,
    ERROR_CODE,
    META_COMMAND,
    META_POSITION,
    META_SHARD,
    META_VERSION,
    Answer,
    Envelope,
    Subjects,
    ask_envelope,
    client_of,
    cloud_event,
    decode_answer,
    decode_envelopes,
    encode_answer,
    encode_envelopes,
    parse_ask,
    parse_headers,
    send_envelope,
)

log = structlog.get_logger("cuebook.exchange")
_QUEUE_GROUP: Final = "cue"


class ExchangeStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since the start of the process."""

    asks: int
    replies: int
    published: int
    dropped: int
    forwarded: int


class NatsExchange:
    """Adapter of `runtime.exchange.Exchange`."""

    def __init__(self, client: Client, subjects: Subjects, tasks: Tasks, clock: Clock, worker: str) -> None:
        self._nc = client
        self.subjects = subjects
        self._tasks = tasks
        self._clock = clock
        self._worker = worker
        self._inbox = f"_INBOX.{worker}"
        self._ask_prefix = len(f"{subjects.namespace}.ask.")
        self._shards: dict[int, Shard] = {}
        self._ours = Asks(self._inbox, clock, self.shard_of, self._call)
        self._out = Outgoing(client, tasks)
        self._calls: dict[int, list[Envelope]] = {}
        self._committed: list[RecordedEvent] = []
        self._hints: dict[int, int] = {}
        self.step_cache: StepCache | None = None
        self.models: Models | None = None
        self.paused = False
        """Set while messages that waited in our socket during a pause of this process are read: headerless asks are expired (S10)."""
        self._copies = False
        self._shared: set[int] = set()
        self._asks = self._replies = self._forwarded = 0

    async def start(self) -> None:
        await take(self._nc, f"{self._inbox}.>", self._on_reply)
        # On a server without our mapping every ask comes here; with it, only what the mapping does not match (S8).
        await take(self._nc, f"{self.subjects.namespace}.ask.>", self._on_unmapped, queue=_QUEUE_GROUP)

    # -- shards of this process ---------------------------------------------------------------------------------------------------

    async def listen(self, number: int, on_message: Handler) -> Subscription:
        """Subscribe to everything for shard `number` and hand it to `on_message`, which buffers until the shard is ready (S5).

        What it returns ends this listening and no other: the shard may be offered to us again while we still let go of it.
        """
        subscription = await take(self._nc, f"{self.subjects.shard(number)}.>", on_message)
        await self._nc.flush()
        return subscription

    def serve(self, shard: Shard) -> Handler:
        """From now on `shard` decides here; returns what handles its messages."""
        self._shards[shard.number] = shard
        prefix = len(self.subjects.shard(shard.number)) + 1
        return partial(self._on_shard, shard, prefix)

    async def stop_listening(self, subscription: Subscription | None) -> None:
        """Nothing if it is None."""
        if subscription is not None and not self._nc.is_closed:
            await subscription.drain()  # type: ignore[no-untyped-call]  # nats-py has no types there

    def forget(self, number: int) -> None:
        self._shards.pop(number, None)
        self._shared.discard(number)

    def share(self, number: int, shared: bool) -> None:
        """Another worker listens for this shard of ours, and is going to own it: it has copies of what comes in from now on (S5)."""
        (self._shared.add if shared else self._shared.discard)(number)

    def _is_for_heir(self, stream: StreamId, error: ActorError) -> bool:
        """ "No room" and "no time" are said of one copy; the heir may do the other, so nothing is said: it will, or the caller repeats."""
        return bool(self._shared) and isinstance(error, NO_ROOM) and self.shard_of(stream) in self._shared

    @contextmanager
    def copies(self) -> Iterator[None]:
        """Messages that are handled in this block were buffered while the shard had another owner, which may have got them too (S5)."""
        self._copies = True
        try:
            yield
        finally:
            self._copies = False

    # -- what comes in ------------------------------------------------------------------------------------------------------------

    def _on_shard(self, shard: Shard, prefix: int, message: Message) -> None:
        verb, _, address = message.subject[prefix:].partition(".")
        if verb == "ask":
            self._on_ask(message, address)
        elif verb == "call" and not shard.lost:
            self._on_call(shard, message)

    def _on_unmapped(self, message: Message) -> None:
        self._on_ask(message, message.subject[self._ask_prefix :], alone=True)

    def _on_ask(self, message: Message, address: str, *, alone: bool = False) -> None:
        """alone: nobody else has got this message (a queue group)."""
        self._asks += 1
        reply_to = message.reply
        meta = False
        try:
            stream, method, command_id = parse_ask(address)
            headers = parse_headers(message.headers)
            meta = headers.meta
            explicit = command_id or headers.command_id
            now_us = self._clock.wall_us()
            deadline_ms = headers.deadline_ms
            if deadline_ms is None:
                # A pause of this process may have made the caller give up long ago (S10).
                deadline_ms = 0 if self.paused else now_us // 1_000 + int(ASK_DEADLINE_S * 1_000)
            command = Command(
                stream=stream, method=method, args=message.data,
                command_id=CommandId(explicit or self._made_up_id(reply_to, now_us)), explicit=explicit is not None,
                received_at_us=now_us, correlation_id=headers.correlation_id, causation_id=headers.causation_id,
                traceparent=headers.traceparent, deadline_ms=deadline_ms,
                copied_since_us=now_us if self._copies and explicit is None else 0, client=client_of(reply_to),
                patient=headers.deadline_ms is not None,
            )  # fmt: skip
        except ActorError as error:
            self._reply(reply_to, None, meta, Reply(error=error))
            return
        reply = partial(self._reply, reply_to, command, meta)
        shard = self._shards.get(self.shard_of(command.stream))
        if shard is None or shard.lost:
            self._forward(command, reply, copied=not alone)
        else:
            shard.receive(command, reply)

    def _made_up_id(self, reply_to: str, now_us: int) -> str:
        """A caller without an id is known by its reply subject, so that copies which two owners saw are one command (S5). Clients number
        their inboxes, so these ids also land side by side in the inbox index."""
        name = reply_to.removeprefix("_INBOX.").replace(".", "-")
        if is_token(name):
            return name
        return f"{now_us:014x}-{canonical_hash([reply_to, self._worker, self._asks])[:16]}"

    def _on_call(self, shard: Shard, message: Message) -> None:
        try:
            envelopes = decode_envelopes(message.data)
        except msgspec.DecodeError as error:
            log.warning("call_malformed", shard=shard.number, error=str(error))
            return
        now_us = self._clock.wall_us()
        sends: list[Envelope] = []
        done: list[tuple[StreamId, StreamId, str, int]] = []
        for envelope in envelopes:
            if envelope.kind == "ask":
                command = envelope.command(now_us)
                shard.receive(command, partial(self._answer, envelope.reply, command.stream))
            elif envelope.kind == "send":
                sends.append(envelope)
            elif envelope.kind == "ack":
                done.append((StreamId(envelope.sender or ""), StreamId(envelope.stream), envelope.incarnation, envelope.n))
            elif envelope.kind == "probe":
                shard.probes.receive(decode_probe(envelope.args))
            elif envelope.kind == "gap":
                shard.missing(StreamId(envelope.sender or ""), StreamId(envelope.stream), envelope.incarnation, envelope.n)
        if done:
            self._tasks.spawn(self._acknowledged(shard, done), name=f"acknowledge {shard.number}")
        if sends:
            self._tasks.spawn(self._accept(shard, sends, now_us), name=f"accept {shard.number}")

    async def _acknowledged(self, shard: Shard, done: list[tuple[StreamId, StreamId, str, int]]) -> None:
        reached(CrashPoint.OUTBOX_ACKNOWLEDGED)
        try:
            await shard.acknowledged(done)
        except CuebookError as error:
            log.info("acknowledge_failed", shard=shard.number, error=error.message)  # the rows are sent again

    async def _accept(self, shard: Shard, sends: list[Envelope], now_us: int) -> None:
        """Commit outbox rows of other shards into our inbox, then acknowledge them (S25)."""
        arrivals = []
        for send in sends:
            command = send.command(now_us)
            source = f"{send.sender}#{send.n}"
            entry = arrival_of(command, shard.args_hash(command), source)
            arrivals.append(
                Arrival(entry=entry, sender=StreamId(send.sender or ""), n=send.n, incarnation=send.incarnation, time=send.time)
            )
        try:
            results = await shard.accept(arrivals)
        except CuebookError as error:
            log.info("accept_failed", shard=shard.number, error=error.message)  # not acknowledged, so it comes again
            return
        reached(CrashPoint.OUTBOX_ACCEPTED)
        for send, result in zip(sends, results, strict=True):
            gap = result.result == "gap"
            back = Envelope(
                kind="gap" if gap else "ack", stream=send.stream, sender=send.sender, n=result.expected if gap else send.n,
                incarnation=send.incarnation,
            )  # fmt: skip
            self._call(self.shard_of(StreamId(send.sender or "")), back)

    # -- replies ------------------------------------------------------------------------------------------------------------------

    def _reply(self, subject: str, command: Command | None, meta: bool, reply: Reply) -> None:
        self._replies += 1
        if not subject:
            return
        headers: dict[str, str] | None = None
        if meta and command is not None:
            headers = {
                META_COMMAND: command.command_id,
                META_SHARD: str(self.shard_of(command.stream)),
                META_VERSION: str(reply.version),
                META_POSITION: str(reply.position),
            }
        if reply.error is None:
            self._publish(subject, reply.body, headers)
            return
        if command is not None and self._is_for_heir(command.stream, reply.error):
            return
        headers = headers or {}
        headers[ERROR_CODE] = str(reply.error.number)
        headers[ERROR] = f"{reply.error.error}: {reply.error.message}"[:256].replace("\n", " ").replace("\r", " ")
        self._publish(subject, encode(error_body(reply.error)), headers)

    def _answer(self, subject: str, stream: StreamId, reply: Reply) -> None:
        """The reply to another worker: compact, and with the logical time that orders what follows from it (S30)."""
        self._replies += 1
        if reply.error is not None and self._is_for_heir(stream, reply.error):
            return
        body = reply.body if reply.error is None else encode(error_body(reply.error))
        answer = Answer(body=body, failed=reply.error is not None, version=reply.version, position=reply.position, time=reply.time)
        self._publish(subject, encode_answer(answer), None)

    def _on_reply(self, message: Message) -> None:
        kind, _, token = message.subject[len(self._inbox) + 1 :].partition(".")
        if kind == "none":
            self._ours.on_nobody(int(token))  # nats-server's own 503
        else:
            self._ours.on_answer(token, decode_answer(message.data))

    # -- asks of ours -------------------------------------------------------------------------------------------------------------

    async def ask(self, call: Call, turn: Turn, deadline_ms: int) -> Reply:
        command = turn.command
        envelope = ask_envelope(call, command, turn.time, deadline_ms)
        return await self._ours.ask(envelope, deadline_ms, repeated=call.repeated)

    def forward(self, command: Command, reply: ReplyTo) -> None:
        self._forward(command, reply, copied=True)

    def _forward(self, command: Command, reply: ReplyTo, *, copied: bool) -> None:
        """copied: what reached us reached the other owner too, or will (S5)."""
        self._forwarded += 1
        copied_since_us = command.copied_since_us
        if copied and not command.explicit and not copied_since_us:
            copied_since_us = command.received_at_us
        deadline_ms = command.deadline_ms or self._clock.wall_us() // 1_000 + int(ASK_DEADLINE_S * 1_000)
        envelope = Envelope(
            kind="ask", stream=command.stream, method=command.method, args=command.args, command_id=command.command_id,
            explicit=True, sender=command.sender, causation_id=command.causation_id, correlation_id=command.correlation_id,
            traceparent=command.traceparent, deadline_ms=deadline_ms, chain=command.chain, time=command.time,
            copied_since_us=copied_since_us, client=command.client, patient=command.patient,
        )  # fmt: skip

        async def relay() -> None:
            reply(await self._ours.ask(envelope, deadline_ms))

        self._tasks.spawn(relay(), name=f"forward {command.stream}")

    def ask_again(self, shard: int) -> None:
        self._ours.again(shard)

    async def wait_answered(self) -> None:
        """Wait until nothing asked from here is unanswered."""
        await self._ours.wait_answered()

    async def query_view(self, projection: str, operation: str, body: bytes, deadline_ms: int) -> bytes:
        subject = self.subjects.view(projection, operation)
        left_s = max(0.001, deadline_ms / 1_000 - self._clock.wall_us() / 1_000_000)
        return await ask_view(self._nc, subject, body, left_s, f"the projection {projection!r}")

    # -- what leaves --------------------------------------------------------------------------------------------------------------

    def chunk(self, command: Command, attempt: int, offset: int, data: Any, *, end: bool) -> None:
        self._publish(self.subjects.chunk(command), encode({"attempt": attempt, "offset": offset, "data": data, "end": end}), None)

    def committed(self, shard: int, position: int, events: Sequence[RecordedEvent]) -> None:
        self._committed.extend(events)
        if position > self._hints.get(shard, 0):
            self._hints[shard] = position
        self._out.put_off(self._publish_committed)

    def _publish_committed(self) -> None:
        events, self._committed = self._committed, []
        room = self._nc.max_payload - PUBLISH_RESERVE_BYTES
        namespace, subject_of, publish = self.subjects.namespace, self.subjects.event, self._out.publish
        for event in events:
            body = cloud_event(event, namespace, data=event.key_id is None)
            if len(body) <= room:
                publish(subject_of(event), body, None, "")
            else:
                self._publish(subject_of(event), cloud_event(event, namespace, data=False), None)
        hints, self._hints = self._hints, {}
        for shard, position in hints.items():
            publish(self.subjects.commit(shard), b"%d" % position, None, "")

    def send(self, rows: Sequence[PendingSend]) -> None:
        for row in rows:
            self._call(self.shard_of(row.entry.receiver), send_envelope(row))

    def probe(self, probe: Probe) -> None:
        self._call(self.shard_of(probe.receiver), Envelope(kind="probe", stream=probe.receiver, args=encode_probe(probe)))

    def announce(self, body: dict[str, Any]) -> None:
        """Tell the other processes that ownership may have changed; only a hint."""
        self._publish(self.subjects.control, encode(body), None)

    def _call(self, shard: int, envelope: Envelope) -> None:
        """Queue one envelope for a shard; what queues up in one turn of the loop leaves as one message."""
        queue = self._calls.get(shard)
        if queue is None:
            queue = self._calls[shard] = []
            asyncio.get_running_loop().call_soon(self._flush_calls, shard)
        queue.append(envelope)

    def _flush_calls(self, shard: int) -> None:
        batch: list[Envelope] = []
        size = 0
        room = self._nc.max_payload - PUBLISH_RESERVE_BYTES
        none = f"{self._inbox}.none.{shard}"
        for envelope in self._calls.pop(shard):
            if batch and size + len(envelope.args) + 512 > room:
                self._publish(self.subjects.call(shard), encode_envelopes(batch), None, none)
                batch, size = [], 0
            batch.append(envelope)
            size += len(envelope.args) + 512
        self._publish(self.subjects.call(shard), encode_envelopes(batch), None, none)

    def _publish(self, subject: str, body: bytes, headers: dict[str, str] | None, reply: str = "") -> None:
        if len(body) + PUBLISH_RESERVE_BYTES > self._nc.max_payload and ERROR_CODE not in (headers or {}):
            # An oversize publish makes nats-server close this worker's connection (S12).
            error = TooLarge(f"the answer has {len(body):,} bytes; this NATS server allows {self._nc.max_payload:,}")
            body, headers = encode(error_body(error)), {ERROR_CODE: "413", ERROR: "too_large"}
        self._out.publish(subject, body, headers, reply)

    async def flush(self) -> None:
        """Write out what is queued: before this process ends."""
        await self._out.flush()

    @property
    def shards(self) -> int:
        return self.subjects.shards

    def shard_of(self, stream: StreamId) -> int:
        type_name, key = parse_stream_id(stream)
        return shard_of(type_name, key, self.subjects.shards)

    def statistics(self) -> ExchangeStatistics:
        return ExchangeStatistics(
            asks=self._asks, replies=self._replies, published=self._out.published, dropped=self._out.dropped, forwarded=self._forwarded
        )
