"""A graph that asks a small model in its worker, offline, heard by a client that knows NATS only. What the model says is not judged."""

import asyncio
import json
import shutil
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("xllamacpp", reason="ops/local.lock is not installed: ops/test --local-model")

from tests.support.deployment import Deployment, run_cuebook

ROOT = Path(__file__).parents[2]
LISTENER = ROOT / "tests" / "support" / "plain_listener.py"
APP = "ops.examples.offline:app"
TOKENS = 16
"""What the example lets a node say."""


def recorded(data: Path, stream: str, tag: str) -> list[dict[str, Any]]:
    """The events of that stream and type, from the files."""
    done = run_cuebook("log", f"actor:{stream}", f"type:{tag}", "-n", "0", "--json", "--data", str(data))
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


async def heard(deployment: Deployment) -> dict[str, Any]:
    """All that a plain subscriber hears of one run, and the reply."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", str(LISTENER), deployment.nats_url, "duet", "d", "run", "c-1",
        json.dumps({"input": {"topic": "the sea"}}), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    assert process.returncode == 0, deployment.logs()
    seen: dict[str, Any] = json.loads(out)
    return seen


@pytest.mark.timeout(150)
@pytest.mark.usefixtures("_nats_program")
async def test_a_plain_subscriber_hears_the_tokens_of_a_graph_with_an_offline_model(tmp_path: Path) -> None:
    """Token by token, node by node, to the very text that stands in the graph's values; the tokens used stand in the log."""
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(ROOT / "ops" / "examples" / "offline.toml", data / "cuebook.toml")
    with Deployment(data, app=APP, workers=1) as deployment:
        seen = await heard(deployment)
    *tokens, end = [body for _, body in seen["chunks"]]
    assert {subject for subject, _ in seen["chunks"]} == {"cue.chunk.duet.d.run.c-1"}
    assert [body["offset"] for body in (*tokens, end)] == list(range(len(tokens) + 1))
    assert (end["data"], end["end"], {body["end"] for body in tokens}) == (None, True, {False})
    said: dict[tuple[str, str], str] = defaultdict(str)
    pieces: dict[str, int] = defaultdict(int)
    for piece in (body["data"] for body in tokens):
        assert piece.keys() == {"graph", "node", "call", "attempt", "offset", "token"}
        assert (piece["graph"], piece["attempt"]) == ([], 1)
        use = (piece["node"], piece["call"])
        assert piece["offset"] == len(said[use])
        said[use] += piece["token"]
        pieces[piece["node"]] += 1
    assert [node for node, _ in said] == ["begin", "reply"], "one call of each node, one after the other"
    assert list(said.values()) == [seen["reply"]["first"], seen["reply"]["second"]]
    assert all(count > 3 for count in pieces.values()), "in pieces, not at the end"
    used = [event["payload"]["usage"] for event in recorded(data, "provider/tiny", "provider.call_answered")]
    answers = [event["payload"]["result"] for event in recorded(data, "duet/d", "step.completed") if event["payload"]["name"] == "model"]
    assert used == [answer["usage"] for answer in answers]
    assert [answer["text"] for answer in answers] == list(said.values())
    assert len(used) == 2
    assert all(0 < usage["output_tokens"] <= TOKENS and usage["input_tokens"] > 0 for usage in used)
    replayed = await asyncio.to_thread(run_cuebook, "replay", "--verify", "--app", APP, "--data", str(data))
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
