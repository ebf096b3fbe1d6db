"""Running a selection of measures, judging them, and what is printed."""

import gc
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import msgspec

from ops.bench.measure import FULL, Case, Measure, Result, Scale, Setting, Unavailable, result, run_rounds, unmeasured
from ops.bench.table import preparation
from ops.output import print_json, print_record, print_rows, wants_json
from ops.private_files import make_private_folder

COLUMNS = ("measure", "figure", "target", "good", "mark", "per_s", "limit", "limit_per_s", "p50", "p99", "spread")


async def bench(
    measures: Sequence[Measure],
    *,
    folder: Path,
    rounds: int,
    seconds: float,
    progress: Callable[[str], None],
    scale: Scale = FULL,
) -> list[Result]:
    """Measure all of `measures`, theme by theme, each with its limit in the same rounds. folder: empty, on the disk that matters."""
    themes = [(theme, list(rows)) for theme, rows in groupby(measures, key=lambda measure: measure.theme)]
    results: list[Result] = []
    for number, (theme, rows) in enumerate(themes, 1):
        place = folder / f"{number}-{theme}"
        place.mkdir()

        def say(text: str, prefix: str = f"{number} of {len(themes)}, {theme}") -> None:
            progress(f"{prefix}: {text}")

        say("preparing")
        wanted = frozenset(name for row in rows for name in row.cases)
        setting = Setting(folder=place, seconds=seconds, wanted=wanted, scale=scale, progress=say)
        results += await _theme(rows, setting, rounds)
        shutil.rmtree(place, ignore_errors=True)
        gc.collect()
    return results


async def _theme(rows: Sequence[Measure], setting: Setting, rounds: int) -> list[Result]:
    async with preparation(rows[0].theme)(setting) as made:
        lacking = {name: case.reason for name, case in made.items() if isinstance(case, Unavailable)}
        possible = [row for row in rows if not any(name in lacking for name in row.cases)]
        wanted = {name for row in possible for name in row.cases}
        cases: dict[str, Case] = {name: case for name, case in made.items() if name in wanted and not isinstance(case, Unavailable)}
        found = await run_rounds(
            cases, rounds=rounds, seconds=setting.seconds, on_round=lambda number: setting.progress(f"round {number} of {rounds}")
        )
    return [
        result(row, found) if row in possible else unmeasured(row, next(lacking[name] for name in row.cases if name in lacking))
        for row in rows
    ]


def below_half(found: Sequence[Result], measures: Sequence[Measure]) -> list[Measure]:
    """The measures whose figure does not reach half of its target, or is more than twice what it may be.

    What was not measured, or has no target, is not judged.
    """
    by_name = {each.name: each for each in measures}
    failed = []
    for row in found:
        measure = by_name[row.measure]
        if row.figure is not None and measure.target is not None:
            bound = measure.target / 2 if measure.more_is_better else measure.target * 2
            if not measure.reaches(row.figure, bound):
                failed.append(measure)
    return failed


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
    from ops.event_loop import loop_name
    from ops.versions import distribution_version, nats_server_version, sqlite_version

    return {
        "cpu": cpu_name(),
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
        "aiosqlite": distribution_version("aiosqlite"),
        "uvloop": distribution_version("uvloop"),
    }


def cpu_name() -> str:
    """What the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


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
        return
    print_rows([_shown(each) for each in results], json=json, columns=COLUMNS)
    for each in results:
        if each.unavailable:
            print_rows([{"not measured": f"{each.measure}: {each.unavailable}"}], json=json)


def markdown(facts: dict[str, object], results: Sequence[Result]) -> str:
    """The machine and the rows as PERFORMANCE.md shows them."""
    lines = ["; ".join(f"{name} {value}" for name, value in facts.items()), ""]
    lines += ["| row | figure | target | good | | ours | limit | spread |", "|---|---:|---:|---:|---|---:|---|---:|"]
    for each in results:
        if each.unavailable:
            lines.append(f"| `{each.measure}` | | | | not measured | | {each.limit} | |")
            continue
        shown = {name: "" if value is None else str(value) for name, value in _shown(each).items()}
        limit = f"{each.limit}: {shown['limit_per_s']}" if each.limit else ""
        ours = shown["per_s"] and f"{shown['per_s']}/s"
        cells = [shown["figure"], shown["target"], shown["good"], shown["mark"], ours, limit, shown["spread"]]
        lines.append(f"| `{each.measure}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _shown(each: Result) -> dict[str, object]:
    lag = each.unit == "ms"
    return {
        "measure": each.measure, "figure": _figure(each.figure, each.unit), "target": each.target, "good": each.good, "mark": each.mark,
        "per_s": _rate(each.per_s), "limit": each.limit or None,
        "limit_per_s": _time(each.limit_lag_us) if lag else _rate(each.limit_per_s), "p50": _time(each.p50_us), "p99": _time(each.p99_us),
        "spread": None if each.spread is None else f"{each.spread:.0%}",
    }  # fmt: skip


def _figure(figure: float | None, unit: str) -> str | None:
    if figure is None:
        return None
    return f"{figure:,.0f} bytes" if unit == "bytes" else f"{figure:.2f} {unit}"


def _rate(per_s: float | None) -> str | None:
    return f"{per_s:,.0f}" if per_s else None


def _time(us: float | None) -> str | None:
    if us is None:
        return None
    return f"{us:.0f} us" if us < 1_000 else f"{us / 1_000:.1f} ms"
