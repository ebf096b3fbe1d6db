"""kill -9 at random moments of a graph of twelve model and tool steps: it ends, the provider is asked nothing again that it had answered,
each file is written once, replay equals live (S15, S19). ``CUEBOOK_GRAPH_KILLS=50`` is the long way."""

import asyncio
import json
import os
import random
import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("langchain_openai", reason="needs cuebook[models]")

from actors.errors import Unavailable
from runtime.client import Client, connect
from tests.support.checker import fnv1a
from tests.support.deployment import READY_S, Deployment, run_cuebook, wait_until_async
from tests.support.scripted_model import Entry, Say, ScriptedModel

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.usefixtures("_nats_program")]
KILLS = int(os.environ.get("CUEBOOK_GRAPH_KILLS", "5"))
PAIRS = 6
APP = "tests.support.long_graph:app"
SEED = int(os.environ.get("CUEBOOK_GRAPH_SEED", "7"))


def answer(body: dict[str, Any]) -> Say:
    """The model's: it depends on the question only, and takes its time, so that it can be cut off."""
    return Say(text=f"about {body['messages'][-1]['content']}", delay_s=0.12, pause_s=0.01)


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "files").mkdir()
    return tmp_path


async def ask(cue: Client, run: str) -> Any:
    """One run from start to end. Its deadline is that of all it asks (S10), so it lasts as long as all kills may take; the client repeats
    by id until then, and whoever has no owner is asked again here."""
    ref, bound_s = cue.ref("long", run), 100.0 + 15 * KILLS
    async with asyncio.timeout(bound_s):
        while True:
            try:
                return await ref.ask("run", command_id=f"{run}-only", timeout_s=bound_s, input={"run": run})
            except Unavailable:
                await asyncio.sleep(0.05)  # it answers at once that nobody owns the run; the start of another worker takes longer


def owner_of(deployment: Deployment, run: str) -> int | None:
    """The worker that has the run's actor."""
    return deployment.owners().get(fnv1a(f"long{run}") % deployment.shards)


class Killed(NamedTuple):
    """What was played. live: values and path of each run as its actor tells them."""

    kills: int
    replies: dict[str, Any]
    live: dict[str, Any]
    provider: dict[str, Any]


def asked_or_done(model: ScriptedModel, before: int, going: "asyncio.Task[Any]") -> bool:
    """Whether the model was asked once more, or there is nothing left to ask."""
    return len(model.ledger) > before or going.done()


async def play(deployment: Deployment, model: ScriptedModel, chance: random.Random) -> Killed:
    """Kill the owner of whichever run is under way, until enough were killed; begin another where one has ended before. Two of three owners
    get to ask the model first: who is killed as soon as it has the shard is still busy with its own start."""
    replies: dict[str, Any] = {}
    kills = 0
    async with connect(deployment.nats_url) as cue:
        while kills < KILLS:
            run = f"r{len(replies)}"
            going = asyncio.get_running_loop().create_task(ask(cue, run))
            while kills < KILLS and not going.done():
                pid = await wait_until_async(partial(owner_of, deployment, run), "the run has an owner", READY_S)
                if chance.random() < 2 / 3:
                    await wait_until_async(partial(asked_or_done, model, len(model.ledger), going), "it asks the model", READY_S)
                await asyncio.sleep(chance.random() * 0.6)  # a real clock: a kill hits whatever is under way
                if not going.done() and pid in deployment.workers.values():
                    await asyncio.to_thread(deployment.kill_worker, pid)
                    kills += 1
            replies[run] = await going
        live = {run: {what: await cue.ref("long", run).ask(what) for what in ("values", "path")} for run in replies}
        health = await cue.ref("provider", "scripted").ask("health")
    return Killed(kills, replies, live, health)


class Recorded(NamedTuple):
    """Model calls as they stand in the log: key -> when its answer was recorded (µs), and how often a question was."""

    answered: dict[str, int]
    begun: Counter[str]


