"""What every adapter of the log port promises: one suite for memory and SQLite (`events/store.py`)."""

import msgspec
import pytest

from events.envelope import GENESIS_HASH, NewEvent, chain_hash, payload_hash
from events.errors import InvariantError, SupersededError
from events.ids import CommandId, EventId, Position, Version
from events.store import (
    Committed,
    Conflict,
    Duplicate,
    Snapshot,
)
from tests.support.logs import (
    START_US,
    LogUnderTest,
    append_one,
    arrival,
    command,
    committed,
    deposited,
    group,
    send,
    stream_in,
    timer,
    wait,
)

SHARDS = 2
A = stream_in(0, SHARDS, "a")
B = stream_in(0, SHARDS, "b")
REMOTE = stream_in(1, SHARDS, "r")


# Versions and atomicity


async def test_a_stream_starts_at_version_1_and_positions_follow_commit_order(log: LogUnderTest) -> None:
    """I-2, I-3."""
    store = await log.shard()
    first = committed(await append_one(store, A, 0, deposited(1), deposited(2)))
    second = committed(await append_one(store, B, 0, deposited(3)))
    assert [event.version for event in first.events] == [1, 2]
    assert [event.position for event in (*first.events, *second.events)] == [1, 2, 3]
    assert (first.version, first.position, second.version, second.position) == (2, 2, 1, 3)


@pytest.mark.parametrize("expected", [0, 2, 7])
async def test_append_refuses_any_other_expected_version(log: LogUnderTest, expected: int) -> None:
    store = await log.shard()
    await append_one(store, A, 0, deposited())
    outcome = await append_one(store, A, expected, deposited())
    assert isinstance(outcome, Conflict)
    assert outcome.actual == 1
    assert (await (await log.reader()).info(0)).position == 1


async def test_a_conflict_leaves_the_other_groups_of_the_batch_alone(log: LogUnderTest) -> None:
    """S18."""
    store = await log.shard()
    outcomes = await store.append([group(A, 0, deposited()), group(A, 0, deposited()), group(B, 0, deposited()), group(A, 1, deposited())])
    assert [type(outcome) for outcome in outcomes] == [Committed, Conflict, Committed, Committed]
    assert [event.stream for event in await (await log.reader()).read(0)] == [A, B, A]


@pytest.mark.parametrize("bad", [NewEvent(type="a.b", payload=b"\xff"), NewEvent(type="a.b", payload=b"{}", summary="\ud800")])
async def test_a_group_that_cannot_be_stored_is_refused_alone_and_whole(log: LogUnderTest, bad: NewEvent) -> None:
    """S18, I-6: also the part of the group that could have been stored, and what it would have sent."""
    store = await log.shard()
    outcomes = await store.append(
        [
            group(A, 0, deposited(1), inbox=command(A, "c1"), command_id=CommandId("c1")),
            group(B, 0, deposited(2), bad, inbox=command(B, "c2"), outbox=[send(A, "s1"), send(REMOTE, "s2")]),
            group(A, 1, deposited(3)),
        ]
    )
    assert [type(outcome) for outcome in outcomes] == [Committed, Conflict, Committed]
    assert await store.head(B) is None
    assert await store.inbox(B, CommandId("c2")) is None
    assert await store.unfinished() == []
    assert await store.unsent() == []
    assert [event.stream for event in await (await log.reader()).read(0)] == [A, A]
    assert isinstance(await append_one(store, B, 0, deposited(4)), Committed)


async def test_a_later_group_may_build_on_an_earlier_one_of_the_same_batch(log: LogUnderTest) -> None:
    """S14: short turns overlap."""
    store = await log.shard()
    outcomes = await store.append([group(A, version, deposited(version)) for version in range(5)])
    assert [committed(outcome).version for outcome in outcomes] == [1, 2, 3, 4, 5]


