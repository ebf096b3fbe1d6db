"""Each agent alone: given events, when a command, then events and reply. Every `when` also runs the turn again from its journal."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.actor import Actor
from actors.team import Architect, Docs, Orchestrator, Performance, Research, Reviewer
from actors.team.architect import ImportsRead
from actors.team.docs import ReportsWritten
from actors.team.examiner import BatchExamined, FilesForgotten, FileSkipped, FilesQueued, PlanBegun, PlanExtended, RulesChanged
from actors.team.pages import page_of
from actors.team.parts import Part, read_part, write_part
from actors.team.performance import ComplexityMeasured, HotSpotsFound, measure
from actors.team.research import FilesFound, FilesGone, ListingFinished, Surveyed, take_inventory
from actors.team.reviewer import FindingsRanked, Linted
from actors.testing import ActorTest
from actors.tools.complexity import ComplexBlock
from actors.tools.errors import AnalyserMissingError
from actors.tools.findings import Finding
from actors.tools.imports import ImportGraph
from actors.tools.report_json import read_json
from actors.tools.workspace import inventory
from tests.unit.team.conftest import when

EXAMINERS: list[type[Actor[Any]]] = [Architect, Performance, Reviewer]


def python_files(root: Path) -> dict[str, str]:
    return {file.path: file.sha256 for file in inventory(root).files if file.language == "Python"}


def examiner(kind: type[Actor[Any]], root: Path) -> ActorTest:
    """An agent whose Research answers with what is on the disk."""
    return ActorTest(kind, answers={"research.python_files": lambda after: page_of(python_files(root), after)})


async def reviewed(agent: ActorTest, root: Path, *, fingerprint: str) -> dict[str, int]:
    """Plan and examine everything; how much was planned and done."""
    plan = (await when(agent, "plan", review="r1", root=str(root), fingerprint=fingerprint, after="")).reply
    made = skipped = 0
    left = plan["files_to_do"]
    while left:
        batch = (await when(agent, "examine", files=2, made=made, to_make=plan["to_make"])).reply
        made, skipped, left = made + batch["made"], skipped + batch["skipped"], batch["files_left"]
    return {"to_make": plan["to_make"], "reused": plan["reused"], "made": made, "skipped": skipped}


# -- research ---------------------------------------------------------------------------------------------------------------------


async def test_research_surveys_and_lists_the_python_files(codebase: Path, parts: str) -> None:
    """The survey holds counts and parts; the listing fills the state."""
    agent = ActorTest(Research)
    survey = await when(agent, "survey", review="r1", root=str(codebase), parts=parts)
    assert survey.reply["inventory"]["files"] == 5
    assert survey.reply["inventory"]["python_files"] == 4
    assert survey.reply["entry_points_count"] == 1
    assert [type(event) for event in survey.events] == [Surveyed]
    listing = await when(agent, "list_files", inventory=survey.reply["inventory"], after="")
    assert listing.reply is None
    assert [type(event) for event in listing.events] == [FilesFound, ListingFinished]
    assert listing.state.files == python_files(codebase)
    assert (await when(agent, "python_files", after="main.py")).reply["next"] is None


async def test_research_lists_only_what_changed(codebase: Path, parts: str) -> None:
    """An unchanged code base is not listed again; a changed one costs its changes."""
    agent = ActorTest(Research)
    first = take_inventory(str(codebase), parts)
    await when(agent, "list_files", inventory=first, after="")
    assert (await when(agent, "list_files", inventory=first, after="")).journal == []
    (codebase / "main.py").write_text("x = 1\n")
    (codebase / "shop" / "price.py").unlink()
    events = (await when(agent, "list_files", inventory=take_inventory(str(codebase), parts), after="")).events
    assert events[0] == FilesGone(paths=["shop/price.py"])
    assert isinstance(events[1], FilesFound)
    assert list(events[1].files) == ["main.py"]


async def test_research_refuses_a_folder_that_is_not_there(tmp_path: Path, parts: str) -> None:
    """The reason reaches whoever asked."""
    result = await ActorTest(Research).when("survey", review="r1", root=str(tmp_path / "no"), parts=parts)
    assert result.refused
    assert "cannot be opened" in str(result.refusal)


# -- examining agents -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EXAMINERS)
async def test_a_second_review_makes_nothing(kind: type[Actor[Any]], codebase: Path) -> None:
    """Same files, same rules: no step but the one that asks for the rules."""
    agent = examiner(kind, codebase)
    first = await reviewed(agent, codebase, fingerprint="1")
    assert first["made"] == first["to_make"] == 4 * len(kind.analysers)  # type: ignore[attr-defined]
    again = await when(agent, "plan", review="r2", root=str(codebase), fingerprint="1", after="")
    assert again.reply == {"to_make": 0, "reused": first["made"], "files_to_do": 0, "next": None}
    assert again.events == []
    assert again.journal == ["turn.started", "step.started", "step.completed"]


@pytest.mark.parametrize("kind", EXAMINERS)
async def test_a_changed_file_is_examined_anew_and_a_deleted_one_drops_out(kind: type[Actor[Any]], codebase: Path) -> None:
    """What was kept of the old content is gone before the new is examined."""
    agent = examiner(kind, codebase)
    first = await reviewed(agent, codebase, fingerprint="1")
    (codebase / "main.py").write_text("import re\n")
    (codebase / "shop" / "price.py").unlink()
    plan = await when(agent, "plan", review="r2", root=str(codebase), fingerprint="2", after="")
    assert [type(event) for event in plan.events] == [PlanBegun, FilesForgotten, FilesQueued, PlanExtended]
    assert all(set(plan.state.kept(name)) == {"shop/__init__.py", "shop/cart.py"} for name in plan.state.rules)
    batch = await when(agent, "examine", files=50, made=0, to_make=plan.reply["to_make"])
    assert batch.reply["made"] == first["made"] // 4
    assert all(set(batch.state.kept(name)) == set(python_files(codebase)) for name in batch.state.rules)


@pytest.mark.parametrize("kind", EXAMINERS)
async def test_many_files_are_planned_page_by_page(kind: type[Actor[Any]], codebase: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fingerprint counts only when the last page is planned."""
    monkeypatch.setattr("actors.team.pages.PAGE_FILES", 3)
    agent = examiner(kind, codebase)
    first = await when(agent, "plan", review="r1", root=str(codebase), fingerprint="1", after="")
    assert first.state.planned == ""
    second = await when(agent, "plan", review="r1", root=str(codebase), fingerprint="1", after=first.reply["next"])
    assert second.reply["next"] is None
    assert (second.state.planned, second.state.files) == ("1", 4)
    assert sorted(second.state.todo) == sorted(python_files(codebase))


