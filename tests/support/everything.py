"""Every view that a deployment keeps, over one written log: rows, words, vectors and a real server of the cache."""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from events.clock import SystemClock
from events.envelope import Kind, NewEvent, RecordedEvent
from events.ids import StreamId
from projections.cache.view_redis import RedisCacheView
from projections.comparing import Row
from projections.database import Database
from projections.embedding.hashing import HashEmbedder, hashed
from projections.generations_sqlite import SqliteGenerations
from projections.hints import Hints
from projections.memory.projection import MemoryProjection
from projections.projection import Projection
from projections.runner import Runner
from projections.single import SingleGeneration
from tests.support.eventually import until
from tests.support.memory_view import meaning
from tests.support.sage import values
from tests.support.valkey import Valkey
from tests.support.views import OTHER, SHARDS, Notes, WrittenLog, counted, noted

WORKSPACES = [f"w{number}" for number in range(12)]
QUESTIONS = ("retry after a payment timeout", "deploy friday", "index shard", "fork of a replay")
_WORDS = ("payment", "timeout", "retry", "deploy", "friday", "cache", "index", "shard", "replay", "fork", "parseURL", "read_body")
_NAMESPACES = {"response": 1_800, "api": 3_600, "analysis": 7_200}
_OVER_US = 1_000
"""The life of results that are over before anybody compares."""


def upcast(event: RecordedEvent) -> RecordedEvent:
    """As of an app whose types have grown: ``desk.counted`` was ``{"amount": n}`` once, and ``memory.stored`` said ``text``."""
    if event.schema_version != 1 or event.type not in ("desk.counted", "memory.stored"):
        return event
    said: dict[str, Any] = msgspec.json.decode(event.payload)
    old, new = ("amount", "n") if event.type == "desk.counted" else ("text", "content")
    said[new] = said.pop(old)
    return msgspec.structs.replace(event, payload=msgspec.Raw(msgspec.json.encode(said)), schema_version=2)


