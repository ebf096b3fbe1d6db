"""`replay --verify --app NEW` as the gate of an upgrade, and what starts on a folder of another app says (S7)."""

import asyncio
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.upcast import REGISTERED
from ops.__main__ import main
from ops.commands.health import lacking as lacking_now
from ops.settings import Settings
from runtime.app import App
from runtime.local import LocalRuntime, local_runtime

OLD = """
import asyncio
from actors import Actor, Event, State, command, query
from runtime import App

HELD = asyncio.Event()


class Till(State):
    cents: int = 0


class Paid(Event[Till], tag="till_gate.paid"):
    cents: int

    def apply(self, state: Till) -> None:
        state.cents += self.cents


async def wait_for_the_bank() -> int:
    HELD.set()
    await asyncio.Event().wait()


class TillActor(Actor[Till], name="till"):
    @command
    async def pay(self, cents: int) -> int:
        self.emit(Paid(cents=cents))
        return self.state.cents

    @command
    async def clear_with_bank(self, day: int) -> int:
        return await self.step("bank", wait_for_the_bank)


class Shelf(Actor[State], name="shelf"):
    @command
    async def look(self) -> int:
        return await self.step("look", lambda: 5)


app = App(actors=[TillActor, Shelf], version="old")
"""

UPCAST = OLD.replace('tag="till_gate.paid")', 'tag="till_gate.paid", version=2)').replace(
    "    cents: int\n\n    def apply", "    cents: int\n    by: str\n\n    def apply"
)
STEP = """
from actors import upcaster


@upcaster("till_gate.paid", 1)
def with_payer(old):
    return {**old, "by": "unknown"}


"""


def edited(*pairs: tuple[str, str], source: str = OLD) -> str:
    for old, new in pairs:
        assert old in source
        source = source.replace(old, new)
    return source


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose till/a has 120 payments, and whose till/b stopped in the middle of a turn."""
    data = tmp_path_factory.mktemp("gate")
    code = tmp_path_factory.mktemp("code")
    (code / "gate_old.py").write_text(OLD)
    sys.path.append(str(code))
    try:
        gate_old = importlib.import_module("gate_old")
    finally:
        sys.path.remove(str(code))

    async def make() -> None:
        app: App = gate_old.app
        async with local_runtime(app, data / "log") as cue:
            for _ in range(120):
                await cue.ask("till/a", "pay", cents=1)
            await cue.ask("shelf/s", "look")
            await stop_inside(cue, gate_old.HELD)

    asyncio.run(make())
    return data


async def stop_inside(cue: LocalRuntime, held: asyncio.Event) -> None:
    """As if the process were gone in the middle of a step."""
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(cue.ask("till/b", "clear_with_bank", command_id="night", day=5))
        await held.wait()
        asked.cancel()
    for shard in cue.shards:
        shard.abandon()


Gate = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def gate(deployment: Path, tmp_path: Path, no_settings: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Gate:
    """Runs the gate with new code; returns (exit code, rows by stream, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    # One process is one app: here each test is.
    monkeypatch.setattr(REGISTERED, "_steps", dict(REGISTERED._steps))

    def run(source: str, *more: str) -> tuple[int, dict[str, Any], str]:
        name = f"gate_{abs(hash(source))}"
        (tmp_path / f"{name}.py").write_text(source)
        code = main(["replay", *more, "--verify", "--app", f"{name}:app", "--data", str(deployment)])
        out, err = capsys.readouterr()
        return code, {row["stream"]: row for row in map(json.loads, out.splitlines())}, err

    return run


def test_the_same_code_passes_and_the_open_turn_is_listed(gate: Gate) -> None:
    code, rows, err = gate(OLD)
    assert (code, sorted(rows)) == (0, ["shelf/s", "till/a", "till/b"])
    assert [row["difference"] for row in rows.values()] == [None] * 3
    assert rows["till/b"]["open_turns"] == [
        {"command_id": "night", "version": 1, "method": "clear_with_bank", "waits": [], "problem": None}
    ]
    assert rows["till/a"]["open_turns"] == rows["shelf/s"]["open_turns"] == []
    assert "till/b version 1: the turn clear_with_bank (night) is open: its method and arguments are known" in err
    assert "1 turns open: 0 differ" in err


def test_a_new_version_without_an_upcaster_is_stopped_and_with_one_passes(gate: Gate) -> None:
    """The state hash that the old code recorded at version 100 is met through the upcaster."""
    code, rows, err = gate(UPCAST)
    assert code == 4
    assert (rows["till/a"]["difference"]["what"], rows["till/a"]["difference"]["version"]) == ("fold", 1)
    assert '@upcaster("till_gate.paid", 1)' in err
    code, rows, _ = gate(STEP + UPCAST)
    assert (code, rows["till/a"]["hashes"], rows["till/a"]["difference"]) == (0, 1, None)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (edited(("clear_with_bank", "settle")), "till has no method 'clear_with_bank'"),
        (edited(("day: int", "day: str")), "its recorded arguments do not fit: clear_with_bank: Expected `str`"),
        (edited(("day: int", "day: int, hour: int")), "missing required field `hour`"),
        (
            edited(("@command\n    async def clear_with_bank", "@query\n    def clear_with_bank"), ("await self.step", "self.step")),
            "is a query now",
        ),
    ],
)
def test_an_open_turn_that_the_new_code_cannot_finish_stops_the_upgrade(gate: Gate, source: str, says: str) -> None:
    code, rows, err = gate(source)
    assert code == 4
    difference = rows["till/b"]["difference"]
    assert (difference["what"], difference["version"]) == ("turn", 1)
    assert says in difference["found"]
    assert says in err
    assert "cannot go on" in err
    assert rows["till/a"]["difference"] is None