async def test_an_append_before_the_shard_was_taken_is_a_broken_promise(log: LogUnderTest) -> None:
    store = await log.shard(take=False)
    with pytest.raises(InvariantError):
        await append_one(store, A, 0, deposited())


async def test_an_empty_batch_commits_nothing(log: LogUnderTest) -> None:
    store = await log.shard()
    assert await store.append([]) == []
    assert await store.accept([]) == []


# Envelope


async def test_events_read_back_exactly_as_they_were_committed(log: LogUnderTest) -> None:
    store = await log.shard()
    event = NewEvent(
        type="step.completed", schema_version=3, kind=deposited().kind, payload='{"t":"äöü 😀 \\u0000"}'.encode(), summary="süß", error="E",
        duration_us=12, state_hash="ab" * 32, key_id="k1",
    )  # fmt: skip
    outcome = committed(
        await append_one(
            store, A, 0, event, deposited(), command_id=CommandId("c"), causation_id="ca", correlation_id="co", traceparent="tp", sender=B,
            branch="x", parent="p", code_version="v1",
        )
    )  # fmt: skip
    reader = await log.reader()
    assert [_plain(event) for event in await reader.read(0)] == [_plain(event) for event in outcome.events]
    assert [_plain(event) for event in await reader.read_stream(A)] == [_plain(event) for event in outcome.events]


def _plain(event: object) -> object:
    return msgspec.json.decode(msgspec.json.encode(event))


async def test_the_hash_of_every_event_continues_that_of_its_predecessor(log: LogUnderTest) -> None:
    """S27: recomputed from what a reader sees, with nothing else."""
    store = await log.shard()
    await store.append([group(A, 0, deposited(1)), group(B, 0, deposited(2)), group(A, 1, deposited(3), deposited(4))])
    previous = GENESIS_HASH
    for event in await (await log.reader()).read_stream(A):
        previous = chain_hash(
            previous, stream=event.stream, version=event.version, event_id=event.event_id, type=event.type,
            schema_version=event.schema_version, kind=event.kind, recorded_at_us=event.recorded_at_us, time=event.time,
            command_id=event.command_id, causation_id=event.causation_id, correlation_id=event.correlation_id, sender=event.sender,
            branch=event.branch, payload_digest=payload_hash(bytes.fromhex(event.salt or ""), bytes(event.payload)),
        )  # fmt: skip
        assert event.hash == previous.hex()
    head = await store.head(A)
    assert head is not None
    assert head.hash == previous


async def test_event_ids_are_unique_and_start_with_the_logical_time(log: LogUnderTest) -> None:
    store = await log.shard()
    outcome = committed(await append_one(store, A, 0, *(deposited(n) for n in range(50))))
    ids = [event.event_id for event in outcome.events]
    assert len(set(ids)) == 50
    assert all(len(id_) == 24 and int(id_[:14], 16) == event.time for id_, event in zip(ids, outcome.events, strict=True))


# Logical time (S30)


async def test_logical_time_grows_although_the_clock_stands_or_goes_back(log: LogUnderTest) -> None:
    """S30, I-19."""
    store = await log.shard()
    times = []
    for version, step in enumerate([0, 0, -3600, 0, 10 * 365 * 86_400, -5]):
        log.clock.advance(step)
        outcome = committed(
            await append_one(store, A, version, deposited(), deposited())
            if version == 0
            else await append_one(store, A, version + 1, deposited())
        )
        times += [event.time for event in outcome.events]
    assert times == sorted(set(times))
    assert times[0] == START_US


async def test_an_event_is_later_than_everything_that_was_received(log: LogUnderTest) -> None:
    """S30: by the group itself, and by an arrival that came before."""
    store = await log.shard()
    far = START_US + 10**12
    outcome = committed(await append_one(store, A, 0, deposited(), received_time=far))
    assert outcome.events[0].time == far + 1
    await store.accept([arrival(B, "c", time=far + 1_000)])
    assert committed(await append_one(store, B, 0, deposited())).events[0].time == far + 1_001


