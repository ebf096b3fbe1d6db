"""Stored commands whose handler fails: retried with backoff, then a dead letter (design.md 6, F-22, S25, I-16)."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors import Actor, Event, Rejected, State, command, query
from actors.errors import Unavailable
from events.codec import args_hash
from events.envelope import RecordedEvent
from events.ids import CommandId, StreamId, stream_id
from events.letters import Letter, LetterState
from events.limits import RETRY_ATTEMPTS_MAX, RETRY_FACTOR, RETRY_FIRST_S, RETRY_MAX_S
from events.sqlite.reader_sqlite import SqliteLogReader
from events.store import Arrival, InboxEntry, InboxStatus
from runtime.app import App
from runtime.local import LocalRuntime, local_runtime
from runtime.turns.retries import backoff_s


class Notes(State):
    lines: list[str] = []


class Noted(Event[Notes], tag="retried.noted"):
    line: str

    def apply(self, state: Notes) -> None:
        state.lines.append(self.line)


FAILS: dict[str, int] = {}
"""How often a line fails yet."""
CALLS: list[str] = []
STEPS: dict[str, Callable[[str], Awaitable[str]]] = {}


def fail_if_due(line: str) -> None:
    CALLS.append(line)
    if FAILS.get(line, 0):
        FAILS[line] -= 1
        raise ConnectionError(f"{line} is away")


async def fetch(line: str) -> str:
    fail_if_due(line)
    return line.upper()


class NotesActor(Actor[Notes], name="retried"):
    @command
    async def note(self, line: str) -> None:
        self.emit(Noted(line=f"{line} begun"))
        fail_if_due(line)
        self.emit(Noted(line=line))

    @command
    async def refuse(self, line: str) -> None:
        raise Rejected("never", line=line)

    @command
    async def ask_away(self, line: str) -> None:
        CALLS.append(line)
        raise Unavailable("the other is moving")

    @command
    async def leave(self, line: str) -> None:
        CALLS.append(line)
        raise SystemExit(3)

    @command
    async def fetch(self, names: list[str]) -> None:
        for name in names:
            self.emit(Noted(line=await self.step("fetch", fetch, name)))

    @command
    async def fetch_or(self, name: str, other: str) -> None:
        """Takes another way if a step fails, and then fails itself."""
        try:
            self.emit(Noted(line=await self.step("fetch", fetch, name)))
        except Exception:
            await self.step("other", fetch, other)
            raise

    @command
    async def tell_on(self, to: str, lines: list[str]) -> None:
        for line in lines:
            self.ref(NotesActor, to).tell.note(line=line)

    @command
    async def later(self, line: str) -> None:
        self.schedule(0.0, "note", line=line)

    @query
    def lines(self) -> list[str]:
        return [line for line in self.state.lines if not line.endswith("begun")]


APP = App(actors=[NotesActor], version="test")
A = stream_id("retried", "a")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    FAILS.clear()
    CALLS.clear()
    monkeypatch.setattr("runtime.turns.retries.RETRY_FIRST_S", 0.005)
    monkeypatch.setattr("runtime.turns.retries.RETRY_MAX_S", 0.02)


async def tell(
    runtime: LocalRuntime, method: str, command_id: str, *, to: StreamId = A, sender: str | None = None, **arguments: Any
) -> None:
    """As a JetStream message, or a send of `sender`, would arrive."""
    args = msgspec.json.encode(arguments)
    entry = InboxEntry(
        stream=to, command_id=CommandId(command_id), method=method, args_hash=args_hash(method, args), status=InboxStatus.QUEUED,
        args=args, sender=sender, source=f"{sender or 'js:t'}:{command_id}", received_at_us=1,
    )  # fmt: skip
    await runtime.shards[runtime.exchange.shard_of(to)].accept([Arrival(entry=entry)])


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.002)


async def letters(runtime: LocalRuntime) -> list[Letter]:
    return [letter for shard in runtime.shards for letter in await shard.store.letters()]


async def events_of(directory: Path, stream: StreamId = A) -> list[RecordedEvent]:
    reader = await SqliteLogReader.open(directory)
    try:
        return list(await reader.read_stream(stream))
    finally:
        await reader.close()


def lines_are(runtime: LocalRuntime, *expected: str) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return list(await runtime.ask(A, "lines")) == list(expected)

    return check


def try_now(runtime: LocalRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever waits for its next try need not wait any longer: no test depends on how long something takes."""
    monkeypatch.setattr("runtime.turns.retries.RETRY_MAX_S", 0.0)
    for shard in runtime.shards:
        for handle, due in list(shard.tries._handles.values()):
            handle.cancel()
            due()


