"""Reviewer: what is wrong with the code, worst first."""

from functools import partial
from pathlib import Path

import msgspec

from actors.actor import command
from actors.errors import Rejected
from actors.event import Event
from actors.tasks.agent import Agent
from actors.tasks.records import Job, Result
from actors.team.examiner import Analyser, Examined, Examiner, Kept
from actors.team.lint_batch import lint_one
from actors.team.parts import Part, read_part, write_part
from actors.team.recollection import SeenAll, since_last, write_seen
from actors.tools.complexity import ComplexBlock
from actors.tools.dead_code import DeadCodeFacts, PrivateName, dead_code_facts, dead_code_findings, dead_code_version
from actors.tools.findings import Finding, count_by_severity, file_weights, merge_findings, rank_findings
from actors.tools.imports import ImportGraph, fan_in
from actors.tools.lint import lint_version
from actors.tools.python_ast import syntax_findings
from actors.tools.report import Since

_WORST = 10
_REVIEW_S = 3_600.0
_SYNTAX_VERSION = "ast 1"


class KeptFindings(Kept, frozen=True, kw_only=True):
    findings: list[Finding]


class KeptDeadCode(Kept, frozen=True, kw_only=True):
    unreachable: list[Finding]
    private_definitions: list[PrivateName]
    private_mentions: list[str]


class ReviewerState(Examined):
    syntax: dict[str, KeptFindings] = {}
    lint: dict[str, KeptFindings] = {}
    dead_code: dict[str, KeptDeadCode] = {}
    by_severity: dict[str, int] = {}
    worst: list[Finding] = []


class SyntaxChecked(Event[ReviewerState], tag="reviewer.syntax_checked"):
    """Whether one file parses."""

    path: str
    digest: str
    findings: list[Finding]

    def apply(self, state: ReviewerState) -> None:
        state.syntax[self.path] = KeptFindings(digest=self.digest, findings=self.findings)


class Linted(Event[ReviewerState], tag="reviewer.linted"):
    """What ruff says of one file."""

    path: str
    digest: str
    findings: list[Finding]

    def apply(self, state: ReviewerState) -> None:
        state.lint[self.path] = KeptFindings(digest=self.digest, findings=self.findings)


class DeadCodeSought(Event[ReviewerState], tag="reviewer.dead_code_sought"):
    """Dead code of one file, and the private names that only all files together can judge."""

    path: str
    digest: str
    unreachable: list[Finding]
    private_definitions: list[PrivateName]
    private_mentions: list[str]

    def apply(self, state: ReviewerState) -> None:
        state.dead_code[self.path] = KeptDeadCode(
            digest=self.digest,
            unreachable=self.unreachable,
            private_definitions=self.private_definitions,
            private_mentions=self.private_mentions,
        )


class FindingsRanked(Event[ReviewerState], tag="reviewer.findings_ranked"):
    """The findings of a review: how many of each severity, and the first of the ranking."""

    review: str
    by_severity: dict[str, int]
    worst: list[Finding]

    def apply(self, state: ReviewerState) -> None:
        state.by_severity = dict(self.by_severity)
        state.worst = list(self.worst)


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """All findings as a part (unmerged, as `build_report` wants them), the counts after merging, and what is different from last time."""

    part: Part
    by_severity: dict[str, int]
    tools: dict[str, str]
    unavailable: list[str]
    since: Since | None = None


class _Ranking(msgspec.Struct, frozen=True, kw_only=True):
    part: Part
    by_severity: dict[str, int]
    worst: list[Finding]
    seen: SeenAll


def check_syntax(root: str, path: str, sha256: str) -> list[Finding]:
    """Step: at most one finding, that the file does not parse."""
    return syntax_findings(Path(root), path, sha256=sha256)


def seek_dead_code(root: str, path: str, sha256: str) -> DeadCodeFacts:
    """Step: what one file contributes to the search for dead code."""
    return dead_code_facts(Path(root), path, sha256=sha256)


def _dead_code_sought(path: str, digest: str, result: DeadCodeFacts) -> DeadCodeSought:
    return DeadCodeSought(
        path=path,
        digest=digest,
        unreachable=result.unreachable,
        private_definitions=result.private_definitions,
        private_mentions=result.private_mentions,
    )


class Reviewer(Examiner[ReviewerState], Agent[ReviewerState], name="reviewer"):
    """Syntax, lint, security and dead code per file; the ranked findings of the whole. As a step of a run: a review of its workspace."""

    analysers = (
        Analyser(
            name="syntax",
            version=lambda: _SYNTAX_VERSION,
            examine=check_syntax,
            event=lambda path, digest, result: SyntaxChecked(path=path, digest=digest, findings=result),
        ),
        Analyser(
            name="lint",
            version=lint_version,
            examine=lint_one,
            event=lambda path, digest, result: Linted(path=path, digest=digest, findings=result),
        ),
        Analyser(name="dead_code", version=dead_code_version, examine=seek_dead_code, event=_dead_code_sought),
    )

    async def handle(self, job: Job) -> Result:
        """Have the team review the workspace of a run. Raises: Rejected: the run has none."""
        if not job.workspace:
            raise Rejected("a review needs a folder: start the run with root", step=job.step)
        summary = await self.ref("orchestrator", job.workspace, timeout_s=_REVIEW_S).review(path=job.root)
        counts = ", ".join(f"{count:,} {severity}" for severity, count in summary["findings"].items()) or "no"
        text = f"{summary['files']:,} files, {counts} findings, {summary['cycles']:,} import cycles; {summary['report_html']}"
        return Result(text=text, data={"review": summary["review"], "report": summary["report_json"]})

    @command
    async def conclude(self, review: str, parts: str, graph: Part, complexity: Part) -> Judgement:
        """Merge and rank the findings of all files; what many import, or few can follow, comes first."""
        self.show("ranking findings", 0, 0)
        ranking = await self.step("ranking", partial(judge, self.state), parts, graph, complexity)
        self.emit(FindingsRanked(review=review, by_severity=ranking.by_severity, worst=ranking.worst))
        self.show("comparing with the last review", 0, 0)
        since = await since_last(self, review, ranking.seen)
        return Judgement(
            part=ranking.part, by_severity=ranking.by_severity, tools=self.state.rules, unavailable=self.unavailable(), since=since
        )


def judge(state: ReviewerState, parts: str, graph: Part, complexity: Part) -> _Ranking:
    """Step: all findings into a part, merged and ranked for the counts and the first of them."""
    facts = [
        DeadCodeFacts(
            path=path, unreachable=kept.unreachable, private_definitions=kept.private_definitions,
            private_mentions=kept.private_mentions,
        )
        for path, kept in sorted(state.dead_code.items())
    ]  # fmt: skip
    per_file = (*sorted(state.syntax.items()), *sorted(state.lint.items()))
    findings = [finding for _, kept in per_file for finding in kept.findings] + dead_code_findings(facts)
    drawn = read_part(graph, ImportGraph)
    highest: dict[str, int] = {}
    for block in read_part(complexity, list[ComplexBlock]):
        highest[block.path] = max(block.complexity, highest.get(block.path, 0))
    merged = merge_findings(findings, imported_names=drawn.imported_names)
    ranked = rank_findings(merged, weights=file_weights(fan_in=fan_in(drawn), highest_complexity=highest))
    return _Ranking(
        part=write_part(parts, "findings", findings), by_severity=count_by_severity(ranked), worst=ranked[:_WORST],
        seen=write_seen(parts, ranked),
    )  # fmt: skip
