"""``cue.log``: pages that fit and go on, strict arguments, the one record shape."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.errors import BadPayload, HandlerFailed, Unknown
from actors.registry import Registry
from events.envelope import ENVELOPE_FIELDS, Kind, NewEvent
from events.ids import CommandId, StreamId, Version
from events.in_memory.store_memory import MemoryLog
from events.limits import REPLY_BYTES_MAX
from events.sqlite.reader_sqlite import SqliteLogReader
from events.store import Append
from ops.examples.bank import app
from runtime.local import local_runtime
from runtime.past.log_service import OPERATIONS, LogService
from runtime.past.merging import merged


@pytest.fixture
async def reader(tmp_path: Path) -> AsyncIterator[SqliteLogReader]:
    async with local_runtime(app, tmp_path) as cue:
        for n in range(40):
            await cue.ask(f"account/{'abcd'[n % 4]}", "deposit", cents=1)
        await cue.ask("account/a", "withdraw", cents=2, command_id="w-1")
    found = await SqliteLogReader.open(tmp_path)
    yield found
    await found.close()


async def call(service: LogService, operation: str, **arguments: Any) -> Any:
    return msgspec.json.decode(await service.handle(operation, msgspec.json.encode(arguments)))


async def test_events_leave_in_the_one_record_shape(reader: SqliteLogReader) -> None:
    page = await call(LogService(reader, None), "read", stream="account/a")
    assert all(tuple(event) == ENVELOPE_FIELDS for event in page["events"])
    assert page["events"][0]["payload"] == {"cents": 1}


async def test_a_stream_is_read_in_pages_by_version(reader: SqliteLogReader) -> None:
    service, versions = LogService(reader, None), list[int]()
    after: int | None = 0
    while after is not None:
        page = await call(service, "read", stream="account/a", after=after, limit=4)
        versions += [event["version"] for event in page["events"]]
        after = page["next"]
    assert versions == list(range(1, 12))


async def test_a_shard_is_read_in_pages_by_position(reader: SqliteLogReader) -> None:
    service = LogService(reader, None)
    for shard in range(reader.shards):
        positions = list[int]()
        after: int | None = 0
        while after is not None:
            page = await call(service, "read", shard=shard, after=after, limit=3)
            positions += [event["position"] for event in page["events"]]
            after = page["next"]
        assert positions == list(range(1, (await reader.info(shard)).position + 1))


@pytest.mark.parametrize("limit", [1, 7, 1_000])
async def test_all_shards_are_read_in_merged_order_page_by_page(reader: SqliteLogReader, limit: int) -> None:
    service, found = LogService(reader, None), list[str]()
    place: dict[str, int] | None = {}
    while place is not None:
        page = await call(service, "read", positions=place, limit=limit)
        found += [event["event_id"] for event in page["events"]]
        place = page["next"]
    assert found == [event.event_id async for event in merged(reader)]


async def test_a_follower_goes_on_from_the_positions_also_over_what_the_filter_left_out(reader: SqliteLogReader) -> None:
    page = await call(LogService(reader, None), "read", filter="type:account.withdrawn")
    assert [event["command_id"] for event in page["events"]] == ["w-1"]
    assert page["next"] is None
    tops = {str(shard): (await reader.info(shard)).position for shard in range(reader.shards)}
    assert page["positions"] == {shard: position for shard, position in tops.items() if position}
    again = await call(LogService(reader, None), "read", filter="", positions=page["positions"])
    assert again["events"] == []


async def test_state_and_diff_need_code_and_say_so_without(reader: SqliteLogReader) -> None:
    with_code, without = LogService(reader, app.registry), LogService(reader, None)
    assert (await call(with_code, "state", stream="account/a", version=3))["state"] == {"cents": 3, "transfers": 0}
    patch = (await call(with_code, "diff", **{"stream": "account/a", "from": 3, "to": 4}))["patch"]
    assert patch == [{"op": "replace", "path": "/cents", "value": 4}]
    assert "events only" in (await call(without, "state", stream="account/a"))["note"]
    assert "events only" in (await call(LogService(reader, Registry([])), "diff", **{"stream": "account/a", "from": 0, "to": 1}))["note"]


async def test_trace_streams_and_head(reader: SqliteLogReader) -> None:
    service = LogService(reader, None)
    assert [event["type"] for event in (await call(service, "trace", correlation_id="w-1"))["events"]] == ["account.withdrawn"]
    first = await call(service, "streams", limit=3)
    rest = await call(service, "streams", after=first["next"], limit=3)
    assert [info["stream"] for info in first["streams"] + rest["streams"]] == [f"account/{key}" for key in "abcd"]
    assert rest["next"] is None
    head = await call(service, "head")
    assert sum(head["positions"].values()) == 41
    assert [shard["shard"] for shard in head["shards"]] == list(range(reader.shards))
    assert (await call(service, "head", stream="account/a"))["version"] == 11


@pytest.mark.parametrize(
    ("operation", "body", "field"),
    [
        ("read", b'{"limit": 1001}', "limit"),
        ("read", b'{"limit": 0}', "limit"),
        ("read", b'{"after": -1}', "after"),
        ("read", b'{"surplus": 1}', "surplus"),
        ("read", b'{"filter": "frob:1"}', "filter"),
        ("read", b'{"shard": 99}', "shard"),
        ("read", b'{"positions": {"99": 1}}', "positions"),
        ("read", b'{"stream": "a/b", "shard": 1}', "stream"),
        ("read", b'{"stream": "a"}', "stream"),
        ("state", b"{}", "stream"),
        ("diff", b'{"stream": "account/a", "from": 1}', "to"),
        ("trace", b"{}", "correlation_id"),
        ("read", b"{", None),
        ("read", b"[]", None),
        ("read", b'{"after": 1, "after": 2}', "after"),
    ],
)
async def test_arguments_that_do_not_fit_are_refused_by_field(
    reader: SqliteLogReader, operation: str, body: bytes, field: str | None
) -> None:
    with pytest.raises(BadPayload) as refused:
        await LogService(reader, None).handle(operation, body)
    assert refused.value.fields["field"] == field


async def test_what_is_not_there_is_not_found(reader: SqliteLogReader) -> None:
    for operation, body in (("frob", b""), ("state", b'{"stream": "account/z"}'), ("head", b'{"stream": "account/z"}')):
        with pytest.raises(Unknown):
            await LogService(reader, app.registry).handle(operation, body)


async def test_code_that_does_not_fit_the_log_fails_by_name(reader: SqliteLogReader) -> None:
    """A registry of the same actor type without its events: 500 with the place, never a broken reply."""
    from actors import Actor, State

    class Bare(State):
        pass

    class BareActor(Actor[Bare], name="account"):
        pass

    with pytest.raises(HandlerFailed, match=r"account\.deposited"):
        await LogService(reader, Registry([BareActor])).handle("state", b'{"stream": "account/a"}')


async def test_a_page_of_large_events_is_cut_below_a_mebibyte_and_says_next() -> None:
    log = MemoryLog(1)
    shard = log.shard(0)
    await shard.take("test")
    body = msgspec.json.encode({"text": "x" * 200_000})
    for version in range(12):
        event = NewEvent(type="test.large", kind=Kind.STATE, payload=body)
        await shard.append(
            [Append(stream=StreamId("big/1"), expected_version=Version(version), command_id=CommandId(f"c{version}"), events=[event])]
        )
    service = LogService(log.reader(), None)
    for start, key in (({"stream": "big/1"}, "after"), ({"shard": 0}, "after"), ({}, "positions")):
        seen = 0
        place: Any = {} if key == "positions" else 0
        while place is not None:
            reply = await service.handle("read", msgspec.json.encode({**start, key: place}))
            assert len(reply) < REPLY_BYTES_MAX
            page = msgspec.json.decode(reply)
            assert page["events"]
            seen, place = seen + len(page["events"]), page["next"]
        assert seen == 12


async def test_the_largest_event_alone_still_leaves() -> None:
    """Its envelope takes it over 1 MiB; refusing it would stop every reader there."""
    log = MemoryLog(1)
    shard = log.shard(0)
    await shard.take("test")
    event = NewEvent(type="test.large", kind=Kind.STATE, payload=msgspec.json.encode({"t": "x" * (REPLY_BYTES_MAX - 16)}))
    await shard.append([Append(stream=StreamId("big/1"), expected_version=Version(0), command_id=CommandId("c"), events=[event])])
    page = await call(LogService(log.reader(), None), "read", stream="big/1")
    assert len(page["events"]) == 1


def test_every_operation_has_a_schema() -> None:
    for kind in OPERATIONS.values():
        assert msgspec.json.schema(kind)
