"""What every adapter of the log port promises of commands, sends and arrivals (S11, S24, S25): one suite for memory and SQLite."""

import msgspec
import pytest

from events.ids import CommandId, StreamId
from events.limits import INBOX_KEPT_S, OUTBOX_PER_PAIR_MAX
from events.store import (
    Accepted,
    Arrival,
    Committed,
    Duplicate,
    InboxStatus,
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
)

SHARDS = 2
A = stream_in(0, SHARDS, "a")
B = stream_in(0, SHARDS, "b")
REMOTE = stream_in(1, SHARDS, "r")


# Inbox (S24)


async def test_a_known_command_is_a_duplicate_and_shows_what_it_came_to(log: LogUnderTest) -> None:
    """S24, I-7."""
    store = await log.shard()
    entry = command(A, "c1", reply=b"500", explicit=True)
    assert isinstance(await append_one(store, A, 0, deposited(), inbox=entry), Committed)
    again = await append_one(store, A, 1, deposited(), inbox=entry)
    assert isinstance(again, Duplicate)
    assert (again.entry.reply, again.entry.status) == (b"500", InboxStatus.DONE)
    other = await append_one(store, A, 1, deposited(), inbox=command(A, "c1", args=b'{"cents":7}'))
    assert isinstance(other, Duplicate)
    assert other.entry.args_hash == entry.args_hash
    assert [event.version for event in await (await log.reader()).read_stream(A)] == [1]


async def test_a_duplicate_is_told_before_a_conflict(log: LogUnderTest) -> None:
    """A repeat comes with an old expected version, and must get its reply."""
    store = await log.shard()
    await append_one(store, A, 0, deposited(), inbox=command(A, "c1", reply=b"1"))
    assert isinstance(await append_one(store, A, 0, deposited(), inbox=command(A, "c1")), Duplicate)


async def test_a_repeat_within_one_batch_is_a_duplicate(log: LogUnderTest) -> None:
    store = await log.shard()
    outcomes = await store.append(
        [group(A, 0, deposited(), inbox=command(A, "c1", reply=b"1")), group(A, 1, deposited(), inbox=command(A, "c1", reply=b"2"))]
    )
    assert isinstance(outcomes[0], Committed)
    assert isinstance(outcomes[1], Duplicate)
    assert outcomes[1].entry.reply == b"1"


async def test_an_id_that_was_made_up_here_cannot_be_used_twice_either(log: LogUnderTest) -> None:
    """Made-up ids are not looked up on the fast path; the store still holds one row per (command, stream)."""
    store = await log.shard()
    entry = command(A, "c1", reply=b"1", explicit=False)
    await append_one(store, A, 0, deposited(), inbox=entry)
    outcomes = await store.append([group(A, 1, deposited(), inbox=entry), group(B, 0, deposited())])
    assert [type(outcome) for outcome in outcomes] == [Duplicate, Committed]


async def test_the_same_id_at_two_actors_is_two_commands(log: LogUnderTest) -> None:
    store = await log.shard()
    outcomes = await store.append([group(stream, 0, deposited(), inbox=command(stream, "c1")) for stream in (A, B)])
    assert [type(outcome) for outcome in outcomes] == [Committed, Committed]


