"""The rows of the bench about the memory of a workspace, as `test_bench`. No test asserts a time of ours."""

import asyncio
import time
from pathlib import Path

import msgspec

from ops.bench.lag import watched_blocking
from ops.bench.measure import QUICK
from ops.bench.report import bench
from ops.bench.table import selected

TINY = msgspec.structs.replace(QUICK, memories=400)


async def test_recalls_and_agents_of_a_memory(tmp_path: Path) -> None:
    """What was asked finds something, and what was acknowledged is there: otherwise these cases fail."""
    rows = await bench(selected(["memory"]), folder=tmp_path, rounds=1, seconds=0.02, progress=lambda _: None, scale=TINY)
    assert list(tmp_path.iterdir()) == [], "what a theme prepares goes with it"
    found = {each.measure: each for each in rows}
    assert list(found) == [
        "memory-recall-10k", "memory-recall-10k-p99", "memory-recall-100k", "memory-recall-100k-p99", "memory-agents", "memory-blocking",
        "memory-lag",
    ]  # fmt: skip
    for each in found.values():
        assert each.unavailable is None
        assert each.figure is not None
        assert each.figure > 0
        assert each.p50_us is not None
        assert each.p99_us is not None
        assert 0 < each.p50_us <= each.p99_us
    for name in ("memory-recall-10k", "memory-recall-100k"):
        assert found[name].figure == (found[name].p50_us or 0) / 1_000
        assert found[f"{name}-p99"].figure == (found[name].p99_us or 0) / 1_000
    # A hundred are in flight, each of which does at least one.
    assert min(found[name].count for name in ("memory-agents", "memory-blocking", "memory-lag")) >= 100


def test_the_rows_whose_preparation_takes_minutes_run_only_when_they_are_asked_for() -> None:
    large = {"memory-recall-100k", "memory-recall-100k-p99"}
    assert large & {each.name for each in selected([])} == set()
    assert {each.name for each in selected(["memory-recall-100k"])} == large


async def test_a_loop_that_is_held_up_is_counted_once_for_each_beat() -> None:
    with watched_blocking() as blocked:
        for _ in range(2):
            # Due at most 10 ms after the loop was left.
            await asyncio.sleep(0)
            time.sleep(0.06)  # holds up the loop: that is what is counted
            await asyncio.sleep(0.02)
    assert blocked.seconds >= 0.08
