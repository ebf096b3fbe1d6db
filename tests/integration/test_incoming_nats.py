"""What `take` hands over is what nats-py would, in the same order, from the same bytes (S5, S8)."""

import asyncio
import os
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.errors import ProtocolError

from events.limits import MESSAGES_AT_ONCE
from ops.nats_server import NatsServer
from runtime.over_nats import incoming_nats
from runtime.over_nats.incoming_nats import DirectClient, Message, is_tried, take
from tests.support.deployment import wait_until_async


def test_this_version_of_nats_py_is_one_whose_inside_was_tried() -> None:
    """Else every process is slower: try the new version against this file and `test_outgoing_nats.py`, then name it there."""
    assert is_tried()
    assert DirectClient().direct


@pytest.fixture(params=[True, False], ids=["direct", "as nats-py does"])
async def connection(
    nats_server: NatsServer, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[DirectClient]:
    if not request.param:
        monkeypatch.setattr(incoming_nats, "_TRIED", ())
    made = DirectClient()
    await made.connect(**nats_server.connection.nats_options(), reconnect_time_wait=0)
    yield made
    await made.close()


Seen = tuple[str, str, bytes, dict[str, str] | None]


def seen_by(got: list[Any]) -> Any:
    return lambda message: got.append((message.subject, message.reply, message.data, dict(message.headers) if message.headers else None))


async def test_messages_come_in_order_whole_and_with_their_headers(connection: DirectClient, nats_client: Client) -> None:
    got: list[Seen] = []
    await take(connection, "incoming.>", seen_by(got))
    await connection.flush()
    sent: list[Seen] = [
        ("incoming.1", "", b"", None), ("incoming.2", "incoming.reply", b"MSG x 1 3\r\nabc\r\n", None),
        ("incoming.3", "", b"first", {"Name": "a value"}), ("incoming.4", "", os.urandom(900_000), None),
        ("incoming.5", "incoming.reply", os.urandom(900_000), {"Name": "b"}), ("incoming.6", "", "é€".encode(), None),
        *[(f"incoming.n{n}", "r" if n % 3 else "", b"%d" % n, None if n % 5 else {"N": f"{n}"}) for n in range(2_000)],
    ]  # fmt: skip
    for subject, reply, data, headers in sent:
        await nats_client.publish(subject, data, reply=reply, headers=headers)
    await wait_until_async(lambda: len(got) >= len(sent), "all have come")
    assert got == sent
    assert connection.stats["in_msgs"] == len(sent)


async def test_the_loop_turns_while_many_wait(connection: DirectClient, nats_client: Client) -> None:
    """Each may be a whole turn."""
    got: list[Message] = []
    seen: list[int] = []
    await take(connection, "many.>", got.append)
    await connection.flush()
    for number in range(2_000):
        await nats_client.publish("many.x", b"%d" % number)
    async with asyncio.timeout(10.0):
        while len(got) < 2_000:
            seen.append(len(got))
            await asyncio.sleep(0)
    seen.append(len(got))
    assert max(after - before for before, after in pairwise(seen)) <= MESSAGES_AT_ONCE


async def test_a_handler_that_raises_ends_neither_the_connection_nor_its_subscription(nats_server: NatsServer, nats_client: Client) -> None:
    errors: list[str] = []
    got: list[bytes] = []

    async def on_error(error: Exception) -> None:
        errors.append(str(error))

    def handler(message: Message) -> None:
        got.append(message.data)
        if message.data == b"bad":
            raise ValueError("no")

    connection = DirectClient()
    await connection.connect(**nats_server.connection.nats_options(), error_cb=on_error)
    await take(connection, "raises", handler)
    await connection.flush()
    for data, headers in ((b"bad", None), (b"good", None), (b"bad", {"A": "b"}), (b"end", None)):
        await nats_client.publish("raises", data, headers=headers)
    await wait_until_async(lambda: b"end" in got, "the last has come")
    assert (got, errors) == ([b"bad", b"good", b"bad", b"end"], ["no", "no"])
    await connection.close()


async def test_s5_draining_hands_over_all_that_was_sent_before_and_nothing_after(connection: DirectClient, nats_client: Client) -> None:
    got: list[bytes] = []
    subscription = await take(connection, "drained", lambda message: got.append(message.data))
    await connection.flush()
    for number in range(500):
        await nats_client.publish("drained", b"%d" % number)
    await nats_client.flush()
    await subscription.drain()  # type: ignore[no-untyped-call]
    assert len(got) == 500
    await nats_client.publish("drained", b"late")
    await nats_client.flush()
    await connection.flush()
    assert len(got) == 500
    assert not connection.handlers


async def test_unsubscribed_and_subscribed_again_under_another_number(connection: DirectClient, nats_client: Client) -> None:
    got: list[str] = []
    first = await take(connection, "again", lambda _: got.append("first"))
    await first.unsubscribe()
    await take(connection, "again", lambda _: got.append("second"))
    await connection.flush()
    await nats_client.publish("again", b"")
    await wait_until_async(lambda: bool(got), "it has come")
    assert got == ["second"]


async def test_a_queue_group_gets_each_message_once(connection: DirectClient, nats_client: Client) -> None:
    got: list[bytes] = []
    for _ in range(2):
        await take(connection, "grouped", lambda message: got.append(message.data), queue="q")
    await connection.flush()
    for number in range(50):
        await nats_client.publish("grouped", b"%d" % number)
    await nats_client.flush()
    await connection.flush()
    await wait_until_async(lambda: len(got) >= 50, "all have come")
    assert sorted(map(int, got)) == list(range(50))


async def test_it_goes_on_after_a_reconnect(connection: DirectClient, nats_client: Client) -> None:
    got: list[bytes] = []
    await take(connection, "lost", lambda message: got.append(message.data))
    await connection.flush()
    await connection.force_reconnect()
    await wait_until_async(lambda: connection.stats["reconnects"] == 1 and connection.is_connected, "it is connected again")
    await connection.flush()
    await nats_client.publish("lost", b"after")
    await wait_until_async(lambda: bool(got), "it has come")
    assert got == [b"after"]


# -- the same bytes through both parsers ----------------------------------------------------------------------------------------------


class Heard:
    """What a client was told by its parser, in order."""

    def __init__(self) -> None:
        self.all: list[object] = []

    async def ping(self) -> None:
        self.all.append("ping")

    async def pong(self) -> None:
        self.all.append("pong")

    async def info(self, info: object) -> None:
        self.all.append(info)

    async def error(self, text: str) -> None:
        self.all.append(text)

    def queued(self, subscription: Subscription) -> None:
        while not subscription._pending_queue.empty():
            seen_by(self.all)(subscription._pending_queue.get_nowait())


async def heard(client: Client, chunks: list[bytes]) -> list[object]:
    """What comes of `chunks` for a client with two subscriptions: number 1, taken directly where that is done, and number 2."""
    told = Heard()
    told_client: Any = client
    told_client._process_ping, told_client._process_pong = told.ping, told.pong
    told_client._process_info, told_client._process_err = told.info, told.error
    ordinary = [Subscription(client, number, "x", future=None) for number in (1, 2)]
    client._subs = dict(enumerate(ordinary, 1))
    if isinstance(client, DirectClient):
        client.handlers[b"1"] = seen_by(told.all)
    for chunk in chunks:
        await client._ps.parse(chunk)
        for subscription in ordinary:
            told.queued(subscription)
    return told.all


_data = st.binary(max_size=40) | st.just(b"MSG a 1 1\r\n") | st.just(b"\r\nPING\r\n") | st.binary(min_size=5_000, max_size=5_000)
_headers = st.sampled_from(
    [b"NATS/1.0\r\nA: b\r\n\r\n", b"NATS/1.0 503\r\n\r\n", b"NATS/1.0\r\nLong-Name: %s\r\nB: \r\n\r\n" % (b"v" * 90)]
)


@st.composite
def operation(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from(["msg", "msg", "msg", "hmsg", "other"]))
    if kind == "other":
        return draw(st.sampled_from([b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b"-ERR 'Some Trouble here'\r\n", b'INFO {"a": "b c d e"} \r\n']))
    number = draw(st.sampled_from([b"1", b"1", b"2", b"33"]))
    reply = draw(st.sampled_from([b"", b"_INBOX.abc.1 "]))
    data = draw(_data)
    if kind == "msg":
        return b"MSG a.b %s %s%d\r\n%s\r\n" % (number, reply, len(data), data)
    headers = draw(_headers)
    return b"HMSG a.b %s %s%d %d\r\n%s%s\r\n" % (number, reply, len(headers), len(headers) + len(data), headers, data)


@settings(max_examples=300, deadline=None)
@given(st.lists(operation(), max_size=12), st.lists(st.integers(0, 400), max_size=30))
async def test_both_parsers_say_the_same_of_any_bytes_in_any_pieces(operations: list[bytes], sizes: list[int]) -> None:
    stream = b"".join(operations)
    chunks = []
    for size in sizes:
        chunks.append(stream[:size])
        stream = stream[size:]
    chunks.append(stream)
    expected = await heard(Client(), chunks)
    direct = DirectClient()
    found = await heard(direct, chunks)
    # Of one chunk, nats-py's queues are emptied behind what is told at once; within each kind the order is that of the bytes.
    for kind in (str, dict, tuple):
        assert [each for each in found if isinstance(each, kind)] == [each for each in expected if isinstance(each, kind)]
    assert not direct._ps.buf
    assert direct.stats["in_msgs"] == sum(op.startswith((b"MSG", b"HMSG")) for op in operations)


@pytest.mark.parametrize("line", [b"MSG a 1 x\r\n", b"MSG a 1 b c\r\n", b"NONSENSE\r\n", b"HMSG a 1 x y\r\n"])
async def test_what_is_no_message_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        await heard(DirectClient(), [line])


async def test_half_a_message_is_forgotten_with_its_connection() -> None:
    client = DirectClient()
    assert await heard(client, [b"MSG a 1 10\r\nhalf"]) == []
    client._ps.reset()
    assert await heard(client, [b"MSG a 1 3\r\nnew\r\n"]) == [("a", "", b"new", None)]


async def test_the_rest_of_a_chunk_is_forgotten_with_its_connection() -> None:
    """The loop turned in its middle, and the connection was lost there."""
    client = DirectClient()
    lines = b"MSG a 1 1\r\nx\r\n" * (MESSAGES_AT_ONCE + 1) + b"MSG a 1 5\r\nha"
    asyncio.get_running_loop().call_soon(client._ps.reset)
    assert len(await heard(client, [lines])) == MESSAGES_AT_ONCE
    assert not client._ps.buf
