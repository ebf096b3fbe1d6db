"""Scenario 21: a running task is paused, survives a restart, is resumed with further instructions, and stopped with a rollback: the
files are byte for byte those of the checkpoint."""

from pathlib import Path

import pytest

from runtime.client import connect
from tests.support.deployment import Deployment
from tests.support.runs import APP, MINE, Run, contents, kill_all, plan, standing, step

pytestmark = [pytest.mark.crash, pytest.mark.usefixtures("_nats_program")]


async def test_s21_pause_restart_resume_and_roll_back(tmp_path: Path) -> None:
    root, gate = tmp_path / "work", tmp_path / "gate"
    (root / "deep").mkdir(parents=True)
    (root / "image.bin").write_bytes(bytes(range(256)) * 40)
    (root / "deep" / "crlf.md").write_bytes(b"one\r\ntwo\r\n\r\nno end")
    (root / "main.py").write_bytes(b"x = 1\n")
    before = contents(root)
    steps = [
        step("a", gate=str(gate), write="main.py"), step("b", "a", write="deep/new.py"), step("c", "b", gate=str(tmp_path / "never")),
    ]  # fmt: skip
    # A short drain: the step that is under way at the restart waits for `gate`.
    with Deployment(tmp_path / "data", app=APP, environment={"CUEBOOK_DRAIN_S": "2"}) as deployment:
        deployment.wait_balanced()
        async with connect(deployment.nats_url) as cue:
            run = Run(cue, "r")
            await run.start(root=str(root), needs_approval=False, plan=plan(*steps))
            await run.until(lambda status: standing(status)[:1] == ["in_progress"])
            assert (await run.ask("pause", **MINE))["paused"]
        assert deployment.stop() == 0
        deployment.start()
        deployment.wait_owned()
        gate.touch()
        async with connect(deployment.nats_url) as cue:
            run = Run(cue, "r")
            status = await run.until(lambda status: standing(status)[0] == "completed")
            assert (status["paused"], standing(status)) == (True, ["completed", "pending", "pending"])
            assert (root / "main.py").read_text() == "an app"
            await run.ask("resume", instructions="with tests", **MINE)
            await run.until(lambda status: standing(status)[2] == "in_progress")
            assert (root / "deep" / "new.py").read_text() == "an app\nwith tests"
            (root / "image.bin").write_bytes(b"")
            (root / "deep" / "crlf.md").unlink()
            assert (await run.ask("stop", rollback=True, **MINE))["phase"] == "stopping"
            kill_all(deployment)
            status = await run.ended()
            assert (status["outcome"], status["restored"], status["files"]) == ("cancelled", True, [])
            assert standing(status) == ["completed", "completed", "cancelled"]
        assert contents(root) == before