async def test_logical_time_does_not_fall_behind_a_received_command_after_reopening(log: LogUnderTest) -> None:
    store = await log.shard()
    far = START_US + 10**12
    await store.accept([arrival(B, "c", time=far)])
    again = await log.shard()
    assert committed(await append_one(again, B, 0, deposited())).events[0].time == far + 1


async def test_s30_nothing_is_recorded_at_or_below_a_floor(log: LogUnderTest) -> None:
    """Also where the clock stands, and after a commit without events."""
    store = await log.shard()
    first = committed(await append_one(store, A, 0, deposited())).events[-1].time
    assert store.raise_floor(1) == first
    far = START_US + 10**12
    assert store.raise_floor(far) == far
    await store.accept([arrival(B, "c", time=far - 5)])
    assert store.raise_floor(far - 1) == far
    assert committed(await append_one(store, A, 1, deposited())).events[0].time == far + 1


async def test_s30_a_floor_outlives_a_flush_and_the_end_of_its_writer(log: LogUnderTest) -> None:
    store = await log.shard()
    await append_one(store, A, 0, deposited())
    far = START_US + 10**12
    store.raise_floor(far)
    await store.take("w")  # reads the file again, which says nothing of the floor
    assert committed(await append_one(store, A, 1, deposited())).events[0].time == far + 1
    await store.close()
    again = await log.shard()
    assert committed(await append_one(again, A, 2, deposited())).events[0].time == far + 2


# Ownership (S2, S3)


async def test_a_superseded_owner_is_refused_whatever_it_tries(log: LogUnderTest) -> None:
    """S3, I-4, I-5."""
    old = await log.shard()
    await append_one(old, A, 0, deposited())
    new = await log.shard()
    with pytest.raises(SupersededError):
        await append_one(old, A, 1, deposited())
    with pytest.raises(SupersededError):
        await old.accept([arrival(A, "c1")])
    with pytest.raises(SupersededError):
        await old.acknowledge([])
    outcome = committed(await append_one(new, A, 1, deposited()))
    assert outcome.events[0].owner_epoch == 2
    assert [event.owner_epoch for event in await (await log.reader()).read(0)] == [1, 2]


async def test_each_takeover_raises_the_epoch_and_shows_in_info(log: LogUnderTest) -> None:
    store = await log.shard(take=False)
    first, second = await store.take("w"), await store.take("w")
    assert (first.epoch, second.epoch) == (1, 2)
    assert first.token != second.token
    info = await store.info()
    assert (info.owner_epoch, info.worker, info.position, info.shards, info.incarnation) == (2, "w", 0, SHARDS, second.incarnation)


async def test_a_taker_goes_on_where_the_former_owner_stopped(log: LogUnderTest) -> None:
    """Opened before the other one appended, so what it knew at opening is old."""
    waiting = await log.shard(take=False)
    old = await log.shard()
    await append_one(old, A, 0, deposited(), inbox=command(A, "c1"))
    await waiting.take("late")
    assert isinstance(await append_one(waiting, A, 0, deposited()), Conflict)
    assert isinstance(await append_one(waiting, A, 1, deposited(), inbox=command(A, "c1")), Duplicate)
    assert isinstance(await append_one(waiting, A, 1, deposited()), Committed)


# Loading and snapshots


async def test_loading_gives_the_snapshot_of_that_shape_and_the_events_after_it(log: LogUnderTest) -> None:
    """I-8."""
    store = await log.shard()
    await append_one(
        store, A, 0, *(deposited(n) for n in range(5)), snapshot=Snapshot(stream=A, version=Version(3), state=b'{"cents":6}', shape="s1")
    )
    snapshot, events = await store.load(A, "s1")
    assert snapshot is not None
    assert (snapshot.version, snapshot.state, [event.version for event in events]) == (3, b'{"cents":6}', [4, 5])
    snapshot, events = await store.load(A, "s2")
    assert (snapshot, [event.version for event in events]) == (None, [1, 2, 3, 4, 5])
    assert await store.load(B, "s1") == (None, [])
    assert (await (await log.reader()).snapshot(A)) == Snapshot(stream=A, version=Version(3), state=b'{"cents":6}', shape="s1")


