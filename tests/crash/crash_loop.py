"""Random deaths and pauses under load, then a judgement: ``python -m tests.crash.crash_loop --minutes 10 --workers 4 --seed 1``.

A deployment as users run it, `cuebook up` with N workers, under asks with ids, tells, sends between actors, asks between actors, timers
and steps. Rounds of trouble: SIGKILL of workers in bursts, SIGSTOP and later SIGCONT (a zombie), SIGKILL of nats-server, all of them mixed.
After each round a quiet window, in which the throughput must come back. In the end the files are judged by `tests.support.effects`, which
shares no code with Cuebook, and by ``cuebook replay --verify``.

The seed fixes what is done and when it is decided, not where the processes are at that moment.
"""

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import nats

from runtime.wire import iso_time
from tests.support.busy_bank import EFFECTS, effects
from tests.support.busy_load import BusyLoad
from tests.support.deployment import Deployment, run_cuebook, wait_until_async
from tests.support.effects import Counts, judge
from tests.support.rest import at_rest

QUIET_S = 10.0
SHARE = 0.8
"""Of the throughput before the trouble: what counts as back."""
AFTER_KILL_S, AFTER_STOP_S = 2.0, 7.0
AFTER_MUCH_S = 12.0
"""Where all workers or the server died: they must be started first, with a backoff."""
BUCKET_S = 0.5
KINDS = {"kill": 4, "burst": 4, "stop": 5, "mixed": 3, "server": 2, "all": 1}
"""What a round may be, and how often in relation to the others."""


class Window(NamedTuple):
    """One quiet window: what had happened, and how long it took until the throughput was back."""

    trouble: str
    bound_s: float
    before: float
    rates: tuple[float, ...]
    """Answers per second from the trouble on, one per bucket."""
    recovered_s: float | None

    @property
    def met(self) -> bool:
        return self.recovered_s is not None and self.recovered_s <= self.bound_s

    def line(self) -> str:
        took = "not within the window" if self.recovered_s is None else f"{self.recovered_s:.1f} s"
        verdict = "ok  " if self.met else "LATE"
        line = f"  {verdict} {self.trouble:<36} back at 80 % of {self.before:.0f}/s after {took} (bound {self.bound_s:.0f} s)"
        return line if self.met else f"{line}; each {BUCKET_S:g} s {' '.join(f'{rate:.0f}' for rate in self.rates)}"


class Result(NamedTuple):
    """One run."""

    seed: int
    signals: Counter[str]
    windows: list[Window]
    counts: Counts
    again: Counter[str]
    slowest_s: float
    seconds: float
    problems: list[str]

    def lines(self) -> list[str]:
        late = sum(not window.met for window in self.windows)
        return [
            *(window.line() for window in self.windows),
            f"seed {self.seed}: {self.seconds:.0f} s, signals {dict(self.signals)}",
            f"  {self.counts}",
            f"  sent again: {dict(self.again)}; slowest answer {self.slowest_s:.1f} s; {late} of {len(self.windows)} windows late",
            *(f"  PROBLEM {problem}" for problem in self.problems[:20]),
            f"  {len(self.problems)} violations",
        ]


class Trouble(NamedTuple):
    """What a round did. last: monotonic time of its last SIGKILL or SIGSTOP; at: that by the wall clock, for the log files."""

    what: str
    bound_s: float
    last: float
    at: float


def trouble(what: str, bound_s: float) -> Trouble:
    """A round whose last signal was just sent."""
    return Trouble(what, bound_s, time.monotonic(), time.time())


