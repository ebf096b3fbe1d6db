"""`ShardStore.tail`: what recovery folds, the same events as `load` gives, verified in the same way (I-20)."""

from collections.abc import Sequence

import pytest

from events.envelope import Kind, NewEvent, RecordedEvent
from events.errors import CorruptLogError
from events.facts import PlainEvent
from events.ids import Version
from events.log_directory import shard_path
from events.store import ShardStore, Snapshot
from tests.contract.test_fork_contract import CHILD, forked, parent_base
from tests.support.logs import (
    DAMAGED_ROWS,
    LogUnderTest,
    SqliteLogUnderTest,
    append_one,
    as_bytes,
    deposited,
    group,
    stream_in,
    without_guards,
)

SHARDS = 2
A, B = stream_in(0, SHARDS, "a"), stream_in(0, SHARDS, "b")
PLAIN = {"account.deposited:1"}


def plain(event: RecordedEvent | PlainEvent) -> PlainEvent:
    if isinstance(event, tuple):
        return event
    return int(event.version), f"{event.type}:{event.schema_version}", bytes(event.payload)


async def tail(store: ShardStore, shape: str = "s") -> Sequence[PlainEvent]:
    """What `tail` gives, after a comparison with `load`."""
    snapshot, events = await store.tail(A, shape, PLAIN)
    whole = await store.load(A, shape)
    assert (snapshot, [plain(event) for event in events]) == (whole[0], [plain(event) for event in whole[1]])
    return [plain(event) for event in events]


async def test_only_ordinary_state_events_come_plain_and_all_in_order(log: LogUnderTest) -> None:
    store = await log.shard()
    started = NewEvent(type="turn.started", kind=Kind.CONTROL, payload=b"{}")
    await append_one(store, A, 0, deposited(1), started, deposited(2, schema_version=2), deposited(3, key_id="k"), deposited(4))
    await append_one(store, B, 0, deposited(9))
    _, events = await store.tail(A, "s", PLAIN)
    assert [event.version for event in events if isinstance(event, RecordedEvent) and event.kind is Kind.CONTROL] == [2]
    assert [number for number, _, _ in await tail(store)] == [1, 2, 3, 4, 5]
    if isinstance(log, SqliteLogUnderTest):
        assert [event[0] for event in events if isinstance(event, tuple)] == [1, 5]
        assert events[4] == (5, "account.deposited:1", b'{"cents":4}')


async def test_i8_it_begins_behind_the_snapshot_of_that_shape(log: LogUnderTest) -> None:
    store = await log.shard()
    assert await store.tail(A, "s", PLAIN) == (None, [])
    snapshot = Snapshot(stream=A, version=Version(3), state=b'{"cents":6}', shape="s")
    await append_one(store, A, 0, *(deposited(n) for n in range(5)), snapshot=snapshot)
    assert [number for number, _, _ in await tail(store)] == [4, 5]
    assert [number for number, _, _ in await tail(store, "other")] == [1, 2, 3, 4, 5]


async def test_a_long_tail_of_events_that_come_in_full_is_complete(log: LogUnderTest) -> None:
    store = await log.shard()
    events = [deposited(n) if n % 3 else deposited(n, schema_version=2) for n in range(900)]
    await append_one(store, A, 0, *events)
    assert [body for _, _, body in await tail(store)] == [b'{"cents":%d}' % n for n in range(900)]


async def test_s33_a_fork_continues_the_hash_of_its_parent(log: LogUnderTest) -> None:
    await forked(log, await parent_base(log))
    store = await log.shard(1)
    await store.append([group(CHILD, 4, deposited(8))])
    _, events = await store.tail(CHILD, "s", PLAIN)
    assert [plain(event)[0] for event in events] == [4, 5]


@pytest.mark.parametrize("text", ["\x00\x01\x1f\x7f", 'quotes " and \\', "tab\tline\n\r\b\f", "/slash", "é中\U0001f600", ""])
async def test_any_text_that_the_hash_covers_verifies(log: LogUnderTest, text: str) -> None:
    store = await log.shard()
    await append_one(store, A, 0, deposited(1), deposited(2), correlation_id=text, causation_id=text, sender=text)
    await append_one(store, A, 2, deposited(3))
    assert [body for _, _, body in await tail(store)] == [b'{"cents":%d}' % n for n in (1, 2, 3)]


@pytest.mark.parametrize(
    "damage",
    [
        *DAMAGED_ROWS,
        "UPDATE events SET prev_position = 1 WHERE position = 3",
        "UPDATE events SET key_id = 'k' WHERE position = 2",
        "UPDATE events SET payload_digest = x'00' WHERE position = 2",
        "DELETE FROM events WHERE position = 2",
    ],
)
async def test_i20_a_damaged_row_is_named_and_never_folded(sqlite_log: SqliteLogUnderTest, damage: str) -> None:
    store = await sqlite_log.shard()
    for version in range(3):
        await append_one(store, A, version, deposited(version))
    await append_one(store, B, 0, deposited())
    await sqlite_log.close()
    without_guards(shard_path(sqlite_log.directory, 0), damage)
    store = await sqlite_log.shard()
    with pytest.raises(CorruptLogError) as found:
        await store.tail(A, "s", PLAIN)
    assert found.value.fields["stream"] == A
    # Behind a row that is gone nothing is found any more, so that the first version is the first one missed.
    assert found.value.fields["version"] == (1 if damage.startswith("DELETE") else 2)
    assert len((await store.tail(B, "s", PLAIN))[1]) == 1


async def test_i20_a_text_that_became_bytes_is_named(sqlite_log: SqliteLogUnderTest) -> None:
    """One bit of a row's header makes that of it. SQLite's JSON refuses it, but does not say where it stands."""
    store = await sqlite_log.shard()
    for version in range(3):
        await append_one(store, A, version, deposited(version))
    await sqlite_log.close()
    as_bytes(shard_path(sqlite_log.directory, 0), "event_id", 2)
    store = await sqlite_log.shard()
    with pytest.raises(CorruptLogError) as found:
        await store.tail(A, "s", PLAIN)
    assert (found.value.fields["stream"], found.value.fields["version"]) == (A, 2)
