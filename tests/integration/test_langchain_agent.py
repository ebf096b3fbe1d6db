"""``langchain.agents.create_agent`` with a model service and plain functions as tools, unchanged, as a graph actor: the real client library
against a scripted model over HTTP, the real log (design.md 8, S15, S19, S20)."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.eventually import eventually

pytest.importorskip("langchain_openai", reason="needs cuebook[models]")

from actors.errors import HandlerFailed, Rejected, Waiting
from actors.graph import ServiceChatModel, graph_actor
from events.envelope import RecordedEvent
from ops.models import open_models, with_providers
from ops.settings import load_settings
from runtime import App
from runtime.local import LocalRuntime, local_runtime
from tests.support import langchain_agent
from tests.support.logs import events_of
from tests.support.scripted_model import Say, ScriptedModel

pytestmark = pytest.mark.timeout(120)
MODEL = ServiceChatModel(service="scripted")
AGENT: Any = graph_actor(langchain_agent.agent(MODEL), name="planner")
CAREFUL: Any = graph_actor(langchain_agent.careful_agent(MODEL), name="careful")
APP = with_providers(App(actors=[AGENT, CAREFUL]))
INPUT: dict[str, Any] = {"messages": [{"role": "user", "content": "A week in Oslo or Ulm?"}]}


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the tools really did."""
    path = tmp_path / "ledger"
    path.touch()
    monkeypatch.setenv("AGENT_LEDGER", str(path))
    monkeypatch.setenv("AGENT_KEY", "k")
    return path


@asynccontextmanager
async def working(tmp_path: Path, model: ScriptedModel) -> AsyncIterator[LocalRuntime]:
    data = tmp_path / "data"
    data.mkdir(exist_ok=True)
    table = f'[models.scripted]\nkind = "openai"\nmodel = "m"\nbase_url = "{model.url}/v1"\napi_key = "env:AGENT_KEY"\nattempts = 2\n'
    (data / "cuebook.toml").write_text(table)
    settings = load_settings({"data": data}, environment={}, folder=data).settings
    async with open_models(settings) as models, local_runtime(APP, data / "log", models=models) as runtime:
        yield runtime


SCRIPT = (
    Say(tools=(("weather", {"city": "Oslo"}), ("weather", {"city": "Ulm"}))),
    Say(text="Ulm it is.", tools=(("book", {"city": "Ulm", "nights": 7}),)),
    Say(text="Booked."),
)


def tool_steps(events: list[RecordedEvent], outcome: str) -> list[dict[str, Any]]:
    found = [msgspec.json.decode(event.payload) for event in events if event.type == f"step.{outcome}"]
    return [each for each in found if each["name"].startswith("tool ")]


def said(reply: Any) -> list[tuple[str, str]]:
    return [(each["type"], each["content"]) for each in reply["messages"]]


WHOLE = [
    ("human", "A week in Oslo or Ulm?"), ("ai", ""), ("tool", "rain in Oslo"), ("tool", "rain in Ulm"), ("ai", "Ulm it is."),
    ("tool", "booked 7 in Ulm"), ("ai", "Booked."),
]  # fmt: skip


async def test_s15_a_langchain_agent_runs_unchanged_and_each_tool_call_is_an_effect_with_its_key(tmp_path: Path, ledger: Path) -> None:
    async with ScriptedModel(*SCRIPT) as model:
        async with working(tmp_path, model) as runtime:
            reply = await runtime.ask("planner/a", "run", input=INPUT, timeout_s=60)
            path = await runtime.ask("planner/a", "path")
        assert [entry.body["messages"][0]["content"] for entry in model.ledger] == ["You plan trips."] * 3
        assert [tool["function"]["name"] for tool in model.ledger[0].body["tools"]] == ["weather", "book"]
        keys = [entry.key for entry in model.ledger]
    assert said(reply) == WHOLE
    assert path == ["model", "tools", "tools", "model", "tools", "model"]
    assert Counter(ledger.read_text().splitlines()) == {"weather Oslo": 1, "weather Ulm": 1, "book Ulm 7": 1}
    events = await events_of(tmp_path / "data" / "log", "planner/a")
    started, completed = tool_steps(events, "started"), tool_steps(events, "completed")
    assert [(each["name"], each["args"]) for each in started] == [
        ("tool weather", [{"city": "Oslo"}]), ("tool weather", [{"city": "Ulm"}]), ("tool book", [{"city": "Ulm", "nights": 7}]),
    ]  # fmt: skip
    assert {(each["key"], each["n"]) for each in completed} == {(each["key"], each["n"]) for each in started}
    assert len({each["idempotency_key"] for each in started} | set(keys)) == 6


