"""Running a selection of measures, and what is printed of it."""

import os
import platform
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import msgspec

from ops.bench.measure import ECHO_1, ECHO_100, SQLITE_1, SQLITE_100, SQLITE_REPLAY, Case, Measure, Result, result, run_rounds
from ops.output import print_json, print_record, print_rows, wants_json
from ops.private_files import make_private_folder

COLUMNS = ("measure", "per_s", "limit", "limit_per_s", "ratio", "target", "p50", "p99", "p99_to_p50", "spread")


async def bench(
    measures: Sequence[Measure], *, folder: Path, rounds: int, seconds: float, progress: Callable[[str], None]
) -> list[Result]:
    """Measure all of `measures`, each with its limit. folder: empty, on the disk that matters."""
    async with prepared(measures, folder, seconds) as cases:
        progress(f"{len(cases)} cases, {rounds} rounds of about {len(cases) * seconds:.0f} s")
        found = await run_rounds(cases, rounds=rounds, seconds=seconds, on_round=lambda number: progress(f"round {number} of {rounds}"))
    return [result(measure, found) for measure in measures]


@asynccontextmanager
async def prepared(measures: Sequence[Measure], folder: Path, seconds: float) -> AsyncIterator[dict[str, Case]]:
    """The cases that `measures` need, in the order in which they run; what they need is started, and stopped at the end."""
    from ops.bench.in_process import append_cases, command_cases
    from ops.bench.limits import sqlite_cases
    from ops.bench.replay import replay_cases

    wanted = {name for measure in measures for name in (measure.name, measure.limit)}
    async with AsyncExitStack() as stack:
        cases: dict[str, Case] = {}
        if wanted & {SQLITE_1, SQLITE_100}:
            cases |= sqlite_cases(folder)
        if any(name.startswith("in-process-") for name in wanted):
            cases |= await stack.enter_async_context(command_cases(folder))
        if "appends-100" in wanted:
            cases |= await stack.enter_async_context(append_cases(folder))
        if SQLITE_REPLAY in wanted:
            cases |= await stack.enter_async_context(replay_cases(folder, seconds))
        if wanted & {ECHO_1, ECHO_100}:
            from ops.bench.over_nats import nats_cases

            cases |= await stack.enter_async_context(nats_cases(folder))
        yield {name: case for name, case in cases.items() if name in wanted}


@contextmanager
def bench_folder(data: Path) -> Iterator[Path]:
    """An empty folder below `data`, so that the disk of the deployment is measured, and not a /tmp in memory. Removed at the end."""
    made = not data.exists()
    make_private_folder(data)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=data))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if made:
            data.rmdir()


def machine_facts(folder: Path) -> dict[str, object]:
    """What the figures depend on. load: the average of the last minute as the bench begins."""
    from ops.bench.limits import fsync_us
    from ops.commands.version import distribution_version, nats_server_version, sqlite_version
    from ops.event_loop import loop_name

    return {
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "loop": loop_name(),
        "sqlite": sqlite_version(),
        "fsync_us": round(fsync_us(folder), 1),
        "nats-py": distribution_version("nats-py"),
        "nats-server": nats_server_version(),
        "msgspec": distribution_version("msgspec"),
    }


def print_facts(facts: dict[str, object], *, json: bool) -> None:
    """The first line of the output; in JSON under the key `machine`."""
    if wants_json(json):
        print_json({"machine": facts})
    else:
        print_record(facts, json=json)


def print_results(results: Sequence[Result], *, json: bool) -> None:
    """One row per measure; in JSON every field, times in microseconds."""
    if wants_json(json):
        for each in results:
            print_json(msgspec.structs.asdict(each))
    else:
        print_rows([_shown(each) for each in results], json=json, columns=COLUMNS)


def _shown(each: Result) -> dict[str, object]:
    return {
        "measure": each.measure, "per_s": f"{each.per_s:,.0f}", "limit": each.limit, "limit_per_s": f"{each.limit_per_s:,.0f}",
        "ratio": f"{each.ratio:.2f}", "target": each.target, "p50": _time(each.p50_us), "p99": _time(each.p99_us),
        "p99_to_p50": f"{each.p99_us / each.p50_us:.1f}" if each.p50_us and each.p99_us else None, "spread": f"{each.spread:.0%}",
    }  # fmt: skip


def _time(us: float | None) -> str | None:
    if us is None:
        return None
    return f"{us:.0f} us" if us < 1_000 else f"{us / 1_000:.1f} ms"
