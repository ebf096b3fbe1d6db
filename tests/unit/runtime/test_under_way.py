"""What is under way, read from committed rows and the journals of open turns."""

import json
from pathlib import Path

import pytest

from events.envelope import Kind, NewEvent
from events.ids import CommandId, StreamId
from events.store import InboxStatus, OutboxEntry
from ops.__main__ import main
from runtime.turns.under_way import under_way
from tests.support.logs import append_one, command, log_under_test, stream_in, timer, wait

A, B, REMOTE = stream_in(0, 2, "a"), stream_in(0, 2, "b"), stream_in(1, 2, "r")


def journal(outcome: str, name: str, **more: object) -> NewEvent:
    return NewEvent(type=outcome, kind=Kind.STEP, payload=json.dumps({"name": name, "key": None, "n": 1, **more}).encode())


async def fill(folder: Path) -> None:
    """A turn within an ask and its second step, a queued command, a send, a wait, a timer, and a turn that only computes."""
    log = log_under_test("sqlite", 2, folder)
    shard = await log.shard(0)
    send = OutboxEntry(receiver=REMOTE, method="deposit", args=b"{}", command_id=CommandId("s-1"))
    await append_one(
        shard, A, 0, journal("step.started", "first"), journal("step.completed", "first"), journal("step.started", "second"),
        journal("ask.started", f"{REMOTE}.look", receiver=REMOTE, method="look", command_id="q"),
        command_id="c1", inbox=command(A, "c1", InboxStatus.RUNNING), outbox=(send,), timers=(timer(A, "t"),), waits=(wait(A, "w"),),
    )  # fmt: skip
    await append_one(shard, B, 0, command_id="c2", inbox=command(B, "c2", InboxStatus.QUEUED))
    await append_one(shard, B, 0, command_id="c3", inbox=command(B, "c3", InboxStatus.RUNNING))
    await append_one(shard, B, 0, NewEvent(type="test.done", payload=b"{}"), command_id="c4", inbox=command(B, "c4"))
    await log.close()


async def test_each_open_thing_says_whom_it_waits_for(tmp_path: Path) -> None:
    await fill(tmp_path / "log")
    log = log_under_test("sqlite", 2, tmp_path / "log")
    try:
        found = await under_way(await log.reader())
    finally:
        await log.close()
    assert [(each.actor, each.what, each.waits_for) for each in found.open] == [
        (A, "step", "second"), (A, "ask", REMOTE), (B, "queued", "its turn"), (B, "running", "its handler"), (A, "send", REMOTE),
        (A, "wait", "answer n (w)"), (A, "timer", "its time"),
    ]  # fmt: skip
    assert found.damages == []


async def _nothing(folder: Path) -> None:
    log = log_under_test("sqlite", 2, folder)
    shard = await log.shard(0)
    await append_one(shard, StreamId(A), 0, NewEvent(type="test.done", payload=b"{}"), command_id="c1", inbox=command(A, "c1"))
    await log.close()


def test_ps_prints_a_row_each_and_nothing_where_all_is_done(
    tmp_path: Path, no_settings: None, capsys: pytest.CaptureFixture[str]
) -> None:
    import asyncio

    asyncio.run(fill(tmp_path / "one" / "log"))
    assert main(["ps", "--data", str(tmp_path / "one")]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["what"] for row in rows] == ["step", "ask", "queued", "running", "send", "wait", "timer"]
    asyncio.run(_nothing(tmp_path / "two" / "log"))
    assert main(["ps", "--data", str(tmp_path / "two")]) == 0
    assert capsys.readouterr().out == ""
