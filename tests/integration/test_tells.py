"""Tells: kept while nobody is up, handled once, in order, across kills (S11, S25)."""

import asyncio
import os
import re
import signal
from collections import Counter
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from ops.examples.bank import app
from ops.nats_server import NatsServer
from runtime.node import Node, NodeConfig
from runtime.over_nats import tells_nats
from tests.support.checker import Asked, Checker, fnv1a, unsent
from tests.support.deployment import Deployment, owners, wait_until_async
from tests.support.wire import ask, ask_until_done, positions, stream_events, wait_events


async def settled(client: Client, account: str, done: int) -> list[int]:
    """The cents of an account's events, once `done` are there and a later ask has gone through the same mailbox."""
    await wait_events(client, f"account/{account}", done)
    await ask_until_done(client, f"account.{account}.balance", {})
    return [event["payload"]["cents"] for event in await stream_events(client, f"account/{account}") if event["kind"] == "state"]


async def test_a_tell_is_handled_and_answers_nobody(client: Client) -> None:
    ack = await client.jetstream().publish("cue.tell.account.told.deposit", b'{"cents": 5}')
    assert (ack.stream, ack.duplicate) == ("cue_tell", None)
    (event,) = await wait_events(client, "account/told", 1)
    assert re.fullmatch(rf"js-cue_tell-[0-9a-f]+-{ack.seq}", event["command_id"])
    assert (await ask(client, "account.told.balance")).body == 5


async def test_a_plain_publish_is_a_tell_too(client: Client) -> None:
    await client.publish("cue.tell.account.told-plain.deposit.p-1", b'{"cents": 5}', headers={"Cue-Correlation-Id": "plain-1"})
    (event,) = await wait_events(client, "account/told-plain", 1)
    assert (event["command_id"], event["correlation_id"]) == ("p-1", "plain-1")


async def test_a_tell_with_the_same_id_twice_takes_effect_once(client: Client) -> None:
    js = client.jetstream()
    for _ in range(3):
        await js.publish("cue.tell.account.twice.deposit.once", b'{"cents": 5}')
    await js.publish("cue.tell.account.twice.deposit.last", b'{"cents": 7}')
    assert await settled(client, "twice", 2) == [5, 7]
    # An ask with the id of a tell gets the tell's own answer.
    assert (await ask(client, "account.twice.deposit.once", {"cents": 5})).body == 5
    assert await settled(client, "twice", 2) == [5, 7]


async def test_the_message_id_of_a_tell_is_not_its_command_id(client: Client) -> None:
    """One key of JetStream for two actors must not lose the second (S11): so senders are told not to set it, and we never use it."""
    ack = await client.jetstream().publish("cue.tell.account.js-id.deposit", b'{"cents": 5}', headers={"Nats-Msg-Id": "js-1"})
    (event,) = await wait_events(client, "account/js-id", 1)
    assert re.fullmatch(rf"js-cue_tell-[0-9a-f]+-{ack.seq}", event["command_id"])


async def test_a_refused_tell_becomes_a_control_event(client: Client) -> None:
    await client.jetstream().publish("cue.tell.account.told-no.withdraw.w-1", b'{"cents": 5}')
    (event,) = await wait_events(client, "account/told-no", 1)
    assert (event["kind"], event["command_id"]) == ("control", "w-1")
    assert event["payload"]["error"] == "rejected"
    again = await ask(client, "account.told-no.withdraw.w-1", {"cents": 5})
    assert (again.code, again.body["error"]) == (409, "rejected")


async def test_a_tell_that_cannot_be_a_command_holds_up_nobody(client: Client) -> None:
    js = client.jetstream()
    await js.publish("cue.tell.account.after-bad.deposit", b"{broken")
    await js.publish("cue.tell.account.after-bad.no_such_method", b"{}")
    await js.publish("cue.tell.nobody.after-bad.deposit", b"{}")
    await js.publish("cue.tell.account.after-bad.deposit.d-1", b'{"cents": 5}')
    await wait_events(client, "account/after-bad", 1)
    async with asyncio.timeout(10):
        while (await ask(client, "account.after-bad.balance")).body != 5:
            await asyncio.sleep(0.02)
    async with asyncio.timeout(10):
        # All four are acknowledged: nothing is delivered again.
        while (await js.stream_info("cue_tell")).state.messages:
            await asyncio.sleep(0.02)


async def test_an_expired_tell_does_nothing(client: Client) -> None:
    js = client.jetstream()
    await js.publish("cue.tell.account.told-late.deposit.l-1", b'{"cents": 5}', headers={"Cue-Deadline": "1"})
    await js.publish("cue.tell.account.told-late.deposit.l-2", b'{"cents": 7}')
    async with asyncio.timeout(10):
        while (await ask(client, "account.told-late.balance")).body == 0:
            await asyncio.sleep(0.02)
    assert [event["payload"].get("cents") for event in await stream_events(client, "account/told-late") if event["kind"] == "state"] == [7]


