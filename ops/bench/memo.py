"""How many computations the memos of a process spare a review that is asked for in words: counted on the calls that one really makes."""

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import structlog

from actors.team import workspace_id
from events.envelope import RecordedEvent
from events.errors import InvariantError
from events.memo import MemoStatistics, clear_memos, memo_statistics
from ops.bench.measure import Cases, Sample, Setting
from ops.team_app import app
from runtime.local import LocalRuntime, local_runtime

GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "classifier": ("classifications",),
    "capabilities": ("paths that hold secrets",),
    "registry": ("types of results", "names of streams", "shards of actors", "shards of streams", "addresses of asks"),
}
"""What the predecessor's plan wanted memoised, and which memos that is here. Memos inside of these, such as those of compiled patterns, are
left out: they are asked only while one of these computes."""
WORDS: Final = "prüfe den Code und die Tests"
"""What is asked for: the rules of the classifier make it work for the reviewer."""


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
    """What the memos of `GROUPS` did while somebody asked for a review of `code` in words, changed the plan once and approved it, on a new
    log: routed, planned, planned again, every file read under the rules for secrets. on_events: is told of every commit."""
    async with local_runtime(app, log) as runtime:
        if on_events is not None:
            runtime.exchange.on_events = on_events
        clear_memos()
        mine: dict[str, Any] = {"session": "bench"}
        with _reports_in(log.with_suffix(".out")):
            await runtime.ask(f"router/{workspace_id(code)}", "route", text=WORDS, **mine)
            await runtime.ask("task/review", "start", goal=WORDS, root=str(code), **mine)
            await _until(runtime, "awaiting_approval", 1)
            await runtime.ask("task/review", "say", text="use the linter first", **mine)
            await _until(runtime, "awaiting_approval", 2)
            await runtime.ask("task/review", "say", text="ja, passt", **mine)
            status = await _until(runtime, "ended", 2)
        if status["outcome"] != "done":
            raise InvariantError(f"the review ended as {status['outcome']}: {status['reason']}")
        found = memo_statistics()
    nothing = MemoStatistics(hits=0, misses=0, entries=0, entries_max=0)  # what no import has brought in, nobody asked
    return {name: found.get(name, nothing) for names in GROUPS.values() for name in names}


async def _until(runtime: LocalRuntime, phase: str, version: int) -> Any:
    async with asyncio.timeout(300):
        while True:
            status = await runtime.ask("task/review", "status")
            if status["phase"] in {phase, "ended"} and status["version"] >= version:
                return status
            await asyncio.sleep(0.05)


@contextmanager
def _reports_in(folder: Path) -> Iterator[None]:
    """Where a run's review writes, in place of the user's own state folder."""
    before = os.environ.get("XDG_STATE_HOME")
    os.environ["XDG_STATE_HOME"] = str(folder)
    try:
        yield
    finally:
        del os.environ["XDG_STATE_HOME"]
        if before is not None:
            os.environ["XDG_STATE_HOME"] = before
