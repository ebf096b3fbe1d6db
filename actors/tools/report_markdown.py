"""report.md: the report for a terminal, a pull request or a model to read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from actors.tools.findings import SEVERITIES
from actors.tools.limits import MARKDOWN_FINDINGS_MAX
from actors.tools.report import Report

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~])")


def render_markdown(report: Report) -> str:
    """The whole report in Markdown; findings beyond `MARKDOWN_FINDINGS_MAX` are counted and left to report.json."""
    parts = [
        *_headline(report),
        *_since(report),
        *_explanation(report),
        *_findings(report),
        *_hot_spots(report),
        *_architecture(report),
        *_inventory(report),
        *_history(report),
    ]
    return "\n".join(parts).rstrip() + "\n"


def escape(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def _headline(report: Report) -> list[str]:
    summary = report.summary
    counts = ", ".join(f"{summary.findings_by_severity[severity]:,} {severity}" for severity in SEVERITIES)
    sizes = f"{summary.files:,} files, {summary.lines:,} lines"
    python = f"{summary.python_files:,} files, {summary.python_lines:,} lines"
    cycles = f"{summary.cycles:,} ({summary.load_cycles:,} while loading)"
    lines = [
        f"# Review of {escape(summary.root)}",
        "",
        f"- {sizes}; Python: {python}",
        f"- findings: {counts}",
        f"- modules: {summary.modules:,}, imports between them: {summary.imports:,}, cycles: {cycles}",
    ]
    if summary.worst is not None:
        worst = summary.worst
        place = f"{escape(worst.name)} in {escape(worst.path)}:{worst.line}"
        lines.append(f"- worst function: {place}, complexity {worst.complexity}")
    lines += [f"- not examined: {escape(reason)}" for reason in summary.unavailable]
    return [*lines, ""]


def _since(report: Report) -> list[str]:
    since = report.run.since
    if since is None or since.review is None:
        return []
    lines = [f"## Since the last review ({escape(since.at[:10])}, {since.findings:,} findings)", ""]
    if not since.new and not since.fixed:
        return [*lines, "Nothing new, nothing fixed.", ""]
    for title, count, named in (("New", since.new, since.new_findings), ("Fixed", since.fixed, since.fixed_findings)):
        if count:
            lines += [f"{title}: {count:,}", "", *(f"- {escape(text)}" for text in named)]
            lines += [f"- and {count - len(named):,} more", ""] if count > len(named) else [""]
    return lines


def _explanation(report: Report) -> list[str]:
    said = report.run.explanation
    if said is None:
        return []
    lines = [f"## What the model {escape(said.model)} says", ""]
    if said.missing:
        return [*lines, f"{escape(said.missing)}.", ""]
    lines += [escape(said.summary), ""]
    for finding in said.findings:
        lines += [f"- {escape(finding.file)}:{finding.line} {escape(finding.rule)}: {escape(finding.why)}", ""]
        if finding.patch:
            # A fence longer than any inside, so that a patch of a Markdown file stays a patch.
            fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", finding.patch)), default=0))
            lines += [f"Proposed by the model, applied by nobody:\n\n{fence}diff\n{finding.patch}\n{fence}", ""]
    return lines


def _findings(report: Report) -> list[str]:
    lines = ["## Findings", ""]
    if not report.findings:
        return [*lines, "None.", ""]
    shown = report.findings[:MARKDOWN_FINDINGS_MAX]
    rows = [(f.severity, f"{escape(f.file)}:{f.line}", escape(f.rule), escape(f.message)) for f in shown]
    lines += _table(("Severity", "Where", "Rule", "What"), rows)
    left = len(report.findings) - len(shown)
    return [*lines, f"{left:,} more are in report.json.", ""] if left else lines


def _hot_spots(report: Report) -> list[str]:
    if not report.complexity:
        return []
    rows = [(str(b.complexity), escape(b.name), f"{escape(b.path)}:{b.line}") for b in report.complexity[:10]]
    return ["## Most complex functions", "", *_table(("Complexity", "Name", "Where"), rows)]


def _architecture(report: Report) -> list[str]:
    lines = ["## Import cycles", ""]
    if not report.cycles:
        lines += ["None.", ""]
    loading = {module for cycle in report.load_cycles for module in cycle}
    for cycle in report.cycles:
        names = ", ".join(escape(module) for module in cycle[:12])
        more = f" and {len(cycle) - 12:,} more" if len(cycle) > 12 else ""
        when = "while loading" if loading.intersection(cycle) else "only in functions or for type checkers"
        lines.append(f"- {len(cycle)} modules, {when}: {names}{more}")
    return [*lines, ""] if report.cycles else lines


def _inventory(report: Report) -> list[str]:
    rows = [(escape(t.language), f"{t.files:,}", f"{t.lines:,}") for t in report.languages]
    lines = ["## Languages", "", *_table(("Language", "Files", "Lines"), rows)]
    if report.entry_points:
        lines += ["## Entry points", ""]
        lines += [
            f"- {escape(e.name)} ({e.kind}) {escape(e.path)}:{e.line}" + (f" starts {escape(e.target)}" if e.target else "")
            for e in report.entry_points
        ]
        lines.append("")
    return lines


def _history(report: Report) -> list[str]:
    history = report.history
    if history is None:
        return []
    rows = [(escape(f.path), str(f.commits), f"+{f.added:,} / -{f.deleted:,}") for f in history.most_changed[:10]]
    count = f"{history.commits:,} commits, the last on {history.last_commit_date[:10]}"
    return [
        "## History",
        "",
        f"{count}; in the newest {history.commits_examined:,}: {history.authors:,} authors.",
        "",
        *_table(("Most changed", "Commits", "Lines"), rows),
    ]
