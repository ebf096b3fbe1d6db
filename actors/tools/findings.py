"""What an analyser has to say about a line, and how many such statements become one ranked list."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from actors.tools.limits import MESSAGE_CHARS_MAX

Severity = Literal["high", "medium", "low"]

SEVERITIES: tuple[Severity, ...] = ("high", "medium", "low")
"""Worst first."""

SYNTAX_ERROR = "syntax-error"
NEWER_SYNTAX = "newer-syntax"
UNPARSED_FILE = "unparsed-file"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One statement about one line of one file; `line` starts at 1, `file` is relative to the examined folder."""

    rule: str
    tool: str
    severity: Severity
    file: str
    line: int
    message: str


def make_finding(*, rule: str, tool: str, severity: Severity, file: str, line: int, message: str) -> Finding:
    """A finding with its line and message within bounds: tools report line 0 and quote whole lines."""
    text = " ".join(message.split())
    if len(text) > MESSAGE_CHARS_MAX:
        text = text[: MESSAGE_CHARS_MAX - 1] + "…"
    return Finding(rule=rule, tool=tool, severity=severity, file=file, line=max(1, line), message=text)


def merge_findings(findings: Iterable[Finding], *, imported_names: Mapping[str, Iterable[str]] | None = None) -> list[Finding]:
    """All findings once, without those that the code base as a whole refutes. The order is by path, line and rule.

    Args:
        imported_names: names that other files import from a file, by its path. An import which looks unused inside its
            file is a re-export when its name is here.

    The parser of the running Python and ruff's parser, which knows newer grammars, check each other: both refuse a
    file, then it has one `syntax-error`; only ours does, then the file is written for a newer Python (`newer-syntax`,
    low).
    """
    everything = list(findings)
    exported = {path: frozenset(names) for path, names in (imported_names or {}).items()}
    refused_by_ruff = {finding.file for finding in everything if finding.tool == "ruff" and finding.rule == SYNTAX_ERROR}
    refused_by_ast = {finding.file for finding in everything if finding.tool == "ast" and finding.rule == SYNTAX_ERROR}
    chosen: dict[tuple[str, int, str], Finding] = {}
    for finding in everything:
        current = finding
        if finding.rule == SYNTAX_ERROR and finding.tool == "ruff" and finding.file in refused_by_ast:
            continue
        if finding.rule == SYNTAX_ERROR and finding.tool == "ast" and finding.file not in refused_by_ruff:
            current = _written_for_newer_python(finding)
        if finding.rule == "F401" and _imported_name(finding.message) in exported.get(finding.file, frozenset()):
            continue
        key = (current.file, current.line, current.rule + "\0" + current.message)
        kept = chosen.get(key)
        if kept is None or _badness(current) < _badness(kept):
            chosen[key] = current
    return sorted(chosen.values(), key=lambda f: (f.file, f.line, f.rule, f.tool, f.message))


def rank_findings(findings: Iterable[Finding], *, weights: Mapping[str, int] | None = None) -> list[Finding]:
    """Worst first: severity, then the weight of the file, then path, line, rule and message.

    Args:
        weights: how much of the code base rests on a file (see `file_weights`); a missing file weighs 0.
    """
    heavy = weights or {}
    return sorted(
        findings,
        key=lambda f: (SEVERITIES.index(f.severity), -heavy.get(f.file, 0), f.file, f.line, f.rule, f.tool, f.message),
    )


def file_weights(*, fan_in: Mapping[str, int], highest_complexity: Mapping[str, int]) -> dict[str, int]:
    """Importers of a file plus its worst complexity in tens: what many use or few can read comes first."""
    return {path: fan_in.get(path, 0) + highest_complexity.get(path, 0) // 10 for path in sorted({*fan_in, *highest_complexity})}


def count_by_severity(findings: Iterable[Finding]) -> dict[str, int]:
    """How many findings of each severity, all three present, worst first."""
    counts: dict[str, int] = dict.fromkeys(SEVERITIES, 0)
    for finding in findings:
        counts[finding.severity] += 1
    return counts


def _badness(finding: Finding) -> tuple[int, str]:
    return SEVERITIES.index(finding.severity), finding.tool


def _written_for_newer_python(finding: Finding) -> Finding:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return make_finding(
        rule=NEWER_SYNTAX,
        tool=finding.tool,
        severity="low",
        file=finding.file,
        line=finding.line,
        message=f"Needs a newer Python than {version} to be examined fully: {finding.message}",
    )


def _imported_name(message: str) -> str:
    """The local name in ruff's F401 message, which quotes `a.b.c` or `a.b as c`."""
    quoted = message.partition("`")[2].partition("`")[0]
    return quoted.rpartition(" as ")[2] if " as " in quoted else quoted.rpartition(".")[2]
