"""Findings of ruff with a fixed set of rules, whatever the examined code base configures.

Ruff runs as a child process: `--isolated` ignores configuration files, so nothing in the code base chooses what is run.
The authors' `# noqa` and `# nosec` comments are honoured: they are answers given before the question.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path, PurePosixPath

import msgspec

from actors.tools.errors import AnalyserMissingError, AnalysisError
from actors.tools.findings import SYNTAX_ERROR, Finding, Severity, make_finding
from actors.tools.limits import LINT_ARGUMENT_BYTES_MAX, LINT_TIMEOUT_S
from actors.tools.lint_checks import reconsider
from actors.tools.lint_rules import NOT_IN_TESTS, SELECTED_RULES, SEVERITY_BY_RULE, rules_digest
from actors.tools.python_ast import ParseProblem, parse_bytes
from actors.tools.workspace import file_below, read_file

_GRAMMAR = "py314"
"""The newest grammar ruff knows in every version we allow: an older target calls new syntax an error."""


class _Location(msgspec.Struct, frozen=True):
    row: int


class _Diagnostic(msgspec.Struct, frozen=True):
    """The fields of ruff's JSON that we read; `code` is null for a syntax error in some versions."""

    filename: str
    message: str
    location: _Location | None = None
    code: str | None = None


@cache
def ruff_command() -> tuple[str, ...]:
    """How to start ruff: its binary beside this interpreter, else the module.

    Raises:
        AnalyserMissingError: ruff is not installed.
    """
    try:
        from ruff.__main__ import find_ruff_bin  # type: ignore[import-untyped,unused-ignore]
    except ImportError as error:
        raise AnalyserMissingError("ruff", "not installed") from error
    try:
        return (os.fsdecode(find_ruff_bin()),)
    except FileNotFoundError:
        # Without -P the folder under examination would be first on the search path, and its modules would run.
        return (sys.executable, "-P", "-m", "ruff")


@cache
def lint_version() -> str:
    """Changes when the same file may get other findings: ruff's version and a digest of our rules."""
    answer = _run_ruff(["version"], None).decode("utf-8", "replace").split()
    version = answer[1] if len(answer) > 1 else "unknown"
    return f"ruff {version} rules {rules_digest()}"


def lint_files(root: Path, paths: Sequence[str]) -> dict[str, list[Finding]]:
    """Findings of each given file by line; a file with none has an empty list.

    One process serves the whole batch (several only when the paths do not fit one command line).

    Args:
        root: as `resolve_root` gives it.
        paths: inventory paths of Python files.

    Raises:
        AnalyserMissingError: ruff is absent, ran longer than `LINT_TIMEOUT_S`, or gave no readable answer.
        WorkspaceError: a path leaves the root.
    """
    found: dict[str, list[Finding]] = {path: [] for path in paths}
    for batch in _batches([path for path in found if file_below(root, path).is_file()]):
        for diagnostic in _diagnose(root, batch):
            path = _relative(root, diagnostic.filename)
            finding = _finding(path, diagnostic)
            if finding is not None and path in found:
                found[path].append(finding)
    return {path: _ordered(_second_look(root, path, findings)) for path, findings in sorted(found.items())}


def is_test_file(path: str) -> bool:
    """True for files that only a test runner loads, by the names pytest and unittest look for."""
    pure = PurePosixPath(path)
    return (
        any(part in ("tests", "test") for part in pure.parts[:-1])
        or pure.name.startswith("test_")
        or pure.name.endswith("_test.py")
        or pure.name == "conftest.py"
    )


def _diagnose(root: Path, paths: list[str]) -> list[_Diagnostic]:
    arguments = [
        "check",
        "--isolated",
        "--no-cache",
        "--quiet",
        "--exit-zero",
        "--output-format=json",
        f"--target-version={_GRAMMAR}",
        f"--select={SELECTED_RULES}",
        "--",
        *paths,
    ]
    try:
        return msgspec.json.decode(_run_ruff(arguments, root), type=list[_Diagnostic])
    except msgspec.DecodeError as error:
        raise AnalyserMissingError("ruff", "its answer is not the JSON we know") from error


def _run_ruff(arguments: list[str], root: Path | None) -> bytes:
    environment = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "TMPDIR") if name in os.environ}
    try:
        done = subprocess.run(
            [*ruff_command(), *arguments],
            cwd=root,
            env={**environment, "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LINT_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise AnalyserMissingError("ruff", f"no answer within {LINT_TIMEOUT_S:.0f} s") from error
    except OSError as error:
        raise AnalyserMissingError("ruff", f"does not start: {error}") from error
    if done.returncode != 0:
        reason = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise AnalyserMissingError("ruff", reason[-1] if reason else f"exit code {done.returncode}")
    return done.stdout


def _batches(paths: list[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    used = 0
    for path in paths:
        cost = len(os.fsencode(path)) + 1
        if batch and used + cost > LINT_ARGUMENT_BYTES_MAX:
            yield batch
            batch, used = [], 0
        batch.append(path)
        used += cost
    if batch:
        yield batch


def _relative(root: Path, filename: str) -> str:
    place = PurePosixPath(filename)
    base = PurePosixPath(root.as_posix())
    return str(place.relative_to(base)) if place.is_relative_to(base) else str(place)


def _finding(path: str, diagnostic: _Diagnostic) -> Finding | None:
    code = diagnostic.code
    line = diagnostic.location.row if diagnostic.location else 1
    if code is None or code in ("invalid-syntax", "E999"):
        message = diagnostic.message.removeprefix("SyntaxError: ")
        return make_finding(rule=SYNTAX_ERROR, tool="ruff", severity="high", file=path, line=line, message=message)
    severity = SEVERITY_BY_RULE.get(code)
    if severity is None:
        return None
    if is_test_file(path) and code.startswith(NOT_IN_TESTS):
        return None
    if code == "F401" and (PurePosixPath(path).name == "__init__.py" or "importlib.util.find_spec" in diagnostic.message):
        # An import in an __init__ is its interface, and one inside try/except asks whether the module is there.
        return None
    return make_finding(
        rule=code,
        tool="ruff",
        severity=_severity(severity, diagnostic.message),
        file=path,
        line=line,
        message=diagnostic.message,
    )


def _severity(severity: Severity, message: str) -> Severity:
    """S602 and S605 say themselves when the command is a constant."""
    return "low" if "seems safe" in message else severity


def _second_look(root: Path, path: str, findings: list[Finding]) -> list[Finding]:
    """Drop what the file itself answers: `# nosec`, and the checks of `lint_checks`."""
    if not findings:
        return findings
    try:
        content = read_file(root, path)
    except AnalysisError:
        return findings
    if content is None:
        return findings
    marked = {number for number, text in enumerate(content.splitlines(), start=1) if b"nosec" in text}
    open_ones = [finding for finding in findings if finding.line not in marked or not finding.rule.startswith("S")]
    tree = parse_bytes(content)
    return open_ones if isinstance(tree, ParseProblem) else reconsider(open_ones, tree, content)


def _ordered(findings: list[Finding]) -> list[Finding]:
    """By line; of several syntax errors only the first, since one stray bracket makes many."""
    ordered = sorted(findings, key=lambda f: (f.line, f.rule, f.message))
    first_error = next((finding for finding in ordered if finding.rule == SYNTAX_ERROR), None)
    return [finding for finding in ordered if finding.rule != SYNTAX_ERROR or finding is first_error]
