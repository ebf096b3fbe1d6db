"""What an ask costs, in counts that do not depend on the machine: commits, thread hops, encodes, NATS messages."""

import asyncio
import selectors
import sys
import threading
import time
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
from runtime.tasks import Tasks
from tests.support.deployment import Deployment, wait_until_async
from tests.support.wire import ask, stream_events

ASKS, IN_FLIGHT, ACCOUNTS = 1_000, 100, 20
WINDOW_S = 2


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
def statements(runtime: LocalRuntime) -> list[str]:
    """What the writer's connection executes from now on, without its values."""
    seen: list[str] = []
    store: Any = runtime.shards[0].store
    store._writing._connection.set_trace_callback(seen.append)
    return seen


@pytest.fixture
async def runtime(hops: Hops, encodes: Encodes, tmp_path: Path) -> AsyncIterator[LocalRuntime]:
    """One shard, whose accounts are live already."""
    async with local_runtime(app, tmp_path / "log", shards=1) as made:
        for number in range(ACCOUNTS):
            await made.ask(f"account/a{number}", "deposit", cents=1)
        yield made


async def test_a_thousand_asks_share_few_commits_hops_and_tasks(runtime: LocalRuntime, hops: Hops, monkeypatch: pytest.MonkeyPatch) -> None:
    """100 in flight: about 100 turns to a commit, and one hop to the writer's thread and one task for each commit, none for a turn."""
    spawned: list[str] = []
    spawn: Any = Tasks.spawn

    def spawning(self: Tasks, coroutine: Any, *, name: str) -> asyncio.Task[Any]:
        spawned.append(name)
        task: asyncio.Task[Any] = spawn(self, coroutine, name=name)
        return task

    monkeypatch.setattr(Tasks, "spawn", spawning)
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
    assert set(spawned) == {"commit 0"}
    assert len(spawned) <= after.commits - before.commits


async def test_s24_only_a_command_with_an_id_of_its_caller_leaves_an_inbox_row(runtime: LocalRuntime, statements: list[str]) -> None:
    """And one commit writes all the rows of a table with a few statements, never one each."""
    async with asyncio.TaskGroup() as group:
        for number in range(IN_FLIGHT):
            group.create_task(runtime.ask(f"account/a{number % ACCOUNTS}", "deposit", cents=1))
    inserts = Counter(sql.split("(")[0] for sql in statements if sql.startswith("INSERT"))
    assert set(inserts) == {"INSERT INTO events "}
    assert inserts["INSERT INTO events "] <= 8  # 64 + 2 * 16 + 4, in one commit or two
    statements.clear()
    await runtime.ask("account/a1", "deposit", cents=1, command_id="mine")
    assert {sql.split("(")[0] for sql in statements if sql.startswith("INSERT")} == {"INSERT INTO events ", "INSERT INTO inbox "}


async def test_an_ask_hops_once_and_a_query_never(runtime: LocalRuntime, hops: Hops) -> None:
    async def hops_of(method: str, **arguments: Any) -> int:
        before = hops.count
        await runtime.ask("account/a1", method, **arguments)
        return hops.count - before

    assert await hops_of("deposit", cents=1) == 1
    assert await hops_of("deposit", cents=1, command_id="once") == 1
    assert await hops_of("balance") == 0
    assert await hops_of("deposit", cents=1, command_id="once") <= 3  # a repeat: look it up, perhaps fold


async def test_an_idle_actor_has_no_task(runtime: LocalRuntime) -> None:
    """However many are live: a task is there only while a mailbox holds something."""
    before = len(asyncio.all_tasks())
    async with asyncio.TaskGroup() as group:
        for number in range(300):
            group.create_task(runtime.ask(f"account/idle-{number}", "deposit", cents=1))
    await wait_until_async(lambda: len(asyncio.all_tasks()) <= before, "the tasks of the turns have ended")
    (shard,) = runtime.shards
    assert shard.statistics().live_actors == ACCOUNTS + 300


