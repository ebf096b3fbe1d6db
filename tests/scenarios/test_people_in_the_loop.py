"""What people decide about a run - approval, change, answers to questions, pause, resume with instructions, stop - outlives the death of
every worker on both sides of the decision, is decided once, and by nobody but the session that the run belongs to."""

from pathlib import Path
from typing import Any

import pytest

from actors.errors import Rejected
from runtime.client import connect
from tests.support.crew import waits_at
from tests.support.deployment import Deployment, wait_until_async
from tests.support.runs import APP, MINE, Run, kill_all, plan, standing, step

pytestmark = [pytest.mark.crash, pytest.mark.timeout(240), pytest.mark.usefixtures("_nats_program")]
VERBS: dict[str, dict[str, Any]] = {
    "decide": {"version": 1, "verdict": "approved"}, "say": {"text": "ja"}, "answer": {"text": "rot"}, "pause": {},
    "resume": {}, "stop": {},
}  # fmt: skip


async def refused(run: Run, why: str, method: str, **arguments: Any) -> None:
    with pytest.raises(Rejected, match=why):
        await run.ask(method, **{**MINE, **arguments})


async def test_every_decision_outlives_the_workers_and_is_taken_once(tmp_path: Path) -> None:
    root, gate, never, ledger = tmp_path / "work", tmp_path / "gate", tmp_path / "never", tmp_path / "ledger"
    other = tmp_path / "other"
    root.mkdir()
    other.mkdir()
    with Deployment(tmp_path / "data", app=APP) as deployment:
        deployment.wait_balanced()
        async with connect(deployment.nats_url) as cue:
            approved, changed, unclear = Run(cue, "approved"), Run(cue, "changed"), Run(cue, "unclear")
            paused, stopped, asking = Run(cue, "paused"), Run(cue, "stopped"), Run(cue, "asking")
            await approved.asked(plan=plan(step("a", ledger=str(ledger))))
            await changed.asked(planner="planner")
            await unclear.asked(plan=plan(step("a", ledger=str(ledger))))
            await paused.start(root=str(root), needs_approval=False, plan=plan(step("a", gate=str(gate)), step("b", "a", write="b.md")))
            await stopped.start(needs_approval=False, plan=plan(step("a", gate=str(never)), step("b", "a", ledger=str(ledger))))
            steps = [step("a", ask="Which colour?", write="a.md"), step("b", "a")]
            await asking.start(root=str(other), needs_approval=False, plan=plan(*steps))
            await asking.until(lambda status: status["questions"])
            await wait_until_async(lambda: waits_at(gate).exists() and waits_at(never).exists(), "both are under way")
            for method, arguments in VERBS.items():
                for run in (approved, paused, asking):
                    with pytest.raises(Rejected, match="belongs to another session"):
                        await run.ask(method, session="window-2", **arguments)
            question = (await unclear.ask("say", text="I know", **MINE))["question"]
            assert (await paused.ask("pause", reason="lunch", **MINE))["paused"]
            kill_all(deployment)

            # Nothing was decided by the deaths, and what was decided before them holds.
            assert (await unclear.until(lambda status: True))["question"] == question
            assert [asked["question"] for asked in (await asking.ask("status"))["questions"]] == ["Which colour?"]
            assert (await asking.ask("say", text="rot", **MINE))["verdict"] == "answered"
            await refused(paused, "paused already", "pause")
            assert (await approved.ask("decide", **MINE, **VERBS["decide"]))["verdict"] == "approved"
            assert (await changed.ask("say", text="Bitte nimm Postgres statt SQLite", **MINE))["verdict"] == "modified"
            assert (await unclear.ask("say", text="Nein, danke", **MINE))["verdict"] == "rejected"
            gate.touch()
            assert not (await paused.ask("resume", instructions="auf Deutsch", **MINE))["paused"]
            assert (await stopped.ask("stop", **MINE))["outcome"] == "cancelled"
            kill_all(deployment)

            # Each was decided once: whoever comes later is told how.
            await refused(approved, "was decided before: approved", "decide", version=1, verdict="rejected")
            await refused(changed, "was decided before: modified", "decide", version=1, verdict="approved")
            await refused(unclear, "was decided before: rejected", "say", text="ja")
            await refused(asking, "question 1 was answered before|has ended: done", "answer", text="blau", number=1)
            await refused(stopped, "has ended: cancelled", "stop")
            await refused(stopped, "has ended: cancelled", "resume")
            await refused(approved, "the run (has ended|is not paused)", "resume")
            assert (await approved.ended())["outcome"] == "done"
            assert (await unclear.ended())["outcome"] == "cancelled"
            assert standing(await stopped.ended()) == ["cancelled", "cancelled"]
            await changed.until(lambda status: status["version"] == 2)
            versions = await changed.ask("proposals")
            assert [(each["standing"], each["feedback"]) for each in versions] == [
                ("modified", "Bitte nimm Postgres statt SQLite"), ("pending", ""),
            ]  # fmt: skip
            assert (await asking.ended())["outcome"] == "done"
            assert (other / "a.md").read_text() == "an app\nrot"
            status = await paused.ended()
            assert (status["outcome"], status["instructions"], status["files"]) == ("done", ["auf Deutsch"], ["b.md"])
            assert (root / "b.md").read_text() == "an app\nauf Deutsch"
    # The kill may cut the step off behind its effect: then it is begun again, as the same attempt (S19).
    assert set(ledger.read_text().splitlines()) == {"a 1"}, "only what was approved"