def dead(runtime: LocalRuntime, count: int = 1) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return [letter.state for letter in await letters(runtime)] == [LetterState.DEAD] * count

    return check


def test_the_waits_grow_to_a_bound_and_are_never_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert backoff_s(1, 1.0) == RETRY_FIRST_S
    assert backoff_s(3, 1.0) == RETRY_FIRST_S * RETRY_FACTOR**2
    assert backoff_s(50, 1.0) == RETRY_MAX_S
    assert backoff_s(2, 0.0) == backoff_s(2, 1.0) / 2


async def test_a_tell_that_fails_twice_is_done_once_and_leaves_no_letter(tmp_path: Path) -> None:
    FAILS["x"] = 2
    async with local_runtime(APP, tmp_path) as runtime:
        await tell(runtime, "note", "c1", line="x")
        await until(lines_are(runtime, "x"))
        assert await letters(runtime) == []
    assert [event.type for event in await events_of(tmp_path)] == ["turn.retried"] * 2 + ["retried.noted"] * 2
    assert CALLS == ["x"] * 3


async def test_a_poison_tell_is_parked_with_reason_arguments_attempts_and_events(tmp_path: Path) -> None:
    """F-22."""
    FAILS["poison"] = 99
    async with local_runtime(APP, tmp_path) as runtime:
        await tell(runtime, "note", "c1", line="poison")
        await until(dead(runtime))
        (letter,) = await letters(runtime)
        entry = await runtime.shards[runtime.exchange.shard_of(A)].store.inbox(A, CommandId("c1"))
    assert CALLS == ["poison"] * RETRY_ATTEMPTS_MAX
    assert (letter.attempts, letter.reason, letter.args) == (RETRY_ATTEMPTS_MAX, "ConnectionError: poison is away", b'{"line":"poison"}')
    recorded = await events_of(tmp_path)
    assert [event.type for event in recorded] == ["turn.retried"] * (RETRY_ATTEMPTS_MAX - 1) + ["turn.failed", "dead.letter"]
    assert letter.event_ids == tuple(event.event_id for event in recorded)
    payload = msgspec.json.decode(recorded[-1].payload)
    assert payload["arguments"] == {"line": "poison"}
    assert payload["attempts"] == RETRY_ATTEMPTS_MAX
    assert entry is not None
    assert (entry.status, entry.code) == (InboxStatus.FAILED, 500)


async def test_a_timer_and_a_send_that_fail_are_tried_again_too(tmp_path: Path) -> None:
    FAILS.update(timed=1, sent=1)
    async with local_runtime(APP, tmp_path) as runtime:
        await runtime.ask(A, "later", line="timed")
        await until(lines_are(runtime, "timed"))
        await runtime.ask("retried/b", "tell_on", to="a", lines=["sent"])
        await until(lines_are(runtime, "timed", "sent"))
    assert [event.type for event in await events_of(tmp_path)].count("timer.fired") == 1


