"""Restart limits, stopped actors, dead letters in a person's hands (design.md 6, F-22, F-23, I-20, I-24)."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors import Actor, Event, State, command, query
from actors.errors import BadPayload, HandlerFailed, IdReused, Overloaded, Stopped, Unavailable, error_body, error_from_body
from events.codec import args_hash, encode
from events.ids import CommandId, StreamId, stream_id
from events.letters import LetterState
from events.limits import LETTERS_PER_CALL_MAX, MAILBOX_MAX, RESTARTS_MAX
from events.sqlite.reader_sqlite import SqliteLogReader
from events.store import Arrival, InboxEntry, InboxStatus
from runtime.app import App
from runtime.exchange import Reply
from runtime.local import LocalRuntime, local_runtime

BROKEN = {"apply": False, "state": False, "handler": False}


class Box(State):
    lines: list[str] = []
    odd: Any = None


class Put(Event[Box], tag="supervised.put"):
    line: str

    def apply(self, state: Box) -> None:
        if BROKEN["apply"]:
            raise ZeroDivisionError("a bad apply")
        state.lines.append(self.line)
        if BROKEN["state"]:
            state.odd = object()


class BoxActor(Actor[Box], name="supervised"):
    @command
    async def put(self, line: str) -> int:
        if BROKEN["handler"]:
            raise ConnectionError("away")
        self.emit(Put(line=line))
        return len(self.state.lines)

    @command
    async def wait_here(self) -> None:
        await self.step("wait", HELD.wait)

    @query
    def lines(self) -> list[str]:
        return self.state.lines


HELD = asyncio.Event()
A, B = stream_id("supervised", "a"), stream_id("supervised", "b")
APP = App(actors=[BoxActor], version="1")


@pytest.fixture(autouse=True)
def sound(monkeypatch: pytest.MonkeyPatch) -> None:
    BROKEN.update(apply=False, state=False, handler=False)
    monkeypatch.setattr("runtime.supervision.RESTART_FIRST_S", 0.001)
    monkeypatch.setattr("runtime.turns.retries.RETRY_FIRST_S", 0.001)
    monkeypatch.setattr("runtime.turns.retries.RETRY_MAX_S", 0.002)


async def tell(runtime: LocalRuntime, command_id: str, method: str = "put", body: bytes = b'{"line":"told"}', *, to: StreamId = A) -> None:
    entry = InboxEntry(
        stream=to, command_id=CommandId(command_id), method=method, args_hash=args_hash(method, body), status=InboxStatus.QUEUED,
        args=body, source=f"js:t:{command_id}", received_at_us=1,
    )  # fmt: skip
    await runtime.shards[runtime.exchange.shard_of(to)].accept([Arrival(entry=entry)])


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.002)


async def stopped(runtime: LocalRuntime) -> bool:
    return bool(await runtime.shards[runtime.exchange.shard_of(A)].store.stopped())


async def types_of(directory: Path, stream: StreamId = A) -> list[str]:
    reader = await SqliteLogReader.open(directory)
    try:
        return [event.type for event in await reader.read_stream(stream)]
    finally:
        await reader.close()


async def letter_ids(runtime: LocalRuntime, stream: StreamId = A) -> list[str]:
    shard = runtime.shards[runtime.exchange.shard_of(stream)]
    return [letter.command_id for letter in await shard.store.letters(stream) if letter.state is LetterState.DEAD]


async def call(runtime: LocalRuntime, method: str, *ids: str, stream: StreamId = A) -> dict[str, Any]:
    reply = await runtime.send(str(stream), method, encode({"command_ids": list(ids)}))
    if reply.error is not None:
        raise reply.error
    found: dict[str, Any] = msgspec.json.decode(reply.body)
    return found


# -- restarts ---------------------------------------------------------------------------------------------------------------------------


async def test_an_actor_that_cannot_be_folded_is_restarted_so_often_then_stopped_and_says_so(tmp_path: Path) -> None:
    """A bad apply must not end the worker, and must not be tried for ever."""
    async with local_runtime(APP, tmp_path) as runtime:
        await runtime.ask(A, "put", line="1")
    BROKEN["apply"] = True
    async with local_runtime(APP, tmp_path) as runtime:
        for _ in range(RESTARTS_MAX):
            with pytest.raises(Unavailable, match="a bad apply") as told:
                await runtime.ask(A, "lines")
            assert told.value.fields["reason"] == "apply_failed"
        with pytest.raises(Stopped, match=f"cuebook restart {A}") as refused:
            await runtime.ask(A, "lines")
        assert (refused.value.number, refused.value.fields["reason"]) == (503, "apply_failed")
        await until(lambda: stopped(runtime))
        assert await runtime.ask("supervised/other", "lines") == []
    assert await types_of(tmp_path) == ["supervised.put", "actor.stopped"]


async def test_a_short_lapse_is_forgotten_after_the_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.supervision.RESTART_WINDOW_S", 0.0)
    async with local_runtime(APP, tmp_path) as runtime:
        await runtime.ask(A, "put", line="1")
    BROKEN["apply"] = True
    async with local_runtime(APP, tmp_path) as runtime:
        for _ in range(RESTARTS_MAX * 2):
            with pytest.raises(Unavailable):
                await runtime.ask(A, "lines")
        BROKEN["apply"] = False
        assert await runtime.ask(A, "lines") == ["1"]


async def test_tells_wait_while_their_actor_is_stopped_and_are_done_after_its_restart(tmp_path: Path) -> None:
    async with local_runtime(APP, tmp_path) as runtime:
        await runtime.ask(A, "put", line="1")
    BROKEN["apply"] = True
    async with local_runtime(APP, tmp_path) as runtime:
        shard = runtime.shards[runtime.exchange.shard_of(A)]
        await tell(runtime, "t1")
        await until(lambda: stopped(runtime))
        await tell(runtime, "t2")
        assert shard.statistics().tells_queued == 0
        assert [entry.command_id for entry in await shard.store.unfinished()] == ["t1", "t2"]
        BROKEN["apply"] = False
        assert await runtime.ask(A, "_restart") == {"restarted": True}
        assert await runtime.ask(A, "_restart") == {"restarted": False}

        async def done() -> bool:
            return list(await runtime.ask(A, "lines")) == ["1", "told", "told"]

        await until(done)
        assert not await stopped(runtime)
    assert await types_of(tmp_path) == ["supervised.put", "actor.stopped", "actor.restarted", "supervised.put", "supervised.put"]


@pytest.mark.parametrize(("version", "starts"), [("1", False), ("2", True)])
async def test_a_stopped_actor_stays_so_for_the_next_owner_unless_the_code_is_another(tmp_path: Path, version: str, starts: bool) -> None:
    async with local_runtime(APP, tmp_path) as runtime:
        await runtime.ask(A, "put", line="1")
    BROKEN["apply"] = True
    async with local_runtime(APP, tmp_path) as runtime:
        await tell(runtime, "t1")
        await until(lambda: stopped(runtime))
    BROKEN["apply"] = False
    async with local_runtime(App(actors=[BoxActor], version=version), tmp_path) as runtime:
        if not starts:
            with pytest.raises(Stopped):
                await runtime.ask(A, "lines")
            return

        async def done() -> bool:
            return list(await runtime.ask(A, "lines")) == ["1", "told"]

        await until(done)

        async def recorded() -> bool:
            return "actor.restarted" in await types_of(tmp_path)

        await until(recorded)
        assert not await stopped(runtime)


async def test_what_is_wrong_with_the_shard_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """I-24: after a lost disk everybody must come back by themselves."""
    from events.errors import TransientError

    async with local_runtime(APP, tmp_path) as runtime:
        shard = runtime.shards[runtime.exchange.shard_of(A)]
        tail = shard.store.tail

        async def away(*_: Any) -> Any:
            raise TransientError("the disk is away")

        monkeypatch.setattr(shard.store, "tail", away)
        for _ in range(RESTARTS_MAX * 2):
            with pytest.raises(Unavailable):
                await runtime.ask(A, "lines")
        monkeypatch.setattr(shard.store, "tail", tail)
        assert await runtime.ask(A, "lines") == []


async def test_a_state_that_cannot_be_encoded_fails_its_command_and_not_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine around a handler fails: at the snapshot, which is the first time that the state is encoded."""
    monkeypatch.setattr("runtime.turns.closing.SNAPSHOT_EVENTS", 1)
    BROKEN["state"] = True
    async with local_runtime(APP, tmp_path) as runtime:
        with pytest.raises(HandlerFailed):
            await runtime.ask(A, "put", line="1")
        await tell(runtime, "t1")

        async def parked() -> bool:
            return await letter_ids(runtime) == ["t1"]

        await until(parked)
        BROKEN["state"] = False
        assert await runtime.ask("supervised/b", "put", line="2") == 1


