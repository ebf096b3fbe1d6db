"""What an event records of a meaning: float32 in a fixed byte order, of length 1, never without its model."""

import math
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.embedding import (
    DIMENSIONS_MAX,
    Embedding,
    check_embedding,
    checked_model,
    embedding,
    packed,
    sparse_embedding,
    unpacked,
)
from events.errors import EmbeddingError


def test_a_vector_is_float32_little_endian_of_length_one() -> None:
    found = embedding("m-1", [3.0, 4.0])
    assert found.vector == struct.pack("<2f", 0.6, 0.8)
    assert found.dimensions == 2


def test_it_survives_json_bit_by_bit_and_stays_below_three_kilobytes() -> None:
    found = embedding("hash-512-1", [math.sin(number) for number in range(512)])
    body = msgspec.json.encode(found)
    assert msgspec.json.decode(body, type=Embedding) == found
    assert len(body) < 3_000


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1.0, 1e30, 1e200])
def test_only_the_direction_counts_however_long_the_vector_is(scale: float) -> None:
    assert embedding("m", [scale, -scale]) == embedding("m", [1.0, -1.0])


def test_a_text_that_says_nothing_is_a_vector_of_zeros() -> None:
    nothing = embedding("m", [0.0, 0.0])
    assert nothing.vector == bytes(8)
    check_embedding(nothing)


@pytest.mark.parametrize("numbers", [[], [math.nan, 1.0], [math.inf, 1.0], [1.0] * (DIMENSIONS_MAX + 1)])
def test_what_is_no_vector_is_refused(numbers: list[float]) -> None:
    with pytest.raises(EmbeddingError):
        embedding("m", numbers)


@given(st.dictionaries(st.integers(0, 11), st.floats(allow_nan=False, allow_infinity=False)))
def test_a_sparse_vector_is_the_same_bit_for_bit(cells: dict[int, float]) -> None:
    """Recorded vectors are compared by their bytes: how one was computed may not show."""
    assert sparse_embedding("m", 12, cells) == embedding("m", [cells.get(place, 0.0) for place in range(12)])


@pytest.mark.parametrize(
    ("dimensions", "cells"),
    [(0, {}), (DIMENSIONS_MAX + 1, {}), (2, {2: 1.0}), (2, {-1: 1.0}), (2, {0: math.nan}), (2, {0: math.inf, 1: 1.0})],
)
def test_cells_outside_of_a_vector_or_of_no_number_are_refused(dimensions: int, cells: dict[int, float]) -> None:
    with pytest.raises(EmbeddingError):
        sparse_embedding("m", dimensions, cells)


@pytest.mark.parametrize("model", ["", " m", "m\n", "m" * 101, "-m", "m'; DROP"])
def test_an_id_of_a_model_is_plain(model: str) -> None:
    with pytest.raises(EmbeddingError):
        checked_model(model)


@pytest.mark.parametrize("model", ["hash-512-1", "openai/text-embedding-3-small", "sentence-transformers/all-MiniLM-L6-v2@int8"])
def test_ids_of_models_as_providers_write_them_are_taken(model: str) -> None:
    assert checked_model(model) == model


@pytest.mark.parametrize("vector", [b"", b"123", packed([1.0, 1.0]), packed([math.nan]), packed([math.inf]), packed([0.5])])
def test_a_recorded_embedding_is_checked_before_it_is_compared(vector: bytes) -> None:
    with pytest.raises(EmbeddingError):
        check_embedding(Embedding("m", vector))


def test_packed_and_unpacked_are_inverse() -> None:
    assert list(unpacked(packed([0.5, -1.0, 0.25]))) == [0.5, -1.0, 0.25]
