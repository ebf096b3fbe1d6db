"""What a worker sends in blocks arrives as if each message had been published by itself (S12, S31)."""

import asyncio
import os

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from runtime import outgoing_nats
from runtime.outgoing_nats import Outgoing, can_write_blocks
from runtime.tasks import Tasks


def test_this_version_of_nats_py_is_one_whose_inside_was_tried() -> None:
    """Else workers are slower: try the new version against this file, then name it there."""
    assert can_write_blocks(Client())
    assert not can_write_blocks(object())


@pytest.mark.parametrize("blocks", [True, False])
async def test_messages_arrive_in_order_whole_and_with_their_headers(client: Client, blocks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing_nats, "_TRIED", ((2, 15), (2, 16)) if blocks else ())
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
        ("outgoing.4", b"with", "", {"Name": "value"}), ("outgoing.5", "é€".encode(), "", None),
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