async def test_a_refusal_is_final_and_an_ask_is_left_to_its_caller(tmp_path: Path) -> None:
    """S11: a refusal is a control event; S24: the caller of an ask decides whether to ask again."""
    FAILS["asked"] = 99
    async with local_runtime(APP, tmp_path) as runtime:
        await tell(runtime, "refuse", "c1", line="x")
        with pytest.raises(Exception, match="asked is away"):
            await runtime.ask(A, "note", line="asked")

        async def both_ended() -> bool:
            return len(await events_of(tmp_path)) == 2

        await until(both_ended)
        assert await letters(runtime) == []
    assert CALLS == ["asked"]
    assert {event.type for event in await events_of(tmp_path)} == {"turn.refused", "turn.failed"}


@pytest.mark.parametrize("method", ["ask_away", "leave"])
async def test_what_is_away_for_a_time_and_what_leaves_python_count_as_failures(tmp_path: Path, method: str) -> None:
    """A callee that answers 503 is no refusal, and sys.exit() in a handler does not end the worker."""
    async with local_runtime(APP, tmp_path) as runtime:
        await tell(runtime, method, "c1", line="x")
        await until(dead(runtime))
        assert await runtime.ask(A, "lines") == []
    assert CALLS == ["x"] * RETRY_ATTEMPTS_MAX


async def test_s25_later_tells_of_the_same_sender_wait_and_others_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.turns.retries.RETRY_FIRST_S", 60.0)
    monkeypatch.setattr("runtime.turns.retries.RETRY_MAX_S", 60.0)
    FAILS["1"] = 1
    async with local_runtime(APP, tmp_path) as runtime:
        for line in ("1", "2", "3"):
            await tell(runtime, "note", f"s-{line}", sender="x/s", line=line)
        await tell(runtime, "note", "o-1", sender="x/o", line="other")
        await until(lines_are(runtime, "other"))
        await runtime.ask(A, "note", line="asked")
        await tell(runtime, "note", "s-4", sender="x/s", line="4")
        assert await runtime.ask(A, "lines") == ["other", "asked"]
        try_now(runtime, monkeypatch)
        await until(lines_are(runtime, "other", "asked", "1", "2", "3", "4"))


async def test_a_dead_letter_lets_its_sender_go_on(tmp_path: Path) -> None:
    """I-16: blocked for a bounded time only."""
    FAILS["1"] = 99
    async with local_runtime(APP, tmp_path) as runtime:
        for line in ("1", "2"):
            await tell(runtime, "note", f"s-{line}", sender="x/s", line=line)
        await until(lines_are(runtime, "2"))
        assert await dead(runtime)()


async def test_finished_steps_are_not_repeated_by_a_retry(tmp_path: Path) -> None:
    """The turn stays open and runs again from its journal: what was paid for is not paid again."""
    FAILS["b"] = 2
    async with local_runtime(APP, tmp_path) as runtime:
        await tell(runtime, "fetch", "c1", names=["a", "b", "c"])
        await until(lines_are(runtime, "A", "B", "C"))
    assert CALLS == ["a", "b", "b", "b", "c"]
    types = [event.type for event in await events_of(tmp_path)]
    assert (types.count("turn.started"), types.count("turn.retried"), types.count("turn.completed")) == (1, 2, 1)


async def test_s15_an_open_turn_holds_its_actor_between_attempts_but_not_its_queries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.turns.retries.RETRY_FIRST_S", 60.0)
    monkeypatch.setattr("runtime.turns.retries.RETRY_MAX_S", 60.0)
    FAILS["b"] = 1
    async with local_runtime(APP, tmp_path) as runtime:
        await runtime.ask(A, "note", line="before")
        await tell(runtime, "fetch", "c1", names=["a", "b"])
        cell = runtime.shards[runtime.exchange.shard_of(A)].cells[A]

        async def holds() -> bool:
            return cell.holding

        await until(holds)
        asked = asyncio.get_running_loop().create_task(runtime.ask(A, "note", line="after"))
        assert await runtime.ask(A, "lines") == ["before"]
        assert not asked.done()
        try_now(runtime, monkeypatch)
        await asked
        assert await runtime.ask(A, "lines") == ["before", "A", "B", "after"]


