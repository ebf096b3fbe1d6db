"""An actor whose answers are worth keeping, and a cache in this process for it."""

import asyncio
from functools import partial
from typing import Any

import msgspec

from actors import Actor, Event, State, command
from events.caching import Address, Cached
from events.clock import Clock
from events.envelope import RecordedEvent
from events.ids import StreamId
from projections.cache.step_cache import TieredStepCache
from projections.cache.values import Values
from runtime import App

CALLS: list[Any] = []
"""What was really computed; a test clears it first."""
HOLD: dict[str, asyncio.Event] = {}
"""Questions that are not answered until their event is set."""


class Wisdom(State):
    answers: list[Any] = []


class Answered(Event[Wisdom], tag="sage.answered"):
    answer: Any

    def apply(self, state: Wisdom) -> None:
        state.answers.append(self.answer)


async def think(question: Any) -> Any:
    """Step: the same answer to the same question, and the pains of finding it."""
    CALLS.append(question)
    if isinstance(question, str) and question in HOLD:
        await HOLD[question].wait()
    if question == "fail":
        raise OSError("no idea")
    return None if question == "nothing" else f"answer to {question}"


async def count(question: str) -> int:
    """Step: a number that grows with every call, so that a result taken from the cache shows."""
    CALLS.append(question)
    return len(CALLS)


class Sage(Actor[Wisdom], name="sage"):
    @command
    async def ask(self, question: Any, ttl: float | None = None, namespace: str | None = "response", content: Any = None) -> Any:
        """Answer, from the cache if it can."""
        answer = await self.step("think", think, question, cache_ttl=ttl, namespace=namespace, cache_key=content)  # type: ignore[arg-type]
        self.emit(Answered(answer=answer))
        return answer

    @command
    async def tally(self, question: str, ttl: float = 60.0) -> int:
        """How many answers were computed when this one was."""
        number = await self.step("tally", count, question, cache_ttl=ttl, namespace="api")
        self.emit(Answered(answer=number))
        return number

    @command
    async def bound(self, question: str) -> Any:
        return await self.step("bound", partial(think, question), cache_ttl=60)

    @command
    async def hidden(self, question: str) -> Any:
        async def closure() -> Any:
            return await think(question)

        return await self.step("hidden", closure, cache_ttl=60)

    @command
    async def at_most_once(self, question: str) -> Any:
        return await self.step("once", think, question, cache_ttl=60, once=True)

    @command
    async def together(self, questions: list[str]) -> list[Any]:
        """All at the same time; each name's n-th use counts."""
        async with asyncio.TaskGroup() as group:
            steps = [
                group.create_task(self.step("think", think, question, key=str(number), cache_ttl=60))
                for number, question in enumerate(questions)
            ]
        return [step.result() for step in steps]


APP = App(actors=[Sage], version="1")


class SecretSage(Sage, name="secret_sage", sealed=True):
    """The same in confidence."""


def values(incarnation: str = "0" * 32, secret: bytes = b"s" * 32) -> Values:
    return Values(incarnation, secret)


def local_cache(clock: Clock) -> TieredStepCache:
    """Without a server."""
    return TieredStepCache(values(), clock)


class Marks(msgspec.Struct, frozen=True):
    """``cache`` of a journaled step, and its result."""

    cache: dict[str, Any] | None = None
    result: Any = None


def marks(events: list[RecordedEvent]) -> list[Marks]:
    """Of every ended step, in order."""
    return [msgspec.json.decode(each.payload, type=Marks) for each in events if each.type in ("step.completed", "step.failed")]


def cached(result: bytes = b"1", stream: str = "sage/a", version: int = 1, expires_us: int = 2**60) -> Cached:
    return Cached(result, StreamId(stream), version, expires_us)


def address(key: str = "a" * 64, workspace: str = "a", namespace: str = "response") -> Address:
    return Address(workspace, namespace, key)
