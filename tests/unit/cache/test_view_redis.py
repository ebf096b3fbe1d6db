"""The server as a view of the log: filled with what may be served, moved on in one step, never trusted (S37, I-11, I-12, I-18, I-22)."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from events.caching import Address
from events.envelope import RecordedEvent
from events.ids import StreamId
from events.sqlite.reader_sqlite import SqliteLogReader
from projections.cache.server_redis import RedisCacheServer
from projections.cache.step_cache import TieredStepCache
from projections.cache.values import MAC_BYTES, Values
from projections.cache.view_redis import RedisCacheView
from projections.errors import CheckpointError, ViewUnavailableError
from projections.view import ERASED
from runtime.local import local_runtime
from runtime.past.merging import merged
from runtime.tasks import Tasks
from tests.support.logs import ManualClock
from tests.support.sage import APP, CALLS, HOLD, values
from tests.support.valkey import Valkey

HOUR_US = 3_600_000_000


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    CALLS.clear()
    HOLD.clear()
    yield
    HOLD.clear()


@pytest.fixture
async def recorded(tmp_path: Path) -> list[RecordedEvent]:
    """Of shard 0: two workspaces; two results each, one of them twice."""
    async with local_runtime(APP, tmp_path, shards=1) as runtime:
        for workspace in ("a", "b"):
            for question in ("why", "how", "why"):
                await runtime.ask(f"sage/{workspace}", "ask", question=question)
            await runtime.ask(f"sage/{workspace}", "tally", question="n")
    return await wanted(tmp_path)


async def wanted(directory: Path) -> list[RecordedEvent]:
    reader = await SqliteLogReader.open(directory)
    try:
        return [event async for event in merged(reader) if event.type in (*RedisCacheView.handles, ERASED)]
    finally:
        await reader.close()


@pytest.fixture
def clock(recorded: list[RecordedEvent]) -> ManualClock:
    """A second after the last event."""
    return ManualClock(recorded[-1].recorded_at_us + 1_000_000)


@pytest.fixture
async def view(server: Valkey, clock: ManualClock) -> AsyncIterator[RedisCacheView]:
    made = RedisCacheView(server.address, values(), clock)
    yield made
    await made.close()


async def bring_in(view: RedisCacheView, events: Sequence[RecordedEvent], batch: int = 100) -> None:
    """From the checkpoint on, as the engine does."""
    before = dict(await view.positions())
    rest = [event for event in events if event.position > before.get(0, 0)]
    for start in range(0, len(rest), batch):
        page = rest[start : start + batch]
        after = {0: int(page[-1].position)}
        await view.apply(page, expected=before, positions=after)
        before = dict(after)


def holdings(server: Valkey) -> dict[bytes, tuple[bytes, int]]:
    """Every name but the checkpoint, with its value and when it expires (Unix ms)."""
    names = [name for name in server.names() if not name.endswith(b":checkpoint")]
    admin: Any = server.admin
    return {name: (admin.get(name), admin.pexpiretime(name)) for name in names}


def counts_of(checkpoint: Any) -> dict[str, tuple[int, int]]:
    assert checkpoint is not None
    return {name: (counts.hits, counts.misses) for name, counts in checkpoint.counts.items()}


async def test_it_holds_what_may_be_served_until_its_time(view: RedisCacheView, recorded: list[RecordedEvent], server: Valkey) -> None:
    await bring_in(view, recorded)
    held = holdings(server)
    assert len(held) == 6, "two answers and one tally in each workspace"
    completed = {int(event.version): event for event in recorded if event.stream == "sage/a"}
    for name, (value, expires_ms) in held.items():
        found = values().decode(name.decode(), value)
        assert found is not None
        assert expires_ms == found.expires_us // 1_000
        if found.stream == "sage/a":
            ttl_us = 60_000_000 if b":api:" in name else HOUR_US // 2
            assert found.expires_us == completed[found.version].recorded_at_us + ttl_us


async def test_counts_are_exact_whatever_the_batches(view: RedisCacheView, recorded: list[RecordedEvent], server: Valkey) -> None:
    """Without a cache in that process every lookup was a miss; hits are counted from their marks."""
    marked = [with_hit(event) if number in (2, 6) else event for number, event in enumerate(recorded)]
    for batch in (1, 3, 100):
        server.admin.flushall()
        await bring_in(view, marked, batch)
        assert counts_of(await view.checkpoint()) == {"response": (2, 4), "api": (0, 2)}, batch


def with_hit(event: RecordedEvent) -> RecordedEvent:
    payload = msgspec.json.decode(event.payload)
    payload["cache"]["hit"] = 1
    return msgspec.structs.replace(event, payload=msgspec.Raw(msgspec.json.encode(payload)))


async def test_i11_after_flushall_the_same_names_values_and_times_are_there_again(
    view: RedisCacheView, recorded: list[RecordedEvent], server: Valkey, clock: ManualClock
) -> None:
    await bring_in(view, recorded[:4])
    await bring_in(view, recorded[4:], batch=1)
    incremental, checkpoint = holdings(server), await view.checkpoint()
    server.admin.flushall()
    clock.advance(30)
    assert await view.positions() == {}, "the loss is seen"
    await bring_in(view, recorded)
    assert holdings(server) == incremental
    assert await view.checkpoint() == checkpoint


async def test_what_is_over_is_not_brought_in_and_still_counted(
    view: RedisCacheView, recorded: list[RecordedEvent], server: Valkey, clock: ManualClock
) -> None:
    clock.advance(120)
    await bring_in(view, recorded)
    assert len(holdings(server)) == 4, "the tallies were good for a minute"
    assert counts_of(await view.checkpoint()) == {"response": (0, 6), "api": (0, 2)}


@pytest.mark.parametrize("batch", [1, 100])
async def test_i18_a_newer_result_that_is_over_leaves_no_older_one(
    view: RedisCacheView, recorded: list[RecordedEvent], server: Valkey, clock: ManualClock, batch: int
) -> None:
    """The older one was given more time: a view that grew lost it to the newer one, and so does one that is filled afterwards."""
    why = [event for event in recorded if event.stream == "sage/a"][:3]
    first, newer = why[0], with_ttl(why[2], 2_000_000)
    clock.advance(60)
    await bring_in(view, [first, newer], batch)
    assert holdings(server) == {}


def with_ttl(event: RecordedEvent, ttl_us: int) -> RecordedEvent:
    payload = msgspec.json.decode(event.payload)
    payload["cache"]["ttl_us"] = ttl_us
    return msgspec.structs.replace(event, payload=msgspec.Raw(msgspec.json.encode(payload)))


async def test_i12_a_loss_between_two_batches_stops_the_next(view: RedisCacheView, recorded: list[RecordedEvent], server: Valkey) -> None:
    await bring_in(view, recorded[:3])
    before = await view.positions()
    server.admin.flushall()
    with pytest.raises(CheckpointError):
        await view.apply(recorded[3:], expected=before, positions={0: 10_000})
    assert server.names() == [], "nothing was written"


async def test_i12_a_loss_in_the_middle_of_a_batch_stops_it(
    view: RedisCacheView, recorded: list[RecordedEvent], server: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FLUSHALL between the look at the checkpoint and the transaction: the checkpoint must not outlive the values."""
    await bring_in(view, recorded[:3])
    before = await view.positions()
    encode = Values.encode

    def flushed(self: Values, name: str, cached: Any) -> bytes:
        server.admin.flushall()
        return encode(self, name, cached)

    monkeypatch.setattr(Values, "encode", flushed)
    with pytest.raises(CheckpointError):
        await view.apply(recorded[3:], expected=before, positions={0: 10_000})
    assert server.names() == []


