"""A whole review by the team, on the real log and engine in one process."""

import importlib.util
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.team import TEAM, workspace_id
from actors.tools.report import Report, RunInfo
from actors.tools.report_json import read_json
from events.envelope import RecordedEvent
from events.sqlite.reader_sqlite import SqliteLogReader
from ops.team_app import app
from runtime import App
from runtime.local import LocalRuntime, local_runtime
from runtime.past.inspection import verify_states
from runtime.past.merging import merged
from tests.support.eventually import eventually

pytestmark = pytest.mark.timeout(120)

KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from ops.team_app import app
from runtime.local import local_runtime

async def main(data, actor, path, out, left):
    async with local_runtime(app, Path(data)) as runtime:
        def count(events):
            nonlocal left
            left -= len(events)
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
        runtime.exchange.on_events = count
        await runtime.ask(actor, "review", path=path, out=out, batch_files=10, command_id="the-review", timeout_s=60)

asyncio.run(main(*sys.argv[1:5], int(sys.argv[5])))
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of an installed package, with one fault of each sort put in."""
    found = importlib.util.find_spec("structlog")
    assert found is not None
    assert found.origin is not None
    root = tmp_path / "structlog"
    shutil.copytree(Path(found.origin).parent, root, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "broken.py").write_text("def f(:\n")
    (root / "shell.py").write_text("import subprocess\n\n\ndef r(text):\n    subprocess.call(text, shell=True)\n    return 1\n    r('')\n")
    (root / "ring_a.py").write_text("from structlog import ring_b\n")
    (root / "ring_b.py").write_text("from structlog import ring_a\n")
    return root


async def review(runtime: LocalRuntime, root: Path, out: Path, **arguments: Any) -> dict[str, Any]:
    actor = f"orchestrator/{workspace_id(root)}"
    reply: dict[str, Any] = await runtime.ask(actor, "review", path=str(root), out=str(out), timeout_s=100, **arguments)
    return reply


async def recorded(data: Path) -> list[RecordedEvent]:
    reader = await SqliteLogReader.open(data)
    try:
        return [event async for event in merged(reader)]
    finally:
        await reader.close()


def examined(events: list[RecordedEvent]) -> Counter[tuple[str, str, str, str]]:
    """How often a result was recorded, by agent, analyser, path and digest."""
    digests: dict[tuple[str, str | None, str, str], str] = {}
    found: Counter[tuple[str, str, str, str]] = Counter()
    for event in events:
        if event.type not in ("step.started", "step.completed"):
            continue
        step = msgspec.json.decode(event.payload)
        if step["key"] is None or not event.stream.startswith(("architect/", "performance/", "reviewer/")):
            continue
        use = (event.stream, event.command_id, step["name"], step["key"])
        if event.type == "step.started":
            digests[use] = step["args"][2]
        else:
            found[(event.stream.partition("/")[0], step["name"], step["key"], digests[use])] += 1
    return found


def files_below(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def without_run(path: Path) -> Report:
    return msgspec.structs.replace(read_json(path.read_bytes()), run=RunInfo())


def mutual(imports: list[Any]) -> list[list[str]]:
    """Cycles another way: modules that reach each other, by the closure of the relation."""
    reach: dict[str, set[str]] = {}
    for edge in imports:
        reach.setdefault(edge.source, set()).add(edge.to)
    grown = True
    while grown:
        grown = False
        for targets in reach.values():
            further = set().union(*(reach.get(target, set()) for target in targets)) - targets
            targets |= further
            grown = grown or bool(further)
    groups = {tuple(sorted(b for b in reach[a] if a in reach.get(b, set()))) for a in reach if a in reach[a]}
    return sorted(list(group) for group in groups)


async def test_a_review_finds_what_is_there(package: Path, tmp_path: Path) -> None:
    """Files, complexity and cycles equal counts made another way; each planted fault is among the findings."""
    from radon.complexity import cc_visit

    before = files_below(package)
    async with local_runtime(app, tmp_path / "data") as runtime:
        summary = await review(runtime, package, tmp_path / "out")
    report = read_json((tmp_path / "out" / "report.json").read_bytes())
    assert files_below(package) == before
    assert {file.path: file.lines for file in report.files} == {path: len(text.splitlines()) for path, text in before.items()}
    parsed = {path: text.decode() for path, text in before.items() if path.endswith(".py") and path != "broken.py"}
    highest = max(block.complexity for text in parsed.values() for block in cc_visit(text))
    assert summary["worst"]["complexity"] == report.complexity[0].complexity == highest
    assert report.cycles == mutual(report.imports)
    assert ["structlog.ring_a", "structlog.ring_b"] in report.cycles
    found = {(finding.rule, finding.file, finding.line) for finding in report.findings}
    assert {("syntax-error", "broken.py", 1), ("S602", "shell.py", 5), ("unreachable-code", "shell.py", 7)} <= found
    assert summary["findings"] == report.summary.findings_by_severity
    assert summary["unavailable"] == []
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.html", "report.json", "report.md"]


async def test_every_file_is_examined_once_and_never_again(package: Path, tmp_path: Path) -> None:
    """The second review takes every result from the states and gives the same report but for `run`."""
    data, out = tmp_path / "data", tmp_path / "out"
    async with local_runtime(app, data) as runtime:
        first = await review(runtime, package, out / "1", batch_files=7)
        seen = len(await recorded(data))
        second = await review(runtime, package, out / "2")
    events = await recorded(data)
    python = sum(path.endswith(".py") for path in files_below(package))
    assert (first["results_made"], first["results_reused"]) == (5 * python, 0)
    assert (second["results_made"], second["results_reused"]) == (0, 5 * python)
    assert set(examined(events).values()) == {1}
    assert len(examined(events)) == 5 * python
    assert not examined(events[seen:])
    assert without_run(out / "1" / "report.json") == without_run(out / "2" / "report.json")


async def test_only_what_changed_is_examined(package: Path, tmp_path: Path) -> None:
    """Also after a restart: what is re-used comes from the log."""
    data, out = tmp_path / "data", tmp_path / "out"
    async with local_runtime(app, data) as runtime:
        await review(runtime, package, out / "1")
    seen = len(await recorded(data))
    (package / "ring_a.py").write_text("x = 1\n")
    (package / "shell.py").unlink()
    async with local_runtime(app, data) as runtime:
        changed = await review(runtime, package, out / "2")
    assert changed["results_made"] == 5
    assert {path for _, _, path, _ in examined((await recorded(data))[seen:])} == {"ring_a.py"}
    report = read_json((out / "2" / "report.json").read_bytes())
    assert not [file for file in report.files if file.path == "shell.py"]
    assert not [finding for finding in report.findings if finding.file == "shell.py"]
    assert ["structlog.ring_a", "structlog.ring_b"] not in report.cycles
    async with local_runtime(app, tmp_path / "fresh") as runtime:
        await review(runtime, package, out / "3")
    assert without_run(out / "2" / "report.json") == without_run(out / "3" / "report.json")


@pytest.mark.crash
@pytest.mark.parametrize("events", [20, 90, 200, 340])
async def test_a_killed_review_goes_on_where_it_was(package: Path, tmp_path: Path, events: int) -> None:
    """Killed after so many events, then started again: the same command ends, and no file is examined twice by one analyser."""
    data, out = tmp_path / "data", tmp_path / "out"
    actor = f"orchestrator/{workspace_id(package)}"
    killed = subprocess.run(
        [sys.executable, "-P", "-c", KILLED, str(data), actor, str(package), str(out), str(events)],
        check=False, capture_output=True, timeout=60,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    before = examined(await recorded(data))
    async with local_runtime(app, data) as runtime:
        summary = await review(runtime, package, out, batch_files=10, command_id="the-review")
    after = examined(await recorded(data))
    assert set(after.values()) == {1}
    assert before <= after
    assert len(after) == summary["results_made"] == 5 * summary["python_files"]
    async with local_runtime(app, tmp_path / "fresh") as runtime:
        await review(runtime, package, tmp_path / "whole")
    assert without_run(out / "report.json") == without_run(tmp_path / "whole" / "report.json")


async def test_the_states_fold_to_what_was_live(package: Path, tmp_path: Path) -> None:
    """Everything a review leaves in a state stands in its events."""
    data = tmp_path / "data"
    async with local_runtime(app, data) as runtime:
        await review(runtime, package, tmp_path / "out")
    reader = await SqliteLogReader.open(data)
    try:
        checks = [check async for check in verify_states(reader, app.registry)]
    finally:
        await reader.close()
    assert {check.stream.partition("/")[0] for check in checks} == {*(str(cls.__actor_name__) for cls in TEAM), "memory"}
    assert not [check for check in checks if check.difference is not None]
    assert sum(check.hashes for check in checks) > 0


async def test_a_review_says_what_is_new_and_what_was_fixed(package: Path, tmp_path: Path) -> None:
    """Since the last one, from the memory of the workspace; also after a restart, and not because of a line that moved."""
    data, out = tmp_path / "data", tmp_path / "out"
    async with local_runtime(app, data) as runtime:
        first = await review(runtime, package, out / "1")
        again = await review(runtime, package, out / "2")
    found = sum(first["findings"].values())
    assert first["since"]["review"] is None
    assert first["since"]["new"] == found
    assert (again["since"]["review"], again["since"]["findings"]) == (first["review"], found)
    assert (again["since"]["new"], again["since"]["fixed"]) == (0, 0)
    shell = (package / "shell.py").read_text()
    (package / "shell.py").write_text("# moved by a line\n" + shell.replace("    r('')\n", ""))
    (package / "ring_a.py").write_text("import os\n")
    async with local_runtime(app, data) as runtime:
        third = await review(runtime, package, out / "3")
        memories = await runtime.ask(f"memory/{workspace_id(package)}", "standing", subject="findings")
    since = third["since"]
    assert since["review"] == again["review"]
    assert [text.split()[1:2] for text in since["fixed_findings"]] == [["unreachable-code"], ["F401"]]
    assert all("shell.py" in text or "ring_a.py" in text for text in since["fixed_findings"])
    assert [text.split()[1] for text in since["new_findings"]] == ["F401"]
    assert not [text for text in since["new_findings"] + since["fixed_findings"] if "S602" in text]
    assert memories["total"] == memories["known"] == sum(third["findings"].values())
    for name in ("report.md", "report.html"):
        page = (out / "3" / name).read_text()
        assert "Since the last review" in page
        assert "unreachable" in page.partition("Since the last review")[2].partition("Findings")[0]
    assert "Since the last review" not in (out / "1" / "report.md").read_text()
    report = read_json((out / "3" / "report.json").read_bytes())
    assert report.run.since is not None
    assert (report.run.since.new, report.run.since.fixed) == (since["new"], since["fixed"])


async def test_what_is_different_is_no_part_of_what_was_found(package: Path, tmp_path: Path) -> None:
    """report.json is that of a review which knows no other, but for `run`."""
    data, out = tmp_path / "data", tmp_path / "out"
    async with local_runtime(app, data) as runtime:
        await review(runtime, package, out / "1")
        (package / "shell.py").unlink()
        await review(runtime, package, out / "2")
    async with local_runtime(app, tmp_path / "fresh") as runtime:
        await review(runtime, package, out / "3")
    assert without_run(out / "2" / "report.json") == without_run(out / "3" / "report.json")
    assert read_json((out / "2" / "report.json").read_bytes()).run.since != read_json((out / "3" / "report.json").read_bytes()).run.since


async def test_a_review_goes_on_without_a_memory(package: Path, tmp_path: Path) -> None:
    """It says that nothing was compared, and why."""
    async with local_runtime(App(actors=TEAM), tmp_path / "data") as runtime:
        summary = await review(runtime, package, tmp_path / "out")
    assert "memory" in summary["since"]["missing"]
    assert summary["unavailable"] == []


async def test_a_wrong_path_is_refused(tmp_path: Path) -> None:
    """The refusal names the path, and nothing is left behind."""
    from actors.errors import Rejected

    async with local_runtime(app, tmp_path / "data") as runtime:
        with pytest.raises(Rejected, match="cannot be opened"):
            await review(runtime, tmp_path / "no", tmp_path / "out")
    assert not (tmp_path / "out").exists()


async def test_names_that_hold_secrets_are_counted_and_not_read(tmp_path: Path) -> None:
    """No agent reads such a file; aux.py and its like are odd names and no secrets."""
    root = tmp_path / "code"
    root.mkdir()
    (root / "id_rsa_backup.py").write_text("KEY = 'sk-canary-51'\n\n\ndef secret(x):\n    return x if x else 0\n")
    (root / "aux.py").write_text("def plain(x):\n    return x if x else 0\n")
    async with local_runtime(app, tmp_path / "log") as runtime:
        summary = await review(runtime, root, tmp_path / "out")
    report = read_json((tmp_path / "out" / "report.json").read_bytes())
    assert {each.path for each in report.files} == {"id_rsa_backup.py", "aux.py"}
    assert {block.path for block in report.complexity} == {"aux.py"}
    assert any("id_rsa_backup.py" in said and "hold secrets" in said for said in summary["unavailable"])
    assert not any(b"sk-canary-51" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and root not in path.parents)


async def test_a_run_can_ask_for_a_review_in_words(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    async with local_runtime(app, tmp_path / "log") as runtime:
        await runtime.ask("task/r", "start", session="s", goal="prüfe den Code und die Tests", root=str(package), needs_approval=False)

        async def end() -> Any:
            status = await runtime.ask("task/r", "status")
            return status if status["phase"] == "ended" else None

        status = await eventually(end, "the run has ended")
    assert (status["outcome"], status["steps"][0]["agent"]) == ("done", "reviewer"), status
    files = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    assert any(path.startswith(".cuebook/") for path in files)
    listed = {each.path for each in read_json(next((tmp_path / "state").rglob("report.json")).read_bytes()).files}
    assert listed == {path for path in files if not path.startswith(".cuebook/")}, "what Cuebook keeps there is no part of it"
    report = next((tmp_path / "state").rglob("report.html"))
    assert str(report) in status["steps"][0]["text"]
