"""The result of a review as one value, the content of report.json.

Everything in it but `run` is decided by the examined files and the versions of the tools: two runs over the same folder
differ in `run` only. Renderers live beside this file and read nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from actors.tools.complexity import ComplexBlock
from actors.tools.entry_points import EntryPoint
from actors.tools.findings import Finding, count_by_severity, file_weights, merge_findings, rank_findings
from actors.tools.history import History
from actors.tools.imports import ImportEdge, ImportGraph, fan_in
from actors.tools.module_names import Module
from actors.tools.workspace import Inventory, LanguageTotal, Skipped

REPORT_FORMAT = 1


class ReportFile(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    language: str
    lines: int


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Headline numbers. `worst` is the most complex block; None when there is no function at all."""

    root: str
    files: int
    lines: int
    python_files: int
    python_lines: int
    modules: int
    imports: int
    cycles: int
    load_cycles: int
    findings: int
    findings_by_severity: dict[str, int]
    worst: ComplexBlock | None
    unavailable: list[str]


class Since(msgspec.Struct, frozen=True, kw_only=True):
    """What is different from the last review. review: that one, None = this is the first; at: when it was (UTC, ISO 8601); findings: how
    many it had. new_findings, fixed_findings: the worst of them, as text. missing: why nothing could be compared."""

    review: str | None = None
    at: str = ""
    findings: int = 0
    new: int = 0
    fixed: int = 0
    new_findings: list[str] = []
    fixed_findings: list[str] = []
    missing: str = ""


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """What a model says of one finding. patch: a unified diff that it proposes, applied by nobody; may be empty."""

    file: str
    line: int
    rule: str
    why: str
    patch: str = ""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What a model says of the review. missing: why it says nothing."""

    model: str
    summary: str = ""
    findings: list[Explained] = []
    missing: str = ""


class RunInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between two runs over the same files: times (UTC, ISO 8601), the use of the journal, what was found before, and what a
    model says, where one is asked."""

    started_at: str = ""
    finished_at: str = ""
    duration_s: float = 0.0
    results_reused: int = 0
    results_computed: int = 0
    cuebook_version: str = ""
    since: Since | None = None
    explanation: Explanation | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """report.json; the fields up to `findings` are the contract, those after it may grow."""

    format: int
    files: list[ReportFile]
    modules: list[Module]
    imports: list[ImportEdge]
    cycles: list[list[str]]
    complexity: list[ComplexBlock]
    findings: list[Finding]
    summary: Summary
    languages: list[LanguageTotal]
    entry_points: list[EntryPoint]
    layers: list[list[str]]
    load_cycles: list[list[str]]
    skipped: Skipped
    history: History | None
    tools: dict[str, str]
    run: RunInfo


def build_report(
    *,
    inventory: Inventory,
    graph: ImportGraph,
    complexity: Sequence[ComplexBlock],
    findings: Sequence[Finding],
    entry_points: Sequence[EntryPoint] = (),
    history: History | None = None,
    tools: dict[str, str] | None = None,
    unavailable: Sequence[str] = (),
    run: RunInfo | None = None,
) -> Report:
    """Merge, rank and count what the analysers found.

    Args:
        findings: of all tools, unmerged, in any order.
        tools: version of each analyser, by its name.
        unavailable: one sentence for each part of the review that could not be done.
        run: times and reuse; left empty when unknown.
    """
    blocks = sorted(complexity, key=lambda b: (-b.complexity, b.path, b.line, b.name))
    highest: dict[str, int] = {}
    for block in blocks:
        highest.setdefault(block.path, block.complexity)
    weights = file_weights(fan_in=fan_in(graph), highest_complexity=highest)
    ranked = rank_findings(merge_findings(findings, imported_names=graph.imported_names), weights=weights)
    python = [total for total in inventory.languages if total.language == "Python"]
    summary = Summary(
        root=inventory.root_name,
        files=len(inventory.files),
        lines=sum(file.lines for file in inventory.files),
        python_files=sum(total.files for total in python),
        python_lines=sum(total.lines for total in python),
        modules=len(graph.modules),
        imports=len(graph.imports),
        cycles=len(graph.cycles),
        load_cycles=len(graph.load_cycles),
        findings=len(ranked),
        findings_by_severity=count_by_severity(ranked),
        worst=blocks[0] if blocks else None,
        unavailable=sorted(unavailable),
    )
    return Report(
        format=REPORT_FORMAT,
        files=[ReportFile(path=f.path, language=f.language, lines=f.lines) for f in inventory.files],
        modules=graph.modules,
        imports=graph.imports,
        cycles=graph.cycles,
        complexity=blocks,
        findings=ranked,
        summary=summary,
        languages=inventory.languages,
        entry_points=list(entry_points),
        layers=graph.layers,
        load_cycles=graph.load_cycles,
        skipped=inventory.skipped,
        history=history,
        tools=dict(sorted((tools or {}).items())),
        run=run or RunInfo(),
    )
