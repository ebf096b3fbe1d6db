"""S29: `cuebook erase` takes what the cache's server holds of a stream out of it, also where no projector runs that would."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from events.clock import SystemClock
from events.ids import StreamId
from events.log_directory import read_identity
from ops.cache import cache_view
from ops.cache_connection import cache_place, make_secrets
from ops.settings import Settings
from ops.views import open_views
from projections.cache.values import Values
from projections.cache.view_redis import RedisCacheView
from projections.errors import ViewUnavailableError
from projections.hints import watch_files
from runtime.local import local_runtime
from runtime.tasks import end
from tests.support.eventually import until
from tests.support.sage import APP
from tests.support.valkey import Valkey, server, server_of_module
from tests.support.verbs import VerbOn

__all__ = ["server", "server_of_module"]
SECRET = b"why is the vault open"


@pytest.fixture
def settings(tmp_path: Path, server: Valkey, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Of a deployment with a server of its owner's, filled by a projector that has ended since; two workspaces."""
    made = Settings(data=tmp_path / "data", redis_url=server.url)
    make_secrets(made)
    monkeypatch.setenv("CUEBOOK_REDIS_URL", server.url)
    asyncio.run(_filled(made, server))
    assert [workspace for workspace in workspaces(server) if workspace] == [b"a", b"b"]
    assert SECRET in dump(server)
    return made


async def _filled(settings: Settings, server: Valkey) -> None:
    async with local_runtime(APP, Path(settings.data) / "log", shards=2) as runtime:
        for workspace, question in (("a", SECRET.decode()), ("b", "how")):
            await runtime.ask(f"sage/{workspace}", "ask", question=question)
        async with open_views(settings, APP, only=["cache"]) as views, asyncio.TaskGroup() as group:
            tasks = [group.create_task(runner.run()) for runner in views.runners.values()]
            tasks.append(group.create_task(watch_files(views.watch, views.hints, every_s=0.05)))
            await until(lambda: len(workspaces(server)) == 2, "filled")
            for task in tasks:
                await end(task)


def workspaces(server: Valkey) -> list[bytes]:
    return sorted(name.split(b":")[4] for name in server.names("*:response:*"))


def dump(server: Valkey) -> bytes:
    admin: Any = server.admin
    return b"".join(admin.get(name) for name in server.names())


def test_s29_without_a_projector_erase_removes_the_values_itself(settings: Settings, server: Valkey, verb_on: VerbOn) -> None:
    code, (done,), said = verb_on(Path(settings.data), "erase", "sage/a", "--yes", "--json")
    assert (code, done["views_left"]) == (0, []), said
    assert workspaces(server) == [b"b"]
    assert SECRET not in dump(server)
    assert len(server.names("*:checkpoint")) == 1, "the projector goes on where it was"


def test_s29_a_server_that_is_away_is_named(settings: Settings, server: Valkey, verb_on: VerbOn) -> None:
    server.kill()
    code, (done,), said = verb_on(Path(settings.data), "erase", "sage/a", "--yes", "--json")
    assert (code, done["views_left"]) == (0, ["cache"])
    assert "the cache's server does not answer" in said
    server.start()
    code, (done,), said = verb_on(Path(settings.data), "erase", "sage/a", "--yes", "--json")
    assert (code, done["already"], done["views_left"]) == (0, True, []), said


async def test_s29_one_that_hangs_is_soon_given_up_and_forgetting_again_completes_it(server: Valkey, tmp_path: Path) -> None:
    made = Settings(data=tmp_path / "data", redis_url=server.url)
    make_secrets(made)
    await _filled(made, server)
    seal = cache_place(made).seal
    values = Values(read_identity(Path(made.data) / "log").incarnation, seal)
    view = RedisCacheView(server.address, values, SystemClock(), timeout_s=0.2)
    try:
        server.pause()
        async with asyncio.timeout(5):
            with pytest.raises(ViewUnavailableError):
                await view.forget(StreamId("sage/a"))
        server.resume()
        assert workspaces(server) == [b"a", b"b"]
        assert await view.forget(StreamId("sage/a")) == 1
        assert workspaces(server) == [b"b"]
    finally:
        server.resume()
        await view.close()


async def test_what_is_removed_is_of_that_stream_and_what_cannot_be_read(server: Valkey, tmp_path: Path) -> None:
    """Of the same workspace another actor type's stays; what is no value under a name of the workspace goes."""
    settings = Settings(data=tmp_path / "data", redis_url=server.url)
    make_secrets(settings)
    await _filled(settings, server)
    view = cache_view(settings)
    assert view is not None
    try:
        (name,) = server.names("*:response:a:*")
        assert await view.forget(StreamId("seer/a")) == 0
        assert await view.forget(StreamId("sage/c")) == 0
        assert len(server.names("*:response:*")) == 2
        server.admin.set(name, b"no value of ours")
        assert await view.forget(StreamId("seer/a")) == 1
        assert workspaces(server) == [b"b"]
    finally:
        await view.close()