@pytest.mark.parametrize("explicit", [True, False])
async def test_a_command_goes_from_queued_to_running_to_done(log: LogUnderTest, explicit: bool) -> None:
    store = await log.shard()
    args = b'{"cents":5}'
    queued = command(A, "c1", InboxStatus.QUEUED, args=args, sender=B, source="js:tells:7", explicit=explicit, received_at_us=START_US)
    await store.accept([Arrival(entry=queued)])
    stored = await store.inbox(A, CommandId("c1"))
    assert stored is not None
    assert (stored.status, stored.args, stored.source, stored.explicit) == (InboxStatus.QUEUED, args, "js:tells:7", explicit)

    running = command(A, "c1", InboxStatus.RUNNING, args=args, explicit=explicit)
    assert isinstance(await append_one(store, A, 0, deposited(), inbox=msgspec.structs.replace(running, args=None)), Committed)
    stored = await store.inbox(A, CommandId("c1"))
    assert stored is not None
    assert (stored.status, stored.args, stored.completed_at_us) == (InboxStatus.RUNNING, args, None)

    log.clock.advance(1)
    assert isinstance(
        await append_one(store, A, 1, deposited(), inbox=command(A, "c1", args=args, reply=b"5", explicit=explicit)), Committed
    )
    stored = await (await log.reader()).inbox(A, CommandId("c1"))
    assert stored is not None
    assert (stored.status, stored.args, stored.reply) == (InboxStatus.DONE, None, b"5")
    assert (stored.sender, stored.source, stored.received_at_us) == (B, "js:tells:7", START_US)
    assert stored.completed_at_us == START_US + 1_000_000
    assert await store.unfinished() == []
    assert isinstance(await append_one(store, A, 2, deposited(), inbox=command(A, "c1", args=args, explicit=explicit)), Duplicate)


async def test_a_second_command_under_the_id_of_a_queued_one_is_told_apart(log: LogUnderTest) -> None:
    """409 id_reused is the caller's word; the store shows the entry."""
    store = await log.shard()
    await store.accept([arrival(A, "c1")])
    assert isinstance(await append_one(store, A, 0, deposited(), inbox=command(A, "c1", args=b"[1]")), Duplicate)
    assert isinstance(await append_one(store, A, 0, deposited(), inbox=command(A, "c1", method="other")), Duplicate)


async def test_a_refusal_without_events_can_be_remembered(log: LogUnderTest) -> None:
    store = await log.shard()
    refused = command(A, "c1", InboxStatus.REFUSED, reply=b'{"code":409}', code=409)
    outcome = committed(await append_one(store, A, 0, inbox=refused))
    assert (outcome.version, outcome.events) == (0, [])
    again = await append_one(store, A, 0, deposited(), inbox=command(A, "c1"))
    assert isinstance(again, Duplicate)
    assert (again.entry.status, again.entry.code) == (InboxStatus.REFUSED, 409)
    assert await store.head(A) is None
    assert await (await log.reader()).streams() == []


async def test_commands_are_forgotten_a_week_after_completion_and_open_ones_never(log: LogUnderTest) -> None:
    """S24."""
    store = await log.shard()
    await store.accept([arrival(B, "open")])
    await append_one(store, A, 0, deposited(), inbox=command(A, "old"))
    log.clock.advance(INBOX_KEPT_S - 100)
    await append_one(store, A, 1, deposited(), inbox=command(A, "young"))
    assert await store.inbox(A, CommandId("old")) is not None
    log.clock.advance(200)
    await append_one(store, A, 2, deposited())
    await append_one(store, A, 3, deposited())
    assert await store.inbox(A, CommandId("old")) is None
    assert await store.inbox(A, CommandId("young")) is not None
    assert [entry.command_id for entry in await store.unfinished()] == ["open"]


async def test_unfinished_commands_come_in_the_order_in_which_they_arrived(log: LogUnderTest) -> None:
    store = await log.shard()
    await store.accept([arrival(stream, f"c{n}") for n, stream in enumerate((B, A, B, A))])
    await append_one(store, A, 0, inbox=command(A, "c3", InboxStatus.RUNNING))
    await append_one(store, B, 0, inbox=command(B, "c2"))
    await append_one(store, B, 0, outbox=[send(A, "c4")])
    assert [(entry.command_id, entry.status) for entry in await store.unfinished()] == [
        ("c0", InboxStatus.QUEUED), ("c1", InboxStatus.QUEUED), ("c3", InboxStatus.RUNNING), ("c4", InboxStatus.QUEUED),
    ]  # fmt: skip


