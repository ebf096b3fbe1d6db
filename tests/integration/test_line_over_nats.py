"""The line before a provider over NATS: a worker ends while ten wait, the provider's own or that of half of the callers."""

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from events.envelope import RecordedEvent
from events.ids import shard_of, stream_id
from events.sqlite.reader_sqlite import SqliteLogReader
from runtime.client import Client, connect
from tests.support.deployment import wait_until
from tests.support.eventually import eventually
from tests.support.scripted_model import Say, ScriptedModel
from tests.support.workers import SHARDS, Workers, served

pytestmark = [pytest.mark.timeout(180), pytest.mark.crash]
CONCURRENCY, CALLERS = 2, 12


@pytest.fixture
def workers(_nats_program: None, tmp_path: Path) -> Iterator[Workers]:
    with served(tmp_path, app="tests.support.asking:app", environment={"THE_KEY": "k"}) as made:
        yield made


def callers(workers: Workers) -> list[str]:
    """Ids of callers, in turn of one and the other worker."""
    owners = workers.owners()
    of = {
        name: [f"{n}" for n in range(500) if owners[shard_of("asker", f"{n}", SHARDS)] == process.pid]
        for name, process in workers.running.items()
    }
    return [key for pair in zip(*of.values(), strict=False) for key in pair][:CALLERS]


async def events_of_provider(workers: Workers) -> list[RecordedEvent]:
    reader = await SqliteLogReader.open(workers.log)
    try:
        return list(await reader.read_stream(stream_id("provider", "main")))
    finally:
        await reader.close()


def check(events: list[RecordedEvent]) -> None:
    """None given twice, none more than there are, each ended; whoever stood in line went in the order of the line."""
    given: Counter[str] = Counter()
    held: set[str] = set()
    line: list[str] = []
    through: list[str] = []
    for event in events:
        said = msgspec.json.decode(event.payload, type=dict[str, Any])
        if event.type == "provider.call_queued":
            line.append(said["permit"])
        elif event.type == "provider.call_admitted":
            given[said["permit"]] += 1
            held.add(said["permit"])
            through += [said["permit"]] if said["permit"] in line else []
            assert len(held) <= CONCURRENCY
        elif event.type == "provider.call_answered":
            held.remove(said["permit"])
        else:
            assert event.type in {"provider.limits_set", "provider.line_timed", "timer.set", "timer.fired"}, event.type
    assert line == through
    assert len(line) >= CALLERS - CONCURRENCY
    assert set(given.values()) == {1}
    assert len(given) == CALLERS
    assert not held


@pytest.mark.parametrize(
    ("victim", "how"),
    [("the provider's", signal.SIGKILL), ("the other", signal.SIGKILL), ("the provider's", signal.SIGTERM)],
    ids=["the provider's is killed", "the other is killed", "the provider's is stopped"],
)
async def test_s9_who_stands_in_line_goes_on_when_a_worker_ends(workers: Workers, victim: str, how: signal.Signals) -> None:
    pytest.importorskip("langchain_openai", reason="needs cuebook[models]")
    begun: list[Any] = []

    def say(body: dict[str, Any]) -> Say:
        begun.append(body)
        return Say(text="yes", delay_s=4.0 if len(begun) <= CONCURRENCY else 0.2)

    async with ScriptedModel(say) as model:
        (workers.data / "cuebook.toml").write_text(
            f'[models.main]\nkind = "openai"\nmodel = "m"\nbase_url = "{model.url}/v1"\napi_key = "env:THE_KEY"\n'
            f"concurrency = {CONCURRENCY}\ntimeout_s = 30.0\n"
        )
        for name in ("one", "two"):
            workers.start(name)
        wait_until(lambda: set(workers.shares().values()) == {SHARDS // 2}, "both workers own their share", 60.0)
        of_provider = workers.owners()[shard_of("provider", "main", SHARDS)]
        killed = next(each for each in workers.running.values() if (each.pid == of_provider) == (victim == "the provider's"))
        async with connect(**workers.server.connection.nats_options()) as cue:
            asked = [asyncio.ensure_future(answer_of(cue, key)) for key in callers(workers)]

            async def all_wait() -> bool:
                health = await cue.ref("provider", "main").ask("health")
                return bool(health["in_line"] == CALLERS - CONCURRENCY and len(begun) == CONCURRENCY)

            await eventually(all_wait, "two are being answered and ten wait")
            killed.send(how)
            await asyncio.to_thread(killed.wait)
            assert await asyncio.gather(*asked) == ["yes"] * CALLERS
    done = Counter(entry.key for entry in model.ledger if entry.done)
    assert sorted(done.values()) == [1] * CALLERS, "one effect per key"
    check(await events_of_provider(workers))


async def answer_of(cue: Client, key: str) -> Any:
    return await cue.ref("asker", key, timeout_s=100.0).ask("ask", text=f"question {key}", model="main", deadline_s=90.0)
