"""How many computations the memos of a process spare a review: counted on the calls that one really makes."""

import shutil
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import structlog

from actors.team import workspace_id
from events.envelope import RecordedEvent
from events.memo import MemoStatistics, clear_memos, memo_statistics
from ops.bench.measure import Cases, Sample, Setting
from ops.team_app import app
from runtime.local import local_runtime

GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "classifier": ("classifications", "patterns of words"),
    "capabilities": ("patterns of paths", "patterns of names that hold secrets"),
    "registry": ("types of results", "names of streams", "shards of actors", "shards of streams", "addresses of asks"),
}
"""What the predecessor's plan wanted memoised, and which memos that is here."""


@asynccontextmanager
async def memo_cases(setting: Setting) -> AsyncIterator[Cases]:
    """A review of an installed package, in one process, each time on a log of its own and with empty memos."""
    code = copied_package(setting.folder)
    made = 0

    async def review(_: float) -> Sample:
        nonlocal made
        made += 1
        began = time.perf_counter()
        found = await reviewed(code, setting.folder / f"log-{made}")
        calls = sum(each.hits + each.misses for each in found.values())
        spared = sum(each.hits for each in found.values())
        for group, names in GROUPS.items():
            asked = sum(found[name].hits + found[name].misses for name in names)
            setting.progress(f"{group}: {asked:,} asked for, {sum(found[name].misses for name in names):,} computed")
        return Sample(count=calls, per_s=calls / (time.perf_counter() - began), share=spared / calls)

    yield {"memo-review": review}


def copied_package(folder: Path) -> Path:
    """The files of structlog, which is always installed, without what Git or an editor would add."""
    root = folder / "structlog"
    shutil.copytree(Path(structlog.__file__).parent, root, ignore=shutil.ignore_patterns("__pycache__"))
    return root


async def reviewed(
    code: Path, log: Path, on_events: Callable[[Sequence[RecordedEvent]], None] | None = None
) -> dict[str, MemoStatistics]:
    """What the memos of `GROUPS` did while `code` was reviewed on a new log. on_events: is told of every commit."""
    async with local_runtime(app, log) as runtime:
        if on_events is not None:
            runtime.exchange.on_events = on_events
        clear_memos()
        await runtime.ask(
            f"orchestrator/{workspace_id(code)}", "review", path=str(code), out=str(log.with_suffix(".out")), timeout_s=300
        )  # fmt: skip
        found = memo_statistics()
    nothing = MemoStatistics(hits=0, misses=0, entries=0, entries_max=0)  # what no import has brought in, nobody asked
    return {name: found.get(name, nothing) for names in GROUPS.values() for name in names}
