"""The twin of test_offline_graph for every machine: the same graph asks a scripted model over HTTP, in the protocol of OpenAI."""

import asyncio
import json
from pathlib import Path
from typing import Any

import nats
import pytest

pytest.importorskip("langchain_openai", reason="needs cuebook[models]")
pytest.importorskip("langgraph", reason="needs cuebook[langgraph]")

from tests.support.deployment import Deployment
from tests.support.duet import APP, SUBJECT, check_heard, check_recorded
from tests.support.eventually import eventually
from tests.support.scripted_model import Say, ScriptedModel

FIRST = "The sea is wide and grey, and it was there before us."
SECOND = "Nobody has seen all of it; it goes on."
HELD = 4
"""Pieces that the first answer begins with."""


@pytest.mark.timeout(150)
@pytest.mark.usefixtures("_nats_program")
async def test_a_plain_subscriber_hears_the_tokens_of_a_graph_while_its_model_still_speaks(tmp_path: Path) -> None:
    """Token by token, node by node, to the very text of the reply; what they took stands in the log; a replay ends where the run did."""
    data = tmp_path / "data"
    data.mkdir()
    chunks: list[tuple[str, dict[str, Any]]] = []
    script = (Say(text=FIRST, hold_after=HELD + 1, tokens=(7, 13)), Say(text=SECOND, tokens=(21, 9)))
    async with ScriptedModel(*script) as model:
        table = f'[models.tiny]\nkind = "openai"\nmodel = "m"\nbase_url = "{model.url}/v1"\napi_key = "env:THE_KEY"\n'
        (data / "cuebook.toml").write_text(table)
        with Deployment(data, app=APP, environment={"THE_KEY": "k"}) as deployment:
            client = await nats.connect(deployment.nats_url)

            async def heard(message: Any) -> None:
                chunks.append((message.subject, json.loads(message.data)))

            async def beginning() -> bool:
                return len(chunks) >= HELD

            async def end() -> bool:
                return bool(chunks) and chunks[-1][1]["end"]

            await client.subscribe("cue.chunk.duet.>", cb=heard)
            await client.flush()
            asked = asyncio.ensure_future(client.request(SUBJECT.replace("chunk", "ask"), b'{"input": {"topic": "the sea"}}', timeout=60))
            await eventually(beginning, "the first words are heard")
            assert not asked.done()
            assert "".join(body["data"]["token"] for _, body in chunks) == " ".join(FIRST.split(" ")[:HELD]), "and no more than was said"
            model.go.set()
            reply = json.loads((await asked).data)
            await eventually(end, "the end is heard")
            await client.close()
    assert (reply["first"], reply["second"]) == (FIRST, SECOND)
    assert check_heard(chunks, reply) == {"begin": len(FIRST.split(" ")), "reply": len(SECOND.split(" "))}
    used = await asyncio.to_thread(check_recorded, data, reply)
    assert [(usage["input_tokens"], usage["output_tokens"]) for usage in used] == [(7, 13), (21, 9)]
    assert [entry.done for entry in model.ledger] == [True, True]