class CountingSelector(selectors.DefaultSelector):
    """asyncio asks it once per turn of its loop."""

    turns = 0

    def select(self, timeout: float | None = None) -> "list[tuple[selectors.SelectorKey, int]]":
        self.turns += 1
        return super().select(timeout)


def test_an_idle_runtime_does_not_turn_the_loop(tmp_path: Path) -> None:
    """Nothing is polled: with live actors and nothing to do, the loop sleeps until its next timer."""
    selector = CountingSelector()

    async def main() -> int:
        async with local_runtime(app, tmp_path / "log") as runtime:
            for number in range(ACCOUNTS):
                await runtime.ask(f"account/a{number}", "deposit", cents=1)
            before = selector.turns
            await asyncio.sleep(1.0)
            return selector.turns - before

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        assert runner.run(main()) <= 5  # measured: 2, to fall asleep and to wake up


def wakeups(pid: int) -> dict[str, int]:
    """How often each thread of a process has gone to sleep by itself, `loop` for the main one."""
    found: dict[str, int] = {}
    for thread in Path(f"/proc/{pid}/task").iterdir():
        fields = dict(line.split(":", 1) for line in (thread / "status").read_text().splitlines())
        found["loop" if thread.name == str(pid) else thread.name] = int(fields["voluntary_ctxt_switches"])
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts what /proc tells of a process")
def test_an_idle_worker_wakes_for_its_heartbeat_and_its_look_at_the_others(own_bank: Deployment) -> None:
    """Over NATS too: twice a second for placement, once for the heartbeat; the threads of SQLite sleep on."""
    pids = own_bank.workers.values()
    least_loop, least_rest = WINDOW_S * 1_000, WINDOW_S * 1_000
    for _ in range(3):  # what happens once is no polling
        before = {pid: wakeups(pid) for pid in pids}
        time.sleep(WINDOW_S)
        for pid in pids:
            grown = {name: count - before[pid].get(name, 0) for name, count in wakeups(pid).items()}
            assert grown["loop"] >= WINDOW_S, "it must have looked at the other workers"
            least_loop = min(least_loop, grown.pop("loop"))
            least_rest = min(least_rest, sum(grown.values()))
    assert least_loop <= 8 * WINDOW_S  # measured: 4 a second
    assert least_rest <= 2 * WINDOW_S  # measured: 1 a second, the heartbeat


async def test_an_event_is_encoded_once(runtime: LocalRuntime, encodes: Encodes) -> None:
    encodes.counting = True
    for _ in range(50):
        await runtime.ask("account/a1", "deposit", cents=1)
    encodes.counting = False
    assert encodes.events == 50
    # The arguments and their check, the event, the reply, the event's hash and the checksum of its row. Measured: 6 for an ask.
    assert encodes.all <= 50 * 6


async def test_an_ask_takes_few_calls_on_the_loop(runtime: LocalRuntime) -> None:
    """Functions of ours, from the caller's ask to its reply, with 20 in flight: what an ask costs is their number."""
    calls: Counter[str] = Counter()
    ours = tuple(str(Path(__file__).parents[2] / package) for package in ("actors", "events", "ops", "runtime"))
    (shard,) = runtime.shards
    room = asyncio.Semaphore(ACCOUNTS)

    async def deposit(number: int) -> None:
        async with room:
            await runtime.ask(f"account/a{number % ACCOUNTS}", "deposit", cents=1)

    def profile(frame: FrameType, what: str, argument: Any) -> None:
        if what == "call" and frame.f_code.co_filename.startswith(ours):
            calls[frame.f_code.co_qualname] += 1

    before, profiler = shard.statistics().turns, sys.getprofile()
    sys.setprofile(profile)
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(ASKS):
                group.create_task(deposit(number))
    finally:
        sys.setprofile(profiler)
    assert shard.statistics().turns - before == ASKS
    assert calls.total() <= 70 * ASKS, calls.most_common(90)  # measured: 58


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
