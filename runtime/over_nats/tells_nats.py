"""Tells: from the JetStream stream into the inbox of the shard, acknowledged after that commit (S11).

The stream keeps a tell until it is handled, so it works while no worker is up. Each owner makes its shard's consumer anew: what an earlier
owner had fetched and not acknowledged then comes again from the start, in order, instead of after the server's waiting time; what was
committed already is known by its id.
"""

import asyncio
import contextlib
from collections import deque
from typing import Final

import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, RetentionPolicy, StreamConfig, SubjectTransform

from actors.errors import ActorError
from actors.turn import Command
from events.clock import Clock
from events.codec import encode
from events.crash_points import CrashPoint, reached
from events.errors import CuebookError, SupersededError
from events.ids import CommandId, stream_id
from events.limits import TELL_KEPT_S
from events.store import Arrival
from runtime.shard import Shard
from runtime.turns.records import arrival_of
from runtime.wire import Subjects, parse_address, parse_headers

log = structlog.get_logger("cuebook.tells")
_BATCH: Final = 256
_LONG_POLL_S: Final = 30.0
_REQUEST: Final = encode({"batch": _BATCH, "expires": int(_LONG_POLL_S * 1e9)})


async def ensure_stream(js: JetStreamContext, subjects: Subjects) -> str:
    """Create the stream of tells, or bring its limits up to date. Safe when several workers do so at once.

    Returns:
        When it was created, as a token: one that was deleted and made again counts from 1 again, and its messages are others (F-12).
    """
    source, destination = subjects.tell_transform()
    config = StreamConfig(
        name=subjects.stream_name,
        subjects=[source],
        subject_transform=SubjectTransform(src=source, dest=destination),
        retention=RetentionPolicy.WORK_QUEUE,
        max_age=TELL_KEPT_S,
        deny_delete=False,
    )
    try:
        info = await js.add_stream(config)
    except nats.js.errors.BadRequestError:
        info = await js.update_stream(config)
    return "0" if info.created is None else f"{int(info.created.timestamp() * 1_000):x}"


class TellIntake:
    """The one puller of one shard's tells."""

    def __init__(self, client: Client, subjects: Subjects, shard: Shard, clock: Clock) -> None:
        self._nc = client
        self._js = client.jetstream()
        self._subjects = subjects
        self._shard = shard
        self._clock = clock
        self._name = f"shard-{shard.number}"
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{subjects.stream_name}.{self._name}"
        self._created = ""
        self._last = 0
        self._sealed = shard.app.registry.sealed
        self._stopping = False

    async def run(self) -> None:
        """Pull until cancelled or superseded; a lost server or stream is waited for."""
        while not self._shard.lost:
            try:
                await self._pull()
            except SupersededError:
                self._shard.superseded()
                return
            except (nats.errors.Error, CuebookError, TimeoutError, OSError) as error:
                if self._nc.is_closed:
                    return
                log.info("tells_interrupted", shard=self._shard.number, error=repr(error))
                await asyncio.sleep(0.5)  # a server that is away is asked again, not hammered

    async def _pull(self) -> None:
        """Pull until there is a reason to begin anew. By hand: nats-py's fetch of more than one message may hold the first ones back until
        its own timeout (measured 2026-11: 3 of 21 tells came 12 to 15 s late)."""
        await self._consume()
        arrived: deque[Msg] = deque()
        wake = asyncio.Event()

        async def on_message(message: Msg) -> None:
            arrived.append(message)
            wake.set()

        inbox = self._nc.new_inbox()
        subscription = await self._nc.subscribe(inbox, cb=on_message)
        asked = 0
        try:
            while True:
                if asked < _BATCH // 2:
                    await self._nc.publish(self._next, _REQUEST, reply=inbox)
                    asked += _BATCH
                async with asyncio.timeout(_LONG_POLL_S + 5):
                    await wake.wait()
                wake.clear()
                messages: list[Msg] = []
                while arrived and len(messages) < _BATCH:
                    message = arrived.popleft()
                    status = (message.headers or {}).get("Status")
                    if status is None:
                        messages.append(message)
                        asked -= 1
                    elif status == "408":  # a request has expired, with this many of it unanswered
                        asked -= int((message.headers or {}).get("Nats-Pending-Messages", _BATCH))
                    else:
                        log.info("tells_interrupted", shard=self._shard.number, status=message.headers)
                        return
                if arrived:
                    wake.set()
                if messages and not await self._take(messages):
                    return
        finally:
            # Without a connection the subscription is gone too.
            with contextlib.suppress(nats.errors.Error):
                await subscription.unsubscribe()

    async def _consume(self) -> None:
        self._created = await ensure_stream(self._js, self._subjects)
        stream = self._subjects.stream_name
        with contextlib.suppress(nats.js.errors.NotFoundError):
            await self._js.delete_consumer(stream, self._name)
        self._last = 0
        await self._js.add_consumer(
            stream,
            ConsumerConfig(
                durable_name=self._name,
                filter_subject=f"{self._subjects.tell_shard(self._shard.number)}.>",
                ack_policy=AckPolicy.EXPLICIT,
                deliver_policy=DeliverPolicy.ALL,
                ack_wait=60,
                max_ack_pending=_BATCH * 4,
            ),
        )

    async def _take(self, messages: list[Msg]) -> bool:
        """Commit a batch and acknowledge it. False at a gap in the consumer's own sequence: something was delivered that did not reach us,
        and what follows must wait for it, so the consumer is made anew."""
        arrivals: list[Arrival] = []
        taken: list[Msg] = []
        whole = True
        for message in messages:
            sequence = message.metadata.sequence.consumer
            if sequence != self._last + 1:
                whole = False
                break
            self._last = sequence
            arrival = self._arrival(message)
            if arrival is None:
                await message.term()
            else:
                arrivals.append(arrival)
                taken.append(message)
        if arrivals:
            await self._shard.accept(arrivals)
        reached(CrashPoint.TELL_ACCEPTED)
        for message, arrival in zip(taken, arrivals, strict=True):
            if arrival.entry.stream.partition("/")[0] in self._sealed:
                # An acknowledged message stays in the server's files until its block is full; a deleted one is written over (S29).
                await self._js.delete_msg(self._subjects.stream_name, message.metadata.sequence.stream)
            await message.ack()
        reached(CrashPoint.TELL_ACKNOWLEDGED)
        return whole

    def _arrival(self, message: Msg) -> Arrival | None:
        """None if the message cannot be a command: then it is ended, with a log line that names it."""
        prefix = len(self._subjects.tell_shard(self._shard.number)) + 1
        sequence = message.metadata.sequence.stream
        source = f"js:{self._subjects.stream_name}:{sequence}"
        try:
            address = parse_address(message.subject[prefix:].split("."))
            headers = parse_headers(message.headers, tell=True)
            command = Command(
                stream=stream_id(address.type, address.id), method=address.method, args=message.data or b"{}",
                command_id=CommandId(address.command_id or f"js-{self._subjects.stream_name}-{self._created}-{sequence}"), explicit=True,
                received_at_us=self._clock.wall_us(), correlation_id=headers.correlation_id, causation_id=headers.causation_id,
                traceparent=headers.traceparent, deadline_ms=headers.deadline_ms,
            )  # fmt: skip
        except ActorError as error:
            log.warning("tell_refused", subject=message.subject, source=source, error=error.message)
            return None
        return Arrival(entry=arrival_of(command, self._shard.args_hash(command), source))
