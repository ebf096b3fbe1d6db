"""kill -9 after every single thing that a graph makes durable, and before it: between any two of its nodes, inside its subgraphs, at its
interrupts and behind their answers. The run ends as if nothing had happened, and no node that had finished runs again (S15, S19, S20).

The graph is one in the shape of LangGraph's documentation, unchanged; the worker is a real one. What its nodes print, which a SIGKILL does
not lose, says what ran; the log says what had finished. ``CUEBOOK_GRAPH_EVERY=1`` is the long way: it dies before every note too.
"""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from langgraph.types import Command

from actors.errors import Waiting
from events.crash_points import CrashPoint
from events.envelope import RecordedEvent
from events.ids import StreamId
from events.sqlite.reader_sqlite import SqliteLogReader
from ops.nats_server import NatsServer
from runtime.client import Client, connect
from runtime.ownership.survey import Held, survey
from runtime.wire import Subjects
from tests.support import published_graph
from tests.support.deployment import Process, run_cuebook, wait_until_async
from tests.support.forked_worker import SAID, order_death, take_back

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.usefixtures("_nats_program")]
APP = "tests.support.published_app:app"
EVERY = int(os.environ.get("CUEBOOK_GRAPH_EVERY", "12"))
INPUT: Any = {"topic": "news", "names": [], "mails": []}
NAME, DECISION = "Ada", "approve"
PATH = [
    "parent_node/some_node", "parent_node/human_node", "parent_node", "write_draft", "reviewing/review", "reviewing/polish", "reviewing",
    "send_mail", "send_mail",
]  # fmt: skip
AGAIN_S = 0.1
"""After which the client asks again: sooner than it would by itself, as it would have to wait for a second at each kill."""
SENT = PATH.count("send_mail")
AT_ONCE = [{"parent_node", "some_node"}, {"parent_node", "human_node"}, {"write_draft"}, {"review"}, {"polish"}, {"send_mail"}]
"""Nodes that one kill can cut off."""


def alone(thread: str) -> Any:
    """What LangGraph by itself makes of it."""
    config: Any = {"configurable": {"thread_id": thread}}
    published_graph.graph.invoke(INPUT, config)
    published_graph.graph.invoke(Command(resume=NAME), config)
    return published_graph.graph.invoke(Command(resume=DECISION), config)


class Life(NamedTuple):
    """One run whose worker was killed. epoch: of the one that was. before, after: what was printed until then, and from then on."""

    name: str
    epoch: int
    before: Counter[str]
    after: Counter[str]
    reply: Any
    path: list[str]


class World:
    """A server, and a worker with many lives that has the one shard."""

    def __init__(self, data: Path, cue: Client) -> None:
        self._data = data
        self._cue = cue

    async def owner(self) -> Held:
        """Who has the shard, once somebody takes commands."""

        def found() -> Held | None:
            owner = survey(self._data, 1).shards[0].owner
            return owner if owner is not None and owner.epoch > 0 and not owner.stale else None

        return await wait_until_async(found, "the shard has an owner")

    async def run(self, name: str) -> Any:
        """From start to end, by a client that repeats under its id, and a person who answers what is open."""
        ref = self._cue.ref("published", name)
        while True:
            try:
                async with asyncio.timeout(AGAIN_S):
                    return await ref.ask("run", command_id=f"{name}-only", input=INPUT)
            except Waiting as told:
                wait_id = told.fields["wait_id"]
            except TimeoutError:
                continue
            (open_one,) = await ref.ask("waiting")
            answer = NAME if open_one["value"] == "what is your name?" else DECISION
            await self._cue.answer(f"published/{name}", wait_id, answer)

    async def path(self, name: str) -> list[str]:
        found: list[str] = await self._cue.ref("published", name).ask("path")
        return found

    async def values(self, name: str) -> Any:
        return await self._cue.ref("published", name).ask("values")

    def printed(self) -> dict[int, Counter[str]]:
        """What each life has printed, by its pid."""
        found: dict[int, Counter[str]] = {}
        said = self._data / SAID
        for line in said.read_text().splitlines() if said.exists() else ():
            pid, _, text = line.partition(" ")
            found.setdefault(int(pid), Counter())[text] += 1
        return found

    async def kill(self, point: CrashPoint, n: int) -> Life | None:
        """One run whose worker dies at `point` for the n-th time; None if it ended before that."""
        owner, former, name = await self.owner(), self.printed(), f"{point.name.lower()}-{n}"
        assert owner.record is not None
        order_death(self._data, point, n)
        reply = await self.run(name)
        if take_back(self._data):
            return None
        printed = self.printed()
        before = printed.pop(owner.record.pid, Counter()) - former.pop(owner.record.pid, Counter())
        after = sum((printed[pid] for pid in printed.keys() - former.keys()), Counter[str]())
        return Life(name, owner.epoch, before, after, reply, await self.path(name))


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    data = folder / "data"
    server = NatsServer(data, mappings=Subjects("cue", 1).server_mappings())
    server.start()
    try:
        argv = [sys.executable, "-m", "tests.support.forked_worker", str(data), APP]
        worker = Process(argv, folder / "worker.txt", environment={"CUEBOOK_SHARDS": "1", "CUEBOOK_DURABILITY": "process"})
        try:
            async with connect(server.connection.client_url) as cue:
                yield World(data, cue)
        finally:
            code = worker.stop()
            assert code == 0, worker.text
    finally:
        server.stop()


