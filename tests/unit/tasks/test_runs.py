"""Runs in one process, with real files: decisions once and in time, retries, stop, rollback (scenarios 5 to 9 and 21 in small)."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from actors.errors import BadPayload, Rejected
from actors.tasks.limits import VERSIONS_MAX
from runtime.local import LocalRuntime, local_runtime
from tests.support.crew import app, orders, waits_at
from tests.unit.runtime.test_turns import crash

MINE: dict[str, Any] = {"session": "mine"}


@pytest.fixture
async def cue(tmp_path: Path) -> AsyncIterator[LocalRuntime]:
    async with local_runtime(app, tmp_path / "log") as runtime:
        yield runtime


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "kept.bin").write_bytes(bytes(range(256)))
    return folder


def step(name: str, *after: str, **given: Any) -> dict[str, Any]:
    more: dict[str, Any] = {key: given.pop(key) for key in ("timeout_s", "retries", "agent", "agent_id") if key in given}
    return {"id": name, "agent": "codesmith", "task": orders(**given), "after": list(after), **more}


def plan(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"summary": "a plan", "steps": list(steps)}


async def until(cue: LocalRuntime, run: str, holds: Callable[[Any], bool]) -> Any:
    """The first status of which `holds` is true."""
    async with asyncio.timeout(30):
        while not holds(status := await cue.ask(f"task/{run}", "status")):
            await asyncio.sleep(0.005)
    return status


def ended(status: Any) -> bool:
    return bool(status["phase"] == "ended")


async def asked(cue: LocalRuntime, run: str, **more: Any) -> Any:
    await cue.ask(f"task/{run}", "start", goal="an app", **{**MINE, **more})
    return await until(cue, run, lambda status: status["phase"] == "awaiting_approval")


async def begun(cue: LocalRuntime, run: str, **more: Any) -> None:
    await cue.ask(f"task/{run}", "start", goal="an app", needs_approval=False, **{**MINE, **more})


async def test_steps_run_in_order_with_their_results_and_write_files(cue: LocalRuntime, root: Path) -> None:
    await begun(cue, "r", root=str(root), plan=plan(step("a", write="a.py"), step("b", "a", write="b.py")))
    status = await until(cue, "r", ended)
    assert (status["outcome"], status["files"]) == ("done", ["a.py", "b.py"])
    assert (root / "b.py").read_text() == "an app"
    (job,) = await cue.ask("codesmith/r-b", "jobs")
    assert job["results"]["a"]["files"] == ["a.py"]


async def test_independent_steps_run_together_and_one_failure_does_not_stop_the_rest(cue: LocalRuntime, tmp_path: Path) -> None:
    wait = str(tmp_path / "gate")
    steps = [
        step("x", gate=wait), step("y", gate=wait), step("bad", fail="broken", retries=0), step("late", "bad"), step("z", "x"),
    ]  # fmt: skip
    await begun(cue, "r", plan=plan(*steps))
    await until(cue, "r", lambda s: [each["status"] for each in s["steps"][:4]] == ["in_progress", "in_progress", "failed", "blocked"])
    Path(wait).touch()
    status = await until(cue, "r", ended)
    assert [each["status"] for each in status["steps"]] == ["completed", "completed", "failed", "cancelled", "completed"]
    assert status["outcome"] == "failed"
    assert "broken" in status["reason"]


async def test_issues_left_open_are_said(cue: LocalRuntime) -> None:
    await begun(cue, "r", plan=plan(step("a", issues=("no tests",))))
    status = await until(cue, "r", ended)
    assert (status["outcome"], status["issues"]) == ("accepted_with_issues", ["no tests"])


async def test_a_decision_is_taken_once_by_its_session_and_in_time(cue: LocalRuntime) -> None:
    await asked(cue, "r", plan=plan(step("a")))
    for session, version, why in (("other", 1, "another session"), ("mine", 2, "nothing waits"), ("mine", 0, "nothing waits")):
        with pytest.raises(Rejected, match=why):
            await cue.ask("task/r", "decide", session=session, version=version, verdict="approved")
    told = await cue.ask("task/r", "decide", command_id="d1", **MINE, version=1, verdict="approved")
    assert (told["verdict"], told["phase"]) == ("approved", "executing")
    assert await cue.ask("task/r", "decide", command_id="d1", **MINE, version=1, verdict="approved") == told
    with pytest.raises(Rejected, match="decided before: approved"):
        await cue.ask("task/r", "decide", **MINE, version=1, verdict="rejected")
    assert (await until(cue, "r", ended))["outcome"] == "done"
    with pytest.raises(Rejected, match="decided before"):
        await cue.ask("task/r", "decide", **MINE, version=1, verdict="approved")

    await asked(cue, "late", plan=plan(step("a")), approval_s=0.2)
    status = await until(cue, "late", ended)
    assert (status["outcome"], status["reason"]) == ("cancelled", "nobody decided in time")
    with pytest.raises(Rejected, match="that is over"):
        await cue.ask("task/late", "decide", **MINE, version=1, verdict="approved")


async def test_changes_make_versions_and_cannot_go_on_for_ever(cue: LocalRuntime) -> None:
    await asked(cue, "r", planner="planner")
    for version in range(1, VERSIONS_MAX):
        await cue.ask("task/r", "say", text="Use Postgres instead of SQLite", **MINE)
        await until(cue, "r", lambda s, wanted=version + 1: s["version"] == wanted)  # type: ignore[misc]
    with pytest.raises(Rejected, match="approve this one"):
        await cue.ask("task/r", "say", text="Use Postgres instead of SQLite", **MINE)
    with pytest.raises(BadPayload, match="what should change"):
        await cue.ask("task/r", "decide", version=VERSIONS_MAX, verdict="modified", **MINE)
    assert len(await cue.ask("planner/r", "jobs")) == VERSIONS_MAX

    await asked(cue, "fixed", plan=plan(step("a")))
    with pytest.raises(Rejected, match="nobody plans"):
        await cue.ask("task/fixed", "say", text="Use Postgres instead of SQLite", **MINE)


async def test_plans_that_cannot_be_carried_out_are_refused(cue: LocalRuntime) -> None:
    for steps, why in (
        ([], "no steps"), ([step("a"), step("a")], "same id"), ([step("a", "b")], "depend on b"),
        ([step("a", "b"), step("b", "a")], "wait for each other"), ([step(f"s{n}") for n in range(51)], "51 steps"),
        ([step("a", agent="nobody")], "nobody here is called nobody; who can be given work: codesmith, crew-architect, planner"),
    ):  # fmt: skip
        with pytest.raises(Rejected, match=why):
            await cue.ask("task/r", "start", goal="x", plan=plan(*steps), **MINE)
    with pytest.raises(BadPayload):
        await cue.ask("task/r", "start", goal="x", plan=plan(step("_a")), **MINE)


async def test_a_hung_step_is_cancelled_at_its_time_and_the_run_says_why(cue: LocalRuntime, tmp_path: Path) -> None:
    await begun(cue, "r", plan=plan(step("a", gate=str(tmp_path / "never"), timeout_s=0.2, retries=0)))
    status = await until(cue, "r", ended)
    assert (status["outcome"], status["reason"]) == ("failed", "a: it took too long")
    assert status["steps"][0]["status"] == "failed"
    async with asyncio.timeout(20):
        while any(shard.tells for shard in cue.shards):
            await asyncio.sleep(0.005)


async def test_pause_lets_nothing_begin_and_resume_hands_on_instructions(cue: LocalRuntime, tmp_path: Path) -> None:
    wait = tmp_path / "gate"
    await begun(cue, "r", plan=plan(step("a", gate=str(wait)), step("b", "a")))
    await cue.ask("task/r", "pause", **MINE)
    with pytest.raises(Rejected, match="paused already"):
        await cue.ask("task/r", "pause", **MINE)
    wait.touch()
    await until(cue, "r", lambda s: s["steps"][0]["status"] == "completed")
    assert (await cue.ask("task/r", "status"))["steps"][1]["status"] == "pending"
    await cue.ask("task/r", "resume", instructions="in German", **MINE)
    assert (await until(cue, "r", ended))["outcome"] == "done"
    (job,) = await cue.ask("codesmith/r-b", "jobs")
    assert job["instructions"] == ["in German"]
    with pytest.raises(Rejected, match="has ended: done"):
        await cue.ask("task/r", "stop", **MINE)


async def test_stop_with_rollback_waits_for_the_agents_and_restores_every_byte(cue: LocalRuntime, root: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in root.iterdir() if path.is_file()}
    steps = [step("a", write="a.py"), step("b", "a", gate=str(tmp_path / "never"))]
    await begun(cue, "r", root=str(root), plan=plan(*steps))
    await until(cue, "r", lambda s: s["steps"] and s["steps"][1]["status"] == "in_progress")
    (root / "kept.bin").write_bytes(b"changed")
    status = await cue.ask("task/r", "stop", rollback=True, **MINE)
    assert status["phase"] == "stopping"
    with pytest.raises(Rejected, match="being stopped"):
        await cue.ask("task/r", "pause", **MINE)
    status = await until(cue, "r", ended)
    assert (status["outcome"], status["restored"], status["files"]) == ("cancelled", True, [])
    assert {path.name: path.read_bytes() for path in root.iterdir() if path.is_file()} == before


async def test_only_the_agent_that_was_sent_may_report_and_only_timers_may_time_out(cue: LocalRuntime, tmp_path: Path) -> None:
    await begun(cue, "r", plan=plan(step("a", gate=str(tmp_path / "never"))))
    with pytest.raises(Rejected, match="was given to codesmith/r-a"):
        await cue.ask("task/r", "step_done", step="a", attempt=1, result={})
    for method, arguments in (("errand_late", {"step": "a", "attempt": 1}), ("errand_again", {"step": "a"}), ("settle_late", {})):
        with pytest.raises(Rejected, match="only a timer"):
            await cue.ask("task/r", method, **arguments)
    await cue.ask("task/r", "stop", **MINE)
    await cue.ask("task/r", "step_done", step="a", attempt=1, result={})
    assert (await cue.ask("task/r", "status"))["steps"][0]["status"] == "cancelled"


async def test_a_run_survives_a_crash_in_every_phase(tmp_path: Path, root: Path) -> None:
    wait = tmp_path / "gate"
    log = tmp_path / "log"
    async with local_runtime(app, log) as cue:
        steps = [step("a", write="a.py"), step("b", "a", gate=str(wait), ledger=str(tmp_path / "l"))]
        await asked(cue, "r", root=str(root), plan=plan(*steps))
        crash(cue)
    async with local_runtime(app, log) as cue:
        await cue.ask("task/r", "say", text="Ja, passt", **MINE)
        await until(cue, "r", lambda _: waits_at(wait).exists())
        crash(cue)
    wait.touch()
    async with local_runtime(app, log) as cue:
        assert (await until(cue, "r", ended))["outcome"] == "done"
        (change,) = await cue.ask(f"files/{(await cue.ask('codesmith/r-a', 'jobs'))[0]['workspace']}", "changes")
    assert change["path"] == "a.py"
    assert (tmp_path / "l").read_text() == "b 1\n"
