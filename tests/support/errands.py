"""A small app with everything that a conversation can have: asks, tells, steps, a refusal and a failure. And a log of it."""

import asyncio
from pathlib import Path

from actors import Actor, ActorError, Event, Rejected, State, command, query
from ops.settings import name_app
from runtime.app import App
from runtime.local import local_runtime

APP = "tests.support.errands:app"
CONVERSATION = "errand-1"


class Orders(State):
    items: list[str] = []
    prices: dict[str, int] = {}
    total: int = 0


class Ordered(Event[Orders], tag="errand.ordered"):
    item: str
    price: int

    def apply(self, state: Orders) -> None:
        state.items.append(self.item)
        state.prices[self.item] = self.price
        state.total += self.price


class Forgot(Event[Orders], tag="errand.forgot"):
    item: str

    def apply(self, state: Orders) -> None:
        state.items.remove(self.item)
        state.total -= state.prices.pop(self.item)


class Shelf(State):
    taken: int = 0


class Taken(Event[Shelf], tag="errand.taken"):
    def apply(self, state: Shelf) -> None:
        state.taken += 1


class Buyer(Actor[Orders], name="buyer"):
    @command
    async def buy(self, item: str) -> int:
        price: int = await self.ref(Shop, "corner").price(item=item)
        weight = await self.step("weigh", lambda: 7)
        self.emit(Ordered(item=item, price=price + weight))
        self.ref(Clerk, "anna").tell.note(item=item)
        return self.state.total

    @command
    async def forget(self, item: str) -> None:
        self.emit(Forgot(item=item))


class Shop(Actor[Shelf], name="shop"):
    @command
    async def price(self, item: str) -> int:
        if item == "moon":
            raise Rejected("not for sale", item=item)
        if item == "acid":
            await self.step("open the bottle", burn)
        self.emit(Taken())
        return len(item)


class Clerk(Actor[State], name="clerk"):
    @command
    async def note(self, item: str) -> None:
        await self.step("write", lambda: None)

    @query
    def hello(self) -> str:
        return "hello"


def burn() -> None:
    raise RuntimeError('it burns </svg> & "smokes"')


app = App(actors=[Buyer, Shop, Clerk])


async def run_errands(log: Path) -> None:
    """One conversation that goes well, one that is refused, one that fails."""
    async with local_runtime(app, log) as cue:
        await cue.ask("buyer/bob", "buy", command_id=CONVERSATION, item="tea")
        await cue.ask("buyer/bob", "buy", command_id="errand-2", item="bread")
        for command_id, item in (("errand-3", "moon"), ("errand-4", "acid")):
            try:
                await cue.ask("buyer/bob", "buy", command_id=command_id, item=item)
            except ActorError:
                continue
            raise AssertionError("it should not have worked")
        await cue.ask("buyer/bob", "forget", command_id="errand-5", item="tea")
        while await cue.ask("clerk/anna", "hello") != "hello":
            pass


def make_errands(data: Path) -> None:
    """A data folder with that log, whose settings name the app."""
    asyncio.run(run_errands(data / "log"))
    name_app(data, APP)