@pytest.mark.usefixtures("_nats_program")
async def test_a_tell_sent_while_no_worker_is_up_is_handled_after_up_once(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path / "data")
    try:
        deployment.start()
        deployment.stop()
        server = NatsServer(deployment.data)
        server.start()
        try:
            client = await nats.connect(**server.connection.nats_options())
            ack = await client.jetstream().publish("cue.tell.account.patient.deposit.p-1", b'{"cents": 5}')
            again = await client.jetstream().publish("cue.tell.account.patient.deposit.p-1", b'{"cents": 5}')
            assert 0 < ack.seq < again.seq
            await client.close()
        finally:
            server.stop()
        for _ in range(2):  # and nothing comes again at the next start
            deployment.start()
            client = await nats.connect(deployment.nats_url)
            (event,) = await wait_events(client, "account/patient", 1)
            assert event["command_id"] == "p-1"
            assert (await ask_until_done(client, "account.patient.balance", {})).body == 5
            async with asyncio.timeout(10):
                while (await client.jetstream().stream_info("cue_tell")).state.messages:
                    await asyncio.sleep(0.02)
            assert len(await stream_events(client, "account/patient")) == 1
            await client.close()
            deployment.stop()
    finally:
        deployment.stop()
    assert Checker(deployment.data / "log").problems == []


@pytest.mark.crash
async def test_the_order_of_tells_to_one_actor_survives_a_kill(own_bank: Deployment) -> None:
    owner = own_bank.owners()[fnv1a("accountordered") % own_bank.shards]
    client = await nats.connect(own_bank.nats_url)
    try:
        for number in range(1, 201):
            await client.publish(f"cue.tell.account.ordered.deposit.t-{number}", b'{"cents": %d}' % number)
            if number == 100:
                await client.flush()  # the owner has begun with these
                os.kill(owner, signal.SIGKILL)
        await client.flush()
        assert await settled(client, "ordered", 200) == list(range(1, 201))
    finally:
        await client.close()
    own_bank.stop()
    assert Checker(own_bank.data / "log").problems == []


@pytest.mark.crash
@pytest.mark.parametrize("side", ["sender", "receiver"])
async def test_transfers_between_shards_arrive_once_across_a_kill(own_bank: Deployment, side: str) -> None:
    owners = own_bank.owners()
    first = own_bank.workers["worker-1"]

    def accounts(*, of_first: bool) -> list[str]:
        names = (f"x{number}" for number in range(1_000))
        return [name for name in names if (owners[fnv1a(f"account{name}") % own_bank.shards] == first) is of_first][:4]

    senders, receivers = accounts(of_first=True), accounts(of_first=False)
    client = await nats.connect(own_bank.nats_url)
    ledger: list[Asked] = []
    answered = 0

    async def transfer(number: int) -> None:
        nonlocal answered
        sender, receiver = senders[number % 4], receivers[number // 4 % 4]
        found = await ask_until_done(client, f"account.{sender}.transfer.t-{number}", {"cents": 1, "to": receiver}, attempt_s=1.0)
        assert found.code is None, found
        ledger.append(Asked(f"account/{sender}", f"t-{number}", "transfer", 1, found.body))
        answered += 1
        if answered == 100:
            os.kill(first if side == "sender" else own_bank.workers["worker-2"], signal.SIGKILL)

    async def total() -> int:
        return sum([(await ask_until_done(client, f"account.{name}.balance", {})).body for name in senders + receivers])

    try:
        for name in senders:
            await ask(client, f"account.{name}.deposit", {"cents": 1_000})
        async with asyncio.TaskGroup() as group:
            for number in range(400):
                group.create_task(transfer(number))
        async with asyncio.timeout(20):
            while (now := await total()) != 4_000:
                assert now < 4_000, "money was made"
                await asyncio.sleep(0.05)
        assert [(await ask_until_done(client, f"account.{name}.balance", {})).body for name in receivers] == [100] * 4
        # What the killed one had acknowledged only in memory is sent again, and known by its number.
        await wait_until_async(lambda: unsent(own_bank.data / "log") == 0, "every send is acknowledged")
        before = await positions(client)
    finally:
        await client.close()
    own_bank.stop()
    checker = Checker(own_bank.data / "log")
    checker.compare(ledger, complete=False)
    assert checker.problems == []
    arrived = Counter(event.command_id for event in checker.events if event.tag == "account.deposited" and event.sender is not None)
    assert (len(arrived), set(arrived.values())) == (400, {1})
    ends = {str(event.shard): event.position for event in checker.events}
    assert {shard: end for shard, end in before.items() if end} == ends, "something was written after the last answer"


async def test_tells_after_an_empty_poll_are_handled_at_once(
    nats_server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One poll that ends with nothing must not hold up the tells of the next ones (nats-py's fetch did, for up to 30 s)."""
    long_poll = tells_nats._REQUEST
    monkeypatch.setattr(tells_nats, "_REQUEST", b'{"batch":256,"expires":1000000000}')
    config = NodeConfig(worker="lone", data=tmp_path, nats_options=nats_server.connection.nats_options(), namespace="idle", shards=1)
    client = await nats.connect(**nats_server.connection.nats_options())
    stop = asyncio.Event()
    handled: asyncio.Queue[str] = asyncio.Queue()

    async def heard(message: Msg) -> None:
        handled.put_nowait(message.subject)

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(Node(config, app).run(stop))
            await client.subscribe("idle.event.account.>", cb=heard)
            await wait_until_async(lambda: owners(tmp_path, 1), "the worker owns its shard")
            try:
                # Not to let something happen in time: that a poll ends with nothing is the condition itself.
                await asyncio.sleep(1.1)
                monkeypatch.setattr(tells_nats, "_REQUEST", long_poll)
                await asyncio.sleep(1.1)
                for _ in range(4):
                    await client.publish("idle.tell.account.a.deposit", b'{"cents": 5}')
                    # Half of a poll: one that was held back comes at its end.
                    async with asyncio.timeout(tells_nats._LONG_POLL_S / 2):
                        await handled.get()
            finally:
                stop.set()
    finally:
        await client.close()
