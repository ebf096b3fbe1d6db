"""Scenario 5: a proposal outlives a restart and is decided once; a duplicate, late or foreign decision is refused with a reason."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from actors.errors import Rejected
from runtime.client import connect
from tests.support.crew import app
from tests.support.deployment import Deployment
from tests.support.runs import APP, MINE, Run, plan, step
from tests.support.virtual import Virtual, virtually


@pytest.mark.usefixtures("_nats_program")
async def test_s05_a_pending_proposal_survives_a_restart_and_is_decided_once(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    yes: dict[str, Any] = {"version": 1, "verdict": "approved"}
    with Deployment(tmp_path / "data", app=APP) as deployment:
        async with connect(deployment.nats_url) as cue:
            asked = await Run(cue, "r").asked(plan=plan(step("a", ledger=str(ledger))))
            await Run(cue, "late").asked(plan=plan(step("a", ledger=str(ledger))), approval_s=1.0)
        deployment.stop()
        deployment.start()
        deployment.wait_owned()
        async with connect(deployment.nats_url) as cue:
            run, late = Run(cue, "r"), Run(cue, "late")
            status = await run.ask("status")
            assert (status["phase"], status["expires_at_us"]) == ("awaiting_approval", asked["expires_at_us"])
            assert not ledger.exists(), "nobody has approved"
            with pytest.raises(Rejected, match="belongs to another session"):
                await run.ask("decide", session="window-2", **yes)
            told = await run.ask("decide", command_id="yes-1", **MINE, **yes)
            assert told["verdict"] == "approved"
            assert await run.ask("decide", command_id="yes-1", **MINE, **yes) == told, "a repeat by id is the same decision"
            with pytest.raises(Rejected, match="was decided before: approved"):
                await run.ask("decide", **MINE, **yes)
            assert (await run.ended())["outcome"] == "done"
            assert ledger.read_text() == "a 1\n"

            status = await late.ended()
            assert (status["outcome"], status["reason"]) == ("cancelled", "nobody decided in time")
            with pytest.raises(Rejected, match="could be decided for 1 s"):
                await late.ask("decide", **MINE, **yes)
            assert ledger.read_text() == "a 1\n"


def test_s05_a_proposal_can_be_decided_for_300_seconds() -> None:
    """What a run has if nobody says how long, on virtual time: a second before the end it is in time, a second after it is late."""

    async def main(virtual: Virtual) -> None:
        async with virtual.runtime(app) as runtime:
            for name in ("early", "late"):
                await runtime.ask(f"task/{name}", "start", goal="g", plan=plan(step("a")), **MINE)
            await asyncio.sleep(299)
            assert (await runtime.ask("task/early", "decide", version=1, verdict="approved", **MINE))["verdict"] == "approved"
            await asyncio.sleep(2)
            with pytest.raises(Rejected, match="could be decided for 300 s; that is over"):
                await runtime.ask("task/late", "decide", version=1, verdict="approved", **MINE)
            late = await runtime.ask("task/late", "status")
            assert (late["outcome"], late["reason"]) == ("cancelled", "nobody decided in time")

    virtually(main)
