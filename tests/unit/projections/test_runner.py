"""One projection in one process: it opens or builds its view, follows, answers, rebuilds beside the old one, and is the only one."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from events.envelope import RecordedEvent
from events.errors import TransientError
from projections.database import Database
from projections.errors import BadArgumentsError, NotReadyError, OperationFailedError, UnknownOperationError
from projections.generations_sqlite import SqliteGenerations, read_active
from projections.hints import PACE_S, Hints
from projections.locking import lock_holder
from projections.projection import Projection
from projections.runner import Runner
from projections.view_sqlite import SqliteView
from tests.support.eventually import until
from tests.support.logs import ManualClock
from tests.support.views import POISON, CountedReader, Notes, WrittenLog, as_is, counted, noted, rebuilt, rows, running, streams

A, B = streams(2)


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[WrittenLog]:
    async with WrittenLog(tmp_path / "log") as made:
        yield made


def is_level(runner: Runner[Any]) -> bool:
    status = runner.status()
    return status.state == "live" and status.view is not None and status.view.lag_s == 0


async def answer(runner: Runner[Any], name: str, body: bytes = b"") -> Any:
    return (await runner.query(name, body))[0]


async def rows_in(folder: Path, log: WrittenLog, make: type[Notes] = Notes) -> Any:
    view = await SqliteGenerations(make, folder, log.incarnation).open_active()
    assert view is not None
    try:
        return await rows(view)
    finally:
        await view.close()


async def test_operations_answer_with_the_checkpoint_that_they_saw(log: WrittenLog, tmp_path: Path) -> None:
    place = dict([await log.write(A, noted("red fox"))])
    async with running(Notes, tmp_path / "views", log) as (runner, _):
        await until(lambda: is_level(runner), "level")
        assert await runner.query("find", b'{"word":"fox"}') == (["red fox"], {0: 0, 1: 0} | place)
        assert await answer(runner, "both", b'{"word":"fox"}') == {"count": 1, "found": ["red fox"]}
        with pytest.raises(UnknownOperationError, match="it has: both, count, fails, find"):
            await answer(runner, "apply")
        with pytest.raises(BadArgumentsError) as bad:
            await answer(runner, "find", b'{"word":"fox","limit":"many"}')
        assert bad.value.fields["field"] == "limit"
        positions = (b'{"word":"a","_after":{"x":1}}', b'{"word":"a","_after":{"9":1}}')
        for body in (b'{"wort":"fox"}', b"[]", b'{"word":"a","word":"b"}', *positions):
            with pytest.raises(BadArgumentsError):
                await answer(runner, "find", body)
        with pytest.raises(OperationFailedError, match="RuntimeError: as asked"):
            await answer(runner, "fails")


async def test_who_waits_for_a_view_hears_of_it(log: WrittenLog, tmp_path: Path) -> None:
    """Of one that was built, and of one that was there and is opened again."""
    for _ in ("built", "opened"):
        runner = Runner(SqliteGenerations(Notes, tmp_path / "views", log.incarnation), await log.reader(), Hints(2), upcast=as_is)
        assert not await runner.wait_answering(0)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(runner.wait_answering(20))
            await asyncio.sleep(0)
            running_one = group.create_task(runner.run())
            assert await waiting
            running_one.cancel()


async def test_an_operation_cannot_write(log: WrittenLog, tmp_path: Path) -> None:
    class Writes(Notes):
        def count(self, db: Database) -> int:
            db.execute("DELETE FROM note")
            return 0

        count.__cuebook_operation__ = True  # type: ignore[attr-defined]

    async with running(Writes, tmp_path / "views", log) as (runner, _):
        await until(lambda: is_level(runner), "level")
        with pytest.raises(OperationFailedError, match="attempt to write a readonly database"):
            await answer(runner, "count")


async def test_a_read_may_wait_for_positions_and_needs_no_hint_for_it(log: WrittenLog, tmp_path: Path) -> None:
    async with running(Notes, tmp_path / "views", log) as (runner, _):
        await until(lambda: is_level(runner), "level")
        shard, position = await log.write(A, noted())
        assert await answer(runner, "count", b'{"_after":{"%d":%d}}' % (shard, position)) == 1
        with pytest.raises(NotReadyError, match="not yet at") as late:
            await runner.query("count", b'{"_after":{"0":999}}', 0.05)
        assert late.value.fields["positions"][shard] == position


async def test_a_first_build_answers_with_its_progress(log: WrittenLog, tmp_path: Path) -> None:
    await log.write(A, *[counted(n) for n in range(900)])
    gate = asyncio.Event()
    reader = CountedReader(await log.reader())
    reader.before_select = gate.wait
    async with running(Notes, tmp_path / "views", log, reader) as (runner, _):
        await until(lambda: runner.status().state == "building", "building")
        with pytest.raises(NotReadyError, match=r"is building, 0% done"):
            await answer(runner, "count")
        assert runner.status().progress == 0
        gate.set()
        await until(lambda: is_level(runner), "level")
        assert runner.status().progress is None


async def test_reads_go_on_and_see_new_events_while_a_rebuild_runs(log: WrittenLog, tmp_path: Path) -> None:
    """The old view answers, and follows, until the new one has caught up; no answer is missing or older than one before it."""
    for number in range(60):
        await log.write(streams(5)[number % 5], *[noted(f"n{number}") for _ in range(20)])
    async with running(Notes, tmp_path / "views", log) as (runner, hints):
        await until(lambda: is_level(runner), "level")
        counts: list[int] = []
        states: set[str] = set()
        first = read_active(tmp_path / "views" / "notes")
        runner.rebuild()

        async def write() -> None:
            for number in range(40):
                hints.tell(*(await log.write(A, noted(f"late {number}"))))

        async with asyncio.TaskGroup() as group:
            writing = group.create_task(write())
            while not writing.done() or not is_level(runner):
                counts.append(await answer(runner, "count"))
                states.add(runner.status().state)
        assert counts == sorted(counts)
        assert "rebuilding" in states
        assert await answer(runner, "count") == 1_240
        await until(lambda: len(list((tmp_path / "views" / "notes").glob("v1-*"))) == 1, "the old one is removed")
        assert read_active(tmp_path / "views" / "notes") != first
    assert await rows_in(tmp_path / "views", log) == await rebuilt(Notes, log.directory, tmp_path / "again")


async def test_s31_many_commits_are_one_look_and_who_waits_does_not_wait_for_it(log: WrittenLog, tmp_path: Path) -> None:
    clock = ManualClock()
    reader = CountedReader(await log.reader())
    async with running(Notes, tmp_path / "views", log, reader, clock=clock) as (runner, hints):
        await until(lambda: is_level(runner), "level")

        def lag() -> int:
            view = runner.status().view
            assert view is not None
            return view.lag

        hints.tell(*(await log.write(A, noted("first"))))
        assert lag() == 1
        await until(lambda: lag() == 0, "the first after a pause comes at once")
        looks = reader.calls.count("select")
        shard = position = 0
        for number in range(50):
            shard, position = await log.write(A, noted(f"n{number}"))
            hints.tell(shard, position)
        assert (lag(), reader.calls.count("select")) == (50, looks)
        assert await answer(runner, "count", b'{"_after":{"%d":%d}}' % (shard, position)) == 51
        assert reader.calls.count("select") == looks + 1
        hints.tell(*(await log.write(A, noted("last"))))
        clock.advance(PACE_S)
        await until(lambda: lag() == 0, "level when the pace allows it")
        assert reader.calls.count("select") == looks + 2


async def test_a_hint_of_what_is_not_there_is_no_lag_for_ever(log: WrittenLog, tmp_path: Path) -> None:
    async with running(Notes, tmp_path / "views", log) as (runner, hints):
        await until(lambda: is_level(runner), "level")
        hints.tell(0, 1_000)
        assert not is_level(runner)
        await until(lambda: is_level(runner), "the log was asked")


async def test_another_version_is_built_anew_and_older_tables_answer_meanwhile_if_they_can(log: WrittenLog, tmp_path: Path) -> None:
    await log.write(A, noted("old"))
    async with running(Notes, tmp_path / "views", log) as (runner, _):
        await until(lambda: is_level(runner), "level")

    class Second(Notes):
        version = 2
        answers_from = (1,)

    gate = asyncio.Event()
    reader = CountedReader(await log.reader())
    reader.before_select = gate.wait
    await log.write(A, noted("new"))
    async with running(Second, tmp_path / "views", log, reader) as (runner, _):
        await until(lambda: runner.status().state == "building", "building")
        assert await answer(runner, "count") == 1
        gate.set()
        await until(lambda: is_level(runner), "level")
        assert await answer(runner, "count") == 2
    assert [path.name for path in (tmp_path / "views" / "notes").glob("v*")] == ["v2-2"]


async def test_a_view_of_another_log_is_never_gone_on_with(log: WrittenLog, tmp_path: Path) -> None:
    """After a restore the same positions may name other events."""
    await log.write(A, noted("of the first log"))
    async with running(Notes, tmp_path / "views", log) as (runner, _):
        await until(lambda: is_level(runner), "level")
    other = WrittenLog(tmp_path / "other")
    await other.start()
    await other.write(A, noted("x"), noted("y"))
    async with running(Notes, tmp_path / "views", other) as (runner, _):
        await until(lambda: is_level(runner), "level")
        assert await answer(runner, "count") == 2
    await other.close()


async def test_a_damaged_view_is_built_anew(log: WrittenLog, tmp_path: Path) -> None:
    await log.write(A, noted("whole"))
    async with running(Notes, tmp_path / "views", log) as (runner, _):
        await until(lambda: is_level(runner), "level")
    (file,) = (tmp_path / "views").rglob("view.db")
    file.write_bytes(b"x" * 8_192)
    async with running(Notes, tmp_path / "views", log) as (runner, _):
        await until(lambda: is_level(runner), "level")
        assert await answer(runner, "count") == 1


async def test_one_projector_applies_and_another_takes_over_at_once(log: WrittenLog, tmp_path: Path) -> None:
    async with running(Notes, tmp_path / "views", log) as (second_or_first, _):
        await until(lambda: is_level(second_or_first), "level")
        assert lock_holder(tmp_path / "views" / "notes") is not None
        async with running(Notes, tmp_path / "views", log) as (standby, hints):
            hints.tell(*(await log.write(A, noted())))
            await asyncio.sleep(0.05)
            assert standby.status().state == "standby"
            with pytest.raises(NotReadyError):
                await answer(standby, "count")
    async with running(Notes, tmp_path / "views", log) as (next_one, _):
        await until(lambda: is_level(next_one), "level")
        assert await answer(next_one, "count") == 1
    assert lock_holder(tmp_path / "views" / "notes") is None


async def test_a_log_out_of_reach_is_waited_for(log: WrittenLog, tmp_path: Path) -> None:
    await log.write(A, noted())
    reader = CountedReader(await log.reader())
    failures = 3

    async def fail() -> None:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise TransientError("away")

    reader.before_select = fail
    async with running(Notes, tmp_path / "views", log, reader) as (runner, _):
        await until(lambda: runner.status().failure is not None, "it says so")
        await until(lambda: is_level(runner), "level")
        assert runner.status().failure is None


async def test_a_projection_that_ends_the_transaction_is_stopped_and_its_file_not_trusted(log: WrittenLog, tmp_path: Path) -> None:
    class Commits(Notes):
        broken = True

        def apply(self, db: Database, event: RecordedEvent) -> None:
            super().apply(db, event)
            if type(self).broken:
                db.execute("COMMIT")

    await log.write(A, noted())
    async with running(Commits, tmp_path / "views", log) as (runner, _):
        await until(lambda: runner.status().state == "failed", "failed")
        assert "ended the transaction" in str(runner.status().failure)
        Commits.broken = False
        runner.rebuild()
        await until(lambda: is_level(runner), "level")
        assert await answer(runner, "count") == 1


async def test_a_parked_stream_is_released_by_who_serves(log: WrittenLog, tmp_path: Path) -> None:
    await log.write(A, counted(1), POISON, counted(2))
    async with running(Notes, tmp_path / "views", log) as (runner, _):
        await until(lambda: is_level(runner), "level")
        assert [each.stream for each in (await answer(runner, "_status")).parked] == [A]
        with pytest.raises(BadArgumentsError, match="not parked"):
            await runner.release(B)
        Notes.cured = True
        try:
            assert await answer(runner, "_release", b'{"stream":"desk/d0"}') == {"events": 2}
        finally:
            Notes.cured = False
        assert runner.status().parked == []


class TestErasure:
    """S29, I-22: what is erased in the log leaves the views too, to the last byte."""

    async def test_what_an_erased_stream_said_leaves_the_file(self, log: WrittenLog, tmp_path: Path) -> None:
        await log.write(A, noted("the topsecret word"), counted(1))
        await log.write(B, noted("harmless"))
        async with running(Notes, tmp_path / "views", log) as (runner, hints):
            await until(lambda: is_level(runner), "level")
            assert await answer(runner, "find", b'{"word":"topsecret"}') == ["the topsecret word"]
            await log.erase(A)
            hints.tell_all()
            await until(lambda: b"topsecret" not in bytes_below(tmp_path / "views"), "no byte is left")
            assert await answer(runner, "count") == 1
        assert await rows_in(tmp_path / "views", log) == await rebuilt(Notes, log.directory, tmp_path / "again")

    async def test_a_reader_of_an_older_state_delays_it_only(self, log: WrittenLog, tmp_path: Path) -> None:
        await log.write(A, noted("the topsecret word"))
        release = threading.Event()

        class Slow(Notes):
            def count(self, db: Database) -> int:
                db.execute("SELECT count(*) FROM note").fetchall()
                release.wait(20)
                return super().count(db)

            count.__cuebook_operation__ = True  # type: ignore[attr-defined]

        async with running(Slow, tmp_path / "views", log) as (runner, hints), asyncio.TaskGroup() as group:
            await until(lambda: is_level(runner), "level")
            reading = group.create_task(answer(runner, "count"))
            await asyncio.sleep(0.05)
            await log.erase(A)
            hints.tell_all()
            await until(lambda: runner.status().view is not None and is_level(runner), "level")
            release.set()
            await reading
            await until(lambda: b"topsecret" not in bytes_below(tmp_path / "views"), "no byte is left")

    async def test_a_projection_that_cannot_forget_is_built_anew(self, log: WrittenLog, tmp_path: Path) -> None:
        class Keeps(Notes):
            erase = Projection.erase

        await log.write(A, noted("the topsecret word"))
        await log.write(B, noted("harmless"))
        async with running(Keeps, tmp_path / "views", log) as (runner, hints):
            await until(lambda: is_level(runner), "level")
            await log.erase(A)
            hints.tell_all()
            await until(lambda: b"topsecret" not in bytes_below(tmp_path / "views"), "no byte is left")
            await until(lambda: is_level(runner), "level")
            assert await answer(runner, "count") == 1


def bytes_below(folder: Path) -> bytes:
    found = b""
    for path in folder.rglob("*"):
        try:
            found += path.read_bytes() if path.is_file() else b""
        except FileNotFoundError:
            continue
    return found


async def test_hooks_see_only_what_is_committed(log: WrittenLog, tmp_path: Path) -> None:
    seen: list[str] = []

    class Hooked(Notes):
        def opened(self, db: Database, folder: Path) -> None:
            seen.append(f"opened {db.execute('SELECT count(*) FROM note').fetchall()[0][0]} {folder.is_dir()}")

        def begun(self, db: Database) -> None:
            seen.append("begun")

        def committed(self, db: Database) -> None:
            seen.append(f"committed {db.in_transaction}")

        def closing(self, db: Database) -> None:
            seen.append("closing")

    await log.write(A, noted(), POISON)
    view = await SqliteView.open(Hooked(), tmp_path / "v", log.incarnation)
    from projections.follower import Follower
    from tests.support.views import as_is, follow_to_end

    await follow_to_end(Follower(view, await log.reader(), upcast=as_is))
    await view.close()
    assert seen == ["opened 0 True", "begun", "begun", "committed False", *seen[4:-1], "closing"]
