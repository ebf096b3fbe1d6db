"""Whatever happens on the way - hints lost, late or doubled, projectors that die, pages cut anywhere - a view equals its rebuild (I-11)."""

import asyncio
import random
import resource
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from events.envelope import NewEvent, RecordedEvent
from events.ids import StreamId
from events.sqlite.watch_sqlite import SqliteWatch
from projections.follower import Follower
from projections.hints import watch_files
from projections.view_sqlite import SqliteView
from tests.support.eventually import until
from tests.support.views import (
    OTHER,
    POISON,
    SHARDS,
    CountedReader,
    Notes,
    WrittenLog,
    as_is,
    counted,
    follow_to_end,
    noted,
    rebuilt,
    rows,
    running,
    streams,
)

ACTIONS = ("note", "count", "other", "poison", "erase", "step", "hint", "late hint", "die", "stray hint")


@settings(max_examples=40, deadline=None)
@given(actions=st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 4)), max_size=60))
def test_any_interleaving_ends_in_the_rows_of_a_rebuild(tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, int]]) -> None:
    asyncio.run(_play(tmp_path_factory.mktemp("play"), actions))


async def _play(folder: Path, actions: list[tuple[str, int]]) -> None:
    log = WrittenLog(folder / "log")
    await log.start()
    reader = await log.reader()
    hints: list[tuple[int, int]] = []
    gone: set[StreamId] = set()
    view = await SqliteView.open(Notes(), folder / "view", log.incarnation)
    follower = Follower(view, reader, upcast=as_is)
    try:
        for number, (action, which) in enumerate(actions):
            stream = streams(5)[which]
            written = {"note": noted(f"word{number}"), "count": counted(number), "other": OTHER, "poison": POISON}.get(action)
            if written is not None and stream not in gone:
                hints.append(await log.write(stream, written))
            elif action == "erase" and stream in log.versions and stream not in gone:
                await log.erase(stream)
                gone.add(stream)
            elif action == "step":
                await follower.step()
            elif action == "hint" and hints:
                follower.hint(*hints[-1])
            elif action == "late hint" and hints:
                follower.hint(*hints[which % len(hints)])
            elif action == "stray hint":
                follower.hint(which % SHARDS, None)
            elif action == "die":
                await view.close()
                view = await SqliteView.open(Notes(), folder / "view", log.incarnation)
                follower = Follower(view, reader, upcast=as_is)
        for shard in range(SHARDS):
            follower.hint(shard, None)
        await follow_to_end(follower)
        assert follower.is_level
        again = await rebuilt(Notes, log.directory, folder / "again")
        assert await rows(view) == again
        held = {each.stream: each.held for each in await view.parked()}
        other = await SqliteView.open(Notes(), folder / "again", log.incarnation)
        assert {each.stream: each.held for each in await other.parked()} == held
        await other.close()
    finally:
        await view.close()
        await log.close()


class TestLostHints:
    """S31: lost hints cost a second, never an event."""

    @pytest.mark.slow
    async def test_every_tenth_hint_lost_and_then_all_for_five_seconds(self, tmp_path: Path) -> None:
        log = WrittenLog(tmp_path / "log")
        await log.start()
        watch = await SqliteWatch.open(log.directory)
        async with running(Notes, tmp_path / "views", log) as (runner, hints), asyncio.TaskGroup() as group:
            watching = group.create_task(watch_files(watch, hints))
            await until(lambda: runner.status().state == "live", "live")
            worst = 0.0
            number = 0

            async def write_and_wait(*, heard: bool) -> None:
                nonlocal worst, number
                number += 1
                shard, position = await log.write(streams(5)[number % 5], noted(f"n{number}"))
                began = time.monotonic()
                if heard:
                    hints.tell(shard, position)
                await until(lambda: _has(runner, shard, position), "applied", 5.0)
                worst = max(worst, time.monotonic() - began)

            for _ in range(60):
                await write_and_wait(heard=(number + 1) % 10 != 0)
            ends = time.monotonic() + 5.0
            while time.monotonic() < ends:
                await write_and_wait(heard=False)
            assert worst < 1.5, f"the lag lasted {worst:.2f} s"
            assert (await runner.query("count", b""))[0] == number
            watching.cancel()
        await watch.close()
        await log.close()

    async def test_hints_alone_do_it_at_once(self, tmp_path: Path) -> None:
        log = WrittenLog(tmp_path / "log")
        await log.start()
        async with running(Notes, tmp_path / "views", log) as (runner, hints):
            await until(lambda: runner.status().state == "live", "live")
            for number in range(20):
                shard, position = await log.write(streams(5)[number % 5], noted())
                hints.tell(shard, position)
                await until(lambda shard=shard, position=position: _has(runner, shard, position), "applied", 0.9)  # type: ignore[misc]
        await log.close()


