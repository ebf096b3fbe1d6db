"""The report as JSON, Markdown and HTML: complete, equal for equal input, and harmless whatever is in it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec

from actors.tools.complexity import ComplexBlock, file_complexity
from actors.tools.entry_points import entry_points
from actors.tools.findings import Finding, make_finding
from actors.tools.imports import file_imports, import_graph
from actors.tools.report import Report, RunInfo, build_report
from actors.tools.report_html import render_html
from actors.tools.report_html_assets import STYLE
from actors.tools.report_json import read_json, render_json
from actors.tools.report_markdown import render_markdown
from actors.tools.workspace import inventory

NASTY = "<script>alert(1)</script>\"'&|`x`"


class Tags(HTMLParser):
    """Names of all tags, and all attributes that could load something."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "srcset", "action", "data")]
        self.handlers += [name for name, _ in attrs if name.startswith("on") or name == "style"]


def report_of(root: Path, findings: list[Finding] | None = None, run: RunInfo | None = None) -> Report:
    (root / "pkg").mkdir(exist_ok=True)
    (root / "pkg" / "__init__.py").write_text("from . import a\n")
    (root / "pkg" / "a.py").write_text("import pkg\ndef f(x):\n    return 1 if x else 2\nif __name__ == '__main__':\n    f(1)\n")
    (root / "pkg" / "__main__.py").write_text("from pkg.a import f\n")
    (root / "pyproject.toml").write_text('[project]\nname = "x"\n[project.scripts]\ntool = "pkg.a:f"\n')
    found = inventory(root)
    python = [file.path for file in found.files if file.language == "Python"]
    return build_report(
        inventory=found,
        graph=import_graph([file_imports(root, path) for path in python]),
        complexity=[block for path in python for block in file_complexity(root, path)],
        findings=findings or [],
        entry_points=entry_points(root, found.files),
        tools={"lint": "ruff 1"},
        unavailable=["no git"],
        run=run,
    )


def nasty(count: int = 1) -> list[Finding]:
    return [
        make_finding(rule="R<1>", tool="t", severity="high", file=f"{NASTY}/{n % 300}.py", line=n, message=NASTY)
        for n in range(1, count + 1)
    ]


def test_json_has_the_fields_of_the_contract(tmp_path: Path) -> None:
    report = msgspec.json.decode(render_json(report_of(tmp_path, nasty())))
    assert report["format"] == 1
    assert report["files"][0] == {"path": "pkg/__init__.py", "language": "Python", "lines": 1}
    assert report["modules"][1] == {"name": "pkg.__main__", "path": "pkg/__main__.py"}
    assert report["imports"][0] == {
        "from": "pkg",
        "to": "pkg.a",
        "path": "pkg/__init__.py",
        "line": 1,
        "scope": "module",
    }
    assert report["cycles"] == [["pkg", "pkg.a"]]
    assert report["complexity"] == [{"path": "pkg/a.py", "name": "f", "line": 2, "complexity": 2}]
    assert set(report["findings"][0]) == {"rule", "tool", "severity", "file", "line", "message"}
    assert str(tmp_path) not in render_json(report_of(tmp_path))


def test_two_reviews_differ_in_run_only(tmp_path: Path) -> None:
    first = report_of(tmp_path, nasty(5), RunInfo(started_at="2026-01-01T00:00:00Z", duration_s=1.5))
    second = report_of(tmp_path, nasty(5)[::-1], RunInfo(results_reused=4, results_computed=1))
    assert first != second
    assert msgspec.structs.replace(first, run=second.run) == second
    assert read_json(render_json(first)) == first


def test_entry_points_are_scripts_main_modules_and_guards(tmp_path: Path) -> None:
    found = [(entry.kind, entry.name, entry.line, entry.target) for entry in report_of(tmp_path).entry_points]
    assert found == [
        ("main-guard", "pkg/a.py", 4, ""),
        ("main-module", "pkg/__main__.py", 1, ""),
        ("script", "tool", 4, "pkg.a:f"),
    ]


def test_html_escapes_everything_and_loads_nothing(tmp_path: Path) -> None:
    report = msgspec.structs.replace(
        report_of(tmp_path, nasty()),
        complexity=[ComplexBlock(path=NASTY, name=NASTY, line=1, complexity=99)],
        cycles=[[NASTY, "b"]],
        tools={NASTY: NASTY},
    )
    page = render_html(report)
    tags = Tags()
    tags.feed(page)
    assert tags.names.count("script") == 1
    assert "<script>alert" not in page
    assert tags.links == ["data:,"]
    assert tags.handlers == []
    assert not re.search(r"https?://|@import|url\(", page)
    assert "default-src 'none'" in page


def test_html_names_every_part(tmp_path: Path) -> None:
    page = render_html(report_of(tmp_path, nasty()))
    for text in (
        "Findings by severity",
        "Most complex functions",
        "Import cycles",
        "Languages",
        "<svg",
        "Entry points",
        "no git",
    ):
        assert text in page


def test_a_report_of_thousands_of_findings_stays_small(tmp_path: Path) -> None:
    page = render_html(report_of(tmp_path, nasty(6_000)))
    assert page.count("<tr data-s=") == 5_000
    assert "1,000 more are in report.json" in page
    assert page.count(" open>") <= 8
    assert len(page) < 3_000_000


def test_an_empty_folder_gives_a_whole_report(tmp_path: Path) -> None:
    report = build_report(inventory=inventory(tmp_path), graph=import_graph([]), complexity=[], findings=[])
    assert report.summary.worst is None
    assert "None" in render_markdown(report)
    assert "No functions" in render_html(report)


def test_markdown_shows_names_as_they_are(tmp_path: Path) -> None:
    text = render_markdown(report_of(tmp_path, nasty()))
    assert "\\<script\\>" in text
    assert "\\|" in text
    assert "| high |" in text


def test_the_style_has_no_string_across_lines_and_balanced_braces() -> None:
    """A line break inside a quoted font name once made browsers drop every rule up to the next brace."""
    assert all(line.count('"') % 2 == 0 for line in STYLE.splitlines())
    assert STYLE.count("{") == STYLE.count("}")
