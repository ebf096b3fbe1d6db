"""The outbox is bounded: beyond it who would send is refused before it runs, and what is stored waits (S25)."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from actors.errors import Overloaded, Waiting
from events.codec import args_hash
from events.ids import CommandId, StreamId
from events.store import Arrival, InboxEntry, InboxStatus, PendingSend
from runtime.cell import Cell
from runtime.items import Item
from runtime.local import LocalRuntime, local_runtime
from runtime.turns.outbox_room import refuse_full
from tests.support.desk import APP
from tests.support.logs import events_of

PAIR = 5
SHARD = 8


class Receivers:
    """The other shards, which take nothing until the test lets them."""

    def __init__(self, runtime: LocalRuntime) -> None:
        self._send = runtime.exchange.send
        self.open = False
        self.kept: list[PendingSend] = []
        runtime.exchange.send = self.send  # type: ignore[method-assign]

    def send(self, rows: Sequence[PendingSend]) -> None:
        if self.open:
            self._send(rows)
        else:
            self.kept.extend(rows)

    def take(self) -> None:
        self.open = True
        self._send(self.kept)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("events.sqlite.store_sqlite", "runtime.turns.outbox_room"):
        monkeypatch.setattr(f"{module}.OUTBOX_PER_PAIR_MAX", PAIR)


async def send(runtime: LocalRuntime, number: int) -> None:
    """desk/a tells desk/c, which lives in another shard, and waits."""
    with pytest.raises(Waiting):
        await runtime.ask("desk/a", "pass_on", command_id=f"p{number}", timeout_s=None, to="c", line=str(number))


@pytest.mark.usefixtures("small")
async def test_s25_who_would_send_beyond_the_bound_is_refused_before_it_runs(tmp_path: Path) -> None:
    async with local_runtime(APP, tmp_path) as runtime:
        assert runtime.exchange.shard_of("desk/a") != runtime.exchange.shard_of("desk/c")  # type: ignore[arg-type]
        receivers = Receivers(runtime)
        for number in range(PAIR):
            await send(runtime, number)
        before = len(await events_of(tmp_path, "desk/a"))
        for _ in range(2):
            with pytest.raises(Overloaded) as refused:
                await runtime.ask("desk/a", "pass_on", command_id="more", timeout_s=None, to="c", line="more")
            assert refused.value.fields["retry_after_ms"] > 0
        async with asyncio.timeout(20):  # others of its methods go on
            while await runtime.ask("desk/a", "lines") != ["scheduled before"] * PAIR:
                await asyncio.sleep(0.001)
        after = [event.type for event in await events_of(tmp_path, "desk/a")][before:]
        assert set(after) <= {"timer.fired", "desk.written"}, "a refused command leaves no trace"
        receivers.take()
        async with asyncio.timeout(20):
            while sum(len(shard.outbox) for shard in runtime.shards):
                await asyncio.sleep(0.001)
        await send(runtime, PAIR)
        async with asyncio.timeout(20):
            while await runtime.ask("desk/c", "lines") != [str(number) for number in range(PAIR + 1)]:
                await asyncio.sleep(0.001)


@pytest.mark.usefixtures("small")
async def test_s25_the_shard_has_a_bound_of_its_own_and_a_stored_command_waits_for_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no pair of sender and receiver is near the bound of a pair."""
    for module in ("events.sqlite.store_sqlite", "runtime.turns.outbox_room"):
        monkeypatch.setattr(f"{module}.OUTBOX_PER_SHARD_MAX", SHARD)
    monkeypatch.setattr("runtime.turns.outbox_room.FULL_RETRY_S", 0.01)
    refused: list[StreamId] = []

    def noted(cell: Cell, item: Item) -> None:
        refused.append(cell.stream)
        refuse_full(cell, item)

    monkeypatch.setattr("runtime.turns.outbox_room.refuse_full", noted)
    async with local_runtime(APP, tmp_path) as runtime:
        home = runtime.exchange.shard_of(StreamId("desk/a"))
        names = [f"d{number}" for number in range(200)]
        away = [name for name in names if runtime.exchange.shard_of(StreamId(f"desk/{name}")) != home][: SHARD + 2]
        senders = [name for name in names if runtime.exchange.shard_of(StreamId(f"desk/{name}")) == home][: SHARD + 2]
        receivers = Receivers(runtime)

        async def pass_on(number: int) -> None:
            args = {"to": away[number], "line": str(number)}
            await runtime.ask(f"desk/{senders[number]}", "pass_on", command_id=f"p{number}", timeout_s=None, **args)

        for number in range(SHARD):
            with pytest.raises(Waiting):
                await pass_on(number)
        with pytest.raises(Overloaded):
            await pass_on(SHARD)
        assert await events_of(tmp_path, f"desk/{senders[SHARD]}") == []

        stream, command_id = StreamId(f"desk/{senders[-1]}"), CommandId("stored")
        args = msgspec.json.encode({"to": away[-1], "line": "stored"})
        entry = InboxEntry(
            stream=stream, command_id=command_id, method="pass_on", args_hash=args_hash("pass_on", args), status=InboxStatus.QUEUED,
            args=args, source="js:tells:1",
        )  # fmt: skip
        shard = runtime.shards[home]
        await shard.accept([Arrival(entry=entry)])
        async with asyncio.timeout(20):
            while refused.count(stream) < 3:  # it is tried again, and again
                await asyncio.sleep(0.001)
        found = await shard.store.inbox(stream, command_id)
        assert found is not None
        assert found.status is InboxStatus.QUEUED
        assert await events_of(tmp_path, stream) == []
        receivers.take()
        async with asyncio.timeout(20):
            while await runtime.ask(f"desk/{away[-1]}", "lines") != ["stored"]:
                await asyncio.sleep(0.001)
