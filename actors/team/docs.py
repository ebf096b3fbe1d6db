"""Docs: what the team found, written down."""

import hashlib
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Final

import msgspec

from actors.actor import Actor, command
from actors.event import Event, State
from actors.team.explanation import Brief, brief_of, explain
from actors.team.parts import PARTS, Part, read_part, remove_parts, write_whole
from actors.tools.complexity import ComplexBlock
from actors.tools.entry_points import EntryPoint
from actors.tools.findings import Finding
from actors.tools.history import History
from actors.tools.imports import ImportGraph
from actors.tools.report import Explanation, Report, RunInfo, Since, Summary, build_report
from actors.tools.report_html import render_html
from actors.tools.report_json import render_json
from actors.tools.report_markdown import render_markdown
from actors.tools.workspace import Inventory

_RENDERERS: Final = {"report.md": render_markdown, "report.html": render_html, "report.json": render_json}


class Material(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a report is made of."""

    inventory: Part
    entry_points: Part
    graph: Part
    complexity: Part
    findings: Part
    history: History | None
    tools: dict[str, str]
    unavailable: list[str]


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """The three reports: digest by path; and the headline numbers in them."""

    markdown: str
    html: str
    json: str
    sha256: dict[str, str]
    summary: Summary
    explanation: Explanation | None = None


class DocsState(State):
    reviews: int = 0
    folder: str = ""
    reports: dict[str, str] = {}
    summary: Summary | None = None


class ReportsWritten(Event[DocsState], tag="docs.reports_written"):
    """The reports of a review: digest by path, and their headline numbers."""

    review: str
    folder: str
    sha256: dict[str, str]
    summary: Summary

    def apply(self, state: DocsState) -> None:
        state.reviews += 1
        state.folder = self.folder
        state.reports = dict(self.sha256)
        state.summary = self.summary


class Docs(Actor[DocsState], name="docs"):
    """Writes report.md, report.html and report.json."""

    @command
    async def write(
        self, review: str, out: str, material: Material, started_at: str, reused: int, computed: int, since: Since | None = None,
        root: str = "", model: str | None = None,
    ) -> Written:  # fmt: skip
        """Write the reports into the folder `out`, each whole or not at all, and remove the parts that they were made of.

        Args:
            started_at: when the review began, UTC, ISO 8601.
            since: what is different from the last review.
            root: the examined folder. model: the model service to ask for an explanation; None = no one is asked.
        """
        explanation = None
        if model is not None:
            explanation = await explain(self, model, await self.step("brief", make_brief, material, root))
        self.chunk({"agent": "docs", "what": "writing the reports", "done": 0, "total": len(_RENDERERS), "unit": "reports"})
        now = self.now()
        run = RunInfo(
            started_at=started_at, finished_at=now.isoformat(timespec="milliseconds"),
            duration_s=round((now - datetime.fromisoformat(started_at)).total_seconds(), 3),
            results_reused=reused, results_computed=computed, since=since, explanation=explanation,
        )  # fmt: skip
        written = await self.step("reports", write_reports, out, material, run)
        await self.step("tidy", remove_parts, str(Path(out) / PARTS))
        self.emit(ReportsWritten(review=review, folder=out, sha256=written.sha256, summary=written.summary))
        self.chunk({"agent": "docs", "what": written.html, "done": len(_RENDERERS), "total": len(_RENDERERS), "unit": "reports"})
        return written


def write_reports(out: str, material: Material, run: RunInfo) -> Written:
    """Step: put the parts together, render, write."""
    report = _report(material, run)
    digests: dict[str, str] = {}
    for name, render in _RENDERERS.items():
        content = render(report).encode()
        write_whole(Path(out) / name, content)
        digests[str(Path(out) / name)] = hashlib.sha256(content).hexdigest()
    markdown, html, json = digests
    return Written(markdown=markdown, html=html, json=json, sha256=digests, summary=report.summary, explanation=run.explanation)


def make_brief(material: Material, root: str) -> Brief:
    """Step: what a model is told of the review."""
    return brief_of(_report(material, RunInfo()), root)


def _report(material: Material, run: RunInfo) -> Report:
    return build_report(
        inventory=read_part(material.inventory, Inventory),
        graph=read_part(material.graph, ImportGraph),
        complexity=read_part(material.complexity, list[ComplexBlock]),
        findings=read_part(material.findings, list[Finding]),
        entry_points=read_part(material.entry_points, list[EntryPoint]),
        history=material.history,
        tools=material.tools,
        unavailable=material.unavailable,
        run=msgspec.structs.replace(run, cuebook_version=_version()),
    )


def _version() -> str:
    try:
        return metadata.version("cuebook")
    except metadata.PackageNotFoundError:
        return ""