# Outbox (S25)


async def test_a_send_within_the_shard_is_in_the_receivers_inbox_with_the_same_commit(log: LogUnderTest) -> None:
    store = await log.shard()
    outcome = committed(await append_one(store, A, 0, deposited(), outbox=[send(B, "s1", b'{"cents":1}'), send(B, "s2")]))
    assert [entry.source for entry in outcome.delivered] == [f"{A}#1", f"{A}#2"]
    assert list(outcome.pending) == []
    entry = await store.inbox(B, CommandId("s1"))
    assert entry == outcome.delivered[0]
    assert entry is not None
    assert (entry.status, entry.args, entry.sender, entry.explicit) == (InboxStatus.QUEUED, b'{"cents":1}', A, True)
    assert entry.args_hash == command(B, "s1", args=b'{"cents": 1}').args_hash
    assert await store.unsent() == []


async def test_a_send_to_another_shard_waits_in_the_outbox_until_acknowledged(log: LogUnderTest) -> None:
    store = await log.shard()
    outcomes = await store.append(
        [group(A, 0, deposited(), outbox=[send(REMOTE, "s1"), send(REMOTE, "s2")]), group(B, 0, outbox=[send(REMOTE, "s3")])]
    )
    assert [(waiting.sender, waiting.n) for waiting in await store.unsent()] == [(A, 1), (A, 2), (B, 1)]
    assert [waiting.n for waiting in committed(outcomes[0]).pending] == [1, 2]
    assert list(await store.unsent())[:2] == list(committed(outcomes[0]).pending)
    first = committed(outcomes[0]).pending[0]
    assert first.time >= committed(outcomes[0]).events[-1].time
    await store.acknowledge([(A, REMOTE, first.incarnation, 1), (A, REMOTE, first.incarnation, 1), (A, REMOTE, "other", 2)])
    assert [(waiting.sender, waiting.n) for waiting in await store.unsent()] == [(A, 2), (B, 1)]
    assert committed(await append_one(store, A, 1, outbox=[send(REMOTE, "s4")])).pending[0].n == 3


async def test_numbers_of_a_pair_go_on_after_reopening_although_all_was_acknowledged(log: LogUnderTest) -> None:
    store = await log.shard()
    waiting = committed(await append_one(store, A, 0, deposited(), outbox=[send(REMOTE, "s1"), send(B, "s2")])).pending[0]
    await store.acknowledge([(A, REMOTE, waiting.incarnation, 1)])
    again = await log.shard()
    outcome = committed(await append_one(again, A, 1, outbox=[send(REMOTE, "s3"), send(B, "s4")]))
    assert (outcome.pending[0].n, outcome.delivered[0].source) == (2, f"{A}#2")


async def test_the_room_in_the_outbox_shrinks_and_grows_with_it(log: LogUnderTest) -> None:
    store = await log.shard()
    assert store.outbox_room(A, REMOTE) == OUTBOX_PER_PAIR_MAX
    waiting = committed(await append_one(store, A, 0, outbox=[send(REMOTE, "s1"), send(REMOTE, "s2")])).pending
    assert store.outbox_room(A, REMOTE) == OUTBOX_PER_PAIR_MAX - 2
    assert store.outbox_room(B, REMOTE) == OUTBOX_PER_PAIR_MAX
    again = await log.shard()
    assert again.outbox_room(A, REMOTE) == OUTBOX_PER_PAIR_MAX - 2
    await again.acknowledge([(A, REMOTE, waiting[0].incarnation, 1)])
    assert again.outbox_room(A, REMOTE) == OUTBOX_PER_PAIR_MAX - 1


# Arrivals (S11, S25)


async def test_an_arrival_is_taken_once(log: LogUnderTest) -> None:
    store = await log.shard()
    results = await store.accept([arrival(A, "c1"), arrival(A, "c1"), arrival(B, "c1")])
    assert [result.result for result in results] == ["taken", "known", "taken"]
    assert [result.result for result in await store.accept([arrival(A, "c1")])] == ["known"]
    assert len(await store.unfinished()) == 2


