"""Names and what their docstrings say of them: a labelled set for embedders, drawn from the sources of an installed package.

The question is a name, the answer the first paragraph of its own docstring, among those of all the others. Only the syntax trees are read:
nothing of the package is run. What comes out depends on the version of the package alone; the 300 pairs of the bench are kept in
docstrings.json, with the package and version that they are from, so that every machine asks the same.
"""

import ast
import hashlib
import inspect
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

_WORDS_MIN: Final = 4
_NAME_LETTERS_MIN: Final = 4


class Pair(msgspec.Struct, frozen=True):
    """name: of a function or class, without its module. text: the first paragraph of its docstring."""

    name: str
    text: str


class PairsFile(msgspec.Struct, frozen=True):
    """docstrings.json. source: package and version. pairs: name to text."""

    source: str
    licence: str
    pairs: dict[str, str]


@cache
def kept_pairs() -> list[Pair]:
    """The pairs of the bench."""
    found = msgspec.json.decode(Path(__file__).with_name("docstrings.json").read_bytes(), type=PairsFile)
    return [Pair(name, text) for name, text in found.pairs.items()]


def pairs_of(root: Path, count: int) -> list[Pair]:
    """`count` pairs from the modules below `root`, or all if there are fewer, in the order of their names.

    Public functions and classes of modules; names and texts that occur once, a text of four words or more. Which of them are drawn is
    settled by a hash of the name, so that they come from everywhere, and the same from the same sources.
    """
    found = {pair for path in root.rglob("*.py") if not _foreign(path.relative_to(root)) for pair in _pairs(path)}
    names, texts = Counter(pair.name for pair in found), Counter(pair.text for pair in found)
    unique = [pair for pair in found if names[pair.name] == 1 and texts[pair.text] == 1]
    drawn = sorted(unique, key=lambda pair: hashlib.sha256(pair.name.encode()).digest())[:count]
    return sorted(drawn, key=lambda pair: pair.name)


def _foreign(place: Path) -> bool:
    """Tests, and what is not the package's own."""
    others = {"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages"}
    return any(part in others or part.startswith("test_") for part in place.parts)


def _pairs(path: Path) -> Iterator[Pair]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            text = _summary(ast.get_docstring(node) or "")
            if len(node.name) >= _NAME_LETTERS_MIN and len(text.split()) >= _WORDS_MIN:
                yield Pair(node.name, text)


def _summary(docstring: str) -> str:
    return re.sub(r"\s+", " ", inspect.cleandoc(docstring).partition("\n\n")[0]).strip()


def ranks(questions: Sequence[Sequence[int]]) -> tuple[float, float]:
    """The share of questions whose own number, which is their place, comes first, and among the first five, of the numbers found for it."""
    first = sum(found[:1] == [number] for number, found in enumerate(map(list, questions)))
    five = sum(number in found[:5] for number, found in enumerate(map(list, questions)))
    return first / len(questions), five / len(questions)
