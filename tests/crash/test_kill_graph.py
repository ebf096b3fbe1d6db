"""kill -9 of the owner at random moments of a graph with an interrupt: it ends, and no finished node runs again (S15, S19)."""

import asyncio
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.errors import ActorError, Waiting
from events.sqlite.reader_sqlite import SqliteLogReader
from runtime.client import Client, connect
from tests.support.deployment import Deployment, run_cuebook

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.usefixtures("_nats_program")]
KILLS = int(os.environ.get("CUEBOOK_GRAPH_KILLS", "3"))
LINES = ["planned", "Oslo: museums", "Oslo: prices", "answered yes", "booked", "told ada", "told bob"]
INPUT: dict[str, Any] = {"city": "Oslo", "notes": []}


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    monkeypatch.setenv("TRIP_LEDGER", str(tmp_path / "ledger"))
    with Deployment(tmp_path / "data", app="ops.examples.graph:app") as started:
        started.wait_balanced()
        yield started


def kill_all(deployment: Deployment) -> None:
    for pid in set(deployment.owners().values()):
        deployment.kill_worker(pid)
    deployment.wait_owned()


async def run(cue: Client, number: int) -> Any:
    """One trip from start to end, repeated by id until it is done; the person answers as soon as the wait is known."""
    ref = cue.ref("travel", f"t{number}")
    async with asyncio.timeout(100):
        while True:
            try:
                return await ref.ask("run", command_id=f"run{number}", timeout_s=5.0, input=INPUT)
            except Waiting as waiting:
                try:
                    await cue.answer(f"travel/t{number}", waiting.fields["wait_id"], "yes", timeout_s=5.0)
                except ActorError:
                    await asyncio.sleep(0.1)  # answered already, or its owner is gone: the next round tells
            except (ActorError, TimeoutError):
                await asyncio.sleep(0.1)


async def test_i14_a_graph_that_is_killed_at_random_ends_and_repeats_no_node_that_had_finished(deployment: Deployment) -> None:
    chance = random.Random(20)
    async with connect(deployment.nats_url) as cue:
        for number in range(KILLS):
            trip = asyncio.get_running_loop().create_task(run(cue, number))
            await asyncio.sleep(chance.random() * 1.0)
            await asyncio.to_thread(kill_all, deployment)
            reply = await trip
            assert reply["booked"] is True
            # "planned" twice: the subgraph gives back what it was given, as LangGraph has it.
            assert sorted(reply["notes"]) == sorted([*LINES, "planned"])
    # Only what was under way at a kill may have run again: at most two nodes run at once.
    ledger = (deployment.data.parent / "ledger").read_text().splitlines()
    assert len(LINES) * KILLS <= len(ledger) <= (len(LINES) + 2) * KILLS
    deployment.stop()
    reader = await SqliteLogReader.open(deployment.data / "log")
    try:
        for number in range(KILLS):
            events = await reader.read_stream(f"travel/t{number}")  # type: ignore[arg-type]
            assert [event.type for event in events].count("turn.completed") == 1
    finally:
        await reader.close()
    verified = run_cuebook("replay", "--verify", "--app", "ops.examples.graph:app", "--data", str(deployment.data))
    assert verified.returncode == 0, verified.stdout + verified.stderr
