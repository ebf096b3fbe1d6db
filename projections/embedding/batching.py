"""Texts of many callers in one call of the model: what arrives while one call runs is the next one, as with commits (design.md 6)."""

import asyncio
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Final, NamedTuple

import msgspec

from events.embedding import Embedder, Embedding
from events.errors import EmbeddingError

TEXTS_MAX: Final = 64
"""In one call: a model pads its texts to the longest, so that more cost memory and gain nothing."""


class _Request:
    __slots__ = ("error", "found", "texts")

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self.found: list[Embedding] = []
        """Of the first texts."""
        self.error: Exception | None = None

    @property
    def left(self) -> int:
        return len(self.texts) - len(self.found)

    @property
    def done(self) -> bool:
        return not self.left or self.error is not None


class _Part(NamedTuple):
    """The next texts of a request, in one call."""

    request: _Request
    texts: Sequence[str]


class BatchingStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Since the beginning. texts / calls is how many texts shared a call."""

    texts: int
    calls: int


class BatchingEmbedder:
    """An `Embedder` around another one, which it calls once at a time. It holds nobody to be fast: an idle model is called at once, and
    who asks for much gets it in parts, beside what others ask for.

    No task of its own: whoever comes to the model first embeds for all who wait. If that caller is cancelled, the next one does. A
    failure of a call for several callers is no verdict on any of them: each is then tried alone.
    """

    def __init__(self, inner: Embedder, *, texts_max: int = TEXTS_MAX) -> None:
        """
        Args:
            texts_max: in one call, and so how long a caller waits at most for a call that is under way.
        """
        self._inner = inner
        self._texts_max = texts_max
        self._waiting: deque[_Request] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._free = asyncio.Lock()
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
        model_free = self._model_free()
        request = _Request(list(texts))
        self._waiting.append(request)
        try:
            while not request.done:
                # First come, first served; who was served by another one passes through.
                async with model_free:
                    if not request.done:
                        await self._serve(self._next())
        finally:
            if request in self._waiting:
                self._waiting.remove(request)
        if request.error is not None:
            raise request.error
        return request.found

    def _model_free(self) -> asyncio.Lock:
        """An app is made once and may be run by one loop after another."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._free, self._waiting = loop, asyncio.Lock(), deque()
        return self._free

    def _next(self) -> list[_Part]:
        """Of each who waits as much as there is room for, shared out so that the smallest are served first (max-min fairness)."""
        waiting = list(islice((request for request in self._waiting if not request.done), self._texts_max))
        room, count = self._texts_max, {}
        for before, request in enumerate(sorted(waiting, key=lambda request: request.left)):
            count[request] = min(request.left, room // (len(waiting) - before))
            room -= count[request]
        return [_Part(request, request.texts[len(request.found) :][: count[request]]) for request in waiting]

    async def _serve(self, parts: list[_Part]) -> None:
        try:
            found = await self._call([text for part in parts for text in part.texts])
        except Exception as error:  # noqa: BLE001  a model may raise anything; it becomes the answer of who asked
            if len(parts) == 1:
                parts[0].request.error = error
                return
            for part in parts:
                await self._serve([part])
            return
        for part in parts:
            part.request.found += found[: len(part.texts)]
            found = found[len(part.texts) :]

    async def _call(self, texts: list[str]) -> Sequence[Embedding]:
        self._calls += 1
        self._texts += len(texts)
        given = await self._inner.embed(texts)
        check_given(self._inner, texts, given)
        return given


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
