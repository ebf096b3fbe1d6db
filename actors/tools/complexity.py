"""Cyclomatic complexity as radon counts it.

The numbers are radon's own: same visitor, same blocks as `radon cc --json` lists at its top level (functions, classes,
methods). Like there, a closure and a class inside a class are not blocks of their own.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import msgspec

from actors.tools.errors import AnalyserMissingError
from actors.tools.python_ast import ParseProblem, parse_file


class ComplexBlock(msgspec.Struct, frozen=True, kw_only=True):
    """One function, class or method; `name` is `Class.method` for a method, `line` that of its `def` or `class`."""

    path: str
    name: str
    line: int
    complexity: int


def complexity_version() -> str:
    """Changes when the same file may get other numbers: part of the key of a stored result."""
    try:
        return f"radon {metadata.version('radon')} blocks 1"
    except metadata.PackageNotFoundError as error:
        raise AnalyserMissingError("radon", "not installed") from error


def file_complexity(root: Path, path: str, *, sha256: str | None = None) -> list[ComplexBlock]:
    """Every block of one file by line, then name; empty when the file does not parse.

    Raises:
        AnalyserMissingError: radon is not installed.
        FileChangedError: the content no longer has the digest `sha256`.
    """
    try:
        from radon.complexity import cc_visit_ast
    except ImportError as error:
        raise AnalyserMissingError("radon", "not installed") from error
    tree = parse_file(root, path, sha256=sha256)
    if isinstance(tree, ParseProblem):
        return []
    try:
        blocks = cc_visit_ast(tree)
    except RecursionError:
        # An expression nested deeper than radon's recursive visitor: the parser accepts more than it does.
        return []
    found = [ComplexBlock(path=path, name=block.fullname, line=block.lineno, complexity=block.complexity) for block in blocks]
    return sorted(found, key=lambda block: (block.line, block.name, block.complexity))


def hot_spots(blocks: list[ComplexBlock], count: int = 10) -> list[ComplexBlock]:
    """The `count` most complex blocks, worst first."""
    return sorted(blocks, key=lambda block: (-block.complexity, block.path, block.line, block.name))[:count]
