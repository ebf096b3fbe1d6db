"""Two runs beside each other: alike but for ids and times is alike, and the first thing that was said otherwise is found."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from actors import Actor, Event, State, command
from actors.errors import Unknown
from events.sqlite.reader_sqlite import SqliteLogReader
from runtime import App
from runtime.local import LocalRuntime, local_runtime
from runtime.past.comparison import compare


class Order(State):
    total: int = 0
    label: str = ""


class Priced(Event[Order], tag="order_cmp.priced"):
    total: int
    label: str

    def apply(self, state: Order) -> None:
        state.total, state.label = self.total, self.label


class Desk(Actor[Order], name="desk"):
    @command
    async def handle(self, item: str, price: int, stock: str) -> int:
        found: dict[str, Any] = await self.step("model", model, item, price)
        await self.ref(*stock.split("/")).take(item=item)
        self.emit(Priced(total=found["price"], label=item))
        return int(found["price"])


class Stock(Actor[Order], name="stock"):
    @command
    async def take(self, item: str) -> None:
        self.emit(Priced(total=1, label=item))


async def model(item: str, price: int) -> dict[str, Any]:
    return {"price": price, "usage": {"input_tokens": 10 * price, "output_tokens": 3}, "cost_usd": 0.5}


app = App(actors=[Desk, Stock])


@asynccontextmanager
async def reader(directory: Path) -> AsyncIterator[SqliteLogReader]:
    opened = await SqliteLogReader.open(directory)
    try:
        yield opened
    finally:
        await opened.close()


async def order(cue: LocalRuntime, number: int, **arguments: Any) -> None:
    said = {"item": "book", "price": 5, "stock": f"stock/s{number}", **arguments}
    await cue.ask(f"desk/{number}", "handle", **said, command_id=f"order-{number}")


@pytest.fixture
async def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "log"
    async with local_runtime(app, directory, shards=2) as cue:
        await order(cue, 1)
        await order(cue, 2)
        await order(cue, 3, price=9)
        await order(cue, 4, item="pen")
    return directory


async def test_two_runs_that_say_the_same_are_alike_whatever_their_ids_times_and_streams(directory: Path) -> None:
    async with reader(directory) as log:
        found = await compare(log, app.registry, "order-1", "order-2")
    assert found.first is None
    assert [(pair.left, pair.right) for pair in found.streams] == [("desk/1", "desk/2"), ("stock/s1", "stock/s2")]
    assert all(pair.divergence is None and pair.state_patch == [] for pair in found.streams)
    assert found.left.usage.events == found.right.usage.events == sum(pair.same for pair in found.streams)


async def test_the_first_different_result_is_named_with_what_differs(directory: Path) -> None:
    async with reader(directory) as log:
        found = await compare(log, app.registry, "order-1", "order-3")
    first = found.first
    assert first is not None
    assert first.left == "desk/1"
    divergence = first.divergence
    assert divergence is not None
    assert divergence.left is not None
    assert (divergence.what, divergence.left.type) == ("payload", "turn.started")
    assert divergence.patch == [{"op": "replace", "path": "/arguments/price", "value": 9}]
    assert first.state_patch == [{"op": "replace", "path": "/total", "value": 9}]


async def test_tokens_cost_and_steps_are_summed_per_side_and_stream(directory: Path) -> None:
    async with reader(directory) as log:
        found = await compare(log, app.registry, "order-1", "order-3")
    left, right = found.left.usage, found.right.usage
    assert left.step_us > 0
    assert (left.input_tokens, left.output_tokens, left.cost_usd, left.steps) == (50, 3, 0.5, 1)
    assert (right.input_tokens, right.output_tokens, right.cost_usd) == (90, 3, 0.5)
    assert found.left.streams["stock/s1"].steps == 0
    assert found.left.streams["desk/1"].input_tokens == 50


async def test_every_stream_has_its_own_first_divergence(directory: Path) -> None:
    async with reader(directory) as log:
        found = await compare(log, app.registry, "order-1", "order-4")
    assert [pair.divergence is not None for pair in found.streams] == [True, True]
    assert found.first is found.streams[0]  # the desk began


async def test_two_streams_can_be_compared_too_and_without_code_there_are_no_states(directory: Path) -> None:
    async with reader(directory) as log:
        found = await compare(log, None, "stock/s1", "stock/s4")
    (pair,) = found.streams
    assert pair.divergence is not None
    assert pair.divergence.what == "payload"
    assert pair.state_patch is None
    assert pair.note is not None


@pytest.mark.parametrize("name", ["nothing", "desk/99"])
async def test_what_is_not_there_is_unknown(directory: Path, name: str) -> None:
    async with reader(directory) as log:
        with pytest.raises(Unknown):
            await compare(log, None, "order-1", name)
