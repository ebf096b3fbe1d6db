"""kill -9 of the owner while turns wait for a person, and while they are being answered (S20, S22, F-1)."""

import asyncio
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.errors import ActorError, Waiting
from events.sqlite.reader_sqlite import SqliteLogReader
from runtime.client import Client, connect
from tests.support.deployment import Deployment, run_cuebook, wait_until_async

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.usefixtures("_nats_program")]
EXPENSES = 12


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    with Deployment(tmp_path / "data", app="ops.examples.approval:app") as started:
        started.wait_balanced()
        yield started


def kill_all(deployment: Deployment) -> None:
    for pid in set(deployment.owners().values()):
        deployment.kill_worker(pid)


async def submitted(cue: Client) -> dict[str, str]:
    """Expense to the id of its wait: an ask without a deadline of its own hears 202 at once."""
    found: dict[str, str] = {}
    for number in range(EXPENSES):
        with pytest.raises(Waiting) as told:
            await cue.ref("expense", f"e{number}").ask("submit", command_id=f"s{number}", cents=number, what="x")
        found[f"expense/e{number}"] = told.value.fields["wait_id"]
    return found


async def answered(cue: Client, stream: str, wait_id: str) -> Any:
    """Repeat until there is an answer, as a person would: it is idempotent."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await cue.answer(stream, wait_id, {"approved": True}, timeout_s=5.0)
            except ActorError as error:
                if not error.retryable or error.final:
                    raise
                await asyncio.sleep(0.1)


async def test_a_kill_while_turns_wait_and_while_they_are_answered_loses_and_doubles_nothing(deployment: Deployment) -> None:
    async with connect(deployment.nats_url) as cue:
        waits = await submitted(cue)
        kill_all(deployment)
        deployment.wait_owned()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(answered(cue, stream, wait_id)) for stream, wait_id in waits.items()]
            await wait_until_async(lambda: any(task.done() for task in tasks), "the first answer")
            kill_all(deployment)
        assert {task.result()["status"] for task in tasks} == {"answered"}
        deployment.wait_owned()
        for number in range(EXPENSES):
            reply = await cue.ref("expense", f"e{number}").ask("submit", timeout_s=29.0, command_id=f"s{number}", cents=number, what="x")
            assert reply == "approved"
    deployment.stop()
    reader = await SqliteLogReader.open(deployment.data / "log")
    try:
        for stream in waits:
            types = [event.type for event in await reader.read_stream(stream)]  # type: ignore[arg-type]
            assert types == [
                "turn.started", "expense.submitted", "wait.opened", "wait.answered", "expense.decided", "turn.completed",
            ], stream  # fmt: skip
        assert [await reader.waits(shard) for shard in range(reader.shards)] == [[]] * reader.shards
    finally:
        await reader.close()


def test_waits_are_listed_and_answered_from_the_command_line(deployment: Deployment) -> None:
    data = ("--data", str(deployment.data))
    asked = run_cuebook("ask", "expense/a", "submit", '{"cents": 5, "what": "a pen"}', "--timeout", "3s", *data)
    assert asked.returncode == 6, "202: it waits"
    listed = run_cuebook("waits", "ls", "--json", *data)
    (row,) = [json.loads(line) for line in listed.stdout.splitlines()]
    assert (row["actor"], row["name"], row["kind"]) == ("expense/a", "decision", "wait")
    wrong = run_cuebook("waits", "answer", row["wait_id"][:8], '{"approved": "maybe"}', *data)
    assert wrong.returncode == 2
    assert "value.approved" in wrong.stderr
    assert "a pen" in row["question"]
    right = run_cuebook(*shlex.split(row["answer"])[1:], "--json")
    assert json.loads(right.stdout)["status"] == "answered"
    assert run_cuebook("ask", "expense/a", "status", "{}", *data).stdout.strip() == '"approved"'
    deployment.stop()
    assert run_cuebook("waits", "ls", "--json", *data).stdout == "", "also with no server running"
