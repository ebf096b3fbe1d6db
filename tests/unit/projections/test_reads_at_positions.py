"""S31, S37: reads of "at least these positions": of a view that lags, of one that is being built anew, and by an actor's ``fresh=True`` in
one process, where `MemoryExchange.on_view` is all that stands between turn and view."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors import Actor, State, command
from actors.errors import BadPayload, Unavailable, Unknown
from events.clock import SystemClock
from events.crash_points import CrashPoint
from events.ids import StreamId, shard_of_stream
from events.sqlite.reader_sqlite import SqliteLogReader
from ops.examples.balances import app as balances
from ops.settings import Settings
from ops.view_service import in_process
from ops.views import Views, open_views
from projections.errors import BadArgumentsError, NotReadyError
from runtime.local import LocalRuntime, local_runtime
from runtime.tasks import end
from tests.support.crashing import environment
from tests.support.eventually import until
from tests.support.views import CountedReader, Notes, WrittenLog, noted, running, streams

SHARDS = 4
A = streams(1)[0]
pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[WrittenLog]:
    async with WrittenLog(tmp_path / "log") as made:
        yield made


def after(**wanted: int) -> bytes:
    return msgspec.json.encode({"_after": {shard.removeprefix("s"): position for shard, position in wanted.items()}})


async def test_a_read_waits_until_the_view_covers_an_earlier_answer_without_any_hint(log: WrittenLog, tmp_path: Path) -> None:
    async with running(Notes, tmp_path / "views", log) as (runner, _):
        await until(lambda: runner.status().state == "live", "live")
        for number in range(1, 6):
            shard, position = await log.write(A, noted())
            assert (await runner.query("count", b"{}"))[0] == number - 1, "nobody has told it"
            found, seen = await runner.query("count", after(**{f"s{shard}": position}))
            assert found == number
            assert seen[shard] >= position
            assert (await runner.query("both", msgspec.json.encode({"word": "hello", "_after": {shard: position}})))[0]["count"] == number


async def test_a_read_beyond_the_log_ends_with_a_typed_error_that_says_where_the_view_stands(log: WrittenLog, tmp_path: Path) -> None:
    async with running(Notes, tmp_path / "views", log) as (runner, _):
        await until(lambda: runner.status().state == "live", "live")
        shard, position = await log.write(A, noted())
        began = time.monotonic()
        with pytest.raises(NotReadyError) as late:
            await runner.query("count", after(**{f"s{shard}": position + 1}), 0.3)
        assert 0.25 < time.monotonic() - began < 5
        assert late.value.fields["positions"][shard] == position
        assert late.value.fields["retry_after_ms"] > 0
        with pytest.raises(BadArgumentsError, match="shards 0 to 1"):
            await runner.query("count", after(s7=1))
        assert (await runner.query("count", after(**{f"s{shard}": position})))[0] == 1, "it goes on"


async def test_an_older_view_that_answers_answers_what_it_covers_and_no_more(log: WrittenLog, tmp_path: Path) -> None:
    """`answers_from`: who has read the old version gets an answer as new as his last one at once, not when the new version is built."""

    class Second(Notes):
        version = 2
        answers_from = (1,)

    shard, seen = await log.write(A, noted("old"))
    async with running(Notes, tmp_path / "views", log) as (runner, hints):
        await until(lambda: runner.status().state == "live", "live")
        hints.tell(shard, seen)
        assert (await runner.query("count", after(**{f"s{shard}": seen})))[0] == 1
    gate = asyncio.Event()
    reader = CountedReader(await log.reader())
    reader.before_select = gate.wait
    _, newer = await log.write(A, noted("new"))
    async with running(Second, tmp_path / "views", log, reader) as (runner, _):
        await until(lambda: runner.status().state == "building", "building")
        found, stood = await runner.query("count", after(**{f"s{shard}": seen}), 5)
        assert (found, stood[shard]) == (1, seen)
        with pytest.raises(NotReadyError):
            await runner.query("count", after(**{f"s{shard}": newer}), 0.2)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(runner.query("count", after(**{f"s{shard}": newer})))
            await asyncio.sleep(0)
            gate.set()
        assert waiting.result()[0] == 2


class Desk(State):
    pass


class Clerk(Actor[Desk], name="clerk"):
    @command
    async def deposit_and_look(self, account: str, fresh: bool) -> int:
        """Have another actor record something, then read what the view makes of it."""
        await self.ref("account", account).deposit(cents=5)
        found = await self.view("balances", fresh=fresh).richest(limit=100)
        return int(dict(found).get(f"account/{account}", 0))

    @command
    async def look(self, projection: str, operation: str, arguments: dict[str, Any]) -> Any:
        return await getattr(self.view(projection), operation)(**arguments)


CLERK_SHARD = shard_of_stream(StreamId("clerk/c"), SHARDS)
app = balances.adding(Clerk, projections=balances.projections)


@asynccontextmanager
async def quiet(data: Path) -> AsyncIterator[Views]:
    """A projector that nobody tells anything: it is behind unless it is asked for a position."""
    async with open_views(Settings(data=data), app, only=["balances"]) as views:
        (runner,) = views.runners.values()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(runner.run())
            try:
                await until(lambda: runner.status().state == "live", "live")
                yield views
            finally:
                await end(task)


@asynccontextmanager
async def unhinted(data: Path) -> AsyncIterator[tuple[LocalRuntime, Views]]:
    """A runtime with such a projector."""
    async with local_runtime(app, data / "log", shards=SHARDS) as runtime, quiet(data) as views:
        runtime.exchange.on_view = in_process(views.runners)
        yield runtime, views


async def test_s37_a_fresh_view_holds_what_the_actors_that_were_asked_have_recorded(tmp_path: Path) -> None:
    """In whatever shard they are; without it a view may lag, as this one does."""
    async with unhinted(tmp_path / "data") as (runtime, _):
        places = set()
        for number in range(12):
            account = f"a{number}"
            assert await runtime.ask("clerk/c", "deposit_and_look", account=account, fresh=True) == 5
            places.add(shard_of_stream(StreamId(f"account/{account}"), SHARDS) == shard_of_stream(StreamId("clerk/c"), SHARDS))
            assert await runtime.ask("clerk/c", "deposit_and_look", account=account, fresh=False) in (0, 5)
        assert places == {True, False}


@pytest.mark.crash
async def test_s37_a_turn_that_runs_again_after_a_kill_still_knows_what_a_fresh_view_has_to_hold(tmp_path: Path) -> None:
    """The answer of the other actor is in the journal, and with it where that actor's shard stood."""
    data, mark = tmp_path / "data", tmp_path / "died"
    account = next(f"a{number}" for number in range(9) if shard_of_stream(StreamId(f"account/a{number}"), SHARDS) != CLERK_SHARD)
    arguments: dict[str, Any] = {"command_id": "look-1", "account": account, "fresh": True}
    async with local_runtime(app, data / "log", shards=SHARDS):
        pass
    program = f"""
import asyncio
from pathlib import Path
from tests.support.crashing import arm
from tests.unit.projections.test_reads_at_positions import app, local_runtime

async def main():
    arm()
    async with local_runtime(app, Path({str(data / "log")!r})) as runtime:
        await runtime.ask("clerk/c", "deposit_and_look", **{arguments!r})

asyncio.run(main())
"""
    async with quiet(data) as views:
        # The second commit of the turn's journal is the answer.
        variables = {**os.environ, **environment(CrashPoint.TURN_JOURNALED, mark, 2)}
        ended = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], env=variables, capture_output=True, timeout=60)
        assert mark.exists(), ended.stderr.decode()
        async with local_runtime(app, data / "log") as runtime:
            runtime.exchange.on_view = in_process(views.runners)  # before any turn goes on: nothing was awaited since they were taken up
            assert (await in_process(views.runners)("balances", "richest", b'{"limit":100}', 1.0)) == b"[]", "the view is behind"
            assert await runtime.ask("clerk/c", "deposit_and_look", **arguments) == 5
    reader = await SqliteLogReader.open(data / "log")
    try:
        events = await reader.read_stream(StreamId("clerk/c"))
    finally:
        await reader.close()
    answers = [msgspec.json.decode(event.payload) for event in events if event.type == "ask.completed"]
    deposit_at = 1  # the only event in its shard
    assert [each["stood"] for each in answers] == [[shard_of_stream(StreamId(f"account/{account}"), SHARDS), SHARDS, deposit_at]]


