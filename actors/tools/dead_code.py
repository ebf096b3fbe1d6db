"""Code that cannot run, as vulture sees it, cut down to what holds without knowing the callers.

Measured on vulture 2.16: of its findings at confidence 100, unreachable code depends on one file only, but unused
arguments do not (a name used anywhere in the code base hides them), and most of them are demanded by an interface.
Names at confidence 60 are wrong for a library, whose callers are elsewhere. So the cut has two parts:

- unreachable code, from one file (`DeadCodeFacts.unreachable`);
- private functions, classes and methods (one leading underscore, no decorator, no foreign base class) whose name occurs
  nowhere else in the code base, not even inside a string. A file contributes its definitions and the private names it
  mentions, both keyed by its content alone; `unused_private` combines them in memory.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import msgspec

from actors.tools.errors import AnalyserMissingError
from actors.tools.findings import Finding, make_finding
from actors.tools.python_ast import ParseProblem, parse_file
from actors.tools.workspace import read_file

_PRIVATE_NAME = re.compile(r"(?<!\w)_[A-Za-z0-9]\w*|(?<!\w)__[A-Za-z0-9]\w*")
_TOOL = "vulture"


class PrivateName(msgspec.Struct, frozen=True, kw_only=True):
    """A private function, class or method and where it begins."""

    name: str
    kind: str
    line: int


class DeadCodeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What one file contributes: complete findings, candidates, and the private names it mentions (sorted)."""

    path: str
    unreachable: list[Finding]
    private_definitions: list[PrivateName]
    private_mentions: list[str]


def dead_code_version() -> str:
    """Changes when the same file may give other facts: part of the key of a stored result."""
    try:
        return f"vulture {metadata.version('vulture')} cut 1"
    except metadata.PackageNotFoundError as error:
        raise AnalyserMissingError(_TOOL, "not installed") from error


def dead_code_facts(root: Path, path: str, *, sha256: str | None = None) -> DeadCodeFacts:
    """The facts of one file; empty ones when it does not parse.

    Raises:
        AnalyserMissingError: vulture is not installed.
        FileChangedError: the content no longer has the digest `sha256`.
    """
    tree = parse_file(root, path, sha256=sha256)
    empty = DeadCodeFacts(path=path, unreachable=[], private_definitions=[], private_mentions=[])
    if isinstance(tree, ParseProblem):
        return empty
    return DeadCodeFacts(
        path=path,
        unreachable=_unreachable(path, tree, read_file(root, path) or b""),
        private_definitions=sorted(_private_definitions(tree), key=lambda found: (found.line, found.name)),
        private_mentions=sorted(set(_mentions(tree))),
    )


def dead_code_findings(facts: Iterable[DeadCodeFacts]) -> list[Finding]:
    """All findings of a code base, by path and line. Needs the facts of every Python file in it."""
    files = sorted(facts, key=lambda file: file.path)
    found = [finding for file in files for finding in file.unreachable] + unused_private(files)
    return sorted(found, key=lambda f: (f.file, f.line, f.rule, f.message))


def unused_private(files: Iterable[DeadCodeFacts]) -> list[Finding]:
    """Private definitions that no file mentions beyond their own `def` or `class` line."""
    known = list(files)
    mentioned = {name for file in known for name in file.private_mentions}
    # A name put together at run time, as in `globals()["_get_" + kind]`, leaves its beginning as a string.
    beginnings = tuple(sorted(name for name in mentioned if name.endswith("_") and len(name) > 2))
    return [
        make_finding(
            rule=f"unused-private-{definition.kind}",
            tool=_TOOL,
            severity="low",
            file=file.path,
            line=definition.line,
            message=f"Private {definition.kind} `{definition.name}` is mentioned nowhere else in the code base",
        )
        for file in known
        for definition in file.private_definitions
        if definition.name not in mentioned and not definition.name.startswith(beginnings)
    ]


