"""Who imports whom: statements per file, and the graph they make between the modules of one code base.

An edge goes to the module an import names most closely: `import a.b.c` and `from a.b import c` (where `a.b.c` is a
file) lead to `a.b.c`, `from a.b import name` leads to `a.b`. The packages on the way are executed too, but an edge to
each would put nearly every package into a cycle with its own contents. An import of the module itself (`from . import
name` in an `__init__`) is no edge. Edges carry their scope; all of them, typing-only and deferred ones included, make
`cycles`, so that anybody who computes strongly connected components of `imports` gets the same list. `load_cycles` uses
only those that run while modules load: these are the ones that can break at start.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from actors.tools.graph import layers, strongly_connected
from actors.tools.module_names import Module, ModuleIndex
from actors.tools.python_ast import ParseProblem, parse_file

IMPORTS_VERSION = "imports 1"
"""Changes when the same file may get other statements: part of the key of a stored result."""

Scope = Literal["module", "function", "typing"]


class ImportStatement(msgspec.Struct, frozen=True, kw_only=True):
    """One `import` or `from` clause.

    `module` is the dotted name as written (empty in `from . import x`), `level` the number of leading dots, `names`
    what follows `from ... import` (None for a plain `import`).
    """

    module: str
    level: int
    names: list[str] | None
    line: int
    scope: Scope


class FileImports(msgspec.Struct, frozen=True, kw_only=True):
    """All imports of one file, by line."""

    path: str
    statements: list[ImportStatement]


class ImportEdge(msgspec.Struct, frozen=True, kw_only=True):
    """The module `source` (written `from`) imports the module `to` in `path` at `line`."""

    source: str = msgspec.field(name="from")
    to: str
    path: str
    line: int
    scope: Scope


class ImportGraph(msgspec.Struct, frozen=True, kw_only=True):
    """Modules, edges and what follows from them.

    `layers[0]` holds the modules that import nothing of the code base; each other module stands one above its highest
    import, the members of a cycle together. `imported_names` maps a path to the names other files import from it.
    """

    modules: list[Module]
    imports: list[ImportEdge]
    cycles: list[list[str]]
    load_cycles: list[list[str]]
    layers: list[list[str]]
    imported_names: dict[str, list[str]]


def file_imports(root: Path, path: str, *, sha256: str | None = None) -> FileImports:
    """The import statements of one file; none when it does not parse.

    Raises:
        FileChangedError: the content no longer has the digest `sha256`.
    """
    tree = parse_file(root, path, sha256=sha256)
    found = [] if isinstance(tree, ParseProblem) else list(_statements(tree))
    return FileImports(path=path, statements=sorted(found, key=lambda s: (s.line, s.level, s.module, s.names or [])))


def import_graph(files: Sequence[FileImports], *, package_prefix: str = "") -> ImportGraph:
    """The graph between the given files.

    Args:
        files: one entry per Python file; each becomes a module.
        package_prefix: see `Inventory.package_prefix`.
    """
    found = ModuleIndex((file.path for file in files), package_prefix)
    edges: dict[tuple[str, str, str, int], ImportEdge] = {}
    imported: dict[str, set[str]] = {}
    for file in sorted(files, key=lambda f: f.path):
        for statement in file.statements:
            for target, name in _targets(found, file.path, statement):
                if target == file.path:
                    continue
                if name is not None:
                    imported.setdefault(target, set()).add(name)
                edge = ImportEdge(
                    source=found.names[file.path],
                    to=found.names[target],
                    path=file.path,
                    line=statement.line,
                    scope=statement.scope,
                )
                edges.setdefault((edge.source, edge.to, edge.path, edge.line), edge)
    imports = [edges[key] for key in sorted(edges)]
    modules = found.modules()
    names = [module.name for module in modules]
    return ImportGraph(
        modules=modules,
        imports=imports,
        cycles=_cycles(names, imports),
        load_cycles=_cycles(names, [edge for edge in imports if edge.scope == "module"]),
        layers=layers(names, _successors(names, imports)),
        imported_names={path: sorted(imported[path]) for path in sorted(imported)},
    )


def fan_in(graph: ImportGraph) -> dict[str, int]:
    """How many modules import a file, by its path."""
    path_of = {module.name: module.path for module in graph.modules}
    importers: dict[str, set[str]] = {module.path: set() for module in graph.modules}
    for edge in graph.imports:
        importers[path_of[edge.to]].add(edge.source)
    return {path: len(names) for path, names in sorted(importers.items())}


def _successors(names: Iterable[str], imports: Iterable[ImportEdge]) -> dict[str, list[str]]:
    targets: dict[str, set[str]] = {name: set() for name in names}
    for edge in imports:
        targets[edge.source].add(edge.to)
    return {name: sorted(found) for name, found in targets.items()}


def _cycles(names: list[str], imports: list[ImportEdge]) -> list[list[str]]:
    components = strongly_connected(names, _successors(names, imports))
    return sorted(component for component in components if len(component) > 1)


def _statements(tree: ast.Module) -> Iterator[ImportStatement]:
    """Walk with a stack of our own: generated code nests deeper than Python's recursion limit."""
    pending: list[tuple[ast.AST, Scope]] = [(tree, "module")]
    while pending:
        node, scope = pending.pop()
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield ImportStatement(module=alias.name, level=0, names=None, line=node.lineno, scope=scope)
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            yield ImportStatement(module=node.module or "", level=node.level, names=names, line=node.lineno, scope=scope)
        elif isinstance(node, ast.If) and _is_typing_test(node.test):
            pending.extend((child, "typing") for child in node.body)
            pending.extend((child, scope) for child in node.orelse)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            inner: Scope = "typing" if scope == "typing" else "function"
            pending.extend((child, inner) for child in ast.iter_child_nodes(node))
        elif not isinstance(node, ast.expr):
            pending.extend((child, scope) for child in ast.iter_child_nodes(node))


def _is_typing_test(test: ast.expr) -> bool:
    if isinstance(test, ast.Name):
        return test.id == "TYPE_CHECKING"
    return isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"


def _targets(found: ModuleIndex, importer: str, statement: ImportStatement) -> Iterator[tuple[str, str | None]]:
    """Paths that one statement reaches, each with the name it takes from there (None for a whole module)."""
    if statement.names is None:
        target = _closest(found, statement.module, importer)
        if target is not None:
            yield target, None
        return
    for name in statement.names:
        if name != "*":
            submodule = _find(found, importer, statement, name)
            if submodule is not None:
                yield submodule, None
                continue
        target = _find(found, importer, statement, "")
        if target is not None:
            yield target, name


def _find(found: ModuleIndex, importer: str, statement: ImportStatement, name: str) -> str | None:
    """The file behind `from <module> import <name>`; an empty name means the module itself."""
    dotted = ".".join(part for part in (statement.module, name) if part)
    if statement.level:
        return found.find_relative(dotted, statement.level, importer)
    return found.find(dotted, importer)


def _closest(found: ModuleIndex, name: str, importer: str) -> str | None:
    """`import a.b.c` where only `a.b` is a file of ours (`c` made at run time) still reaches `a.b`."""
    while name:
        target = found.find(name, importer)
        if target is not None:
            return target
        name = name.rpartition(".")[0]
    return None
