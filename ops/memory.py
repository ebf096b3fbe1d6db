"""The memory that every deployment has: the actor type ``memory`` with its embedder, added to whatever app runs."""

from typing import Final

from actors.memory import Memory, memory_actor
from events.embedding import Embedder
from projections.embedding.hashing import HashEmbedder
from runtime.app import App

TYPE: Final = "memory"


def with_memory(app: App, embedder: Embedder | None = None) -> App:
    """`app` with the memory of workspaces. One with an actor type ``memory`` of its own making is left as it is.

    Args:
        embedder: None = the built-in one, which hashes words.
    """
    own = app.registry.types.get(TYPE)
    if own is not None and not issubclass(own.cls, Memory):
        return app
    chosen = embedder or HashEmbedder()
    return app.adding(memory_actor(chosen, in_loop=isinstance(chosen, HashEmbedder)))
