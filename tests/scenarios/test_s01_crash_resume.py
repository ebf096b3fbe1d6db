"""Scenario 1: a run of four steps whose workers are killed during the second ends normally; finished steps are not repeated, each file is
written once."""

from pathlib import Path
from typing import Any

import pytest

from runtime.client import connect
from tests.support.crew import waits_at
from tests.support.deployment import Deployment, wait_until_async
from tests.support.runs import APP, Run, kill_all, plan, standing, step

pytestmark = [pytest.mark.crash, pytest.mark.usefixtures("_nats_program")]


async def test_s01_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    root, ledger, gate = tmp_path / "work", tmp_path / "ledger", tmp_path / "gate"
    root.mkdir()
    given: dict[str, Any] = {"ledger": str(ledger)}
    steps = [
        step("one", write="one.py", **given), step("two", "one", write="two.py", gate=str(gate), **given),
        step("three", "two", write="three.py", **given), step("four", "three", write="four.py", **given),
    ]  # fmt: skip
    with Deployment(tmp_path / "data", app=APP) as deployment:
        deployment.wait_balanced()
        async with connect(deployment.nats_url) as cue:
            run = Run(cue, "r1")
            await run.start(root=str(root), needs_approval=False, plan=plan(*steps))
            await wait_until_async(waits_at(gate).exists, "the second step is under way")
            assert standing(await run.ask("status")) == ["completed", "in_progress", "pending", "pending"]
            kill_all(deployment)
            gate.touch()
            status = await run.ended()
            assert (status["outcome"], standing(status)) == ("done", ["completed"] * 4)
            assert [each["attempts"] for each in status["steps"]] == [1] * 4
            assert ledger.read_text().split("\n") == ["one 1", "two 1", "three 1", "four 1", ""]
            (job,) = await cue.ref("codesmith", "r1-four").ask("jobs")
            changes = await cue.ref("files", job["workspace"]).ask("changes")
            assert [change["path"] for change in changes] == ["one.py", "two.py", "three.py", "four.py"]
            assert status["files"] == sorted(change["path"] for change in changes)
            assert {path.name for path in root.glob("*.py")} == set(status["files"])
