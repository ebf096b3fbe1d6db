"""1,000 concurrent asks over two workers, and kill -9 of one of them under way: ``python -m tests.crash.kill_run --runs 20 --seed 1``.

Each run prints one line. Everything random comes from the seed but the moment at which processes happen to be where: the log is judged by
`tests.support.checker`, which shares no code with Cuebook.
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
from pathlib import Path
from typing import NamedTuple

import nats
import nats.errors
from nats.aio.client import Client

from tests.support.checker import Asked, check, fnv1a
from tests.support.deployment import Deployment
from tests.support.wire import Answer, ask

ASKS = 1_000
ACCOUNTS = 40
DEADLINE_S = 30.0
ATTEMPT_S = 1.0
AGAIN = (429, 503, 520)


class Result(NamedTuple):
    """One run. waiting: asks of the killed worker without an answer at that moment. repeated: asks that were sent more than once."""

    seed: int
    killed_after: int
    waiting: int
    shards: tuple[int, ...]
    repeated: int
    refused: int
    seconds: float
    slowest_s: float
    problems: list[str]
    ledger: list[Asked]

    def line(self) -> str:
        verdict = "ok" if not self.problems else f"{len(self.problems)} PROBLEMS: " + "; ".join(self.problems[:10])
        return (
            f"seed {self.seed}: killed the owner of shards {list(self.shards)} after {self.killed_after} replies, "
            f"{self.waiting} of its asks waiting, "
            f"{self.repeated} asked again, {self.refused} refused, slowest {self.slowest_s:.2f} s, {self.seconds:.1f} s: {verdict}"
        )


class _Run:
    def __init__(self, seed: int, deployment: Deployment) -> None:
        # Not a secret, and not the state of anybody else.
        self._random = random.Random(seed)
        self._deployment = deployment
        self._kill_after = self._random.randint(ASKS // 10, ASKS * 9 // 10)
        self._owners = deployment.wait_balanced()
        self._names = [f"a{number}" for number in range(ACCOUNTS)]
        self._unanswered: Counter[int] = Counter()
        """Asks under way by the pid of their owner."""
        self._killed = 0
        self._answers = 0
        self._waiting = 0
        self._repeated = 0
        self._slowest = 0.0

    async def play(self, seed: int) -> Result:
        began = time.monotonic()
        client = await nats.connect(self._deployment.nats_url)
        try:
            orders = [self._order(number) for number in range(ASKS)]
            self._unanswered.update(self._owner_of(order) for order in orders)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._until_answered(client, order)) for order in orders]
            # What follows are new asks, that do not count.
            repeated, slowest = self._repeated, self._slowest
            ledger, problems = [], []
            for order, task in zip(orders, tasks, strict=True):
                answer = task.result()
                if answer is None:
                    problems.append(f"{order.stream}: {order.command_id} was never answered")
                elif answer.code is None and isinstance(answer.body, int):
                    ledger.append(order._replace(balance=answer.body))
                elif answer.code == 409 and answer.body["error"] == "rejected" and order.method == "withdraw":
                    ledger.append(order)
                else:
                    problems.append(f"{order.stream}: {order.command_id} was answered {answer}")
            # Ids that were done again: the same answer, and nothing more in the log. (A refusal is not remembered, S24.)
            for asked in self._random.sample([asked for asked in ledger if asked.balance is not None], 50):
                again = await self._until_answered(client, asked)
                if again is None or again.body != asked.balance:
                    problems.append(f"{asked.stream}: {asked.command_id} was answered {asked.balance}, then {again}")
        finally:
            await client.close()
        self._deployment.stop()
        shards = tuple(sorted(shard for shard, pid in self._owners.items() if pid == self._killed))
        problems += check(self._deployment.data / "log", ledger)
        return Result(
            seed, self._kill_after, self._waiting, shards, repeated, sum(asked.balance is None for asked in ledger),
            time.monotonic() - began, slowest, problems, ledger,
        )  # fmt: skip

    def _order(self, number: int) -> Asked:
        method = "withdraw" if self._random.random() < 0.2 else "deposit"
        return Asked(f"account/{self._random.choice(self._names)}", f"c{number}", method, self._random.randint(1, 100), None)

    async def _until_answered(self, client: Client, order: Asked) -> Answer | None:
        began = time.monotonic()
        deadline = {"Cue-Deadline": str(int((time.time() + DEADLINE_S) * 1_000))}
        tail = f"{order.stream.replace('/', '.')}.{order.method}.{order.command_id}"
        attempts = 0
        while (left := began + DEADLINE_S - time.monotonic()) > 0:
            attempts += 1
            self._repeated += attempts == 2
            try:
                answer = await ask(client, tail, {"cents": order.cents}, headers=deadline, timeout_s=min(ATTEMPT_S, left))
            except nats.errors.NoRespondersError:
                await asyncio.sleep(0.05)
                continue
            except (nats.errors.TimeoutError, TimeoutError):
                continue
            if answer.code in AGAIN:
                await asyncio.sleep(0.05)
                continue
            self._answered(order, time.monotonic() - began)
            return answer
        return None

    def _owner_of(self, order: Asked) -> int:
        return self._owners[fnv1a(order.stream.replace("/", "")) % len(self._owners)]

    def _answered(self, order: Asked, seconds: float) -> None:
        self._answers += 1
        self._slowest = max(self._slowest, seconds)
        self._unanswered[self._owner_of(order)] -= 1
        if self._answers == self._kill_after:
            # The busier one: a kill of one that has answered everything would prove little.
            ((self._killed, self._waiting),) = self._unanswered.most_common(1)
            # Not reaped by anybody yet, so the pid is still that of our worker.
            os.kill(self._killed, signal.SIGKILL)


def run_once(folder: Path, seed: int) -> Result:
    """One run in an empty folder. The log is left there, its deployment stopped."""
    with Deployment(folder / "data") as deployment:
        return asyncio.run(_Run(seed, deployment).play(seed))


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=None, help="of the first run; the others count on (default: from the clock)")
    parser.add_argument("--keep", type=Path, help="folder in which the logs of failed runs are kept")
    options = parser.parse_args(argv)
    first = int(time.time()) if options.seed is None else options.seed
    failed = 0
    for seed in range(first, first + options.runs):
        with tempfile.TemporaryDirectory(prefix="cuebook-kill-") as folder:
            result = run_once(Path(folder), seed)
            print(result.line(), flush=True)
            failed += bool(result.problems)
            if result.problems and options.keep is not None:
                Path(folder).rename(options.keep / f"seed-{seed}")
                Path(folder).mkdir()
    print(f"{options.runs - failed} of {options.runs} runs without a problem")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
