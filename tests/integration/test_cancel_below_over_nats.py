"""S22 over NATS: a cancel goes down three levels on two workers, through the death of the one that began it."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.errors import ActorError, Cancelled
from events.ids import shard_of, stream_id
from events.sqlite.reader_sqlite import SqliteLogReader
from runtime.client import Client, connect
from tests.support.chain import NOTES
from tests.support.deployment import wait_until, wait_until_async
from tests.support.eventually import eventually
from tests.support.scripted_model import Say, ScriptedModel
from tests.support.workers import SHARDS, Workers, served

pytestmark = [pytest.mark.timeout(120), pytest.mark.crash]


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    return folder


@pytest.fixture
def workers(_nats_program: None, tmp_path: Path, notes: Path) -> Iterator[Workers]:
    with served(tmp_path, app="tests.support.chain:app", environment={NOTES: str(notes), "THE_KEY": "k"}) as made:
        yield made


def start_both(workers: Workers) -> None:
    for name in ("one", "two"):
        workers.start(name)
    wait_until(lambda: set(workers.shares().values()) == {SHARDS // 2}, "both workers own their share", 60.0)


def named(workers: Workers, worker: str, prefix: str) -> str:
    """An id of a link that lives on `worker`."""
    owners, pid = workers.owners(), workers.running[worker].pid
    return next(f"{prefix}{n}" for n in range(1_000) if owners[shard_of("link", f"{prefix}{n}", SHARDS)] == pid)


def running(notes: Path) -> list[str]:
    return [path.name for path in notes.iterdir() if Path(f"/proc/{path.name}").exists()]


async def ended(cue: Client, key: str, **arguments: Any) -> ActorError | None:
    try:
        await cue.ref("link", key, timeout_s=60.0).ask("work", command_id="c", **arguments)
    except ActorError as error:
        return error
    return None


async def cancel(cue: Client, key: str) -> str:
    body = await cue.call(f"cue.ask.link.{key}._cancel", b'{"command_id": "c"}', 20.0)
    return msgspec.json.decode(body, type=dict[str, str])["status"]


async def types(workers: Workers, key: str) -> list[str]:
    reader = await SqliteLogReader.open(workers.log)
    try:
        return [event.type for event in await reader.read_stream(stream_id("link", key))]
    finally:
        await reader.close()


async def cancelled(workers: Workers, key: str) -> None:
    async def is_recorded() -> bool:
        return "turn.cancelled" in await types(workers, key)

    await eventually(is_recorded, f"link/{key} is cancelled")


async def test_s22_a_cancel_ends_the_program_and_the_model_call_of_the_lowest(workers: Workers, notes: Path) -> None:
    pytest.importorskip("langchain_openai", reason="needs cuebook[models]")
    async with ScriptedModel(Say(text="too late", delay_s=600)) as model:
        table = f'[models.main]\nkind = "openai"\nmodel = "m"\nbase_url = "{model.url}/v1"\napi_key = "env:THE_KEY"\n'
        (workers.data / "cuebook.toml").write_text(table)
        start_both(workers)
        async with connect(**workers.server.connection.nats_options()) as cue:
            for name, more in (("program", {}), ("model", {"model": "main"})):
                top, mid, leaf = (named(workers, worker, f"{name}-{n}-") for n, worker in enumerate(("one", "two", "one")))
                asked = asyncio.ensure_future(ended(cue, top, below=[mid, leaf], **more))
                at_work: Callable[[], object] = partial(running, notes) if name == "program" else model.asked.is_set
                await wait_until_async(at_work, "the lowest works")
                assert await cancel(cue, top) == "cancelled"
                assert isinstance(await asked, Cancelled)
                for key in (top, mid, leaf):
                    await cancelled(workers, key)
                assert (await types(workers, mid))[-2:] == ["turn.cancelled", "message.sent"]
            await wait_until_async(lambda: not running(notes), "the program is gone")
            async with asyncio.timeout(10):
                await model.hung_up.wait()
    assert [entry.done for entry in model.ledger] == [False]


async def test_s22_a_cancel_reaches_the_callees_although_the_worker_that_began_it_died(workers: Workers, notes: Path) -> None:
    """The second worker hears nothing until the first, which has recorded the end of the turn, is dead."""
    start_both(workers)
    async with connect(**workers.server.connection.nats_options()) as cue:
        top, mid, leaf = named(workers, "one", "top"), named(workers, "two", "mid"), named(workers, "two", "leaf")
        asked = asyncio.ensure_future(ended(cue, top, below=[mid, leaf]))
        await wait_until_async(lambda: running(notes), "the lowest works")
        workers.running["two"].send(signal.SIGSTOP)
        try:
            assert await cancel(cue, top) == "cancelled"
            workers.running["one"].send(signal.SIGKILL)
            workers.running["one"].wait()
            assert "turn.cancelled" not in await types(workers, mid)
        finally:
            workers.running["two"].send(signal.SIGCONT)
        assert isinstance(await asked, Cancelled)
        for key in (mid, leaf):
            await cancelled(workers, key)
        await wait_until_async(lambda: not running(notes), "the program is gone")
        assert (await types(workers, top)).count("turn.cancelled") == 1
        assert await cue.ref("link", leaf).ask("count") == 0
