"""I-18, F-15: a review with the cache flushed, killed, hung or poisoned under it finds the same as one without (S37)."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.team import workspace_id
from actors.tools.report import Report, RunInfo
from actors.tools.report_json import read_json
from events.envelope import RecordedEvent
from events.sqlite.reader_sqlite import SqliteLogReader
from ops.cache import cache_view, open_step_cache
from ops.cache_connection import cache_place, make_secrets
from ops.settings import Settings
from ops.team_app import app
from ops.views import open_views
from projections.cache.values import Values
from projections.hints import watch_files
from runtime.local import LocalRuntime, local_runtime
from runtime.past.merging import merged
from runtime.tasks import end
from tests.support.deployment import wait_until_async
from tests.support.valkey import Valkey
from tests.unit.team.conftest import FILES

pytestmark = pytest.mark.timeout(50)
RESULTS = 20
"""Of one review: four files, five analyses."""


class CodeBase:
    """Two contents of one folder, as two branches would have."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.first()

    def first(self) -> None:
        for path, content in FILES.items():
            place = self.root / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(content)

    def second(self) -> None:
        for path, content in FILES.items():
            if path.endswith(".py"):
                (self.root / path).write_text(f"{content}\n\ndef added(value):\n    return value\n    print('never')\n")


class Deployed:
    """A runtime and a projector on one log, with the server between them."""

    def __init__(self, runtime: LocalRuntime, settings: Settings, code: CodeBase, out: Path) -> None:
        self.runtime = runtime
        self.settings = settings
        self.code = code
        self.out = out

    async def review(self) -> Report:
        await self.runtime.ask(
            f"orchestrator/{workspace_id(self.code.root)}", "review", path=str(self.code.root), out=str(self.out), batch_files=2,
            timeout_s=60,
        )  # fmt: skip
        return msgspec.structs.replace(read_json((self.out / "report.json").read_bytes()), run=RunInfo())

    @asynccontextmanager
    async def fresh_process(self) -> AsyncIterator[Any]:
        """From here on the steps run in a process that has had nothing itself."""
        async with open_step_cache(self.settings) as cache:
            self.runtime.exchange.step_cache = cache
            try:
                yield cache
            finally:
                self.runtime.exchange.step_cache = None

    async def events(self) -> list[RecordedEvent]:
        reader = await SqliteLogReader.open(Path(self.settings.data) / "log")
        try:
            return [event async for event in merged(reader)]
        finally:
            await reader.close()

    async def outcomes(self) -> list[bool]:
        """Of every lookup so far: whether it was a hit."""
        found = []
        for event in await self.events():
            if event.type in ("step.completed", "step.failed"):
                cache = msgspec.json.decode(event.payload).get("cache")
                if cache is not None:
                    found.append("hit" in cache)
        return found

    async def filled(self, server: Valkey) -> dict[bytes, tuple[bytes, int]]:
        """What the server holds, once it holds every result that can still be served; each with when it expires."""
        wanted = len(set(await self.names()))

        def held() -> bool:
            return len(server.names("*:analysis:*")) == wanted

        await wait_until_async(held, f"the server holds {wanted} results")
        admin: Any = server.admin
        return {name: (admin.get(name), admin.pexpiretime(name)) for name in server.names("*:analysis:*")}

    async def names(self) -> list[str]:
        """Under which names results were journaled."""
        reader = await SqliteLogReader.open(Path(self.settings.data) / "log")
        await reader.close()
        found = []
        for event in await self.events():
            if event.type == "step.completed":
                cache = msgspec.json.decode(event.payload).get("cache")
                if cache is not None and "hit" not in cache:
                    found.append(cache["key"])
        return found


@asynccontextmanager
async def deployed(server: Valkey | None, folder: Path) -> AsyncIterator[Deployed]:
    settings = Settings(data=folder / "data", redis_url=None if server is None else server.url)
    code = CodeBase(folder / "code")
    async with asyncio.TaskGroup() as group, local_runtime(app, settings.data / "log") as runtime:
        made = Deployed(runtime, settings, code, folder / "out")
        if server is None:
            yield made
            return
        make_secrets(settings)
        async with open_views(settings, app, only=["cache"]) as views:
            tasks = [group.create_task(runner.run()) for runner in views.runners.values()]
            tasks.append(group.create_task(watch_files(views.watch, views.hints, every_s=0.05)))
            try:
                yield made
            finally:
                for task in tasks:
                    await end(task)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Report]:
    """What a review without any cache finds in the one content and in the other."""

    async def both() -> tuple[Report, Report]:
        async with deployed(None, tmp_path_factory.mktemp("plain")) as without:
            first = await without.review()
            without.code.second()
            return first, await without.review()

    return asyncio.run(both())


