"""S29: what a sealed actor says, and what an erased stream said, stands in no view, vector or cache; nor does a rebuild bring it back.

A plain actor does the same beside it, so that the tests are seen to look where it would stand.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ops.cache_connection import make_secrets
from ops.settings import Settings
from ops.view_erasure import wait_forgotten
from ops.view_service import in_process
from ops.views import FOLDER, Views, open_views
from projections.embedding.hashing import hashed
from projections.hints import watch_files
from runtime.local import LocalRuntime, local_runtime
from runtime.tasks import end
from tests.support.confidants import app
from tests.support.eventually import until
from tests.support.valkey import Valkey, server, server_of_module

pytest.importorskip("cryptography")
__all__ = ["server", "server_of_module"]
SEALED, PLAIN, OTHER = "priest/p1", "barber/b1", "barber/b2"
SECRET, GOSSIP, WEATHER = "canarysealed in the vestry", "canaryplain in the shop", "weatherfine outside"
VIEWS = {"sayings", "visits", "cache"}
pytestmark = pytest.mark.timeout(60)


class Parish:
    """A runtime with keys, and a projector with the views and the cache of its log."""

    def __init__(self, runtime: LocalRuntime, data: Path, server: Valkey) -> None:
        self.runtime = runtime
        self.data = data
        self._server = server
        self.views: Views | None = None

    async def ask_view(self, projection: str, operation: str) -> Any:
        assert self.views is not None
        return msgspec.json.decode(await in_process(self.views.runners)(projection, operation, b"{}", 20.0))

    async def level(self) -> None:
        """Wait until every view has all that is recorded."""
        assert self.views is not None
        reader = self.views.reader
        heads = {str(shard): (await reader.info(shard)).position for shard in range(reader.shards)}
        for runner in self.views.runners.values():
            assert await runner.wait_answering(20)
            name = "count" if runner.name == "visits" else "all" if runner.name == "sayings" else "stats"
            await runner.query(name, msgspec.json.encode({"_after": heads}))

    async def erase(self, stream: str) -> None:
        done = await self.runtime.ask(stream, "_erase", confirm=stream)
        assert self.views is not None
        head = (await self.views.reader.info(done["shard"])).position
        assert await wait_forgotten(self.data, done["shard"], head, self.ask_view) == []

    def lose_views(self) -> None:
        shutil.rmtree(self.data / FOLDER)
        self._server.admin.flushall()

    def holders(self, text: str) -> set[str]:
        """Which views hold `text`, or its vector, in whatever file, page or value."""
        wanted = [text.split()[0].encode(), hashed(text).vector]
        found = {
            path.relative_to(self.data / FOLDER).parts[0]
            for path in (self.data / FOLDER).rglob("*")
            if path.is_file() and any(each in path.read_bytes() for each in wanted)
        }
        admin: Any = self._server.admin
        values = [name + admin.dump(name) + (admin.get(name) or b"") for name in self._server.names()]
        return found | ({"cache"} if any(each in value for each in wanted for value in values) else set())


@asynccontextmanager
async def projecting(parish: Parish, settings: Settings) -> AsyncIterator[None]:
    async with open_views(settings, app) as views, asyncio.TaskGroup() as group:
        parish.views = views
        tasks = [group.create_task(runner.run()) for runner in views.runners.values()]
        tasks.append(group.create_task(watch_files(views.watch, views.hints, every_s=0.05)))
        try:
            assert views.runners.keys() == VIEWS
            await parish.level()
            yield
        finally:
            for task in tasks:
                await end(task)


@pytest.fixture
def settings(tmp_path: Path, server: Valkey) -> Settings:
    made = Settings(data=tmp_path / "data", redis_url=server.url)
    make_secrets(made)
    return made


@pytest.fixture
async def parish(tmp_path: Path, server: Valkey, settings: Settings) -> AsyncIterator[Parish]:
    """With something said to each."""
    async with local_runtime(app, tmp_path / "data" / "log", shards=2, keys=tmp_path / "keys") as runtime:
        for stream, text in ((SEALED, SECRET), (PLAIN, GOSSIP), (OTHER, WEATHER)):
            assert await runtime.ask(stream, "say", text=text) == f"you said {text}"
        yield Parish(runtime, tmp_path / "data", server)


async def test_s29_no_view_vector_or_cache_holds_what_a_sealed_actor_said(parish: Parish, settings: Settings) -> None:
    """Neither as it grows nor built from the start; one that asks for it is told that something happened, never what."""
    async with projecting(parish, settings):
        assert parish.holders(GOSSIP) == VIEWS
        assert parish.holders(SECRET) == set()
        assert await parish.ask_view("sayings", "all") == [[PLAIN, GOSSIP], [OTHER, WEATHER]]
        assert await parish.ask_view("visits", "count") == {SEALED: 1, PLAIN: 1, OTHER: 1}
        await parish.runtime.ask(SEALED, "say", text=SECRET)
        await parish.level()
        assert await parish.ask_view("visits", "count") == {SEALED: 2, PLAIN: 1, OTHER: 1}
        assert (await parish.ask_view("sayings", "_status"))["view"]["sealed"] >= 1
        assert parish.holders(SECRET) == set()
    parish.lose_views()
    assert parish.holders(GOSSIP) == set()
    async with projecting(parish, settings):
        assert parish.holders(GOSSIP) == VIEWS
        assert parish.holders(SECRET) == set()
        assert await parish.ask_view("visits", "count") == {SEALED: 2, PLAIN: 1, OTHER: 1}


async def test_s29_what_was_erased_leaves_every_view_and_no_rebuild_brings_it_back(parish: Parish, settings: Settings) -> None:
    """A sealed stream and a plain one; by views that forget, one that has to be built anew, and the cache."""
    left = {OTHER: 1}
    async with projecting(parish, settings):
        await parish.erase(PLAIN)
        await parish.erase(SEALED)
        assert parish.holders(GOSSIP) == set()
        assert parish.holders(SECRET) == set()
        assert parish.holders(WEATHER) == VIEWS, "the others stay"
        assert await parish.ask_view("sayings", "all") == [[OTHER, WEATHER]]
        assert await parish.ask_view("visits", "count") == left
        assert parish.views is not None
        for runner in parish.views.runners.values():
            runner.rebuild()
        await asyncio.sleep(0)
        await parish.level()
        assert parish.holders(GOSSIP) == set()
        assert await parish.ask_view("visits", "count") == left
    parish.lose_views()
    async with projecting(parish, settings):
        assert parish.holders(GOSSIP) == parish.holders(SECRET) == set()
        assert parish.holders(WEATHER) == VIEWS
        assert await parish.ask_view("sayings", "all") == [[OTHER, WEATHER]]
        assert await parish.ask_view("visits", "count") == left


async def test_s29_a_projector_that_was_down_during_the_erasure_forgets_when_it_is_back(parish: Parish, settings: Settings) -> None:
    async with projecting(parish, settings):
        assert parish.holders(GOSSIP) == VIEWS
    await parish.runtime.ask(PLAIN, "_erase", confirm=PLAIN)
    assert parish.holders(GOSSIP) == VIEWS
    async with projecting(parish, settings):
        await until(lambda: parish.holders(GOSSIP) == set(), "forgotten")
        assert await parish.ask_view("visits", "count") == {SEALED: 1, OTHER: 1}
