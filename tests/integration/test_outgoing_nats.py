"""What a worker sends in blocks arrives as if each message had been published by itself (S12, S31)."""

import asyncio
import os
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from runtime.over_nats import incoming_nats
from runtime.over_nats.outgoing_nats import Outgoing, can_write_blocks
from runtime.tasks import Tasks


def test_this_version_of_nats_py_is_one_whose_inside_was_tried() -> None:
    """Else workers are slower: try the new version against this file, then name it there."""
    assert can_write_blocks(Client())
    assert not can_write_blocks(object())


@pytest.mark.parametrize("blocks", [True, False])
async def test_messages_arrive_in_order_whole_and_with_their_headers(client: Client, blocks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming_nats, "_TRIED", ((2, 15), (2, 16)) if blocks else ())
    tasks = Tasks()
    out = Outgoing(client, tasks)
    got: list[tuple[str, bytes, str, dict[str, str] | None]] = []
    everything = asyncio.Event()

    async def heard(message: Msg) -> None:
        got.append((message.subject, message.data, message.reply, dict(message.headers) if message.headers else None))
        if message.subject.endswith("end"):
            everything.set()

    subscription = await client.subscribe("outgoing.>", cb=heard)
    await client.flush()
    large = os.urandom(200_000)
    sent: list[tuple[str, bytes, str, dict[str, str] | None]] = [
        ("outgoing.1", b"", "", None), ("outgoing.2", b"PUB x 3\r\nabc\r\n", "outgoing.reply", None), ("outgoing.3", large, "", None),
        ("outgoing.4", b"with", "", {"Name": "value", "Other-Name": "é: and more"}),
        ("outgoing.4a", b"", "outgoing.reply", {"Name": "a"}),
        ("outgoing.5", "é€".encode(), "", None),
        *[(f"outgoing.n{number}", b"%d" % number, "", None) for number in range(500)], ("outgoing.end", b"", "", None),
    ]  # fmt: skip
    for subject, body, reply, headers in sent:
        out.publish(subject, body, headers, reply)
    await out.flush()
    async with asyncio.timeout(10.0):
        await everything.wait()
    await subscription.unsubscribe()
    assert got == sent
    assert (out.published, out.dropped, len(tasks)) == (len(sent), 0, 0)


async def test_a_lone_reply_is_on_its_way_before_the_events_are_put_into_words(client: Client) -> None:
    """Nobody waits for an event; many replies leave together with theirs, in one write."""
    tasks = Tasks()
    out = Outgoing(client, tasks)
    transport: Any = client._transport
    sent_before: list[int] = []
    written: list[bytes] = []
    write = transport.write

    def writing(block: bytes) -> None:
        written.append(block)
        write(block)

    transport.write = writing

    def events() -> None:
        sent_before.append(client.stats["out_msgs"] - at_first)
        out.publish("outgoing.event", b"{}", None, "")

    for replies, before, later in ((1, 1, 1), (5, 0, 6)):
        at_first = client.stats["out_msgs"]
        written.clear()
        for number in range(replies):
            out.publish(f"outgoing.reply{number}", b"1", None, "")
        out.put_off(events)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert sent_before.pop() == before
        # A lone reply went straight into the socket; the rest is one block.
        assert [block.count(b"PUB ") for block in written] == [later]
    await out.flush()


async def test_what_cannot_be_put_into_words_holds_nothing_up(client: Client) -> None:
    out = Outgoing(client, Tasks())
    errors: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context["exception"]))

    def fails() -> None:
        raise ValueError("no words")

    for _ in range(2):
        out.publish("outgoing.a", b"", None, "")
        out.put_off(fails)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert (out.published, [str(error) for error in errors]) == (2, ["no words"] * 2)


async def test_a_server_that_takes_nothing_is_not_sent_without_bound() -> None:
    """What does not leave stays with nats-py, whose bound counts (S12), not in the socket's buffer."""
    taking, ended = asyncio.Event(), asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.0.0","max_payload":1048576}\r\n')
        while (await reader.readline()) != b"PING\r\n":
            pass
        writer.write(b"PONG\r\n")
        await taking.wait()
        while await reader.read(65_536):
            pass
        writer.close()
        await writer.wait_closed()
        ended.set()

    server = await asyncio.start_server(deaf, "127.0.0.1", 0)
    connection = Client()
    await connection.connect(f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}", allow_reconnect=False)
    tasks = Tasks()
    out = Outgoing(connection, tasks)
    transport: Any = connection._transport
    body = bytes(100_000)
    try:
        for _ in range(300):
            out.publish("outgoing.big", body, None, "")
            await asyncio.sleep(0)
        assert transport._io_writer.transport.get_write_buffer_size() + connection.pending_data_size < 10_000_000
        assert out.published < 300
    finally:
        taking.set()
        await tasks.cancel_all()
        await connection.close()
        await ended.wait()
        server.close()
        await server.wait_closed()
