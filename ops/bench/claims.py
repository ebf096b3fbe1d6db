"""What the predecessor said of single techniques, each measured by itself: PERFORMANCE.md sets the figures beside its claims."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, cast

import msgspec

from ops.bench.json_codec import note
from ops.bench.lag import watched_lag
from ops.bench.measure import Case, Cases, Sample, Setting, closed_loop, repeated, sample
from ops.bench.predecessor import CONNECTIONS, line_server
from ops.bench.predecessor_sqlite import AwaitedStore, BlockingStore, Row, Store, create
from ops.event_loop import loop_factory

_TASKS: Final = 10_000
_MEMORIES: Final = 20_000
_AGENTS: Final = 100
_LATE_S: Final = 30.0
_LOOPS: Final = (("", loop_factory()), ("-asyncio", None))


@asynccontextmanager
async def claim_cases(setting: Setting) -> AsyncIterator[Cases]:
    """Loops with tasks and sockets, codecs, and queries in and beside the loop."""
    cases: dict[str, Case] = {}
    for name, factory in _LOOPS:
        cases["claims-tasks" + name] = _in_loop(factory, _tasks)
        cases["claims-tcp" + name] = _in_loop(factory, _echo)
    for name, codec in (("", _msgspec_there_and_back()), ("-stdlib", _json_there_and_back)):
        cases["claims-json" + name] = _codec(codec)
        cases["claims-cache" + name] = _in_loop(loop_factory(), partial(_through_socket, *_cache_codec(name)))
    if setting.wanted & {"claims-queries", "claims-queries-sync"}:
        path = setting.folder / "memories.sqlite"
        create(path, [_memory(number) for number in range(_MEMORIES)])
        cases["claims-queries"] = _queries(lambda: AwaitedStore(path))
        cases["claims-queries-sync"] = _queries(lambda: BlockingStore(path))
    yield cases


def _in_loop(factory: Callable[[], asyncio.AbstractEventLoop] | None, work: Callable[[float], Awaitable[Sample]]) -> Case:
    async def main(seconds: float) -> Sample:
        return await work(seconds)

    def in_thread(seconds: float) -> Sample:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(main(seconds))

    async def run(seconds: float) -> Sample:
        return await asyncio.to_thread(in_thread, seconds)

    return run


async def _tasks(seconds: float) -> Sample:
    """Its scenario 1: 10,000 tasks at once, each of which waits once."""
    count = 0
    start = now = time.perf_counter()
    while now - start < seconds or not count:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(_TASKS):
                tasks.create_task(asyncio.sleep(0))
        count += _TASKS
        now = time.perf_counter()
    return sample(count, now - start)


class _Echo(asyncio.Protocol):
    """Sends back what comes, as long as it may; counts."""

    def __init__(self, ended: Callable[[], bool] = lambda: False) -> None:
        self.count = 0
        self._ended = ended
        self._transport: asyncio.Transport | None = None
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        self.count += 1
        if self._transport is None:
            return
        if self._ended():
            self._transport.close()
        else:
            self._transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(None)


async def _echo(seconds: float) -> Sample:
    """Bare protocols, both ends in this loop, 100 bytes back and forth on each connection: nothing but the loop and its sockets."""
    loop, clock = asyncio.get_running_loop(), time.perf_counter
    server = await loop.create_server(_Echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    start = clock()
    end = start + seconds
    clients: list[_Echo] = []
    for _ in range(CONNECTIONS):
        transport, client = await loop.create_connection(lambda: _Echo(lambda: clock() >= end), "127.0.0.1", port)
        transport.write(b"x" * 100)
        clients.append(client)
    async with asyncio.timeout(seconds + _LATE_S):
        for client in clients:
            await client.closed
    server.close()
    await server.wait_closed()
    return sample(sum(client.count for client in clients), clock() - start)


async def _through_socket(
    encode: Callable[[], bytes],
    decode: Callable[[bytes], object],
    seconds: float,
    answer: Callable[[bytes], Awaitable[bytes]] | None = None,
) -> Sample:
    """Round trips of one encoded value over a socket, decoded again: what a networked cache costs at the very least."""

    async def same(line: bytes) -> bytes:
        return line[:-1]

    async with line_server(same) as port:
        links = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CONNECTIONS)]
        free = list(links)

        async def there_and_back(_: int) -> None:
            reader, writer = free.pop()
            writer.write(encode() + b"\n")
            decode((await reader.readline())[:-1])
            free.append((reader, writer))

        try:
            return await closed_loop(there_and_back, CONNECTIONS, seconds)
        finally:
            for _, writer in links:
                writer.close()


def _cache_codec(name: str) -> tuple[Callable[[], bytes], Callable[[bytes], object]]:
    value: dict[str, Any] = msgspec.to_builtins(note())
    if name:
        return (lambda: json.dumps(value).encode()), json.loads
    encoder, decoder = msgspec.json.Encoder(), msgspec.json.Decoder()
    return (lambda: encoder.encode(value)), decoder.decode


_HUNDRED_KEYS: Final[dict[str, object]] = {f"key_{number}": [number, f"value {number}", number / 3] for number in range(100)}


def _json_there_and_back() -> None:
    json.loads(json.dumps(_HUNDRED_KEYS))


def _msgspec_there_and_back() -> Callable[[], None]:
    encode, decode = msgspec.json.Encoder().encode, msgspec.json.Decoder().decode

    def once() -> None:
        decode(encode(_HUNDRED_KEYS))

    return once


def _codec(once: Callable[[], None]) -> Case:
    def many() -> int:
        for _ in range(20):
            once()
        return 20

    async def run(seconds: float) -> Sample:
        return repeated(many, seconds)

    return run


def _memory(number: int) -> Row:
    return f"agent-{number % _AGENTS}", "procedural", note(number).text, number % 97 / 97, "{}"


def _queries(make: Callable[[], Store]) -> Case:
    """Its scenario 4: 100 memory queries at once; and how long the loop stands still meanwhile."""

    async def run(seconds: float) -> Sample:
        store = make()
        await store.open()
        try:
            with watched_lag() as lag:
                found = await closed_loop(lambda number: store.recall(f"agent-{number % _AGENTS}"), 100, max(seconds, 0.02))
        finally:
            await store.close()
        return msgspec.structs.replace(found, lag_us=lag.p99_us)

    return run
