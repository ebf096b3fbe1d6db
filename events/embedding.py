"""The meaning of a text as a vector: what an event records of it, and the port of whoever computes it.

It stands here because actors record embeddings and projections search them, and the two meet only in events. An embedding always
travels with the id of the model that made it: distances between the vectors of two models mean nothing, so nobody may compare them by
accident. Nothing in here needs numpy; the bytes are laid out so that whoever has it needs no copy.
"""

import re
import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from math import fsum, hypot, isfinite, sqrt
from operator import mul
from typing import Final, Protocol

import msgspec

from events.errors import EmbeddingError

DIMENSIONS_MAX: Final = 8_192
"""32 KiB as float32: more than any text model of 2026 gives, and far below what an event may hold."""
_MODEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,99}")
_FLOAT_BYTES: Final = 4
_ROUNDING: Final = 1e-3
"""Far above float32, far below what would change a ranking."""


class Embedding(msgspec.Struct, frozen=True):
    """A direction in the space of one model.

    Fields:
        model: names the model, its version and everything else that changes its vectors; at most 100 of ``A-Za-z0-9._:/@+-``.
        vector: float32, little-endian, of length 1; all zeros for a text that says nothing, which resembles nothing. In JSON base64.
    """

    model: str
    vector: bytes

    @property
    def dimensions(self) -> int:
        """How many numbers the vector has."""
        return len(self.vector) // _FLOAT_BYTES


class Embedder(Protocol):
    """Computes embeddings. Adapters are in `projections.embedding`; `ops` hands one in.

    Attributes:
        model: as `Embedding.model`. The same model gives the same vector for the same text, on every machine and in every process, up to
            rounding; what would change more than that is another model and has another id.
        dimensions: of every vector.
    """

    @property
    def model(self) -> str: ...

    @property
    def dimensions(self) -> int: ...

    async def embed(self, texts: Sequence[str]) -> Sequence[Embedding]:
        """One embedding per text, in their order. Calls may overlap.

        Returns after the last one is there; on cancellation nothing is kept, and asking again is always safe.

        Raises:
            EmbeddingError: the model gave something else than what it promises; it is no use to ask again.
            TransientError: the model cannot be reached just now.
        """
        ...


def checked_model(model: str) -> str:
    """`model`, if it can be the id of one.

    Raises:
        EmbeddingError: it is too long, or has other characters.
    """
    if not _MODEL.fullmatch(model):
        raise EmbeddingError(f"{model[:120]!r} cannot be the id of a model: 1 to 100 of A-Z a-z 0-9 . _ : / @ + -")
    return model


def embedding(model: str, numbers: Iterable[float]) -> Embedding:
    """The embedding that has the direction of `numbers`. The length is lost; rounding is that of float32.

    Raises:
        EmbeddingError: no numbers or too many of them, one is not finite, or all are so small or large that there is no direction.
    """
    values = [float(number) for number in numbers]
    if not 0 < len(values) <= DIMENSIONS_MAX:
        raise EmbeddingError(f"{model}: a vector of {len(values)} numbers", model=model, dimensions=len(values))
    return Embedding(checked_model(model), packed(_of_length_1(model, values)))


def sparse_embedding(model: str, dimensions: int, cells: Mapping[int, float]) -> Embedding:
    """`embedding` of numbers that are 0 but for `cells`, bit for bit: a zero changes neither the largest number nor the length.

    Raises:
        EmbeddingError: as `embedding`, or a cell lies outside of the vector.
    """
    if not 0 < dimensions <= DIMENSIONS_MAX or min(cells, default=0) < 0 or max(cells, default=0) >= dimensions:
        raise EmbeddingError(f"{model}: cells of a vector of {dimensions} numbers", model=model, dimensions=dimensions)
    found = array("f", bytes(_FLOAT_BYTES * dimensions))
    for place, value in zip(cells, _of_length_1(model, list(cells.values())), strict=True):
        found[place] = value
    return Embedding(checked_model(model), _little(found))


def _of_length_1(model: str, values: list[float]) -> list[float]:
    if not all(map(isfinite, values)):
        raise EmbeddingError(f"{model}: a vector with a number that is not finite", model=model)
    # Divided by the largest first: squares of very large or small numbers overflow or vanish.
    largest = max(map(abs, values), default=0.0)
    if not largest:
        return values
    values = [value / largest for value in values]
    length = sqrt(fsum(map(mul, values, values)))
    return [value / length for value in values]


def packed(values: Iterable[float]) -> bytes:
    """Numbers as float32, little-endian."""
    return _little(array("f", values))


def _little(numbers: "array[float]") -> bytes:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def unpacked(vector: bytes) -> "array[float]":
    """The numbers of `Embedding.vector`.

    Raises:
        EmbeddingError: the bytes are no such vector.
    """
    check_vector(vector)
    found = array("f", vector)
    if sys.byteorder == "big":
        found.byteswap()
    return found


def check_embedding(found: Embedding) -> None:
    """Check an embedding that somebody else recorded, before it is compared with others.

    Raises:
        EmbeddingError: its model or its size cannot be, a number is not finite, or its length is neither 1 nor 0.
    """
    checked_model(found.model)
    square = hypot(*unpacked(found.vector)) ** 2
    # A NaN is neither.
    if not (abs(square - 1) < _ROUNDING or square == 0):
        raise EmbeddingError(f"{found.model}: the square of the length of a vector is {square}, not 1", model=found.model)


def check_vector(vector: bytes) -> None:
    """Check the size, not the content, which would cost more than the search.

    Raises:
        EmbeddingError: the bytes are no vector of float32.
    """
    if len(vector) % _FLOAT_BYTES or not 0 < len(vector) <= DIMENSIONS_MAX * _FLOAT_BYTES:
        raise EmbeddingError(f"{len(vector)} bytes are no vector of float32")
