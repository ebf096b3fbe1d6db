"""What computes the meaning of a text for an agent: the port, and what a handler records of its answer (`events.embedding`).

An actor records the whole `Embedding` in its event, vector and model id, so that a projection is rebuilt without a model (design.md 7).
"""

from events.embedding import Embedder, Embedding
from events.errors import EmbeddingError

__all__ = ["Embedder", "Embedding", "EmbeddingError"]
