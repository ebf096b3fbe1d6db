"""Forking a conversation while a deployment runs, and one of over 200 events offline: only what lies behind the cut is executed."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from events.keeping.verify import verify
from ops.__main__ import main
from runtime import connect
from runtime.local import local_runtime
from tests.support.deployment import Deployment
from tests.support.talkers import app

APP = "tests.support.talkers:app"
ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(150)


def run(capsys: pytest.CaptureFixture[str], data: Path, *arguments: str) -> tuple[int, list[Any], str]:
    code = main([*arguments, "--data", str(data)])
    out, err = capsys.readouterr()
    return code, [json.loads(line) for line in out.splitlines() if line.startswith("{")], err


def model_results(capsys: pytest.CaptureFixture[str], data: Path) -> list[Any]:
    _, rows, _ = run(capsys, data, "log", "-n", "0", "corr:talk", "actor:desk/d", "type:step.completed")
    return rows


@pytest.fixture
def steps(tmp_path: Path, no_settings: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "steps.txt"
    file.touch()
    monkeypatch.setenv("CUEBOOK_TEST_STEPS", str(file))
    return file


def test_a_conversation_of_200_events_and_five_actors_runs_on_from_an_edited_event(
    tmp_path: Path, steps: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, rounds, cut = tmp_path / "data", 24, 20

    async def make() -> None:
        async with local_runtime(app, data / "log", shards=4) as cue:
            await cue.ask("desk/d", "plan", rounds=rounds, command_id="talk")
            while not await cue.ask("ledger/l", "notes"):
                pass

    asyncio.run(make())
    _, events, _ = run(capsys, data, "log", "-n", "0", "corr:talk")
    assert len(events) >= 200
    assert len({event["stream"] for event in events}) == 5
    before = steps.read_text().splitlines()
    assert len(before) == 2 * rounds
    steps.write_text("")
    at = model_results(capsys, data)[cut]["event_id"]
    edit = '[{"op": "replace", "path": "/result", "value": "other"}]'
    arguments = ("fork", "--correlation", "talk", "--at", at, "--as", "f", "--edit", edit, "--app", APP)
    code, rows, said = run(capsys, data, *arguments)
    assert code == 0, said
    # The edited answer is worked on, then the rounds behind it: each one answer and one piece of work.
    executed = steps.read_text().splitlines()
    assert executed == ["work other", *before[2 * cut + 2 :]]
    assert sum(row["executed"] for row in rows) == len(executed) == 1 + 2 * (rounds - cut - 1)
    code, rows, said = run(capsys, data, "compare", "talk", "f", "--app", APP)
    first = next(row for row in rows[:-1] if row["left"] == rows[-1]["first"])
    assert first["left"] == "desk/d"
    assert first["divergence"]["left"]["event_id"] == at
    assert first["divergence"]["patch"] == [{"op": "replace", "path": "/result", "value": "other"}]
    _, after, _ = run(capsys, data, "log", "-n", "0", "corr:talk")
    assert after == events
    assert verify(data / "log") == []


@pytest.mark.usefixtures("_nats_program")
def test_a_fork_runs_on_in_the_workers_of_a_deployment_and_its_parents_stay_as_they_are(
    tmp_path: Path, steps: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    environment = {"CUEBOOK_TEST_STEPS": str(steps)}
    with Deployment(data, app=APP, folder=ROOT, environment=environment) as deployment:
        deployment.wait_balanced()

        async def talk() -> None:
            async with connect(deployment.nats_url, wait_s=20.0) as cue:
                await cue.ref("desk", "d").ask("plan", rounds=6, command_id="talk")
                while not await cue.ref("ledger", "l").ask("notes"):
                    pass

        asyncio.run(talk())
        _, events, _ = run(capsys, data, "log", "-n", "0", "corr:talk")
        steps.write_text("")
        at = model_results(capsys, data)[4]["event_id"]
        code, rows, said = run(capsys, data, "fork", "--correlation", "talk", "--at", at, "--as", "f")
        assert code == 0, said
        assert sorted(steps.read_text().splitlines()) == ["model 5", "work plain-4", "work plain-5"]
        assert {row["stream"] for row in rows} == {"desk/d-f", "worker/w0-f", "worker/w1-f", "worker/w2-f", "ledger/l-f"}
        assert all(row["status"] in (None, "done") for row in rows)

        async def notes(ledger: str) -> Any:
            async with connect(deployment.nats_url, wait_s=20.0) as cue:
                return await cue.ref("ledger", ledger).ask("notes")

        assert asyncio.run(notes("l-f")) == ["done plain-5"]
        assert asyncio.run(notes("l")) == ["done plain-5"]
        _, after, _ = run(capsys, data, "log", "-n", "0", "corr:talk")
        assert after == events
        code, _, said = run(capsys, data, "fork", "--correlation", "talk", "--at", at, "--as", "g", "--app", APP)
        assert code == 7  # the workers run their own code
        assert "cuebook stop" in said
    assert verify(data / "log") == []
