"""Scenario 8: an agent is busy for a minute; ping and stop are answered within a second, the run is cancelled, the provider's call and the
child process are ended."""

import asyncio
import time
from pathlib import Path

import pytest

pytest.importorskip("langchain_openai", reason="needs cuebook[models]")

from runtime.client import connect
from tests.support.deployment import Deployment, wait_until_async
from tests.support.pids import alive
from tests.support.runs import APP, MINE, Run, plan, standing, step
from tests.support.scripted_model import Say, ScriptedModel

pytestmark = pytest.mark.usefixtures("_nats_program")


async def test_s08_stop_and_ping_do_not_wait_for_agents(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    async with ScriptedModel(Say(text="too late", delay_s=60)) as server:
        (tmp_path / "data").mkdir()
        settings = f'[models.slow]\nkind = "openai"\nmodel = "m"\nbase_url = "{server.url}/v1"\napi_key = "env:THE_KEY"\n'
        (tmp_path / "data" / "cuebook.toml").write_text(settings)
        with Deployment(tmp_path / "data", app=APP, environment={"THE_KEY": "k"}) as deployment:
            deployment.wait_balanced()
            async with connect(deployment.nats_url) as cue:
                run = Run(cue, "r")
                await run.start(needs_approval=False, plan=plan(step("think", model="slow"), step("build", program=str(pid_file))))
                async with asyncio.timeout(60):
                    await server.asked.wait()
                await wait_until_async(lambda: pid_file.exists() and pid_file.read_text().strip(), "the program runs")
                pid = int(pid_file.read_text())
                began = time.monotonic()
                pong, stopped = await run.ask("ping"), await run.ask("stop", **MINE)
                took = time.monotonic() - began
                assert (pong, stopped["phase"], stopped["outcome"]) == ("pong", "ended", "cancelled")
                assert took < 1.0, f"ping and stop took {took:.2f} s"
                assert standing(stopped) == ["cancelled", "cancelled"]
                async with asyncio.timeout(20):
                    await server.hung_up.wait()
                await wait_until_async(lambda: not alive(pid), "the program is gone", 20)
        assert [entry.done for entry in server.ledger] == [False]
        assert len(server.ledger) == 1, "it is not tried again"
