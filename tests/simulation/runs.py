"""Many seeds, in one process or several."""

from collections import Counter
from collections.abc import Iterator
from multiprocessing import get_context

from tests.simulation.checkers import violations
from tests.simulation.world import simulate


def check(seed: int) -> tuple[int, list[str], dict[str, int], int]:
    """Seed, what is wrong, what was done to it, how many callbacks ran."""
    history, _ = simulate(seed)
    counts = Counter(history.counts)
    counts["operations"] = len(history.operations)
    counts["answers"] = len(history.told)
    counts["events"] = sum(map(len, history.events.values()))
    counts["steps executed"] = len(history.executed)
    counts["virtual seconds"] = int(history.seconds)
    return seed, violations(history), dict(counts), history.steps


def results(seeds: range, jobs: int) -> Iterator[tuple[int, list[str], dict[str, int], int]]:
    if jobs == 1:
        yield from map(check, seeds)
        return
    with get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(check, seeds, chunksize=20)
