"""Archived and erased streams, on every adapter (S24, S29, S33; facts/durability.md I-2, I-22)."""

import msgspec
import pytest

from events.envelope import NewEvent
from events.errors import StreamBusyError, StreamClosedError, UnknownStreamError
from events.ids import CommandId, StreamId
from events.store import Committed, Conflict, Duplicate, InboxStatus, OutboxEntry, Snapshot
from tests.support.logs import LogUnderTest, append_one, arrival, command, deposited, stream_in, timer, wait

SHARDS = 2
A = stream_in(0, SHARDS, "a")
B = stream_in(0, SHARDS, "b")
REMOTE = stream_in(1, SHARDS, "r")


async def test_s24_an_archived_stream_answers_what_it_remembers_and_keeps_its_version(log: LogUnderTest) -> None:
    store = await log.shard()
    await append_one(store, A, 0, deposited(), inbox=command(A, "c1", reply=b"3"), command_id="c1", timers=[timer(A, "t")])
    closed = await store.archive(A)
    assert (closed.status, closed.version, closed.already) == ("archived", 3, False)
    again = await store.archive(A)
    assert again == msgspec.structs.replace(closed, already=True, events=())
    head = await store.head(A)
    assert head is not None
    assert (head.status, head.version, head.hash.hex()) == ("archived", 3, closed.hash)
    assert isinstance(await append_one(store, A, 0, deposited(), inbox=command(A, "c1"), command_id="c1"), Duplicate)
    refused = await append_one(store, A, 3, deposited(), inbox=command(A, "c2"), command_id="c2")
    assert refused == Conflict(actual=3, reason=f"{A} is archived")  # type: ignore[arg-type]
    assert await store.timers() == []
    assert [info.status for info in await (await log.reader()).streams()] == ["archived"]


@pytest.mark.parametrize(
    "under_way",
    [
        {"waits": [wait(A, "w")]},
        {"inbox": command(A, "c9", InboxStatus.RUNNING, args=b"{}")},
        {"outbox": [OutboxEntry(receiver=REMOTE, method="m", args=b"{}", command_id=CommandId("s"))]},
    ],
)
async def test_what_is_under_way_is_not_archived_but_erased(log: LogUnderTest, under_way: dict[str, object]) -> None:
    store = await log.shard()
    await append_one(store, A, 0, deposited(), **under_way)
    with pytest.raises(StreamBusyError):
        await store.archive(A)
    assert (await store.erase(A, "test")).status == "erased"
    assert (await store.unfinished(), await store.unsent(), await store.waits(), await store.timers()) == ([], [], [], [])
    assert store.outbox_room(A, REMOTE) == 10_000


async def test_s24_what_arrives_for_a_closed_stream_is_refused_and_the_refusal_recorded(log: LogUnderTest) -> None:
    """Tells, sends of the same shard, sends of another, timers: none stays queued, and no arguments are kept."""
    store = await log.shard()
    await append_one(store, A, 0, deposited())
    await append_one(store, B, 0, deposited(), timers=[timer(A, "late")])
    await store.erase(A, "test")
    tell = arrival(A, "t1")
    sent = arrival(A, "s1", sender=REMOTE, n=1, incarnation="0" * 32)
    results = await store.accept([tell, sent])
    assert [result.result for result in results] == ["closed", "closed"]
    assert [result.result for result in await store.accept([tell, sent])] == ["known", "known"]
    send = OutboxEntry(receiver=A, method="m", args=b'{"secret": 1}', command_id=CommandId("s2"))
    done = await append_one(store, B, 1, deposited(), outbox=[send])
    assert isinstance(done, Committed)
    assert done.delivered == []
    for command_id in ("t1", "s1", "s2"):
        entry = await store.inbox(A, CommandId(command_id))
        assert entry is not None
        assert (entry.status, entry.code, entry.args) == (InboxStatus.REFUSED, 410, None)
        assert b"is erased" in (entry.reply or b"")
    assert await store.unfinished() == []
    # One that the actor itself refuses is finished too, and nothing else is taken.
    ended = command(A, "c3", InboxStatus.REFUSED, code=410, reply=b"{}")
    head = await store.head(A)
    assert head is not None
    assert isinstance(await append_one(store, A, head.version, inbox=ended, command_id="c3"), Committed)


