"""A short run of the crash loop. The long one: ``python -m tests.crash.crash_loop --minutes 10 --workers 4 --seed 1``."""

from pathlib import Path

import pytest

from tests.crash.crash_loop import run_once

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.usefixtures("_nats_program")]


def test_a_short_crash_loop_finds_nothing(tmp_path: Path) -> None:
    """Two rounds: a pause with a kill, and a kill. How soon the throughput is back is measured by hand, on a quiet machine."""
    result = run_once(tmp_path, seed=3, seconds=16.0, workers=3)
    print("\n".join(result.lines()))
    assert result.problems == []
    assert result.windows
    assert sum(result.signals.values()) >= 2
    assert min(result.counts.told, result.counts.sends, result.counts.asks, result.counts.steps, result.counts.timers) > 0