def test_a_stopped_error_comes_back_as_what_it_was() -> None:
    error = Stopped("it is stopped", reason="apply_failed")
    again = error_from_body(encode(error_body(error)))
    assert (type(again), again.number, again.fields) == (Stopped, 503, {"reason": "apply_failed"})
    assert not isinstance(again, Unavailable)


# -- dead letters -----------------------------------------------------------------------------------------------------------------------


async def test_dead_letters_are_tried_again_or_dropped_by_their_ids(tmp_path: Path) -> None:
    BROKEN["handler"] = True
    async with local_runtime(APP, tmp_path) as runtime:
        for number in range(3):
            await tell(runtime, f"t{number}", body=b'{"line":"told %d"}' % number)

        async def all_dead() -> bool:
            return len(await letter_ids(runtime)) == 3

        await until(all_dead)
        BROKEN["handler"] = False
        assert await call(runtime, "_drop", "t1", "nobody") == {"done": ["t1"], "unknown": ["nobody"]}
        assert await call(runtime, "_retry", "t2", "t0", "t2") == {"done": ["t2", "t0"], "unknown": []}
        assert await call(runtime, "_retry", "t0") == {"done": [], "unknown": ["t0"]}

        async def done() -> bool:
            return sorted(await runtime.ask(A, "lines")) == ["told 0", "told 2"]

        await until(done)
        assert await letter_ids(runtime) == []
        entry = await runtime.shards[runtime.exchange.shard_of(A)].store.inbox(A, CommandId("t0"))
        assert entry is not None
        assert entry.status is InboxStatus.DONE
    types = await types_of(tmp_path)
    assert [kind for kind in types if kind.startswith("dead.")] == ["dead.letter"] * 3 + ["dead.dropped", "dead.retried"]