def test_an_argument_with_a_default_may_be_added(gate: Gate) -> None:
    assert gate(edited(("day: int", "day: int, hour: int = 3")))[0] == 0


def test_each_actor_names_its_own_first_difference(gate: Gate) -> None:
    doubled = edited(("state.cents += self.cents", "state.cents += 2 * self.cents"), ("clear_with_bank", "settle"))
    code, rows, _ = gate(doubled)
    found = {stream: (row["difference"] or {}).get("what") for stream, row in rows.items()}
    assert (code, found) == (4, {"shelf/s": None, "till/a": "state_hash", "till/b": "turn"})
    assert rows["till/a"]["difference"]["version"] == 100


def test_an_actor_type_that_the_new_code_has_lost_stops_the_upgrade(gate: Gate) -> None:
    """S7: no worker with it would take that shard."""
    code, rows, err = gate(edited(("[TillActor, Shelf]", "[TillActor]")))
    assert (code, rows["shelf/s"]["difference"]["what"]) == (4, "code")
    assert "shelf/s version 1: code expected actor type shelf, found none in this app" in err


def test_up_to_a_version_no_turn_is_open(gate: Gate) -> None:
    """--to is a look at the past; which turns wait for the new code is a question about the end."""
    code, rows, _ = gate(edited(("clear_with_bank", "settle")), "till/b", "--to", "1")
    assert (code, rows["till/b"]["open_turns"]) == (0, [])


@pytest.mark.usefixtures("no_settings")
@pytest.mark.parametrize("arguments", [("review", ".", "--once"), ("up", "--app", "ops.team_app:app")])
def test_another_app_on_the_folder_is_refused_before_anything_starts(
    deployment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    """S7, in one clear sentence; and the app that the folder remembers stays."""
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--data", str(deployment)]) == 2
    _, err = capsys.readouterr()
    assert f"the log in {deployment} belongs to another app than ops.team_app:app: name another folder with --data" in err
    assert "why: code for shard" in err
    assert "the app lacks actor type" in err
    assert "next: the same command with --data ANOTHER-FOLDER" in err
    assert not (deployment / "cuebook.toml").exists()


def test_doctor_and_status_say_which_shard_waits_for_other_code(
    deployment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CUEBOOK_NATS_URL", raising=False)
    monkeypatch.setenv("CUEBOOK_APP", "ops.team_app:app")
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", "--data", str(deployment)]) == 1
    out, err = capsys.readouterr()
    rows = {row["check"]: row for row in map(json.loads, out.splitlines())}
    lacking = {name: row for name, row in rows.items() if name.startswith("code for shard")}
    assert lacking
    assert not any(row["ok"] for row in lacking.values())
    assert any("event till_gate.paid" in row["found"] and "actor type 'till'" in row["found"] for row in lacking.values())
    assert "start the app that wrote it" in err
    said = asyncio.run(lacking_now(Settings(data=deployment, app="ops.team_app:app")))
    assert said == [f"{row['check']}: {row['found']}; {row['remedy']}" for row in lacking.values()]
