"""A whole deployment, its memory embedded by another model than before, its cache shared by its workers, its projector stopped."""

import asyncio
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from projections.embedding.hashing import HashEmbedder
from projections.locking import lock_holder
from runtime.client import Client, connect
from tests.support.deployment import Deployment, clean_environment, cuebook_argv, run_cuebook, wait_until

pytest.importorskip("langchain_core")
pytestmark = [pytest.mark.timeout(240), pytest.mark.usefixtures("_nats_program")]
APP = "tests.support.town:app"
NEW_MODEL = "fake/model-1"
WORKSPACES = ("north", "south")
MANY = 230
"""More than are renewed at once (`ops.renewing`)."""


def deployment(data: Path, **environment: str) -> Deployment:
    return Deployment(data, app=APP, environment=environment)


async def remembered(cue: Client, workspace: str, first: int, count: int) -> None:
    memory = cue.ref("memory", workspace)
    for start in range(first, first + count, 20):
        async with asyncio.TaskGroup() as group:
            for number in range(start, min(start + 20, first + count)):
                group.create_task(memory.ask("remember", content=f"{workspace} thing number {number}", command_id=f"{workspace}-{number}"))


async def stats(cue: Client, workspace: str) -> dict[str, Any]:
    head = await cue.log("head")
    after = {int(shard): at for shard, at in head["positions"].items()}
    found: dict[str, Any] = await cue.view("memory", after=after).stats(workspace=workspace)
    return found


async def test_another_model_is_a_rebuild_with_progress_while_new_events_arrive(tmp_path: Path) -> None:
    """An `Embeddings` of LangChain in place of the built-in one: each memory gets one vector of it, those that come meanwhile too."""
    data = tmp_path / "data"
    with deployment(data) as before:
        before.wait_balanced()
        async with connect(before.nats_url) as cue:
            await remembered(cue, "north", 0, MANY)
            await remembered(cue, "south", 0, 20)
            assert (await stats(cue, "north"))["vectors"] == {HashEmbedder.model: MANY}
    with deployment(data, TOWN_MODEL=NEW_MODEL) as now:
        now.wait_balanced()
        async with connect(now.nats_url) as cue:
            found = await stats(cue, "north")
            assert (found["vectors"], found["searched"]) == ({HashEmbedder.model: MANY}, NEW_MODEL)
            rebuild = await asyncio.create_subprocess_exec(
                *cuebook_argv("projections", "rebuild", "memory", "--new-vectors", "--json", "--data", str(data)),
                env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
            written, ended = MANY, asyncio.Event()

            async def write() -> None:
                nonlocal written
                while not ended.is_set():
                    await remembered(cue, "north", written, 5)
                    written += 5

            async with asyncio.TaskGroup() as group:
                group.create_task(write())
                out, said = await rebuild.communicate()
                ended.set()
            assert rebuild.returncode == 0, said.decode()
            assert msgspec.json.decode(out)["projection"] == "memory"
            counts = [tuple(map(int, each)) for each in re.findall(r"memory: (\d+) of (\d+) memories have new vectors", said.decode())]
            assert counts[0] == (0, MANY + 20)
            assert counts[-1][0] >= MANY + 20
            assert len(counts) >= 3, "it is told how far it is"
            assert written > MANY, "new ones came meanwhile"
            for workspace, count in (("north", written), ("south", 20)):
                found = await stats(cue, workspace)
                assert (found["vectors"], found["memories"]) == ({NEW_MODEL: count}, count)
            for number in (0, MANY - 1, written - 1):
                content = f"north thing number {number}"
                (best, *_) = await cue.view("memory").recall(workspace="north", query=content, k=3)
                assert best["content"] == content
                assert best["similarity"] == pytest.approx(1.0, abs=1e-3), "the same text has the same vector"
        verified = run_cuebook("projections", "verify", "memory", "--app", APP, "--data", str(data), "--json")
        assert verified.returncode == 0, verified.stderr


async def test_two_workspaces_never_share_a_cached_result(tmp_path: Path) -> None:
    """The same step with the same arguments, in the process and out of the server, over every worker and after all of them were killed."""
    data = tmp_path / "data"
    with deployment(data) as town:
        town.wait_balanced()

        async def outcome(cue: Client, workspace: str) -> tuple[int, bool]:
            """What `tally` answered, and whether that was taken from the cache."""
            answer = await cue.ref("sage", workspace).ask("tally", question="how many", ttl=3_600)
            page = await cue.log("read", stream=f"sage/{workspace}", limit=1_000)
            (*_, last) = (each["payload"] for each in page["events"] if each["type"] == "step.completed")
            assert last["result"] == answer
            return answer, "hit" in last["cache"]

        keys = set()
        async with connect(town.nats_url) as cue:
            for workspace in WORKSPACES:
                assert (await outcome(cue, workspace))[1] is False, "nobody else's"
                assert (await outcome(cue, workspace))[1] is True, "its own"
                page = await cue.log("read", stream=f"sage/{workspace}", limit=1_000)
                keys |= {each["payload"]["cache"]["key"] for each in page["events"] if each["type"] == "step.completed"}
            assert len(keys) == 1, "what would be shared, if only the key counted"
            await cue.ask_view("cache", "stats", _after=(await cue.log("head"))["positions"])
        for pid in town.workers.values():
            town.kill_worker(pid)
        town.wait_balanced()
        async with connect(town.nats_url) as cue:
            for workspace in WORKSPACES:
                assert (await outcome(cue, workspace))[1] is True, "from the server, of its own"
            assert (await outcome(cue, "west"))[1] is False
            # Its own value, and no other's: what was computed there is the number of computations of that process.
            assert [(await outcome(cue, workspace))[1] for workspace in (*WORKSPACES, "west")] == [True] * 3


async def test_doctor_names_a_stopped_projector_and_how_to_get_another(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with deployment(data) as town:
        town.wait_balanced()
        pid: int = wait_until(lambda: lock_holder(data / "views" / "memory"), "a projector runs")
        async with connect(town.nats_url) as cue:
            await remembered(cue, "north", 0, 3)
            await stats(cue, "north")
            os.kill(pid, signal.SIGSTOP)
            try:
                await remembered(cue, "north", 3, 3)
                began = time.monotonic()
                while True:
                    done = run_cuebook("doctor", "--data", str(data), "--json")
                    lines = [msgspec.json.decode(line) for line in done.stdout.splitlines()]
                    (memory,) = (each for each in lines if each["check"] == "projection memory")
                    if not memory["ok"]:
                        break
                    assert time.monotonic() - began < 30
                assert done.returncode == 1
                assert re.search(r"\d+ events behind, nothing applied for", memory["found"])
                assert f"end process {pid}" in memory["remedy"]
                assert memory["remedy"] in done.stderr
            finally:
                os.kill(pid, signal.SIGCONT)
            assert (await stats(cue, "north"))["memories"] == 6
        done = run_cuebook("doctor", "--data", str(data), "--json")
        lines = [msgspec.json.decode(line) for line in done.stdout.splitlines()]
        assert [each["ok"] for each in lines if each["check"] == "projection memory"] == [True]