def _has(runner: object, shard: int, position: int) -> bool:
    view = runner.status().view  # type: ignore[attr-defined]
    return view is not None and view.positions.get(shard, 0) >= position


async def test_s31_an_idle_projector_asks_the_log_nothing_and_looks_at_one_number_per_file_and_second(tmp_path: Path) -> None:
    log = WrittenLog(tmp_path / "log")
    await log.start()
    for number in range(10):
        await log.write(streams(5)[number % 5], noted())
    reader = CountedReader(await log.reader())
    looks: list[int] = []

    class Watched:
        shards = SHARDS

        def __init__(self, watch: SqliteWatch) -> None:
            self._watch = watch

        async def changed(self, shard: int) -> int | None:
            looks.append(shard)
            return await self._watch.changed(shard)

    watch = await SqliteWatch.open(log.directory)
    async with running(Notes, tmp_path / "views", log, reader) as (runner, hints), asyncio.TaskGroup() as group:
        watching = group.create_task(watch_files(Watched(watch), hints, every_s=0.05))
        await until(lambda: runner.status().state == "live" and len(looks) >= 2 * SHARDS, "level")
        reader.calls.clear()
        looks.clear()
        await until(lambda: len(looks) >= 20 * SHARDS, "twenty looks")
        assert reader.calls == []
        watching.cancel()
    await watch.close()
    await log.close()


def upcast(event: RecordedEvent) -> RecordedEvent:
    """``desk.counted`` was ``{"amount": n}`` in schema version 1."""
    if event.type != "desk.counted" or event.schema_version != 1:
        return event
    payload = msgspec.Raw(msgspec.json.encode({"n": msgspec.json.decode(event.payload)["amount"]}))
    return msgspec.structs.replace(event, payload=payload, schema_version=2)


def mixed(number: int, draw: random.Random) -> NewEvent:
    kind = draw.randrange(4)
    if kind == 0:
        return noted(f"word{number % 997} and {draw.randrange(10_000)} more of {number}")
    if kind == 1:
        return NewEvent(type="desk.counted", payload=msgspec.json.encode({"amount": number % 100}))
    if kind == 2:
        return NewEvent(type="desk.counted", schema_version=2, payload=msgspec.json.encode({"n": number % 100}))
    return OTHER


@pytest.mark.parametrize("count", [4_000, pytest.param(100_000, marks=pytest.mark.long)])
async def test_a_rebuild_while_new_events_arrive_equals_the_incremental_view(tmp_path: Path, count: int) -> None:
    """Mixed events, some of an earlier schema version; the long one prints rate and peak memory: pytest -m long -s."""
    draw = random.Random(count)
    log = WrittenLog(tmp_path / "log")
    await log.start()
    written = 0

    async def write(more: int) -> None:
        nonlocal written
        for _ in range(0, more, 100):
            await log.write(streams(200)[draw.randrange(200)], *[mixed(written + number, draw) for number in range(100)])
            written += 100

    await write(count // 2)
    async with running(Notes, tmp_path / "views", log, upcast=upcast) as (runner, hints):
        await until(lambda: runner.status().state == "live", "live", 120.0)
        while written < count:
            await write(min(5_000, count - written))
            hints.tell_all()
            await asyncio.sleep(0)
        await until(lambda: _is_level(runner), "level", 120.0)
        view = runner._live_view
        assert view is not None
        incremental = await rows(view)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.monotonic()
        runner.rebuild()
        await until(lambda: runner.status().state == "rebuilding", "rebuilding")
        await write(max(400, count // 50))
        hints.tell_all()
        await until(lambda: _is_level(runner), "level", 240.0)
        seconds = time.monotonic() - began
        print(f"{written:,} events rebuilt in {seconds:.1f} s: {written / seconds:,.0f}/s, peak memory +"
              f"{(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024:.0f} MiB of {before / 1024:.0f}")  # fmt: skip
        view = runner._live_view
        assert view is not None
        found = await rows(view)
    assert len(found) > len(incremental)
    assert found == await rebuilt(Notes, log.directory, tmp_path / "again", upcast)
    await log.close()


def _is_level(runner: object) -> bool:
    status = runner.status()  # type: ignore[attr-defined]
    return status.state == "live" and status.view is not None and status.view.lag_s == 0