class Mixed:
    """Events of every sort that the views take, and of one that they do not; the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self.made: dict[tuple[str, int], int] = {}
        """How many of each tag and schema version."""

    def some(self, number: int, count: int) -> tuple[StreamId, list[NewEvent]]:
        """A stream and what it says next."""
        kind, make = self._draw.choice((("desk", self._of_desk), ("memory", self._of_memory), ("sage", self._of_sage)))
        ids = [f"d{each}" for each in range(50)] if kind == "desk" else WORKSPACES
        events = [make(number + each) for each in range(count)]
        for event in events:
            key = (event.type, event.schema_version)
            self.made[key] = self.made.get(key, 0) + 1
        return StreamId(f"{kind}/{self._draw.choice(ids)}"), events

    def _of_desk(self, number: int) -> NewEvent:
        match self._draw.randrange(4):
            case 0:
                return noted(f"word{number % 997} and {self._draw.randrange(10_000)} more of {number}")
            case 1:
                return NewEvent(type="desk.counted", payload=msgspec.json.encode({"amount": number % 100}))
            case 2:
                return msgspec.structs.replace(counted(number % 100), schema_version=2)
            case _:
                return OTHER

    def _of_memory(self, number: int) -> NewEvent:
        draw = self._draw
        kind = draw.choices(("stored", "accessed", "forgotten", "pattern_learned"), (6, 2, 1, 2))[0]
        name = f"m{draw.randrange(2_000)}"
        version = draw.choice((1, 2)) if kind == "stored" else 2
        said = " ".join(draw.choices(_WORDS, k=6)) + f" {number % 50}"
        if kind == "stored":
            payload: dict[str, Any] = {
                "memory": name, "text" if version == 1 else "content": said, "type": draw.choice(("episodic", "semantic")),
                "importance": draw.random(), "metadata": {"n": number}, "session": None, "agent": "a", "meaning": meaning(said),
            }  # fmt: skip
        elif kind == "accessed":
            payload = {"counts": {name: draw.randrange(1, 5)}}
        elif kind == "forgotten":
            payload = {"memories": [name], "reason": "asked"}
        else:
            payload = {"agent": draw.choice("ab"), "pattern": draw.choice(_WORDS), "solution": said[:20], "success": draw.random() < 0.5}
        return NewEvent(type=f"memory.{kind}", payload=msgspec.json.encode(payload), schema_version=version)

    def _of_sage(self, number: int) -> NewEvent:
        draw = self._draw
        namespace = draw.choice(tuple(_NAMESPACES))
        key = hashlib.sha256(str(draw.randrange(500)).encode()).hexdigest()
        life_us = _OVER_US if draw.random() < 0.1 else _NAMESPACES[namespace] * 1_000_000
        caching: dict[str, Any] = {"namespace": namespace, "key": key, "ttl_us": life_us}
        if draw.random() < 0.3:
            caching["hit"] = 1
        said = {"name": "think", "result": f"answer {number}", "cache": caching}
        return NewEvent(type="step.completed", kind=Kind.STEP, payload=msgspec.json.encode(said))


class Everything:
    """The views of one folder and one server, kept by runners that run."""

    def __init__(self, runners: Sequence[Runner[Any]], hints: Hints, server: Valkey) -> None:
        self.runners = {runner.name: runner for runner in runners}
        self.hints = hints
        self._server = server

    async def level(self, timeout_s: float = 400.0) -> None:
        """Until all of them have applied what is in the log."""
        self.hints.tell_all()
        for name, runner in self.runners.items():
            try:
                async with asyncio.timeout(timeout_s):
                    heads = await runner._heads()
                    while not _is_level(runner, heads):
                        await asyncio.sleep(0.01)
            except TimeoutError:
                raise AssertionError(f"{name} is not level: {runner.status()}") from None

    async def rows(self, name: str) -> list[Row]:
        """Rows, terms of full texts, and with them every vector that is alive."""
        found: list[Row] = await self._read(name, lambda projection, db: list(projection.comparable(db)))
        return found

    async def nearest(self) -> list[Any]:
        """The ten nearest of each question in each workspace by comparing all, and what the recall makes of its own."""

        def read(projection: Projection, db: Database) -> list[Any]:
            if not isinstance(projection, MemoryProjection):
                raise TypeError(projection)
            found: list[Any] = []
            for workspace in WORKSPACES:
                for question in QUESTIONS:
                    asked = hashed(question)
                    found.append(projection._vectors.search(db, workspace, asked, 10, exact=True))
            return found

        found = await self._read("memory", read)
        recalled = [
            (await self.runners["memory"].query("recall", msgspec.json.encode({"workspace": each, "query": question, "k": 10})))[0]
            for each in WORKSPACES
            for question in QUESTIONS
        ]
        return [*found, *recalled]

    def cached(self) -> dict[bytes, tuple[bytes, int]]:
        """Name, value, and when it expires (Unix ms): all that the server holds for the log."""
        admin: Any = self._server.admin
        names = [name for name in self._server.names() if not name.endswith(b":checkpoint")]
        return {name: (admin.get(name), admin.pexpiretime(name)) for name in names}

    async def counts(self) -> Any:
        """Hits and misses per namespace."""
        return msgspec.to_builtins((await self.runners["cache"].query("stats", b""))[0])

    async def _read(self, name: str, function: Any) -> Any:
        view = self.runners[name]._live_view
        if view is None:
            raise AssertionError(f"{name} has no view")
        return await view.run(lambda db: function(view.projection, db))


def _is_level(runner: Runner[Any], heads: dict[int, int]) -> bool:
    """That it knows of no lag is not enough: a hint that was told just now is heard a little later."""
    view = runner.status().view
    if runner.status().state != "live" or view is None or view.lag_s > 0:
        return False
    return all(view.positions_seen.get(shard, 0) >= position for shard, position in heads.items())


@asynccontextmanager
async def everything(folder: Path, log: WrittenLog, server: Valkey) -> AsyncIterator[Everything]:
    """All views of the log in `folder` and in `server`, as a projector keeps them. Ended, they can be begun again where they were."""
    clock = SystemClock()
    hints = Hints(SHARDS)

    def memory() -> MemoryProjection:
        return MemoryProjection(HashEmbedder())

    places: list[Any] = [
        SqliteGenerations(Notes, folder, log.incarnation),
        SqliteGenerations(memory, folder, log.incarnation),
        SingleGeneration(lambda: RedisCacheView(server.address, values(log.incarnation), clock), "cache", 1, folder),
    ]
    async with AsyncExitStack() as stack:
        runners = [Runner(place, await log.reader(), hints, upcast=upcast) for place in places]
        group = await stack.enter_async_context(asyncio.TaskGroup())
        tasks = [group.create_task(runner.run()) for runner in runners]
        try:
            for runner in runners:
                await until(lambda runner=runner: runner.locked.is_set(), "locked")  # type: ignore[misc]
            yield Everything(runners, hints, server)
        finally:
            for task in tasks:
                task.cancel()
