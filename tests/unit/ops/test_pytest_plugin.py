"""The upgrade gate inside pytest: a recorded log against the checked-out code, from the outside, as a project's CI runs it."""

import asyncio
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from events.keeping.export import export
from runtime.local import local_runtime

SOURCE = """
from actors import Actor, Event, State, command
from runtime import App


class Till(State):
    cents: int = 0


class Paid(Event[Till], tag="till_plugin.paid"):
    cents: int

    def apply(self, state: Till) -> None:
        state.cents += self.cents


class TillActor(Actor[Till], name="till"):
    @command
    async def pay(self, cents: int) -> int:
        self.emit(Paid(cents=cents))
        return self.state.cents


app = App(actors=[TillActor], version="1")
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log that one version of an app wrote: 101 events of one till, so that a state hash is recorded, and one of another."""
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "plugin_till.py").write_text(SOURCE)
    sys.path.insert(0, str(folder))
    try:
        app = importlib.import_module("plugin_till").app
    finally:
        sys.path.remove(str(folder))
        del sys.modules["plugin_till"]

    async def make() -> None:
        async with local_runtime(app, folder / "data" / "log", shards=2) as cue:
            for _ in range(101):
                await cue.ask("till/1", "pay", cents=5)
            await cue.ask("till/2", "pay", cents=7)

    asyncio.run(make())
    return folder / "data"


def run(project: Path, log: Path, *arguments: str, app: str = "plugin_till:app") -> subprocess.CompletedProcess[str]:
    """pytest in a project of somebody else, with no other plug-in, which would only take time."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--cuebook-log", str(log), *arguments]
    command += ["-p", "ops.pytest_plugin", *(["--cuebook-app", app] if app else [])]
    return subprocess.run(
        command, cwd=project, capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )  # fmt: skip


def project(tmp_path: Path, source: str) -> Path:
    (tmp_path / "plugin_till.py").write_text(source)
    (tmp_path / "test_own.py").write_text("def test_own():\n    pass\n")
    return tmp_path


def test_the_code_that_wrote_the_log_passes_one_test_per_stream_beside_the_projects_own(recorded: Path, tmp_path: Path) -> None:
    ran = run(project(tmp_path, SOURCE), recorded, "-vv")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "3 passed" in ran.stdout
    assert "till/1 PASSED" in ran.stdout


def test_an_apply_that_leads_elsewhere_fails_with_the_first_difference_of_that_actor(recorded: Path, tmp_path: Path) -> None:
    ran = run(project(tmp_path, SOURCE.replace("+= self.cents", "+= self.cents * 2")), recorded)
    assert ran.returncode == 1
    assert "till/1 is not read as it was recorded:\nversion 100: state_hash expected" in ran.stdout
    assert "2 passed" in ran.stdout  # till/2 has no recorded hash to differ from


def test_a_missing_event_type_is_named(recorded: Path, tmp_path: Path) -> None:
    ran = run(project(tmp_path, SOURCE.replace("till_plugin.paid", "till_plugin.settled")), recorded)
    assert ran.returncode == 1
    assert "till_plugin.paid" in ran.stdout
    assert "2 failed, 1 passed" in ran.stdout


def test_an_export_is_a_log_too(recorded: Path, tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    export(recorded / "log", file)
    ran = run(project(tmp_path, SOURCE), file)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "3 passed" in ran.stdout


@pytest.mark.parametrize(
    ("log", "app", "said"),
    [
        ("nowhere", "plugin_till:app", "neither a log nor an export"),
        ("log", "", "go together"),
        ("log", "plugin_till:nothing", "plugin_till:nothing"),
    ],
)
def test_what_cannot_be_checked_is_a_usage_error_and_not_a_pass(recorded: Path, tmp_path: Path, log: str, app: str, said: str) -> None:
    ran = run(project(tmp_path, SOURCE), recorded if log == "log" else tmp_path / log, app=app)
    assert ran.returncode == 4, ran.stdout
    assert said in ran.stderr


def test_without_its_options_the_plugin_imports_nothing_of_ours(tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text(
        "import sys\n\ndef test_own():\n    assert not {'actors', 'runtime', 'nats', 'msgspec'} & set(sys.modules)\n"
    )
    # By its entry point, as in every project that has this distribution installed.
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", "--trace-config"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout
    assert "ops.pytest_plugin" in ran.stdout or "pytest_plugin.py" in ran.stdout
