"""What the agents that examine single files have in common: plan, examine in batches, and re-use what is known already.

A result is kept by analyser and path together with the digest of the content it was made from, and is dropped when the content or the
analyser's rules change or the file goes. So what is kept after planning is right for the files as they are now, and what is not kept is
the work to do. Each batch is one turn: its results commit together, and a crash costs at most the steps that had no result yet (S19).
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, ClassVar, Final, NamedTuple, TypeVar

import msgspec

from actors.actor import Actor, command
from actors.errors import StepFailed, TooLarge
from actors.event import Event, State
from actors.files.rules import holds_secrets
from actors.team.pages import gone, in_lots
from actors.team.research import Research
from actors.team.together import together
from actors.tools.errors import AnalyserMissingError
from events.codec import encode
from events.limits import EVENT_BYTES_MAX, TURN_BYTES_MAX

_NAMED: Final = 5
"""Skipped files that a sentence names; the others are counted."""
_BATCH_BYTES_MAX: Final = TURN_BYTES_MAX - 1_024 * 1_024
"""For the results of one batch: only generated code gets there, and the review goes on without what does not fit. The rest of the turn is
kept for saying so."""
_CHUNK_EVERY: Final = timedelta(seconds=0.5)


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one analyser for one file; `digest` is that of the content it was made from."""

    digest: str


class Skipped(msgspec.Struct, frozen=True, kw_only=True):
    """A file that one analyser could not examine in this review."""

    analyser: str
    path: str
    reason: str


class Examined(State):
    """Base of the states of examining agents; each analyser has a field of its own name that maps paths to what is kept."""

    review: str = ""
    root: str = ""
    planned: str = ""
    """Fingerprint of the files that the plan is complete for; empty while planning."""
    files: int = 0
    rules: dict[str, str] = {}
    """Version of each analyser whose results are kept."""
    missing: dict[str, str] = {}
    """Why an analyser cannot be used in this review."""
    todo: dict[str, str] = {}
    """Digest by path of files with at least one result to make."""
    skipped: list[Skipped] = []

    def kept(self, analyser: str) -> dict[str, Kept]:
        kept: dict[str, Kept] = getattr(self, analyser)
        return kept

    def missing_results(self, path: str, digest: str) -> list[str]:
        """Analysers that can be used and have no result for this content, sorted."""
        return [name for name in sorted(self.rules) if (kept := self.kept(name).get(path)) is None or kept.digest != digest]


class RulesChanged(Event[Examined], tag="review.rules_changed"):
    """An analyser gives other results from now on; those it gave are dropped."""

    analyser: str
    version: str

    def apply(self, state: Examined) -> None:
        state.rules[self.analyser] = self.version
        state.kept(self.analyser).clear()


class PlanBegun(Event[Examined], tag="review.plan_begun"):
    """A review began for this agent."""

    review: str
    root: str
    missing: dict[str, str]

    def apply(self, state: Examined) -> None:
        state.review = self.review
        state.root = self.root
        state.missing = dict(self.missing)
        for analyser in self.missing:
            # Without its version nobody knows whether its results still hold.
            state.rules.pop(analyser, None)
            state.kept(analyser).clear()
        state.planned = ""
        state.files = 0
        state.todo.clear()
        state.skipped.clear()


class FilesForgotten(Event[Examined], tag="review.files_forgotten"):
    """Files that are gone, with all that was kept of them."""

    paths: list[str]

    def apply(self, state: Examined) -> None:
        for analyser in state.rules:
            kept = state.kept(analyser)
            for path in self.paths:
                kept.pop(path, None)


class FilesQueued(Event[Examined], tag="review.files_queued"):
    """New or changed files, by path and digest; what was kept of other content is dropped."""

    files: dict[str, str]

    def apply(self, state: Examined) -> None:
        state.todo.update(self.files)
        for analyser in state.rules:
            kept = state.kept(analyser)
            for path, digest in self.files.items():
                if path in kept and kept[path].digest != digest:
                    del kept[path]


