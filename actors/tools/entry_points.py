"""Where a code base can be started: declared scripts, `__main__` modules and files that run themselves."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Literal

import msgspec

from actors.tools.languages import PYTHON
from actors.tools.python_ast import ParseProblem, parse_bytes
from actors.tools.workspace import SourceFile, read_file


class EntryPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One way in. `name` is the command of a declared script, else the path; `target` is what a script starts."""

    kind: Literal["script", "main-module", "main-guard"]
    name: str
    path: str
    line: int
    target: str = ""


def entry_points(root: Path, files: Iterable[SourceFile]) -> list[EntryPoint]:
    """Every entry point of the given files, sorted by kind, name and path.

    Args:
        root: as `resolve_root` gives it.
        files: those of the inventory; others are not looked at.

    Raises:
        FileChangedError: a file is no longer the one of the inventory.
    """
    found: list[EntryPoint] = []
    for file in files:
        name = PurePosixPath(file.path).name
        if name == "pyproject.toml":
            found += _declared_scripts(file.path, read_file(root, file.path, sha256=file.sha256))
        elif file.language == PYTHON:
            if name == "__main__.py":
                found.append(EntryPoint(kind="main-module", name=file.path, path=file.path, line=1))
                continue
            content = read_file(root, file.path, sha256=file.sha256)
            # Parsing is the cost here, and few files mention the name at all.
            line = _main_guard_line(content) if content is not None and b"__main__" in content else None
            if line is not None:
                found.append(EntryPoint(kind="main-guard", name=file.path, path=file.path, line=line))
    return sorted(found, key=lambda entry: (entry.kind, entry.name, entry.path, entry.line))


def _declared_scripts(path: str, content: bytes | None) -> list[EntryPoint]:
    try:
        document = tomllib.loads((content or b"").decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError):
        return []
    project = document.get("project")
    if not isinstance(project, dict):
        return []
    found = []
    for table in ("scripts", "gui-scripts"):
        scripts = project.get(table)
        for name, target in scripts.items() if isinstance(scripts, dict) else ():
            if isinstance(target, str):
                line = _line_of(content or b"", name, target)
                found.append(EntryPoint(kind="script", name=name, path=path, line=line, target=target))
    return found


def _line_of(content: bytes, name: str, target: str) -> int:
    for number, text in enumerate(content.decode("utf-8").splitlines(), start=1):
        if name in text and target in text:
            return number
    return 1


def _main_guard_line(content: bytes) -> int | None:
    tree = parse_bytes(content)
    if isinstance(tree, ParseProblem):
        return None
    for node in tree.body:
        if isinstance(node, ast.If) and _compares_name_with_main(node.test):
            return node.lineno
    return None


def _compares_name_with_main(test: ast.expr) -> bool:
    if not isinstance(test, ast.Compare) or len(test.ops) != 1 or not isinstance(test.ops[0], ast.Eq):
        return False
    sides = [test.left, *test.comparators]
    return any(isinstance(side, ast.Name) and side.id == "__name__" for side in sides) and any(
        isinstance(side, ast.Constant) and side.value == "__main__" for side in sides
    )
