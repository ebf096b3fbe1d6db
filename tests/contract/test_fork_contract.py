"""S33, as far as a store goes: a stream that begins after a version of another one, and continues from its hash."""

from events.envelope import GENESIS_HASH
from events.ids import Version
from events.keeping.verify import verify
from events.store import Base, Committed, Conflict
from tests.support.logs import LogUnderTest, SqliteLogUnderTest, append_one, deposited, group, stream_in

SHARDS = 2
PARENT, CHILD = stream_in(0, SHARDS, "parent"), stream_in(1, SHARDS, "child")


async def forked(log: LogUnderTest, base: Base) -> Committed:
    store = await log.shard(1)
    (outcome,) = await store.append([group(CHILD, base.version, deposited(7), base=base, parent=f"{PARENT}@{base.version}", branch="b")])
    assert isinstance(outcome, Committed)
    return outcome


async def parent_base(log: LogUnderTest, version: int = 3) -> Base:
    store = await log.shard(0)
    await append_one(store, PARENT, 0, *(deposited(n) for n in range(5)))
    page = await (await log.reader()).read_stream(PARENT, after=version - 1, limit=1)
    return Base(version=Version(version), hash=bytes.fromhex(page[0].hash))


async def test_s33_a_fork_counts_on_from_its_base_and_names_its_parent(log: LogUnderTest) -> None:
    base = await parent_base(log)
    outcome = await forked(log, base)
    (event,) = outcome.events
    assert (event.version, event.parent, event.branch) == (4, f"{PARENT}@3", "b")
    reader = await log.reader()
    head = await reader.head(CHILD)
    assert head is not None
    assert head.version == 4
    assert [event.version for event in await reader.read_stream(CHILD)] == [4]
    assert [event.version for event in await reader.read_stream(CHILD, after=4)] == []


async def test_s33_its_chain_continues_from_the_hash_of_its_parent(log: LogUnderTest) -> None:
    base = await parent_base(log)
    first = await forked(log, base)
    other = await log.shard(1)
    (again,) = await other.append([group(stream_in(1, SHARDS, "other"), 0, deposited(7))])
    assert isinstance(again, Committed)
    assert first.events[0].hash != again.events[0].hash
    if isinstance(log, SqliteLogUnderTest):
        await log.close()
        assert verify(log.directory) == []


async def test_s33_a_new_owner_goes_on_where_the_fork_stands(log: LogUnderTest) -> None:
    base = await parent_base(log)
    await forked(log, base)
    store = await log.shard(1)
    (outcome,) = await store.append([group(CHILD, 4, deposited(8))])
    assert isinstance(outcome, Committed)
    snapshot, events = await store.load(CHILD, "s")
    assert snapshot is None
    assert [event.version for event in events] == [4, 5]


async def test_s33_a_stream_that_exists_cannot_become_a_fork(log: LogUnderTest) -> None:
    base = await parent_base(log)
    await forked(log, base)
    store = await log.shard(1)
    (outcome,) = await store.append([group(CHILD, 4, deposited(9), base=Base(version=Version(4), hash=GENESIS_HASH))])
    assert isinstance(outcome, Conflict)
    (outcome,) = await store.append([group(CHILD, 3, deposited(9), base=base)])
    assert isinstance(outcome, Conflict)
    assert [event.version for event in await (await log.reader()).read_stream(CHILD)] == [4]


async def test_s33_the_expected_version_of_a_fork_is_its_base(log: LogUnderTest) -> None:
    base = await parent_base(log)
    store = await log.shard(1)
    (outcome,) = await store.append([group(CHILD, 0, deposited(9), base=base)])
    assert isinstance(outcome, Conflict)
    assert await (await log.reader()).head(CHILD) is None