async def test_outbox_rows_are_taken_only_in_the_order_of_their_numbers(log: LogUnderTest) -> None:
    """S25: lower = known, higher = ask for the gap; counted per pair and incarnation."""
    store = await log.shard()

    async def offer(n: int, incarnation: str = "i1", sender: StreamId = REMOTE) -> Accepted:
        return (await store.accept([arrival(A, f"{incarnation}-{sender}-{n}", sender=sender, n=n, incarnation=incarnation)]))[0]

    assert [(await offer(n)).result for n in (2, 1, 1, 3, 2, 3)] == ["gap", "taken", "known", "gap", "taken", "taken"]
    gap = await offer(9)
    assert (gap.result, gap.expected) == ("gap", 4)
    assert (await offer(1, "i2")).result == "taken"
    assert (await offer(1, "i1", stream_in(1, SHARDS, "other"))).result == "taken"
    again = await log.shard()
    store = again
    assert (await offer(3)).result == "known"
    assert (await offer(4)).result == "taken"


async def test_an_outbox_row_whose_command_is_known_still_advances_its_pair(log: LogUnderTest) -> None:
    """Otherwise the sender would offer it for ever."""
    store = await log.shard()
    await store.accept([arrival(A, "c1")])
    offered = arrival(A, "c1", sender=REMOTE, n=1, incarnation="i")
    assert (await store.accept([offered]))[0].result == "known"
    following = arrival(A, "c2", sender=REMOTE, n=2, incarnation="i")
    assert (await store.accept([following]))[0].result == "taken"


async def test_an_arrival_that_cannot_be_stored_is_refused_alone(log: LogUnderTest) -> None:
    store = await log.shard()
    bad = msgspec.structs.replace(arrival(A, "c1"), entry=msgspec.structs.replace(command(A, "c1"), traceparent="\ud800"))
    results = await store.accept([arrival(A, "c0"), bad, arrival(B, "c2")])
    assert [result.result for result in results] == ["taken", "refused", "taken"]


async def test_arrivals_groups_and_acknowledgements_share_one_transaction(log: LogUnderTest) -> None:
    store = await log.shard()
    waiting = committed(await append_one(store, A, 0, deposited(), outbox=[send(REMOTE, "s1")])).pending[0]
    outcomes, accepted = await store.commit(
        [group(B, 0, deposited(), inbox=command(B, "c1", reply=b"1"))], [arrival(B, "c1")], [(A, REMOTE, waiting.incarnation, waiting.n)]
    )
    assert accepted[0].result == "taken"
    assert isinstance(outcomes[0], Committed)
    entry = await store.inbox(B, CommandId("c1"))
    assert entry is not None
    assert entry.status is InboxStatus.DONE
    assert await store.unsent() == []


async def test_s18_what_a_command_without_an_inbox_row_did_is_found_among_its_events(log: LogUnderTest) -> None:
    """Within the bounds given: after a version, since a logical time; of that stream and that id only."""
    store = await log.shard()
    for version in range(3):
        log.clock.advance(1.0)
        await append_one(store, A, version, deposited(), command_id=f"c{version + 1}")
    await append_one(store, B, 0, deposited(), command_id="elsewhere")
    first, last = CommandId("c1"), CommandId("c3")
    assert await store.did(A, first)
    assert await store.did(A, last, after=2, since=START_US + 3_000_000)
    assert not await store.did(A, last, after=3)
    assert not await store.did(A, first, after=1)
    assert not await store.did(A, first, since=START_US + 2_000_000)
    assert not await store.did(A, CommandId("elsewhere"))
    assert not await store.did(B, first)
    assert not await store.did(stream_in(0, SHARDS, "nobody"), first)
