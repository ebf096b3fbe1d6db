"""Orchestrator: plans a review, hands out the work, collects the answers."""

import os
from pathlib import Path
from typing import Any, Final

import msgspec

from actors.actor import Actor, command
from actors.errors import Rejected, StepFailed
from actors.event import Event, State
from actors.memory import Memory
from actors.team.architect import Architect, Drawing
from actors.team.docs import Docs, Material, Written
from actors.team.examiner import Batch, Examiner, Plan
from actors.team.parts import PARTS
from actors.team.performance import Measurement, Performance
from actors.team.research import Research, Survey
from actors.team.reviewer import Judgement, Reviewer
from actors.team.together import both, together
from actors.tools.complexity import ComplexBlock
from actors.tools.report import Explanation, Since
from actors.tools.workspace import resolve_root

BATCH_FILES: Final = 50
BATCH_FILES_MAX: Final = 200
"""A file gives at most three results in one agent: 200 stay below the 1,000 events of a turn."""
_ASK_S: Final = 600.0
_EXAMINERS: Final[tuple[type[Examiner[Any]], ...]] = (Architect, Performance, Reviewer)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Absolute: the folder to examine, and the one for the reports."""

    root: str
    out: str


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What one agent had to do: results re-used and made, and how many batches that took."""

    agent: str
    reused: int
    made: int
    skipped: int
    batches: int


class ReviewSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a review: what the last screen shows."""

    workspace: str
    review: str
    root: str
    files: int
    lines: int
    python_files: int
    findings: dict[str, int]
    """By severity, worst first."""
    worst: ComplexBlock | None
    cycles: int
    first_cycle: list[str]
    results_reused: int
    results_made: int
    agents: list[Share]
    unavailable: list[str]
    """One sentence for each part of the review that could not be done."""
    report_markdown: str
    report_html: str
    report_json: str
    duration_s: float
    since: Since | None = None
    explanation: Explanation | None = None


class OrchestratorState(State):
    reviews: int = 0
    root: str = ""
    shares: dict[str, Share] = {}
    last: ReviewSummary | None = None


class ReviewPlanned(Event[OrchestratorState], tag="orchestrator.review_planned"):
    """What a review is to do: per agent the results to make; the others are re-used."""

    review: str
    root: str
    out: str
    files: int
    python_files: int
    to_make: dict[str, int]
    reused: dict[str, int]

    def apply(self, state: OrchestratorState) -> None:
        state.root = self.root
        state.shares.clear()


class AgentFinished(Event[OrchestratorState], tag="orchestrator.agent_finished"):
    """An agent has examined all its files."""

    review: str
    share: Share

    def apply(self, state: OrchestratorState) -> None:
        state.shares[self.share.agent] = self.share


class ReviewFinished(Event[OrchestratorState], tag="orchestrator.review_finished"):
    """A review is done and its reports are written."""

    summary: ReviewSummary

    def apply(self, state: OrchestratorState) -> None:
        state.reviews += 1
        state.last = self.summary


class Orchestrator(Actor[OrchestratorState], name="orchestrator"):
    """Leads the team through a review of one workspace."""

    @command
    async def review(
        self, path: str, out: str | None = None, batch_files: int = BATCH_FILES, model: str | None = None
    ) -> ReviewSummary:
        """Examine the Python code base at `path` and write the reports.

        Args:
            path: a folder on the machine of the workers; nothing in it is imported, run or changed.
            out: folder of the reports; by default one of this workspace in the user's state folder.
            batch_files: how many files an agent examines in one turn.
            model: a model service that explains the worst findings and proposes patches. The review does not fail with it. Code around
                these findings is sent to it.
        """
        if not 1 <= batch_files <= BATCH_FILES_MAX:
            raise Rejected(f"a batch has 1 to {BATCH_FILES_MAX} files", batch_files=batch_files)
        try:
            place = await self.step("place", find_place, path, out, self.id)
        except StepFailed as error:
            raise Rejected(error.message.split(": ", 2)[-1], path=path) from error
        review, started = self.new_id(), self.now()
        parts = str(Path(place.out) / PARTS)
        survey = await self._survey(review, place.root, parts)
        plans = await self._plan(review, place, survey)
        shares = await self._dispatch(review, plans, batch_files)
        drawing, judgement, written = await self._conclude(
            review, place, survey, shares, started.isoformat(timespec="milliseconds"), model
        )
        summary = ReviewSummary(
            workspace=self.id, review=review, root=place.root, files=survey.inventory.files, lines=survey.inventory.lines,
            python_files=survey.inventory.python_files, findings=judgement.by_severity, worst=written.summary.worst,
            cycles=drawing.cycles, first_cycle=drawing.first_cycle, results_reused=sum(share.reused for share in shares),
            results_made=sum(share.made for share in shares), agents=shares, unavailable=written.summary.unavailable,
            report_markdown=written.markdown, report_html=written.html, report_json=written.json,
            duration_s=round((self.now() - started).total_seconds(), 3), since=judgement.since,
            explanation=written.explanation,
        )  # fmt: skip
        self.emit(ReviewFinished(summary=summary))
        self._remember(summary)
        return summary

    async def _survey(self, review: str, root: str, parts: str) -> Survey:
        self._show("asking research for the inventory", 0, 0)
        research = self.ref(Research, self.id, timeout_s=_ASK_S)
        survey: Survey = await research.survey(review=review, root=root, parts=parts)
        after: str | None = ""
        while after is not None:
            after = await research.list_files(inventory=survey.inventory, after=after)
        return survey

    async def _plan(self, review: str, place: Place, survey: Survey) -> dict[str, Plan]:
        """What each examining agent has to do, by its name."""
        self._show("planning", 0, 0)
        found = await together(self._plan_for(agent, review, survey) for agent in _EXAMINERS)
        plans = {str(agent.__actor_name__): plan for agent, plan in zip(_EXAMINERS, found, strict=True)}
        self.emit(
            ReviewPlanned(
                review=review, root=place.root, out=place.out, files=survey.inventory.files,
                python_files=survey.inventory.python_files,
                to_make={name: plan.to_make for name, plan in plans.items()},
                reused={name: plan.reused for name, plan in plans.items()},
            )
        )  # fmt: skip
        return plans

    async def _plan_for(self, agent: type[Examiner[Any]], review: str, survey: Survey) -> Plan:
        ref = self.ref(agent, self.id, timeout_s=_ASK_S)
        to_make = reused = files = 0
        after: str | None = ""
        while after is not None:
            page: Plan = await ref.plan(review=review, root=survey.inventory.root, fingerprint=survey.inventory.fingerprint, after=after)
            to_make, reused, files = to_make + page.to_make, reused + page.reused, files + page.files_to_do
            after = page.next
        return Plan(to_make=to_make, reused=reused, files_to_do=files, next=None)

    async def _dispatch(self, review: str, plans: dict[str, Plan], batch_files: int) -> list[Share]:
        """Batches to different agents run at the same time; those of one agent follow each other, each a turn."""
        progress = _Progress(self, sum(-(-plan.files_to_do // batch_files) for plan in plans.values()))
        shares = await together(self._examine(agent, plans, batch_files, progress) for agent in _EXAMINERS)
        for share in shares:
            self.emit(AgentFinished(review=review, share=share))
        return shares

    async def _examine(self, agent: type[Examiner[Any]], plans: dict[str, Plan], batch_files: int, progress: "_Progress") -> Share:
        name = str(agent.__actor_name__)
        plan = plans[name]
        ref = self.ref(agent, self.id, timeout_s=_ASK_S)
        made = skipped = batches = 0
        left = plan.files_to_do
        while left:
            batch: Batch = await ref.examine(files=batch_files, made=made + skipped, to_make=plan.to_make)
            made, skipped, batches, left = made + batch.made, skipped + batch.skipped, batches + 1, batch.files_left
            progress.batch_done()
        return Share(agent=name, reused=plan.reused, made=made, skipped=skipped, batches=batches)

    async def _conclude(
        self, review: str, place: Place, survey: Survey, shares: list[Share], started_at: str, model: str | None
    ) -> tuple[Drawing, Judgement, Written]:
        """Each agent's own conclusion, then the reports."""
        self._show("concluding", 0, 0)
        parts = str(Path(place.out) / PARTS)
        drawing, measurement = await both(self._draw(review, parts, survey), self._measure(review, parts))
        reviewer = self.ref(Reviewer, self.id, timeout_s=_ASK_S)
        judgement: Judgement = await reviewer.conclude(review=review, parts=parts, graph=drawing.part, complexity=measurement.part)
        answers = (drawing, measurement, judgement)
        material = Material(
            inventory=survey.inventory.part, entry_points=survey.entry_points, graph=drawing.part, complexity=measurement.part,
            findings=judgement.part, history=survey.history,
            tools={name: version for answer in answers for name, version in answer.tools.items()},
            unavailable=[*survey.unavailable, *(sentence for answer in answers for sentence in answer.unavailable)],
        )  # fmt: skip
        written: Written = await self.ref(Docs, self.id, timeout_s=_ASK_S).write(
            review=review, out=place.out, material=material, started_at=started_at,
            reused=sum(share.reused for share in shares), computed=sum(share.made for share in shares), since=judgement.since,
            root=place.root, model=model,
        )  # fmt: skip
        return drawing, judgement, written

    async def _draw(self, review: str, parts: str, survey: Survey) -> Drawing:
        architect = self.ref(Architect, self.id, timeout_s=_ASK_S)
        drawing: Drawing = await architect.conclude(review=review, parts=parts, package_prefix=survey.inventory.package_prefix)
        return drawing

    async def _measure(self, review: str, parts: str) -> Measurement:
        measurement: Measurement = await self.ref(Performance, self.id, timeout_s=_ASK_S).conclude(review=review, parts=parts)
        return measurement

    def _remember(self, summary: ReviewSummary) -> None:
        """That there was a review, and how it ended, for whoever asks the memory of this workspace."""
        counts = ", ".join(f"{count:,} {severity}" for severity, count in summary.findings.items())
        since = summary.since
        changed = f"; {since.new:,} new and {since.fixed:,} fixed since {since.at[:10]}" if since is not None and since.review else ""
        self.ref(Memory, self.id).tell.remember(
            content=f"Review of {Path(summary.root).name}: {summary.files:,} files, {counts} findings, {summary.cycles:,} import cycles"
            f"{changed}",
            type="episodic", importance=0.6, session="reviews",
            metadata={"review": summary.review, "findings": summary.findings},
        )  # fmt: skip

    def _show(self, what: str, done: int, total: int) -> None:
        self.chunk({"agent": "orchestrator", "what": what, "done": done, "total": total, "unit": "batches"})


class _Progress:
    """Counts the batches of all agents."""

    def __init__(self, orchestrator: Orchestrator, total: int) -> None:
        self._orchestrator = orchestrator
        self._total = total
        self._done = 0

    def batch_done(self) -> None:
        self._done += 1
        self._orchestrator._show("batches", self._done, self._total)


def find_place(path: str, out: str | None, workspace: str) -> Place:
    """Step: the real folder behind `path`, and where the reports go."""
    root = resolve_root(path)
    if out is None:
        state = os.environ.get("XDG_STATE_HOME", "")
        base = Path(state) if Path(state).is_absolute() else Path.home() / ".local" / "state"
        return Place(root=str(root), out=str(base / "cuebook" / "reviews" / workspace))
    return Place(root=str(root), out=str(Path(out).expanduser().absolute()))