class CrashLoop:
    """See the module."""

    def __init__(self, deployment: Deployment, load: BusyLoad, seed: int, kinds: Mapping[str, int] = KINDS) -> None:
        self._kinds = kinds
        # Not a secret, and not the state of anybody else.
        self._random = random.Random(seed)
        self._deployment = deployment
        self._load = load
        self._stopped: dict[int, int] = {}
        """pid to pidfd of those that SIGSTOP holds."""
        self.signals: Counter[str] = Counter()
        self.windows: list[Window] = []

    async def run(self, seconds: float) -> None:
        """Rounds until the time is over; the last one ends whole."""
        end = time.monotonic() + seconds
        await self._calm()
        before = await self._measure()
        while time.monotonic() < end:
            done = await self._round()
            await asyncio.sleep(max(0.0, done.last + QUIET_S - time.monotonic()))
            rates = self._rates(done.last)
            self.windows.append(Window(done.what, done.bound_s, before, rates, _recovered(rates, before)))
            print(f"{iso_time(int(done.at * 1e6))} {self.windows[-1].line()}", flush=True)
            self._wake()
            await self._calm()
            before = await self._measure()

    async def _calm(self) -> None:
        """Every worker lives and every shard is owned: a window measured before says nothing about the next."""

        def calm() -> bool:
            owners = set(self._deployment.owners().values())
            return owners <= set(self._deployment.workers.values()) and len(self._deployment.owners()) == self._deployment.shards

        await wait_until_async(calm, "every shard is owned again", 60.0)

    async def _measure(self) -> float:
        start = time.monotonic()
        await asyncio.sleep(3.0)
        return self._load.per_second(start, time.monotonic())

    def _rates(self, since: float) -> tuple[float, ...]:
        count = int(QUIET_S / BUCKET_S)
        return tuple(self._load.per_second(since + n * BUCKET_S, since + (n + 1) * BUCKET_S) for n in range(count))

    # -- trouble ------------------------------------------------------------------------------------------------------------------

    async def _round(self) -> Trouble:
        kind = self._random.choices(list(self._kinds), list(self._kinds.values()))[0]
        workers = list(self._deployment.workers.values())
        self._random.shuffle(workers)
        if kind == "server":
            self._signal(self._server(), signal.SIGKILL, "kill nats-server")
            return trouble("SIGKILL of nats-server", AFTER_MUCH_S)
        if kind == "all":
            for pid in workers:
                self._signal(pid, signal.SIGKILL, "kill worker")
            return trouble(f"SIGKILL of all {len(workers)} workers", AFTER_MUCH_S)
        if kind in ("stop", "mixed") and len(workers) > 1:
            stopped = workers[: self._random.randint(1, max(1, len(workers) // 2))]
            for pid in stopped:
                self._stop(pid)
            killed = workers[len(stopped) : len(stopped) + 1] if kind == "mixed" and len(workers) > len(stopped) + 1 else []
            for pid in killed:
                await asyncio.sleep(self._random.random())
                self._signal(pid, signal.SIGKILL, "kill worker")
            what = f"SIGSTOP of {len(stopped)}" + (f", SIGKILL of {len(killed)}" if killed else "") + f" of {len(workers)}"
            return trouble(what, AFTER_STOP_S)
        count = 1 if kind == "kill" else self._random.randint(2, max(2, len(workers) - 1))
        for pid in workers[:count]:
            self._signal(pid, signal.SIGKILL, "kill worker")
            if self._random.random() < 0.5:
                await asyncio.sleep(self._random.random() * 0.3)
        return trouble(f"SIGKILL of {count} of {len(workers)}", AFTER_KILL_S)

    def _server(self) -> int:
        up = self._deployment.state.pid
        children = Path(f"/proc/{up}/task/{up}/children").read_text().split()
        return next(int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text().strip() == "nats-server")

    def _signal(self, pid: int, number: signal.Signals, what: str) -> None:
        """Children of `up`, which reaps them: until then the pid is theirs."""
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            self.signals[what] += 1

    def _stop(self, pid: int) -> None:
        with suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)
            signal.pidfd_send_signal(descriptor, signal.SIGSTOP)
            self._stopped[pid] = descriptor
            self.signals["stop worker"] += 1

    def _wake(self) -> None:
        """Those that nobody has killed meanwhile wake as zombies (S2, S3)."""
        for descriptor in self._stopped.values():
            try:
                signal.pidfd_send_signal(descriptor, signal.SIGCONT)
                self.signals["zombie woken"] += 1
            except ProcessLookupError:
                self.signals["stopped one killed for its lock"] += 1
            os.close(descriptor)
        self._stopped.clear()

    def close(self) -> None:
        self._wake()


def _recovered(rates: Sequence[float], before: float) -> float | None:
    """Seconds to the first of two buckets in a row that are back."""
    for n, (one, next_one) in enumerate(pairwise(rates)):
        if (one + next_one) / 2 >= SHARE * before:
            return n * BUCKET_S
    return None


async def play(deployment: Deployment, seed: int, seconds: float, effects_file: Path, kinds: Mapping[str, int]) -> Result:
    """One run on a deployment that is up; it is stopped, and its files are judged."""
    began = time.monotonic()
    deployment.wait_balanced()
    client = await nats.connect(deployment.nats_url, max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=_quiet)
    try:
        async with BusyLoad(client, seed, callers=24, tellers=4, accounts=40, pause_s=0.06) as load:
            loop = CrashLoop(deployment, load, seed, kinds)
            try:
                await loop.run(seconds)
            finally:
                loop.close()
        problems = list(load.problems)
        try:
            await wait_until_async(lambda: at_rest(deployment.data / "log"), "the log is at rest", 60.0)
        except AssertionError as error:
            problems.append(str(error))
    finally:
        await client.close()
    deployment.stop()
    found, counts = judge(deployment.data / "log", load.asked, load.told, effects(effects_file))
    verified = run_cuebook("replay", "--verify", "--app", "tests.support.busy_bank:app", "--data", str(deployment.data), timeout_s=300.0)
    if verified.returncode:
        problems.append(f"replay --verify: {verified.returncode}: {verified.stdout[-500:]} {verified.stderr[-500:]}")
    return Result(seed, loop.signals, loop.windows, counts, load.again, load.slowest_s, time.monotonic() - began, problems + found)


async def _quiet(error: Exception) -> None:
    """The client reconnects by itself; what that costs shows in the windows."""


def run_once(folder: Path, seed: int, seconds: float, workers: int, kinds: Mapping[str, int] = KINDS) -> Result:
    """One run in an empty folder. The log is left there, its deployment stopped."""
    file = folder / "effects"
    with Deployment(folder / "data", app="tests.support.busy_bank:app", workers=workers, environment={EFFECTS: str(file)}) as deployment:
        return asyncio.run(play(deployment, seed, seconds, file, kinds))


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=None, help="default: from the clock")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), help="only these kinds of trouble")
    parser.add_argument("--keep", type=Path, help="where the folder of a failed run is kept")
    options = parser.parse_args(argv)
    seed = int(time.time()) if options.seed is None else options.seed
    with tempfile.TemporaryDirectory(prefix="cuebook-crash-") as folder:
        kinds = {kind: KINDS[kind] for kind in options.kinds}
        result = run_once(Path(folder), seed, options.minutes * 60, options.workers, kinds)
        print("\n".join(result.lines()), flush=True)
        failed = bool(result.problems) or any(not window.met for window in result.windows)
        if failed and options.keep is not None:
            Path(folder).rename(options.keep / f"seed-{seed}")
            Path(folder).mkdir()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
