"""A real review computes what its memos keep once: counted on the calls that it makes."""

from pathlib import Path

import pytest

from events.memo import clear_memos, memo_statistics
from ops.bench.memo import GROUPS, copied_package, reviewed

pytestmark = pytest.mark.timeout(120)


async def test_memos_spare_a_review_more_than_half_of_its_computations(tmp_path: Path) -> None:
    """The claim of -50 %, on the trace of a review that was asked for in words: of the classifier's, the capabilities' and the registry's
    computations each at least half are spared, and what is repeated is not computed again at all, since everything fits."""
    found = await reviewed(copied_package(tmp_path), tmp_path / "log")
    for group, names in GROUPS.items():
        calls = sum(found[name].hits + found[name].misses for name in names)
        computed = sum(found[name].misses for name in names)
        print(f"{group}: {calls:,} asked for, {computed:,} computed, {1 - computed / calls:.0%} spared")
        assert calls >= 3
        assert computed <= calls / 2, group
        assert all(found[name].misses == found[name].entries for name in names), "computed once each"
    types = found["types of results"]
    assert types.misses < types.hits / 2, "one computation for each function of a step, not for each step"
    asked = found["classifications"]
    assert (asked.misses, asked.hits) == (1, 2), "routed, planned, and planned again"


async def test_without_its_memos_the_same_review_would_compute_every_time(tmp_path: Path) -> None:
    """The count is of calls: emptying the memos at every commit brings the computations back."""
    code = copied_package(tmp_path)
    kept = await reviewed(code, tmp_path / "kept")
    names = [name for names in GROUPS.values() for name in names]
    computed = dict.fromkeys(names, 0)
    lost = await reviewed(code, tmp_path / "lost", on_events=lambda _: forget(computed))
    assert sum(computed.values()) + sum(lost[name].misses for name in names) > 2 * sum(kept[name].misses for name in names)


def forget(computed: dict[str, int]) -> None:
    for name, counts in memo_statistics().items():
        if name in computed:
            computed[name] += counts.misses
    clear_memos()
