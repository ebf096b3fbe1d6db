"""A worker is told to stop while a shard of its own moves to another one: the turns of that shard have the time of the drain too (S5)."""

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from events.ids import shard_of
from runtime.wire import Subjects
from tests.support.deployment import wait_until, wait_until_async
from tests.support.workers import SHARDS, Workers, connected, served

_MANY = [f"g{number}" for number in range(100)]
NAMES = [next(name for name in _MANY if shard_of("gated", name, SHARDS) == shard) for shard in range(SHARDS)]
"""An actor of each shard."""


@pytest.fixture
def workers(_nats_program: None, tmp_path: Path) -> Iterator[Workers]:
    with served(tmp_path, app="tests.support.gated:app") as made:
        yield made


@pytest.mark.slow
async def test_s5_a_turn_of_a_shard_that_was_moving_already_is_not_cut_off(workers: Workers, tmp_path: Path) -> None:
    first = workers.start("worker-a")
    wait_until(lambda: workers.shares() == {"worker-a": SHARDS}, "it owns all")
    offered: list[int] = []

    async def on_control(message: Msg) -> None:
        said = json.loads(message.data)
        if said["op"] == "ready":
            offered.append(said["shard"])

    async with connected(workers) as client, asyncio.TaskGroup() as group:
        await client.subscribe(Subjects("cue", SHARDS).control, cb=on_control)
        await client.flush()
        asked = []
        for name in NAMES:
            body = json.dumps({"folder": str(tmp_path), "name": name}).encode()
            asked.append(group.create_task(client.request(f"cue.ask.gated.{name}.work.c-{name}", body, timeout=40)))
        begun = [tmp_path / f"{name}.begun" for name in NAMES]
        await wait_until_async(lambda: all(path.exists() for path in begun), "a turn is open in each shard")
        workers.start("worker-b")
        await wait_until_async(lambda: offered, "a shard is on its way")
        moving = offered[0]
        first.send(signal.SIGTERM)
        for shard, name in enumerate(NAMES):
            if shard != moving:
                (tmp_path / f"{name}.gate").touch()
        others = set(range(SHARDS)) - {moving}
        second = workers.running["worker-b"].pid
        await wait_until_async(lambda: others <= {shard for shard, pid in workers.owners().items() if pid == second}, "the others moved")
        (tmp_path / f"{NAMES[moving]}.gate").touch()
        await wait_until_async(lambda: first.code is not None, "it ends")
    assert [json.loads(each.result().data) for each in asked] == NAMES
    assert [path.read_text() for path in begun] == ["begun\n"] * SHARDS
    assert first.code == 0, first.text
