"""The memory that every deployment has: the actor type ``memory``, its view, and the reports of what recalls have found."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import structlog

from actors.memory import Memory, memory_actor
from events.embedding import Embedder
from events.errors import CuebookError
from events.ids import StreamId
from projections.embedding.batching import BatchingEmbedder
from projections.embedding.hashing import HashEmbedder
from projections.memory.accesses import Accesses
from projections.memory.projection import MemoryProjection
from runtime.app import App

log = structlog.get_logger("cuebook.memory")

TYPE: Final = "memory"
REPORT_EVERY_S: Final = 1.0

ACCESSES: Final = Accesses()
"""What the recalls of this process have found. A projector reports it; the files of a view are read without being counted."""

Tell = Callable[[str, str, dict[str, Any]], Awaitable[object]]
"""``tell(stream, method, arguments)``: returns once the command is kept."""


def with_memory(app: App, embedder: Embedder | None = None) -> App:
    """`app` with the memory of workspaces, actor and view. One with an actor type ``memory`` of its own making is left as it is.

    Args:
        embedder: None = the one that the app chose by calling this itself, else the built-in one, which hashes words. Any other is asked
            for all who wait at a time, by the actors of a process and by its view (`BatchingEmbedder`).
    """
    own = app.registry.types.get(TYPE)
    if own is not None and not issubclass(own.cls, Memory):
        return app
    if own is not None and embedder is None and any(_is_memory(make) for make in app.projections):
        return app
    # The built-in one takes microseconds, in the loop: its callers never wait for each other.
    chosen: Embedder = embedder or HashEmbedder()
    if not isinstance(chosen, HashEmbedder | BatchingEmbedder):
        chosen = BatchingEmbedder(chosen)
    others = [make for make in app.projections if not _is_memory(make)]
    view = partial(MemoryProjection, chosen, ACCESSES)
    return app.adding(memory_actor(chosen, in_loop=isinstance(chosen, HashEmbedder)), projections=[*others, view])


def _is_memory(make: Any) -> bool:
    return getattr(make, "func", make) is MemoryProjection


async def report_to_actors(namespace: str, nats_options: dict[str, Any]) -> None:
    """`report_accesses` of this process, over a connection of its own. Runs until cancelled."""
    from runtime.client import connect

    async with connect(namespace=namespace, **nats_options) as cue:

        async def tell(stream: str, method: str, arguments: dict[str, Any]) -> None:
            await cue.tell(StreamId(stream), method, arguments, None)

        await report_accesses(ACCESSES, tell)


async def report_accesses(accesses: Accesses, tell: Tell) -> None:
    """Tell each memory once a second what was found of it. Runs until cancelled.

    What cannot be told is dropped: a count that is a little low is better than a service that waits.
    """
    while True:
        await asyncio.sleep(REPORT_EVERY_S)
        await report_once(accesses, tell)


async def report_once(accesses: Accesses, tell: Tell) -> None:
    """Report what was found since the last time."""
    for workspace, counts in accesses.take().items():
        try:
            await tell(f"{TYPE}/{workspace}", "accessed", {"counts": counts})
        except CuebookError as error:
            log.info("accesses_dropped", workspace=workspace, memories=len(counts), error=error.message)
