"""SIGKILL between the intent of a step and its result, before and after the effect: each recovery policy keeps its word (S15, S21)."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from events.clock import SystemClock
from events.crash_points import CrashPoint
from events.sqlite.reader_sqlite import SqliteLogReader
from runtime.local import local_runtime
from tests.support.crashing import environment
from tests.support.desk import waits_of
from tests.support.held import held_by
from tests.support.payments import COMMAND, LEDGER, STREAM, app, lines

pytestmark = pytest.mark.crash
ROOT = Path(__file__).resolve().parents[2]
BEFORE, AFTER = CrashPoint.TURN_JOURNALED, CrashPoint.STEP_RAN


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "ledger"
    monkeypatch.setenv(LEDGER, str(path))
    return path


async def killed(log: Path, policy: str, point: CrashPoint, within_s: float | None = None) -> None:
    """A process that was given the command has died at `point`."""
    mark = log.parent / "died"
    argv = [sys.executable, "-m", "tests.support.payments", str(log), policy, *([] if within_s is None else [str(within_s)])]
    variables = {**os.environ, **environment(point, mark)}
    ended = await asyncio.to_thread(
        subprocess.run, argv, cwd=ROOT, env=variables, timeout=60, check=False, capture_output=True, text=True
    )
    assert (ended.returncode, mark.exists()) == (-9, True), ended.stderr


class Later(SystemClock):
    """An hour ahead: any deadline of before has passed."""

    def wall_us(self) -> int:
        return super().wall_us() + 3_600_000_000


async def journal(log: Path) -> list[tuple[str, dict[str, Any]]]:
    reader = await SqliteLogReader.open(log)
    try:
        events = await reader.read_stream(STREAM)  # type: ignore[arg-type]
        return [(event.type, msgspec.json.decode(event.payload)) for event in events if event.type.startswith("step.")]
    finally:
        await reader.close()


@pytest.mark.parametrize(
    ("policy", "point", "receipt", "payments"),
    [
        ("repeat", BEFORE, "receipt 5", 1),
        ("repeat", AFTER, "receipt 5", 2),
        ("verify", BEFORE, "receipt 5", 1),
        ("verify", AFTER, "found 5", 1),
        ("blind", AFTER, "failed: ConnectionError", 1),
        ("never", BEFORE, "failed: unknown", 0),
        ("never", AFTER, "failed: unknown", 1),
    ],
)
async def test_s15_a_kill_between_intent_and_result(
    tmp_path: Path, ledger: Path, policy: str, point: CrashPoint, receipt: str, payments: int
) -> None:
    log = tmp_path / "log"
    await killed(log, policy, point)
    assert len(lines()) == (1 if point is AFTER else 0)
    (intent,) = await journal(log)
    for _ in range(2):  # what was decided after the crash stays decided
        async with local_runtime(app, log) as runtime:
            assert await runtime.ask(STREAM, "pay", command_id=COMMAND, policy=policy) == receipt
            assert await runtime.ask(STREAM, "receipts") == [receipt]
    written = lines()
    assert len(written) == payments
    assert set(written) <= {intent[1]["idempotency_key"]}, "one key, however often it is tried"
    assert intent[1].get("recovery") == {"repeat": None, "blind": "verify"}.get(policy, policy)
    entries = await journal(log)
    assert [type for type, _ in entries] == ["step.started", "step.failed" if receipt.startswith("failed") else "step.completed"]
    assert entries[-1][1].get("verified", False) is (receipt == "found 5")


@pytest.mark.parametrize(("point", "payments"), [(BEFORE, 0), (AFTER, 1)])
async def test_s21_ask_holds_the_actor_until_a_person_says_so(tmp_path: Path, ledger: Path, point: CrashPoint, payments: int) -> None:
    log = tmp_path / "log"
    await killed(log, "ask", point)
    async with local_runtime(app, log) as runtime:
        wait_id = await held_by(runtime)
        assert len(lines()) == payments, "it is not guessed"
        await runtime.answer(STREAM, wait_id, {"repeat": True})
        assert await runtime.ask(STREAM, "pay", command_id=COMMAND, policy="ask") == "receipt 5"
    assert len(lines()) == payments + 1
    assert len(set(lines())) == 1, "what a person has repeated goes out under the same key"
    assert await waits_of(log) == []


@pytest.mark.parametrize(
    ("policy", "point", "receipt", "payments"),
    [
        ("repeat", BEFORE, "failed: deadline", 0),
        ("repeat", AFTER, "failed: deadline", 1),
        ("verify", BEFORE, "failed: deadline", 0),
        ("verify", AFTER, "found 5", 1),
        ("never", AFTER, "failed: unknown", 1),
        ("ask", AFTER, "receipt 5", 2),
    ],
)
async def test_s19_a_kill_between_intent_and_result_and_a_restart_behind_the_deadline(
    tmp_path: Path, ledger: Path, policy: str, point: CrashPoint, receipt: str, payments: int
) -> None:
    log = tmp_path / "log"
    await killed(log, policy, point, within_s=600.0)
    (intent,) = await journal(log)
    assert SystemClock().wall_us() < intent[1]["deadline_us"] < Later().wall_us()
    for attempt in range(2):  # what was decided after the crash stays decided
        async with local_runtime(app, log, clock=Later()) as runtime:
            if policy == "ask" and attempt == 0:
                wait_id = await held_by(runtime)
                assert len(lines()) == 1, "nothing but a person's word begins it again"
                await runtime.answer(STREAM, wait_id, {"repeat": True})
            assert await runtime.ask(STREAM, "pay", command_id=COMMAND, policy=policy, within_s=600.0) == receipt
    assert len(lines()) == payments
    assert set(lines()) <= {intent[1]["idempotency_key"]}, "one key, however often it is tried"
