"""A disk that fills up under load: 507, nothing half-written, no owner lost, service again when there is room (F-16, S18, design.md 6)."""

import asyncio
import shutil
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client

from events.keeping.verify import verify
from tests.support.busy_bank import EFFECTS, effects
from tests.support.busy_load import BusyLoad
from tests.support.deployment import Deployment, wait_until_async
from tests.support.effects import judge
from tests.support.rest import at_rest
from tests.support.small_disk import small_disk
from tests.support.wire import ask

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("_nats_program")]
MEGABYTES = 20
FULL_S = 7.0
"""Longer than the heartbeat of an owner may be old (S1)."""


async def refused(client: Client, account: str, command_id: str) -> int | None:
    return (await ask(client, f"busy.{account}.deposit.{command_id}", {"cents": 5})).code


async def epochs(client: Client, deployment: Deployment) -> list[int]:
    """Owner epochs: a shard that changed hands has another."""
    facts = deployment.facts()
    return [each.owner.epoch if each.owner is not None else 0 for each in facts.shards]


async def test_s18_a_disk_that_fills_under_load_refuses_and_serves_again_when_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", MEGABYTES) as disk:
        data, file = disk.folder / "data", tmp_path / "effects"
        app = "tests.support.busy_bank:app"
        with Deployment(data, app=app, environment={EFFECTS: str(file)}) as deployment:
            deployment.wait_balanced()
            client = await nats.connect(deployment.nats_url)
            try:
                async with BusyLoad(client, 1, tellers=2) as load:
                    await load.more(300)
                    before = await epochs(client, deployment)
                    disk.fill(leave_bytes=400_000)
                    # The load itself takes the last bytes.
                    await load.until(lambda: load.again["507"] > 20, "the disk is full")
                    # Of an account that nobody else asks: an open turn of another may wait for the disk, and what comes behind it with it.
                    assert await refused(client, "idle", "while-full") == 507
                    answer = await ask(client, "busy.idle.balance", {})
                    assert answer.code is None
                    await asyncio.sleep(FULL_S)
                    assert await refused(client, "idle", "while-full") == 507
                    disk.free()
                    assert disk.free_bytes > 1_000_000
                    await load.more(300)
                    assert await epochs(client, deployment) == before
                assert load.problems == []
                assert (await ask(client, "busy.idle.deposit.while-full", {"cents": 5})).code is None
                told = len(load.told)
                assert told > 0
                await wait_until_async(lambda: at_rest(data / "log"), "the log is at rest")
            finally:
                await client.close()
        shutil.copytree(data / "log", tmp_path / "log")
    assert verify(tmp_path / "log") == []
    problems, _ = judge(tmp_path / "log", load.asked, load.told, effects(file))
    assert problems == ["busy/idle: nobody asked for while-full"]
