"""``python -m tests.simulation --seed N -v`` replays one seed and prints what happened; ``--seeds N --jobs J`` is the long run."""

import argparse
import sys
import time
import warnings
from collections import Counter

from tests.simulation.checkers import violations
from tests.simulation.runs import results
from tests.simulation.world import simulate

_EVERY_S = 10.0


def replay(seed: int, verbose: bool) -> int:
    history, trace = simulate(seed, verbose=verbose)
    for line in trace:
        print(line)
    found = violations(history)
    print(f"seed {seed}: {history.steps} callbacks, {history.seconds:.1f} virtual seconds, {history.counts}")
    for line in found:
        print(f"  {line}")
    return 1 if found else 0


class Progress:
    """A line to stderr every ten seconds: how many seeds are done, how fast, how long the rest will take, how many failed."""

    def __init__(self, seeds: int) -> None:
        self._seeds = seeds
        self._began = self._last = time.monotonic()

    def note(self, ran: int, failed: int) -> None:
        """So many are done."""
        now = time.monotonic()
        if now - self._last >= _EVERY_S:
            self._last = now
            rate = ran / (now - self._began)
            left_s = int((self._seeds - ran) / rate)
            said = f"{ran:,} of {self._seeds:,} seeds, {rate:.2f}/s, {left_s // 60}:{left_s % 60:02} left, {failed} with a violation"
            print(said, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run one seed")
    parser.add_argument("--seeds", type=int, default=200, help="run so many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("-v", "--verbose", action="store_true", help="print the trace of --seed")
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # what a failed run leaves behind is not worth reading
    if given.seed is not None:
        return replay(given.seed, given.verbose)
    began = time.monotonic()
    progress = Progress(given.seeds)
    totals: Counter[str] = Counter()
    failed: dict[int, list[str]] = {}
    ran = 0
    for seed, found, counts, steps in results(range(given.first, given.first + given.seeds), given.jobs):
        ran += 1
        totals.update(counts)
        totals["callbacks"] += steps
        if found:
            failed[seed] = found
            print(f"seed {seed}: {found[0]}", file=sys.stderr, flush=True)
        progress.note(ran, len(failed))
    for seed, found in sorted(failed.items()):
        print(f"seed {seed}: {found[0]}{f' (and {len(found) - 1} more)' if len(found) > 1 else ''}")
        print(f"    replay: python -m tests.simulation --seed {seed} -v")
    seconds = time.monotonic() - began
    print(f"{ran} seeds, {len(failed)} with a violation, {seconds:.1f} s, {ran / seconds:.1f} seeds/s")
    print(", ".join(f"{name} {count:,}" for name, count in sorted(totals.items())))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
