"""Shards on the move under load: planned, by kill, by stop and continue (S1 to S5, S9)."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import nats
import nats.errors
import pytest
from nats.aio.client import Client

from tests.support.checker import Asked, check, fnv1a
from tests.support.deployment import Deployment, wait_until, wait_until_async
from tests.support.wire import ask, ask_until_done
from tests.support.workers import SHARDS, Workers, connected, served

ACCOUNTS = [f"m{number}" for number in range(16)]


@pytest.fixture
def workers(_nats_program: None, tmp_path: Path) -> Iterator[Workers]:
    with served(tmp_path) as made:
        yield made


class Load:
    """Plain NATS callers that deposit one after another, each with ids of its own, until told to stop.

    strict: a caller that must ask twice for anything is a failure (S9: a planned handover is unnoticed inside the deadline).
    """

    def __init__(self, client: Client, *, strict: bool) -> None:
        self._client = client
        self._strict = strict
        self._stop = asyncio.Event()
        self.ledger: list[Asked] = []
        self.slowest_s = 0.0
        self.complaints: list[str] = []

    async def __aenter__(self) -> "Load":
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        for number, account in enumerate(ACCOUNTS):
            self._group.create_task(self._call(number, account))
        return self

    async def __aexit__(self, *error: object) -> None:
        self._stop.set()
        await self._group.__aexit__(None, None, None)

    async def _call(self, caller: int, account: str) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            name = f"c{caller}-{number}"
            tail = f"account.{account}.deposit.{name}"
            began = time.monotonic()
            try:
                if self._strict:
                    found = await ask(self._client, tail, {"cents": number}, timeout_s=30.0)
                else:
                    found = await ask_until_done(self._client, tail, {"cents": number}, attempt_s=2.0)
            except (nats.errors.Error, TimeoutError) as problem:
                self.complaints.append(f"{tail}: {problem!r} after {time.monotonic() - began:.2f} s")
                continue
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            if found.code is not None:
                self.complaints.append(f"{tail}: {found}")
                continue
            self.ledger.append(Asked(f"account/{account}", name, "deposit", number, found.body))

    async def more(self, count: int) -> None:
        """Wait until so many further asks are answered."""
        goal = len(self.ledger) + count
        await wait_until_async(lambda: len(self.ledger) >= goal, f"{count} more answers; complaints: {self.complaints[:3]}", 30.0)


async def test_a_planned_handover_is_unnoticed_by_plain_callers(workers: Workers) -> None:
    """SIGTERM of a worker under load: its shards move to the other, and every ask is answered at its first attempt (S5, S9)."""
    first, _ = workers.start("worker-a"), workers.start("worker-b")
    wait_until(lambda: workers.shares() == {"worker-a": 2, "worker-b": 2}, "each worker owns two shards")
    async with connected(workers) as client, Load(client, strict=True) as load:
        await load.more(200)
        first.send(signal.SIGTERM)
        await wait_until_async(lambda: workers.shares() == {"worker-a": 0, "worker-b": 4}, "the other owns all")
        await wait_until_async(lambda: first.code is not None, "it ends")
        await load.more(200)
    assert first.code == 0, first.text
    assert load.complaints == []
    assert load.slowest_s < 5.0
    workers.stop()
    assert check(workers.log, load.ledger) == []


async def test_a_worker_that_joins_gets_shards_and_nobody_notices(workers: Workers) -> None:
    workers.start("worker-a")
    wait_until(lambda: workers.shares() == {"worker-a": 4}, "the first owns all shards")
    async with connected(workers) as client, Load(client, strict=True) as load:
        await load.more(200)
        workers.start("worker-b")
        await wait_until_async(lambda: workers.shares() == {"worker-a": 2, "worker-b": 2}, "each worker owns two shards")
        await load.more(200)
    assert load.complaints == []
    assert load.slowest_s < 5.0
    workers.stop()
    assert check(workers.log, load.ledger) == []


@pytest.mark.crash
async def test_up_restarts_a_killed_worker_and_gives_it_shards(own_bank: Deployment) -> None:
    before = own_bank.workers
    own_bank.kill_worker(before["worker-1"])
    owned = own_bank.wait_owned(without=before["worker-1"])
    assert before["worker-2"] in owned.values()
    await wait_until_async(lambda: own_bank.workers.get("worker-1") not in (None, before["worker-1"]), "worker-1 runs again")
    after = own_bank.workers
    assert after["worker-2"] == before["worker-2"]
    (state,) = (each for each in own_bank.state.processes if each.role == "worker-1")
    assert state.restarts == 1
    await wait_until_async(lambda: set(own_bank.owners().values()) == set(after.values()), "it owns shards again")
    client = await nats.connect(own_bank.nats_url)
    try:
        for account in ACCOUNTS:
            assert (await ask_until_done(client, f"account.{account}.deposit", {"cents": 5})).body == 5
    finally:
        await client.close()


@pytest.mark.crash
@pytest.mark.slow
async def test_a_stopped_worker_loses_its_shards_and_wakes_as_a_zombie_that_writes_nothing(workers: Workers) -> None:
    """SIGSTOP beyond the stall bound: the other takes over; SIGCONT: no lost write is called a success, it works again (S1 to S3)."""
    first, _ = workers.start("worker-a"), workers.start("worker-b")
    wait_until(lambda: workers.shares() == {"worker-a": 2, "worker-b": 2}, "each worker owns two shards")
    mine = {shard for shard, pid in workers.owners().items() if pid == first.pid}
    frozen = [name for name in (f"z{number}" for number in range(100)) if fnv1a(f"account{name}") % SHARDS in mine][:8]
    async with connected(workers) as client:
        # Live actors, so that the zombie could answer from memory; and no load when it stops, so that it holds no write lock (S2).
        for name in frozen:
            assert (await ask(client, f"account.{name}.deposit", {"cents": 1})).body == 1
        first.send(signal.SIGSTOP)
        # In the zombie's socket when it wakes: without an id, and nobody will ask again.
        inbox = client.new_inbox()
        late = await client.subscribe(inbox + ".*")
        for number, name in enumerate(frozen):
            await client.publish(f"cue.ask.account.{name}.deposit", b'{"cents": 5}', reply=f"{inbox}.deposit-{number}")
            await client.publish(f"cue.ask.account.{name}.balance", b"", reply=f"{inbox}.balance-{number}")
        await client.flush()
        async with Load(client, strict=False) as load:
            await wait_until_async(lambda: workers.shares() == {"worker-a": 0, "worker-b": 4}, "the other has taken all", 25.0)
            await load.more(100)
            for name in frozen:
                assert (await ask(client, f"account.{name}.deposit", {"cents": 100})).body == 101
            first.send(signal.SIGCONT)
            await wait_until_async(lambda: workers.shares() == {"worker-a": 2, "worker-b": 2}, "the stopped one works again", 25.0)
            await load.more(200)
        told: dict[str, str] = {}
        with contextlib.suppress(nats.errors.TimeoutError, TimeoutError):
            while len(told) < 2 * len(frozen):
                message = await late.next_msg(timeout=2)
                told[message.subject.rpartition(".")[2]] = "" if message.headers else message.data.decode()
        balances = [(await ask_until_done(client, f"account.{name}.balance", {})).body for name in frozen]
    assert load.complaints == []
    assert first.code is None
    for number, balance in enumerate(balances):
        assert balance in (101, 106)
        # Called a success = it is there; an old balance would be an answer from memory.
        assert told.get(f"deposit-{number}", "") in ("", "106"), told
        assert balance == 106 or not told.get(f"deposit-{number}")
        assert told.get(f"balance-{number}", "") in ("", "101", "106"), told
    workers.stop()
    assert check(workers.log, load.ledger, complete=False) == []


@pytest.mark.crash
@pytest.mark.slow
async def test_a_worker_stopped_under_load_never_stops_the_others(workers: Workers) -> None:
    """Stopped anywhere, perhaps inside a transaction: then the taker kills it for the write lock (S2), else it may wake."""
    first, second = workers.start("worker-a"), workers.start("worker-b")
    wait_until(lambda: workers.shares() == {"worker-a": 2, "worker-b": 2}, "each worker owns two shards")
    async with connected(workers) as client, Load(client, strict=False) as load:
        await load.more(200)
        first.send(signal.SIGSTOP)
        await wait_until_async(lambda: list(workers.owners().values()) == [second.pid] * SHARDS, "the other has taken all", 25.0)
        await load.more(200)
        if first.code is None:
            first.send(signal.SIGCONT)
        else:
            assert first.code == -signal.SIGKILL
            workers.start("worker-a")
        await wait_until_async(lambda: workers.shares() == {"worker-a": 2, "worker-b": 2}, "two work again", 25.0)
        await load.more(200)
    assert load.complaints == []
    workers.stop()
    assert check(workers.log, load.ledger) == []


@pytest.mark.crash
async def test_both_workers_killed_at_once_lose_nothing(own_bank: Deployment) -> None:
    client = await nats.connect(own_bank.nats_url)
    try:
        async with Load(client, strict=False) as load:
            await load.more(200)
            for pid in own_bank.workers.values():
                os.kill(pid, signal.SIGKILL)
            await load.more(200)
        assert load.complaints == []
    finally:
        await client.close()
    own_bank.stop()
    assert check(own_bank.data / "log", load.ledger) == []
