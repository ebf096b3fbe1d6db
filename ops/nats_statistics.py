"""What the processes of a running deployment say of themselves under ``$SRV.STATS``: for `cache stats`, `status` and `doctor`."""

import asyncio
import contextlib
from typing import Any, Final

import msgspec
import nats
import nats.errors
from nats.aio.msg import Msg

SERVICES: Final = ("cuebook", "cuebook-views")
ANSWER_S: Final = 1.0
"""A process answers within one turn of its loop; one that is busy for longer is left out."""


async def service_statistics(options: dict[str, Any], incarnation: str, expected: int) -> list[dict[str, Any]]:
    """The answers of the processes that work on the log `incarnation`; of those that do not answer, none. Changes nothing.

    Args:
        options: of the connection.
        expected: how many processes there are; it waits no longer once they have answered.
    """
    found: list[dict[str, Any]] = []
    complete = asyncio.Event()

    async def heard(message: Msg) -> None:
        try:
            said = msgspec.json.decode(message.data, type=dict[str, Any])
        except msgspec.DecodeError:
            return  # the server's own word that nobody listens, or no service of ours
        if (said.get("metadata") or {}).get("incarnation") == incarnation:
            found.append(said)
        if len(found) >= expected:
            complete.set()

    try:
        client = await nats.connect(**{"allow_reconnect": False, "connect_timeout": 2, **options})
    except (nats.errors.Error, OSError, TimeoutError):
        return []
    try:
        inbox = client.new_inbox()
        await client.subscribe(inbox, cb=heard)
        for name in SERVICES:
            await client.publish(f"$SRV.STATS.{name}", b"", reply=inbox)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                await complete.wait()
    except nats.errors.Error:
        return found
    finally:
        await client.close()
    return found