async def test_s24_a_repeat_of_what_a_person_did_with_dead_letters_hears_what_it_did(tmp_path: Path) -> None:
    """I-7: also of another owner. A client repeats by id what it has heard no answer to, and must not be told that it was in vain."""
    BROKEN["handler"] = True
    async with local_runtime(APP, tmp_path) as runtime:
        for number in range(2):
            await tell(runtime, f"t{number}")

        async def all_dead() -> bool:
            return len(await letter_ids(runtime)) == 2

        await until(all_dead)
        first = await runtime.ask(A, "_drop", command_id="d", command_ids=["t0", "nobody"])
        assert first == {"done": ["t0"], "unknown": ["nobody"]}
        assert await runtime.ask(A, "_drop", command_id="d", command_ids=["t0", "nobody"]) == first
        with pytest.raises(IdReused):
            await runtime.ask(A, "_drop", command_id="d", command_ids=["t1"])
    async with local_runtime(APP, tmp_path) as runtime:
        assert await runtime.ask(A, "_drop", command_id="d", command_ids=["t0", "nobody"]) == first
        assert await letter_ids(runtime) == ["t1"]
    assert (await types_of(tmp_path)).count("dead.dropped") == 1


async def test_a_letter_that_fails_again_is_counted_from_one_again(tmp_path: Path) -> None:
    BROKEN["handler"] = True
    async with local_runtime(APP, tmp_path) as runtime:
        await tell(runtime, "t1")

        async def is_dead() -> bool:
            return await letter_ids(runtime) == ["t1"]

        await until(is_dead)
        await call(runtime, "_retry", "t1")
        await until(is_dead)
    assert (await types_of(tmp_path)).count("turn.retried") == 8


