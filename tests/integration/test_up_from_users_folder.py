"""`up` where a user stands: beside modules that are called as ours are, and without uvloop (S39, issue 2)."""

import json
import sys
from pathlib import Path

import nats
import pytest

from tests.support.deployment import Deployment, run_cuebook, wait_until
from tests.support.wire import ask

MYBANK = '''
"""An app of a user, whose folder also holds an events.py and an ops package of their own."""

from actors import Actor, Event, State, command
from runtime import App


class Purse(State):
    cents: int = 0


class PutIn(Event[Purse], tag="purse.put_in"):
    cents: int

    def apply(self, state: Purse) -> None:
        state.cents += self.cents


class PurseActor(Actor[Purse], name="purse"):
    @command
    async def put_in(self, cents: int) -> int:
        self.emit(PutIn(cents=cents))
        return self.state.cents


app = App(actors=[PurseActor])
'''


@pytest.fixture
def users_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    for name in ("ops", "events_of_mine"):
        (folder / name).mkdir(parents=True)
    (folder / "mybank.py").write_text(MYBANK)
    for trap in ("events.py", "runtime.py", "actors.py", "ops/__init__.py", "ops/__main__.py", "ops/up.py", "msgspec.py"):
        (folder / trap).write_text("raise RuntimeError(f'imported the module of the user: {__file__}')\n")
    return folder


@pytest.mark.usefixtures("_nats_program")
async def test_up_works_beside_a_users_own_events_and_ops(users_folder: Path) -> None:
    with Deployment(users_folder / "data", app="mybank:app", folder=users_folder) as deployment:
        client = await nats.connect(deployment.nats_url)
        try:
            assert (await ask(client, "purse.mine.put_in", {"cents": 5})).body == 5
        finally:
            await client.close()
        before = deployment.workers
        deployment.kill_worker(before["worker-1"])
        deployment.wait_owned(without=before["worker-1"])
        assert "imported the module of the user" not in deployment.logs() + deployment.said
    # The app is remembered: a second start from there needs no --app.
    assert 'app = "mybank:app"' in (users_folder / "data" / "cuebook.toml").read_text()


def test_other_verbs_work_there_too(users_folder: Path) -> None:
    done = run_cuebook("version", "--json", folder=users_folder)
    assert done.returncode == 0, done.stderr
    assert "imported the module of the user" not in done.stderr


def test_an_app_that_is_not_there_is_told_in_one_line(users_folder: Path) -> None:
    done = run_cuebook("up", "--app", "nobank:app", "--data", str(users_folder / "data"), folder=users_folder)
    assert done.returncode == 2
    assert "nobank" in done.stderr
    assert "Traceback" not in done.stderr


def start_line(deployment: Deployment) -> str:
    """What `up` prints when it is ready, which is a moment after up.json says so."""
    return wait_until(
        lambda: next((line for line in deployment.said.splitlines() if line.startswith("ready")), None), "it prints its start line"
    )


NO_UVLOOP = """
import sys

class _Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "uvloop":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, _Blocked())
"""


@pytest.mark.usefixtures("_nats_program")
async def test_up_works_without_uvloop_and_says_so(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    # Every Python that `up` starts reads it; -P and -m leave PYTHONPATH as it is.
    (site / "sitecustomize.py").write_text(NO_UVLOOP)
    with Deployment(tmp_path / "data", environment={"PYTHONPATH": str(site)}) as deployment:
        assert "loop asyncio" in start_line(deployment)
        client = await nats.connect(deployment.nats_url)
        try:
            assert (await ask(client, "account.1.deposit", {"cents": 5})).body == 5
            await client.jetstream().publish("cue.tell.account.1.deposit", b'{"cents": 5}')
        finally:
            await client.close()
        for role in deployment.workers:
            starting = json.loads((deployment.data / "logs" / f"{role}.log").read_text().splitlines()[0])
            assert (starting["event"], starting["loop"]) == ("worker_starting", "asyncio")


@pytest.mark.skipif(sys.platform == "win32", reason="uvloop is not for Windows")
def test_the_start_line_names_uvloop_where_it_is(bank: Deployment) -> None:
    pytest.importorskip("uvloop")
    assert "loop uvloop" in start_line(bank)
