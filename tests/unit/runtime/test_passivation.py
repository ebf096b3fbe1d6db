"""Passivation by idle time, by number and by bytes: a million actors cost what the live ones cost (design.md 6, F-27)."""

import asyncio
import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from actors import Actor, Event, State, command, query
from runtime.app import App
from runtime.local import LocalRuntime, local_runtime
from runtime.passivation import LiveBounds


class Box(State):
    text: str = ""


class Filled(Event[Box], tag="passive.filled"):
    text: str

    def apply(self, state: Box) -> None:
        state.text = self.text


GATE = asyncio.Event()


class BoxActor(Actor[Box], name="passive"):
    @command
    async def fill(self, text: str) -> None:
        self.emit(Filled(text=text))

    @command
    async def wait_here(self) -> None:
        await self.step("wait", GATE.wait)

    @query
    def text(self) -> str:
        return self.state.text


APP = App(actors=[BoxActor], version="test")


def bound(runtime: LocalRuntime, **bounds: float) -> None:
    for shard in runtime.shards:
        shard.passivation._bounds = LiveBounds(**bounds)  # type: ignore[arg-type]


def live(runtime: LocalRuntime) -> set[str]:
    return {str(stream) for shard in runtime.shards for stream in shard.cells}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def test_an_idle_actor_goes_after_its_time_and_comes_back_as_it_was(tmp_path: Path) -> None:
    async with local_runtime(APP, tmp_path, shards=1) as runtime:
        bound(runtime, idle_s=0.1)
        await runtime.ask("passive/a", "fill", text="kept")
        await runtime.ask("passive/b", "fill", text="too")
        assert live(runtime) == {"passive/a", "passive/b"}
        await until(lambda: not live(runtime))
        assert runtime.shards[0].passivation._handle is None
        assert await runtime.ask("passive/a", "text") == "kept"


async def test_who_is_used_or_busy_stays(tmp_path: Path) -> None:
    GATE.clear()
    async with local_runtime(APP, tmp_path, shards=1) as runtime:
        bound(runtime, idle_s=0.1)
        busy = asyncio.get_running_loop().create_task(runtime.ask("passive/busy", "wait_here"))
        await runtime.ask("passive/idle", "text")
        gone = False
        for _ in range(60):
            await runtime.ask("passive/used", "text")
            await asyncio.sleep(0.01)
            gone = gone or "passive/idle" not in live(runtime)
            assert live(runtime) >= {"passive/busy", "passive/used"}
        assert gone
        assert not runtime.shards[0].idle
        GATE.set()
        await busy
        await until(lambda: not live(runtime))
        assert runtime.shards[0].idle


async def test_beyond_a_number_the_longest_idle_go_first(tmp_path: Path) -> None:
    async with local_runtime(APP, tmp_path, shards=1) as runtime:
        bound(runtime, actors=3)
        for name in "abcd":
            await runtime.ask(f"passive/{name}", "text")
        assert live(runtime) == {"passive/b", "passive/c", "passive/d"}
        await runtime.ask("passive/b", "text")
        await runtime.ask("passive/e", "text")
        assert live(runtime) == {"passive/d", "passive/b", "passive/e"}


async def test_beyond_so_many_bytes_of_state_the_longest_idle_go_first(tmp_path: Path) -> None:
    async with local_runtime(APP, tmp_path, shards=1) as runtime:
        bound(runtime, state_bytes=25_000)
        for name in "abc":
            await runtime.ask(f"passive/{name}", "fill", text="x" * 10_000)
        assert live(runtime) == {"passive/b", "passive/c"}
        passivation = runtime.shards[0].passivation
        assert 20_000 <= passivation.state_bytes <= 25_000
        await runtime.ask("passive/large", "fill", text="x" * 100_000)
        assert live(runtime) == {"passive/large"}
        # Folded again, it counts as much as before.
        await runtime.ask("passive/a", "text")
        assert live(runtime) == {"passive/a"}
        assert 10_000 <= passivation.state_bytes <= 11_000


async def test_one_timer_serves_a_whole_shard_and_no_task_waits(tmp_path: Path) -> None:
    """Design.md 6: the hot path keeps no task for an idle actor, and passivation looks at nobody who is not due."""
    looked: list[str] = []
    async with local_runtime(APP, tmp_path, shards=1) as runtime:
        for number in range(300):
            await runtime.ask(f"passive/a{number}", "text")
        shard = runtime.shards[0]
        before = len(asyncio.all_tasks())
        assert before < 10
        original = type(shard.cells["passive/a0"]).idle  # type: ignore[index]

        def idle(self: object) -> bool:
            looked.append("")
            return bool(original.__get__(self))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(shard.cells["passive/a0"]), "idle", property(idle))  # type: ignore[index]
            assert shard.passivation._handle is not None
            shard.passivation._sweep()
        assert len(looked) == 1


async def test_an_idle_live_actor_costs_few_bytes(tmp_path: Path) -> None:
    """At most 2,000 bytes without its state, after it has done something; the figure is printed with -s."""
    count = 500
    async with local_runtime(APP, tmp_path, shards=1) as runtime:
        for number in range(50):  # caches and tables that all share
            await runtime.ask(f"passive/warm{number}", "fill", text="")
        # What the store remembers of each stream is bounded by itself; let it be there before.
        for number in range(count):
            await runtime.ask(f"passive/a{number}", "fill", text="")
        shard = runtime.shards[0]
        for cell in list(shard.cells.values()):
            shard.passivation.forget(cell)
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(count):
            await runtime.ask(f"passive/a{number}", "text")
        gc.collect()
        per_cell = (tracemalloc.get_traced_memory()[0] - before) / count
        tracemalloc.stop()
        assert len(shard.cells) == count
    print(f"{per_cell:,.0f} bytes per idle live actor")
    assert per_cell <= 2_000