async def test_of_two_projectors_one_gets_further(
    view: RedisCacheView, recorded: list[RecordedEvent], server: Valkey, clock: ManualClock
) -> None:
    other = RedisCacheView(server.address, values(), clock)
    await bring_in(view, recorded[:3])
    before = await view.positions()
    await bring_in(other, recorded)
    with pytest.raises(CheckpointError):
        await view.apply(recorded[3:5], expected=before, positions={0: int(recorded[4].position)})
    await other.close()


@pytest.mark.parametrize("bad", [b"", b"7", b"x" * 200, b"\xff" * MAC_BYTES + b'{"positions":{"0":99},"counts":{}}'])
async def test_a_checkpoint_that_is_not_ours_is_none_and_all_is_built_anew(
    view: RedisCacheView, recorded: list[RecordedEvent], server: Valkey, bad: bytes
) -> None:
    await bring_in(view, recorded)
    whole = holdings(server)
    server.admin.set(values().checkpoint, bad)
    server.admin.set(next(iter(whole)), b"planted")
    server.admin.set(f"{values().prefix}:response:a:{'0' * 64}", b"planted")
    assert await view.positions() == {}
    await bring_in(view, recorded)
    assert holdings(server) == whole
    server.admin.delete(values().checkpoint)
    server.admin.rpush(values().checkpoint, "of another type")
    await bring_in(view, recorded)
    assert holdings(server) == whole


