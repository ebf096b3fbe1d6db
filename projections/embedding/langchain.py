"""Any `Embeddings` of LangChain as an embedder. Nothing of LangChain is imported: whoever has one passes it in."""

from collections.abc import Sequence
from typing import Protocol, Self

from events.embedding import Embedding, checked_model, embedding
from events.errors import EmbeddingError


class LangChainEmbeddings(Protocol):
    """What is used of ``langchain_core.embeddings.Embeddings``."""

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]: ...


class LangChainEmbedder:
    """Adapter of `events.embedding.Embedder`.

    Its errors pass through as they are: whether a provider's failure is worth another attempt only its library knows.

    Args:
        embeddings: from LangChain or shaped like it.
        model: the id that is recorded with every vector; name provider, model and version, as ``openai/text-embedding-3-small``. It cannot
            be taken from the object: its class may be renamed, and says nothing about the weights.
        dimensions: of every vector; `probe` finds them out.
    """

    def __init__(self, embeddings: LangChainEmbeddings, *, model: str, dimensions: int) -> None:
        self._embeddings = embeddings
        self._model = checked_model(model)
        self._dimensions = dimensions

    @classmethod
    async def probe(cls, embeddings: LangChainEmbeddings, *, model: str) -> Self:
        """The same with the dimensions that one call of the model shows."""
        (found,) = await embeddings.aembed_documents(["dimensions"])
        return cls(embeddings, model=model, dimensions=len(found))

    @property
    def model(self) -> str:
        return self._model

    @property
    def dimensions(self) -> int:
        return self._dimensions

    async def embed(self, texts: Sequence[str]) -> Sequence[Embedding]:
        if not texts:
            return []
        found = await self._embeddings.aembed_documents(list(texts))
        if len(found) != len(texts) or any(len(each) != self._dimensions for each in found):
            sizes = sorted({len(each) for each in found})
            raise EmbeddingError(
                f"{self._model} gave {len(found)} vectors of {sizes} numbers for {len(texts)} texts, not of {self._dimensions}",
                model=self._model,
            )
        return [embedding(self._model, each) for each in found]
