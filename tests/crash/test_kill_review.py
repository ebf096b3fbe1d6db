"""kill -9 of a worker in the middle of a review over NATS: it finishes, nothing is analysed twice, and replay equals live."""

import asyncio
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from actors.team import Orchestrator, workspace_id
from events.ids import shard_of
from events.sqlite.reader_sqlite import SqliteLogReader
from runtime.client import Client, connect
from tests.support.deployment import Deployment, run_cuebook

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.usefixtures("_nats_program")]
FILES = 160


def code_base(root: Path) -> Path:
    """Small modules that import each other in one large ring, so that cycles and findings exist."""
    root.mkdir()
    for number in range(FILES):
        following = (number + 1) % FILES
        (root / f"part{number}.py").write_text(
            f"import part{following}\nimport os\n\n\ndef go{number}(x):\n    if x > {number}:\n"
            f"        return part{following}.go{following}(x)\n    return x\n"
        )
    return root


async def step_counts(log: Path) -> Counter[tuple[str, str, str]]:
    """How often each (agent, analyser, file) is recorded as completed."""
    counts: Counter[tuple[str, str, str]] = Counter()
    reader = await SqliteLogReader.open(log)
    try:
        for shard in range(reader.shards):
            after = 0
            while page := await reader.read(shard, after=after):
                after = page[-1].position
                for event in page:
                    if event.type == "step.completed":
                        step = msgspec.json.decode(event.payload)
                        if step["key"] is not None:
                            counts[event.stream, step["name"], step["key"]] += 1
    finally:
        await reader.close()
    return counts


async def killed_review(cue: Client, deployment: Deployment, root: Path, out: Path) -> dict[str, object]:
    """Review `root` and kill the worker that owns the reviewer once it has shown progress."""
    workspace = workspace_id(root)
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(
            cue.ref(Orchestrator.__actor_name__ or "", workspace).ask("review", path=str(root), out=str(out), timeout_s=120)
        )
        seen = 0
        async for chunk in cue.chunks(type="reviewer", id=workspace):
            seen += not chunk.end
            if seen == 3:
                break
        shard = shard_of("reviewer", workspace, deployment.shards)
        deployment.kill_worker(deployment.owners()[shard])
    result: dict[str, object] = asked.result()
    return result


async def test_a_review_survives_the_death_of_a_worker(tmp_path: Path, tmp_data: Path) -> None:
    root = code_base(tmp_path / "code")
    with Deployment(tmp_data, app="ops.team_app:app") as deployment:
        async with connect(deployment.nats_url) as cue:
            summary = await killed_review(cue, deployment, root, tmp_path / "out")
        assert (summary["files"], summary["cycles"]) == (FILES, 1), summary
        counts = await step_counts(tmp_data / "log")
        assert {key: count for key, count in counts.items() if count != 1} == {}
        assert {file for _, _, file in counts if file} == {f"part{number}.py" for number in range(FILES)}
        deployment.wait_owned()
        verified = run_cuebook("replay", "--verify", "--data", str(tmp_data))
        assert verified.returncode == 0, verified.stderr
        rows = [msgspec.json.decode(line) for line in verified.stdout.splitlines()]
        assert {row["stream"].partition("/")[0] for row in rows} == {
            "orchestrator", "research", "architect", "performance", "reviewer", "docs", "memory",
        }  # fmt: skip
        assert all(row["live"] and row["difference"] is None for row in rows), rows
    report = msgspec.json.decode((tmp_path / "out" / "report.json").read_bytes())
    assert len(report["files"]) == FILES
