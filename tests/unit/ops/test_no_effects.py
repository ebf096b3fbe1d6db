"""S33, I-9: replay is a fold. None of the verbs that look or travel causes an effect: no network, no file, no process, no handler."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ops.settings import name_app
from tests.support.errands import make_errands
from tests.support.mines import MINE_CODE

ROOT = Path(__file__).parents[3]
BOB = "buyer/bob"
VERBS = [
    ["log"], ["log", "-n", "0", "-type:step.*", "actor:buyer/*", "bread"], ["log", "--error"], ["tail"], ["tail", "--from", "start"],
    ["streams"], ["ps"], ["show", "PLACE", "--state", "--patch", "--causes", "--effects"], ["state", BOB], ["state", BOB, "--at", "6"],
    ["state", BOB, "--at", "1h"], ["trace", "errand-1"], ["trace", "errand-1", "--messages"], ["trace", "errand-1", "--mermaid"],
    ["trace", "errand-1", "--svg=-"], ["diff", BOB, "0", "14"], ["diff", BOB, "0", "14", "--as", "tree"], ["blame", BOB, "/total"],
    ["blame", BOB, "/prices/tea", "--all"], ["replay"], ["replay", BOB], ["replay", BOB, "--to", "6"], ["replay", "--verify"],
    ["compare", "errand-1", "errand-2"], ["branches", BOB], ["replay", BOB, "--step"], ["replay", BOB, "--break-on", "state.total > 10"],
]  # fmt: skip


@pytest.fixture(scope="module")
def errands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("errands")
    make_errands(data)
    return data


def trapped(data: Path, lines: list[list[str]]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.effect_trap", str(data)], input=json.dumps(lines), cwd=ROOT, capture_output=True, text=True,
        timeout=120, check=False, env={"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1", "CUEBOOK_APP": "tests.support.mines:app"},
    )  # fmt: skip
    assert done.returncode != MINE_CODE, "a handler was called"
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def content(folder: Path) -> dict[str, bytes]:
    """Every file but SQLite's shared index, which is rebuilt by whoever looks and holds no fact."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.endswith(("-shm", "-wal")))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_no_verb_that_looks_or_travels_causes_an_effect(errands: Path, tmp_path: Path) -> None:
    """On a copied data folder, with no server, under an app whose handlers end the process."""
    data = tmp_path / "copy"
    shutil.copytree(errands, data)
    before = content(data)
    lines = [[word.replace("PLACE", "3:6") for word in line] for line in VERBS]
    found = trapped(data, lines)
    assert found["caught"] == []
    failed = [each for each in found["codes"] if each["code"] != 0]
    assert failed == []
    assert all(each["rows"] > 0 for each in found["codes"] if each["line"] not in (["ps"], ["branches", BOB])), found["codes"]
    assert content(data) == before


def test_the_trap_catches(errands: Path, tmp_path: Path) -> None:
    """Verbs with an effect, so that the test above proves something: a picture into a file, an ask over the network."""
    found = trapped(errands, [["trace", "errand-1", "--svg", str(tmp_path / "x.svg")]])
    assert any("x.svg" in each for each in found["caught"])
    assert not (tmp_path / "x.svg").exists()


IMPURE = """
import pathlib
import time
from actors import Actor, Event, State
from runtime import App

class Orders(State):
    total: float = 0

class Ordered(Event[Orders], tag="errand.ordered"):
    item: str
    price: int
    def apply(self, state: Orders) -> None:
        ACT

class Forgot(Event[Orders], tag="errand.forgot"):
    item: str
    def apply(self, state: Orders) -> None:
        pass

class Buyer(Actor[Orders], name="buyer"):
    pass

app = App(actors=[Buyer])
"""


@pytest.mark.parametrize("act", ["state.total = time.time()", "pathlib.Path('FILE').write_text('x')"])
@pytest.mark.parametrize("verb", [["state", BOB], ["diff", BOB, "0", "6"], ["blame", BOB, "/total"], ["replay", BOB, "--step"]])
def test_an_apply_that_reaches_outside_is_stopped_and_named(errands: Path, tmp_path: Path, act: str, verb: list[str]) -> None:
    """S16: also where the code at hand is somebody's changed one."""
    name = f"impure_{abs(hash(act))}"
    (tmp_path / f"{name}.py").write_text(IMPURE.replace("ACT", act.replace("FILE", str(tmp_path / "made"))))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "log").symlink_to(errands / "log")
    name_app(tmp_path / "data", f"{name}:app")
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-P", "-m", "ops", *verb, "--data", str(tmp_path / "data")]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 1, done.stderr
    assert f"{BOB} version 6: apply() c" in done.stderr
    assert not (tmp_path / "made").exists()


def test_a_copy_in_a_folder_that_cannot_be_written_is_read_without_a_trace(errands: Path, tmp_path: Path) -> None:
    """A copied folder on a read-only medium has no -wal and no -shm, and gets none."""
    data = tmp_path / "copy"
    shutil.copytree(errands, data, ignore=shutil.ignore_patterns("*-wal", "*-shm"))
    code = f"import os, sys; os.access = lambda *_: False; from ops.__main__ import main; sys.exit(main(['log', '--data', {str(data)!r}]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
    assert not [path for path in (data / "log").iterdir() if path.name.endswith(("-wal", "-shm"))]
