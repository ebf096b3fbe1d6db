"""Clarification: an agent asks a person, its step stands still, the others go on; answered once, in time, by the session of the run."""

import asyncio
from pathlib import Path

import pytest

from actors.errors import Rejected
from actors.tasks.limits import QUESTIONS_MAX
from runtime.local import LocalRuntime, local_runtime
from tests.support.crew import app, waits_at
from tests.support.virtual import Virtual, virtually
from tests.unit.runtime.test_turns import crash
from tests.unit.tasks.test_runs import MINE, begun, cue, ended, plan, root, step, until

__all__ = ["cue", "root"]


async def test_the_step_waits_for_its_answer_and_the_others_go_on(cue: LocalRuntime, root: Path) -> None:
    steps = [step("a", ask="Which colour?", write="a.md"), step("b", write="b.md"), step("c", "a", write="c.md")]
    await begun(cue, "r", root=str(root), plan=plan(*steps))
    status = await until(cue, "r", lambda s: [each["status"] for each in s["steps"]] == ["asking", "completed", "pending"])
    assert [(asked["number"], asked["step"], asked["question"]) for asked in status["questions"]] == [(1, "a", "Which colour?")]
    for session, number, why in (("other", 1, "another session"), ("mine", 2, "no question 2")):
        with pytest.raises(Rejected, match=why):
            await cue.ask("task/r", "answer", session=session, number=number, text="red")
    await cue.ask("task/r", "answer", text="red", command_id="once", **MINE)
    await cue.ask("task/r", "answer", text="red", command_id="once", **MINE)
    with pytest.raises(Rejected, match="question 1 was answered before"):
        await cue.ask("task/r", "answer", number=1, text="blue", **MINE)
    status = await until(cue, "r", ended)
    assert (status["outcome"], status["files"], status["questions"]) == ("done", ["a.md", "b.md", "c.md"], [])
    assert (root / "a.md").read_text() == "an app\nred"
    (asked,) = await cue.ask("task/r", "questions")
    assert (asked["standing"], asked["answer"]) == ("answered", "red")
    (job,) = await cue.ask("codesmith/r-c", "jobs")
    assert [said["answer"] for said in job["answers"]] == ["red"], "whoever comes later is told too"


async def test_an_answer_may_be_said_and_outlives_a_crash(tmp_path: Path) -> None:
    log, gate = tmp_path / "log", tmp_path / "gate"
    async with local_runtime(app, log) as cue:
        await begun(cue, "r", plan=plan(step("a", ask="Which colour?", gate=str(gate))))
        await until(cue, "r", lambda s: s["questions"])
        crash(cue)
    async with local_runtime(app, log) as cue:
        assert (await cue.ask("task/r", "status"))["questions"][0]["question"] == "Which colour?"
        assert (await cue.ask("task/r", "say", text="nein, rot", **MINE))["verdict"] == "answered", "no decision, whatever its words"
        await until(cue, "r", lambda _: waits_at(gate).exists())
        crash(cue)
    gate.touch()
    async with local_runtime(app, log) as cue:
        status = await until(cue, "r", ended)
        assert (status["outcome"], status["steps"][0]["attempts"]) == ("done", 2)
        with pytest.raises(Rejected, match="has ended"):
            await cue.ask("task/r", "answer", text="blue", **MINE)


async def test_stopping_withdraws_what_was_asked(cue: LocalRuntime) -> None:
    await begun(cue, "r", plan=plan(step("a", ask="Which colour?"), step("b", "a")))
    await until(cue, "r", lambda s: s["questions"])
    status = await cue.ask("task/r", "stop", **MINE)
    assert (status["outcome"], [each["status"] for each in status["steps"]]) == ("cancelled", ["cancelled", "cancelled"])
    assert [asked["standing"] for asked in await cue.ask("task/r", "questions")] == ["withdrawn"]


def test_a_question_can_be_answered_as_long_as_a_proposal_can_be_decided() -> None:
    async def main(virtual: Virtual) -> None:
        async with virtual.runtime(app) as runtime:
            for name in ("early", "late"):
                await begun(runtime, name, plan=plan(step("a", ask="Which colour?"), step("b", "a"), step("c")))
            await asyncio.sleep(299)
            await runtime.ask("task/early", "answer", text="red", **MINE)
            await asyncio.sleep(2)
            with pytest.raises(Rejected, match=r"nobody asks anything|has ended"):
                await runtime.ask("task/late", "answer", text="red", **MINE)
            late = await runtime.ask("task/late", "status")
            assert (late["outcome"], late["reason"]) == ("failed", "a: nobody answered in time: Which colour?")
            assert [each["status"] for each in late["steps"]] == ["failed", "cancelled", "completed"]
            assert (await runtime.ask("task/early", "status"))["outcome"] == "done"

    virtually(main)


async def test_an_agent_cannot_ask_for_ever_and_questions_are_no_failed_attempts(cue: LocalRuntime) -> None:
    """The router asks for as long as it does not understand; after twenty times the run says so."""
    await cue.ask("task/r", "start", goal="das ist langsam", **MINE)
    for number in range(1, QUESTIONS_MAX + 1):
        asked = (await until(cue, "r", lambda s: s["questions"] or ended(s)))["questions"]
        assert [question["number"] for question in asked] == [number]
        await cue.ask("task/r", "answer", text="das", **MINE)
    status = await until(cue, "r", ended)
    assert (status["outcome"], "after 20 questions" in status["reason"]) == ("failed", True)


async def test_only_the_agent_that_was_sent_may_ask(cue: LocalRuntime, tmp_path: Path) -> None:
    await begun(cue, "r", plan=plan(step("a", gate=str(tmp_path / "never"))))
    with pytest.raises(Rejected, match="was given to codesmith/r-a"):
        await cue.ask("task/r", "step_asks", step="a", attempt=1, question="?")
    await cue.ask("task/r", "step_asks", step="a", attempt=7, question="?")
    with pytest.raises(Rejected, match="only a timer"):
        await cue.ask("task/r", "answer_late", number=1)
    assert not (await cue.ask("task/r", "status"))["questions"]
