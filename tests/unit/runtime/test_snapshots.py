"""Snapshots are disposable: none, a damaged one and a wrong one give the same answers as the events (I-8, F-20)."""

from pathlib import Path

import pytest

from actors import Actor, Event, State, command, query
from events.envelope import row_check
from events.log_directory import shard_path
from events.sqlite.sqlite_library import library as sqlite
from runtime.app import App
from runtime.local import local_runtime
from tests.support.logs import without_guards


class Tally(State):
    numbers: list[int] = []


class Counted(Event[Tally], tag="snapped.counted"):
    number: int

    def apply(self, state: Tally) -> None:
        state.numbers.append(self.number)


class TallyActor(Actor[Tally], name="snapped"):
    @command
    async def count(self, numbers: list[int]) -> None:
        for number in numbers:
            self.emit(Counted(number=number))

    @query
    def numbers(self) -> list[int]:
        return self.state.numbers


APP = App(actors=[TallyActor], version="test")
ALL = list(range(700))


async def filled(directory: Path) -> Path:
    """A log whose one actor has a snapshot and events after it; the path of its shard file."""
    async with local_runtime(APP, directory, shards=1) as runtime:
        await runtime.ask("snapped/a", "count", numbers=ALL[:600])
        await runtime.ask("snapped/a", "count", numbers=ALL[600:])
    assert snapshots(shard_path(directory, 0)) == [600]
    return shard_path(directory, 0)


def snapshots(path: Path) -> list[int]:
    connection = sqlite.connect(path)
    try:
        return [row[0] for row in connection.execute("SELECT version FROM snapshots").fetchall()]
    finally:
        connection.close()


def with_check(version: int, shape: str, state: bytes) -> str:
    check = row_check("snapped/a", version, shape, state)
    return f"UPDATE snapshots SET version = {version}, shape = '{shape}', state = X'{state.hex()}', row_check = {check}"


SHAPE = APP.registry.type("snapped").shape
WRONG = {
    "deleted": "DELETE FROM snapshots",
    "the whole table emptied and filled with rubbish": "UPDATE snapshots SET state = X'00', shape = ''",
    "a flipped bit in its state": "UPDATE snapshots SET state = CAST(replace(CAST(state AS TEXT), '599', '598') AS BLOB)",
    "a flipped bit in its version": "UPDATE snapshots SET version = 599",
    "a sound row of another shape": with_check(600, "0123456789abcdef", b'{"numbers":[1]}'),
    "a sound row from beyond the end": with_check(9_999, SHAPE, b'{"numbers":[1]}'),
    "a sound row that is no state": with_check(600, SHAPE, b'{"numbers":"none"}'),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_i8_a_snapshot_that_is_gone_or_wrong_changes_no_answer(wrong: str, tmp_path: Path) -> None:
    path = await filled(tmp_path)
    without_guards(path, WRONG[wrong])
    async with local_runtime(APP, tmp_path, shards=1) as runtime:
        assert await runtime.ask("snapped/a", "numbers") == ALL
        await runtime.ask("snapped/a", "count", numbers=[700])
        assert await runtime.ask("snapped/a", "numbers") == [*ALL, 700]


async def test_i8_a_sound_snapshot_is_what_recovery_starts_from(tmp_path: Path) -> None:
    """Else the tests above would prove nothing."""
    await filled(tmp_path)
    async with local_runtime(APP, tmp_path, shards=1) as runtime:
        snapshot, events = await runtime.shards[0].store.load("snapped/a", SHAPE)  # type: ignore[arg-type]
        assert snapshot is not None
        assert (snapshot.version, len(events)) == (600, 100)
