"""`--nats URL`: a server that is not ours, with JetStream and without our subject mapping (S8, S11)."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import nats
import pytest

from ops.nats_server import NatsServer
from tests.support.checker import Asked, check, fnv1a
from tests.support.deployment import Deployment
from tests.support.wire import ask, ask_until_done, wait_events


@pytest.fixture
def outside_url(_nats_program: None, tmp_path: Path) -> Iterator[str]:
    """Some nats-server: it happens to be started by the same class, but its folder is not the deployment's, and it maps nothing."""
    server = NatsServer(tmp_path / "elsewhere")
    server.start()
    try:
        yield server.connection.client_url
    finally:
        server.stop()


@pytest.fixture
def deployment(outside_url: str, tmp_path: Path) -> Iterator[Deployment]:
    with Deployment(tmp_path / "data", nats=outside_url) as running:
        running.wait_balanced()
        yield running


async def test_asks_and_tells_work_through_a_server_without_our_mapping(deployment: Deployment, outside_url: str) -> None:
    assert not (deployment.data / "nats").exists(), "no server of our own is started beside it"
    assert quote(deployment.nats_url, safe="") == quote(outside_url, safe="")
    client = await nats.connect(outside_url)
    try:
        for shard in range(deployment.shards):
            account = next(name for name in (f"s{number}" for number in range(100)) if fnv1a(f"account{name}") % deployment.shards == shard)
            # More than once each: the queue group gives some to the owner, and some to the other worker, that forwards them.
            for number in range(1, 9):
                found = await ask(client, f"account.{account}.deposit.d-{number}", {"cents": 5}, headers={"Cue-Meta": "1"})
                assert (found.code, found.body) == (None, 5 * number)
                assert (found.headers["Cue-Shard"], found.headers["Cue-Version"]) == (str(shard), str(number))
                assert found.headers["Cue-Command-Id"] == f"d-{number}"
            refused = await ask(client, f"account.{account}.withdraw", {"cents": 500})
            assert (refused.code, refused.body["error"]) == (409, "rejected")
            assert (await ask(client, f"account.{account}.deposit", b"{")).code == 400
            await client.jetstream().publish(f"cue.tell.account.{account}.deposit.t-1", b'{"cents": 7}')
            events = await wait_events(client, f"account/{account}", 9)
            assert [event["command_id"] for event in events] == [*(f"d-{number}" for number in range(1, 9)), "t-1"]
        await ask(client, "account.s0.deposit.same", {"cents": 1})
        again = [await ask(client, "account.s0.deposit.same", {"cents": 1}) for _ in range(6)]
        assert len({found.body for found in again}) == 1
    finally:
        await client.close()


@pytest.mark.crash
async def test_a_kill_under_load_loses_and_doubles_nothing_there_either(deployment: Deployment, outside_url: str) -> None:
    client = await nats.connect(outside_url)
    ledger: list[Asked] = []

    async def deposit(number: int) -> None:
        account = f"k{number % 20}"
        found = await ask_until_done(client, f"account.{account}.deposit.d-{number}", {"cents": 3}, attempt_s=2.0)
        assert found.code is None, found
        ledger.append(Asked(f"account/{account}", f"d-{number}", "deposit", 3, found.body))
        if len(ledger) == 150:
            os.kill(deployment.workers["worker-1"], signal.SIGKILL)

    try:
        async with asyncio.TaskGroup() as group:
            for number in range(400):
                group.create_task(deposit(number))
    finally:
        await client.close()
    deployment.stop()
    assert check(deployment.data / "log", ledger) == []


async def test_a_worker_refuses_a_server_where_another_log_answers(deployment: Deployment, outside_url: str, tmp_path: Path) -> None:
    """S7: two deployments under one namespace would answer for each other."""
    other = Deployment(tmp_path / "other", nats=outside_url)
    with pytest.raises(AssertionError, match="ended with"):
        other.start()
    assert "another log" in other_log(tmp_path / "other")


def other_log(data: Path) -> str:
    return "\n".join(path.read_text() for path in (data / "logs").glob("*.log")) + (data.parent / f"{data.name}-up.txt").read_text()
