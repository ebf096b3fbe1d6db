"""One provider of four is dead: what the calls to the three others take does not change, at p99 and at all, on virtual time."""

import asyncio
import random
from collections.abc import Sequence

import pytest

from actors.errors import ActorError
from actors.models.limits import ProviderLimits
from actors.models.port import OnText
from actors.models.records import Answer, Failure, Request
from runtime.local import LocalRuntime
from tests.support.virtual import Virtual, virtually
from tests.unit.models.support import ScriptedClient, World, answer, down

CALLS, AT_ONCE = 200, 10
OTHERS = ("openai", "anthropic", "claude-code")


class Slow(ScriptedClient):
    """Takes 0.2 to 2 s for an answer."""

    def __init__(self, name: str) -> None:
        super().__init__("x")
        self._chance = random.Random(name)

    async def call(self, request: Request, key: str, on_text: OnText) -> Answer | Failure:
        await asyncio.sleep(self._chance.uniform(0.2, 2.0))
        return answer()


class Hanging(ScriptedClient):
    async def call(self, request: Request, key: str, on_text: OnText) -> Answer | Failure:
        await asyncio.Event().wait()
        return answer()


def p99(durations: Sequence[float]) -> float:
    return sorted(durations)[len(durations) * 99 // 100]


def play(first: ScriptedClient) -> tuple[dict[str, list[float]], int]:
    """How long each call to the others took, in order; and how many calls to the first one failed."""
    clients = {"perplexity": first, **{name: Slow(name) for name in OTHERS}}
    limits = {name: ProviderLimits(concurrency=4, timeout_s=30.0) for name in clients}
    took: dict[str, list[float]] = {name: [] for name in OTHERS}
    failed = 0

    async def main(virtual: Virtual) -> None:
        async def act(runtime: LocalRuntime) -> None:
            clock = asyncio.get_running_loop().time

            async def ask(name: str, number: int) -> None:
                nonlocal failed
                began = clock()
                try:
                    await runtime.ask(f"agent/{name}-{number}", "ask", text=str(number), model=name, deadline_s=100.0, timeout_s=600)
                except ActorError:
                    failed += 1
                    assert name not in OTHERS
                if name in OTHERS:
                    took[name].append(clock() - began)

            async def lane(name: str, numbers: range) -> None:
                for number in numbers:
                    await ask(name, number)

            async with asyncio.TaskGroup() as group:
                for name in clients:
                    for first in range(AT_ONCE):
                        group.create_task(lane(name, range(first, CALLS, AT_ONCE)))

        await World(clients, limits).play(virtual, act)

    virtually(main)
    return took, failed


@pytest.mark.parametrize("dead", [ScriptedClient(down()), Hanging("x")], ids=["refuses", "hangs"])
def test_the_others_take_as_long_as_ever(dead: ScriptedClient) -> None:
    alive, none_failed = play(Slow("perplexity"))
    beside, failed = play(dead)
    assert none_failed == 0
    assert failed == CALLS
    for name in OTHERS:
        print(f"{name}: p99 {p99(alive[name]):.3f} s, {p99(beside[name]):.3f} s beside a dead one")
        assert len(beside[name]) == CALLS
        assert p99(beside[name]) == pytest.approx(p99(alive[name]), rel=0.01)
        assert sum(beside[name]) == pytest.approx(sum(alive[name]), rel=0.01)
