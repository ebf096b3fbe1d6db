"""What each package offers by name, pinned; and what importing it costs in modules, which is what it costs in time."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = ("events", "actors", "projections", "runtime", "ops")
EXPORTS = {
    "events": {
        "MAIN_BRANCH", "AppendOutcomeUnknownError", "CommandId", "CorruptLogError", "CuebookError", "EventId", "InvariantError", "Kind",
        "LogFullError", "NewEvent", "Position", "RecordedEvent", "StreamId", "SupersededError", "TransientError", "Version",
        "WrongExpectedVersionError", "stream_id",
    },
    "actors": {
        "Actor", "ActorError", "Event", "Rejected", "Sensitive", "State", "StepFailed", "WaitExpired", "command",
        "idempotency_key", "query", "upcaster",
    },
    "projections": {"Database", "Projection", "operation", "row_id"},
    "runtime": {"App", "connect"},
    "ops": set[str](),
}  # fmt: skip
"""A name that goes breaks somebody's program; one that comes is a promise. Both belong into the changelog."""


@pytest.mark.parametrize("name", OURS)
def test_the_exports_are_pinned(name: str) -> None:
    package = importlib.import_module(name)
    listed = list(getattr(package, "__all__", ()))
    assert set(listed) == EXPORTS[name]
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("name", OURS)
def test_every_export_can_be_imported(name: str) -> None:
    package = importlib.import_module(name)
    for export in EXPORTS[name]:
        assert getattr(package, export) is not None
    with pytest.raises(AttributeError):
        _ = package.no_such_name


@pytest.mark.parametrize("name", OURS)
def test_nothing_of_ours_is_exported_by_accident(name: str) -> None:
    """What an `__init__` imports from our own modules is either offered or has no place there."""
    package = importlib.import_module(name)
    stray = {
        found
        for found, value in vars(package).items()
        if not found.startswith("_") and str(getattr(value, "__module__", "")).partition(".")[0] in OURS
    }
    assert stray <= EXPORTS[name]


def loaded_by(statement: str) -> set[str]:
    """The modules that `statement` loads in a new interpreter: our own in full, others by their first name."""
    code = f"import json, sys; before = set(sys.modules)\n{statement}\nprint(json.dumps(sorted(set(sys.modules) - before)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30)
    found = json.loads(done.stdout)
    firsts = {name if name.partition(".")[0] in OURS else name.partition(".")[0] for name in found}
    # msgspec looks for typing_extensions and takes it where something else has installed it.
    return firsts - set(sys.stdlib_module_names) - {"typing_extensions"}


def test_import_events_costs_msgspec_and_nothing_else() -> None:
    assert {name for name in loaded_by("import events") if not name.startswith("events")} == {"msgspec"}


def test_import_actors_loads_no_runtime_and_no_client_library() -> None:
    loaded = loaded_by("import actors")
    assert {name.partition(".")[0] for name in loaded} == {"actors", "events", "msgspec"}


def test_import_runtime_loads_no_client_library() -> None:
    loaded = loaded_by("import runtime")
    assert not loaded & {"aiosqlite", "nats", "pysqlite3", "redis", "uvloop"}
    assert "ops" not in loaded


def test_import_projections_loads_neither_actors_nor_runtime() -> None:
    assert not {name.partition(".")[0] for name in loaded_by("import projections")} & {"actors", "runtime", "ops"}