class PlanExtended(Event[Examined], tag="review.plan_extended"):
    """Another page of files is planned for. `fingerprint` is set with the last page."""

    files: int
    fingerprint: str

    def apply(self, state: Examined) -> None:
        state.files += self.files
        state.planned = self.fingerprint


class FileSkipped(Event[Examined], tag="review.file_skipped"):
    """An analyser could not examine a file; the next review tries again."""

    analyser: str
    path: str
    reason: str

    def apply(self, state: Examined) -> None:
        state.skipped.append(Skipped(analyser=self.analyser, path=self.path, reason=self.reason))


class BatchExamined(Event[Examined], tag="review.batch_examined"):
    """A batch of files is done: `results` were made in it."""

    paths: list[str]
    results: int

    def apply(self, state: Examined) -> None:
        for path in self.paths:
            state.todo.pop(path, None)


class Analyser(NamedTuple):
    """One analyser of single files. `name` is its step's name and the field of the state that keeps its results."""

    name: str
    version: Callable[[], str]
    examine: Callable[..., Any]
    """Step, called with root, path and digest."""
    event: Callable[..., Event[Any]]
    """Made with path, digest and the result."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    versions: dict[str, str]
    missing: dict[str, str]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much there is to do. Counts are of results, one per file and analyser; `next` is the cursor of the next page of files."""

    to_make: int
    reused: int
    files_to_do: int
    next: str | None


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What one batch did and how many files are left."""

    made: int
    skipped: int
    files_left: int


E = TypeVar("E", bound=Examined)


class Examiner(Actor[E]):
    """Base of the agents that examine single files."""

    analysers: ClassVar[tuple[Analyser, ...]] = ()

    @command
    async def plan(self, review: str, root: str, fingerprint: str, after: str) -> Plan:
        """Compare one page of Research's files with what is kept. Call again with `next` until it is None."""
        if not after and not await self._begin(review, root, fingerprint):
            return Plan(to_make=0, reused=self.state.files * len(self.state.rules), files_to_do=0, next=None)
        page = await self.ref(Research, self.id).python_files(after=after)
        known = {path for analyser in self.state.rules for path in self.state.kept(analyser)}
        for paths in in_lots(gone(known, page, after)):
            self.emit(FilesForgotten(paths=paths))
        wanted = {path: len(self.state.missing_results(path, digest)) for path, digest in page.files.items()}
        stale = [path for path, results in wanted.items() if results]
        for paths in in_lots(stale):
            self.emit(FilesQueued(files={path: page.files[path] for path in paths}))
        self.emit(PlanExtended(files=len(page.files), fingerprint="" if page.next is not None else fingerprint))
        to_make = sum(wanted.values())
        reused = len(page.files) * len(self.state.rules) - to_make
        return Plan(to_make=to_make, reused=reused, files_to_do=len(stale), next=page.next)

    async def _begin(self, review: str, root: str, fingerprint: str) -> bool:
        """Take notice of new rules and start a plan. False if the last plan is still good: of the same files and rules, and all done."""
        rules = await self.step("rules", partial(rules_of, self.analysers))
        state = self.state
        changed = {name: version for name, version in rules.versions.items() if state.rules.get(name) != version}
        same = not changed and rules.missing == state.missing and root == state.root and fingerprint == state.planned
        if same and not state.todo and not state.skipped:
            return False
        self.emit(PlanBegun(review=review, root=root, missing=rules.missing))
        for name in sorted(changed):
            self.emit(RulesChanged(analyser=name, version=changed[name]))
        return True

    @command
    async def examine(self, files: int, made: int, to_make: int) -> Batch:
        """Examine the next files of the plan.

        Args:
            files: at most so many.
            made: results made in earlier batches, `to_make`: in the whole review; both only for the progress shown.
        """
        batch = sorted(self.state.todo)[:files]
        by_name = {analyser.name: analyser for analyser in self.analysers}
        jobs = [
            (by_name[name], path, self.state.todo[path])
            for path in batch
            for name in self.state.missing_results(path, self.state.todo[path])
        ]
        meter = _Meter(self, made, to_make)
        outcomes = await together(self._examine_one(job, meter) for job in jobs)
        results = used = 0
        for (analyser, path, digest), outcome in zip(jobs, outcomes, strict=True):
            event = outcome if isinstance(outcome, FileSkipped) else analyser.event(path, digest, outcome)
            used += (size := len(encode(event)))
            if size > EVENT_BYTES_MAX or used > _BATCH_BYTES_MAX:
                used -= size
                event = FileSkipped(analyser=analyser.name, path=path, reason=f"the result of {size:,} bytes has no room in its batch")
            self.emit(event)
            results += not isinstance(event, FileSkipped)
        self.emit(BatchExamined(paths=batch, results=results))
        return Batch(made=results, skipped=len(jobs) - results, files_left=len(self.state.todo))

    async def _examine_one(self, job: tuple[Analyser, str, str], meter: "_Meter") -> Any:
        analyser, path, digest = job
        if holds_secrets(path):
            return FileSkipped(analyser=analyser.name, path=path, reason="its name is one of those that hold secrets, which no agent reads")
        try:
            # What was found in this content before, such as on the branch that is checked out again, need not be found again (S37).
            content = [self.state.rules[analyser.name], path, digest]
            result = await self.step(
                analyser.name, analyser.examine, self.state.root, path, digest, key=path, namespace="analysis", cache_key=content
            )
        except (StepFailed, TooLarge) as error:
            reason = error.message.removeprefix(f"step {analyser.name} [{path}]: ")
            result = FileSkipped(analyser=analyser.name, path=path, reason=reason)
        meter.tick(f"{analyser.name.replace('_', ' ')} {path}")
        return result

    def unavailable(self) -> list[str]:
        """One sentence per part of this review that could not be done."""
        said = [f"{name}: {reason}" for name, reason in sorted(self.state.missing.items())]
        by_analyser: dict[str, list[Skipped]] = {}
        for skipped in self.state.skipped:
            by_analyser.setdefault(skipped.analyser, []).append(skipped)
        for name, files in sorted(by_analyser.items()):
            paths = ", ".join(sorted(each.path for each in files)[:_NAMED])
            more = f" and {len(files) - _NAMED:,} more" if len(files) > _NAMED else ""
            said.append(f"{name}: {paths}{more} not examined: {min(each.reason for each in files)}")
        return said

    def show(self, what: str, done: int, total: int) -> None:
        """Tell whoever watches how far this agent is."""
        self.chunk({"agent": type(self).__actor_name__, "what": what, "done": done, "total": total, "unit": "results"})


class _Meter:
    """Counts finished steps and says so twice a second."""

    def __init__(self, agent: Examiner[Any], made: int, to_make: int) -> None:
        self._agent = agent
        self._made = made
        self._to_make = to_make
        self._said: datetime | None = None

    def tick(self, what: str) -> None:
        self._made += 1
        now = self._agent.now()
        if self._said is None or now - self._said >= _CHUNK_EVERY or self._made == self._to_make:
            self._said = now
            self._agent.show(what, self._made, self._to_make)


def rules_of(analysers: Sequence[Analyser]) -> Rules:
    """Step: the version of each analyser, or why it cannot be used."""
    versions: dict[str, str] = {}
    missing: dict[str, str] = {}
    for analyser in analysers:
        try:
            versions[analyser.name] = analyser.version()
        except AnalyserMissingError as error:
            missing[analyser.name] = f"{error} (install cuebook[analysis])" if error.reason == "not installed" else str(error)
    return Rules(versions=versions, missing=missing)
