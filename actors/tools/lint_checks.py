"""A second look, with the syntax tree, at findings of rules that are right often but not always.

Each check here answers a false alarm met in a well-known package; the tests name them. A check may only drop a finding
or lower its severity: nothing new is found here.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator

import msgspec

from actors.tools.findings import Finding

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_PYTHON_2_NAMES = frozenset(
    ("basestring", "buffer", "cmp", "execfile", "file", "long", "raw_input", "reload", "unichr", "unicode", "xrange")
)
_NOTEBOOK_NAMES = frozenset(("get_ipython", "display", "__IPYTHON__"))
_FORGIVING = frozenset(("NameError", "Exception", "BaseException"))
_MUTATORS = frozenset(("add", "append", "clear", "discard", "extend", "insert", "pop", "popitem", "remove", "setdefault", "update"))
_SQL_START = re.compile(
    r"""["'](?:\s|\\n)*(?:select|insert\s+into|update|delete\s+from|replace\s+into|create|drop|alter|with)\b""",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"`([^`]+)`")
_FROM_LINE = re.compile(r"from line (\d+)")

_Function = ast.FunctionDef | ast.AsyncFunctionDef


class Source:
    """One parsed file and the questions the checks ask about it."""

    def __init__(self, tree: ast.Module, lines: list[str]) -> None:
        self.tree = tree
        self.lines = lines
        self.functions = [node for node in ast.walk(tree) if isinstance(node, _FUNCTIONS)]

    def text(self, line: int, count: int = 1) -> str:
        return "\n".join(self.lines[line - 1 : line - 1 + count])

    def functions_around(self, line: int) -> list[_Function]:
        """Innermost last."""
        around = [node for node in self.functions if _first_line(node) <= line <= (node.end_lineno or node.lineno)]
        return sorted(around, key=lambda node: node.lineno)

    def forgives_missing_names(self, line: int) -> bool:
        """True inside the body of a `try` that catches NameError."""
        for node in ast.walk(self.tree):
            if not isinstance(node, ast.Try) or not node.body:
                continue
            if node.body[0].lineno <= line <= (node.body[-1].end_lineno or line) and any(
                handler.type is None or _names(handler.type) & _FORGIVING for handler in node.handlers
            ):
                return True
        return False


def reconsider(findings: list[Finding], tree: ast.Module, content: bytes) -> list[Finding]:
    """The findings of one file that survive the checks, in the given order."""
    if not any(finding.rule in _CHECKS for finding in findings):
        return findings
    source = Source(tree, content.decode("utf-8", "replace").splitlines())
    kept = []
    for finding in findings:
        check = _CHECKS.get(finding.rule)
        result = check(finding, source) if check else finding
        if result is not None:
            kept.append(result)
    return kept


def _undefined_name(finding: Finding, source: Source) -> Finding | None:
    """F821: ruff reads in source order, so a name bound later in a loop body looks undefined (networkx)."""
    name = _quoted(finding)
    if name in _NOTEBOOK_NAMES or "name-defined" in source.text(finding.line):
        return None
    if name in _PYTHON_2_NAMES and any("version_info" in line or "PY2" in line or "PY3" in line for line in source.lines):
        return None
    scopes: list[ast.AST] = [*source.functions_around(finding.line)]
    if any(name in _bound_in(scope) for scope in scopes) or source.forgives_missing_names(finding.line):
        return None
    return finding


def _unused_import(finding: Finding, source: Source) -> Finding | None:
    """F401: in a function an import may probe or load (networkx); in `compat` it is the interface (requests)."""
    stem = finding.file.rpartition("/")[2].partition(".")[0]
    return None if "compat" in stem or source.functions_around(finding.line) else finding


def _unused_local(finding: Finding, source: Source) -> Finding | None:
    """F841: an assignment at the end of a loop body is read by the next pass."""
    around = source.functions_around(finding.line)
    if not around:
        return finding
    name = _quoted(finding)
    read = any(isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load) for node in ast.walk(around[-1]))
    return None if read else finding


def _redefinition(finding: Finding, source: Source) -> Finding | None:
    """F811: a second definition under another condition (urllib3 `wait_for_socket`) replaces nothing."""
    match = _FROM_LINE.search(finding.message)
    first = int(match.group(1)) if match else 0
    if not 0 < first < finding.line:
        return None
    for node in ast.walk(source.tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            lines = {line for statement in body for line in _header_lines(statement)}
            if first in lines and finding.line in lines:
                return finding
    return None


def _mutable_default(finding: Finding, source: Source) -> Finding | None:
    """B006: harmless until the function changes the shared object or lets it out; overload stubs never run."""
    around = source.functions_around(finding.line)
    if not around:
        return finding
    function = around[-1]
    if any("overload" in _names(decorator) for decorator in function.decorator_list):
        return None
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [*zip(reversed(positional), reversed(arguments.defaults), strict=False)]
    defaults += [(a, d) for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if d is not None]
    shared = {argument.arg for argument, default in defaults if default.lineno == finding.line}
    if any(_changes_or_leaks(node, shared) for node in ast.walk(function)):
        return finding
    return msgspec.structs.replace(finding, severity="low")


def _shell_query(finding: Finding, source: Source) -> Finding | None:
    """S608: an error text with "select ... from" in it is no query (pip)."""
    return finding if _SQL_START.search(source.text(finding.line, 4)) else None


def _debugger(finding: Finding, _: Source) -> Finding | None:
    """T100: a program may offer a debugger (mypy `--pdb`); a call of `set_trace` or `breakpoint` stops it."""
    return finding if finding.message.startswith("Trace found") else None


_CHECKS: dict[str, Callable[[Finding, Source], Finding | None]] = {
    "B006": _mutable_default,
    "F401": _unused_import,
    "F811": _redefinition,
    "F821": _undefined_name,
    "F841": _unused_local,
    "S608": _shell_query,
    "T100": _debugger,
}


def _quoted(finding: Finding) -> str:
    match = _QUOTED.search(finding.message)
    return match.group(1) if match else ""


def _names(node: ast.AST) -> set[str]:
    """Every plain or dotted name inside an expression, by its last part."""
    found = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    return found | {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}


def _bound_in(scope: ast.AST) -> set[str]:
    return set(_bindings(scope))


def _bindings(scope: ast.AST) -> Iterator[str]:
    for node in ast.walk(scope):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.alias):
            yield node.asname or node.name.partition(".")[0]
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node is not scope:
            yield node.name


def _first_line(node: _Function) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def _header_lines(statement: ast.stmt) -> list[int]:
    """Where a statement names what it defines: the `def` line, or any line of an import."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return list(range(statement.lineno, (statement.end_lineno or statement.lineno) + 1))
    return [statement.lineno]


def _changes_or_leaks(node: ast.AST, names: set[str]) -> bool:
    def is_shared(value: ast.AST | None) -> bool:
        return isinstance(value, ast.Name) and value.id in names

    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Attribute) and node.func.attr in _MUTATORS and is_shared(node.func.value)
    if isinstance(node, ast.Subscript):
        return not isinstance(node.ctx, ast.Load) and is_shared(node.value)
    if isinstance(node, ast.AugAssign):
        return is_shared(node.target)
    if isinstance(node, ast.Assign):
        return is_shared(node.value) and any(isinstance(target, ast.Attribute) for target in node.targets)
    return isinstance(node, ast.Return | ast.Yield) and is_shared(node.value)
