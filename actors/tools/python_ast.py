"""Bytes of a Python file to its syntax tree, by the standard parser and for any input whatsoever.

Nothing here imports or runs what it reads. A file that cannot be parsed is a finding, never an exception.
"""

from __future__ import annotations

import ast
import threading
import warnings
from pathlib import Path

import msgspec

from actors.tools.findings import SYNTAX_ERROR, UNPARSED_FILE, Finding, make_finding
from actors.tools.limits import FILE_BYTES_MAX
from actors.tools.workspace import read_file

# `warnings.catch_warnings` swaps a process-wide list; two threads inside it would restore each other's.
_WARNINGS_LOCK = threading.Lock()


class ParseProblem(msgspec.Struct, frozen=True, kw_only=True):
    """Why a file has no tree; `rule` is `syntax-error` or, for what is no fault of the author, `unparsed-file`."""

    rule: str
    line: int
    message: str


def parse_bytes(content: bytes) -> ast.Module | ParseProblem:
    """The tree of one module, honouring a byte order mark and an encoding declaration as the interpreter does."""
    if b"\0" in content:
        line = content[: content.index(b"\0")].count(b"\n") + 1
        return ParseProblem(rule=SYNTAX_ERROR, line=line, message="NUL byte in source code")
    try:
        with _WARNINGS_LOCK, warnings.catch_warnings():
            # An invalid escape warns, and under `-W error` would be taken for a syntax error.
            warnings.simplefilter("ignore")
            return ast.parse(content)
    except SyntaxError as error:
        return ParseProblem(rule=SYNTAX_ERROR, line=error.lineno or 1, message=error.msg or "invalid syntax")
    except (ValueError, LookupError) as error:
        return ParseProblem(rule=SYNTAX_ERROR, line=1, message=str(error) or "source cannot be decoded")
    except (RecursionError, MemoryError):
        return ParseProblem(rule=UNPARSED_FILE, line=1, message="nested too deeply to be parsed")


def parse_file(root: Path, path: str, *, sha256: str | None = None) -> ast.Module | ParseProblem:
    """As `parse_bytes`, for one file below `root`.

    Raises:
        FileChangedError: the content no longer has the digest `sha256`.
        WorkspaceError: `path` is not a regular file below `root`.
    """
    content = read_file(root, path, sha256=sha256)
    if content is None:
        size = FILE_BYTES_MAX // (1024 * 1024)
        return ParseProblem(rule=UNPARSED_FILE, line=1, message=f"larger than {size} MiB, not examined")
    return parse_bytes(content)


def syntax_findings(root: Path, path: str, *, sha256: str | None = None) -> list[Finding]:
    """At most one finding: the file does not parse."""
    parsed = parse_file(root, path, sha256=sha256)
    return [problem_finding(path, parsed)] if isinstance(parsed, ParseProblem) else []


def problem_finding(path: str, problem: ParseProblem) -> Finding:
    """The finding that says why `path` has no tree."""
    return make_finding(
        rule=problem.rule,
        tool="ast",
        severity="high" if problem.rule == SYNTAX_ERROR else "low",
        file=path,
        line=problem.line,
        message=problem.message,
    )
