"""The agents of ops/examples/agents.toml at work: a scripted model over HTTP, the real file actor, the real log."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("langchain_openai", reason="needs cuebook[models]")

from actors.errors import ActorError
from actors.models.errors import ModelRefused
from actors.workspace_id import workspace_id
from events.envelope import RecordedEvent
from events.sqlite.reader_sqlite import SqliteLogReader
from ops.examples.declared import app
from ops.models import open_models
from ops.settings import load_settings
from runtime.local import LocalRuntime, local_runtime
from runtime.past.inspection import verify_states
from runtime.past.merging import merged
from tests.support.eventually import eventually
from tests.support.scripted_model import Say, ScriptedModel

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "main.py").write_text("print('seven')\n")
    return folder


@asynccontextmanager
async def working(tmp_path: Path, root: Path, model: ScriptedModel) -> AsyncIterator[LocalRuntime]:
    data = tmp_path / "data"
    data.mkdir(exist_ok=True)
    table = f'[models.writer]\nkind = "openai"\nmodel = "m"\nbase_url = "{model.url}/v1"\napi_key = "env:AGENT_KEY"\nattempts = 2\n'
    (data / "cuebook.toml").write_text(table)
    settings = load_settings({"data": data}, environment={}, folder=data).settings
    async with open_models(settings) as models, local_runtime(app, data / "log", models=models) as runtime:
        await runtime.ask(f"files/{workspace_id(root)}", "open", root=str(root))
        yield runtime


async def recorded(tmp_path: Path) -> list[RecordedEvent]:
    reader = await SqliteLogReader.open(tmp_path / "data" / "log")
    try:
        return [event async for event in merged(reader)]
    finally:
        await reader.close()


async def work(runtime: LocalRuntime, agent: str, root: Path, task: str, **more: Any) -> dict[str, Any]:
    outcome: dict[str, Any] = await runtime.ask(f"{agent}/{workspace_id(root)}", "do", task=task, timeout_s=90, **more)
    return outcome


async def test_scribe_reads_writes_and_is_refused(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tool loop: what a tool says goes back to the model; what is not granted is not done, and the model is told."""
    monkeypatch.setenv("AGENT_KEY", "k")
    script = [
        Say(tools=(("read_file", {"path": "main.py"}), ("remember", {"content": "It prints seven."}))),
        Say(tools=(("write_file", {"path": "docs/about.md", "content": "It prints seven.\n"}),)),
        Say(tools=(("write_file", {"path": "main.py", "content": "broken"}), ("read_file", {"path": "../../etc/passwd"}))),
        Say(tools=(("run_command", {"command": "sh"}), ("read_file", {"paths": 1}))),
        Say(text="Written."),
    ]
    async with ScriptedModel(*script) as model:
        async with working(tmp_path, root, model) as runtime:
            outcome = await work(runtime, "scribe", root, "Write about main.py", command_id="one")
            # S24: asked again under the same id, nothing is done twice.
            assert await work(runtime, "scribe", root, "Write about main.py", command_id="one") == outcome
        assert len(model.ledger) == 5
        said = [entry.body["messages"] for entry in model.ledger]
    assert outcome == {"text": "Written.", "rounds": 5, "tools_used": 7, "ended": "done"}
    assert (root / "docs" / "about.md").read_text() == "It prints seven.\n"
    assert (root / "main.py").read_text() == "print('seven')\n"
    assert said[0][0]["content"].startswith("You keep the documentation")
    told = [message["content"] for message in said[-1] if message["role"] == "tool"]
    assert told[0] == "print('seven')\n"
    assert told[3].startswith("refused (outside_grant)")
    assert told[4].startswith("refused (outside_workspace)")
    assert told[5].startswith("there is no tool 'run_command'; there are: read_file, write_file, remember")
    assert told[6].startswith("the arguments do not fit")
    events = await recorded(tmp_path)
    used = [msgspec.json.decode(event.payload) for event in events if event.type == "agent.tool_used"]
    assert [(event["tool"], event["outcome"]) for event in used] == [
        ("read_file", "done"), ("remember", "done"), ("write_file", "done"), ("write_file", "refused"), ("read_file", "refused"),
        ("run_command", "wrong"), ("read_file", "wrong"),
    ]  # fmt: skip
    by_files = [event.type for event in events if event.stream.startswith("files/")]
    assert by_files.count("files.written") == 1
    assert by_files.count("files.access_denied") == 1, "what leaves the workspace is refused by the file actor, with an event"
    reader = await SqliteLogReader.open(tmp_path / "data" / "log")
    try:
        assert not [check async for check in verify_states(reader, app.registry) if check.difference is not None]
    finally:
        await reader.close()


async def test_guide_is_stopped_after_its_rounds(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_KEY", "k")
    async with ScriptedModel(Say(text="Still looking.", tools=(("read_file", {"path": "main.py"}),))) as model:
        async with working(tmp_path, root, model) as runtime:
            outcome = await work(runtime, "guide", root, "What does it print?")
            state = await runtime.ask(f"guide/{workspace_id(root)}", "_state")
        assert len(model.ledger) == 4
    assert outcome == {"text": "Still looking.", "rounds": 4, "tools_used": 4, "ended": "rounds"}
    assert "4" in json.dumps(state)


async def test_guide_asks_the_person_of_a_run_and_nobody_else(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a run the question waits for an answer and the work begins anew with it; outside of one there is nobody to ask."""
    monkeypatch.setenv("AGENT_KEY", "k")
    question = Say(tools=(("ask_person", {"question": "Which seven?"}),))

    def thinking(body: dict[str, Any]) -> Say:
        said = json.dumps(body["messages"])
        return Say(text="The dwarfs.") if "the person said: dwarfs" in said or "nobody to ask" in said else question

    mine: dict[str, Any] = {"session": "mine"}
    async with ScriptedModel(thinking) as model, working(tmp_path, root, model) as runtime:
        assert (await work(runtime, "guide", root, "What does it mean?"))["text"] == "The dwarfs."
        plan = {"summary": "p", "steps": [{"id": "a", "agent": "guide", "task": "What does it mean?"}]}
        await runtime.ask("task/r", "start", goal="g", root=str(root), plan=plan, needs_approval=False, **mine)

        async def questions() -> Any:
            return (await runtime.ask("task/r", "status"))["questions"]

        async def end() -> Any:
            status = await runtime.ask("task/r", "status")
            return status if status["phase"] == "ended" else None

        asked = await eventually(questions, "it asks")
        assert asked[0]["question"] == "Which seven?"
        await runtime.ask("task/r", "answer", text="dwarfs", **mine)
        status = await eventually(end, "the run has ended")
    assert (status["outcome"], status["steps"][0]["text"]) == ("done", "The dwarfs.")


async def test_a_model_that_fails_is_a_typed_end(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_KEY", "k")
    async with ScriptedModel(Say(status=401)) as model, working(tmp_path, root, model) as runtime:
        with pytest.raises(ActorError) as failed:
            await work(runtime, "guide", root, "What does it print?")
    assert isinstance(failed.value, ModelRefused) or failed.value.number == ModelRefused.number
