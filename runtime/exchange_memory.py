"""The exchange inside one process, without a server: for programs that embed the runtime, for tests and for the bench."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from actors.errors import OutcomeUnknown, Unavailable
from actors.models.port import Models
from actors.step_cache import StepCache
from actors.turn import Call, Command, Turn
from events.clock import Clock
from events.envelope import RecordedEvent
from events.ids import StreamId, shard_of_stream
from events.store import Arrival, PendingSend
from runtime.deadlines import Deadlines
from runtime.exchange import Reply, ReplyTo
from runtime.shard import Shard
from runtime.tasks import Tasks
from runtime.turns.edges import Probe
from runtime.turns.records import arrival_of


class MemoryExchange:
    """Adapter of `runtime.exchange.Exchange`: every shard of the log is owned by this process."""

    def __init__(self, shards: int, tasks: Tasks, clock: Clock) -> None:
        self._count = shards
        self._tasks = tasks
        self._clock = clock
        self._shards: dict[int, Shard] = {}
        self._deadlines = Deadlines()
        self.step_cache: StepCache | None = None
        self.models: Models | None = None
        self.on_view: Callable[[str, str, bytes, float], Awaitable[bytes]] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.on_events: Callable[[Sequence[RecordedEvent]], None] | None = None
        self.on_chunk: Callable[[Command, int, Any, bool], None] | None = None

    def serve(self, shard: Shard) -> None:
        self._shards[shard.number] = shard

    def receive(self, command: Command, reply: ReplyTo) -> None:
        shard = self._shards.get(shard_of_stream(command.stream, self._count))
        if shard is None:
            reply(Reply(error=Unavailable(f"no owner of {command.stream} in this process", retry_after_ms=100)))
        else:
            shard.receive(command, reply)

    async def ask(self, call: Call, turn: Turn, deadline_ms: int) -> Reply:
        command = turn.command
        return await self.request(
            Command(
                stream=call.receiver, method=call.method, args=call.args, command_id=call.command_id, explicit=True,
                received_at_us=self._clock.wall_us(), sender=command.stream, causation_id=command.command_id,
                correlation_id=command.correlation_id or command.command_id, traceparent=command.traceparent,
                deadline_ms=deadline_ms, chain=(*command.chain, command.stream), time=turn.time,
            )
        )  # fmt: skip

    async def request(self, command: Command) -> Reply:
        """Ask from outside of any actor."""
        loop = self._loop
        if loop is None:  # kept: to look it up is a call to the system each time (CPython 3.11 asks for the process id)
            loop = self._loop = asyncio.get_running_loop()
        future: asyncio.Future[Reply] = loop.create_future()

        def answered(reply: Reply) -> None:
            if not future.done():
                future.set_result(reply)

        self.receive(command, answered)
        if future.done():
            # Answered on the spot: a caller that asks in a loop must still let others run.
            await asyncio.sleep(0)
            return future.result()
        if command.deadline_ms is None:
            return await future
        # Both who ask from here have just made the command.
        left_s = max(0.0, command.deadline_ms / 1_000 - command.received_at_us / 1_000_000)
        wait = self._deadlines.add(left_s, partial(_late, future, command.stream))
        try:
            return await future
        finally:
            self._deadlines.drop(wait)

    async def query_view(self, projection: str, operation: str, body: bytes, deadline_ms: int) -> bytes:
        if self.on_view is None:
            raise Unavailable(f"the projection {projection!r} is not running", retry_after_ms=1_000)
        return await self.on_view(projection, operation, body, max(0.001, deadline_ms / 1_000 - self._clock.wall_us() / 1_000_000))

    def chunk(self, command: Command, attempt: int, offset: int, data: Any, *, end: bool) -> None:
        if self.on_chunk is not None:
            self.on_chunk(command, offset, data, end)

    def committed(self, shard: int, position: int, events: Sequence[RecordedEvent]) -> None:
        if self.on_events is not None:
            self.on_events(events)

    def send(self, rows: Sequence[PendingSend]) -> None:
        by_shard: dict[int, list[PendingSend]] = {}
        for row in rows:
            by_shard.setdefault(self.shard_of(row.entry.receiver), []).append(row)
        for number, batch in by_shard.items():
            self._tasks.spawn(self._accept(self._shards[number], batch), name=f"accept {number}")

    async def _accept(self, shard: Shard, rows: list[PendingSend]) -> None:
        now_us = self._clock.wall_us()
        arrivals = []
        for row in rows:
            entry = row.entry
            command = Command(
                stream=entry.receiver, method=entry.method, args=entry.args, command_id=entry.command_id, explicit=True,
                received_at_us=now_us, sender=row.sender, causation_id=entry.causation_id, correlation_id=entry.correlation_id,
                traceparent=entry.traceparent, deadline_ms=entry.deadline_ms, time=row.time,
            )  # fmt: skip
            arrivals.append(
                Arrival(
                    entry=arrival_of(command, shard.args_hash(command), f"{row.sender}#{row.n}"),
                    sender=row.sender,
                    n=row.n,
                    incarnation=row.incarnation,
                    time=row.time,
                )
            )
        results = await shard.accept(arrivals)
        done = [
            (row.sender, row.entry.receiver, row.incarnation, row.n)
            for row, result in zip(rows, results, strict=True)
            if result.result != "gap"
        ]
        for key in done:
            await self._shards[self.shard_of(key[0])].acknowledged([key])

    def probe(self, probe: Probe) -> None:
        shard = self._shards.get(self.shard_of(probe.receiver))
        if shard is not None:
            asyncio.get_running_loop().call_soon(shard.probes.receive, probe)

    def forward(self, command: Command, reply: ReplyTo) -> None:
        reply(Reply(error=Unavailable("this process is draining", retry_after_ms=100)))

    @property
    def shards(self) -> int:
        return self._count

    def shard_of(self, stream: StreamId) -> int:
        return shard_of_stream(stream, self._count)


def _late(future: asyncio.Future[Reply], stream: StreamId) -> None:
    if not future.done():
        future.set_result(Reply(error=OutcomeUnknown(f"no answer from {stream} before the deadline")))