async def test_new_rules_drop_old_results(codebase: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same content, other rules: examined again, and only by the analyser that changed."""
    agent = examiner(Reviewer, codebase)
    await reviewed(agent, codebase, fingerprint="1")
    _with_version(monkeypatch, "lint", lambda: "ruff next")
    plan = await when(agent, "plan", review="r2", root=str(codebase), fingerprint="1", after="")
    assert RulesChanged(analyser="lint", version="ruff next") in plan.events
    assert plan.reply["to_make"] == 4
    batch = await when(agent, "examine", files=50, made=0, to_make=4)
    assert {type(event) for event in batch.events} == {Linted, BatchExamined}


async def test_a_missing_analyser_is_said_and_the_rest_goes_on(codebase: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then, once it is there, its part is made."""
    agent = examiner(Reviewer, codebase)

    def missing() -> str:
        raise AnalyserMissingError("ruff", "not installed")

    with pytest.MonkeyPatch.context() as patch:
        _with_version(patch, "lint", missing)
        counts = await reviewed(agent, codebase, fingerprint="1")
    assert counts["made"] == 8
    state = agent.state()
    assert state.missing == {"lint": "ruff: not installed (install cuebook[analysis])"}
    assert (await reviewed(agent, codebase, fingerprint="1"))["made"] == 4
    assert agent.state().missing == {}


async def test_a_file_that_changes_meanwhile_is_skipped_and_tried_again(codebase: Path, parts: str) -> None:
    """The plan names a content that is no longer there: nothing is kept, the sentence names the file, the next review has it."""
    agent = examiner(Architect, codebase)
    await when(agent, "plan", review="r1", root=str(codebase), fingerprint="1", after="")
    (codebase / "main.py").write_text("import re\n")
    batch = await when(agent, "examine", files=50, made=0, to_make=4)
    assert batch.reply == {"made": 3, "skipped": 1, "files_left": 0}
    assert [event.path for event in batch.events if isinstance(event, FileSkipped)] == ["main.py"]
    drawing = await when(agent, "conclude", review="r1", parts=parts, package_prefix="")
    assert drawing.reply["unavailable"] == [
        "imports: main.py not examined: FileChangedError: main.py changed while the code base was being examined"
    ]
    assert (await reviewed(agent, codebase, fingerprint="1"))["made"] == 1


async def test_results_beyond_a_turn_are_left_out_and_said(codebase: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """4 MiB of results in one batch end no review."""
    monkeypatch.setattr("actors.team.examiner._BATCH_BYTES_MAX", 2_000)
    (codebase / "generated.py").write_text("import re\n" * 500)
    agent = examiner(Architect, codebase)
    await when(agent, "plan", review="r1", root=str(codebase), fingerprint="1", after="")
    batch = await when(agent, "examine", files=50, made=0, to_make=5)
    assert batch.reply == {"made": 4, "skipped": 1, "files_left": 0}
    (skipped,) = batch.state.skipped
    assert skipped.path == "generated.py"
    assert "has no room" in skipped.reason


def _with_version(patch: pytest.MonkeyPatch, analyser: str, version: Any) -> None:
    changed = tuple(each._replace(version=version) if each.name == analyser else each for each in Reviewer.analysers)
    patch.setattr(Reviewer, "analysers", changed)


async def test_progress_is_shown_while_a_batch_runs(codebase: Path) -> None:
    """The last chunk of the last batch says that all is done."""
    agent = examiner(Performance, codebase)
    await when(agent, "plan", review="r1", root=str(codebase), fingerprint="1", after="")
    result = await when(agent, "examine", files=50, made=0, to_make=4)
    assert result.chunks[-1]["done"] == result.chunks[-1]["total"] == 4
    assert {chunk["agent"] for chunk in result.chunks} == {"performance"}


# -- conclusions ------------------------------------------------------------------------------------------------------------------


async def test_architect_finds_the_cycle(codebase: Path, parts: str) -> None:
    """The graph is handed over as a part."""
    agent = examiner(Architect, codebase)
    await reviewed(agent, codebase, fingerprint="1")
    drawing = msgspec.convert((await when(agent, "conclude", review="r1", parts=parts, package_prefix="")).reply, dict[str, Any])
    assert (drawing["cycles"], drawing["first_cycle"]) == (1, ["shop.cart", "shop.price"])
    graph = read_part(msgspec.convert(drawing["part"], Part), ImportGraph)
    assert len(graph.modules) == drawing["modules"] == 4


async def test_performance_ranks_functions(codebase: Path, parts: str) -> None:
    """The worst comes first; where there is no function there is no worst."""
    agent = examiner(Performance, codebase)
    await reviewed(agent, codebase, fingerprint="1")
    result = await when(agent, "conclude", review="r1", parts=parts)
    assert result.reply["worst"] == {"path": "shop/cart.py", "name": "total", "line": 5, "complexity": 2}
    assert isinstance(result.events[0], HotSpotsFound)
    empty = await when(ActorTest(Performance), "conclude", review="r1", parts=parts)
    assert empty.reply["worst"] is None


async def test_reviewer_joins_what_single_files_cannot_tell(codebase: Path, parts: str) -> None:
    """The unused import is found per file, the unused private function only by all files together."""
    agent = examiner(Reviewer, codebase)
    await reviewed(agent, codebase, fingerprint="1")
    graph = ImportGraph(modules=[], imports=[], cycles=[], load_cycles=[], layers=[], imported_names={})
    judgement = await when(
        agent, "conclude", review="r1", parts=parts, graph=write_part(parts, "graph", graph), complexity=write_part(parts, "blocks", [])
    )
    (ranked,) = judgement.events
    assert isinstance(ranked, FindingsRanked)
    assert sorted((finding.rule, finding.file) for finding in ranked.worst) == [
        ("F401", "shop/cart.py"),
        ("unused-private-function", "shop/price.py"),
    ]
    assert sum(judgement.reply["by_severity"].values()) == 2
    assert len(read_part(msgspec.convert(judgement.reply["part"], Part), list[Finding])) == 2


async def test_docs_writes_whole_reports_and_removes_the_parts(codebase: Path, tmp_path: Path, parts: str) -> None:
    """Three files and nothing else in the folder; the digests in the log are those on the disk."""
    graph = ImportGraph(modules=[], imports=[], cycles=[], load_cycles=[], layers=[], imported_names={})
    material = {
        "inventory": write_part(parts, "inventory", inventory(codebase)),
        "entry_points": write_part(parts, "entry_points", []),
        "graph": write_part(parts, "graph", graph),
        "complexity": write_part(parts, "complexity", [ComplexBlock(path="a.py", name="f", line=1, complexity=7)]),
        "findings": write_part(parts, "findings", []),
        "history": None,
        "tools": {"lint": "ruff"},
        "unavailable": ["lint: not installed"],
    }
    out = tmp_path / "out"
    result = await when(
        ActorTest(Docs), "write", review="r1", out=str(out), material=material, started_at="2023-11-14T22:13:20+00:00", reused=3, computed=4
    )
    assert sorted(path.name for path in out.iterdir()) == ["report.html", "report.json", "report.md"]
    report = read_json((out / "report.json").read_bytes())
    assert (report.run.results_reused, report.run.results_computed) == (3, 4)
    assert report.summary.unavailable == ["lint: not installed"]
    assert report.summary.worst is not None
    (event,) = result.events
    assert isinstance(event, ReportsWritten)
    assert set(event.sha256) == {str(out / name) for name in ("report.html", "report.json", "report.md")}


async def test_orchestrator_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    """A wrong path or batch size is the caller's to mend, and nothing is asked of anybody."""
    missing = await ActorTest(Orchestrator).when("review", path=str(tmp_path / "no"))
    assert "cannot be opened" in str(missing.refusal)
    assert (await ActorTest(Orchestrator).when("review", path=str(tmp_path), batch_files=201)).refused


def test_events_fold_into_the_same_results(codebase: Path) -> None:
    """An event holds all that the state keeps: the analyser is not needed to fold it."""
    digest = python_files(codebase)["shop/cart.py"]
    blocks = measure(str(codebase), "shop/cart.py", digest)
    agent = ActorTest(Performance).given(ComplexityMeasured(path="shop/cart.py", digest=digest, blocks=blocks))
    assert agent.state().complexity["shop/cart.py"].blocks == blocks
    architect = ActorTest(Architect).given(ImportsRead(path="a.py", digest="d", statements=[]))
    assert architect.state().imports["a.py"].digest == "d"
