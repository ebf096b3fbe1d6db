"""Too much at once, readers that do not read, and a JetStream stream that somebody deletes (I-17, F-12, F-14, S11)."""

import asyncio
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import nats
import nats.errors
import nats.js.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from tests.support.deployment import Deployment
from tests.support.wire import ask, ask_until_done, stream_events

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("_nats_program")]


@pytest.fixture(scope="module")
def deployment(_nats_program: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("floods") / "data", app="tests.support.busy_bank:app") as made:
        made.wait_balanced()
        yield made


@pytest.fixture
async def client(deployment: Deployment) -> AsyncIterator[Client]:
    connection = await nats.connect(deployment.nats_url)
    yield connection
    await connection.close()


def resident_mib(deployment: Deployment) -> float:
    """Memory of all workers together."""
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in deployment.workers.values())
    return pages * 4096 / 2**20


async def test_a_flood_on_one_actor_is_refused_with_429_and_memory_stays_bounded(deployment: Deployment, client: Client) -> None:
    """I-17: what is accepted is done, what is not is told at once and leaves nothing; another actor is answered meanwhile."""
    before = resident_mib(deployment)
    codes: Counter[str] = Counter()
    done = asyncio.Event()
    flood = 4_000

    async def on_reply(message: Msg) -> None:
        codes[(message.headers or {}).get("Nats-Service-Error-Code", "done")] += 1
        if codes.total() == flood:
            done.set()

    inbox = client.new_inbox()
    await client.subscribe(f"{inbox}.*", cb=on_reply)
    for number in range(flood):
        body = json.dumps({"cents": 1, "name": f"flood-{number}"}).encode()
        await client.publish(f"cue.ask.busy.flooded.deposit_slowly.flood-{number}", body, reply=f"{inbox}.{number}")
    assert (await ask_until_done(client, "busy.bystander.deposit.calm", {"cents": 5})).body == 5
    async with asyncio.timeout(60):
        await done.wait()
    assert set(codes) == {"done", "429"}
    assert codes["429"] > flood / 4
    assert (await ask_until_done(client, "busy.flooded.balance", {})).body == codes["done"]
    assert resident_mib(deployment) - before < 150


async def test_a_subscriber_that_never_reads_slows_nobody(deployment: Deployment, client: Client) -> None:
    """F-14: the server cuts it off or keeps its copies; callers notice nothing, and the log has every event for whoever catches up."""
    url = urlsplit(deployment.nats_url)
    with socket.create_connection((url.hostname, url.port)) as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        login = json.dumps({"user": url.username, "pass": url.password, "verbose": False, "pedantic": False})
        lazy.sendall(f"CONNECT {login}\r\nSUB cue.event.> 1\r\nPING\r\n".encode())
        slowest = 0.0
        loop = asyncio.get_running_loop()
        for number in range(400):
            began = loop.time()
            assert (await ask(client, f"busy.lazy.deposit.lazy-{number}", {"cents": 1})).body == number + 1
            slowest = max(slowest, loop.time() - began)
    assert slowest < 5.0
    assert [event["version"] for event in await stream_events(client, "busy/lazy")] == list(range(1, 401))


async def tell(client: Client, account: str, cents: int) -> None:
    """Without an id of its own, until JetStream has kept it."""
    async with asyncio.timeout(30):
        while True:
            try:
                await client.jetstream().publish(f"cue.tell.busy.{account}.deposit", json.dumps({"cents": cents}).encode(), timeout=1)
            except (nats.errors.Error, nats.js.errors.Error, TimeoutError):
                await asyncio.sleep(0.05)
            else:
                return


async def wait_balance(client: Client, account: str, cents: int) -> None:
    async with asyncio.timeout(30):
        while (found := (await ask_until_done(client, f"busy.{account}.balance", {})).body) != cents:
            assert found < cents
            await asyncio.sleep(0.05)


async def test_a_deleted_tell_stream_is_made_again_under_a_running_worker(client: Client) -> None:
    """F-12, S11: its numbers begin anew, so a tell that has no id of its own must not be taken for one of the former stream."""
    for _ in range(3):
        await tell(client, "told", 1)
    await wait_balance(client, "told", 3)
    await client.jetstream().delete_stream("cue_tell")
    for _ in range(3):
        await tell(client, "told", 10)
    await wait_balance(client, "told", 33)
