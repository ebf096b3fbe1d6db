"""Actors that do what the account example does not: `cuebook up --app tests.support.probe:app`."""

import asyncio
from typing import Any

from actors import Actor, Event, Rejected, State, command, query
from ops.examples.bank import AccountActor
from runtime import App


class Noted(State):
    count: int = 0
    last: str = ""


class Note(Event[Noted], tag="probe.noted"):
    text: str
    count: int = 1
    data: Any = None

    def apply(self, state: Noted) -> None:
        state.count += self.count
        state.last = self.text


class ProbeActor(Actor[Noted], name="probe"):
    """Notes what it is told; talks while it works; fails when asked to."""

    @command
    async def note(self, text: str, count: int = 1, data: Any = None) -> int:
        self.emit(Note(text=text, count=count, data=data))
        return self.state.count

    @command
    async def talk(self, words: list[str]) -> int:
        """Chunks around a step, then one event."""
        for word in words:
            self.chunk(word)
        await self.step("breathe", asyncio.sleep, 0)
        self.emit(Note(text=" ".join(words)))
        return len(words)

    @command
    async def fail(self, text: str) -> int:
        self.emit(Note(text=text))
        raise RuntimeError(text)

    @command
    async def refuse(self, text: str) -> int:
        self.emit(Note(text=text))
        raise Rejected("refused after it emitted", text=text)

    @command
    async def ask(self, account: str, cents: int) -> int:
        """Ask an account, that may live on another shard, and note its answer."""
        balance: int = await self.ref(AccountActor, account).deposit(cents=cents)
        self.emit(Note(text=f"{account} has {balance}"))
        return balance

    @query
    def seen(self) -> dict[str, Any]:
        return {"count": self.state.count, "last": self.state.last}


app = App(actors=[AccountActor, ProbeActor])