async def test_i22_an_erased_stream_leaves_nothing_behind(
    view: RedisCacheView, recorded: list[RecordedEvent], server: Valkey, tmp_path: Path
) -> None:
    """By a rebuild neither: its payloads are gone."""
    await bring_in(view, recorded)
    async with local_runtime(APP, tmp_path, shards=1) as runtime:
        await runtime.ask("sage/a", "_erase", confirm="sage/a")
    after = await wanted(tmp_path)
    await bring_in(view, after)
    assert {name.split(b":")[4] for name in holdings(server)} == {b"b"}
    server.admin.flushall()
    await bring_in(view, after)
    assert {name.split(b":")[4] for name in holdings(server)} == {b"b"}


async def test_an_erasure_in_the_batch_of_its_results_wins(
    view: RedisCacheView, recorded: list[RecordedEvent], server: Valkey
) -> None:
    erased = msgspec.structs.replace(recorded[-1], stream=StreamId("sage/a"), type=ERASED, payload=msgspec.Raw(b"{}"))
    await bring_in(view, [*recorded[:-1], erased])
    assert {name.split(b":")[4] for name in holdings(server)} == {b"b"}


@pytest.mark.parametrize(
    "payload",
    [
        b"null", b'"c2VhbGVk"', b"[]", b"{}", b'{"cache":7}',
        b'{"result":1,"cache":{"namespace":"else","key":"%s","ttl_us":5}}' % (b"a" * 64),
        b'{"result":1,"cache":{"namespace":"api","key":"*","ttl_us":5000000}}',
        b'{"result":1,"cache":{"namespace":"api","key":"%s","ttl_us":-5}}' % (b"a" * 64),
        b'{"result":1,"cache":{"namespace":"api","key":"%s","ttl_us":%d}}' % (b"a" * 64, 10**17),
        b'{"result":"%s","cache":{"namespace":"api","key":"%s","ttl_us":5000000}}' % (b"x" * 300_000, b"a" * 64),
    ],
)  # fmt: skip
async def test_what_is_no_result_to_cache_is_passed_over(
    view: RedisCacheView, recorded: list[RecordedEvent], server: Valkey, payload: bytes
) -> None:
    """Sealed, erased, too large, or from a program that says it in another way: nothing is parked for that."""
    await bring_in(view, [msgspec.structs.replace(recorded[0], payload=msgspec.Raw(payload))])
    assert holdings(server) == {}
    assert await view.positions() == {0: recorded[0].position}


async def test_forks_are_not_cached(view: RedisCacheView, recorded: list[RecordedEvent], server: Valkey) -> None:
    await bring_in(view, [msgspec.structs.replace(event, branch="what-if") for event in recorded])
    assert holdings(server) == {}
    assert counts_of(await view.checkpoint()) == {}


async def test_a_server_that_is_away_is_told_as_such(view: RedisCacheView, recorded: list[RecordedEvent], server: Valkey) -> None:
    await bring_in(view, recorded[:3])
    before = await view.positions()
    server.kill()
    with pytest.raises(ViewUnavailableError):
        await view.positions()
    with pytest.raises(ViewUnavailableError):
        await view.apply(recorded[3:], expected=before, positions={0: 10_000})
    server.start()
    assert await view.positions() == {}
    await bring_in(view, recorded)
    assert len(holdings(server)) == 6


async def test_another_incarnation_of_the_log_begins_with_an_empty_cache(
    view: RedisCacheView, recorded: list[RecordedEvent], server: Valkey, clock: ManualClock
) -> None:
    await bring_in(view, recorded)
    restored = RedisCacheView(server.address, values("1" * 32), clock)
    assert await restored.positions() == {}
    await restored.close()


async def test_clearing_leaves_others_alone(view: RedisCacheView, recorded: list[RecordedEvent], server: Valkey) -> None:
    await bring_in(view, recorded)
    server.admin.set("of somebody else", "x")
    assert await view.clear() == 6
    assert server.names() == [b"of somebody else"]


# -- what a reader takes from it ----------------------------------------------------------------------------------------------------------


class Reader:
    """A process that has had nothing itself yet."""

    def __init__(self, server: Valkey, clock: ManualClock) -> None:
        self._tasks = Tasks()
        self.server = RedisCacheServer(server.address, self._tasks.spawn, timeout_s=2.0)
        self._clock = clock
        self.fresh()

    def fresh(self) -> None:
        self.cache = TieredStepCache(values(), self._clock, self.server)

    async def get(self, name: bytes, stream: str | None = None) -> bytes | None:
        _, _, _, namespace, workspace, key = name.decode().split(":")
        address = Address(workspace, namespace, key)
        found = await self.cache.get(address, StreamId(stream or f"sage/{workspace}"))
        self.cache.give_up(address)
        return None if found is None else found.result

    async def close(self) -> None:
        await self.server.close()
        await self._tasks.cancel_all()


@pytest.fixture
async def reader(server: Valkey, clock: ManualClock) -> AsyncIterator[Reader]:
    made = Reader(server, clock)
    yield made
    await made.close()


