"""New vectors for what is remembered, when the deployment embeds with another model than before.

They become events (``memory.meaning_renewed``) and not rows of a table beside the log: a later rebuild, a restore or an import elsewhere
then finds them in the log and calls no model; what is erased or sealed takes them along; and the view stays a function of the log alone.
The log grows by one vector for each memory, once for each model.

A memory has one vector at a time. Until it has its new one it is found by its words only, so nothing is ever compared across models, and
whoever is interrupted goes on where they were: what has its vector is not asked for again.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

TYPE = "memory"
_AT_ONCE = 200
_RENEW_TIMEOUT_S = 120.0


class Deployment(Protocol):
    """What is used of `runtime.client.Client`."""

    async def ask_view(self, projection: str, operation: str, /, **arguments: Any) -> Any: ...

    async def log(self, operation: str, /, **arguments: Any) -> Any: ...

    def ref(self, actor: str, id: str, *, timeout_s: float) -> Any: ...


async def renew_all(deployment: Deployment, on_progress: Callable[[int, int], None]) -> int:
    """Give every memory of every workspace a vector of the present model; returns how many got one.

    Args:
        on_progress: called with how many are done and how many there are to do, after each step.
    """
    left = {workspace: count async for workspace, count in _outdated(deployment)}
    total, done = sum(left.values()), 0
    on_progress(done, total)
    for workspace, outdated in left.items():
        count = outdated
        memory = deployment.ref(TYPE, workspace, timeout_s=_RENEW_TIMEOUT_S)
        while count:
            renewed = await memory.ask("renew_meanings", limit=_AT_ONCE)
            done += renewed["renewed"]
            # Whatever came or went meanwhile: the actor says what is left.
            total += renewed["left"] + renewed["renewed"] - count
            count = renewed["left"]
            on_progress(done, total)
            if not renewed["renewed"]:
                break
    return done


async def _outdated(deployment: Deployment) -> AsyncIterator[tuple[str, int]]:
    """Workspaces with memories whose vector is not of the model that recalls search by, and how many."""
    after: str | None = ""
    while after is not None:
        page = await deployment.log("streams", after=after)
        for stream in page["streams"]:
            kind, _, workspace = stream["stream"].partition("/")
            stats = await deployment.ask_view(TYPE, "stats", workspace=workspace) if kind == TYPE else None
            count = sum(many for model, many in stats["vectors"].items() if model != stats["searched"]) if stats else 0
            if count:
                yield workspace, count
        after = page["next"]
