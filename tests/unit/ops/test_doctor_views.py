"""`doctor` on projections that lag, are stopped, parked, damaged or not there yet: what is wrong, and what to do about it."""

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from events.sqlite.reader_sqlite import SqliteLogReader
from ops import child, doctor_views
from ops.doctor_views import views
from ops.finding import Finding
from ops.settings import Settings
from ops.up_state import UpState, read_up
from projections.generations_sqlite import read_active
from projections.view_sqlite import VIEW_FILE
from tests.support.eventually import until
from tests.support.views import POISON, CountedReader, Notes, WrittenLog, noted, running, streams

A, B = streams(2)


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[WrittenLog]:
    made = WrittenLog(tmp_path / "log")
    await made.start()
    yield made
    await made.close()


@pytest.fixture
def up(tmp_path: Path) -> None:
    """The deployment runs, as far as its folder says: this process is it."""
    state = UpState(
        pid=os.getpid(), started=child.process_started(os.getpid()), started_at=datetime(2026, 1, 1, tzinfo=UTC).isoformat(), nats_url=None,
        ready=True, processes=(),
    )  # fmt: skip
    (tmp_path / "up.json").write_bytes(msgspec.json.encode(state))
    assert read_up(tmp_path) is not None


async def no_pause(delay_s: float) -> None:
    assert delay_s > 1, "a projector looks at the files once a second"


async def said(data: Path, pause: Any = no_pause) -> list[Finding]:
    reader = await SqliteLogReader.open(data / "log")
    try:
        return [finding async for finding in views(Settings(data=data), reader, pause)]
    finally:
        await reader.close()


async def test_a_view_that_is_level_is_well_with_and_without_a_deployment(log: WrittenLog, tmp_path: Path) -> None:
    await log.write(A, noted())
    async with running(Notes, tmp_path / "views", log) as (runner, _):
        await until(lambda: runner.status().state == "live", "live")
        assert await said(tmp_path) == [Finding(check="projection notes", ok=True, found="level with the log")]
    assert [each.ok for each in await said(tmp_path)] == [True], "nothing runs, so nothing has to apply it"


@pytest.mark.usefixtures("up")
async def test_one_that_nobody_applies_is_named_with_how_to_start_a_projector(log: WrittenLog, tmp_path: Path) -> None:
    async with running(Notes, tmp_path / "views", log) as (runner, _):
        await until(lambda: runner.status().state == "live", "live")
    (found,) = await said(tmp_path)
    assert (found.check, found.ok, found.found) == ("projection notes", False, "no process applies it")
    assert found.remedy is not None
    assert "cuebook projector" in found.remedy


@pytest.mark.usefixtures("up")
async def test_one_that_lags_is_named_with_the_process_that_should_have_applied(
    log: WrittenLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked at twice: a first event after a quiet hour is no lag."""
    monkeypatch.setattr(doctor_views, "LAG_S_MAX", 0.0)
    async with running(Notes, tmp_path / "views", log) as (runner, hints):
        await until(lambda: runner.status().state == "live", "live")
        for _ in range(3):
            shard, position = await log.write(A, noted())
        (found,) = await said(tmp_path)
        assert not found.ok
        assert found.found.startswith("3 events behind, nothing applied for ")
        assert found.remedy is not None
        assert str(os.getpid()) in found.remedy
        assert "logs/projector.log" in found.remedy

        async def then_applied(delay_s: float) -> None:
            hints.tell(shard, position)
            await until(lambda: (view := runner.status().view) is not None and not view.lag, "level")

        (found,) = await said(tmp_path, then_applied)
        assert found == Finding(check="projection notes", ok=True, found="level with the log")


async def test_a_parked_stream_is_named_with_its_event_reason_and_the_verb_that_goes_on(log: WrittenLog, tmp_path: Path) -> None:
    shard, position = await log.write(A, POISON)
    await log.write(A, noted(), noted())
    await log.write(B, noted())
    async with running(Notes, tmp_path / "views", log) as (runner, _):
        await until(lambda: runner.status().state == "live", "live")
        (found,) = await said(tmp_path)
    assert not found.ok
    assert f"event {shard}:{position} (desk.poisoned) of {A} is parked: ValueError: poison; 2 later ones wait behind it" in found.found
    assert found.remedy == f"mend the projection, then: cuebook projections release notes {A}"


async def test_one_that_is_built_for_the_first_time_is_not_said_to_be_level(log: WrittenLog, tmp_path: Path) -> None:
    await log.write(A, noted())
    reader = CountedReader(await log.reader())

    async def never() -> None:
        await until(lambda: False, "never", 600)

    reader.before_select = never
    async with running(Notes, tmp_path / "views", log, reader) as (runner, _):
        await until(lambda: runner.status().state == "building", "building")
        (found,) = await said(tmp_path)
    assert found.ok
    assert "built for the first time" in found.found
    assert found.remedy == "cuebook projections ls shows how far it is"


async def test_a_damaged_file_is_named_with_the_rebuild(log: WrittenLog, tmp_path: Path) -> None:
    await log.write(A, noted())
    async with running(Notes, tmp_path / "views", log) as (runner, _):
        await until(lambda: runner.status().state == "live", "live")
    active = read_active(tmp_path / "views" / "notes")
    assert active is not None
    path = tmp_path / "views" / "notes" / active.folder / VIEW_FILE
    path.write_bytes(b"no database" * 500)
    (found,) = await said(tmp_path)
    assert not found.ok
    assert found.remedy == "cuebook projections rebuild notes"
