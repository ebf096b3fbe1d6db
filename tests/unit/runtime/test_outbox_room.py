"""The outbox is bounded: beyond it who would send is refused before it runs, and what is stored waits (S25)."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from actors.errors import Overloaded, Waiting
from events.store import PendingSend
from runtime.local import LocalRuntime, local_runtime
from tests.support.desk import APP, events_of

PAIR = 5


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
    for module in ("events.store_sqlite", "runtime.outbox_room"):
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
        assert await runtime.ask("desk/a", "lines") == ["scheduled before"] * PAIR, "others of its methods go on"
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
