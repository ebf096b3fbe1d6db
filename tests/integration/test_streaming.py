"""What a turn says, heard over NATS: by `Client.stream` late, again, through kills and slowly; and by a plain subscriber (design.md 3)."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from actors.errors import ActorError, Cancelled
from events.ids import shard_of
from runtime.client import Client, connect
from runtime.hearing import Ended, Part
from tests.integration.test_look_live import server_pid
from tests.support.deployment import Deployment, wait_until_async
from tests.support.scripted_model import Say, ScriptedModel

pytestmark = pytest.mark.timeout(120)
APP = "tests.support.speaking:app"


@pytest.fixture(scope="module")
def deployment(_nats_program: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("speaking") / "data", app=APP) as running:
        yield running


@pytest.fixture
def speaking(deployment: Deployment) -> Deployment:
    """With all of its workers: a test before may have killed some."""
    deployment.wait_balanced()
    return deployment


class Listener:
    """Hears one command's turn as an application does. Fails on a mix: every word names the run that says it and its place."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.restarts = 0
        self.ended: Ended | None = None

    async def hear(self, cue: Client, command_id: str, *, words: int = 1_000_000, pause_s: float = 0.0) -> None:
        """Until the end, or for so many words."""
        async with aclosing(cue.stream(f"speaker/{command_id}", command_id)) as parts:
            async for part in parts:
                if isinstance(part, Ended):
                    self.ended = part
                    return
                self.take(part)
                if len(self.words) >= words:
                    return
                await asyncio.sleep(pause_s)

    def take(self, part: Part) -> None:
        if part.restarted:
            self.words, self.restarts = [], self.restarts + 1
        assert part.missing == 0
        assert part.offset == len(self.words)
        self.words.append(part.data)
        run = part.data.partition(":")[0]
        assert self.words == [f"{run}:{number}" for number in range(len(self.words))]


async def count(cue: Client, name: str, folder: Path, last: int, pause_s: float) -> int | ActorError:
    """What the speaker of that name says; its command has the same name."""
    try:
        said: int = await cue.ref("speaker", name, timeout_s=60.0).ask(
            "count_to", last=last, pause_s=pause_s, folder=str(folder), command_id=name
        )
    except ActorError as error:
        return error
    return said


async def test_readers_that_are_early_late_returning_and_slow_all_get_the_whole(speaking: Deployment, tmp_path: Path) -> None:
    async with connect(speaking.nats_url) as cue, connect(speaking.nats_url) as other, asyncio.TaskGroup() as group:
        early, late, returning, slow = (Listener() for _ in range(4))
        group.create_task(early.hear(cue, "all"))
        await asyncio.sleep(0)  # it subscribes first, on the connection that asks: nothing is said before it listens
        asked = group.create_task(count(cue, "all", tmp_path, 150, 0.01))
        await wait_until_async(lambda: len(early.words) >= 50, "the turn speaks")
        group.create_task(late.hear(other, "all"))
        group.create_task(slow.hear(other, "all", pause_s=0.02))
        await returning.hear(other, "all", words=20)
        returning.words.clear()
        await returning.hear(other, "all")
        assert await asked == 0
    async with connect(speaking.nats_url) as cue:
        after = Listener()
        await after.hear(cue, "all")
    whole = [f"0:{number}" for number in range(150)]
    for listener in (early, late, returning, slow):
        assert listener.words == whole
        assert listener.ended == Ended(status="done", reply=0, whole=True)
        assert listener.restarts == 0
    assert (after.words, after.ended) == ([], Ended(status="done", reply=0, whole=False))


@pytest.mark.crash
async def test_when_the_owner_dies_the_reader_begins_anew_and_no_word_of_the_dead_is_kept(speaking: Deployment, tmp_path: Path) -> None:
    async with connect(speaking.nats_url) as cue, asyncio.TaskGroup() as group:
        listener, late = Listener(), Listener()
        asked = group.create_task(count(cue, "owner", tmp_path, 100, 0.02))
        group.create_task(listener.hear(cue, "owner"))
        await wait_until_async(lambda: len(listener.words) >= 30, "the turn speaks")
        speaking.kill_worker(speaking.owners()[shard_of("speaker", "owner", speaking.shards)])
        await wait_until_async(lambda: listener.restarts == 1, "it begins anew")
        group.create_task(late.hear(cue, "owner"))
        assert await asked == 1
    for heard in (listener, late):
        assert heard.words == [f"1:{number}" for number in range(100)]
        assert heard.ended == Ended(status="done", reply=1, whole=True)
    assert late.restarts == 0


