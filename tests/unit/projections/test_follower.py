"""One view along the log: each event once, in order, with its checkpoint (I-11, I-12, I-13)."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from events.envelope import NewEvent, RecordedEvent
from events.errors import UnknownEventTypeError
from events.ids import StreamId
from events.log_directory import shard_path
from projections.errors import CheckpointError, PoisonError
from projections.follower import Follower
from projections.view_sqlite import SqliteView
from tests.support.logs import without_guards
from tests.support.views import (
    OTHER,
    POISON,
    CountedReader,
    Notes,
    WrittenLog,
    as_is,
    counted,
    follow_to_end,
    noted,
    rebuilt,
    rows,
    streams,
)

A, B, C = streams(3)


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[WrittenLog]:
    async with WrittenLog(tmp_path / "log") as made:
        yield made


@pytest.fixture
async def view(log: WrittenLog, tmp_path: Path) -> AsyncIterator[SqliteView]:
    made = await SqliteView.open(Notes(), tmp_path / "view", log.incarnation)
    yield made
    await made.close()


async def test_what_is_recorded_before_and_while_it_follows_is_applied_once(log: WrittenLog, view: SqliteView, tmp_path: Path) -> None:
    for number in range(30):
        await log.write(streams(5)[number % 5], noted(f"word{number}"), counted(number), OTHER)
    follower = Follower(view, await log.reader(), upcast=as_is)
    await follow_to_end(follower)
    shard, position = await log.write(A, noted("late"))
    assert follower.is_level
    assert follower.hint(shard, position)
    await follow_to_end(follower)
    assert await rows(view) == await rebuilt(Notes, log.directory, tmp_path / "again")
    assert follower.statistics().applied == 61
    assert sum(follower.positions.values()) == 91
    assert follower.statistics().lag == 0


async def test_s31_nothing_is_asked_of_the_log_while_nothing_is_new(log: WrittenLog, view: SqliteView) -> None:
    reader = CountedReader(await log.reader())
    follower = Follower(view, reader, upcast=as_is)
    shard, position = await log.write(A, noted())
    await follow_to_end(follower)
    reader.calls.clear()
    for _ in range(100):
        assert not await follower.step()
        assert not follower.hint(shard, position)  # a hint of what it has seen already
    assert reader.calls == []
    _, position = await log.write(A, noted())
    follower.hint(shard, position)
    await follow_to_end(follower)
    assert reader.calls == ["select"]


async def test_a_hint_that_comes_during_a_read_is_not_lost(log: WrittenLog, view: SqliteView) -> None:
    reader = CountedReader(await log.reader())
    follower = Follower(view, reader, upcast=as_is)
    await follow_to_end(follower)
    shard, position = await log.write(A, noted("first"))

    async def meanwhile() -> None:
        reader.before_select = None
        # Committed after the page was asked for: told now, it has to be read by the step after.
        follower.hint(*(await log.write(A, noted("second"))))

    follower.hint(shard, position)
    page = await log.reader()
    real = page.select

    async def select_then_write(*args: object, **kwargs: object) -> object:
        found = await real(*args, **kwargs)  # type: ignore[arg-type]
        if reader.before_select is not None:
            await meanwhile()
        return found

    reader.before_select = meanwhile
    follower._reader.select = select_then_write  # type: ignore[method-assign,assignment]
    await follow_to_end(follower)
    assert sum(follower.positions.values()) == 2


async def test_a_poison_event_parks_its_stream_and_nothing_else(log: WrittenLog, view: SqliteView, tmp_path: Path) -> None:
    await log.write(A, counted(1), POISON, counted(2), counted(3))
    await log.write(B, counted(5), noted("still here"))
    follower = Follower(view, await log.reader(), upcast=as_is)
    await follow_to_end(follower)
    shard, position = await log.write(A, counted(4))
    follower.hint(shard, position)
    await follow_to_end(follower)
    (parked,) = await view.parked()
    assert (parked.stream, parked.version, parked.type, parked.held) == (A, 2, "desk.poisoned", 3)
    assert parked.reason == "ValueError: poison"
    assert sum(follower.positions.values()) == 7
    assert await view.run(lambda db: db.execute("SELECT * FROM total ORDER BY stream").fetchall()) == [(A, 1, 1), (B, 5, 1)]
    # It stays parked in a follower that starts anew, and its order is kept when it is released.
    again = Follower(view, await log.reader(), upcast=as_is)
    await again.load()
    with pytest.raises(PoisonError):
        await again.release(A)
    assert [each.held for each in again.parked] == [3]
    Notes.cured = True
    try:
        assert await again.release(A) == 4
        assert again.parked == []
        assert await view.parked() == []
        assert await rows(view) == await rebuilt(Notes, log.directory, tmp_path / "again")
    finally:
        Notes.cured = False


async def test_many_poison_streams_in_one_page_are_all_parked(log: WrittenLog, view: SqliteView) -> None:
    for stream in streams(12):
        await log.write(stream, counted(1), POISON, counted(2))
    await follow_to_end(Follower(view, await log.reader(), upcast=as_is))
    assert {each.stream for each in await view.parked()} == set(streams(12))
    assert await view.run(lambda db: db.execute("SELECT count(*), sum(n) FROM total").fetchall()) == [(12, 12)]


async def test_an_event_without_a_way_to_the_newest_schema_version_is_parked(log: WrittenLog, view: SqliteView) -> None:
    def upcast(event: RecordedEvent) -> RecordedEvent:
        if event.schema_version == 1:
            raise UnknownEventTypeError("no upcaster")
        return event

    await log.write(A, NewEvent(type="desk.counted", payload=b'{"n":1}', schema_version=2), counted(2))
    await log.write(B, NewEvent(type="desk.counted", payload=b'{"n":1}', schema_version=2))
    await follow_to_end(Follower(view, await log.reader(), upcast=upcast))
    (parked,) = await view.parked()
    assert (parked.stream, parked.version, parked.reason) == (A, 2, "UnknownEventTypeError: no upcaster")


async def test_older_schema_versions_come_in_the_newest(log: WrittenLog, view: SqliteView) -> None:
    def upcast(event: RecordedEvent) -> RecordedEvent:
        if event.schema_version == 2:
            return event
        payload = msgspec.Raw(msgspec.json.encode({"n": msgspec.json.decode(event.payload)["amount"]}))
        return msgspec.structs.replace(event, payload=payload, schema_version=2)

    await log.write(A, NewEvent(type="desk.counted", payload=b'{"amount":7}'))
    await log.write(A, NewEvent(type="desk.counted", payload=b'{"n":1}', schema_version=2))
    await follow_to_end(Follower(view, await log.reader(), upcast=upcast))
    assert await view.run(lambda db: db.execute("SELECT n FROM total").fetchall()) == [(22,)]


async def test_a_damaged_event_is_parked_with_its_stream_and_the_others_go_on(log: WrittenLog, view: SqliteView) -> None:
    for stream in (A, B, C):
        await log.write(stream, counted(1), counted(2), counted(3))
    shard, position = await log.write(A, counted(4))
    await log.write(A, counted(5))
    without_guards(shard_path(log.directory, shard), f"""UPDATE events SET payload = '{{"n":9}}' WHERE position = {position}""")
    await follow_to_end(Follower(view, await log.reader(), upcast=as_is))
    (parked,) = await view.parked()
    assert (parked.stream, parked.position, parked.held) == (A, position, 1)
    assert await view.run(lambda db: db.execute("SELECT last FROM total ORDER BY stream").fetchall()) == [(3,), (3,), (3,)]


async def test_two_projectors_never_apply_twice(log: WrittenLog, view: SqliteView, tmp_path: Path) -> None:
    """Even without the lock: the checkpoint is compared inside the transaction."""
    other = await SqliteView.open(Notes(), tmp_path / "view", log.incarnation)
    try:
        first, second = [Follower(each, await log.reader(), upcast=as_is) for each in (view, other)]
        await follow_to_end(first)
        await follow_to_end(second)
        hint = await log.write(A, counted(3), counted(4))
        first.hint(*hint)
        second.hint(*hint)
        await follow_to_end(first)
        with pytest.raises(CheckpointError):
            await follow_to_end(second)
        await follow_to_end(second)  # it has looked again, and found everything done
        assert await rows(other) == [("total", A, 13, 2)]
    finally:
        await other.close()


async def test_s33_of_a_fork_only_its_own_events_come(log: WrittenLog, view: SqliteView) -> None:
    from events.envelope import Kind
    from events.ids import Version, parse_stream_id, shard_of
    from events.store import Append, Base
    from tests.support.views import SHARDS

    await log.write(A, counted(1), counted(2))
    reader = await log.reader()
    head = await reader.head(A)
    assert head is not None
    child = StreamId("desk/child")
    forked = NewEvent(type="stream.forked", kind=Kind.CONTROL, payload=b'{"state":{"n":3}}')
    store = log._stores[shard_of(*parse_stream_id(child), SHARDS)]
    await store.append([
        Append(
            stream=child, expected_version=Version(2), command_id=None, events=[forked, counted(7)], parent=f"{A}@2", branch="b",
            base=Base(version=head.version, hash=head.hash),
        )
    ])  # fmt: skip
    await follow_to_end(Follower(view, reader, upcast=as_is))
    assert await rows(view) == [("total", child, 7, 4), ("total", A, 5, 2)]
