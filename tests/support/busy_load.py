"""Callers of `tests.support.busy_bank` on plain NATS, and the ledger of what they asked and were answered.

Everything is asked with an id and asked again under it until there is an answer (S9). Accounts start so rich that nothing is refused:
a refusal leaves nothing in the log, so a judge could not tell it from a loss.
"""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import nats.errors
from nats.aio.client import Client
from nats.js.errors import NoStreamResponseError, ServiceUnavailableError

from tests.support.checker import Asked
from tests.support.effects import Told
from tests.support.wire import Answer, ask

RICH = 10_000_000
AGAIN = (429, 503, 507, 520)
DEADLINE_S = 60.0
METHODS = {"deposit": 8, "withdraw": 2, "transfer": 3, "deposit_slowly": 2, "deposit_twice": 1, "pull": 1}
"""How often each is asked, in relation to the others."""


class BusyLoad:
    """`callers` callers that ask one thing after another, and `tellers` that tell, until `stop`; everybody waits for its last answer."""

    def __init__(
        self,
        client: Client,
        seed: int,
        *,
        callers: int = 20,
        tellers: int = 2,
        accounts: int = 24,
        pause_s: float = 0.0,
        methods: dict[str, int] = METHODS,
        prefix: str = "",
    ) -> None:
        # Not a secret, and not the state of anybody else.
        self._random = random.Random(seed)
        self._client = client
        self._callers, self._tellers, self._pause_s = callers, tellers, pause_s
        self._methods = methods
        self._prefix = prefix
        self._accounts = [f"{prefix}a{number}" for number in range(accounts)]
        # Only these ask others, and nobody asks them: no cycle.
        self._pullers = [f"{prefix}p{number}" for number in range(max(1, accounts // 4))]
        self._stop = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self.asked: list[Asked] = []
        self.told: list[Told] = []
        self.answered_at: list[float] = []
        """Monotonic seconds, one per answer, in order."""
        self.problems: list[str] = []
        self.again: Counter[str] = Counter()
        """Why something was sent once more."""
        self.slowest_s = 0.0

    async def __aenter__(self) -> "BusyLoad":
        for account in (*self._accounts, *self._pullers):
            await self._ask(account, "deposit", f"{self._prefix}rich-{account}", RICH, {"cents": RICH})
        self.answered_at.clear()
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        for number in range(self._callers):
            self._group.create_task(self._call(number))
        for number in range(self._tellers):
            self._group.create_task(self._tell(number))
        return self

    async def __aexit__(self, *error: object) -> None:
        self._stop.set()
        assert self._group is not None
        await self._group.__aexit__(None, None, None)

    async def more(self, count: int, timeout_s: float = 60.0) -> None:
        """Wait until so many further asks are answered."""
        goal = len(self.answered_at) + count
        await self.until(lambda: len(self.answered_at) >= goal, f"{count} more answers", timeout_s)

    async def until(self, condition: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
        """Wait for `condition`."""
        give_up = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < give_up, f"after {timeout_s:.0f} s still not: {what}; {self.again}; {self.problems[:3]}"
            await asyncio.sleep(0.01)

    def per_second(self, start: float, end: float) -> float:
        """Answers per second between two moments."""
        return sum(start <= at < end for at in self.answered_at) / (end - start)

    async def _call(self, caller: int) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            method = self._random.choices(list(self._methods), list(self._methods.values()))[0]
            account = self._random.choice(self._pullers if method == "pull" else self._accounts)
            other = self._random.choice([name for name in self._accounts if name != account])
            cents = self._random.randint(1, 100)
            command_id = f"{self._prefix}c{caller}-{number}"
            more = {"transfer": {"to": other}, "pull": {"source": other}, "deposit_slowly": {"name": command_id}}
            await self._ask(account, method, command_id, cents, {"cents": cents, **more.get(method, {})})
            if self._pause_s:
                await asyncio.sleep(self._pause_s * (0.5 + self._random.random()))

    async def _ask(self, account: str, method: str, command_id: str, cents: int, body: dict[str, object]) -> None:
        began = time.monotonic()
        before = self.again.copy()
        headers = {"Cue-Deadline": str(int((time.time() + DEADLINE_S) * 1_000))}
        while time.monotonic() < began + DEADLINE_S:
            try:
                answer = await ask(self._client, f"busy.{account}.{method}.{command_id}", body, headers=headers, timeout_s=1.0)
            except nats.errors.NoRespondersError:
                self.again["nobody"] += 1
            except (nats.errors.Error, TimeoutError, OSError) as error:
                self.again[type(error).__name__] += 1
            else:
                if answer.code not in AGAIN:
                    self._answered(account, method, command_id, cents, answer, time.monotonic() - began)
                    return
                self.again[str(answer.code)] += 1
            await asyncio.sleep(0.05)
        self.problems.append(f"busy/{account}: {command_id} ({method}) was never answered; meanwhile {self.again - before}")

    def _answered(self, account: str, method: str, command_id: str, cents: int, answer: Answer, seconds: float) -> None:
        self.answered_at.append(time.monotonic())
        self.slowest_s = max(self.slowest_s, seconds)
        if answer.code is not None or not isinstance(answer.body, int):
            self.problems.append(f"busy/{account}: {command_id} ({method}) was answered {answer}")
            return
        self.asked.append(Asked(f"busy/{account}", command_id, method, cents, answer.body))

    async def _tell(self, teller: int) -> None:
        """One after another to one account of its own, each kept before the next is sent: their order is known."""
        js = self._client.jetstream()
        account = f"{self._prefix}t{teller}"
        number = 0
        while not self._stop.is_set():
            number += 1
            command_id = f"{self._prefix}t{teller}-{number}"
            body = json.dumps({"cents": number}).encode()
            began = time.monotonic()
            while True:
                with suppress(nats.errors.Error, NoStreamResponseError, ServiceUnavailableError, TimeoutError, OSError):
                    await js.publish(f"cue.tell.busy.{account}.deposit.{command_id}", body, timeout=1.0)
                    self.told.append(Told(f"busy/{account}", command_id, number))
                    break
                if time.monotonic() > began + DEADLINE_S:
                    self.problems.append(f"busy/{account}: the tell {command_id} was never kept")
                    return
                self.again["tell"] += 1
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.02 + self._pause_s)
