"""Projections over NATS: commit hints in, ``cue.view`` out. The process that applies a projection answers for it, in a queue group."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from actors.errors import ActorError, error_body
from actors.registry import Registry
from events.clock import SystemClock
from events.codec import encode
from ops.view_service import answer
from ops.views import Views
from projections.operations import Operation
from projections.runner import OPERATION_S, Runner
from runtime.over_nats.incoming_nats import DirectClient, Message, take
from runtime.over_nats.service_nats import Service, schema_text
from runtime.tasks import Tasks, done_before, end
from runtime.wire import DEADLINE, ERROR, ERROR_CODE, META, META_POSITION, Subjects

log = structlog.get_logger("cuebook.projector")
_AT_ONCE: Final = 64
"""Requests of one projection that are answered at the same time; further ones wait in the subscription."""


@asynccontextmanager
async def connected(
    options: dict[str, Any], worker: str, views: Views, stop: asyncio.Event, tasks: Tasks
) -> AsyncIterator[Client | None]:
    """A connection that keeps itself up; None if `stop` was set before there was one. After each reconnect everybody looks at the log:
    hints were lost meanwhile (S31)."""

    async def on_error(error: Exception) -> None:
        log.info("nats_error", error=repr(error))

    async def on_reconnected() -> None:
        log.info("nats_reconnected")
        views.hints.tell_all()

    client = DirectClient()
    connecting = client.connect(
        **{
            "name": f"cuebook {worker}", "max_reconnect_attempts": -1, "reconnect_time_wait": 0.2, "error_cb": on_error,
            "reconnected_cb": on_reconnected, **options,
        }
    )  # fmt: skip
    try:
        yield client if await done_before(stop, connecting, tasks) else None
    finally:
        if not client.is_closed:
            await client.close()


@asynccontextmanager
async def listening(client: Client, subjects: Subjects, views: Views) -> AsyncIterator[None]:
    """Hand every commit hint to the followers."""

    def on_commit(message: Message) -> None:
        shard, body = message.subject.rpartition(".")[2], message.data
        if shard.isdecimal():
            views.hints.tell(int(shard), int(body) if body.isdigit() and len(body) < 19 else None)

    subscription = await take(client, subjects.commit("*"), on_commit)
    await client.flush()
    views.hints.tell_all()
    try:
        yield
    finally:
        if not client.is_closed:
            await subscription.unsubscribe()


@asynccontextmanager
async def serving(client: Client, subjects: Subjects, views: Views, tasks: Tasks) -> AsyncIterator[None]:
    """Answer for every projection that this process applies, from when it does."""
    serving = [tasks.spawn(_serve(client, subjects, runner, tasks), name=f"view {name}") for name, runner in views.runners.items()]
    try:
        yield
    finally:
        for task in serving:
            await end(task)


async def _serve(client: Client, subjects: Subjects, runner: Runner[Any], tasks: Tasks) -> None:
    await runner.locked.wait()
    prefix = len(subjects.view(runner.name, ""))
    room = asyncio.Semaphore(_AT_ONCE)

    async def respond(message: Msg) -> None:
        headers: dict[str, str] | None = None
        try:
            body, positions = await answer(runner, message.subject[prefix:], message.data, _left_s(message))
            if message.headers and message.headers.get(META) == "1":
                headers = {META_POSITION: encode(positions).decode()}
        except ActorError as error:
            body, headers = encode(error_body(error)), {ERROR_CODE: str(error.number), ERROR: error.error}
        finally:
            room.release()
        # Without a connection the asker asks again.
        with contextlib.suppress(nats.errors.Error):
            await client.publish(message.reply, body, headers=headers)

    async def on_message(message: Msg) -> None:
        if message.reply:
            await room.acquire()
            tasks.spawn(respond(message), name=message.subject)

    subscription = await client.subscribe(f"{subjects.view(runner.name, '*')}", queue="cue", cb=on_message)
    try:
        await asyncio.Event().wait()
    finally:
        if not client.is_closed:
            with contextlib.suppress(nats.errors.Error):
                await subscription.unsubscribe()


def _left_s(message: Msg) -> float:
    """What the caller's deadline leaves, at most what an operation may take."""
    text = (message.headers or {}).get(DEADLINE, "")
    if not text.isdecimal() or len(text) > 18:
        return OPERATION_S
    return max(0.001, min(OPERATION_S, int(text) / 1_000 - SystemClock().wall_us() / 1_000_000))


class ProjectorService(Service):
    """``$SRV`` of a projector: its endpoints are the operations of its projections. A service of its own: who asks for one answer of
    ``$SRV.INFO.cuebook`` wants the actors."""

    name = "cuebook-views"

    def __init__(self, client: Client, subjects: Subjects, views: Views, **identity: Any) -> None:
        self._views = views
        super().__init__(client, subjects, Registry([]), counts=dict, **identity)

    def endpoints(self) -> list[dict[str, Any]]:
        return [
            self._operation(name, operation) for name, runner in self._views.runners.items() for operation in runner.operations.values()
        ]

    def _operation(self, projection: str, operation: Operation) -> dict[str, Any]:
        return {
            "name": f"view_{projection}_{operation.name}",
            "subject": self._subjects.view(projection, operation.name),
            "queue_group": "cue",
            "metadata": {
                "kind": "view",
                "summary": operation.summary,
                "request_schema": encode(msgspec.json.schema(operation.arguments)).decode(),
                "response_schema": schema_text(operation.returns),
            },
        }
