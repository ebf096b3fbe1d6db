"""Claude Code as the provider of a deployment: what it costs is counted and ends at the budget, its timeout is that of the settings, and a
call whose worker dies is made again by the next one, with nothing left of the first."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from runtime.client import Client, connect
from tests.support.deployment import Deployment, run_cuebook
from tests.support.pids import gone, until
from tests.support.runs import kill_all

pytestmark = [pytest.mark.crash, pytest.mark.timeout(180), pytest.mark.usefixtures("_nats_program")]
SECRET = "sk-canary-4711"
# Each run writes a line: who it is, and what it was asked. "wait N": the first N runs of that question never answer, and ignore SIGTERM.
CLAUDE = """#!{python}
import json, os, signal, sys, time
asked = sys.stdin.read()
with open({ledger!r}, "a") as ledger:
    ledger.write(json.dumps([os.getpid(), asked, sys.argv[1:]]) + "\\n")
runs = sum(json.loads(line)[1] == asked for line in open({ledger!r}))
if asked.startswith("wait") and runs <= int(asked.split()[1]):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    open({ledger!r} + ".waits", "w").write(f"{{os.getpid()}}\\n")
    time.sleep(600)
used = {{"m": {{"inputTokens": 100_000, "outputTokens": 20_000}}}}
print(json.dumps({{"type": "result", "is_error": False, "result": "yes: " + asked, "modelUsage": used}}))
"""
SETTINGS = """
[models.claude]
kind = "claude_code"
model = "-sonnet"
api_key = "env:THE_KEY"
timeout_s = {timeout_s}
attempts = 2
budget_usd = 1.0
usd_per_million_input = 1.0
usd_per_million_output = 10.0
"""


def ledger_of(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "ledger").read_text().splitlines()]


def deployed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timeout_s: float) -> Deployment:
    place = tmp_path / "claude"
    place.write_text(CLAUDE.format(python=sys.executable, ledger=str(tmp_path / "ledger")))
    place.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cuebook.toml").write_text(SETTINGS.format(timeout_s=timeout_s))
    return Deployment(tmp_path / "data", app="tests.support.asking:app", environment={"THE_KEY": SECRET})


async def ask(cue: Client, text: str) -> str:
    said: str = await cue.ref("asker", "a", timeout_s=120).ask("ask", text=text, model="claude", deadline_s=100.0)
    return said


async def test_a_call_whose_worker_dies_is_made_again_and_the_budget_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with deployed(tmp_path, monkeypatch, 60.0) as deployment:
        deployment.wait_balanced()
        async with connect(deployment.nats_url) as cue:
            asking = asyncio.ensure_future(ask(cue, "wait 1"))
            first = int(await until(tmp_path / "ledger.waits"))
            kill_all(deployment)
            assert await gone(first), "the program dies with its worker"
            assert await asking == "yes: wait 1"
            assert [entry[1] for entry in ledger_of(tmp_path)] == ["wait 1", "wait 1"]
            # 0.30 USD each: the fourth still begins below the budget of one dollar, the fifth does not.
            assert [await ask(cue, str(number)) for number in (2, 3)] == ["yes: 2", "yes: 3"]
            assert (await cue.ref("provider", "claude").ask("health"))["total"] == {
                "calls": 3, "input_tokens": 300_000, "output_tokens": 60_000, "cost_micro_usd": 900_000,
            }  # fmt: skip
            assert [await ask(cue, str(number)) for number in (4, 5)] == ["yes: 4", "BudgetSpent budget"]
        for _, asked, words in ledger_of(tmp_path):
            assert "--model=-sonnet" in words
            assert SECRET not in str(words)
            assert asked not in words
    for place in (tmp_path / "data").rglob("*"):
        if place.is_file() and not place.is_socket():
            assert SECRET.encode() not in place.read_bytes(), place


async def test_the_timeout_of_the_settings_ends_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with deployed(tmp_path, monkeypatch, 3.0) as deployment:
        deployment.wait_balanced()
        async with connect(deployment.nats_url) as cue:
            assert await ask(cue, "wait 1") == "yes: wait 1", "the second attempt"
            assert await ask(cue, "wait 9") == "ModelUnavailable timeout"
            health = await cue.ref("provider", "claude").ask("health")
            assert health["failures"] == {"timeout": 3}
        for pid, _, _ in ledger_of(tmp_path):
            assert await gone(pid)
    shown = run_cuebook("log", "actor:provider/claude", "type:provider.call_failed", "-n", "0", "--json", "--data", str(tmp_path / "data"))
    assert [json.loads(line)["payload"]["code"] for line in shown.stdout.splitlines()] == ["timeout"] * 3
