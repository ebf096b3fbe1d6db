"""A ``once`` step whose outcome nobody knows holds its actor until a person says what became of it (S21)."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from actors.errors import BadPayload, Cancelled, Rejected, Unavailable
from runtime.local import LocalRuntime, local_runtime
from runtime.ownership.leaving import leave
from tests.support.desk import APP, EFFECTS, waits_of
from tests.support.logs import events_of
from tests.unit.runtime.test_cancel import Held
from tests.unit.runtime.test_turns import crash


class Card(Held):
    """A charge that the test holds back; counts how often it was tried."""

    async def __call__(self) -> str:  # type: ignore[override]
        return await super().__call__("receipt")


async def crash_while_charging(directory: Path) -> Card:
    card = EFFECTS["charge"] = Card()
    async with local_runtime(APP, directory) as runtime:
        await runtime.ask("desk/a", "write", line="first")
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(ended(runtime.ask("desk/a", "charge", command_id="c")))
            await card.reached.wait()
            crash(runtime)
            asked.cancel()
    return card


async def ended(awaitable: Any) -> None:
    await awaitable


async def parked(runtime: LocalRuntime) -> str:
    """The id of the wait that holds desk/a."""
    async with asyncio.timeout(10):
        while not (held := [wait_id for shard in runtime.shards for wait_id in shard.waits.held.values()]):
            await asyncio.sleep(0.001)
    return held[0]


async def test_s21_an_ambiguous_step_is_not_repeated_and_holds_its_actor(tmp_path: Path) -> None:
    card = await crash_while_charging(tmp_path)
    async with local_runtime(APP, tmp_path) as runtime:
        wait_id = await parked(runtime)
        for method in ("write", "charge"):
            with pytest.raises(Unavailable) as told:
                await runtime.ask("desk/a", method, line="x")
            assert (told.value.fields["reason"], told.value.fields["wait_id"]) == ("parked", wait_id)
        assert await runtime.ask("desk/a", "lines") == ["first"], "queries are answered, from what is committed"
        assert await runtime.ask("desk/b", "write", line="others go on") == 1
        crash(runtime)
    (wait,) = await waits_of(tmp_path)
    assert (wait.stream, wait.name, wait.command_id, wait.wait_id) == ("desk/a", "once:charge", "c", wait_id)
    async with local_runtime(APP, tmp_path) as runtime:
        assert await parked(runtime) == wait_id
        assert sum(shard.statistics().live_actors for shard in runtime.shards) == 0, "held without being in memory"
    assert card.calls == 1


@pytest.mark.parametrize(
    ("value", "receipt", "tries"),
    [({"result": "r-17"}, "r-17", 1), ({"error": "declined"}, "failed: step charge: Error: declined", 1), ({"repeat": True}, "receipt", 2)],
    ids=["it happened", "it failed", "again"],
)
@pytest.mark.parametrize("restart", [False, True])
async def test_s21_a_person_says_what_became_of_it(tmp_path: Path, value: Any, receipt: str, tries: int, restart: bool) -> None:
    card = await crash_while_charging(tmp_path)
    card.release.set()
    async with local_runtime(APP, tmp_path) as runtime:
        wait_id = await parked(runtime)
        if restart:
            crash(runtime)
    async with local_runtime(APP, tmp_path) as runtime:
        wait_id = await parked(runtime)
        await runtime.answer("desk/a", wait_id, value)
        assert await runtime.ask("desk/a", "charge", command_id="c") == receipt
        assert await runtime.ask("desk/a", "lines") == ["first", "before", f"charged {receipt}"]
        with pytest.raises(Rejected):
            await runtime.answer("desk/a", wait_id, {"result": "other"})
    assert card.calls == tries
    assert await waits_of(tmp_path) == []


async def test_s21_a_repeat_that_is_cut_off_is_ambiguous_again(tmp_path: Path) -> None:
    await crash_while_charging(tmp_path)
    card = EFFECTS["charge"] = Card()
    async with local_runtime(APP, tmp_path) as runtime:
        first = await parked(runtime)
        await runtime.answer("desk/a", first, {"repeat": True})
        await card.reached.wait()
        crash(runtime)
    async with local_runtime(APP, tmp_path) as runtime:
        second = await parked(runtime)
        assert second != first
        await runtime.answer("desk/a", second, {"result": "r"})
        assert await runtime.ask("desk/a", "charge", command_id="c") == "r"
    assert card.calls == 1


@pytest.mark.parametrize("value", [{"result": 5}, {"results": "r"}, {"repeat": False}, "r", {"result": "r", "error": "e"}])
async def test_s21_an_outcome_that_cannot_be_one_is_refused(tmp_path: Path, value: Any) -> None:
    await crash_while_charging(tmp_path)
    async with local_runtime(APP, tmp_path) as runtime:
        wait_id = await parked(runtime)
        with pytest.raises(BadPayload):
            await runtime.answer("desk/a", wait_id, value)
        assert await parked(runtime) == wait_id


async def test_s22_a_cancel_frees_an_actor_that_is_held(tmp_path: Path) -> None:
    await crash_while_charging(tmp_path)
    async with local_runtime(APP, tmp_path) as runtime:
        await parked(runtime)
        assert await runtime.cancel("desk/a", "c") == "cancelled"
        assert await runtime.ask("desk/a", "write", line="free") == 2
        with pytest.raises(Cancelled):
            await runtime.ask("desk/a", "charge", command_id="c")


async def test_s21_tells_to_a_held_actor_wait_and_are_done_in_order(tmp_path: Path) -> None:
    await crash_while_charging(tmp_path)
    async with local_runtime(APP, tmp_path) as runtime:
        wait_id = await parked(runtime)
        for number in range(3):
            with pytest.raises(Exception, match="waits for go"):
                await runtime.ask("desk/b", "pass_on", timeout_s=None, to="a", line=f"told {number}")
        await asyncio.sleep(0.05)
        assert await runtime.ask("desk/a", "lines") == ["first"]
        await runtime.answer("desk/a", wait_id, {"result": "r"})
        async with asyncio.timeout(10):
            while len(await runtime.ask("desk/a", "lines")) < 6:
                await asyncio.sleep(0.001)
        assert await runtime.ask("desk/a", "lines") == ["first", "before", "charged r", "told 0", "told 1", "told 2"]


async def test_s21_a_step_whose_result_is_recorded_is_not_asked_about(tmp_path: Path) -> None:
    card = EFFECTS["charge"] = Card()
    card.release.set()
    async with local_runtime(APP, tmp_path) as runtime:
        assert await runtime.ask("desk/a", "charge", command_id="c") == "receipt"
    types = [event.type for event in await events_of(tmp_path, "desk/a")]
    assert "wait.opened" not in types
    assert types.count("step.started") == 1


async def test_s5_a_shutdown_that_cuts_a_once_step_off_parks_it(tmp_path: Path) -> None:
    """Known at once, also with no deployment running."""
    card = EFFECTS["charge"] = Card()
    async with local_runtime(APP, tmp_path) as runtime:
        asked = asyncio.get_running_loop().create_task(runtime.ask("desk/a", "charge", command_id="c"))
        await card.reached.wait()
        shard = next(shard for shard in runtime.shards if shard.once)
        await leave(shard, 0.05)
        assert [wait.name for wait in await waits_of(tmp_path)] == ["once:charge"]
        assert not shard.once
        asked.cancel()
        await asyncio.wait([asked])
    assert [event.type for event in await events_of(tmp_path, "desk/a")] == ["turn.started", "step.started", "wait.opened"]
