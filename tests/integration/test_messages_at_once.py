"""A flood of messages does not hold up the loop of the worker that takes them."""

import asyncio
from itertools import pairwise

from nats.aio.client import Client
from nats.aio.msg import Msg

from events.clock import SystemClock
from events.limits import MESSAGES_AT_ONCE
from runtime.over_nats.exchange_nats import NatsExchange
from runtime.tasks import Tasks
from runtime.wire import Subjects

MESSAGES = 2_000


async def test_the_loop_turns_while_many_messages_wait(client: Client) -> None:
    """nats-py hands over all that waits in one go; each may be a whole turn."""
    exchange = NatsExchange(client, Subjects("flood", 4), Tasks(), SystemClock(), "w")
    got: list[Msg] = []
    seen: list[int] = []

    async def watch() -> None:
        while len(got) < MESSAGES:
            seen.append(len(got))
            await asyncio.sleep(0)
        seen.append(len(got))

    listening = await exchange.listen(0, got.append)
    for number in range(MESSAGES):
        await client.publish(f"{exchange.subjects.shard(0)}.ask.a.b.c", b"%d" % number)
    async with asyncio.timeout(10.0):
        await watch()
    await exchange.stop_listening(listening)
    assert [message.data for message in got] == [b"%d" % number for number in range(MESSAGES)]
    assert max(after - before for before, after in pairwise(seen)) <= MESSAGES_AT_ONCE


async def test_s5_a_worker_that_is_offered_a_shard_while_it_still_lets_go_of_it_goes_on_listening(nats_client: Client) -> None:
    """The end of the first listening must not end the second: it would own the shard and hear nothing."""
    exchange = NatsExchange(nats_client, Subjects("again", 4), Tasks(), SystemClock(), "w")
    old: list[Msg] = []
    new: list[Msg] = []
    first = await exchange.listen(0, old.append)
    await exchange.listen(0, new.append)
    await exchange.stop_listening(first)
    await nats_client.publish(f"{exchange.subjects.shard(0)}.ask.a.b.c", b"{}")
    async with asyncio.timeout(10.0):
        while not new:
            await asyncio.sleep(0.001)
    assert old == []
