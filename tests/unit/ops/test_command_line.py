"""The command itself: light help, five headings, exit codes, and that a user's files never take the place of ours."""

import importlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from ops.commands import GROUP_SUMMARIES, HEADINGS, VERBS
from ops.exits import StartError
from ops.search_path import check_packages, load_object

HEAVY = ("nats", "redis", "langgraph", "numpy", "aiosqlite", "sqlite3", "pysqlite3", "structlog", "asyncio")


def cuebook(*arguments: str, cwd: Path | None = None, **environment: str) -> "subprocess.CompletedProcess[str]":
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CUEBOOK_")}
    return subprocess.run(
        [sys.executable, "-P", "-m", "ops", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=cwd or Path(__file__).parents[3],
        env={**inherited, "PYTHONPATH": str(Path(__file__).parents[3]), **environment},
    )


def test_help_imports_nothing_heavy() -> None:
    """A count instead of a time: these are what made start-up slow (facts/interfaces.md 3.2)."""
    code = (
        "import sys; from ops.__main__ import main; main(['--help']);"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stderr.strip() == "[]"
    assert all(f" {verb.words.split()[0]} " in done.stdout for verb in VERBS if verb.shown)


def test_every_row_of_the_table_leads_to_a_function_with_that_summary() -> None:
    for verb in VERBS:
        module, _, name = verb.target.partition(":")
        function = getattr(importlib.import_module(module), name)
        assert str(function.__doc__).splitlines()[0] == verb.summary, verb.words


def test_a_heading_shows_at_most_eight_verbs() -> None:
    shown = {(verb.heading, verb.words.split()[0]) for verb in VERBS if verb.shown}
    count = Counter(heading for heading, _ in shown)
    assert max(count.values()) <= 8
    assert set(count) <= set(HEADINGS)
    assert {verb.words.split()[0] for verb in VERBS if " " in verb.words} == set(GROUP_SUMMARIES)


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), ("--version",), ("stop", "--help"), ("config", "--help")])
def test_help_and_version_exit_with_0(arguments: tuple[str, ...]) -> None:
    assert cuebook(*arguments).returncode == 0


@pytest.mark.parametrize("arguments", [("frob",), ("stop", "--nox"), ("config", "frob"), ("config", "show", "surplus")])
def test_a_wrong_command_line_exits_with_2_and_names_the_help(arguments: tuple[str, ...]) -> None:
    done = cuebook(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("next: ")
    assert "Traceback" not in done.stderr


def test_stop_without_a_deployment_exits_with_3(tmp_data: Path) -> None:
    done = cuebook("stop", "--data", str(tmp_data))
    assert (done.returncode, done.stdout) == (3, "")


def test_config_show_gives_one_json_line_per_setting_and_no_password(tmp_data: Path) -> None:
    done = cuebook("config", "show", "--origin", "--data", str(tmp_data), CUEBOOK_NATS_URL="nats://u:hush@h:1", CUEBOOK_WRKERS="1")
    rows = {row["setting"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert rows["data"] == {"setting": "data", "value": str(tmp_data), "origin": "command line"}
    assert rows["nats_url"]["value"] == "nats://h:1"
    assert "CUEBOOK_WRKERS" in done.stderr
    assert "hush" not in done.stdout + done.stderr


def test_version_names_the_parts() -> None:
    found = json.loads(cuebook("version", "--json").stdout)
    assert found["loop"] in ("uvloop", "asyncio")
    assert all(found[name] for name in ("python", "codec", "sqlite", "nats-py", "nats-server"))


@pytest.mark.parametrize("shadow", ["events.py", "runtime/__init__.py"])
def test_a_file_that_takes_the_place_of_ours_is_named_and_not_run(tmp_path: Path, shadow: str) -> None:
    """-P keeps the folder itself off the path; PYTHONPATH can still put it first (S39)."""
    path = tmp_path / shadow
    path.parent.mkdir(exist_ok=True)
    path.write_text("raise SystemExit('ran')\n")
    root = str(Path(__file__).parents[3])
    done = cuebook("version", cwd=tmp_path, PYTHONPATH=f"{tmp_path}{os.pathsep}{root}")
    assert done.returncode == 2
    assert str(path) in done.stderr
    assert "ran" not in done.stderr.split()


def test_a_users_own_events_and_ops_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "events.py").write_text("raise SystemExit('ran')\n")
    (tmp_path / "ops").mkdir()
    (tmp_path / "ops" / "__init__.py").write_text("raise SystemExit('ran')\n")
    assert cuebook("version", cwd=tmp_path).returncode == 0


def test_our_packages_come_from_one_place() -> None:
    check_packages()
    with pytest.raises(StartError, match="json"):
        check_packages(("json",))


def test_an_app_is_found_in_the_current_folder_which_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bank_for_this_test.py").write_text("class box:\n    app = 7\n")
    (tmp_path / "json.py").write_text("raise SystemExit('ran')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert load_object("bank_for_this_test:box.app") == 7
    assert sys.path[-1] == str(tmp_path)


@pytest.mark.parametrize("spec", ["bank", "bank:", ":app", "ba nk:app", "no_such_module_here:app", "json:nothing"])
def test_an_app_that_is_not_there_is_a_usage_error(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(StartError):
        load_object(spec)


def test_what_an_app_itself_fails_to_import_is_not_mistaken_for_a_missing_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needy_for_this_test.py").write_text("import no_such_module_here\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(ModuleNotFoundError, match="no_such_module_here"):
        load_object("needy_for_this_test:app")
