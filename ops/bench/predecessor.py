"""The predecessor's way of work beside ours, at its own job: a request of 1 KB comes in over a socket, an agent remembers it and replies.

Its way was asyncio's own loop, the standard library's json, and sqlite3 in the loop's thread with a connection per operation. Each change
that it had made or planned is measured alone, then all together, then the job by the runtime: with actors, events, hash chain and inbox.
Every variant has its own event loop in a thread of its own, and serves 100 connections that each send their next request when they have the
reply; the connections' other ends run in the same loop and decode nothing, so they cost every variant the same.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from actors import Actor, Event, State, command
from events.errors import InvariantError
from ops.bench.json_codec import note
from ops.bench.lag import watched_lag
from ops.bench.measure import Cases, Sample, Setting, sample
from ops.bench.predecessor_sqlite import AwaitedStore, BlockingStore, GroupStore, Row, Store, create
from ops.event_loop import loop_factory
from runtime import App
from runtime.local import local_runtime

CONNECTIONS: Final = 100
_AGENTS: Final = 100
_TYPE: Final = "procedural"
_END_S: Final = 5.0

Answer = Callable[[bytes], Awaitable[bytes]]
"""One request line to one reply line, both without their ends."""
Job = Callable[[AsyncExitStack], Awaitable[Answer]]


class Memories(State):
    """What the agent below keeps of its past: how much there is."""

    kept: int = 0


class Remembered(Event[Memories], tag="bench.remembered"):
    """Something worth keeping."""

    memory_type: str
    content: str
    importance: float
    metadata: dict[str, Any]

    def apply(self, state: Memories) -> None:
        state.kept += 1


class AgentActor(Actor[Memories], name="agent"):
    """An agent that remembers."""

    @command
    async def remember(self, memory_type: str, content: str, importance: float, metadata: dict[str, Any]) -> int:
        """Keep a memory; replies its number."""
        self.emit(Remembered(memory_type=memory_type, content=content, importance=importance, metadata=metadata))
        return self.state.kept


app = App(actors=[AgentActor])


class Memory(msgspec.Struct, frozen=True):
    """The arguments of a request."""

    memory_type: str
    content: str
    importance: float
    metadata: dict[str, Any]


class Request(msgspec.Struct, frozen=True):
    """A request as msgspec reads it."""

    agent: str
    memory: Memory


class Addressed(msgspec.Struct, frozen=True):
    """A request whose arguments another decoder will check."""

    agent: str
    memory: msgspec.Raw


def request_line(number: int) -> bytes:
    """About 1 KB for one of the agents."""
    text = note(number)
    metadata = {"sources": text.sources, "tags": text.tags, "tokens": text.tokens}
    memory = Memory(memory_type=_TYPE, content=text.text, importance=text.importance, metadata=metadata)
    return msgspec.json.encode(Request(agent=f"agent-{number % _AGENTS}", memory=memory)) + b"\n"


# -- the ways to answer -------------------------------------------------------------------------------------------------------------------


def by_json(store: Store) -> Answer:
    """As the predecessor decodes and encodes."""

    async def answer(line: bytes) -> bytes:
        asked = json.loads(line)
        memory = asked["memory"]
        await store.remember(
            (asked["agent"], memory["memory_type"], memory["content"], memory["importance"], json.dumps(memory["metadata"]))
        )
        return json.dumps({"agent": asked["agent"], "status": "success", "content": "remembered"}).encode()

    return answer


def by_msgspec(store: Store) -> Answer:
    """The same with typed decoding."""
    decode, encode = msgspec.json.Decoder(Request).decode, msgspec.json.Encoder().encode

    async def answer(line: bytes) -> bytes:
        asked = decode(line)
        memory = asked.memory
        row: Row = (asked.agent, memory.memory_type, memory.content, memory.importance, encode(memory.metadata).decode())
        await store.remember(row)
        return encode({"agent": asked.agent, "status": "success", "content": "remembered"})

    return answer


def _stored(path: Path, make: Callable[[Path], Store], codec: Callable[[Store], Answer]) -> Job:
    async def job(stack: AsyncExitStack) -> Answer:
        create(path)
        stack.callback(path.unlink)
        store = make(path)
        await store.open()
        stack.push_async_callback(store.close)
        if isinstance(store, GroupStore):
            writers = await stack.enter_async_context(_task_group())
            stack.callback(writers.create_task(store.write()).cancel)
        return codec(store)

    return job


@asynccontextmanager
async def _task_group() -> AsyncIterator[asyncio.TaskGroup]:
    async with asyncio.TaskGroup() as group:
        yield group


def _ours(directory: Path) -> Job:
    decode = msgspec.json.Decoder(Addressed).decode

    async def job(stack: AsyncExitStack) -> Answer:
        runtime = await stack.enter_async_context(local_runtime(app, directory, shards=1))

        async def answer(line: bytes) -> bytes:
            asked = decode(line)
            reply = await runtime.send(f"agent/{asked.agent}", "remember", bytes(asked.memory))
            if reply.error is not None:
                raise reply.error
            return reply.body

        return answer

    return job


# -- the job ------------------------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def predecessor_cases(setting: Setting) -> AsyncIterator[Cases]:
    """Requests answered per second in each way."""
    folder, uvloop = setting.folder, loop_factory()

    def blocking(name: str) -> Callable[[Callable[[Store], Answer]], Job]:
        return lambda codec: _stored(folder / f"{name}.sqlite", BlockingStore, codec)

    def variant(job: Job, factory: Callable[[], asyncio.AbstractEventLoop] | None) -> Callable[[float], Awaitable[Sample]]:
        async def run(seconds: float) -> Sample:
            return await asyncio.to_thread(_in_own_loop, job, factory, seconds)

        return run

    now = _stored(folder / "now.sqlite", BlockingStore, by_msgspec)
    planned = _stored(folder / "planned.sqlite", AwaitedStore, by_msgspec)
    group = _stored(folder / "group.sqlite", GroupStore, by_json)
    awaited = _stored(folder / "awaited.sqlite", AwaitedStore, by_json)
    everything = _stored(folder / "all.sqlite", GroupStore, by_msgspec)
    yield {
        "predecessor-job": variant(blocking("job")(by_json), None),
        "predecessor-uvloop": variant(blocking("uvloop")(by_json), uvloop),
        "predecessor-msgspec": variant(blocking("msgspec")(by_msgspec), None),
        "predecessor-now": variant(now, uvloop),
        "predecessor-aiosqlite": variant(awaited, None),
        "predecessor-planned": variant(planned, uvloop),
        "predecessor-group-commit": variant(group, None),
        "predecessor-all": variant(everything, uvloop),
        "predecessor-cuebook": variant(_ours(folder / "cuebook"), uvloop),
    }


def _in_own_loop(job: Job, factory: Callable[[], asyncio.AbstractEventLoop] | None, seconds: float) -> Sample:
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_serve_and_ask(job, seconds))


async def _serve_and_ask(job: Job, seconds: float) -> Sample:
    async with AsyncExitStack() as stack:
        answer = await job(stack)
        port = await stack.enter_async_context(line_server(answer))
        latencies: list[float] = []
        clock = time.perf_counter
        start = clock()
        end = start + seconds

        async def ask(number: int) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            line = request_line(number)
            try:
                while True:
                    began = clock()
                    writer.write(line)
                    if not await reader.readline():
                        raise InvariantError("the server of the bench closed a connection")
                    now = clock()
                    latencies.append(now - began)
                    if now >= end:
                        return
            finally:
                writer.close()

        with watched_lag() as lag:
            async with asyncio.TaskGroup() as clients:
                for number in range(CONNECTIONS):
                    clients.create_task(ask(number))
        return sample(len(latencies), clock() - start, latencies, lag_us=lag.p99_us)


@asynccontextmanager
async def line_server(answer: Answer) -> AsyncIterator[int]:
    """A server that answers each line with a line, on a free port of this machine, which it yields."""

    open_connections: set[asyncio.Task[None] | None] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_connections.add(asyncio.current_task())
        try:
            while line := await reader.readline():
                writer.write(await answer(line) + b"\n")
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=1 << 20)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()
        # Every client has closed its end by now; a handler that is left to the end of the loop would be cancelled, and say so.
        if ending := [task for task in open_connections if task is not None]:
            await asyncio.wait(ending, timeout=_END_S)
