"""The bench verb."""

from typing import Annotated

from cyclopts import Parameter

from ops import event_loop, log_setup
from ops.commands.common import DEFAULTS, Common
from ops.exits import CommandError, Exit
from ops.output import progress


def bench(
    *names: Annotated[str, Parameter(help="Measures, such as nats-100, or the beginning of several, such as nats (default: all).")],
    seconds: Annotated[float, Parameter(help="How long one sample takes.")] = 1.0,
    rounds: Annotated[int, Parameter(help="Samples per measure; the median counts.")] = 5,
    common: Common = DEFAULTS,
) -> None:
    """Measure speed beside the raw limits of this machine.

    Needs no deployment: it starts its own below --data, and removes it.
    Compare ratios only, and only of one run: disks and neighbours vary.

    Example: cuebook bench in-process nats-100 --rounds 3
    """
    from ops.bench.measure import MEASURES, selected
    from ops.bench.report import bench as measure
    from ops.bench.report import bench_folder, machine_facts, print_facts, print_results

    if not 0 < seconds <= 60 or not 1 <= rounds <= 100:
        raise CommandError("the bench cannot run so", why="--seconds is above 0 and at most 60, --rounds 1 to 100", code=Exit.USAGE)
    try:
        chosen = selected(names)
    except ValueError as error:
        known = ", ".join(each.name for each in MEASURES)
        raise CommandError(f"there is no measure {error}", why=f"there are {known}", code=Exit.USAGE) from None
    settings = common.load().settings
    with bench_folder(settings.data) as folder:
        log_setup.configure("bench", data=None, level="warning")
        facts = machine_facts(folder)
        print_facts(facts, json=common.json)
        results = event_loop.run(measure(chosen, folder=folder, rounds=rounds, seconds=seconds, progress=progress))
    print_results(results, json=common.json)
