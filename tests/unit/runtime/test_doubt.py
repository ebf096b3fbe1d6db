"""Commands whose id we made up leave no inbox row (S24), and are still done once where they may have been done before (S5, S18)."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from actors.errors import OutcomeUnknown
from actors.turn import Command
from events.clock import SystemClock, SystemEntropy
from events.envelope import Kind
from events.ids import CommandId, StreamId
from events.in_memory.content_memory import Fault
from events.in_memory.store_memory import MemoryLog
from runtime.exchange import Reply
from runtime.exchange_memory import MemoryExchange
from runtime.shard import Shard
from runtime.tasks import Tasks
from tests.unit.runtime.test_turns import APP

A = StreamId("notes/a")


class Owner:
    """One shard in memory, and commands to it as a worker makes them: without an id of the caller."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        self.tasks = Tasks()
        self.shards: list[Shard] = []

    async def take(self) -> Shard:
        """The shard under a new owner."""
        clock, store = SystemClock(), self.log.shard(0)
        exchange = MemoryExchange(1, self.tasks, clock)
        threads = ThreadPoolExecutor(1)
        shard = Shard(store, await store.take("worker"), APP, exchange, self.tasks, clock, SystemEntropy(), threads, on_lost=lambda _: None)
        threads.shutdown(wait=False)
        exchange.serve(shard)
        self.shards.append(shard)
        return shard

    def command(self, line: str, command_id: str, *, explicit: bool = False, copied_since_us: int = 0) -> Command:
        return Command(
            stream=A, method="note", args=msgspec.json.encode({"line": line}), command_id=CommandId(command_id), explicit=explicit,
            received_at_us=SystemClock().wall_us(), copied_since_us=copied_since_us,
        )  # fmt: skip

    async def ask(self, shard: Shard, command: Command, *, wait_s: float = 5.0) -> Reply | None:
        """None where no answer came."""
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        shard.receive(command, answer.set_result)
        await asyncio.wait([answer], timeout=wait_s)
        return answer.result() if answer.done() else None

    @property
    def lines(self) -> list[str]:
        return [msgspec.json.decode(e.payload)["line"] for e in self.log.content(0).streams.get(A, []) if e.kind is Kind.STATE]


@pytest.fixture
async def owner() -> AsyncIterator[Owner]:
    made = Owner(MemoryLog(1))
    yield made
    for shard in made.shards:
        await shard.drain(1.0)
    await made.tasks.cancel_all()


async def test_s24_a_made_up_id_leaves_no_inbox_row_and_a_chosen_one_does(owner: Owner) -> None:
    shard = await owner.take()
    for line, explicit in (("one", False), ("two", True)):
        reply = await owner.ask(shard, owner.command(line, f"c-{line}", explicit=explicit))
        assert reply is not None
        assert reply.error is None
    assert owner.lines == ["one", "two"]
    assert list(owner.log.content(0).inbox) == [("c-two", A)]


@pytest.mark.parametrize("fault", [Fault.UNKNOWN_WRITTEN, Fault.UNKNOWN_LOST])
async def test_s18_after_an_unknown_outcome_it_is_done_once_and_gets_its_own_reply(owner: Owner, fault: Fault) -> None:
    shard = await owner.take()
    owner.log.inject(0, fault)
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(owner.ask(shard, owner.command(line, f"c-{line}"))) for line in ("one", "two")]
    assert sorted(owner.lines) == ["one", "two"]
    replies = [task.result() for task in asked]
    assert [reply and (reply.body, reply.error) for reply in replies] == [(b"1", None), (b"2", None)]


async def test_s18_two_unknown_outcomes_in_a_row_still_end_in_the_truth(owner: Owner) -> None:
    shard = await owner.take()
    owner.log.inject(0, Fault.UNKNOWN_LOST)
    owner.log.inject(0, Fault.UNKNOWN_WRITTEN)
    reply = await owner.ask(shard, owner.command("one", "c-one"))
    assert reply is not None
    assert (reply.body, reply.error, owner.lines) == (b"1", None, ["one"])


async def test_s5_a_copy_that_the_former_owner_did_is_not_done_again_and_not_answered_twice(owner: Owner) -> None:
    first = await owner.take()
    command = owner.command("one", "inbox-7")
    assert await owner.ask(first, command) is not None
    second = await owner.take()
    # The message was buffered here too, and is handled now.
    copy = owner.command("one", "inbox-7", copied_since_us=command.received_at_us)
    assert await owner.ask(second, copy, wait_s=0.2) is None
    assert owner.lines == ["one"]
    other = await owner.ask(second, owner.command("two", "inbox-8", copied_since_us=command.received_at_us))
    assert other is not None
    assert (other.body, owner.lines) == (b"2", ["one", "two"])


async def test_s5_a_forwarded_copy_of_what_was_done_says_that_somebody_else_gave_the_reply(owner: Owner) -> None:
    shard = await owner.take()
    command = owner.command("one", "inbox-7")
    assert await owner.ask(shard, command) is not None
    forwarded = await owner.ask(shard, owner.command("one", "inbox-7", explicit=True, copied_since_us=command.received_at_us))
    assert forwarded is not None
    assert isinstance(forwarded.error, OutcomeUnknown)
    assert owner.lines == ["one"]


async def test_s5_a_copy_of_what_is_under_way_attaches_to_it(owner: Owner) -> None:
    shard = await owner.take()
    command = owner.command("one", "inbox-7")
    async with asyncio.TaskGroup() as group:
        first = group.create_task(owner.ask(shard, command))
        second = group.create_task(owner.ask(shard, owner.command("one", "inbox-7", explicit=True, copied_since_us=command.received_at_us)))
    assert first.result() == second.result()
    assert owner.lines == ["one"]
