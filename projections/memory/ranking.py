"""How memories are ranked: one score of four parts, each of which an answer shows.

Meaning and words are fused by a convex combination after the words' score was divided by the best of the same question (Bruch, Gai and
Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval", ACM TOIS 2023): unlike ranks it keeps how much better one is than the next,
and its parts can be read. Together they outweigh recency and importance, so that what has nothing to do with the question cannot win by
being important.
"""

from collections.abc import Sequence
from heapq import nlargest
from typing import Final, NamedTuple

import msgspec

WEIGHTS: Final = {"meaning": 0.52, "words": 0.23, "recency": 0.1, "importance": 0.15}
"""Seven to three between meaning and words found more of the docstrings of four code bases by their names than either alone, and was at or
near the best of all mixtures (`cuebook bench`)."""
HALF_LIFE_DAYS: Final = 30.0
NEAR_MIN: Final = 0.1
"""What shares no word with the question and is less near is no answer. A cosine below it is an accident: of two texts that share nothing
the built-in embedder's is within 0.05 of 0 in two of three cases."""
_MEANING, _WORDS, _RECENCY, _IMPORTANCE = (WEIGHTS[name] for name in ("meaning", "words", "recency", "importance"))
_DAY_US: Final = 86_400 * 1_000_000
_DIGITS: Final = 6
_ROUNDING: Final = 1e-5
"""More than rounding four values and their sum to six digits can move a score."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a score: weight * value is what it adds. value: 0 to 1."""

    value: float
    weight: float


class Values(NamedTuple):
    """The values of one memory's score, in the order of `WEIGHTS`."""

    meaning: float
    words: float
    recency: float
    importance: float


class Candidate(NamedTuple):
    """What ranks a memory. meaning: cosine to the question; below 0 counts as 0. words: its bm25, 0 if it shares no word
    that counts (`reading`)."""

    number: int
    created_us: int
    meaning: float
    words: float
    importance: float


class Ranked(NamedTuple):
    """An answer: its number, score and the values behind it."""

    number: int
    score: float
    values: Values


def ranked(candidates: Sequence[Candidate], k: int, newest_us: int) -> list[Ranked]:
    """The best `k` of those that have to do with the question; of equal scores the newer one first.

    Args:
        newest_us: when the newest memory of the workspace was made. Age counts from there and not from now: a workspace at rest forgets
            nothing, and the same memories always have the same scores.
    """
    most = max((each.words for each in candidates), default=0.0) or 1.0
    answers = [each for each in candidates if round(each.words / most, _DIGITS) > 0 or round(each.meaning, _DIGITS) >= NEAR_MIN]
    # Rounded are only those that can be among the best: of a hundred candidates and answers of five nearly none besides.
    rough = [_total(_values(each, most, newest_us)) for each in answers]
    least = min(nlargest(k, rough), default=0.0) - _ROUNDING
    found: list[tuple[float, int, int, Values]] = []
    for each, about in zip(answers, rough, strict=True):
        if about >= least:
            values = Values._make(round(value, _DIGITS) for value in _values(each, most, newest_us))
            found.append((-round(_total(values), _DIGITS), -each.created_us, each.number, values))
    found.sort()
    return [Ranked(number, -negative, values) for negative, _, number, values in found[:k]]


def parts_of(values: Values) -> dict[str, Part]:
    """What an answer shows of its score."""
    return {name: Part(value=value, weight=WEIGHTS[name]) for name, value in values._asdict().items()}


def _values(each: Candidate, most: float, newest_us: int) -> tuple[float, float, float, float]:
    recency = 0.5 ** (max(0, newest_us - each.created_us) / _DAY_US / HALF_LIFE_DAYS)
    return min(1.0, max(0.0, each.meaning)), min(1.0, each.words / most), recency, min(1.0, each.importance)


def _total(values: tuple[float, float, float, float]) -> float:
    """The sum of what the parts add, 0 to 1."""
    meaning, words, recency, importance = values
    return meaning * _MEANING + words * _WORDS + recency * _RECENCY + importance * _IMPORTANCE
