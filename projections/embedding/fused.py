"""Two embedders as one: the cosine of two fused vectors is the mean of the cosines that each finds.

For a model of meaning and the built-in one of words: the first knows that a car is an automobile, the second that `ModuleNotFoundError` is
one thing. Both vectors are simply put behind each other, so one index and one search do for both; merging two lists of answers by rank
found less.
"""

from collections.abc import Sequence
from math import sqrt
from typing import Final

from events.embedding import Embedder, Embedding, checked_model, embedding, unpacked
from events.errors import EmbeddingError


class FusedEmbedder:
    """Adapter of `events.embedding.Embedder` around two others.

    Args:
        weight: of the first one's cosine, above 0 and below 1; the second one's has the rest. Another weight is another model.
    """

    def __init__(self, first: Embedder, second: Embedder, *, weight: float = 0.5) -> None:
        if not 0 < weight < 1:
            raise EmbeddingError(f"a weight of {weight}")
        self._first = first
        self._second = second
        self._weight: Final = weight
        suffix = "" if weight == 0.5 else f"@{weight:g}"
        self._model = checked_model(f"{first.model}+{second.model}{suffix}")

    @property
    def model(self) -> str:
        return self._model

    @property
    def dimensions(self) -> int:
        return self._first.dimensions + self._second.dimensions

    async def embed(self, texts: Sequence[str]) -> Sequence[Embedding]:
        first, second = await self._first.embed(texts), await self._second.embed(texts)
        return [self._fused(one, other) for one, other in zip(first, second, strict=True)]

    def _fused(self, one: Embedding, other: Embedding) -> Embedding:
        # cos = w cos1 + (1 - w) cos2, as each part of the product carries the square of its factor.
        parts = ((one, sqrt(self._weight)), (other, sqrt(1 - self._weight)))
        return embedding(self._model, [factor * number for part, factor in parts for number in unpacked(part.vector)])