def recorded(folder: Path) -> Recorded:
    """From the SQLite files themselves."""
    answered: dict[str, int] = {}
    begun: Counter[str] = Counter()
    keys: dict[tuple[Any, ...], str] = {}
    for path in folder.glob("shard-*.db"):
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            for stream, tag, at_us, payload in connection.execute(
                "SELECT stream_id, type, recorded_at_us, CAST(payload AS TEXT) FROM events WHERE type LIKE 'step.%' ORDER BY position"
            ):
                said = json.loads(payload)
                use = (path.name, stream, said["name"], said["key"], said["n"])
                if said["name"] == "model" and tag == "step.started":
                    keys[use] = said["args"][2]
                    begun[keys[use]] += 1
                elif said["name"] == "model":
                    assert keys[use] not in answered, "a call was answered twice"
                    answered[keys[use]] = at_us
    return Recorded(answered, begun)


def check_calls(ledger: list[Entry], found: Recorded, runs: int, kills: int) -> None:
    """The provider's ledger against the log."""
    assert len(found.answered) == PAIRS * runs
    assert set(found.begun.values()) == {1}
    asked = Counter(entry.key for entry in ledger)
    assert set(asked) == set(found.answered)
    again = [entry for entry in ledger if entry.at_us > found.answered[entry.key]]
    assert not again, f"asked again after the answer was recorded: {again}"
    questions = {entry.key: entry.body["messages"][-1]["content"] for entry in ledger}
    assert len(set(questions.values())) == len(questions), "one question went out under two keys"
    assert sum(asked.values()) - len(asked) <= kills, "a kill can cut off one call"


def check_files(folder: Path, replies: Mapping[str, Any]) -> None:
    assert {path.name for path in folder.iterdir()} == {f"{run}-{number}.txt" for run in replies for number in range(1, PAIRS + 1)}
    for run in replies:
        for number in range(1, PAIRS + 1):
            (line,) = (folder / f"{run}-{number}.txt").read_text().splitlines()
            assert line.partition(" ")[2] == f"about {run} step {number}"


@pytest.mark.timeout(240 + 15 * KILLS)
async def test_i14_a_graph_killed_at_random_ends_and_repeats_no_finished_call(settings: Path) -> None:
    folder = settings
    async with ScriptedModel(answer) as model:
        table = f'[models.scripted]\nkind = "openai"\nmodel = "m"\nbase_url = "{model.url}/v1"\napi_key = "env:THE_KEY"\n'
        (folder / "data" / "cuebook.toml").write_text(table)
        environment = {"THE_KEY": "sk-none", "LONG_GRAPH_FILES": str(folder / "files")}
        with Deployment(folder / "data", app=APP, environment=environment) as deployment:
            await asyncio.to_thread(deployment.wait_balanced)
            killed = await play(deployment, model, random.Random(SEED))
        ledger = list(model.ledger)
    for run, reply in killed.replies.items():
        assert reply["thoughts"] == [f"about {run} step {number}" for number in range(1, PAIRS + 1)]
        assert reply["files"] == [f"{run}-{number}.txt" for number in range(1, PAIRS + 1)]
        path = [f"{kind}{number}" for number in range(1, PAIRS + 1) for kind in ("think", "note")]
        assert killed.live[run] == {"values": reply, "path": path}
    found = recorded(folder / "data" / "log")
    check_calls(ledger, found, len(killed.replies), killed.kills)
    assert killed.provider["total"]["calls"] == len(found.answered), "each call was told to the provider's actor once"
    check_files(folder / "files", killed.replies)
    data = str(folder / "data")
    verified = await asyncio.to_thread(run_cuebook, "verify", "--data", data)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    replayed = await asyncio.to_thread(run_cuebook, "replay", "--verify", "--app", APP, "--data", data)
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    print(
        f"{killed.kills} kills in {len(killed.replies)} runs of 12 nodes: {len(ledger)} requests for {len(found.answered)} calls, "
        f"{len(ledger) - len(found.answered)} cut off and asked again under their key; {PAIRS * len(killed.replies)} files of one line"
    )
