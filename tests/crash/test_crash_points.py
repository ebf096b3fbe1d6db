"""SIGKILL at every crash point, on the real store and with real processes (F-1 to F-6).

Workers die one after another at the points of a group, under load of everything that a bank can do. Then nothing may be lost, doubled or
out of order, and a caller that asked again under its id got one effect: `tests.support.effects` judges the files.
"""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from events.crash_points import CrashPoint
from tests.support.busy_bank import EFFECTS, effects
from tests.support.busy_load import BusyLoad
from tests.support.checker import Asked
from tests.support.crashing import environment
from tests.support.deployment import wait_until, wait_until_async
from tests.support.effects import Told, judge
from tests.support.rest import at_rest
from tests.support.workers import SHARDS, Workers, connected

pytestmark = [pytest.mark.crash, pytest.mark.slow]

GROUPS: dict[str, dict[CrashPoint, int]] = {
    "before the rows": {CrashPoint.APPEND_CALLED: 7, CrashPoint.APPEND_EVENTS: 7, CrashPoint.APPEND_INBOX: 7},
    "with rows": {CrashPoint.APPEND_SNAPSHOT: 1, CrashPoint.APPEND_ROWS: 9, CrashPoint.APPEND_FLUSHING: 1},
    "around the commit": {CrashPoint.APPEND_READY: 8, CrashPoint.APPEND_COMMITTED: 8, CrashPoint.APPEND_ANCHORED: 8},
    "takeover and replies": {CrashPoint.TAKE_BUMPED: 1, CrashPoint.TAKE_COMMITTED: 1, CrashPoint.PUBLISHED: 9},
    "open turns": {CrashPoint.TURN_JOURNALED: 3, CrashPoint.STEP_RAN: 2, CrashPoint.TIMER_ACCEPTED: 1},
    "sends": {CrashPoint.OUTBOX_SENT: 2, CrashPoint.OUTBOX_ACCEPTED: 2, CrashPoint.OUTBOX_ACKNOWLEDGED: 2},
    "tells": {CrashPoint.TELL_ACCEPTED: 3, CrashPoint.TELL_ACKNOWLEDGED: 3},
    "planned handover": {CrashPoint.HANDOVER_DRAINED: 1},
}
"""Points that a worker reaches under load, and the how many-th time it dies there."""
ELSEWHERE = {
    "tests/crash/test_crash_keeping.py": (
        CrashPoint.MIGRATION_STATEMENT, CrashPoint.ARCHIVE_READY, CrashPoint.COPY_FILLED, CrashPoint.EXPORT_WRITTEN,
    ),
    "tests/crash/test_crash_erase.py": tuple(point for point in CrashPoint if point.value.startswith("erase.")),
    "tests/crash/test_crash_projector.py": tuple(point for point in CrashPoint if point.value.startswith(("view.", "rebuild."))),
    "tests/unit/graph/test_freeing.py": (CrashPoint.GRAPH_FREE_READY,),
    "tests/unit/graph/test_rebasing.py": (CrashPoint.GRAPH_REBASE_READY,),
    "tests/fault/test_keep_kill.py": tuple(point for point in CrashPoint if point.value.startswith("restore.")),
}  # fmt: skip


class Field:
    """One server and one worker that never dies, for all groups; and all that was ever asked of them."""

    def __init__(self, folder: Path) -> None:
        self.effects = folder / "effects"
        self.folder = folder
        self.workers = Workers(folder, app="tests.support.busy_bank:app", environment={"BUSY_SMALL": "1", EFFECTS: str(self.effects)})
        self.asked: list[Asked] = []
        self.told: list[Told] = []


@pytest.fixture(scope="module")
def field(_nats_program: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    made = Field(tmp_path_factory.mktemp("crash-points"))
    made.workers.server.start()
    try:
        made.workers.start("survivor")
        wait_until(lambda: made.workers.shares() == {"survivor": SHARDS}, "the survivor owns all shards", 60.0)
        yield made
    finally:
        made.workers.stop()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("group", GROUPS)
async def test_a_worker_killed_at_a_crash_point_loses_and_doubles_nothing(field: Field, group: str) -> None:
    points, workers = GROUPS[group], field.workers
    marks = {point: field.folder / f"died-{point.value}" for point in points}
    prefix = f"g{list(GROUPS).index(group)}"
    async with connected(workers) as client:
        async with BusyLoad(client, seed=len(field.asked), prefix=prefix, tellers=8) as load:
            await load.more(20)
            victims = [workers.start(f"victim-{point.name}", environment(point, marks[point], n)) for point, n in points.items()]
            if group == "planned handover":
                await wait_until_async(lambda: len(set(workers.owners().values())) == 2, "the victim owns shards", 30.0)
                victims[0].send(signal.SIGTERM)
            await wait_until_async(lambda: all(mark.exists() for mark in marks.values()), f"all are dead: {marks}", 60.0)
            await wait_until_async(lambda: all(victim.code is not None for victim in victims), "all are gone", 30.0)
            for victim in victims:
                assert victim.code == -9, victim.text
                workers.running = {name: process for name, process in workers.running.items() if process is not victim}
            await wait_until_async(lambda: workers.shares() == {"survivor": SHARDS}, "the survivor owns all shards", 30.0)
            await load.more(50)
        assert load.problems == []
        field.asked += load.asked
        field.told += load.told
        await wait_until_async(lambda: at_rest(workers.log), "the log is at rest", 30.0)
    problems, counts = judge(workers.log, field.asked, field.told, effects(field.effects))
    assert problems == []
    assert min(counts.sends, counts.steps, counts.timers, counts.told, counts.asks) > 0, counts


def test_every_crash_point_is_exercised() -> None:
    """A point that no process dies at is an untested promise."""
    exercised = [point for points in GROUPS.values() for point in points] + [point for points in ELSEWHERE.values() for point in points]
    assert sorted(exercised) == sorted(CrashPoint)
    for path in ELSEWHERE:
        assert "environment(" in Path(path).read_text()
