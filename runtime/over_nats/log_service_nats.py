"""``cue.log.<operation>`` over NATS: any worker answers, as one queue group (S31)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from actors.errors import ActorError, error_body
from actors.registry import Registry
from events.codec import encode
from events.sqlite.reader_sqlite import SqliteLogReader
from runtime.past.log_service import LogService
from runtime.tasks import Tasks
from runtime.wire import ERROR, ERROR_CODE, Subjects

_AT_ONCE: Final = 8
_ANSWERED_S: Final = 2.0
"""Each question is one short read; an end waits so long for those that are being answered."""


@asynccontextmanager
async def serve_log(client: Client, subjects: Subjects, directory: Path, registry: Registry | None, tasks: Tasks) -> AsyncIterator[None]:
    """Answer questions about the log in `directory` until the block ends, and those that have come by then (S5)."""
    reader = await SqliteLogReader.open(directory)
    service = LogService(reader, registry, data=directory.parent)
    prefix = len(subjects.log(""))

    room = asyncio.Semaphore(_AT_ONCE)
    under_way: set[asyncio.Task[None]] = set()

    async def answer(message: Msg) -> None:
        headers: dict[str, str] | None = None
        async with room:
            try:
                body = await service.handle(message.subject[prefix:], message.data)
            except ActorError as error:
                body, headers = encode(error_body(error)), {ERROR_CODE: str(error.number), ERROR: error.error}
        # Without a connection the asker asks again.
        with contextlib.suppress(nats.errors.Error):
            await client.publish(message.reply, body, headers=headers)

    async def on_message(message: Msg) -> None:
        # Not in line: one long scan must not hold up the next request.
        if message.reply:
            task = tasks.spawn(answer(message), name=f"log {message.subject}")
            under_way.add(task)
            task.add_done_callback(under_way.discard)

    subscription = await client.subscribe(subjects.log("*"), queue="cue", cb=on_message)
    try:
        yield
    finally:
        try:
            if not client.is_closed:
                await subscription.unsubscribe()
            if under_way:
                await asyncio.wait(under_way, timeout=_ANSWERED_S)
        finally:
            await reader.close()
