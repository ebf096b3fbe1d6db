"""Words of texts and of queries for FTS5: what is indexed, and how a question of a person becomes an expression that can mean nothing
else."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

TOKENIZER: Final = "porter unicode61 remove_diacritics 2"
"""Words without accents, by their English stems. Names of code are taken apart at what is no letter or digit."""
TERMS_MAX: Final = 64

_TERM: Final = re.compile(r"[^\W_]+")
_HUMPS: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[^\W\d_])(?=\d)")
# A question is full of them; each would find half of everything there is.
_ENGLISH_AND_GERMAN: Final = (
    "a an and are as at be been but by can could did do does for from had has have how i if in into is it its may no not of "
    "on or our shall should so some such than that the their them then there these they this those to too was we were what "
    "when where which while who why will with would you your aber als am an auch auf aus bei bin bis da das dass dem den der "
    "des die doch du ein eine einem einen einer eines er es für hat ich ihr im ist ja kann man mein mit nach nicht noch nur "
    "ob oder sein sich sie sind so über um und uns von war was wer wie wir wird wo zu zum zur"
)
_FUNCTION_WORDS: Final = frozenset(_ENGLISH_AND_GERMAN.split())


def indexed_text(content: str) -> str:
    """What FTS5 is given of a text: the text, and behind it the parts of its names that are written together, such as ``parseURL``."""
    parts = [part for term in _TERM.findall(content) for part in _humps(term)]
    return content if not parts else f"{content}\n{' '.join(parts)}"


def terms_of(query: str) -> list[str]:
    """The query's words as FTS5 looks for them, each once; all of them where none is telling.

    Every one is a quoted string of letters and digits, so nothing of FTS5's own language can stand in a query.
    """
    terms: dict[str, None] = {}
    for term in _TERM.findall(query):
        for each in (term, *_humps(term)):
            terms.setdefault(each.lower())
    telling = [term for term in terms if term not in _FUNCTION_WORDS] or list(terms)
    return [f'"{term}"' for term in telling[:TERMS_MAX]]


def any_of(terms: Iterable[str]) -> str:
    """An FTS5 expression that finds texts with any of these words."""
    return " OR ".join(terms)


def all_of(terms: Iterable[str]) -> str:
    """An FTS5 expression that finds texts with every one of these words."""
    return " AND ".join(terms)


def rarest(counts: Mapping[str, int], matches_max: int, *, least: int = 1) -> list[str]:
    """The words that stand in the fewest texts, the rarest first, of equals the one that is asked for first: as many as have at most
    `matches_max` matches together, and `least` of them in any case, if there are so many.

    Args:
        counts: of the texts with each word.
    """
    found: list[str] = []
    left = matches_max
    for term in sorted(counts, key=counts.__getitem__):
        left -= counts[term]
        if left < 0 and len(found) >= least:
            break
        found.append(term)
    return found


def _humps(term: str) -> list[str]:
    parts = _HUMPS.split(term)
    return parts if len(parts) > 1 else []
