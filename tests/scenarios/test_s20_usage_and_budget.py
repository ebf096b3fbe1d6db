"""Scenario 20: a run's tokens and cost are the sum of its call events; at 80 % of its budget an event says so, at 100 % it is stopped with
a typed error - over NATS, with a restart of everything in between. Another run goes on."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("langchain_openai", reason="needs cuebook[models]")

from actors.errors import OutcomeUnknown, Waiting
from events.ids import stream_id
from events.sqlite.reader_sqlite import SqliteLogReader
from runtime.client import Client, connect
from tests.support.deployment import Deployment
from tests.support.scripted_model import Say, ScriptedModel

RUN = "the-run"
TEXTS = [f"question {number}" for number in range(7)]
ASKED: dict[str, Any] = {"model": "main", "pause_after": 3, "max_tokens": 5}
CENT = 10_000
"""What five tokens cost, in millionths of a dollar."""


async def recorded(data: Path, *types: str) -> list[dict[str, Any]]:
    reader = await SqliteLogReader.open(data / "log")
    try:
        events = await reader.read_stream(stream_id("provider", "main"))
        return [msgspec.json.decode(event.payload) for event in events if event.type in types]
    finally:
        await reader.close()


async def begun(cue: Client) -> str:
    """The run waits; the id of its wait. Its deadline bounds its calls too, and the first of them loads the client."""
    while True:
        try:
            await cue.ref("asker", "a").ask("several", texts=TEXTS, command_id=RUN, timeout_s=12, **ASKED)
        except Waiting as waits:
            return str(waits.fields["wait_id"])
        except OutcomeUnknown:
            continue  # a slow machine: it is still asking


@pytest.mark.timeout(200)
@pytest.mark.usefixtures("_nats_program")
async def test_s20_usage_and_budget(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    async with ScriptedModel(Say(text="yes", tokens=(10, 5))) as server:
        (data / "cuebook.toml").write_text(
            f'[models.main]\nkind = "openai"\nmodel = "m"\nbase_url = "{server.url}/v1"\napi_key = "env:THE_KEY"\n'
            "usd_per_million_output = 2000.0\nrun_budget_usd = 0.05\n"
        )
        with Deployment(data, app="tests.support.asking:app", environment={"THE_KEY": "sk-test"}) as deployment:
            deployment.wait_balanced()
            async with connect(deployment.nats_url) as cue:
                wait_id = await begun(cue)
            assert len(server.ledger) == 3
            deployment.stop()
            deployment.start()
            deployment.wait_balanced()
            async with connect(deployment.nats_url) as cue:
                await cue.answer("asker/a", wait_id, True)
                said = await cue.ref("asker", "a").ask("several", texts=TEXTS, command_id=RUN, timeout_s=60, **ASKED)
                assert said == ["yes"] * 5 + ["BudgetSpent run_budget"] * 2
                assert len(server.ledger) == 5, "what would exceed the budget is not asked"
                assert await cue.ref("asker", "b").ask("several", texts=TEXTS[:1], timeout_s=60, **ASKED) == ["yes"]
                spent = await cue.ref("provider", "main").ask("run", run=RUN)
        calls = [call["usage"] for call in await recorded(data, "provider.call_answered") if call["run"] == RUN]
        assert spent == {"calls": 5, **{name: sum(call[name] for call in calls) for name in calls[0]}}
        assert spent["cost_micro_usd"] == 5 * CENT
        alerts = [each["alert"] for each in await recorded(data, "provider.spending_alerted")]
        assert [(each["scope"], each["name"], each["percent"], each["spent"]) for each in alerts] == [
            ("run", RUN, 80, 4 * CENT), ("run", RUN, 100, 5 * CENT),
        ]  # fmt: skip
