"""A provider that fails three calls in ten, thousands of times, on virtual time."""

import asyncio
import random
from collections import Counter

import pytest

from actors.errors import ActorError
from actors.models.limits import ProviderLimits
from actors.models.port import OnText
from actors.models.records import Answer, Failure, Request
from runtime.local import LocalRuntime
from tests.support.virtual import Virtual, virtually
from tests.unit.models.support import ScriptedClient, World, answer, down, events_of


class Flaky(ScriptedClient):
    """Fails at random; keeps how often each key had an effect, as a provider that honours idempotency keys has."""

    def __init__(self, name: str, chance: random.Random, share: float) -> None:
        super().__init__("x")
        self.name = name
        self._chance = chance
        self._share = share
        self.effects: Counter[str] = Counter()
        self.attempts = 0

    async def call(self, request: Request, key: str, on_text: OnText) -> Answer | Failure:
        self.attempts += 1
        await asyncio.sleep(self._chance.uniform(0.2, 2.0))
        failed = self._chance.random() < self._share
        if failed and self._chance.random() < 0.5:
            return down()
        # Half of the failures come after the effect: the answer is lost on its way back.
        self.effects[key] = 1
        return down("connection") if failed else answer()


def play(calls: int, *, fallback: bool) -> tuple[int, Counter[str], list[Flaky], list[str]]:
    chance = random.Random(7)
    names = ["main", "spare"] if fallback else ["main"]
    clients = {name: Flaky(name, chance, 0.3) for name in names}
    limits = {name: ProviderLimits(attempts=8, timeout_s=30.0) for name in names}

    async def main(virtual: Virtual) -> tuple[int, Counter[str], list[str]]:
        errors: Counter[str] = Counter()
        done = 0

        async def act(runtime: LocalRuntime) -> None:
            numbers = iter(range(calls))

            async def one() -> None:
                nonlocal done
                for number in numbers:
                    try:
                        await runtime.ask(f"agent/a{number}", "ask", text=str(number), timeout_s=600)
                        done += 1
                    except ActorError as error:
                        errors[f"{type(error).__name__} {error.fields['reason']}"] += 1

            async with asyncio.TaskGroup() as group:
                for _ in range(20):
                    group.create_task(one())

        await World(clients, limits).play(virtual, act)
        return done, errors, events_of(virtual, "provider/main")

    done, errors, events = virtually(main)
    return done, errors, list(clients.values()), events


def check(calls: int, *, fallback: bool) -> None:
    done, errors, clients, events = play(calls, fallback=fallback)
    attempts = sum(client.attempts for client in clients)
    print(f"{calls:,} calls, fallback {fallback}: {done:,} answered, {dict(errors)}, {attempts:,} attempts")
    assert done + sum(errors.values()) == calls
    assert all(kind.split(" ")[0] in {"ModelUnavailable", "Unavailable"} for kind in errors)
    assert all(count == 1 for client in clients for count in client.effects.values())
    if fallback:
        assert done >= 0.999 * calls
    opened, tried, closed = (events.count(f"provider.breaker_{what}") for what in ("opened", "tried", "closed"))
    assert tried <= opened
    assert 0 <= opened - tried <= 1
    assert closed <= tried


@pytest.mark.parametrize("fallback", [True, False])
def test_three_in_ten_fail(fallback: bool) -> None:
    check(300, fallback=fallback)


@pytest.mark.long
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("fallback", [True, False])
def test_three_in_ten_fail_ten_thousand_times(fallback: bool) -> None:
    check(10_000, fallback=fallback)
