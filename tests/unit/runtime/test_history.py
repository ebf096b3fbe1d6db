"""One stream as a history: versions at moments, what each event changed, and which one set a value."""

from collections.abc import AsyncIterator
from pathlib import Path

import jsonpatch
import msgspec
import pytest

from actors import Actor, Event, State
from actors.errors import BadPayload, Unknown
from actors.registry import Registry
from events.ids import StreamId
from events.in_memory.store_memory import MemoryLog
from events.sqlite.reader_sqlite import SqliteLogReader
from runtime.past.history import blame, version_at, walk
from runtime.past.states import FoldError, code_of, state_at
from tests.support.big_log import app as desks
from tests.support.errands import app, run_errands
from tests.support.logs import START_US, ManualClock

BOB, SHOP = StreamId("buyer/bob"), StreamId("shop/corner")


@pytest.fixture
async def reader(tmp_path: Path) -> AsyncIterator[SqliteLogReader]:
    await run_errands(tmp_path / "log")
    found = await SqliteLogReader.open(tmp_path / "log")
    yield found
    await found.close()


async def test_a_version_is_named_by_number_event_or_moment(reader: SqliteLogReader) -> None:
    events = await reader.read_stream(BOB)
    for event in (events[0], events[7], events[-1]):
        assert await version_at(reader, BOB, str(event.version)) == event.version
        assert await version_at(reader, BOB, event.event_id) == event.version
        assert await version_at(reader, BOB, f"{event.shard}:{event.position}") == event.version
    clock = ManualClock(events[7].time + 60_000_000)
    assert await version_at(reader, BOB, "1m", clock) == 8
    assert await version_at(reader, BOB, "1970-01-01") == 0
    assert await version_at(reader, BOB, "2999-01-01") == len(events)
    with pytest.raises(BadPayload):
        await version_at(reader, BOB, "yesterday evening")
    with pytest.raises(Unknown):
        await version_at(reader, StreamId("buyer/nobody"), "1m")


async def test_an_event_of_another_stream_names_the_moment(reader: SqliteLogReader) -> None:
    """S30: the shop's event came after the buyer asked, and before the buyer had its answer."""
    taken = (await reader.read_stream(SHOP))[0]
    version = await version_at(reader, BOB, taken.event_id)
    types = [event.type for event in (await reader.read_stream(BOB))[:version]]
    assert types[-1] == "ask.started"


async def test_each_step_leads_from_its_state_before_to_its_state_after(reader: SqliteLogReader) -> None:
    kind = code_of(app.registry, BOB)
    versions = []
    async for step in walk(reader, kind, BOB):
        versions.append(step.event.version)
        view = await state_at(reader, app.registry, BOB, step.event.version)
        assert step.after == view.state
        assert jsonpatch.apply_patch(step.before, step.patch()) == step.after
        assert step.mismatch is None
    assert versions == list(range(1, len(await reader.read_stream(BOB)) + 1))
    assert [step.after async for step in walk(reader, None, BOB, to=3)] == [None] * 3


async def test_blame_names_the_event_that_set_the_value(reader: SqliteLogReader) -> None:
    found = await blame(reader, app.registry, BOB, "/total")
    assert [(change.event.type, change.old, change.new) for change in found.changes] == [
        ("errand.ordered", 0, 10), ("errand.ordered", 10, 22), ("errand.forgot", 22, 12),
    ]  # fmt: skip
    price = await blame(reader, app.registry, BOB, "/prices/tea")
    assert [(change.event.command_id, change.came, change.went) for change in price.changes] == [
        ("errand-1", True, False), ("errand-5", False, True),
    ]  # fmt: skip
    earlier = await blame(reader, app.registry, BOB, "/total", at=price.changes[0].event.version)
    assert [change.new for change in earlier.changes] == [10]
    whole = await blame(reader, app.registry, BOB, "")
    assert len(whole.changes) == 3


async def test_blame_of_what_never_stood_there_is_not_found(reader: SqliteLogReader) -> None:
    with pytest.raises(Unknown):
        await blame(reader, app.registry, BOB, "/prices/salt")
    with pytest.raises(BadPayload):
        await blame(reader, app.registry, BOB, "prices")
    assert "events only" in str((await blame(reader, None, BOB, "/total")).note)


class Other(State):
    notes: int = 0


class OtherNoted(Event[Other], tag="desk.noted"):
    word: str
    text: str

    def apply(self, state: Other) -> None:
        state.notes += 2


class OtherDesk(Actor[Other], name="desk"):
    def make(self) -> None:
        self.emit(OtherNoted(word="", text=""))


class Broken(State):
    notes: int = 0


class BrokenNoted(Event[Broken], tag="desk.noted"):
    word: str
    text: str

    def apply(self, state: Broken) -> None:
        if state.notes == 2:
            raise KeyError(self.word)
        state.notes += 1


class BrokenDesk(Actor[Broken], name="desk"):
    def make(self) -> None:
        self.emit(BrokenNoted(word="", text=""))


async def a_desk(count: int) -> MemoryLog:
    """One stream of notes, with the state hash that S34 asks for at version 2."""
    from events.codec import canonical_hash
    from events.envelope import NewEvent
    from tests.support.big_log import Desk, Noted
    from tests.support.logs import append_one

    log = MemoryLog(1, clock=ManualClock(START_US))
    shard = log.shard(0)
    await shard.take("test")
    state = Desk()
    for version in range(count):
        noted = Noted(word="w", text="t")
        noted.apply(state)
        hash_ = canonical_hash(state) if version == 1 else None
        await append_one(
            shard, StreamId("desk/a"), version, NewEvent(type="desk.noted", payload=msgspec.json.encode(noted), state_hash=hash_)
        )
    return log


async def test_s34_where_apply_has_changed_the_fold_says_from_where_on() -> None:
    """Build 5: what this code folds is shown, and that it is not what was recorded."""
    reader = (await a_desk(3)).reader()
    stream = StreamId("desk/a")
    same = await state_at(reader, desks.registry, stream)
    assert (same.mismatch, same.state["notes"]) == (None, 3)
    changed = Registry([OtherDesk])
    before = await state_at(reader, changed, stream, 1)
    assert (before.mismatch, before.state["notes"]) == (None, 2)
    after = await state_at(reader, changed, stream)
    assert after.state["notes"] == 6
    assert "at version 2 the state recorded has the hash" in str(after.mismatch)
    assert [step.mismatch is not None async for step in walk(reader, code_of(changed, stream), stream)] == [False, True, True]


async def test_an_apply_that_raises_is_named_with_its_version() -> None:
    reader = (await a_desk(3)).reader()
    with pytest.raises(FoldError, match=r"desk/a version 3: apply of desk.noted raised KeyError"):
        await state_at(reader, Registry([BrokenDesk]), StreamId("desk/a"))