async def test_s19_an_agent_that_is_cut_off_in_a_tool_calls_only_that_tool_again(
    tmp_path: Path, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    booking = asyncio.Event()

    async def hang() -> None:
        if not booking.is_set():
            booking.set()
            await asyncio.Event().wait()

    monkeypatch.setattr(langchain_agent, "answer", hang)
    async with ScriptedModel(*SCRIPT) as model:
        async with working(tmp_path, model) as runtime:
            start = asyncio.get_running_loop().create_task
            lost = start(runtime.ask("planner/a", "run", command_id="r", input=INPUT, timeout_s=60))
            await booking.wait()
            for shard in runtime.shards:
                shard.abandon()
        lost.cancel()
        async with working(tmp_path, model) as runtime:
            reply = await runtime.ask("planner/a", "run", command_id="r", input=INPUT, timeout_s=60)
        assert len({entry.key for entry in model.ledger}) == len(model.ledger) == 3
    assert said(reply) == WHOLE
    assert Counter(ledger.read_text().splitlines()) == {"weather Oslo": 1, "weather Ulm": 1, "book Ulm 7": 2}
    started = tool_steps(await events_of(tmp_path / "data" / "log", "planner/a"), "started")
    assert [each["name"] for each in started].count("tool book") == 1, "one intent, and so one key"


async def test_s20_the_approval_of_langchain_s_own_middleware_is_a_durable_wait(tmp_path: Path, ledger: Path) -> None:
    async with ScriptedModel(*SCRIPT) as model:
        async with working(tmp_path, model) as runtime:
            with pytest.raises(Waiting) as told:
                await runtime.ask("careful/a", "run", command_id="r", input=INPUT, timeout_s=None)
            waiting = await eventually(partial(runtime.ask, "careful/a", "waiting"), "it waits for approval")
            for shard in runtime.shards:
                shard.abandon()
        (question,) = waiting
        assert question["wait_id"] == told.value.fields["wait_id"]
        assert question["value"]["action_requests"][0]["args"] == {"city": "Ulm", "nights": 7}
        async with working(tmp_path, model) as runtime:
            with pytest.raises(Rejected):
                await runtime.ask("careful/a", "run", input=INPUT)
            edited = {"name": "book", "args": {"city": "Ulm", "nights": 3}}
            await runtime.answer("careful/a", question["wait_id"], {"decisions": [{"type": "edit", "edited_action": edited}]})
            reply = await runtime.ask("careful/a", "run", command_id="r", input=INPUT, timeout_s=60)
    *_, booked, last = said(reply)
    assert booked[1].endswith("booked 3 in Ulm"), "LangChain tells its model besides that a person changed the call"
    assert last == ("ai", "Booked.")
    assert Counter(ledger.read_text().splitlines()) == {"weather Oslo": 1, "weather Ulm": 1, "book Ulm 3": 1}


async def test_what_a_tool_raises_is_recorded_and_fails_the_run_as_langchain_has_it(tmp_path: Path, ledger: Path) -> None:
    async with ScriptedModel(Say(tools=(("book", {"city": "Atlantis"}),))) as model, working(tmp_path, model) as runtime:
        with pytest.raises(HandlerFailed, match="no such city"):
            await runtime.ask("planner/a", "run", input=INPUT, timeout_s=60)
    (failed,) = tool_steps(await events_of(tmp_path / "data" / "log", "planner/a"), "failed")
    assert (failed["type"], failed["message"]) == ("LookupError", "no such city")
    assert json.dumps(ledger.read_text().splitlines()) == '["book Atlantis 1"]'
