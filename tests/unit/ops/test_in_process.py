"""What several processes say of their memos and of their own tier of the step cache, added up."""

from pathlib import Path
from typing import Any

import pytest

from ops import in_process as module
from ops.in_process import InProcess, MemoTally, RecentTally, findings, in_process
from ops.settings import Settings


def process(hits: int, misses: int, entries: int, **namespaces: dict[str, int]) -> dict[str, Any]:
    memo = {"hits": hits, "misses": misses, "entries": entries, "entries_max": 64}
    return {"memos": {"seconds as text": memo}, "step_cache": {"namespaces": namespaces} if namespaces else None}


COUNTS = {"recent": 6, "served": 3, "missed": 1, "waited": 2, "refused": 0}
NONE = dict.fromkeys(COUNTS, 0)


def test_hits_and_misses_are_summed_and_the_rate_is_of_the_sum() -> None:
    said = [process(90, 10, 10, response=COUNTS, api=NONE), process(0, 100, 64, response=COUNTS), process(0, 0, 0)]
    assert module._memos(said) == [
        MemoTally(memo="seconds as text", processes=3, hits=90, misses=110, rate=0.45, entries=64, entries_max=64)
    ]
    assert module._recent(said) == [
        RecentTally(namespace="response", recent=12, served=6, missed=2, waited=4, refused=0, rate=0.6)
    ], "what was never asked is not shown"
    assert InProcess(processes=3, memos=module._memos(said), recent=[]).line == "memos 45% of 200 calls"


def test_a_process_of_another_release_may_say_nothing() -> None:
    assert module._memos([{}, {"memos": None}]) == []
    assert module._recent([{}, {"step_cache": None}]) == []
    assert InProcess(processes=2, memos=[], recent=[]).line is None


async def test_where_nothing_runs_nobody_is_asked(tmp_path: Path) -> None:
    assert await in_process(Settings(data=tmp_path)) == InProcess(processes=0, memos=[], recent=[])
    assert await findings(Settings(data=tmp_path)) == []


@pytest.mark.parametrize(
    ("hits", "misses", "entries", "is_named"), [(1_000, 9_500, 64, True), (1_000, 9_500, 63, False), (9_000, 1_000, 64, False)]
)
async def test_doctor_names_a_memo_that_is_full_and_seldom_hits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hits: int, misses: int, entries: int, is_named: bool
) -> None:
    async def asked(settings: Settings) -> InProcess:
        return InProcess(processes=1, memos=module._memos([process(hits, misses, entries)]), recent=[])

    monkeypatch.setattr(module, "in_process", asked)
    checks = [each.check for each in await findings(Settings(data=tmp_path))]
    assert checks == ["memos", *(["memo seconds as text"] if is_named else [])]
