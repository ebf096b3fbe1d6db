"""Where a stream may be cut: never inside a turn (S33)."""

from pathlib import Path

import pytest

from actors import Actor, Event, State, command
from actors.errors import BadPayload, Unknown
from events.ids import StreamId
from events.sqlite.reader_sqlite import SqliteLogReader
from runtime import App
from runtime.branches.boundaries import boundary_after, boundary_before, require_boundary, version_at
from runtime.local import local_runtime


class Counted(State):
    n: int = 0


class Added(Event[Counted], tag="count_cut.added"):
    def apply(self, state: Counted) -> None:
        state.n += 1


class Counter(Actor[Counted], name="counter"):
    @command
    async def add(self, times: int) -> None:
        for _ in range(times):
            self.emit(Added())

    @command
    async def with_step(self) -> None:
        await self.step("nothing", nothing)
        self.emit(Added())


async def nothing() -> None:
    return None


app = App(actors=[Counter])
STREAM = StreamId("counter/1")


@pytest.fixture
async def directory(tmp_path: Path) -> Path:
    """Versions 1 | 2 3 4 | 5 (started) 6 7 (step) 8 9 (added, completed) | 10."""
    async with local_runtime(app, tmp_path / "log", shards=1) as cue:
        await cue.ask(STREAM, "add", times=1)
        await cue.ask(STREAM, "add", times=3)
        await cue.ask(STREAM, "with_step")
        await cue.ask(STREAM, "add", times=1)
    return tmp_path / "log"


async def test_s33_boundaries_lie_between_turns_only(directory: Path) -> None:
    reader = await SqliteLogReader.open(directory)
    try:
        assert [await boundary_before(reader, STREAM, version) for version in range(11)] == [0, 1, 1, 1, 4, 4, 4, 4, 4, 9, 10]
        assert [await boundary_after(reader, STREAM, version) for version in range(1, 11)] == [1, 4, 4, 4, 9, 9, 9, 9, 9, 10]
        for version in (1, 4, 9, 10):
            assert (await require_boundary(reader, STREAM, version)).version == version
    finally:
        await reader.close()


@pytest.mark.parametrize(("version", "nearest"), [(2, 1), (3, 4), (5, 4), (6, 4), (8, 9)])
async def test_s33_inside_a_turn_the_nearest_boundary_is_named(directory: Path, version: int, nearest: int) -> None:
    reader = await SqliteLogReader.open(directory)
    try:
        with pytest.raises(BadPayload, match=f"nearest version between turns is {nearest}"):
            await require_boundary(reader, STREAM, version)
        with pytest.raises(Unknown):
            await require_boundary(reader, STREAM, 11)
    finally:
        await reader.close()


async def test_the_version_at_a_time_is_the_last_one_recorded_by_then(directory: Path) -> None:
    reader = await SqliteLogReader.open(directory)
    try:
        times = [event.time for event in await reader.read_stream(STREAM)]
        assert [await version_at(reader, STREAM, time) for time in times] == list(range(1, 11))
        assert await version_at(reader, STREAM, times[0] - 1) == 0
        assert await version_at(reader, StreamId("counter/none"), times[0]) == 0
    finally:
        await reader.close()
