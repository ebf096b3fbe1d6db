"""kill -9 in the middle of a LangGraph run (S38): it goes on from the last committed checkpoint, and what was stored is not done again."""

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from events.crash_points import CrashPoint
from events.keeping.verify import verify
from tests.support.crashing import environment
from tests.support.graph_run import CONFIG, EXPECTED, Telling, run

pytestmark = [pytest.mark.crash, pytest.mark.slow]

COMMITS = 12
"""At most so many commits make one run, so that each place in it is died at."""


def killed(folder: Path, effects: Path, point: CrashPoint, n: int) -> bool:
    """Whether a process died at `point` for the n-th time; False if it came to its end before."""
    mark = folder.with_suffix(".mark")
    ended = subprocess.run(
        [sys.executable, "-m", "tests.support.graph_run", str(folder), str(effects)],
        env={**os.environ, **environment(point, mark, n)}, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert mark.exists() or ended.returncode == 0, ended.stderr.decode()[-2_000:]
    if mark.exists():
        assert ended.returncode == -signal.SIGKILL
    return mark.exists()


def counted(effects: Path) -> Counter[str]:
    return Counter(effects.read_text().split()) if effects.exists() else Counter()


@pytest.mark.parametrize("n", range(1, COMMITS + 1))
@pytest.mark.parametrize("point", [CrashPoint.APPEND_READY, CrashPoint.APPEND_COMMITTED])
async def test_s38_a_killed_run_goes_on_from_what_is_stored(tmp_path: Path, point: CrashPoint, n: int) -> None:
    folder, effects = tmp_path / "threads", tmp_path / "effects"
    died = await asyncio.to_thread(killed, folder, effects, point, n)
    if not died:
        pytest.skip("the run had fewer commits")
    assert verify(folder / "log") == []
    before = counted(effects)
    stored: set[str] = set()
    async with Telling.open(folder) as saver:
        found = await saver.aget_tuple(CONFIG)
        if found is not None:
            stored |= set(found.checkpoint["channel_values"].get("log", []))
            stored |= {name for _, channel, value in found.pending_writes or () if channel == "log" for name in value}
    log = await run(folder, effects)
    assert log == EXPECTED
    after = counted(effects)
    for name in ("first", "fast", "slow", "last"):
        # Done once if its result was stored; else again, as nobody can know whether it was done.
        assert after[name] == before[name] + (name not in stored), (name, before, stored)
        assert after[name] <= 2
    assert verify(folder / "log") == []


async def test_s38_fast_is_not_done_again_when_only_slow_is_missing(tmp_path: Path) -> None:
    """The case by name: two nodes at once, one result stored as a pending write, then death."""
    folder, effects = tmp_path / "threads", tmp_path / "effects"
    program = f"""
import asyncio, os, signal, sys
from pathlib import Path
from tests.support import graph_run
class Dying(graph_run.Telling):
    async def aput_writes(self, config, writes, task_id, task_path=""):
        await super().aput_writes(config, writes, task_id, task_path)
        if ("log", ["fast"]) in list(writes):
            os.kill(os.getpid(), signal.SIGKILL)
graph_run.Telling = Dying
asyncio.run(graph_run.run(Path({str(folder)!r}), Path({str(effects)!r})))
"""
    ended = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], capture_output=True, timeout=120, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()[-2_000:]
    assert counted(effects) == {"first": 1, "fast": 1}
    assert await run(folder, effects) == EXPECTED
    assert counted(effects) == {"first": 1, "fast": 1, "slow": 1, "last": 1}