def finished(events: Iterable[RecordedEvent]) -> list[tuple[str, str]]:
    """(task, node) of each node that `events` say has finished, in their order: by FORMAT.md, not by our own reader of it."""
    found = []
    for event in events:
        payload = msgspec.json.decode(event.payload)
        if event.type != "step.started" or not payload["name"].startswith("node "):
            continue
        fact = payload["args"][0]["fact"]
        channels = {channel for _, channel, _ in fact.get("writes", ())}
        if fact.get("path") and not channels & {"__interrupt__", "__error__"} and channels != {"__resume__"}:
            found.append((fact["task"], payload["name"].removeprefix("node ")))
    return [each for each in found if not each[1].endswith("__start__")]


def nodes(printed: Counter[str]) -> Counter[str]:
    """How often each node has run."""
    counted: Counter[str] = Counter()
    for line, times in printed.items():
        counted[line.split()[0]] += times
    return counted


def check(life: Life, undisturbed: Counter[str], done: list[str]) -> None:
    """A killed run against one that was not. done: the nodes that had finished when it was."""
    again = (life.before + life.after) - undisturbed
    assert not undisturbed - (life.before + life.after), f"{life.name}: a node did not run"
    assert set(again.values()) <= {1}, f"{life.name}: {again}"
    assert not again or any(set(nodes(again)) <= each for each in AT_ONCE), f"{life.name}: {again}, but one kill cannot cut off all that"
    for path in set(done):
        due = SENT - done.count(path) if path == "send_mail" else 0
        node = path.rpartition("/")[2]
        assert nodes(life.after)[node] == due, f"{life.name}: {node} had finished and ran again: {life.after}"


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("point", "every"), [(CrashPoint.APPEND_COMMITTED, 1), (CrashPoint.APPEND_READY, EVERY)])
async def test_s19_a_graph_killed_at_each_of_its_notes_repeats_no_finished_node(tmp_path: Path, point: CrashPoint, every: int) -> None:
    lives: list[Life] = []
    async with world(tmp_path) as played:
        await played.owner()
        assert await played.run("whole") == alone(str(tmp_path))
        whole = await played.values("whole")
        assert await played.path("whole") == PATH
        (undisturbed,) = played.printed().values()
        while (life := await played.kill(point, 1 + every * len(lives))) is not None:
            lives.append(life)
            assert await played.values(life.name) == life.reply
    ends: set[str] = set()
    reader = await SqliteLogReader.open(tmp_path / "data" / "log")
    try:
        for life in lives:
            assert (life.reply, life.path) == (whole, PATH)
            events = await reader.read_stream(StreamId(f"published/{life.name}"))
            assert sum(event.type == "turn.completed" for event in events) == 1
            tasks = Counter(finished(events))
            assert set(tasks.values()) == {1}, f"{life.name}: a node finished twice"
            assert len(tasks) == len(PATH)
            until_death = [event for event in events if event.owner_epoch <= life.epoch]
            check(life, undisturbed, [node for _, node in finished(until_death)])
            ends |= {f"{len(finished(until_death))} nodes", until_death[-1].type if until_death else "nothing"}
    finally:
        await reader.close()
    # It was killed between any two nodes, while it waited, and right behind the answers.
    assert every > 1 or ends >= {f"{number} nodes" for number in range(len(PATH) + 1)} | {"wait.opened", "wait.answered"}
    verified = await asyncio.to_thread(run_cuebook, "replay", "--verify", "--app", APP, "--data", str(tmp_path / "data"))
    assert verified.returncode == 0, verified.stdout + verified.stderr
    print(f"{len(lives)} kills at {point.name}, {sum(((life.before + life.after) - undisturbed).total() for life in lives)} cut off")
