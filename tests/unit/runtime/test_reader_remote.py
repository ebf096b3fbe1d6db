"""A log reached over ``cue.log`` answers as its files do."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from events.envelope import RecordedEvent
from events.ids import CommandId, EventId, Position, StreamId
from events.selection import EVERYTHING, Selection, Term
from events.sqlite.reader_sqlite import SqliteLogReader
from runtime.past.causes import trace
from runtime.past.failures import explain
from runtime.past.filters import parse_filter
from runtime.past.history import blame
from runtime.past.inspection import find_event
from runtime.past.log_service import LogService
from runtime.past.merging import last, merged
from runtime.past.reader_remote import RemoteLogReader
from runtime.past.states import StateView, state_at
from runtime.turns.under_way import under_way
from tests.support.errands import app, run_errands

BOB = StreamId("buyer/bob")


@pytest.fixture
async def files(tmp_path: Path) -> AsyncIterator[SqliteLogReader]:
    await run_errands(tmp_path / "log")
    found = await SqliteLogReader.open(tmp_path / "log")
    yield found
    await found.close()


@pytest.fixture
async def remote(files: SqliteLogReader) -> RemoteLogReader:
    service = LogService(files, app.registry)

    async def ask(operation: str, /, *, timeout_s: float, **arguments: Any) -> Any:
        assert timeout_s > 0
        return msgspec.json.decode(await service.handle(operation, msgspec.json.encode(arguments)))

    return await RemoteLogReader.open(ask)


def plain(events: Any) -> list[dict[str, Any]]:
    """Raw payloads of equal bytes are not equal objects."""
    return [{**msgspec.structs.asdict(event), "payload": bytes(event.payload)} for event in events]


async def test_every_read_gives_the_same(files: SqliteLogReader, remote: RemoteLogReader) -> None:
    assert (remote.shards, remote.incarnation) == (files.shards, files.incarnation)
    for shard in range(files.shards):
        assert msgspec.json.encode(await remote.info(shard)) == msgspec.json.encode(await files.info(shard))
        assert await remote.formats(shard) == await files.formats(shard)
        assert list(await remote.letters(shard)) == list(await files.letters(shard))
        assert list(await remote.stopped(shard)) == list(await files.stopped(shard))
        assert plain(await remote.read(shard, after=2, limit=5)) == plain(await files.read(shard, after=2, limit=5))
        assert plain(await remote.read_last(shard, limit=7)) == plain(await files.read_last(shard, limit=7))
        here, there = await files.at(shard, Position(3)), await remote.at(shard, Position(3))
        assert plain(filter(None, [there])) == plain(filter(None, [here]))
    assert plain(await remote.read_stream(BOB, after=3, limit=4)) == plain(await files.read_stream(BOB, after=3, limit=4))
    assert await remote.head(BOB) == await files.head(BOB)
    assert await remote.head(StreamId("buyer/nobody")) is None
    assert list(await remote.streams()) == list(await files.streams())
    event = (await files.read_stream(BOB))[5]
    assert plain(filter(None, [await remote.event(event.event_id)])) == plain([event])
    assert await remote.event(EventId("f" * 24)) is None
    entry = await remote.inbox(BOB, CommandId("errand-1"))
    known = await files.inbox(BOB, CommandId("errand-1"))
    assert known is not None
    assert entry == msgspec.structs.replace(known, reply=None, args=None), "over the wire without its reply"
    assert await remote.inbox(BOB, CommandId("nobody")) is None


@pytest.mark.parametrize("backwards", [False, True])
async def test_a_selection_is_carried_out_there(files: SqliteLogReader, remote: RemoteLogReader, backwards: bool) -> None:
    wanted = Selection(included=((Term(field="type", pattern="*.completed"), Term(field="type", pattern="*.failed")),))
    for shard in range(files.shards):
        place: int | None = None
        found: list[RecordedEvent] = []
        while True:
            around = {"before": place} if backwards else {"after": place or 0}
            page = await remote.select(shard, wanted, limit=2, backwards=backwards, **around)
            found += page.events
            if page.end:
                break
            place = page.upto
        assert plain(found) == plain((await files.select(shard, wanted, backwards=backwards)).events)
        end = (await files.info(shard)).position
        assert backwards or page.upto == end, "a follower goes on where the shard ended"


async def test_every_question_about_the_past_has_the_same_answer(files: SqliteLogReader, remote: RemoteLogReader) -> None:
    assert plain([event async for event in merged(remote)]) == plain([event async for event in merged(files)])
    errors = parse_filter("error:true")
    failed, failed_there = await last(files, errors), await last(remote, errors)
    assert plain(failed) == plain(failed_there)
    assert [each.reason for each in await explain(remote, failed_there)] == [each.reason for each in await explain(files, failed)]
    here, there = await trace(files, "errand-1"), await trace(remote, "errand-1")
    assert (plain(there.events), there.roots) == (plain(here.events), here.roots)
    assert await state_at(remote, app.registry, BOB, 7) == await state_at(files, app.registry, BOB, 7)
    assert len((await blame(remote, app.registry, BOB, "/total")).changes) == 3
    assert (await find_event(remote, failed[0].event_id[:18])).event_id == failed[0].event_id
    assert msgspec.json.encode(await under_way(remote)) == msgspec.json.encode(await under_way(files))
    assert [event async for event in merged(remote, EVERYTHING, after=dict.fromkeys(range(4), 1_000))] == []


async def test_without_code_here_the_workers_code_folds(remote: RemoteLogReader) -> None:
    """S32: the deployment's own app, without naming it."""
    view = await remote.request(StateView, "state", stream=BOB, version=6)
    assert view.state["total"] == 10