async def test_a_reader_takes_what_the_view_wrote(
    view: RedisCacheView, recorded: list[RecordedEvent], server: Valkey, reader: Reader
) -> None:
    await bring_in(view, recorded)
    found = [await reader.get(name) for name in holdings(server)]
    assert sorted(value for value in found if value) == [b'"answer to how"'] * 2 + [b'"answer to why"'] * 2 + [b"4", b"8"]
    counts = reader.cache.statistics().namespaces["response"]
    assert (counts.served, counts.refused) == (4, 0)


async def test_nothing_hostile_is_ever_served(
    view: RedisCacheView, recorded: list[RecordedEvent], server: Valkey, reader: Reader
) -> None:
    """Another key's value, another workspace's, another log's, a longer life, any changed byte, any other type, anything huge: misses."""
    await bring_in(view, recorded)
    held = {name: value for name, (value, _) in holdings(server).items()}
    mine, other = (name for name in held if name.split(b":")[3:5] == [b"response", b"a"])
    theirs = next(name for name in held if name.split(b":")[3:5] == [b"response", b"b"])
    good = held[mine]
    foreign = values(secret=b"x" * 32)
    found = values().decode(mine.decode(), good)
    assert found is not None
    longer = good.replace(str(found.expires_us).encode(), str(found.expires_us + HOUR_US).encode())
    assert longer != good
    hostile: list[bytes] = [
        b"", b"null", b"0", b"\x80\x04K\x07.", b"x" * 5_000_000, good[:-1], good[:MAC_BYTES], good[: MAC_BYTES - 1], good + b" ",
        held[other], held[theirs], longer, foreign.encode(mine.decode(), found), good[MAC_BYTES:], b"\x00" * MAC_BYTES + good[MAC_BYTES:],
    ]  # fmt: skip
    hostile += [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in range(0, len(good), 7)]
    for value in hostile:
        server.admin.set(mine, value)
        reader.fresh()
        assert await reader.get(mine) is None, value[:100]
    for command in (["RPUSH", mine, good], ["HSET", mine, "f", good], ["SADD", mine, good], ["ZADD", mine, 1, good], ["PFADD", mine, good]):
        server.admin.delete(mine)
        server.admin.execute_command(*command)  # type: ignore[no-untyped-call]
        reader.fresh()
        assert await reader.get(mine) is None
    server.admin.delete(mine)
    server.admin.set(mine, good)
    reader.fresh()
    assert await reader.get(mine) is not None
    reader.fresh()
    assert await reader.get(mine, stream="other/a") is None, "of another actor of the same workspace"


async def test_i18_an_older_value_is_never_served_above_a_newer_known_one(
    view: RedisCacheView, recorded: list[RecordedEvent], server: Valkey, reader: Reader, clock: ManualClock
) -> None:
    """Somebody puts an old value back, authentic as it is: who has seen a newer one does not take it, even when its own is not fresh."""
    await bring_in(view, recorded[:1])
    (name,) = holdings(server)
    old = server.admin.get(name)
    assert isinstance(old, bytes)
    await bring_in(view, recorded)
    assert await reader.get(name) is not None
    server.admin.set(name, old)
    clock.advance(61)
    assert await reader.get(name) is None
    assert reader.cache.statistics().namespaces["response"].refused == 1


async def test_what_another_process_knows_better_arrives_within_a_minute(
    view: RedisCacheView, recorded: list[RecordedEvent], server: Valkey, reader: Reader, clock: ManualClock
) -> None:
    await bring_in(view, recorded)
    name = next(name for name in holdings(server) if name.split(b":")[3:5] == [b"response", b"a"])
    assert await reader.get(name) is not None
    server.admin.flushall()
    clock.advance(59)
    assert await reader.get(name) is not None, "from this process"
    clock.advance(2)
    assert await reader.get(name) is None


async def test_an_expired_value_that_the_server_still_holds_is_not_served(
    view: RedisCacheView, recorded: list[RecordedEvent], server: Valkey, reader: Reader, clock: ManualClock
) -> None:
    """The clock of who serves counts, not that of the server."""
    await bring_in(view, recorded)
    name = next(name for name in holdings(server) if b":response:a:" in name)
    server.admin.persist(name)
    clock.advance(1_801)
    assert await reader.get(name) is None


async def test_concurrent_lookups_of_one_process_share_a_trip(
    view: RedisCacheView, recorded: list[RecordedEvent], server: Valkey, reader: Reader
) -> None:
    await bring_in(view, recorded)
    async with asyncio.TaskGroup() as group:
        for name in [*holdings(server)] * 3:
            group.create_task(reader.get(name))
    counts = reader.server.statistics()
    assert (counts.gets, counts.pipelines) == (6, 1), "each name once, all at once; the others waited for these"
