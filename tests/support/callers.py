"""Actors that ask each other, in any shape: for the tests of call cycles."""

import asyncio

from actors import Actor, State, command, query
from actors.errors import CallCycle
from runtime.app import App

GATES: dict[str, asyncio.Event] = {}
"""A turn waits at the gate of its actor's id before it asks, if there is one."""


class Nothing(State):
    pass


async def gate(name: str) -> None:
    if (event := GATES.get(name)) is not None:
        await event.wait()


class CallerActor(Actor[Nothing], name="caller"):
    @command
    async def call(self, path: list[str]) -> list[str]:
        """Ask the first of `path` to ask the rest; returns who was reached, or the cycle that stood in the way."""
        await self.step("gate", gate, self.id)
        return await self._ask(path[0], path[1:]) if path else [self.id]

    async def _ask(self, to: str, path: list[str]) -> list[str]:
        try:
            reached: list[str] = await self.ref(CallerActor, to).call(path=path)
        except CallCycle as cycle:
            return [self.id, "cycle", *cycle.fields["path"]]
        return [self.id, *reached]

    @command
    async def call_slowly(self, to: str) -> list[str]:
        """Holds its actor for a while first, so that two of these surely meet: for deployments, where no test holds a gate."""
        await self.step("wait", asyncio.sleep, 0.5)
        return await self._ask(to, [])

    @command
    async def look_back(self, to: str) -> str:
        answer: str = await self.ref(CallerActor, to).look_at(back=self.id)
        return answer

    @command
    async def look_at(self, back: str) -> str:
        seen: str = await self.ref(CallerActor, back).name()
        return seen

    @query
    def name(self) -> str:
        return self.id


APP = App(actors=[CallerActor], version="test")
app = APP
