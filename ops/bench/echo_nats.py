"""The raw limit of a request over NATS: a process that sends back what it gets. `over_nats` starts it and asks it."""

import asyncio
import os
import sys
from typing import Final

import nats
from nats.aio.msg import Msg

from ops import event_loop

URL_VARIABLE: Final = "CUEBOOK_BENCH_ECHO_URL"
SUBJECT: Final = "bench.echo"


async def serve(url: str) -> None:
    """Answer every message below `SUBJECT`, for ever."""
    client = await nats.connect(url)

    async def echo(message: Msg) -> None:
        await message.respond(message.data)

    await client.subscribe(f"{SUBJECT}.>", cb=echo, pending_msgs_limit=-1, pending_bytes_limit=-1)
    await asyncio.Event().wait()


if __name__ == "__main__":
    sys.exit(event_loop.run(serve(os.environ[URL_VARIABLE])))