async def back_and_forth(there: Deployed, server: Valkey, plain: tuple[Report, Report]) -> int:
    """Review both contents with the cache filling, and go back to the first; returns how many lookups that were."""
    async with there.fresh_process():
        assert same(await there.review(), plain[0])
        there.code.second()
        assert same(await there.review(), plain[1])
    await there.filled(server)
    there.code.first()
    return len(await there.outcomes())


def same(found: Report, wanted: Report) -> bool:
    """Of the same content in another folder."""
    return msgspec.structs.replace(found, summary=msgspec.structs.replace(found.summary, root=wanted.summary.root)) == wanted


@pytest.fixture
async def there(server: Valkey, tmp_path: Path) -> AsyncIterator[Deployed]:
    async with deployed(server, tmp_path) as made:
        yield made


async def test_content_that_was_seen_before_is_taken_from_the_cache(there: Deployed, server: Valkey, plain: tuple[Report, Report]) -> None:
    before = await back_and_forth(there, server, plain)
    assert not any(await there.outcomes())
    async with there.fresh_process() as cache:
        assert same(await there.review(), plain[0])
    now = await there.outcomes()
    assert now[before:] == [True] * RESULTS
    assert cache.statistics().namespaces["analysis"].served == RESULTS
    view = cache_view(there.settings)
    assert view is not None
    await wait_until_counted(view, {"hits": RESULTS, "misses": before})
    await view.close()


async def wait_until_counted(view: Any, wanted: dict[str, int]) -> None:
    """The projector counts from the log, so it may be a moment late."""
    async with asyncio.timeout(20):
        while True:
            checkpoint = await view.checkpoint()
            if checkpoint is not None and msgspec.to_builtins(checkpoint.counts.get("analysis")) == wanted:
                return
            await asyncio.sleep(0.02)


FAULTS: dict[str, Callable[[Valkey], object]] = {
    "FLUSHALL": lambda server: server.admin.flushall(),
    "SIGKILL": Valkey.kill,
    "SIGSTOP": Valkey.pause,
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_i18_the_server_fails_during_a_review(there: Deployed, server: Valkey, plain: tuple[Report, Report], fault: str) -> None:
    """In the middle of the lookups; the review ends with the same report, and afterwards the server holds again what it should."""
    before = await back_and_forth(there, server, plain)
    held = await there.filled(server)
    seen = 0
    struck: list[str] = []

    def strike(events: Any) -> None:
        nonlocal seen
        seen += sum(event.type == "step.completed" for event in events)
        if seen >= 8 and not struck:
            struck.append(fault)
            FAULTS[fault](server)

    async with there.fresh_process():
        there.runtime.exchange.on_events = strike
        assert same(await there.review(), plain[0])
    assert struck, "the fault was injected"
    outcomes = (await there.outcomes())[before:]
    assert len(outcomes) == RESULTS
    if fault == "SIGKILL":
        server.start()
    server.resume()
    after = await there.filled(server)
    made_again = {name for name, value in after.items() if value != held[name]}
    assert len(made_again) <= outcomes.count(False), "what was not computed again came back with the time that it had left"
    assert after.keys() == held.keys()


async def test_i18_wrong_and_hostile_values_under_its_keys(there: Deployed, server: Valkey, plain: tuple[Report, Report]) -> None:
    """Planted under every key, also what would be a result of the right type: nothing of it is taken."""
    before = await back_and_forth(there, server, plain)
    held = await there.filled(server)
    values = Values("0" * 32, b"not the seal of this deployment")
    found = [b"[]", b"null", b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.", b"x" * 2_000_000]
    names = list(held)
    for number, name in enumerate(names):
        server.admin.delete(name)
        kind = number % 7
        if kind < 4:
            server.admin.set(name, found[kind])
        elif kind == 4:
            server.admin.set(name, held[names[number - 1]][0])  # of another key, authentic there
        elif kind == 5:
            server.admin.hset(name, "result", "[]")
        else:
            original = held[name][0]
            server.admin.set(name, values.encode(name.decode(), decoded(there, name, original)))
    async with there.fresh_process() as cache:
        assert same(await there.review(), plain[0])
    assert (await there.outcomes())[before:] == [False] * RESULTS
    assert cache.statistics().namespaces["analysis"].missed == RESULTS


def decoded(there: Deployed, name: bytes, value: bytes) -> Any:
    incarnation = name.decode().split(":")[2]
    found = Values(incarnation, cache_place(there.settings).seal).decode(name.decode(), value)
    assert found is not None
    return found
