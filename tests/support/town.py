"""An app with a memory whose model the environment names, and an actor whose answers are cached: `--app tests.support.town:app`.

TOWN_MODEL: unset = the built-in one; else an `Embeddings` of LangChain, under that name.
"""

import os

from events.embedding import Embedder
from ops.memory import with_memory
from projections.embedding.hashing import HashEmbedder
from projections.embedding.langchain import LangChainEmbedder
from runtime import App
from tests.support.sage import Sage

DIMENSIONS = 24


def _embedder() -> Embedder:
    name = os.environ.get("TOWN_MODEL")
    if name is None:
        return HashEmbedder()
    from langchain_core.embeddings import DeterministicFakeEmbedding

    return LangChainEmbedder(DeterministicFakeEmbedding(size=DIMENSIONS), model=name, dimensions=DIMENSIONS)


app = with_memory(App(actors=[Sage]), _embedder())
