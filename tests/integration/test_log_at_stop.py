"""A worker that ends answers the questions about the log that it has taken."""

import asyncio
from pathlib import Path

import msgspec
import pytest
from nats.aio.client import Client

from events.envelope import RecordedEvent
from events.ids import StreamId
from events.sqlite.reader_sqlite import SqliteLogReader
from ops.examples.bank import app
from runtime.local import local_runtime
from runtime.over_nats.log_service_nats import serve_log
from runtime.tasks import Tasks
from runtime.wire import ERROR, Subjects

SUBJECTS = Subjects("log-at-stop", 1)


@pytest.fixture
async def log(tmp_path: Path) -> Path:
    async with local_runtime(app, tmp_path / "log", shards=1) as cue:
        await cue.ask("account/a", "deposit", cents=1)
    return tmp_path / "log"


async def test_s5_a_question_that_was_taken_before_the_end_is_answered(
    log: Path, nats_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, the files were closed under it: the asker was told that the log does not fit."""
    taken, go_on = asyncio.Event(), asyncio.Event()
    read_stream = SqliteLogReader.read_stream

    async def held_up(self: SqliteLogReader, stream: StreamId, *, after: int = 0, limit: int = 100) -> "list[RecordedEvent]":
        taken.set()
        await go_on.wait()
        return list(await read_stream(self, stream, after=after, limit=limit))

    monkeypatch.setattr(SqliteLogReader, "read_stream", held_up)
    tasks = Tasks()
    serving = serve_log(nats_client, SUBJECTS, log, app.registry, tasks)
    await serving.__aenter__()
    body = msgspec.json.encode({"stream": "account/a"})
    question = asyncio.get_running_loop().create_task(nats_client.request(SUBJECTS.log("read"), body, timeout=10))
    await taken.wait()
    ending = asyncio.get_running_loop().create_task(serving.__aexit__(None, None, None))
    await nats_client.flush()  # by now it has said that it takes no more
    go_on.set()
    answer = await question
    await ending
    assert ERROR not in (answer.headers or {})
    assert [event["stream"] for event in msgspec.json.decode(answer.data)["events"]] == ["account/a"]
