"""A run of agents that are declared in a TOML file, over NATS: one plans, one looks, one writes within its capabilities; the workers are
killed while a model is thinking."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_openai", reason="needs cuebook[models]")

from actors.workspace_id import workspace_id
from runtime.client import connect
from tests.support.deployment import Deployment, run_cuebook, wait_until_async
from tests.support.runs import MINE, Run, kill_all, standing
from tests.support.scripted_model import Say, ScriptedModel

pytestmark = [pytest.mark.crash, pytest.mark.timeout(180), pytest.mark.usefixtures("_nats_program")]
PLAN = {
    "summary": "Look, then write.",
    "steps": [
        {"id": "look", "agent": "guide", "task": "Say what main.py prints."},
        {"id": "write", "agent": "scribe", "task": "Write docs/about.md.", "after": ["look"]},
    ],
}


def thinking(body: dict[str, Any]) -> Say:
    """One mind for all agents: what it says follows from what it has been told, so that a request that comes twice has one answer."""
    messages = body["messages"]
    instructions = " ".join(message["content"] for message in messages if message["role"] == "system")
    told = [message["content"] for message in messages if message["role"] == "tool"]
    if "You plan" in instructions:
        return Say(text=json.dumps(PLAN))
    if "You answer questions" in instructions:
        return Say(text="It prints seven.") if told else Say(tools=(("read_file", {"path": "main.py"}), ("recall", {"query": "x"})))
    if not told:
        return Say(tools=(("write_file", {"path": "main.py", "content": "broken"}), ("write_file", {"path": "../x.md", "content": "x"})))
    if len(told) == 2:
        return Say(tools=(("write_file", {"path": "docs/about.md", "content": "It prints seven.\n"}), ("remember", {"content": "x"})))
    LAST_ASKED.set()
    return Say(text="Written.", delay_s=0.0 if KILLED.is_set() else 60.0)


LAST_ASKED, KILLED = threading.Event(), threading.Event()


async def test_a_run_is_done_by_agents_from_a_file(tmp_path: Path) -> None:
    LAST_ASKED.clear()
    KILLED.clear()
    root, data = tmp_path / "project", tmp_path / "data"
    root.mkdir()
    data.mkdir()
    (root / "main.py").write_text("print('seven')\n")
    async with ScriptedModel(thinking) as model:
        table = f'[models.writer]\nkind = "openai"\nmodel = "m"\nbase_url = "{model.url}/v1"\napi_key = "env:AGENT_KEY"\n'
        (data / "cuebook.toml").write_text(table)
        with Deployment(data, app="ops.examples.declared:app", environment={"AGENT_KEY": "k"}) as deployment:
            deployment.wait_balanced()
            async with connect(deployment.nats_url) as cue:
                run = Run(cue, "r")
                await run.start(root=str(root), planner="guide")
                await run.until(lambda status: status["phase"] == "awaiting_approval")
                await run.ask("say", text="Ja, passt", **MINE)
                await wait_until_async(LAST_ASKED.is_set, "the scribe has written, and asks what next")
                assert standing(await run.ask("status")) == ["completed", "in_progress"]
                KILLED.set()
                kill_all(deployment)
                status = await run.ended()
                assert (status["outcome"], status["files"]) == ("done", ["docs/about.md"]), status
                assert [each["text"] for each in status["steps"]] == ["It prints seven.", "Written."]
                changes = await cue.ref("files", workspace_id(root)).ask("changes")
                assert [change["path"] for change in changes] == ["docs/about.md"], "written once"
    assert (root / "main.py").read_text() == "print('seven')\n"
    assert not (tmp_path / "x.md").exists()
    asked = [entry for entry in model.ledger if entry.done]
    assert len({entry.key for entry in asked}) == len(asked) == 6, "no finished call is repeated after the kill"
    assert "Agents: guide, scribe." in json.dumps(asked[0].body["messages"])
    writing = asked[-1].body["messages"]
    assert "look is done: It prints seven." in writing[1]["content"]
    told = [message["content"] for message in writing if message["role"] == "tool"]
    assert told[0].startswith("refused (outside_grant)")
    assert told[1].startswith("refused (outside_workspace)")
    assert told[3].startswith("refused (not_granted): memory is kept for scribe/")
    shown = run_cuebook("log", "type:agent.tool_used", "-n", "0", "--json", "--data", str(data))
    used = [json.loads(line)["payload"] for line in shown.stdout.splitlines()]
    assert [(each["tool"], each["outcome"]) for each in used] == [
        ("read_file", "done"), ("recall", "refused"), ("write_file", "refused"), ("write_file", "refused"), ("write_file", "done"),
        ("remember", "refused"),
    ]  # fmt: skip
    refused = [(each["rule"], each["target"]) for each in used if each["tool"] == "write_file" and each["outcome"] == "refused"]
    assert refused == [("outside_grant", "main.py"), ("outside_workspace", "../x.md")], "what its own file does not grant, and the paths"
