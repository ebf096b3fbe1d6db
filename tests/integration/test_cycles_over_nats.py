"""Call cycles across workers, found by probes that travel over NATS (S23)."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from events.ids import shard_of
from runtime.client import connect
from tests.support.deployment import Deployment


@pytest.fixture
def callers(_nats_program: None, tmp_path: Path) -> Iterator[Deployment]:
    with Deployment(tmp_path / "data", app="tests.support.callers:app") as deployment:
        deployment.wait_balanced()
        yield deployment


async def test_s23_turns_on_two_workers_that_ask_each_other_are_told_apart(callers: Deployment) -> None:
    owners = callers.owners()
    names = [f"n{number}" for number in range(64)]
    one = names[0]
    other = next(
        name for name in names if owners[shard_of("caller", name, callers.shards)] != owners[shard_of("caller", one, callers.shards)]
    )
    async with connect(callers.nats_url) as cue:
        for name in (one, other):
            assert await cue.ref("caller", name).ask("call", path=[]) == [name]
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(cue.ref("caller", here).ask("call_slowly", to=there)) for here, there in ((one, other), (other, one))
            ]
        replies = [task.result() for task in tasks]
    assert sum("cycle" in reply for reply in replies) == 1, replies
    assert time.monotonic() - began < 5.0, "without probes it would take 30 s"
