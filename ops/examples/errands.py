"""A buyer, a shop and a clerk: everything that a conversation can have, in one page: asks, tells, steps, a refusal and a failure.

`errands.jsonl` beside this file is a log of it, to try the verbs on that look and travel:
`cuebook import errands.jsonl --data errands`, then `cuebook trace errand-1 --messages --data errands`.
"""

from actors import Actor, Event, Rejected, State, command, query
from runtime import App


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
    """Asks for the price, weighs, notes what it bought, and tells a clerk."""

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
    """Has everything but the moon; acid does not survive being looked at."""

    @command
    async def price(self, item: str) -> int:
        if item == "moon":
            raise Rejected("not for sale", item=item)
        if item.startswith("acid"):
            await self.step("open the bottle", burn, item)
        self.emit(Taken())
        return len(item)


class Clerk(Actor[State], name="clerk"):
    """Writes down what it is told."""

    @command
    async def note(self, item: str) -> None:
        await self.step("write", lambda: None)

    @query
    def hello(self) -> str:
        return "hello"


def burn(item: str) -> None:
    """A step that fails."""
    raise RuntimeError(f"{item} burns")


app = App(actors=[Buyer, Shop, Clerk])
