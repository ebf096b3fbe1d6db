"""The embedder that is always there: words and parts of words, hashed into a vector. No model, no file, no package.

The hashing trick with signs (Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", ICML 2009) over words, their stems
and their letter trigrams (as fastText uses them, Bojanowski et al. 2017), so that `parse_url`, `parseURL` and "parsing an url" are near
each other. It knows no synonyms. What it finds beside other models is a row of ``cuebook bench``.

The same text has the same vector for ever: the features are hashed by CRC-32, no step depends on PYTHONHASHSEED or on the order of a
set, and there are only additions, products and square roots, which IEEE 754 fixes. Whoever changes any of that gives `MODEL` a new number.
"""

import re
from collections.abc import Iterator, Sequence
from math import sqrt
from typing import Final
from unicodedata import normalize
from zlib import crc32

from events.embedding import Embedding, sparse_embedding
from events.memo import memo

DIMENSIONS: Final = 512
MODEL: Final = f"hash-{DIMENSIONS}-1"
TEXT_CHARACTERS_MAX: Final = 20_000
"""What is behind them does not count: 11 ms of the loop at most."""

# A word is a run of letters or of digits; `parseURLs2` is parse, URLs, 2.
_WORD: Final = re.compile(r"[^\W\d_]+|\d+")
_HUMPS: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_ENDINGS: Final = ("ations", "ation", "ings", "ing", "ers", "er", "ies", "ied", "ed", "es", "ly", "s", "e", "y")
_STEM_LETTERS_MIN: Final = 3
_WORDS_CACHED: Final = 8_192
# Words that stand in any text, and say little about it.
_TEXT: Final = (
    "a about after all also an and any are as at be because been before being but by can could did do does each else for from had has "
    "have how i if in into is it its may more most must no nor not of on one only or other our out over same shall should so some such "
    "than that the their them then there these they this those to too under up use used uses using very was we were what when where "
    "which while who will with would you your"
)
_FUNCTION_WORDS: Final = frozenset(_TEXT.split())
# Found on names and docstrings of the standard library; the bench asks about another package.
_WORD_WEIGHT: Final = 1.0
_STEM_WEIGHT: Final = 1.0
_TRIGRAM_WEIGHT: Final = 1.0
_FUNCTION_WORD_WEIGHT: Final = 0.15
_Feature = tuple[str, int, float]
"""Its name, the cell that it is added to, and whether it is added or taken away."""


class HashEmbedder:
    """Adapter of `events.embedding.Embedder` that computes in the event loop: about 0.1 ms for a short text."""

    model: Final = MODEL
    dimensions: Final = DIMENSIONS

    async def embed(self, texts: Sequence[str]) -> Sequence[Embedding]:
        return [hashed(text) for text in texts]


def hashed(text: str) -> Embedding:
    """The embedding of `text`: a pure function, for who cannot wait."""
    weights: dict[_Feature, float] = {}
    for word in _words(text[:TEXT_CHARACTERS_MAX]):
        for feature, weight in _features(word):
            weights[feature] = weights.get(feature, 0.0) + weight
    cells: dict[int, float] = {}
    for (_, cell, sign), weight in weights.items():
        # Twice as often is not twice as much. Of features in one cell those with opposite signs cancel out, in the mean over many.
        cells[cell] = cells.get(cell, 0.0) + sign * sqrt(weight)
    return sparse_embedding(MODEL, DIMENSIONS, cells)


def _words(text: str) -> Iterator[str]:
    for run in _WORD.findall(normalize("NFKC", text)):
        for word in _HUMPS.split(run):
            yield word.casefold()


@memo("features of words", _WORDS_CACHED)
def _features(word: str) -> tuple[tuple[_Feature, float], ...]:
    if word in _FUNCTION_WORDS:
        return ((_feature(f"w:{word}"), _FUNCTION_WORD_WEIGHT),)
    framed = f"<{word}>"
    trigrams = ((_feature(f"t:{framed[at : at + 3]}"), _TRIGRAM_WEIGHT) for at in range(len(framed) - 2))
    return ((_feature(f"w:{word}"), _WORD_WEIGHT), (_feature(f"s:{_stem(word)}"), _STEM_WEIGHT), *trigrams)


def _feature(name: str) -> _Feature:
    place = crc32(name.encode("utf-8", "surrogatepass"))
    return name, place % DIMENSIONS, 1.0 if place & 0x8000_0000 else -1.0


def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _STEM_LETTERS_MIN:
            return word.removesuffix(ending)
    return word
