"""S7: a worker takes no shard that holds what its app lacks; and what it lacks stops one actor only where it is met all the same."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import nats
import pytest

from actors import Actor, Event, State, command, query, upcaster
from actors.errors import Unavailable
from actors.registry import Registry
from events.ids import StreamId, shard_of
from events.limits import SHARDS_MIN
from events.store import Format, InboxStatus
from ops.doctor import lacking_code
from ops.nats_server import NatsServer
from runtime.app import App
from runtime.local import local_runtime
from runtime.node import Node, NodeConfig
from runtime.ownership.formats import UnknownFormatsError, check_shard, described, lacking, lacking_in
from runtime.ownership.survey import survey
from runtime.wire import Subjects
from tests.support.deployment import wait_until_async
from tests.support.logs import LogUnderTest, append_one, arrival, deposited, log_under_test
from tests.support.logs import command as inbox_entry


class Book(State):
    lines: int = 0


class LineAdded(Event[Book], tag="book.line_added"):
    def apply(self, state: Book) -> None:
        state.lines += 1


class OldBook(Actor[Book], name="book"):
    @command
    async def add(self) -> int:
        self.emit(LineAdded())
        return self.state.lines

    @query
    def count(self) -> int:
        return self.state.lines


class NewState(State):
    lines: int = 0


class LineAddedToday(Event[NewState], tag="book.line_added"):
    def apply(self, state: NewState) -> None:
        state.lines += 1


class LinesCleared(Event[NewState], tag="book.lines_cleared"):
    def apply(self, state: NewState) -> None:
        state.lines = 0


class NewBook(Actor[NewState], name="book"):
    @command
    async def add(self) -> int:
        self.emit(LineAddedToday())
        return self.state.lines

    @command
    async def clear(self) -> None:
        self.emit(LinesCleared())

    @query
    def count(self) -> int:
        return self.state.lines


OLD, NEW = App(actors=[OldBook], version="old"), App(actors=[NewBook], version="new")


class Page(State):
    words: int = 0


class WordWritten(Event[Page], tag="page_of_test_formats.written", version=3):
    words: int

    def apply(self, state: Page) -> None:
        state.words += self.words


@upcaster("page_of_test_formats.written", 2)
def _to_three(old: dict[str, Any]) -> dict[str, Any]:
    return old


class PageActor(Actor[Page], name="page"):
    pass


PAGES = Registry([PageActor])


def made(kind: str, name: str, version: int = 1) -> Format:
    return Format(kind=kind, name=name, version=version, first_position=9)


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (made("event", "page_of_test_formats.written", 3), None),
        (made("event", "page_of_test_formats.written", 2), None),
        (made("event", "page_of_test_formats.written", 1), "schema version 1 from position 9 (this app reads 2 to 3)"),
        (made("event", "page_of_test_formats.written", 4), "schema version 4 from position 9 (this app reads 2 to 3)"),
        (made("event", "other.written"), "event other.written in schema version 1"),
        (made("event", "turn.started"), None),
        (made("event", "turn.started", 2), "event turn.started in schema version 2"),
        (made("actor", "page"), None),
        (made("actor", "other"), "actor type 'other'"),
        (made("actor", "page", 2), "actor type 'page'"),
        (made("format", "shard"), None),
        (made("format", "shard", 2), "format 'shard' version 2"),
        (made("format", "other"), "format 'other' version 1"),
        (made("something", "new"), "format 'new' version 1"),
    ],
)
def test_each_kind_of_format_is_known_or_named(found: Format, says: str | None) -> None:
    assert lacking([found], PAGES) == ([] if says is None else [found])
    if says is not None:
        assert says in described([found], PAGES)


def test_of_many_lacking_ones_the_first_few_are_named() -> None:
    assert described([made("actor", f"a{n}") for n in range(8)], PAGES).endswith("'a4' and 3 more")


@pytest.fixture(params=["memory", "sqlite"])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LogUnderTest]:
    opened = log_under_test(request.param, SHARDS_MIN, tmp_path / "log")
    yield opened
    await opened.close()


async def check(log: LogUnderTest, shard: int) -> None:
    """As a worker does before it takes the shard: with a store that has not taken it."""
    await check_shard(await log.shard(shard, take=False), OLD.registry, log.reader)


async def test_a_tell_to_a_type_that_nobody_has_closes_the_shard_only_while_it_waits(log: LogUnderTest) -> None:
    """Anybody may send one; refused, it is a row without events and means nothing. While it waits, it would be refused wrongly."""
    stream = StreamId("nosuch/x")
    shard = shard_of("nosuch", "x", log.shards)
    store = await log.shard(shard)
    await store.accept([arrival(stream, "c1")])
    assert made("actor", "nosuch").name in {each.name for each in await store.formats()}
    with pytest.raises(UnknownFormatsError, match="actor type 'nosuch'"):
        await check(log, shard)
    refused = inbox_entry(stream, "c1", InboxStatus.REFUSED, reply=b"{}", source="js:tells:1")
    await append_one(store, stream, 0, command_id="c1", inbox=refused)
    await check(log, shard)
    assert await lacking_in(await log.reader(), OLD.registry, shard) == []


async def test_an_actor_type_with_events_closes_its_own_shard_and_no_other(log: LogUnderTest) -> None:
    stream = StreamId("nosuch/x")
    shard = shard_of("nosuch", "x", log.shards)
    await append_one(await log.shard(shard), stream, 0, deposited(5))
    with pytest.raises(UnknownFormatsError, match=r"actor type 'nosuch', event account\.deposited in schema version 1") as found:
        await check(log, shard)
    assert found.value.fields == {"shard": shard, "lacking": ["actor nosuch 1", "event account.deposited 1"]}
    for other in set(range(log.shards)) - {shard}:
        await check(log, other)


async def test_an_event_that_the_program_does_not_know_stops_that_actor_only(tmp_path: Path) -> None:
    """I-18: should it be met all the same, here by the embedded runtime, which has every shard."""
    async with local_runtime(NEW, tmp_path) as cue:
        for name in ("a", "b"):
            await cue.ask(f"book/{name}", "add")
        await cue.ask("book/a", "clear")
    async with local_runtime(OLD, tmp_path) as cue:
        with pytest.raises(Unavailable) as refusal:
            await cue.ask("book/a", "count")
        assert await cue.ask("book/b", "add") == 2
    fields = refusal.value.fields
    assert (fields["reason"], fields["type"], fields["schema_version"]) == ("unknown_event_type", "book.lines_cleared", 1)
    assert (fields["version"], fields["missing"]) == (2, "an event class with the tag 'book.lines_cleared' for book")
    assert str(fields["position"]).endswith(":2") or str(fields["position"]).endswith(":3")
    async with local_runtime(NEW, tmp_path) as cue:
        assert await cue.ask("book/a", "count") == 0


# -- workers ------------------------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def worker(name: str, app: App, data: Path, server: NatsServer) -> AsyncIterator[Node]:
    """A worker in this process; drained at the end."""
    node = Node(NodeConfig(worker=name, data=data, nats_options=server.connection.nats_options(), drain_s=5.0), app)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(node.run(stop))
        try:
            yield node
        finally:
            stop.set()
            await running


async def ask(server: NatsServer, actor: str, method: str) -> Any:
    client = await nats.connect(**server.connection.nats_options())
    try:
        type_name, key = actor.split("/")
        reply = await client.request(f"cue.ask.{type_name}.{key}.{method}", b"{}", timeout=10)
        return msgspec.json.decode(reply.data)
    finally:
        await client.close()


def owned(data: Path, name: str) -> set[int]:
    """The shards that a worker has taken, with an epoch."""
    facts = survey(data, SHARDS_MIN)
    return {each.shard for each in facts.shards if each.owner is not None and each.owner.worker == name and each.owner.epoch > 0}


@pytest.fixture
def server(_nats_program: None, tmp_data: Path) -> Any:
    made = NatsServer(tmp_data, mappings=Subjects("cue", SHARDS_MIN).server_mappings())
    made.start()
    yield made
    made.stop()


async def test_s7_a_worker_that_lacks_a_type_leaves_the_shard_to_one_that_has_it(tmp_data: Path, server: NatsServer) -> None:
    """It serves the others, stands by, and its epoch never stands in the shard; the newer worker takes it at once."""
    async with local_runtime(NEW, tmp_data / "log") as cue:
        await cue.ask("book/a", "add")
        await cue.ask("book/a", "clear")
    closed = shard_of("book", "a", SHARDS_MIN)
    others = set(range(SHARDS_MIN)) - {closed}
    async with worker("w-old", OLD, tmp_data, server) as old:
        await wait_until_async(lambda: owned(tmp_data, "w-old") == others, "the old worker has the shards that it can serve")
        await wait_until_async(lambda: "w-old" in survey(tmp_data, SHARDS_MIN).standby, "it stands by")
        assert await epoch(old, closed) == 1
        async with worker("w-new", NEW, tmp_data, server):
            await wait_until_async(lambda: closed in owned(tmp_data, "w-new"), "the new worker has the shard")
            assert await ask(server, "book/a", "count") == 0
            assert await ask(server, "book/a", "add") == 1
        # The new one has gone: the old one does not begin with a shard that it refused.
        await asyncio.sleep(1.2)
        assert owned(tmp_data, "w-old") == others


async def epoch(node: Node, shard: int) -> int:
    from events.sqlite.reader_sqlite import SqliteLogReader

    reader = await SqliteLogReader.open(node._log)
    try:
        findings = [each.check async for each in lacking_code(reader, node._app.registry)]
        assert findings == [f"code for shard {shard}"]
        return (await reader.info(shard)).owner_epoch
    finally:
        await reader.close()
