"""`wait_for` against a real log in one process: segments, answers, timeouts, crashes (S15, S19, S20, S22)."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from actors.errors import BadPayload, Cancelled, IdReused, Overloaded, Rejected, Unknown, Waiting
from events.limits import SNAPSHOT_EVENTS, WAITS_PER_ACTOR_MAX
from runtime.local import LocalRuntime, local_runtime
from tests.support.desk import APP, EFFECTS, waits_of
from tests.support.logs import events_of
from tests.unit.runtime.test_timers import ShiftedClock
from tests.unit.runtime.test_turns import crash


async def waiting(awaitable: Awaitable[Any]) -> str:
    """The wait id that an ask without a deadline is answered with."""
    with pytest.raises(Waiting) as told:
        await awaitable
    return str(told.value.fields["wait_id"])


async def said(*args: str) -> str:
    return f"said {' '.join(args)}"


def live(runtime: LocalRuntime) -> int:
    return sum(shard.statistics().live_actors for shard in runtime.shards)


async def test_s20_a_wait_commits_what_was_before_and_frees_the_mailbox(tmp_path: Path) -> None:
    async with local_runtime(APP, tmp_path) as runtime:
        wait_id = await waiting(runtime.ask("desk/a", "sign", command_id="s", timeout_s=None, paper="p"))
        assert await runtime.ask("desk/a", "lines") == ["asked for p as 1"]
        assert await runtime.ask("desk/a", "write", line="between") == 2
        async with asyncio.TaskGroup() as group:
            attached = group.create_task(runtime.ask("desk/a", "sign", command_id="s", paper="p"))
            await asyncio.sleep(0)
            assert await runtime.answer("desk/a", wait_id, "Ada") == {"status": "answered", "command_id": "s"}
        assert attached.result() == "p: Ada"
        assert await runtime.ask("desk/a", "lines") == ["asked for p as 1", "between", "p signed by Ada as 3"]
        assert await runtime.ask("desk/a", "sign", command_id="s", paper="p") == "p: Ada"
    assert [event.type for event in await events_of(tmp_path, "desk/a")] == [
        "turn.started", "desk.written", "wait.opened", "desk.written", "wait.answered", "desk.written", "turn.completed",
    ]  # fmt: skip
    assert await waits_of(tmp_path) == []


async def test_s15_the_segment_and_its_wait_are_one_transaction(tmp_path: Path) -> None:
    """Events, sends and timers of a segment stand in one commit with the wait row."""
    async with local_runtime(APP, tmp_path, shards=1) as runtime:
        before = runtime.shards[0].statistics().commits
        wait_id = await waiting(runtime.ask("desk/a", "pass_on", timeout_s=None, to="b", line="first"))
        committed = runtime.shards[0].commit.statistics()
        assert committed.groups >= 1
        assert before == 0
        async with asyncio.timeout(10):
            while await runtime.ask("desk/b", "lines") != ["first"] or await runtime.ask("desk/a", "lines") != ["scheduled before"]:
                await asyncio.sleep(0.001)
        await runtime.answer("desk/a", wait_id, "second")
        async with asyncio.timeout(10):
            while await runtime.ask("desk/b", "lines") != ["first", "second"]:
                await asyncio.sleep(0.001)
    types = [event.type for event in await events_of(tmp_path, "desk/a")]
    assert types[:4] == ["turn.started", "message.sent", "timer.set", "wait.opened"]
    assert types.count("message.sent") == 2, "what a finished segment sent is not sent again"
    assert types.count("timer.set") == 1


async def test_s20_a_turn_that_waits_costs_no_task_and_no_live_actor_after_a_restart(tmp_path: Path) -> None:
    async with local_runtime(APP, tmp_path) as runtime:
        wait_id = await waiting(runtime.ask("desk/a", "sign", command_id="s", timeout_s=None, paper="p"))
        assert [cell.task for shard in runtime.shards for cell in shard.cells.values()] == [None]
        crash(runtime)
    async with local_runtime(APP, tmp_path) as runtime:
        await asyncio.sleep(0.01)
        assert live(runtime) == 0
        assert sum(len(shard.waits) for shard in runtime.shards) == 1
        assert await waiting(runtime.ask("desk/a", "sign", command_id="s", timeout_s=None, paper="p")) == wait_id
        assert live(runtime) == 0
        await runtime.answer("desk/a", wait_id, "Bob")
        assert await runtime.ask("desk/a", "sign", command_id="s", paper="p") == "p: Bob"
    assert [event.type for event in await events_of(tmp_path, "desk/a")].count("desk.written") == 2


@pytest.mark.parametrize("crash_at", ["nowhere", "first wait", "first answer", "second wait", "second answer"])
async def test_s19_finished_segments_are_neither_applied_nor_recorded_again(tmp_path: Path, crash_at: str) -> None:
    """Two waits with steps around them: wherever the process dies, steps run once, events stand once, the reply is the same."""
    calls: list[str] = []

    async def counted(*args: str) -> str:
        calls.append(args[0])
        return f"done {args[0]}"

    EFFECTS["draft"] = EFFECTS["check"] = counted

    async def step_by_step(runtime: LocalRuntime, stage: str) -> None:
        if stage.endswith("wait"):
            await waiting(runtime.ask("desk/a", "decide", command_id="d", timeout_s=None, paper="p"))
            await runtime.ask("desk/a", "write", command_id=f"after {stage}".replace(" ", "-"), line=f"after {stage}")
        else:
            (wait,) = await waits_of(tmp_path)
            await runtime.answer("desk/a", wait.wait_id, {"approved": stage.startswith("first")})

    stages = ["first wait", "first answer", "second wait", "second answer"]
    done = 0
    async with local_runtime(APP, tmp_path) as runtime:
        for stage in stages:
            await step_by_step(runtime, stage)
            done += 1
            if stage == crash_at:
                crash(runtime)
                break
    async with local_runtime(APP, tmp_path) as runtime:
        for stage in stages[done:]:
            await step_by_step(runtime, stage)
        reply = await runtime.ask("desk/a", "decide", command_id="d", paper="p")
        assert await runtime.ask("desk/a", "lines") == [
            "after first wait", "done p: True ", "after second wait", "done p: False after 3",
        ]  # fmt: skip
    assert reply[:2] == [True, False]
    assert calls == ["p", "p"]
    types = [event.type for event in await events_of(tmp_path, "desk/a")]
    assert types.count("desk.written") == 4
    assert types.count("step.completed") == 2


async def test_s20_a_turn_goes_on_behind_a_snapshot_that_was_written_while_it_waited(tmp_path: Path) -> None:
    """The finished segment is run again on the state that it saw, though the newest snapshot is far behind that."""
    async with local_runtime(APP, tmp_path) as runtime:
        await runtime.ask("desk/a", "write", line="earlier")
        wait_id = await waiting(runtime.ask("desk/a", "sign", command_id="s", timeout_s=None, paper="p"))
        for number in range(SNAPSHOT_EVENTS + 5):
            await runtime.ask("desk/a", "write", line=str(number))
        crash(runtime)
    async with local_runtime(APP, tmp_path) as runtime:
        shard = next(shard for shard in runtime.shards if len(shard.waits))
        snapshot, _ = await shard.store.load(next(iter(shard.waits._commands))[0], APP.registry.type("desk").shape)  # type: ignore[arg-type]
        assert snapshot is not None, "the test is about a snapshot"
        await runtime.answer("desk/a", wait_id, "Ada")
        assert await runtime.ask("desk/a", "sign", command_id="s", paper="p") == "p: Ada"
        assert (await runtime.ask("desk/a", "lines"))[-1] == f"p signed by Ada as {SNAPSHOT_EVENTS + 5 + 3}"


async def test_s20_an_ask_with_a_deadline_hears_202_at_its_deadline(tmp_path: Path) -> None:
    async with local_runtime(APP, tmp_path) as runtime:
        began = asyncio.get_running_loop().time()
        await waiting(runtime.ask("desk/a", "sign", command_id="s", timeout_s=0.6, paper="p"))
        assert 0.3 < asyncio.get_running_loop().time() - began < 0.6


async def test_s20_an_actor_that_asks_one_that_waits_hears_it(tmp_path: Path) -> None:
    async with local_runtime(APP, tmp_path) as runtime:
        with pytest.raises(Waiting) as told:
            await runtime.ask("desk/a", "ask_on", to="b", paper="p", within_s=0.3)
        assert told.value.fields["wait_id"] == (await waits_of(tmp_path))[0].wait_id


@pytest.mark.parametrize("restart", [False, True])
async def test_s20_a_wait_expires_also_across_a_restart(tmp_path: Path, restart: bool) -> None:
    async with local_runtime(APP, tmp_path) as runtime:
        wait_id = await waiting(runtime.ask("desk/a", "sign", command_id="s", timeout_s=None, paper="p", within_s=0.2))
        if restart:
            crash(runtime)
        else:
            assert await runtime.ask("desk/a", "sign", command_id="s", paper="p", within_s=0.2) == "p: nobody"
    async with local_runtime(APP, tmp_path) as runtime:
        assert await runtime.ask("desk/a", "sign", command_id="s", paper="p", within_s=0.2) == "p: nobody"
        with pytest.raises(Rejected) as late:
            await runtime.answer("desk/a", wait_id, "Ada")
        assert late.value.fields["winner"]["expired"] is True
        assert [await shard.store.timers() for shard in runtime.shards] == [[], [], [], []]
    assert "wait.expired" in [event.type for event in await events_of(tmp_path, "desk/a")]


async def test_s20_an_answer_takes_the_timeout_with_it(tmp_path: Path) -> None:
    async with local_runtime(APP, tmp_path) as runtime:
        wait_id = await waiting(runtime.ask("desk/a", "sign", command_id="s", timeout_s=None, paper="p", within_s=60))
        assert sum(len(shard.timers) for shard in runtime.shards) == 1
        await runtime.answer("desk/a", wait_id, "Ada")
        assert sum(len(shard.timers) for shard in runtime.shards) == 0
        assert [await shard.store.timers() for shard in runtime.shards] == [[], [], [], []]


async def test_s20_at_most_100_turns_of_an_actor_wait(tmp_path: Path) -> None:
    async with local_runtime(APP, tmp_path) as runtime:
        for number in range(WAITS_PER_ACTOR_MAX):
            await waiting(runtime.ask("desk/a", "sign", command_id=f"s{number}", timeout_s=None, paper="p"))
        with pytest.raises(Overloaded):
            await runtime.ask("desk/a", "sign", timeout_s=None, paper="one more")
        assert len(await runtime.ask("desk/a", "lines")) == WAITS_PER_ACTOR_MAX, "nothing of the refused turn is kept"
        wait = (await waits_of(tmp_path))[0]
        await runtime.answer("desk/a", wait.wait_id, "Ada")
        await runtime.ask("desk/a", "sign", command_id=wait.command_id, paper="p")
        await waiting(runtime.ask("desk/a", "sign", timeout_s=None, paper="one more"))


# -- answers ------------------------------------------------------------------------------------------------------------------------------


async def test_s22_the_first_answer_wins_and_is_told_again(tmp_path: Path) -> None:
    async with local_runtime(APP, tmp_path) as runtime:
        wait_id = await waiting(runtime.ask("desk/a", "sign", command_id="s", timeout_s=None, paper="p"))
        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(outcome(runtime.answer("desk/a", wait_id, name))) for name in ("Ada", "Bob", "Ada")]
        first, second, again = (answer.result() for answer in answers)
        assert first == again == {"status": "answered", "command_id": "s"}
        assert isinstance(second, Rejected)
        assert second.fields["winner"] == {"command_id": "s", "value": "Ada", "by": None}
        assert await runtime.ask("desk/a", "sign", command_id="s", paper="p") == "p: Ada"
        crash(runtime)
    async with local_runtime(APP, tmp_path) as runtime:
        assert await runtime.answer("desk/a", wait_id, "Ada") == first
        with pytest.raises(Rejected):
            await runtime.answer("desk/a", wait_id, "Bob")
        with pytest.raises(Unknown):
            await runtime.answer("desk/a", "no-such-wait", "Ada")
    assert [event.type for event in await events_of(tmp_path, "desk/a")].count("wait.answered") == 1


async def outcome(awaitable: Awaitable[Any]) -> Any:
    try:
        return await awaitable
    except Rejected as error:
        return error


@pytest.mark.parametrize(
    ("value", "field"),
    [({}, "value.approved"), ({"approved": "yes"}, "value.approved"), ({"approved": True, "note": 5}, "value.note"), (None, "value"),
     (7, "value")],
)  # fmt: skip
async def test_s20_a_wrong_answer_is_refused_and_the_wait_stays_open(tmp_path: Path, value: Any, field: str) -> None:
    EFFECTS["draft"] = EFFECTS["check"] = said
    async with local_runtime(APP, tmp_path) as runtime:
        wait_id = await waiting(runtime.ask("desk/a", "decide", command_id="d", timeout_s=None, paper="p"))
        crash(runtime)
    async with local_runtime(APP, tmp_path) as runtime:
        with pytest.raises(BadPayload) as refused:
            await runtime.answer("desk/a", wait_id, value)
        assert refused.value.fields["field"] == field
        assert [wait.wait_id for wait in await waits_of(tmp_path)] == [wait_id]
        assert live(runtime) == 0, "it is refused before anything is loaded"
        await runtime.answer("desk/a", wait_id, {"approved": True})


async def test_s22_an_answer_does_not_wait_for_the_turn_that_holds_the_actor(tmp_path: Path) -> None:
    reached, release = asyncio.Event(), asyncio.Event()

    async def held() -> str:
        reached.set()
        await release.wait()
        return "fetched"

    EFFECTS["fetch"] = held
    async with local_runtime(APP, tmp_path) as runtime:
        wait_id = await waiting(runtime.ask("desk/a", "sign", command_id="s", timeout_s=None, paper="p"))
        async with asyncio.TaskGroup() as group:
            fetched = group.create_task(runtime.ask("desk/a", "fetch"))
            await reached.wait()
            await runtime.answer("desk/a", wait_id, "Ada")
            signed = group.create_task(runtime.ask("desk/a", "sign", command_id="s", paper="p"))
            assert not fetched.done()
            release.set()
        assert (fetched.result(), signed.result()) == ("fetched", "p: Ada")
    types = [event.type for event in await events_of(tmp_path, "desk/a")]
    assert types.index("wait.answered") < types.index("step.completed")


async def test_s22_a_cancel_ends_a_turn_that_waits(tmp_path: Path) -> None:
    async with local_runtime(APP, tmp_path) as runtime:
        wait_id = await waiting(runtime.ask("desk/a", "sign", command_id="s", timeout_s=None, paper="p", within_s=60))
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(cancelled(runtime.ask("desk/a", "sign", command_id="s", paper="p", within_s=60)))
            await asyncio.sleep(0)
            assert await runtime.cancel("desk/a", "s") == "cancelled"
        assert listening.result()
        assert await runtime.cancel("desk/a", "s") == "cancelled"
        with pytest.raises(Rejected) as late:
            await runtime.answer("desk/a", wait_id, "Ada")
        assert late.value.fields["winner"]["cancelled"] is True
        assert await runtime.ask("desk/a", "lines") == ["asked for p as 1"], "what was committed before the wait stays"
        assert sum(len(shard.timers) + len(shard.waits) for shard in runtime.shards) == 0
        crash(runtime)
    assert await waits_of(tmp_path) == []
    async with local_runtime(APP, tmp_path) as runtime:
        assert await cancelled(runtime.ask("desk/a", "sign", command_id="s", paper="p", within_s=60))


async def cancelled(awaitable: Awaitable[Any]) -> bool:
    try:
        await awaitable
    except Cancelled:
        return True
    return False


async def test_s24_a_repeat_with_other_arguments_does_not_attach_to_a_wait(tmp_path: Path) -> None:
    async with local_runtime(APP, tmp_path) as runtime:
        await waiting(runtime.ask("desk/a", "sign", command_id="s", timeout_s=None, paper="p"))
        with pytest.raises(IdReused):
            await runtime.ask("desk/a", "sign", command_id="s", paper="q")


async def test_s20_chunks_of_a_finished_segment_are_not_streamed_twice(tmp_path: Path) -> None:
    chunks: list[tuple[int, Any, bool]] = []
    async with local_runtime(APP, tmp_path) as runtime:
        runtime.exchange.on_chunk = lambda command, offset, data, end: chunks.append((offset, data, end))
        wait_id = await waiting(runtime.ask("desk/a", "pass_on", command_id="c", timeout_s=None, to="b", line="x"))
        await runtime.answer("desk/a", wait_id, "y")
        await runtime.ask("desk/a", "pass_on", command_id="c", to="b", line="x")
    assert chunks == [(0, "before", False), (1, "after", False), (2, None, True)]


async def test_s19_several_answered_turns_run_again_one_after_the_other_after_a_crash(tmp_path: Path) -> None:
    """The one that was in the middle of its segment goes first: it goes on from the state that it was at."""
    reached = asyncio.Event()

    async def never(paper: str) -> str:
        if paper == "held":
            reached.set()
            await asyncio.Event().wait()
        return paper

    EFFECTS["draft"], EFFECTS["check"] = said, never
    async with local_runtime(APP, tmp_path) as runtime:
        ids = {}
        for paper in ("first", "held", "last"):
            ids[paper] = await waiting(runtime.ask("desk/a", "decide", command_id=paper, timeout_s=None, paper=paper))
        await runtime.answer("desk/a", ids["held"], {"approved": True})
        await reached.wait()
        await runtime.answer("desk/a", ids["first"], {"approved": True})
        await runtime.answer("desk/a", ids["last"], {"approved": True})
        crash(runtime)
    EFFECTS["check"] = said
    async with local_runtime(APP, tmp_path) as runtime:
        async with asyncio.timeout(10):
            while sum(len(shard.waits) for shard in runtime.shards) < 3:
                await asyncio.sleep(0.001)
        assert await runtime.ask("desk/a", "lines") == ["said held: True ", "said first: True ", "said last: True "]


@pytest.mark.parametrize("step_s", [-7_200, 7_200])
async def test_s26_a_timeout_is_a_duration_whatever_the_wall_clock_does(tmp_path: Path, step_s: int) -> None:
    """It neither fires early nor late when the clock is set; and it fires by a timer, not by looking."""
    clock = ShiftedClock()
    async with local_runtime(APP, tmp_path, clock=clock) as runtime:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await waiting(runtime.ask("desk/a", "sign", command_id="s", timeout_s=None, paper="p", within_s=0.5))
        clock.shift_us = step_s * 1_000_000
        shard = next(shard for shard in runtime.shards if len(shard.waits))
        while len(shard.waits):
            await asyncio.sleep(0.002)
        assert 0.5 <= loop.time() - began < 5
        assert "wait.expired" in [event.type for event in await events_of(tmp_path, "desk/a")]