async def test_s29_erasing_leaves_the_chain_and_nothing_of_what_was_said(log: LogUnderTest) -> None:
    store = await log.shard()
    said = NewEvent(type="account.deposited", payload=b'{"canary":1}', summary="canary", error="canary", state_hash="canary")
    snapshot = Snapshot(stream=A, version=1, state=b"canary", shape="s")  # type: ignore[arg-type]
    await append_one(store, A, 0, said, inbox=command(A, "c1", reply=b'"canary"'), command_id="c1", snapshot=snapshot)
    other = await append_one(store, B, 0, deposited())
    reader = await log.reader()
    before = await reader.read_stream(A)
    closed = await store.erase(A, "somebody")
    assert (closed.version, closed.status, closed.key_ids, closed.already) == (2, "erased", (), False)
    events = await reader.read_stream(A)
    assert [event.hash for event in events[:1]] == [event.hash for event in before]
    assert (bytes(events[0].payload), events[0].salt, events[0].summary, events[0].error, events[0].state_hash) == (b"null", *[None] * 4)
    assert msgspec.json.decode(events[1].payload) == {"version": 1, "key_ids": [], "by": "somebody"}
    assert events[1].type == "stream.erased"
    assert (await store.inbox(A, CommandId("c1")), await reader.snapshot(A)) == (None, None)
    assert isinstance(other, Committed)
    assert await reader.read_stream(B) == other.events
    # Until it is finished it is listed, also for the next owner.
    assert [(one.stream, one.requested_by, one.is_plain) for one in await store.erasures()] == [(A, "somebody", True)]
    assert (await store.erase(A, "again")).already
    while not await store.scrub():
        pass
    await store.erased(A)
    assert await store.erasures() == []
    with pytest.raises(StreamClosedError):
        await store.archive(A)


async def test_an_archived_stream_may_be_erased(log: LogUnderTest) -> None:
    store = await log.shard()
    await append_one(store, A, 0, deposited())
    await store.archive(A)
    assert (await store.erase(A, "test")).version == 3
    assert [event.type for event in await (await log.reader()).read_stream(A)] == ["account.deposited", "stream.archived", "stream.erased"]


async def test_a_stream_that_was_only_ever_told_something_can_be_erased(log: LogUnderTest) -> None:
    store = await log.shard()
    await store.accept([arrival(A, "t1")])
    assert (await store.erase(A, "test")).version == 1
    assert await store.unfinished() == []


async def test_an_unknown_stream_is_neither_archived_nor_erased(log: LogUnderTest) -> None:
    store = await log.shard()
    for act in (store.archive(A), store.erase(A, "test")):
        with pytest.raises(UnknownStreamError):
            await act


async def test_s29_the_keys_of_a_stream_are_written_down_with_their_first_use(log: LogUnderTest) -> None:
    store = await log.shard()
    keys = [(A, "k2"), (A, "k1"), (B, "k3")]
    await store.commit([], [arrival(A, "t1")], (), keys=keys)
    await store.commit([], [arrival(A, "t2")], (), keys=keys)
    assert (list(await store.keys_of(A)), list(await store.keys_of(B)), list(await store.keys_of(StreamId("account/none")))) == (
        ["k1", "k2"],
        ["k3"],
        [],
    )
    sealed = NewEvent(type="account.deposited", payload=b'"Y2lwaGVy"', key_id="k1")
    await append_one(store, A, 0, sealed)
    closed = await store.erase(A, "test")
    assert closed.key_ids == ("k1", "k2")
    # Sealed events stay as they are: destroying the keys is what erases them, in every copy.
    assert bytes((await (await log.reader()).read_stream(A))[0].payload) == b'"Y2lwaGVy"'
    assert [(one.key_ids, one.is_plain) for one in await store.erasures()] == [(("k1", "k2"), False)]
