"""Idempotency keys and recovery policies as an author meets them (S15, S19, S21)."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from actors import Actor, State, command, idempotency_key
from actors.errors import BadPayload
from actors.testing import ActorTest
from runtime.app import App
from runtime.local import local_runtime


async def own_key(_: Any = None) -> str:
    return idempotency_key()


def key_of_thread(_: Any = None) -> str:
    return idempotency_key()


async def key_of_task() -> list[str]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(own_key())
    return [idempotency_key(), task.result()]


async def nothing() -> None:
    return None


FAILURES: list[str] = []


class Nothing(State):
    pass


class Keyed(Actor[Nothing], name="keyed"):
    @command
    async def keys(self) -> list[str]:
        found = [await self.step("a", own_key), await self.step("a", key_of_thread), await self.step("b", own_key)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.step("a", own_key, key=key)) for key in ("x", "y")]
        return found + [task.result() for task in tasks]

    @command
    async def inside(self) -> list[str]:
        return await self.step("a", key_of_task)

    @command
    async def outside(self) -> str:
        await self.step("a", own_key)
        return idempotency_key()

    @command
    async def odd(self, kind: str) -> None:
        options: dict[str, dict[str, Any]] = {
            "unknown": {"recovery": "perhaps"},
            "verify alone": {"recovery": "verify"},
            "verify beside": {"recovery": "repeat", "verify": nothing},
            "once and never": {"once": True, "recovery": "never"},
            "cached": {"recovery": "never", "cache_ttl": 5.0},
        }
        await self.step("a", own_key, **options[kind])


app = App(actors=[Keyed])


async def test_s19_each_use_of_a_step_has_a_key_of_its_own_in_threads_too(tmp_path: Path) -> None:
    async with local_runtime(app, tmp_path) as runtime:
        first = await runtime.ask("keyed/k", "keys", command_id="c-1")
        assert len(set(first)) == 5
        assert all(len(key) == 26 and key.isalnum() for key in first)
        other = await runtime.ask("keyed/k", "keys", command_id="c-2")
        assert not set(first) & set(other), "another command is another effect"
        assert not set(first) & set(await runtime.ask("keyed/l", "keys", command_id="c-1")), "so is that of another actor"


async def test_s19_a_key_depends_on_nothing_but_the_use(tmp_path: Path) -> None:
    """Two worlds that share nothing, the second with the engine of `ActorTest`, derive the same: so a re-run anywhere does."""
    async with local_runtime(app, tmp_path) as runtime:
        found = await runtime.ask("keyed/k", "keys", command_id="test-1")
    assert (await ActorTest(Keyed, "k").when("keys")).reply == found


async def test_a_key_is_there_in_the_tasks_of_a_step_and_nowhere_else() -> None:
    inside = (await ActorTest(Keyed).when("inside")).reply
    assert len(set(inside)) == 1
    with pytest.raises(LookupError, match="only while a step runs"):
        await ActorTest(Keyed).when("outside")


@pytest.mark.parametrize("kind", ["unknown", "verify alone", "verify beside", "once and never", "cached"])
async def test_what_contradicts_itself_is_refused(kind: str) -> None:
    test = ActorTest(Keyed)
    with pytest.raises(BadPayload):
        await test.when("odd", kind=kind)
