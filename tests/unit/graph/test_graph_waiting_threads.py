"""Threads of a graph that wait, against a real log: restarts, expiries, and who may go on with them (S20, S21, S22)."""

import asyncio
import operator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt

from actors.errors import BadPayload, Rejected, Waiting
from actors.graph import graph_actor
from runtime import App
from runtime.local import LocalRuntime, local_runtime
from tests.support.asking_graph import app
from tests.support.eventually import eventually
from tests.support.logs import events_of
from tests.unit.runtime.test_timers import ShiftedClock
from tests.unit.runtime.test_turns import crash

INPUT: dict[str, Any] = {"words": []}
PRINT = {"say": "print"}


async def asked(runtime: LocalRuntime, method: str = "run", command_id: str = "r", **arguments: Any) -> str:
    """The wait that the thread comes to."""
    with pytest.raises(Waiting) as told:
        await runtime.ask("text/a", method, command_id=command_id, timeout_s=None, **arguments)
    return str(told.value.fields["wait_id"])


async def comes_to(runtime: LocalRuntime, status: str) -> None:
    async def there() -> bool:
        return bool(await runtime.ask("text/a", "status") == status)

    await eventually(there, f"the thread is {status}")


async def signing(runtime: LocalRuntime) -> str:
    """Behind the first interrupt, in front of the second."""
    first = await asked(runtime, input=INPUT)
    await runtime.answer("text/a", first, PRINT)

    async def second() -> str | None:
        return next((str(each["wait_id"]) for each in await runtime.ask("text/a", "waiting") if each["wait_id"] != first), None)

    return await eventually(second, "the second interrupt")


async def test_s21_what_a_waiting_thread_is_told_before_and_behind_a_crash(tmp_path: Path) -> None:
    async with local_runtime(app, tmp_path) as runtime:
        wait_id = await asked(runtime, input=INPUT)
        crash(runtime)
    async with local_runtime(app, tmp_path) as runtime:
        (question,) = await runtime.ask("text/a", "waiting")
        assert (question["wait_id"], question["node"]) == (wait_id, "judge")
        for method, arguments in (("run", {"input": INPUT}), ("resume", {"answers": {question["id"]: PRINT}})):
            with pytest.raises(Rejected) as refused:
                await runtime.ask("text/a", method, **arguments)
            assert (refused.value.fields["reason"], refused.value.fields["waits"]) == ("waiting", [wait_id])
        with pytest.raises(BadPayload) as wrong:
            await runtime.answer("text/a", wait_id, {"say": "burn"})
        assert wrong.value.fields["field"] == "value.say"
        assert await runtime.ask("text/a", "status") == "waiting"
        await runtime.answer("text/a", wait_id, PRINT)
        with pytest.raises(Rejected) as late:
            await runtime.answer("text/a", wait_id, {"say": "drop"})
        assert late.value.fields["winner"]["value"] == PRINT
        # The turn that was answered goes on before anybody else gets the thread.
        with pytest.raises(Rejected):
            await runtime.ask("text/a", "run", input=INPUT)
        assert await runtime.ask("text/a", "path") == ["judge"]


