"""Texts of many callers in one call of the model: what arrives while one call runs is the next one, as with commits (design.md 6)."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec

from events.embedding import Embedder, Embedding
from events.errors import EmbeddingError

TEXTS_MAX: Final = 64
"""In one call: a model pads its texts to the longest, so that more cost memory and gain nothing."""


class _Request:
    __slots__ = ("error", "found", "texts")

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self.found: Sequence[Embedding] | None = None
        self.error: Exception | None = None

    @property
    def done(self) -> bool:
        return self.found is not None or self.error is not None


class BatchingStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Since the beginning. texts / calls is how many texts shared a call."""

    texts: int
    calls: int


class BatchingEmbedder:
    """An `Embedder` around another one, which it calls once at a time. It holds nobody to be fast: an idle model is called at once.

    No task of its own: whoever comes to the model first embeds for all who wait. If that caller is cancelled, the next one does. A
    failure of a call for several callers is no verdict on any of them: each is then tried alone.
    """

    def __init__(self, inner: Embedder, *, texts_max: int = TEXTS_MAX) -> None:
        self._inner = inner
        self._texts_max = texts_max
        self._waiting: deque[_Request] = deque()
        self._model_free = asyncio.Lock()
        self._texts = self._calls = 0

    @property
    def model(self) -> str:
        return self._inner.model

    @property
    def dimensions(self) -> int:
        return self._inner.dimensions

    def statistics(self) -> BatchingStatistics:
        return BatchingStatistics(texts=self._texts, calls=self._calls)

    async def embed(self, texts: Sequence[str]) -> Sequence[Embedding]:
        if not texts:
            return []
        request = _Request(list(texts))
        self._waiting.append(request)
        try:
            while not request.done:
                # First come, first served; who was served by another one passes through.
                async with self._model_free:
                    if not request.done:
                        await self._serve(self._next())
        finally:
            if not request.done and request in self._waiting:
                self._waiting.remove(request)
        if request.error is not None:
            raise request.error
        if request.found is None:
            raise EmbeddingError(f"{self.model} was asked and did not answer", model=self.model)
        return request.found

    def _next(self) -> list[_Request]:
        batch = [self._waiting.popleft()]
        count = len(batch[0].texts)
        while self._waiting and count + len(self._waiting[0].texts) <= self._texts_max:
            batch.append(self._waiting.popleft())
            count += len(batch[-1].texts)
        return batch

    async def _serve(self, batch: list[_Request]) -> None:
        try:
            try:
                found = await self._call([text for request in batch for text in request.texts])
            except Exception as error:  # noqa: BLE001  a model may raise anything; it becomes the answer of who asked
                if len(batch) == 1:
                    batch[0].error = error
                    return
                for request in batch:
                    await self._serve([request])
                return
            for request in batch:
                request.found, found = found[: len(request.texts)], found[len(request.texts) :]
        finally:
            # Cancelled half-way: those who are still without an answer come first again.
            self._waiting.extendleft(request for request in reversed(batch) if not request.done and request not in self._waiting)

    async def _call(self, texts: list[str]) -> Sequence[Embedding]:
        found: list[Embedding] = []
        for first in range(0, len(texts), self._texts_max):
            part = texts[first : first + self._texts_max]
            self._calls += 1
            self._texts += len(part)
            given = await self._inner.embed(part)
            check_given(self._inner, part, given)
            found += given
        return found


def check_given(embedder: Embedder, texts: Sequence[str], given: Sequence[Embedding]) -> None:
    """Check an answer of `embedder` against what it says of itself.

    Raises:
        EmbeddingError: another number of embeddings, another model or other dimensions.
    """
    if len(given) != len(texts):
        raise EmbeddingError(f"{embedder.model} gave {len(given)} embeddings for {len(texts)} texts", model=embedder.model)
    for each in given:
        if each.model != embedder.model or each.dimensions != embedder.dimensions:
            raise EmbeddingError(
                f"{embedder.model} with {embedder.dimensions} dimensions gave an embedding of {each.model} with {each.dimensions}",
                model=embedder.model,
            )
