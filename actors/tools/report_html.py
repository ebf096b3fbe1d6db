"""report.html: one file that opens offline, in light and dark, on a desk and on a phone, with or without JavaScript.

Everything from the examined code is escaped. The Content-Security-Policy allows nothing but the style and the script of
this file, by their hashes, so that not even a mistake in the escaping could run something.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from html import escape

from actors.tools.entry_points import EntryPoint
from actors.tools.findings import SEVERITIES, Finding
from actors.tools.import_diagram import import_diagram, import_diagram_svg
from actors.tools.imports import ImportGraph
from actors.tools.limits import HTML_FILES_MAX, HTML_FINDINGS_MAX, HTML_HOT_SPOTS_MAX
from actors.tools.report import Report
from actors.tools.report_html_assets import SCRIPT, STYLE

_QUOTED = re.compile(r"`([^`]+)`")

_OPEN_ROWS_MAX = 150
"""Findings in files that start unfolded: more would hide the rest of the page behind a long scroll."""

_HOT_COMPLEXITY = 20
"""From here radon ranks a block D or worse ("more than moderate risk")."""

_CYCLE_NAMES_MAX = 24


def render_html(report: Report) -> str:
    """The whole page. Findings beyond `HTML_FINDINGS_MAX` and files beyond `HTML_FILES_MAX` are counted, not listed."""
    parts = [
        _head(report),
        "<body><main>",
        _header(report),
        _tiles(report),
        _since(report),
        _explanation(report),
        _severity(report),
        _findings(report),
        '<div class="two">',
        _hot_spots(report),
        _languages(report),
        "</div>",
        _architecture(report),
        _history(report),
        _files(report),
        _footer(report),
        f"</main><script>{SCRIPT}</script></body></html>\n",
    ]
    return "\n".join(part for part in parts if part)


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def _head(report: Report) -> str:
    policy = f"default-src 'none'; style-src {_hash(STYLE)}; script-src {_hash(SCRIPT)}; img-src data:; base-uri 'none'; form-action 'none'"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer"><link rel="icon" href="data:,">'
        f"<title>Review of {escape(report.summary.root)}</title><style>{STYLE}</style></head>"
    )


def _header(report: Report) -> str:
    when = f" on {escape(report.run.started_at[:10])}" if report.run.started_at else ""
    notes = "".join(f'<p class="small soft">Not examined: {escape(why)}</p>' for why in report.summary.unavailable)
    return f'<header><h1>Review of {escape(report.summary.root)}</h1><p class="soft">By Cuebook{when}</p>{notes}</header>'


def _tile(number: str, label: str, kind: str = "") -> str:
    return f'<div class="tile"><b{f" class={kind}" if kind else ""}>{number}</b><span>{escape(label)}</span></div>'


def _tiles(report: Report) -> str:
    summary = report.summary
    high = summary.findings_by_severity["high"]
    worst = f"{summary.worst.complexity}" if summary.worst else "–"
    tiles = [
        _tile(f"{summary.files:,}", "files"),
        _tile(f"{summary.lines:,}", "lines"),
        _tile(f"{summary.python_lines:,}", "of them Python"),
        _tile(f"{summary.modules:,}", "modules"),
        _tile(f"{summary.findings:,}", "findings"),
        _tile(f"{high:,}", "of high severity", "sev-high" if high else ""),
        _tile(f"{summary.cycles:,}", "import cycles", "sev-medium" if summary.load_cycles else ""),
        _tile(worst, "highest complexity", "sev-medium" if _is_hot(report) else ""),
    ]
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _is_hot(report: Report) -> bool:
    return report.summary.worst is not None and report.summary.worst.complexity > _HOT_COMPLEXITY


def _since(report: Report) -> str:
    since = report.run.since
    if since is None or since.review is None:
        return ""
    blocks = []
    for title, count, named in (("New", since.new, since.new_findings), ("Fixed", since.fixed, since.fixed_findings)):
        items = "".join(f"<li class='small'>{_message(text)}</li>" for text in named)
        more = f"<li class='small soft'>and {count - len(named):,} more</li>" if count > len(named) else ""
        empty = '<p class="empty">None.</p>' if not count else f'<ul class="plain">{items}{more}</ul>'
        blocks.append(f"<div><h3>{title}: {count:,}</h3>{empty}</div>")
    when = f"{escape(since.at[:10])}, {since.findings:,} findings"
    title = f'Since the last review <span class="small soft">({when})</span>'
    return f'<section><h2>{title}</h2><div class="two">{"".join(blocks)}</div></section>'


def _explanation(report: Report) -> str:
    said = report.run.explanation
    if said is None:
        return ""
    title = f"<h2>What the model {escape(said.model)} says</h2>"
    if said.missing:
        return f'<section>{title}<p class="empty">{escape(said.missing)}.</p></section>'
    items = []
    for finding in said.findings:
        place = f"<code>{escape(finding.file)}:{finding.line}</code> {escape(finding.rule)}"
        proposed = "<p class='small soft'>Proposed by the model, applied by nobody:</p>"
        patch = f"{proposed}<pre>{escape(finding.patch)}</pre>" if finding.patch else ""
        items.append(f"<li>{place}<br>{escape(finding.why)}{patch}</li>")
    return f'<section>{title}<p>{escape(said.summary)}</p><ul class="plain">{"".join(items)}</ul></section>'


def _severity(report: Report) -> str:
    total = report.summary.findings
    if not total:
        return ""
    counts = report.summary.findings_by_severity
    bars, start = [], 0.0
    for severity in SEVERITIES:
        share = 100 * counts[severity] / total
        bars.append(f'<rect class="fill-{severity}" x="{start:.2f}%" width="{share:.2f}%" height="14"/>')
        start += share
    legend = "".join(f'<span><span class="chip {severity}">{severity}</span> {counts[severity]:,}</span>' for severity in SEVERITIES)
    by_rule: dict[str, list[Finding]] = {}
    for finding in report.findings:
        by_rule.setdefault(finding.rule, []).append(finding)
    top = sorted(by_rule.items(), key=lambda item: (-len(item[1]), item[0]))[:8]
    rows = [
        (f"<code>{escape(rule)}</code> <span class='soft small'>{_message(found[0].message)}</span>", len(found), False)
        for rule, found in top
    ]
    label = ", ".join(f"{counts[severity]} {severity}" for severity in SEVERITIES)
    return (
        "<section><h2>Findings by severity</h2>"
        f'<svg class="stack" role="img" aria-label="{label}">{"".join(bars)}</svg>'
        f'<div class="legend">{legend}</div><h3>Most frequent rules, with an example</h3>{_bars(rows)}</section>'
    )


def _bars(rows: Sequence[tuple[str, int, bool]]) -> str:
    """Rows of ready HTML, a number, and whether it is bad."""
    most = max((number for _, number, _ in rows), default=1) or 1
    lines = [
        f'<div class="bar-row"><span>{label}</span><span class="n">{number:,}</span><svg aria-hidden="true">'
        f'<rect class="track" width="100%" height="7" rx="3.5"/>'
        f'<rect class="bar{" hot" if hot else ""}" width="{max(0.6, 100 * number / most):.2f}%" height="7" rx="3.5"/>'
        "</svg></div>"
        for label, number, hot in rows
    ]
    return f'<div class="bars">{"".join(lines)}</div>'


def _findings(report: Report) -> str:
    if not report.findings:
        return '<section><h2>Findings</h2><p class="empty">None.</p></section>'
    shown = report.findings[:HTML_FINDINGS_MAX]
    by_file: dict[str, list[Finding]] = {}
    for finding in shown:
        by_file.setdefault(finding.file, []).append(finding)
    boxes = "".join(
        f'<label><input type="checkbox" value="{severity}" checked><span class="chip {severity}">{severity}</span></label>'
        for severity in SEVERITIES
    )
    filters = (
        '<div class="filters" hidden>'
        '<input type="search" placeholder="Filter by file, rule or words" aria-label="Filter findings">'
        f'{boxes}<output class="soft small"></output></div>'
    )
    groups, open_rows = [], 0
    for path, findings in by_file.items():
        open_rows += len(findings)
        groups.append(_file_group(path, findings, is_open=open_rows <= _OPEN_ROWS_MAX))
    left = len(report.findings) - len(shown)
    more = f'<p class="soft small">{left:,} more are in report.json.</p>' if left else ""
    return f"<section><h2>Findings, worst first</h2>{filters}{''.join(groups)}{more}</section>"


def _file_group(path: str, findings: Sequence[Finding], *, is_open: bool) -> str:
    chips = "".join(
        f'<span class="chip {severity}">{count:,}</span> '
        for severity in SEVERITIES
        if (count := sum(finding.severity == severity for finding in findings))
    )
    rows = "".join(
        f'<tr data-s="{f.severity}"><td><span class="chip {f.severity}">{f.severity}</span></td>'
        f'<td class="mono">:{f.line}</td>'
        f'<td><code title="{escape(f.tool)}">{escape(f.rule)}</code></td><td>{_message(f.message)}</td></tr>'
        for f in findings
    )
    return (
        f'<details class="file" data-path="{escape(path)}"{" open" if is_open else ""}><summary><span class="mono">'
        f'{escape(path)}</span>{chips}</summary><table class="f"><tbody>{rows}</tbody></table></details>'
    )


def _message(text: str) -> str:
    """Tools quote code in backticks; an unpaired one stays as it is."""
    return _QUOTED.sub(r"<code>\1</code>", escape(text))


def _hot_spots(report: Report) -> str:
    rows = [
        (
            f"<code>{escape(b.name)}</code><br><span class='soft small'>{escape(b.path)}:{b.line}</span>",
            b.complexity,
            b.complexity > _HOT_COMPLEXITY,
        )
        for b in report.complexity[:HTML_HOT_SPOTS_MAX]
    ]
    body = _bars(rows) if rows else '<p class="empty">No functions.</p>'
    return (
        '<section><h2>Most complex functions</h2><p class="small soft">Cyclomatic complexity as radon counts it; above '
        f"{_HOT_COMPLEXITY} is hard to test.</p>{body}</section>"
    )


def _languages(report: Report) -> str:
    counted = [total for total in report.languages if total.lines]
    rows = [(f"{escape(t.language)} <span class='soft small'>{t.files:,} files</span>", t.lines, False) for t in counted[:12]]
    left = report.languages[12:] if len(counted) > 12 else [t for t in report.languages if not t.lines]
    more = ", ".join(f"{escape(t.language)} {t.files:,}" for t in left)
    tail = f'<p class="small soft">Also: {more} (files).</p>' if more else ""
    entries = "".join(
        f"<li><code>{escape(e.name)}</code> <span class='soft small'>{_entry_note(e)}</span></li>" for e in report.entry_points[:20]
    )
    rest = len(report.entry_points) - 20
    if rest > 0:
        entries += f"<li class='soft small'>and {rest:,} more</li>"
    starts = f'<h3>Entry points</h3><ul class="plain">{entries}</ul>' if entries else ""
    return f"<section><h2>Languages, by lines</h2>{_bars(rows)}{tail}{starts}</section>"


def _entry_note(entry: EntryPoint) -> str:
    if entry.kind == "script":
        return f"command, starts {escape(entry.target)}"
    return "run with python -m" if entry.kind == "main-module" else f"runs itself, line {entry.line}"


def _architecture(report: Report) -> str:
    graph = ImportGraph(
        modules=report.modules,
        imports=report.imports,
        cycles=report.cycles,
        load_cycles=report.load_cycles,
        layers=report.layers,
        imported_names={},
    )
    diagram = import_diagram(graph)
    if not diagram.nodes:
        return ""
    note = f"Names are below <code>{escape(diagram.prefix)}</code>. " if diagram.prefix else ""
    note += "Not every module has a row of its own. " if diagram.grouped else ""
    key = (
        '<div class="key"><span>from top to bottom: who uses whom</span>'
        '<span class="sev-high">red: part of a cycle, arcs that point upwards</span></div>'
    )
    return (
        '<section><h2>Architecture</h2><div class="two"><div>'
        f'<p class="small soft">{note}{len(report.modules):,} modules in {len(report.layers):,} layers, '
        f"{len(report.imports):,} imports.</p>{import_diagram_svg(graph)}{key}</div>"
        f"<div><h3>Import cycles</h3>{_cycles(report)}</div></div></section>"
    )


def _cycles(report: Report) -> str:
    if not report.cycles:
        return '<p class="empty">None: every module can be loaded by itself.</p>'
    loading = {module for cycle in report.load_cycles for module in cycle}
    blocks = []
    for cycle in sorted(report.cycles, key=lambda names: (-len(names), names)):
        inside = loading.intersection(cycle)
        chip = (
            f'<span class="chip medium">{len(inside):,} while loading</span>'
            if inside
            else '<span class="chip low">deferred or typing</span>'
        )
        shown = sorted(cycle, key=lambda name: (name not in inside, name))
        names = ", ".join(f"<code>{escape(name)}</code>" for name in shown[:_CYCLE_NAMES_MAX])
        rest = len(cycle) - _CYCLE_NAMES_MAX
        names += f" and {rest:,} more" if rest > 0 else ""
        blocks.append(f'<div class="cycle"><p><b>{len(cycle):,} modules</b> {chip}</p><p class="small">{names}</p></div>')
    return "".join(blocks)


def _history(report: Report) -> str:
    history = report.history
    if history is None:
        return ""
    rows = [
        (f"<code>{escape(f.path)}</code> <span class='soft small'>+{f.added:,} −{f.deleted:,}</span>", f.commits, False)
        for f in history.most_changed[:10]
    ]
    return (
        f'<section><h2>History</h2><p class="soft">{history.commits:,} commits, the last on '
        f"{escape(history.last_commit_date[:10])}. "
        f"In the newest {history.commits_examined:,}: {history.authors:,} authors.</p>"
        f"<h3>Changed most often (commits)</h3>{_bars(rows)}</section>"
    )


def _files(report: Report) -> str:
    counts: dict[str, int] = {}
    for finding in report.findings:
        counts[finding.file] = counts.get(finding.file, 0) + 1
    shown = report.files
    if len(shown) > HTML_FILES_MAX:
        largest = sorted(report.files, key=lambda file: (-file.lines, file.path))[:HTML_FILES_MAX]
        shown = sorted(largest, key=lambda file: file.path)
    rows = (
        f'<tr><td class="mono">{escape(f.path)}</td><td>{escape(f.language)}</td><td class="n">{f.lines:,}</td>'
        f'<td class="n">{counts.get(f.path, "")}</td></tr>'
        for f in shown
    )
    head = '<tr><th>File</th><th>Language</th><th class="n">Lines</th><th class="n">Findings</th></tr>'
    left = len(report.files) - len(shown)
    more = f'<p class="soft small">The {left:,} shortest files are only in report.json.</p>' if left else ""
    return (
        f"<section><details><summary>All {len(report.files):,} files{_skipped(report)}</summary>"
        f"<table><thead>{head}</thead>"
        f"<tbody>{_join(rows)}</tbody></table>{more}</details></section>"
    )


def _skipped(report: Report) -> str:
    skipped = report.skipped
    notes = [
        (skipped.symbolic_links, "symbolic links"),
        (skipped.special_files, "special files"),
        (skipped.unreadable, "unreadable"),
        (len(skipped.virtual_environments), "virtual environments"),
    ]
    text = ", ".join(f"{count:,} {name}" for count, name in notes if count)
    return f' <span class="soft small">(left out: {text})</span>' if text else ""


def _footer(report: Report) -> str:
    tools = ", ".join(f"{escape(name)}: {escape(version)}" for name, version in report.tools.items())
    run = report.run
    reuse = (
        f" {run.results_reused:,} of {run.results_reused + run.results_computed:,} results were taken from the log."
        if run.results_reused
        else ""
    )
    took = f" Took {run.duration_s:.1f} s." if run.duration_s else ""
    return f"<footer><p>{tools}.{took}{reuse} The code was read, not run.</p></footer>" if tools else "<footer></footer>"


def _join(parts: Iterable[str]) -> str:
    return "".join(parts)
