"""The runtime inside one process, without NATS: every shard of a log, for programs that embed it, tests and the bench."""

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from actors.models.port import Models
from actors.step_cache import StepCache
from actors.turn import Command
from events.clock import Clock, Entropy, SystemClock, SystemEntropy
from events.codec import encode_checked
from events.commit_slot import CommitSlot
from events.ids import CommandId, StreamId
from events.limits import ASK_DEADLINE_S
from runtime.app import App
from runtime.exchange import Reply
from runtime.exchange_memory import MemoryExchange
from runtime.ownership.leaving import leave
from runtime.shard import Shard
from runtime.tasks import Tasks


class LocalRuntime:
    """Ask actors directly; the same shards, turns and log as a deployment."""

    def __init__(self, exchange: MemoryExchange, shards: list[Shard], clock: Clock) -> None:
        self.exchange = exchange
        self.shards = shards
        self._clock = clock
        self._asks = 0

    async def ask(
        self, actor: str, method: str, *, command_id: str | None = None, timeout_s: float | None = ASK_DEADLINE_S, **arguments: Any
    ) -> Any:
        """The decoded reply of ``type/id``. Raises ActorError as a remote ask would.

        Args:
            timeout_s: None asks without a deadline: a turn that waits answers 202 (`Waiting`) at once.
        """
        reply = await self.exchange.request(self._command(actor, method, encode_checked(arguments, method), command_id, timeout_s))
        if reply.error is not None:
            raise reply.error
        return msgspec.json.decode(reply.body)

    async def answer(self, actor: str, wait_id: str, value: Any) -> Any:
        """Answer an open wait of ``type/id`` (S22). Raises: BadPayload, Rejected with the `winner`, Unknown."""
        return await self.ask(actor, "_answer", wait_id=wait_id, value=value)

    async def cancel(self, actor: str, command_id: str) -> str:
        """``cancelled``, or ``done`` if it was too late. Raises: Unknown."""
        reply = await self.send(actor, "_cancel", encode_checked({"command_id": command_id}, "_cancel"))
        if reply.error is not None:
            raise reply.error
        return msgspec.json.decode(reply.body, type=dict[str, str])["status"]

    async def send(
        self, actor: str, method: str, body: bytes, *, command_id: str | None = None, timeout_s: float | None = ASK_DEADLINE_S
    ) -> Reply:
        return await self.exchange.request(self._command(actor, method, body, command_id, timeout_s))

    def _command(self, actor: str, method: str, body: bytes, command_id: str | None, timeout_s: float | None) -> Command:
        now_us = self._clock.wall_us()
        self._asks += 1
        return Command(
            stream=StreamId(actor), method=method, args=body,
            command_id=CommandId(command_id or f"{now_us:014x}-{self._asks:x}"), explicit=command_id is not None,
            received_at_us=now_us, deadline_ms=None if timeout_s is None else now_us // 1_000 + int(timeout_s * 1_000),
        )  # fmt: skip


@asynccontextmanager
async def local_runtime(
    app: App, directory: Path, *, shards: int = 4, clock: Clock | None = None, entropy: Entropy | None = None, keys: Path | None = None,
    step_cache: StepCache | None = None,
    models: Models | None = None,
) -> AsyncIterator[LocalRuntime]:  # fmt: skip
    """Own every shard of the log in `directory`, which is created if it is not there; drain and release at the end. keys: folder of the
    keys of sealed actors (S29). step_cache: where steps with ``cache_ttl`` look; its caller closes it (S37). models: whom
    `Actor.model` asks."""
    from events.log_directory import create_log
    from events.sqlite.store_sqlite import SqliteShard
    from runtime.sealed import open_sealer, sealed_store

    clock, entropy = clock or SystemClock(), entropy or SystemEntropy()
    identity = create_log(directory, shards, clock=clock, entropy=entropy)
    tasks = Tasks()
    exchange = MemoryExchange(identity.shards, tasks, clock)
    exchange.step_cache, exchange.models = step_cache, models
    owned: list[Shard] = []
    async with AsyncExitStack() as stack:
        sealer = open_sealer(keys, directory, app.registry)
        if sealer is not None:
            stack.callback(sealer.close)
        slot = CommitSlot()
        threads = stack.enter_context(ThreadPoolExecutor(4, thread_name_prefix="step"))
        for number in range(identity.shards):
            file = await SqliteShard.open(directory, number, clock=clock, entropy=entropy)
            stack.push_async_callback(file.close)
            store = sealed_store(file, identity.shards, sealer, app.registry)
            ownership = await store.take("local")
            owned.append(Shard(store, ownership, app, exchange, tasks, clock, entropy, threads, lambda _: None, slot=slot, sealer=sealer))
            exchange.serve(owned[-1])
        for shard in owned:
            await shard.load()
        for shard in owned:  # all at once, without an await between: what one takes up may ask another
            shard.start()
        try:
            yield LocalRuntime(exchange, owned, clock)
        finally:
            for shard in owned:
                await leave(shard, 5.0)
            await tasks.cancel_all()
