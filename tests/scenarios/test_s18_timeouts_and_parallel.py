"""Scenario 18: a hung step times out, waits 5, 10 and 20 s, is tried three times more and fails, and its child process is gone;
independent steps run together, and one failure does not stop the rest."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runtime.client import connect
from runtime.local import LocalRuntime
from tests.support.crew import app
from tests.support.deployment import Deployment, wait_until_async
from tests.support.pids import alive
from tests.support.runs import APP, MINE, Run, kill_all, plan, standing, step
from tests.support.virtual import Virtual, virtually

HUNG: dict[str, Any] = {"timeout_s": 2.0, "retries": 3, "retry_first_s": 0.2}


@pytest.mark.crash
@pytest.mark.timeout(180)
@pytest.mark.usefixtures("_nats_program")
async def test_s18_a_hung_step_ends_with_its_processes_and_the_others_go_on(tmp_path: Path) -> None:
    """The workers are killed during the first attempt: neither does that count as another one, nor is the time begun anew."""
    pids, ledger = tmp_path / "pids", tmp_path / "ledger"
    here, there = tmp_path / "x", tmp_path / "y"
    steps = [
        {**step("hung", program=str(pids), ledger=str(ledger)), **HUNG},
        # Each waits for a file that only the other one makes: done one after the other, they would never end.
        step("x", ledger=str(here), gate=str(there)), step("y", ledger=str(there), gate=str(here)),
        {**step("bad", fail="broken"), "retries": 0}, step("needs-bad", "bad"), step("needs-x", "x"),
    ]  # fmt: skip
    with Deployment(tmp_path / "data", app=APP) as deployment:
        deployment.wait_balanced()
        async with connect(deployment.nats_url) as cue:
            run = Run(cue, "r")
            await run.start(needs_approval=False, plan=plan(*steps))
            await wait_until_async(lambda: pids.exists() and pids.read_text().endswith("\n"), "the hung program runs")
            kill_all(deployment)
            status = await run.ended()
            assert standing(status) == ["failed", "completed", "completed", "failed", "cancelled", "completed"]
            assert [each["attempts"] for each in status["steps"]] == [4, 1, 1, 1, 0, 1]
            assert status["steps"][0]["error"] == "it took too long"
            assert status["outcome"] == "failed"
            assert "hung: it took too long; bad: " in status["reason"]
            started = [int(pid) for pid in pids.read_text().split()]
            assert len(started) >= 2, "the program did not run again"
            await wait_until_async(lambda: not any(alive(pid) for pid in started), f"{started} are gone", 20)
    assert ledger.read_text().split("\n") == [f"hung {attempt}" for attempt in (1, 2, 3, 4)] + [""]


def test_s18_the_pauses_are_5_10_and_20_seconds(tmp_path: Path) -> None:
    """On virtual time, with what a step has if its plan says nothing."""

    async def main(virtual: Virtual) -> list[tuple[float, str, str]]:
        began, hung = virtual.clock.wall_us(), step("hung", gate=str(tmp_path / "never"))
        async with virtual.runtime(app) as runtime:
            await runtime.ask("task/r", "start", goal="g", needs_approval=False, plan=plan(hung), **MINE)
            await ended(runtime)
        rows = [row for row in virtual.log.content(0).events if row.stream == "task/r" and row.type.startswith("task.errand_")]
        moves = [(row, msgspec.json.decode(row.payload)) for row in rows]
        return [
            ((row.recorded_at_us - began) / 1e6, row.type.rpartition("_")[2], str(said.get("status", ""))) for row, said in moves
        ]  # fmt: skip

    async def ended(runtime: LocalRuntime) -> None:
        while (await runtime.ask("task/r", "status"))["phase"] != "ended":
            await asyncio.sleep(60)

    course = virtually(main)
    assert [(kind, status) for _, kind, status in course] == [("sent", ""), ("ended", "timeout")] * 4
    times = [seconds for seconds, _, _ in course]
    assert [round(over - begun) for begun, over in zip(times[::2], times[1::2], strict=True)] == [300] * 4
    assert [round(again - over, 1) for over, again in zip(times[1::2], times[2::2], strict=False)] == [5.0, 10.0, 20.0]