async def test_a_retry_may_take_another_way_than_the_attempt_that_failed(tmp_path: Path) -> None:
    """S19 is about one attempt: entries of a failed one are offered to the next, not asked of it."""
    FAILS["a"] = 1
    async with local_runtime(APP, tmp_path) as runtime:
        await tell(runtime, "fetch_or", "c1", name="a", other="b")
        await until(lines_are(runtime, "A"))
    assert CALLS == ["a", "b", "a"]
    assert "turn.parked" not in [event.type for event in await events_of(tmp_path)]


@pytest.mark.parametrize("method", ["note", "fetch"])
async def test_attempts_and_the_next_try_survive_a_restart(tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.turns.retries.RETRY_FIRST_S", 5.0)
    monkeypatch.setattr("runtime.turns.retries.RETRY_MAX_S", 5.0)
    FAILS["x"] = 99
    arguments: dict[str, Any] = {"line": "x"} if method == "note" else {"names": ["x"]}
    async with local_runtime(APP, tmp_path) as runtime:
        await tell(runtime, method, "c1", **arguments)

        async def failed_once() -> bool:
            return bool(await letters(runtime))

        await until(failed_once)
        (first,) = await letters(runtime)
        async with asyncio.timeout(3):
            assert await runtime.shards[runtime.exchange.shard_of(A)].drain(2.0)
    assert (first.attempts, CALLS) == (1, ["x"])
    async with local_runtime(APP, tmp_path) as runtime:
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert CALLS == ["x"]  # five seconds have not passed
        (kept,) = await letters(runtime)
        assert kept == first
    monkeypatch.setattr("runtime.turns.retries.RETRY_FIRST_S", 0.001)
    monkeypatch.setattr("runtime.turns.retries.RETRY_MAX_S", 0.001)
    async with local_runtime(APP, tmp_path) as runtime:
        await until(dead(runtime))
        (letter,) = await letters(runtime)
    assert (letter.attempts, CALLS) == (RETRY_ATTEMPTS_MAX, ["x"] * RETRY_ATTEMPTS_MAX)


async def test_s22_a_command_that_waits_for_its_next_try_can_be_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.turns.retries.RETRY_FIRST_S", 30.0)
    FAILS.update(x=99, y=99)
    monkeypatch.setattr("runtime.turns.retries.RETRY_MAX_S", 30.0)
    async with local_runtime(APP, tmp_path) as runtime:
        await tell(runtime, "note", "short", line="x")
        await tell(runtime, "fetch", "open", to=stream_id("retried", "b"), names=["y"])

        async def both_failed() -> bool:
            return len(await letters(runtime)) == 2

        await until(both_failed)
        for actor, command_id in ((str(A), "short"), ("retried/b", "open")):
            reply = await runtime.send(actor, "_cancel", msgspec.json.encode({"command_id": command_id}))
            assert reply.body == b'{"status":"cancelled"}'
        assert await letters(runtime) == []
        await runtime.ask("retried/b", "note", line="free")
    assert [event.type for event in await events_of(tmp_path)] == ["turn.retried", "turn.cancelled"]


async def test_snapshots_go_on_after_a_restart_that_folds_sends_and_retries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """I-8: only an open turn holds snapshots back; records of turns that ended are no journal."""
    monkeypatch.setattr("runtime.turns.closing.SNAPSHOT_EVENTS", 10)
    FAILS["x"] = 1
    async with local_runtime(APP, tmp_path) as runtime:
        await runtime.ask(A, "tell_on", to="b", lines=["1"])
        await runtime.ask(A, "later", line="x")
        await until(lines_are(runtime, "x"))
    async with local_runtime(APP, tmp_path) as runtime:
        for number in range(6):
            await runtime.ask(A, "note", line=str(number))
        snapshot, _ = await runtime.shards[runtime.exchange.shard_of(A)].store.load(A, APP.registry.type("retried").shape)
        assert snapshot is not None
