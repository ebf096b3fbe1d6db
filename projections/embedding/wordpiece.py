"""Texts as the numbers that BERT models were trained on: the uncased WordPiece of Devlin et al., "BERT", 2018.

Of our own because the package `tokenizers` brings an HTTP client along for downloads that never happen here. The vocabulary is that of
``bert-base-uncased`` (Apache-2.0), one piece per line. Known answers are in tests/unit/projections/test_minilm.py.
"""

import unicodedata
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final

WORD_LETTERS_MAX: Final = 100
UNKNOWN: Final = "[UNK]"
BEGIN: Final = "[CLS]"
END: Final = "[SEP]"
_INSIDE: Final = "##"
_VOCABULARY: Final = Path(__file__).with_name("minilm_vocab.txt")
_IDEOGRAPHS: Final = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B920, 0x2CEAF), (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)  # fmt: skip


@cache
def vocabulary() -> Mapping[str, int]:
    """Piece to number."""
    return {piece: number for number, piece in enumerate(_VOCABULARY.read_text(encoding="utf-8").split("\n")[:-1])}


def numbers(text: str, count_max: int) -> list[int]:
    """The pieces of `text` between a begin and an end, at most `count_max` with these; what is behind them is left out."""
    known = vocabulary()
    found = [known[BEGIN]]
    for word in words(text):
        if len(found) >= count_max - 1:
            break
        found += (known[piece] for piece in pieces(word, known))
    return [*found[: count_max - 1], known[END]]


def words(text: str) -> Iterator[str]:
    """Lower case, without accents; punctuation and ideographs stand alone."""
    cleaned = "".join(_cleaned(letter) for letter in text)
    for run in cleaned.split():
        # Letter by letter: `str.lower` knows that a sigma ends a word, the vocabulary does not.
        lower = "".join(letter.lower() for letter in run)
        bare = "".join(letter for letter in unicodedata.normalize("NFD", lower) if unicodedata.category(letter) != "Mn")
        word = ""
        for letter in bare:
            if _stands_alone(letter):
                if word:
                    yield word
                yield letter
                word = ""
            else:
                word += letter
        if word:
            yield word


def pieces(word: str, known: Mapping[str, int]) -> list[str]:
    """The longest known piece from the left, again and again; one unknown if that leads nowhere."""
    if len(word) > WORD_LETTERS_MAX:
        return [UNKNOWN]
    found: list[str] = []
    start = 0
    while start < len(word):
        prefix = _INSIDE if start else ""
        end = next((end for end in range(len(word), start, -1) if prefix + word[start:end] in known), None)
        if end is None:
            return [UNKNOWN]
        found.append(prefix + word[start:end])
        start = end
    return found


def _cleaned(letter: str) -> str:
    if letter in "\t\n\r" or unicodedata.category(letter) == "Zs":
        return " "
    code = ord(letter)
    if code in (0, 0xFFFD) or unicodedata.category(letter).startswith("C"):
        return ""
    if any(first <= code <= last for first, last in _IDEOGRAPHS):
        return f" {letter} "
    return letter


def _stands_alone(letter: str) -> bool:
    code = ord(letter)
    if 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126:
        return True
    return unicodedata.category(letter).startswith("P")
