"""The bench verb."""

from typing import Annotated

from cyclopts import Parameter

from ops import event_loop, log_setup
from ops.commands.common import DEFAULTS, Common
from ops.exits import CommandError, Exit
from ops.output import progress


def bench(
    *names: Annotated[str, Parameter(help="Rows: nats-100, or a beginning of several: nats (default: all but memory-recall-100k).")],
    rows: Annotated[str, Parameter(help="The same as one list: nats-100,replay.")] = "",
    quick: Annotated[bool, Parameter(negative="", help="Small preparations and short samples: whether it runs, not how fast.")] = False,
    check: Annotated[bool, Parameter(negative="", help="Exit 1 if a row does not reach half of its target, twice in a row.")] = False,
    markdown: Annotated[bool, Parameter(negative="", help="Print the table as PERFORMANCE.md has it.")] = False,
    seconds: Annotated[float | None, Parameter(help="How long one sample takes (default: 1; quick: 0.1).")] = None,
    rounds: Annotated[int | None, Parameter(help="Samples per case; the median counts (default: 5; quick: 2).")] = None,
    common: Common = DEFAULTS,
) -> None:
    """Measure speed beside the raw limits of this machine.

    Needs no deployment: it starts its own below --data, and removes it.
    Compare ratios only, and only of one run: disks and neighbours vary.

    Example: cuebook bench in-process nats-100 --rounds 3
    """
    from ops.bench.measure import FULL, QUICK
    from ops.bench.report import below_half, bench_folder, machine_facts, print_facts, print_results
    from ops.bench.report import bench as measure
    from ops.bench.report import markdown as as_markdown
    from ops.bench.table import MEASURES, selected

    seconds = (0.1 if quick else 1.0) if seconds is None else seconds
    rounds = (2 if quick else 5) if rounds is None else rounds
    if not 0 < seconds <= 60 or not 1 <= rounds <= 100:
        raise CommandError("the bench cannot run so", why="--seconds is above 0 and at most 60, --rounds 1 to 100", code=Exit.USAGE)
    if quick and check:
        raise CommandError("--quick measures too little to be judged", next_step="cuebook bench --check", code=Exit.USAGE)
    try:
        chosen = selected([*names, *(name.strip() for name in rows.split(",") if name.strip())])
    except ValueError as error:
        known = ", ".join(each.name for each in MEASURES)
        raise CommandError(f"there is no row {error}", why=f"there are {known}", code=Exit.USAGE) from None
    settings = common.load().settings
    scale = QUICK if quick else FULL
    with bench_folder(settings.data) as folder:
        log_setup.configure("bench", data=None, level="warning")
        facts = machine_facts(folder) | ({"quick": True} if quick else {})
        if not markdown:
            print_facts(facts, json=common.json)
        run = measure(chosen, folder=folder, rounds=rounds, seconds=seconds, progress=progress, scale=scale)
        results = event_loop.run(run)
        if markdown:
            print(as_markdown(facts, results))
        else:
            print_results(results, json=common.json)
        if not check or not (failed := below_half(results, chosen)):
            return
        progress(f"below half of the target: {', '.join(each.name for each in failed)}; once more")
        again = folder / "again"
        again.mkdir()
        results = event_loop.run(measure(failed, folder=again, rounds=rounds, seconds=seconds, progress=progress, scale=scale))
        print_results(results, json=common.json)
        if failed := below_half(results, failed):
            names_failed = ", ".join(each.name for each in failed)
            raise CommandError(
                f"below half of the target, twice: {names_failed}", why="ops/docs/PERFORMANCE.md says what each row measures"
            )