@pytest.mark.crash
async def test_when_the_server_dies_the_reader_is_given_what_was_said_meanwhile(speaking: Deployment, tmp_path: Path) -> None:
    async with connect(speaking.nats_url) as cue, asyncio.TaskGroup() as group:
        listener = Listener()
        asked = group.create_task(count(cue, "server", tmp_path, 150, 0.02))
        group.create_task(listener.hear(cue, "server"))
        await wait_until_async(lambda: len(listener.words) >= 20, "the turn speaks")
        server = server_pid(speaking)
        assert server is not None
        os.kill(server, signal.SIGKILL)
        assert await asked == 0
    assert listener.words == [f"0:{number}" for number in range(150)]
    assert listener.restarts == 0
    assert listener.ended is not None
    assert (listener.ended.status, listener.ended.reply) == ("done", 0)


async def test_a_cancelled_turn_ends_for_its_readers(speaking: Deployment, tmp_path: Path) -> None:
    async with connect(speaking.nats_url) as cue, asyncio.TaskGroup() as group:
        listener = Listener()
        asked = group.create_task(count(cue, "cancelled", tmp_path, 10_000, 0.01))
        group.create_task(listener.hear(cue, "cancelled"))
        await wait_until_async(lambda: len(listener.words) >= 5, "the turn speaks")
        await cue.call("cue.ask.speaker.cancelled._cancel", json.dumps({"command_id": "cancelled"}).encode(), 10.0)
        assert isinstance(await asked, Cancelled)
    assert listener.ended is not None
    assert (listener.ended.status, listener.ended.reply["code"], listener.ended.whole) == ("failed", 499, True)


LISTENER = Path(__file__).parents[1] / "support" / "plain_listener.py"


@pytest.mark.usefixtures("_nats_program")
async def test_a_plain_subscriber_sees_the_tokens_of_a_streaming_model_call(tmp_path: Path) -> None:
    """nats-py alone: every token with attempt and offset, then the end, then the recorded answer as the reply."""
    pytest.importorskip("langchain_openai", reason="needs cuebook[models]")
    imports = [line for line in LISTENER.read_text().splitlines() if line.startswith(("import", "from"))]
    assert imports == ["import asyncio", "import json", "import sys", "import nats"]
    words, data = "to be or not to be", tmp_path / "data"
    async with ScriptedModel(Say(status=503), Say(text=words, pause_s=0.01)) as model:
        data.mkdir()
        table = f'[models.main]\nkind = "openai"\nmodel = "m"\nbase_url = "{model.url}/v1"\napi_key = "env:THE_KEY"\n'
        (data / "cuebook.toml").write_text(table)
        with Deployment(data, app="tests.support.asking:app", environment={"THE_KEY": "k"}) as deployment:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", str(LISTENER), deployment.nats_url, "asker", "a", "ask", "c-1",
                json.dumps({"text": "?", "model": "main", "stream": True}), stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            out, _ = await process.communicate()
    assert process.returncode == 0
    seen = json.loads(out)
    assert seen["reply"] == words
    assert {subject for subject, _ in seen["chunks"]} == {"cue.chunk.asker.a.ask.c-1"}
    *tokens, end = [body for _, body in seen["chunks"]]
    assert all(body.keys() == {"attempt", "offset", "data", "end"} for body in (*tokens, end))
    assert [body["offset"] for body in (*tokens, end)] == list(range(len(tokens) + 1))
    assert len({body["attempt"] for body in (*tokens, end)}) == 1
    assert (end["data"], end["end"], {body["end"] for body in tokens}) == (None, True, {False})
    pieces = [body["data"] for body in tokens]
    assert all(piece.keys() == {"call", "attempt", "offset", "text"} for piece in pieces)
    assert len(pieces) == len(words.split()), "token by token, not at the end"
    assert "".join(piece["text"] for piece in pieces) == words
    assert {piece["attempt"] for piece in pieces} == {2}, "the first attempt at the model said nothing"
