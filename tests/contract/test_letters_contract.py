"""What every adapter of the log port promises of failed commands and stopped actors (design.md 6): one suite for memory and SQLite."""

from typing import Any

import msgspec

from events.ids import CommandId, StreamId
from events.letters import Letter, LetterState, StoppedActor, Supervision
from events.store import Committed, Conflict, InboxStatus
from tests.support.logs import START_US, LogUnderTest, append_one, arrival, command, deposited, stream_in

A = stream_in(0, 2, "a")
B = stream_in(0, 2, "b")


def letter(stream: StreamId = A, command_id: str = "c1", state: LetterState = LetterState.RETRYING, **fields: Any) -> Letter:
    """One that failed once."""
    known = {"attempts": 1, "reason": "OSError: no network", "failed_at_us": START_US, "next_try_us": START_US + 1, **fields}
    if state is LetterState.DEAD:
        known["next_try_us"] = None
    return Letter(stream=stream, command_id=CommandId(command_id), state=state, method="deposit", args_hash="h", **known)


async def test_a_letter_commits_with_its_failure_and_names_what_that_recorded(log: LogUnderTest) -> None:
    """F-22: attempts and the next try survive a restart, because they are rows of the same transaction."""
    store = await log.shard()
    await store.accept([arrival(A, "c1")])
    queued = command(A, "c1", InboxStatus.QUEUED)
    first = await append_one(store, A, 0, deposited(), inbox=queued, supervision=Supervision(letter=letter()))
    assert isinstance(first, Committed)
    (kept,) = await store.letters()
    assert kept == letter(event_ids=(first.events[0].event_id,))
    assert await (await log.reader()).letters(0) == [kept]
    second = await append_one(
        store, A, 1, deposited(), inbox=queued, supervision=Supervision(letter=msgspec.structs.replace(kept, attempts=2))
    )
    assert isinstance(second, Committed)
    (kept,) = await store.letters()
    assert (kept.attempts, kept.event_ids) == (2, (first.events[0].event_id, second.events[0].event_id))
    assert [entry.command_id for entry in await store.unfinished()] == ["c1"]


async def test_a_letter_goes_with_the_commit_that_ends_its_command(log: LogUnderTest) -> None:
    store = await log.shard()
    await append_one(store, A, 0, supervision=Supervision(letter=letter()))
    await append_one(store, B, 0, supervision=Supervision(letter=letter(B)))
    gone = Supervision(letters_gone=[CommandId("c1"), CommandId("unknown")])
    assert isinstance(await append_one(store, A, 0, deposited(), supervision=gone), Committed)
    assert [each.stream for each in await store.letters()] == [B]


async def test_a_letter_of_a_group_that_conflicts_is_not_kept(log: LogUnderTest) -> None:
    store = await log.shard()
    assert isinstance(await append_one(store, A, 7, supervision=Supervision(letter=letter(), stopped=stopped())), Conflict)
    assert (await store.letters(), await store.stopped()) == ([], [])


async def test_a_dead_letter_that_is_revived_is_queued_as_first_received(log: LogUnderTest) -> None:
    store = await log.shard()
    args = b'{"cents":7}'
    entry = command(A, "c1", InboxStatus.QUEUED, args=args, sender=B, source=f"{B}#1", received_at_us=START_US)
    await store.accept([msgspec.structs.replace(arrival(A, "c1"), entry=entry)])
    dead = letter(state=LetterState.DEAD, args=args)
    failed = command(A, "c1", InboxStatus.FAILED, args=args, reply=b"{}", code=500)
    await append_one(store, A, 0, deposited(), inbox=failed, supervision=Supervision(letter=dead))
    assert await store.unfinished() == []
    again = Supervision(letters_gone=[CommandId("c1")], revived=[entry])
    outcome = await append_one(store, A, 1, supervision=again)
    assert isinstance(outcome, Committed)
    assert list(outcome.delivered) == list(await store.unfinished()) == [entry]
    assert await store.letters() == []
    twice = await append_one(store, A, 1, supervision=again)
    assert isinstance(twice, Committed)
    assert list(twice.delivered) == []
    assert isinstance(await append_one(store, A, 1, deposited(), inbox=command(A, "c1", args=args, reply=b"1")), Committed)


async def test_a_dead_letter_whose_row_was_forgotten_can_still_be_revived(log: LogUnderTest) -> None:
    """S24 keeps inbox rows for seven days; a dead letter stays until a person decides."""
    store = await log.shard()
    outcome = await append_one(store, A, 0, supervision=Supervision(revived=[command(A, "c1", InboxStatus.QUEUED)]))
    assert isinstance(outcome, Committed)
    assert [entry.command_id for entry in await store.queued(A, 10)] == ["c1"]


def stopped(stream: StreamId = A) -> StoppedActor:
    return StoppedActor(stream=stream, reason="unknown_event", message="m", failures=5, stopped_at_us=START_US, code_version="1")


async def test_who_is_stopped_stays_so_for_the_next_owner_until_it_is_restarted(log: LogUnderTest) -> None:
    store = await log.shard()
    await append_one(store, A, 0, deposited(), supervision=Supervision(stopped=stopped()))
    await append_one(store, B, 0, supervision=Supervision(stopped=stopped(B)))
    again = await log.shard()
    assert await again.stopped() == await (await log.reader()).stopped(0) == [stopped(A), stopped(B)]
    await append_one(again, A, 1, supervision=Supervision(restarted=True))
    assert await again.stopped() == [stopped(B)]


async def test_the_queue_of_one_actor_is_read_in_order_and_in_part(log: LogUnderTest) -> None:
    """S11: mailboxes fill from the inbox."""
    store = await log.shard()
    await store.accept([arrival(stream, f"c{n}") for n in range(6) for stream in (A, B)])
    await append_one(store, A, 0, inbox=command(A, "c0", InboxStatus.DONE))
    await append_one(store, A, 0, inbox=command(A, "c2", InboxStatus.RUNNING))
    assert [entry.command_id for entry in await store.queued(A, 3)] == ["c1", "c3", "c4"]
    assert await store.queued(stream_in(0, 2, "nobody"), 3) == []