async def test_only_the_newest_snapshot_is_kept_and_one_from_beyond_the_end_is_ignored(log: LogUnderTest) -> None:
    store = await log.shard()
    for version in range(2):
        await append_one(
            store, A, version, deposited(), snapshot=Snapshot(stream=A, version=Version(version + 1), state=b"%d" % version, shape="s")
        )
    snapshot, events = await store.load(A, "s")
    assert snapshot is not None
    assert (snapshot.version, list(events)) == (2, [])
    await append_one(store, A, 2, deposited(), snapshot=Snapshot(stream=A, version=Version(9), state=b"x", shape="s"))
    snapshot, events = await store.load(A, "s")
    assert (snapshot, len(events)) == (None, 3)


async def test_head_is_the_newest_event_or_none(log: LogUnderTest) -> None:
    store = await log.shard()
    reader = await log.reader()
    assert await store.head(A) is None
    await store.append([group(A, 0, deposited(), deposited()), group(B, 0, deposited())])
    head = await store.head(A)
    assert head is not None
    assert (head.version, head.position, head.status) == (2, 2, "live")
    assert await reader.head(A) == head
    assert await reader.head(REMOTE) is None


# Timers and waits


async def test_timers_and_waits_live_from_their_group_to_the_group_that_ends_them(log: LogUnderTest) -> None:
    store = await log.shard()
    await append_one(store, A, 0, timers=[timer(A, "t1", 5), timer(A, "t2", 3)], waits=[wait(A, "w1")])
    assert list(await store.timers()) == [timer(A, "t2", 3), timer(A, "t1", 5)]
    assert list(await store.waits()) == [wait(A, "w1")]
    await append_one(store, A, 0, timers=[timer(A, "t1", 9)], timers_gone=["t2", "unknown"], waits_gone=["w1"])
    again = await log.shard()
    assert list(await again.timers()) == [timer(A, "t1", 9)]
    assert list(await again.waits()) == []


async def test_the_last_word_on_a_timer_within_a_batch_wins(log: LogUnderTest) -> None:
    store = await log.shard()
    await store.append(
        [
            group(A, 0, timers=[timer(A, "set then gone"), timer(A, "kept")]),
            group(A, 0, timers_gone=["set then gone"], waits=[wait(A, "w")]),
            group(A, 0, timers=[timer(A, "kept", 7)], waits_gone=["w"]),
            group(A, 0, waits=[wait(A, "w")]),
        ]
    )
    assert list(await store.timers()) == [timer(A, "kept", 7)]
    assert list(await store.waits()) == [wait(A, "w")]


# Readers (S31)


async def test_a_shard_is_read_in_pages_from_both_ends(log: LogUnderTest) -> None:
    store = await log.shard()
    await store.append([group(stream, version, deposited(version)) for version in range(5) for stream in (A, B)])
    reader = await log.reader()
    assert [event.position for event in await reader.read(0, after=3, limit=4)] == [4, 5, 6, 7]
    assert [event.position for event in await reader.read(0, after=10)] == []
    assert [event.position for event in await reader.read(0, after=9, limit=5)] == [10]
    assert [event.position for event in await reader.read_last(0, limit=3)] == [10, 9, 8]
    assert [event.position for event in await reader.read_last(0, before=3, limit=9)] == [2, 1]
    assert [event.position for event in await reader.read_last(0, before=1)] == []
    assert list(await reader.read(1)) == []


