"""Memories and questions of many at a time are embedded in few calls of the model, without holding up one who is alone (design.md 6)."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.errors import Cancelled
from events.embedding import Embedder, Embedding, embedding
from ops.memory import with_memory
from ops.settings import Settings
from ops.view_service import in_process
from ops.views import open_views
from projections.embedding.batching import BatchingEmbedder
from projections.embedding.hashing import HashEmbedder
from runtime.app import App
from runtime.local import LocalRuntime, local_runtime
from runtime.tasks import end
from tests.support.eventually import until
from tests.support.virtual import Virtual, virtually

CALL_S = 0.2
"""As a model behind a network takes."""


class Counted:
    """A model that is the same to every text of one length, and keeps what it was asked."""

    model = "counted-1"
    dimensions = 2

    def __init__(self, call_s: float = CALL_S) -> None:
        self.calls: list[list[str]] = []
        self.call_s = call_s

    async def embed(self, texts: Sequence[str]) -> Sequence[Embedding]:
        self.calls.append(list(texts))
        await asyncio.sleep(self.call_s)
        return [embedding(self.model, [float(len(text)), 1.0]) for text in texts]

    @property
    def asked(self) -> list[str]:
        return [text for call in self.calls for text in call]


def play(model: Counted, main: Callable[[LocalRuntime], Awaitable[None]]) -> None:
    async def whole(virtual: Virtual) -> None:
        async with virtual.runtime(with_memory(App(actors=[]), model)) as runtime:
            await main(runtime)

    virtually(whole)


def test_what_many_remember_at_once_takes_few_calls_and_no_longer() -> None:
    model = Counted()

    async def main(runtime: LocalRuntime) -> None:
        began = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for number in range(60):
                group.create_task(runtime.ask(f"memory/w{number}", "remember", content=f"memory {number}"))
        assert sorted(model.asked) == sorted(f"memory {number}" for number in range(60))
        assert len(model.calls) <= 3
        assert asyncio.get_running_loop().time() - began <= 3 * CALL_S + 0.1

    play(model, main)


def test_one_alone_is_not_held_up() -> None:
    model = Counted()

    async def main(runtime: LocalRuntime) -> None:
        began = asyncio.get_running_loop().time()
        await runtime.ask("memory/w", "remember", content="a memory")
        assert asyncio.get_running_loop().time() - began <= CALL_S + 0.01

    play(model, main)


def test_s22_cancelling_one_leaves_the_others_their_answers() -> None:
    model = Counted()

    async def main(runtime: LocalRuntime) -> None:
        asked = [
            asyncio.ensure_future(runtime.ask(f"memory/w{number}", "remember", command_id=f"c{number}", content=f"memory {number}"))
            for number in range(10)
        ]
        await until(lambda: bool(model.calls), "the model is asked")
        await asyncio.sleep(CALL_S / 2)
        (first,) = model.calls[0]
        number = first.removeprefix("memory ")
        assert await runtime.cancel(f"memory/w{number}", f"c{number}") == "cancelled"  # it is the one who asks for all
        ended = await asyncio.gather(*asked, return_exceptions=True)
        assert [str(place) for place, each in enumerate(ended) if isinstance(each, BaseException)] == [number]
        assert isinstance(ended[int(number)], Cancelled)
        assert model.asked.count(first) == 1, "nobody wants it any more"

    play(model, main)


async def test_questions_to_the_view_share_calls_too(tmp_path: Path) -> None:
    model = Counted(call_s=0.02)
    app = with_memory(App(actors=[]), model)
    opened = open_views(Settings(data=tmp_path), app, only=["memory"])
    async with local_runtime(app, tmp_path / "log", shards=1) as runtime, opened as views, asyncio.TaskGroup() as group:
        (runner,) = views.runners.values()
        task = group.create_task(runner.run())
        ask = in_process(views.runners)
        try:
            await until(lambda: runner.status().state == "live", "live")
            await runtime.ask("memory/w", "remember", content="printer")
            after = {0: (await views.reader.info(0)).position}
            model.calls.clear()

            async def recall(query: str) -> Any:
                body = msgspec.json.encode({"workspace": "w", "_after": after, "query": query})
                return msgspec.json.decode(await ask("memory", "recall", body, 20.0))

            async with asyncio.TaskGroup() as questions:
                found = [questions.create_task(recall(f"printer {number}")) for number in range(20)]
            assert [each.result()[0]["content"] for each in found] == ["printer"] * 20
            assert len(model.asked) == 20
            assert len(model.calls) < 10
        finally:
            await end(task)


@pytest.mark.parametrize("given", [HashEmbedder(), BatchingEmbedder(Counted(), texts_max=8)], ids=["built in", "batching already"])
def test_what_needs_no_such_thing_is_used_as_it_is(given: Embedder) -> None:
    actor: Any = with_memory(App(actors=[]), given).registry.types["memory"].cls
    assert actor.embedder is given
