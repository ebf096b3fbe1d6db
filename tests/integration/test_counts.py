"""What an ask costs, in counts that do not depend on the machine: commits, thread hops, encodes, NATS messages (issue 2)."""

import asyncio
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import aiosqlite
import msgspec
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from actors import Event
from ops.examples.bank import app
from runtime.local import LocalRuntime, local_runtime
from tests.support.deployment import wait_until_async
from tests.support.wire import ask, stream_events

ASKS, IN_FLIGHT, ACCOUNTS = 1_000, 100, 20


class Encodes:
    """Calls of msgspec's JSON encoders and of `encode_checked` for events, in every thread, while `counting`."""

    def __init__(self) -> None:
        self.counting = False
        self.all = 0
        self.events = 0

    def profile(self, frame: FrameType, what: str, argument: Any) -> None:
        if not self.counting:
            return
        if what == "c_call" and argument.__name__ == "encode" and isinstance(getattr(argument, "__self__", None), msgspec.json.Encoder):
            self.all += 1
        elif what == "call" and frame.f_code.co_name == "encode_checked":
            self.events += any(isinstance(value, Event) for value in frame.f_locals.values())


@pytest.fixture
def encodes() -> Iterator[Encodes]:
    """Before the runtime, so that its threads are watched too."""
    counted = Encodes()
    before = sys.getprofile()
    threading.setprofile(counted.profile)
    sys.setprofile(counted.profile)
    yield counted
    sys.setprofile(before)
    threading.setprofile(None)


class Hops:
    def __init__(self) -> None:
        self.count = 0


@pytest.fixture
def hops(monkeypatch: pytest.MonkeyPatch) -> Hops:
    """Every call that goes to a thread of SQLite and back."""
    counted = Hops()
    execute: Any = aiosqlite.Connection._execute

    async def counting(self: aiosqlite.Connection, function: Any, *args: Any, **kwargs: Any) -> Any:
        counted.count += 1
        return await execute(self, function, *args, **kwargs)

    monkeypatch.setattr(aiosqlite.Connection, "_execute", counting)
    return counted


@pytest.fixture
async def runtime(hops: Hops, encodes: Encodes, tmp_path: Path) -> AsyncIterator[LocalRuntime]:
    """One shard, whose accounts are live already."""
    async with local_runtime(app, tmp_path / "log", shards=1) as made:
        for number in range(ACCOUNTS):
            await made.ask(f"account/a{number}", "deposit", cents=1)
        yield made


async def test_a_thousand_asks_share_few_commits_and_hops(runtime: LocalRuntime, hops: Hops) -> None:
    """100 in flight: about 100 turns to a commit, and one hop to the writer's thread for each commit, none for a turn."""
    room = asyncio.Semaphore(IN_FLIGHT)

    async def deposit(number: int) -> None:
        async with room:
            await runtime.ask(f"account/a{number % ACCOUNTS}", "deposit", cents=1, command_id=f"c{number}")

    (shard,) = runtime.shards
    before, hops_before = shard.statistics(), hops.count
    async with asyncio.TaskGroup() as group:
        for number in range(ASKS):
            group.create_task(deposit(number))
    after = shard.statistics()
    assert (after.turns - before.turns, after.events - before.events) == (ASKS, ASKS)
    assert after.commits - before.commits <= 30  # measured: 10
    assert hops.count - hops_before == after.commits - before.commits


async def test_an_ask_hops_once_and_a_query_never(runtime: LocalRuntime, hops: Hops) -> None:
    async def hops_of(method: str, **arguments: Any) -> int:
        before = hops.count
        await runtime.ask("account/a1", method, **arguments)
        return hops.count - before

    assert await hops_of("deposit", cents=1) == 1
    assert await hops_of("deposit", cents=1, command_id="once") == 1
    assert await hops_of("balance") == 0
    assert await hops_of("deposit", cents=1, command_id="once") <= 3  # a repeat: look it up, perhaps fold


async def test_an_event_is_encoded_once(runtime: LocalRuntime, encodes: Encodes) -> None:
    encodes.counting = True
    for _ in range(50):
        await runtime.ask("account/a1", "deposit", cents=1)
    encodes.counting = False
    assert encodes.events == 50
    # With the request and the reply, the event's hash and the checksums of its rows. Measured: 6 for an ask.
    assert encodes.all <= 50 * 7


class Traffic:
    """Everything that the server carries, by the first tokens of its subject."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.messages: Counter[str] = Counter()

    async def heard(self, message: Msg) -> None:
        first, *rest = message.subject.split(".")
        if first == "cue":
            # A mapped ask is seen under its shard.
            self.messages["ask" if "ask" in rest[:3] else rest[0]] += 1
        elif first == "_INBOX":
            self.messages["reply"] += 1

    @contextmanager
    def quiet(self) -> Iterator[Counter[str]]:
        self.messages.clear()
        yield self.messages


@pytest.fixture
async def traffic(client: Client) -> AsyncIterator[Traffic]:
    made = Traffic(client)
    subscription = await client.subscribe(">", cb=made.heard)
    await client.flush()
    yield made
    await subscription.unsubscribe()


async def test_a_lone_ask_costs_four_messages_and_a_query_two(client: Client, traffic: Traffic) -> None:
    with traffic.quiet() as seen:
        for _ in range(20):
            await ask(client, "account.counted.deposit", {"cents": 1})
        await wait_until_async(lambda: min(seen["event"], seen["_commit"]) >= 20, "all is heard")
        assert dict(seen) == {"ask": 20, "reply": 20, "event": 20, "_commit": 20}
    with traffic.quiet() as seen:
        for _ in range(20):
            await ask(client, "account.counted.balance")
        await client.flush()
        assert dict(seen) == {"ask": 20, "reply": 20}
    with traffic.quiet() as seen:
        assert (await ask(client, "account.counted.withdraw", {"cents": 1_000})).code == 409
        await client.flush()
        assert dict(seen) == {"ask": 1, "reply": 1}


async def test_a_thousand_asks_share_few_hints(client: Client, traffic: Traffic) -> None:
    """Asks, replies and events one each; the hints of commits are shared like the commits."""
    room = asyncio.Semaphore(IN_FLIGHT)

    async def deposit(number: int) -> None:
        async with room:
            assert (await ask(client, f"account.many-{number % ACCOUNTS}.deposit.m-{number}", {"cents": 1})).code is None

    with traffic.quiet() as seen:
        async with asyncio.TaskGroup() as group:
            for number in range(ASKS):
                group.create_task(deposit(number))
        await wait_until_async(lambda: seen["event"] >= ASKS, "all is heard")
        hints = seen.pop("_commit")
        assert dict(seen) == {"ask": ASKS, "reply": ASKS, "event": ASKS}
    assert hints <= 400  # four shards; on a loaded machine their batches are small
    versions = [event["version"] for event in await stream_events(client, "account/many-0")]
    assert versions == list(range(1, ASKS // ACCOUNTS + 1))
