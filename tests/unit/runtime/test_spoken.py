"""``_said``: the beginning of what a running turn says, for a reader that comes late; afterwards its recorded reply."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors import Actor, State, command
from actors.errors import BadPayload, Unknown
from runtime.app import App
from runtime.local import LocalRuntime, local_runtime
from runtime.turns import spoken
from tests.support.deployment import wait_until_async


class Nothing(State):
    pass


class Gate:
    """A step that the test holds back."""

    def __init__(self) -> None:
        self.reached, self.release = asyncio.Event(), asyncio.Event()

    async def __call__(self) -> None:
        self.reached.set()
        await self.release.wait()


GATES: dict[str, Gate] = {}


async def hold(name: str) -> None:
    await GATES[name]()


class Speaker(Actor[Nothing], name="speaker"):
    @command
    async def speak(self, words: list[str], size: int = 0) -> int:
        async def say() -> None:
            for word in words:
                self.chunk(word + "." * size)

        await self.step("say", say)
        await self.step("hold", hold, "first")
        return len(words)

    @command
    async def speak_on(self, words: list[str]) -> str:
        """A step speaks on both sides of a wait: the first is not run again behind it."""

        async def say(word: str) -> None:
            self.chunk(word)

        for word in words:
            await self.step("say", say, word)
        heard = await self.wait_for("listener", type=str)
        await self.step("say", say, heard)
        await self.step("hold", hold, "second")
        return heard


app = App(actors=[Speaker])


@pytest.fixture(autouse=True)
def _gates() -> None:
    GATES.clear()
    GATES.update(first=Gate(), second=Gate())


async def said(runtime: LocalRuntime, command_id: str, **more: Any) -> Any:
    reply = await runtime.send("speaker/s", "_said", msgspec.json.encode({"command_id": command_id, **more}))
    if reply.error is not None:
        raise reply.error
    return msgspec.json.decode(reply.body)


async def test_a_late_reader_gets_the_beginning_and_afterwards_the_reply(tmp_path: Path) -> None:
    async with local_runtime(app, tmp_path) as runtime, asyncio.TaskGroup() as group:
        asked = group.create_task(runtime.ask("speaker/s", "speak", command_id="c", words=["to", "be", "or"]))
        await GATES["first"].reached.wait()
        found = await said(runtime, "c")
        assert (found["status"], found["offset"], found["chunks"], found["more"]) == ("running", 0, ["to", "be", "or"], False)
        tail = await said(runtime, "c", after=2, attempt=found["attempt"])
        assert (tail["offset"], tail["chunks"]) == (2, ["or"])
        other = await said(runtime, "c", after=2, attempt=found["attempt"] + 1)
        assert (other["offset"], len(other["chunks"])) == (0, 3), "offsets of another attempt mean nothing"
        GATES["first"].release.set()
        assert await asked == 3
        ended = await said(runtime, "c")
        assert (ended["status"], ended["reply"], ended["chunks"]) == ("done", 3, [])
        assert sum(len(shard.spoken) for shard in runtime.shards) == 0, "nothing is kept of a turn that has ended"


async def test_s20_behind_a_wait_it_goes_on_with_offsets_that_were_not_used(tmp_path: Path) -> None:
    async with local_runtime(app, tmp_path) as runtime, asyncio.TaskGroup() as group:
        group.create_task(_quietly(runtime.ask("speaker/s", "speak_on", command_id="w", words=["to", "be"])))
        waits = await wait_until_async(lambda: [wait_id for shard in runtime.shards for (_, wait_id) in shard.waits.open], "it waits")
        before = await said(runtime, "w")
        assert (before["status"], before["chunks"]) == ("running", ["to", "be"])
        await runtime.answer("speaker/s", waits[0], "or")
        await GATES["second"].reached.wait()
        found = await said(runtime, "w")
        assert (found["attempt"], found["offset"], found["chunks"]) == (before["attempt"], 0, ["to", "be", "or"])
        GATES["second"].release.set()


async def test_what_was_said_is_paged_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spoken, "TURN_BYTES_MAX", 1_000)
    monkeypatch.setattr(spoken, "PAGE_BYTES", 400)
    async with local_runtime(app, tmp_path) as runtime, asyncio.TaskGroup() as group:
        words = [str(n) for n in range(10, 30)]
        asked = group.create_task(runtime.ask("speaker/s", "speak", command_id="c", words=words, size=96))
        await GATES["first"].reached.wait()
        page = await said(runtime, "c")
        assert (page["offset"], [text[:2] for text in page["chunks"]], page["more"]) == (10, ["20", "21", "22", "23"], True)
        GATES["first"].release.set()
        await asked


async def test_what_nobody_asked_for_is_unknown(tmp_path: Path) -> None:
    async with local_runtime(app, tmp_path) as runtime:
        with pytest.raises(Unknown):
            await said(runtime, "never")
        with pytest.raises(BadPayload):
            await runtime.ask("speaker/s", "_said", id="x")


async def _quietly(awaitable: Any) -> None:
    await awaitable
