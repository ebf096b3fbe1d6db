"""A whole shard folded at once gives the states that each actor has by itself (I-8)."""

from pathlib import Path

import msgspec
import pytest

from actors import Actor, Event, State
from actors.journal import Forked
from actors.registry import Registry
from events.envelope import GENESIS_HASH, Kind, NewEvent
from events.errors import CorruptLogError
from events.facts import FORKED
from events.ids import StreamId, Version
from events.in_memory.store_memory import MemoryLog
from events.store import Base
from events.upcast import Upcasters
from runtime.local import local_runtime
from runtime.past.replay import fold_shard
from tests.support.logs import group
from tests.unit.runtime.test_turns import APP, Notes

A = StreamId("notes/a")


def noted(line: str, *, payload: bytes | None = None) -> NewEvent:
    return NewEvent(type="notes.noted", payload=payload or b'{"line":"%b"}' % line.encode())


async def test_all_states_of_a_shard_at_once(tmp_path: Path) -> None:
    from events.sqlite.reader_sqlite import SqliteLogReader

    async with local_runtime(APP, tmp_path, shards=1) as runtime:
        for number in range(10):
            await runtime.ask(f"notes/{number % 2}", "note", line=str(number))
    reader = await SqliteLogReader.open(tmp_path)
    try:
        states = await fold_shard(reader, APP.registry, 0)
    finally:
        await reader.close()
    assert states == {"notes/0": Notes(lines=["0", "2", "4", "6", "8"]), "notes/1": Notes(lines=["1", "3", "5", "7", "9"])}


class Total(State):
    cents: int = 0


class Added(Event[Total], tag="totals.added", version=2):
    cents: int

    def apply(self, state: Total) -> None:
        state.cents = 2 * state.cents + self.cents  # the order matters


class TotalActor(Actor[Total], name="total"):
    pass


async def test_what_takes_more_than_its_payload_is_folded_by_itself_and_unknown_actors_are_left_out() -> None:
    log = MemoryLog(1)
    store = log.shard(0)
    await store.take("worker")
    old, new = (
        NewEvent(type="totals.added", schema_version=n, payload=payload) for n, payload in ((1, b'{"euro":1}'), (2, b'{"cents":5}'))
    )
    total, other = StreamId("total/a"), StreamId("total/b")
    await store.append([group(total, 0, new, old, new), group(other, 0, new), group(A, 0, noted("one"))])
    upcasters = Upcasters()
    upcasters.add("totals.added", 1, lambda payload: {"cents": payload["euro"] * 100})
    states = await fold_shard(log.reader(), Registry([TotalActor], upcasters), 0)
    assert states == {total: Total(cents=225), other: Total(cents=5)}


async def test_s33_a_fork_at_version_0_is_folded_from_the_state_that_it_began_with() -> None:
    """With an edit, or there would be nothing to see; and one that has no event of its own has a state too."""
    log = MemoryLog(1)
    store = log.shard(0)
    await store.take("worker")
    base = Base(version=Version(0), hash=GENESIS_HASH)
    rich, idle = StreamId("total/rich"), StreamId("total/idle")
    for fork, more in ((rich, [NewEvent(type="totals.added", schema_version=2, payload=b'{"cents":5}')]), (idle, [])):
        said = Forked(parent="total/a", version=0, hash=GENESIS_HASH.hex(), state=msgspec.Raw(b'{"cents":100}'), branch="b")
        first = NewEvent(type=FORKED, kind=Kind.CONTROL, payload=msgspec.json.encode(said))
        await store.append([group(fork, 0, first, *more, base=base, parent="total/a@0", branch="b")])
    assert await fold_shard(log.reader(), Registry([TotalActor]), 0) == {rich: Total(cents=205), idle: Total(cents=100)}


async def test_i20_a_payload_that_does_not_fit_is_refused_with_its_place() -> None:
    log = MemoryLog(1)
    store = log.shard(0)
    await store.take("worker")
    await store.append([group(A, 0, noted("one"), noted("", payload=b'{"line":7}'))])
    with pytest.raises(CorruptLogError) as found:
        await fold_shard(log.reader(), APP.registry, 0)
    assert (found.value.fields["stream"], found.value.fields["version"]) == (A, 2)