async def test_s20_an_interrupt_expires_while_nobody_runs_and_one_of_two_resumes_goes_on(tmp_path: Path) -> None:
    clock = ShiftedClock()
    async with local_runtime(app, tmp_path, clock=clock) as runtime:
        await signing(runtime)
        crash(runtime)
    clock.shift_us = 3_601_000_000
    async with local_runtime(app, tmp_path, clock=clock) as runtime:
        await comes_to(runtime, "expired")
        reply = await runtime.ask("text/a", "run", command_id="r", input=INPUT)
        (closed,) = reply["__interrupt__"]
        assert (reply["words"], closed["status"], closed["node"]) == (["print 1"], "expired", "sign")
        start = asyncio.get_running_loop().create_task
        resumes = [
            start(runtime.ask("text/a", "resume", command_id=name, answers={closed["id"]: name})) for name in ("ada", "bob")
        ]  # fmt: skip
        await asyncio.wait(resumes)
        lost = [error for each in resumes if isinstance(error := each.exception(), Rejected)]
        (won,) = [each.result() for each in resumes if each.exception() is None]
        assert won["words"][1] in ("signed ada", "signed bob")
        assert [each.fields["reason"] for each in lost] == ["not_open"]
    types = [event.type for event in await events_of(tmp_path, "text/a") if event.type.startswith(("graph.", "wait."))]
    assert types == [
        "graph.advanced", "graph.asked", "wait.opened", "wait.answered", "graph.answered",
        "graph.advanced", "graph.asked", "wait.opened", "wait.expired", "graph.expired", "graph.advanced",
    ]  # fmt: skip


async def test_s22_a_cancelled_run_gives_its_thread_back(tmp_path: Path) -> None:
    async with local_runtime(app, tmp_path) as runtime:
        await signing(runtime)
        (question,) = await runtime.ask("text/a", "waiting")
        await runtime.cancel("text/a", "r")
        assert await runtime.ask("text/a", "status") == "stopped"
        with pytest.raises(BadPayload):
            await runtime.ask("text/a", "resume", answers={question["id"]: 7})
        done = await runtime.ask("text/a", "resume", answers={question["id"]: "Ada"})
        assert done["words"] == ["print 1", "signed Ada"]


class Words(TypedDict, total=False):
    words: Annotated[list[str], operator.add]


GATES: dict[str, asyncio.Event] = {}


async def held_up(state: Words) -> Words:
    """Stands still, or asks first and stands still then."""
    said = [] if state["words"] == ["stand"] else [interrupt("well?")]
    GATES["standing"].set()
    await GATES["open"].wait()
    return {"words": said}


def standing() -> App:
    GATES.update(standing=asyncio.Event(), open=asyncio.Event())
    builder: Any = StateGraph(Words)
    builder.add_node("held_up", held_up)
    builder.add_edge(START, "held_up")
    return App(actors=[graph_actor(builder, name="text")])


async def test_s21_the_turn_that_was_answered_goes_on_before_who_was_in_the_mailbox_earlier(tmp_path: Path) -> None:
    """The answer ends the wait beside the mailbox, while another thread holds the actor."""
    async with local_runtime(standing(), tmp_path) as runtime:
        wait_id = await asked(runtime, input={"words": ["ask"]})
        start = asyncio.get_running_loop().create_task
        other = start(runtime.ask("text/a", "run", input={"words": ["stand"]}, thread="other"))
        await GATES["standing"].wait()
        early = start(runtime.ask("text/a", "run", command_id="early", timeout_s=None, input={"words": ["again"]}))
        await asyncio.sleep(0)
        assert (await runtime.answer("text/a", wait_id, "yes"))["status"] == "answered"
        GATES["open"].set()
        await other
        assert (await runtime.ask("text/a", "run", command_id="r", input={"words": ["ask"]}))["words"] == ["ask", "yes"]
        with pytest.raises(Waiting) as begun:
            await early
        assert begun.value.fields["wait_id"] != wait_id
        assert (await runtime.ask("text/a", "values"))["words"] == ["ask", "yes", "again"]


async def test_a_run_that_goes_on_behind_its_answer_is_not_called_stopped(tmp_path: Path) -> None:
    async with local_runtime(standing(), tmp_path) as runtime:
        wait_id = await asked(runtime, input={"words": ["ask"]})
        await runtime.answer("text/a", wait_id, "yes")
        await GATES["standing"].wait()
        assert await runtime.ask("text/a", "status") == "waiting"
        GATES["open"].set()
        assert (await runtime.ask("text/a", "run", command_id="r", input={"words": ["ask"]}))["words"] == ["ask", "yes"]
        assert await runtime.ask("text/a", "status") == "done"