async def test_a_long_stream_is_read_forward_in_pages(log: LogUnderTest) -> None:
    """1,000 versions between those of another stream: pages inside, across and at the ends of STREAM_PAGE_VERSIONS."""
    store = await log.shard()
    for start in range(0, 1_000, 100):
        await store.append([group(stream, version, deposited(version)) for version in range(start, start + 100) for stream in (A, B)])
    reader = await log.reader()
    for after in (0, 1, 100, 254, 255, 256, 257, 511, 700, 900, 998, 999, 1_000, 2_000):
        for limit in (1, 2, 255, 256, 300, 1_000):
            versions = [event.version for event in await reader.read_stream(A, after=after, limit=limit)]
            assert versions == list(range(after + 1, min(1_000, after + limit) + 1)), (after, limit)
    page = await reader.read_stream(A, after=499, limit=1)
    assert bytes(page[0].payload) == b'{"cents":499}'
    assert len(await reader.read_stream(A, limit=5_000)) == 1_000
    _, events = await store.load(A, "s")
    assert len(events) == 1_000


async def test_an_event_is_found_by_its_id_and_by_its_position(log: LogUnderTest) -> None:
    store = await log.shard()
    other = await log.shard(1)
    outcomes = [committed(outcome) for outcome in await store.append([group(A, n, deposited(n)) for n in range(20)])]
    far = committed(await append_one(other, REMOTE, 0, deposited(99)))
    reader = await log.reader()
    for outcome in (*outcomes, far):
        event = outcome.events[0]
        found = await reader.event(event.event_id)
        assert found is not None
        assert (found.shard, found.position) == (event.shard, event.position)
        assert _plain(await reader.at(event.shard, event.position)) == _plain(event)
    known = outcomes[3].events[0].event_id
    for unknown in (known[:-1] + ("0" if known[-1] != "0" else "1"), "0" * 24, "f" * 24, "", "no id"):
        assert await reader.event(EventId(unknown)) is None
    assert await reader.at(0, Position(21)) is None
    assert await reader.at(0, Position(0)) is None


async def test_streams_of_all_shards_are_listed_by_name(log: LogUnderTest) -> None:
    store, other = await log.shard(0), await log.shard(1)
    await store.append([group(B, 0, deposited()), group(A, 0, deposited(), deposited())])
    await append_one(other, REMOTE, 0, deposited())
    await store.accept([arrival(stream_in(0, SHARDS, "told"), "c1")])
    reader = await log.reader()
    listed = await reader.streams()
    assert [(info.stream, info.shard, info.version, info.position) for info in listed] == [(A, 0, 2, 3), (B, 0, 1, 1), (REMOTE, 1, 1, 1)]
    assert [info.stream for info in await reader.streams(limit=1)] == [A]
    assert [info.stream for info in await reader.streams(after=A, limit=1)] == [B]
    assert [info.stream for info in await reader.streams(after=REMOTE)] == []


async def test_everything_that_was_ever_written_is_listed_for_the_next_owner(log: LogUnderTest) -> None:
    """S7."""
    store = await log.shard()
    await append_one(store, A, 0, deposited(), NewEvent(type="account.closed", schema_version=2, payload=b"{}"))
    again = await log.shard(take=False)
    formats = [(found.kind, found.name, found.version) for found in await again.formats()]
    assert formats == [("actor", "actor", 1), ("event", "account.closed", 2), ("event", "account.deposited", 1), ("format", "shard", 1)]
    assert await (await log.reader()).formats(0) == await again.formats()


async def test_info_shows_position_and_time_of_the_newest_event(log: LogUnderTest) -> None:
    store = await log.shard()
    outcome = committed(await append_one(store, A, 0, deposited(), deposited()))
    info = await (await log.reader()).info(0)
    assert (info.position, info.time, info.shard, info.shards) == (2, outcome.time, 0, SHARDS)
    assert (await (await log.reader()).info(1)).position == 0


async def test_a_closed_store_says_so(log: LogUnderTest) -> None:
    store = await log.shard()
    await store.close()
    await store.close()
    with pytest.raises(InvariantError):
        await append_one(store, A, 0, deposited())
