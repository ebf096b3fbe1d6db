"""A graph that asks a small model in its worker, offline, heard by a client that knows NATS only. What the model says is not judged."""

import asyncio
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("xllamacpp", reason="ops/local.lock is not installed: ops/test --local-model")

from tests.support.deployment import Deployment
from tests.support.duet import APP, check_heard, check_recorded

ROOT = Path(__file__).parents[2]
LISTENER = ROOT / "tests" / "support" / "plain_listener.py"
TOKENS = 16
"""What the example lets a node say."""


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
    pieces = check_heard([(subject, body) for subject, body in seen["chunks"]], seen["reply"])
    assert all(count > 3 for count in pieces.values()), "in pieces, not at the end"
    used = await asyncio.to_thread(check_recorded, data, seen["reply"])
    assert len(used) == 2
    assert all(0 < usage["output_tokens"] <= TOKENS and usage["input_tokens"] > 0 for usage in used)