def _unreachable(path: str, tree: ast.Module, content: bytes) -> list[Finding]:
    try:
        from vulture.core import Vulture
        from vulture.noqa import ignore_line, parse_noqa
    except ImportError as error:
        raise AnalyserMissingError(_TOOL, "not installed") from error
    scan = Vulture()
    scan.code = content.decode("utf-8", "replace").splitlines()
    scan.noqa_lines = parse_noqa(scan.code)
    try:
        # Not `scan.scan`: it parses again, prints what it cannot parse, and takes type comments for syntax.
        scan.visit(tree)
    except (RecursionError, SyntaxError):
        return []
    # Few files have such code, and looking for reasons walks every statement list.
    intended = _intended_regions(tree) if scan.unreachable_code else set()
    found = []
    for item in scan.unreachable_code:
        line = int(item.first_lineno)
        if ignore_line(scan.noqa_lines, line, "V201") or line in intended:
            continue
        message = f"{str(item.message)[:1].upper()}{str(item.message)[1:]}"
        found.append(make_finding(rule="unreachable-code", tool=_TOOL, severity="medium", file=path, line=line, message=message))
    return sorted(found, key=lambda f: (f.line, f.message))


def _intended_regions(tree: ast.Module) -> set[int]:
    """First lines of dead code that is there for a reason.

    A `yield` that never runs makes its function a generator; `if 0:` and `if False:` are switches set by hand; a bare
    `...`, `pass`, `raise` or `assert_never` after a return tells type checkers and readers that the end is not reached.
    """
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If | ast.IfExp | ast.While) and isinstance(node.test, ast.Constant):
            lines.add(node.lineno)
            lines.update(child.lineno for child in _branch(node))
        for body in _bodies(node):
            for position, statement in enumerate(body):
                if position == 0:
                    continue
                rest = body[position:]
                yields = any(isinstance(part, ast.Yield | ast.YieldFrom) for after in rest for part in ast.walk(after))
                if yields or (len(rest) == 1 and _is_marker(statement)):
                    lines.add(statement.lineno)
    return lines


def _branch(node: ast.If | ast.IfExp | ast.While) -> list[ast.stmt]:
    return [] if isinstance(node, ast.IfExp) else [*node.body, *node.orelse]


def _bodies(node: ast.AST) -> Iterator[list[ast.stmt]]:
    for name in ("body", "orelse", "finalbody"):
        body = getattr(node, name, None)
        if isinstance(body, list):
            yield body


def _is_marker(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Pass | ast.Raise | ast.Assert):
        return True
    if not isinstance(statement, ast.Expr):
        return False
    value = statement.value
    return isinstance(value, ast.Constant) or (isinstance(value, ast.Call) and "assert_never" in ast.dump(value.func))


def _private_definitions(tree: ast.Module) -> Iterator[PrivateName]:
    pending: list[tuple[list[ast.stmt], bool]] = [(tree.body, False)]
    while pending:
        body, in_class = pending.pop()
        for node in body:
            if isinstance(node, ast.ClassDef):
                plain = not node.keywords and all(isinstance(b, ast.Name) and b.id == "object" for b in node.bases)
                if plain:
                    pending.append((node.body, True))
                if _is_candidate(node):
                    yield PrivateName(name=node.name, kind="class", line=node.lineno)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _is_candidate(node):
                yield PrivateName(name=node.name, kind="method" if in_class else "function", line=node.lineno)


def _is_candidate(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Decorators register what they see; names with a trailing underscore (`_missing_`, `_repr_html_`) are hooks."""
    name = node.name
    return bool(_PRIVATE_NAME.fullmatch(name)) and not name.endswith("_") and not node.decorator_list


def _mentions(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            texts = [node.id]
        elif isinstance(node, ast.Attribute):
            texts = [node.attr]
        elif isinstance(node, ast.alias):
            texts = [node.name, node.asname or ""]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts = [node.value]
        elif isinstance(node, ast.Constant) and isinstance(node.value, bytes):
            texts = [node.value.decode("latin-1")]
        else:
            continue
        for text in texts:
            yield from _PRIVATE_NAME.findall(text)