async def test_s11_a_tell_that_no_handler_can_take_is_a_dead_letter_at_once(tmp_path: Path) -> None:
    """Unknown method, bad arguments, unknown type: other code may take it, so it must not be lost."""
    nobody = stream_id("nobody", "x")
    async with local_runtime(APP, tmp_path) as runtime:
        await tell(runtime, "t1", "no_such_method")
        await tell(runtime, "t2", "put", b'{"line":5}')
        await tell(runtime, "t3", to=nobody)

        async def parked() -> bool:
            return sorted(await letter_ids(runtime)) == ["t1", "t2"] and await letter_ids(runtime, nobody) == ["t3"]

        await until(parked)
        letters = {str(each.command_id): each for each in await runtime.shards[runtime.exchange.shard_of(A)].store.letters(A)}
        assert letters["t2"].reason.startswith("BadPayload")
        assert letters["t2"].args == b'{"line":5}'
        assert all(shard.statistics().tells_queued == 0 for shard in runtime.shards)
    assert await types_of(tmp_path) == []


async def test_the_verbs_of_ours_take_a_bounded_list(tmp_path: Path) -> None:
    async with local_runtime(APP, tmp_path) as runtime:
        for ids in ([], [str(number) for number in range(LETTERS_PER_CALL_MAX + 1)]):
            with pytest.raises(BadPayload):
                await call(runtime, "_retry", *ids)


# -- floods -----------------------------------------------------------------------------------------------------------------------------


async def test_one_flooding_client_does_not_push_another_out(tmp_path: Path) -> None:
    """design.md 6: the mailbox is full, and who holds most of it makes room."""
    HELD.clear()
    async with local_runtime(APP, tmp_path) as runtime:
        shard = runtime.shards[runtime.exchange.shard_of(A)]
        replies: dict[str, Reply] = {}

        def send(client: str, name: str) -> None:
            from actors.turn import Command

            command = Command(
                stream=A, method="put", args=b'{"line":"%s"}' % name.encode(), command_id=CommandId(name), explicit=True,
                received_at_us=1, client=client,
            )  # fmt: skip
            shard.receive(command, lambda reply: replies.__setitem__(name, reply))

        waiting = asyncio.get_running_loop().create_task(runtime.ask(A, "wait_here"))

        async def held() -> bool:
            return "step.started" in await types_of(tmp_path)

        await until(held)
        for number in range(MAILBOX_MAX + 50):
            send("flood", f"flood-{number}")
        refused = [name for name, reply in replies.items() if isinstance(reply.error, Overloaded)]
        assert len(refused) == 50
        for number in range(10):
            send("calm", f"calm-{number}")
        assert not [name for name in replies if name.startswith("calm")]
        assert len([name for name, reply in replies.items() if isinstance(reply.error, Overloaded)]) == 60
        HELD.set()
        await waiting

        async def all_answered() -> bool:
            return len(replies) == MAILBOX_MAX + 60

        await until(all_answered)
        lines = await runtime.ask(A, "lines")
    assert sorted(line for line in lines if line.startswith("calm")) == sorted(f"calm-{number}" for number in range(10))
    # In turns: the tenth of the calm client is done before the twelfth of the flood.
    assert lines.index("calm-9") < 22
