"""S22: cancelling a turn cancels what it has asked of others, all the way down, exactly once in effect and recorded on both sides."""

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.errors import Cancelled
from actors.journal import Entry, Opened, Started, Use
from actors.turn import Command
from events.codec import args_hash
from events.ids import CommandId, StreamId, stream_id
from events.store import Arrival
from runtime.local import LocalRuntime, local_runtime
from runtime.turns.below import cancels_below
from runtime.turns.records import arrival_of
from tests.support.chain import NOTES, app
from tests.support.deployment import wait_until_async as until
from tests.support.eventually import eventually
from tests.support.logs import events_of
from tests.unit.runtime.test_cancel_sent import idle
from tests.unit.runtime.test_turns import crash


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    monkeypatch.setenv(NOTES, str(folder))
    return folder


def running(notes: Path) -> list[int]:
    return [int(path.name) for path in notes.iterdir() if Path(f"/proc/{path.name}").exists()]


async def outcome(awaitable: Any) -> Any:
    try:
        return await awaitable
    except Cancelled as error:
        return error


async def types(log: Path, stream: str) -> list[str]:
    return [event.type for event in await events_of(log, stream)]


async def test_s22_three_levels_end_with_the_programs_of_the_lowest(tmp_path: Path, notes: Path) -> None:
    log = tmp_path / "log"
    async with local_runtime(app, log) as runtime:
        asked = asyncio.ensure_future(outcome(runtime.ask("link/top", "work", command_id="c", below=["mid", "leaf"], beside=2)))
        await until(lambda: len(running(notes)) == 2, "both programs run")
        assert await runtime.cancel("link/top", "c") == "cancelled"
        assert isinstance(await asked, Cancelled)
        await until(lambda: not running(notes), "no program runs")
        await idle(runtime)
        for name in ("top", "mid", "leaf0", "leaf1"):
            assert await runtime.ask(f"link/{name}", "count") == 0
    sent = [event for event in await events_of(log, "link/mid") if event.type == "message.sent"]
    assert [(msgspec.json.decode(event.payload)["receiver"], msgspec.json.decode(event.payload)["method"]) for event in sent] == [
        ("link/leaf0", "_cancel"), ("link/leaf1", "_cancel"),
    ]  # fmt: skip
    assert await types(log, "link/top") == ["turn.started", "ask.started", "turn.cancelled", "message.sent"]
    for leaf in ("link/leaf0", "link/leaf1"):
        assert await types(log, leaf) == ["turn.started", "step.started", "turn.cancelled"]


async def test_s22_after_a_crash_a_cancel_reaches_what_the_turn_before_the_crash_had_asked(tmp_path: Path, notes: Path) -> None:
    """The journal says what is under way below, also where the turn that ran again has not come to it yet."""
    log = tmp_path / "log"
    async with local_runtime(app, log) as runtime:
        asked = asyncio.ensure_future(outcome(runtime.ask("link/top", "work", command_id="c", below=["mid", "leaf"])))
        await until(lambda: running(notes), "the program runs")
        crash(runtime)
        asked.cancel()
    async with local_runtime(app, log) as runtime:
        assert await runtime.cancel("link/top", "c") == "cancelled"
        await idle(runtime)
        await until(lambda: not running(notes), "no program runs")
        for name in ("mid", "leaf"):
            await until_cancelled(runtime, log, f"link/{name}")
    for name in ("top", "mid", "leaf"):
        assert (await types(log, f"link/{name}")).count("turn.cancelled") == 1


async def until_cancelled(runtime: LocalRuntime, log: Path, stream: str) -> None:
    async def is_recorded() -> bool:
        return "turn.cancelled" in await types(log, stream)

    await eventually(is_recorded, f"{stream} is cancelled")


async def test_s22_a_crash_right_behind_the_cancel_does_not_lose_it_below(tmp_path: Path, notes: Path) -> None:
    """The cancels below are sends of the transaction that ends the turn."""
    log = tmp_path / "log"
    async with local_runtime(app, log) as runtime:
        asked = asyncio.ensure_future(outcome(runtime.ask("link/top", "work", command_id="c", below=["mid", "leaf"])))
        await until(lambda: running(notes), "the program runs")
        runtime.exchange.send = lambda rows: None  # type: ignore[method-assign]  # nothing leaves its shard any more
        assert await runtime.cancel("link/top", "c") == "cancelled"
        crash(runtime)
        asked.cancel()
    async with local_runtime(app, log) as runtime:
        for name in ("mid", "leaf"):
            await until_cancelled(runtime, log, f"link/{name}")
        await idle(runtime)
        await until(lambda: not running(notes), "no program runs")


def entry(method: str, n: int = 1, **more: Any) -> Entry:
    started = {"receiver": "link/x", "method": method, "arguments": {}, "command_id": f"id-{method}"}
    return Entry(use=Use("ask", f"link/x.{method}", None, n), started=started, **more)


def test_s22_only_what_may_be_under_way_is_cancelled_below() -> None:
    """An answer and a refusal end an ask; "nobody knows" and "it waits for a person" do not."""
    entries = [
        entry("answered", result=msgspec.Raw(b"1")),
        entry("refused", failure={"type": "Rejected", "message": ""}),
        entry("unknown", failure={"type": "OutcomeUnknown", "message": ""}),
        entry("waiting", failure={"type": "Waiting", "message": ""}),
        entry("open"),
        Entry(use=Use("step", "s", None, 1), started={}),
    ]
    started = Started(
        command="work", arguments=msgspec.Raw(b"{}"), sender=None, command_id="c", deadline_ms=None, seed="", now_us=0, state_version=0,
        code_version=None,
    )  # fmt: skip
    command = Command(
        stream=stream_id("link", "top"), method="work", args=b"{}", command_id=CommandId("c"), explicit=True, received_at_us=0
    )
    sends = cancels_below(Opened(started, {each.use: each for each in entries}, 0), command, None, {})
    assert [msgspec.json.decode(send.args)["command_id"] for send in sends] == ["id-unknown", "id-waiting", "id-open"]
    assert {send.method for send in sends} == {"_cancel"}
    assert len({send.command_id for send in sends}) == 3
    assert cancels_below(None, command, None, {}) == []


async def test_s24_a_copy_that_comes_behind_its_cancel_is_not_begun(tmp_path: Path, notes: Path) -> None:
    """An ask may be held up on its way, in the socket of a stopped worker say, while its cancel goes another way."""
    log = tmp_path / "log"
    arguments: dict[str, Any] = {"below": [], "beside": 0}
    async with local_runtime(app, log) as runtime:
        hashed = args_hash("work", json.dumps(arguments).encode())
        body = json.dumps({"command_id": "late", "method": "work", "args_hash": hashed}).encode()
        await accept(runtime, "link/leaf", "_cancel", body)
        await idle(runtime)
        with pytest.raises(Cancelled):
            await runtime.ask("link/leaf", "work", command_id="late", **arguments)
    assert list(notes.iterdir()) == []


async def accept(runtime: LocalRuntime, stream: str, method: str, body: bytes) -> None:
    """As a send of another actor arrives."""
    shard = runtime.shards[runtime.exchange.shard_of(StreamId(stream))]
    command = runtime._command(stream, method, body, "cancel-1", None)
    entry = arrival_of(command, shard.args_hash(command), "link/mid#1")
    arrival = Arrival(entry=entry, sender=stream_id("link", "mid"), n=1, incarnation="i", time=1)
    await shard.accept([arrival])