async def test_what_a_view_refuses_reaches_the_turn_as_its_error_does_on_the_wire(tmp_path: Path) -> None:
    async with unhinted(tmp_path / "data") as (runtime, views):
        ask = runtime.ask
        with pytest.raises(Unknown, match="no projection 'nothing'"):
            await ask("clerk/c", "look", projection="nothing", operation="all", arguments={})
        with pytest.raises(Unknown, match="richest"):
            await ask("clerk/c", "look", projection="balances", operation="poorest", arguments={})
        with pytest.raises(BadPayload, match="limit"):
            await ask("clerk/c", "look", projection="balances", operation="richest", arguments={"limit": "many"})
        beyond, deadline_ms = after(s0=1_000, s3=1_000), SystemClock().wall_us() // 1_000 + 300
        with pytest.raises(Unavailable, match="not yet at") as late:
            await runtime.exchange.query_view("balances", "richest", beyond, deadline_ms)
        assert late.value.retryable
        runtime.exchange.on_view = None
        with pytest.raises(Unavailable, match="is not running"):
            await ask("clerk/c", "look", projection="balances", operation="richest", arguments={})
        runtime.exchange.on_view = in_process(views.runners)
        assert await ask("clerk/c", "look", projection="balances", operation="richest", arguments={}) == []
