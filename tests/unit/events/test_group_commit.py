"""One commit for what arrives while the one before runs, and nobody is left without an answer."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from itertools import pairwise
from typing import Any

import pytest

from events.envelope import NewEvent
from events.errors import AppendOutcomeUnknownError, CuebookError, LogFullError, SupersededError, TransientError
from events.group_commit import GroupCommit
from events.ids import CommandId
from events.in_memory.content_memory import Fault
from events.in_memory.store_memory import MemoryLog, MemoryShard
from events.limits import COMMIT_BYTES_MAX, COMMIT_TURNS_MAX, EVENT_BYTES_MAX, OUTCOMES_AT_ONCE
from events.store import Accepted, Append, Arrival, Committed, Conflict, OutboxEntry, Outcome
from tests.support.logs import ManualClock, SeededEntropy, arrival, deposited, group, stream_in

SHARDS = 2
A = stream_in(0, SHARDS, "a")
B = stream_in(0, SHARDS, "b")
REMOTE = stream_in(1, SHARDS, "r")


class Slow(MemoryShard):
    """A store whose commits wait for `let_go`."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log, 0)
        self.gate = asyncio.Event()
        self.gate.set()
        self.batches: list[tuple[int, int, int]] = []

    async def commit(
        self, groups: Sequence[Append], arrivals: Sequence[Arrival] = (), sends: Sequence[tuple[Any, Any, str, int]] = (),
        *, keys: Sequence[tuple[Any, str]] = (),
    ) -> tuple[Sequence[Outcome], Sequence[Accepted]]:  # fmt: skip
        self.batches.append((len(groups), len(arrivals), len(sends)))
        result = await super().commit(groups, arrivals, sends, keys=keys)
        await self.gate.wait()
        return result


class Bench:
    """A group commit over memory, and what was told to whom."""

    def __init__(self) -> None:
        self.log = MemoryLog(SHARDS, clock=ManualClock(), entropy=SeededEntropy())
        self.store = Slow(self.log)
        self.tasks: list[asyncio.Task[None]] = []
        self.told: list[tuple[str, Outcome | CuebookError]] = []
        self.commit = GroupCommit(self.store, self.spawn)

    def spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.append(task)
        return task

    def submit(self, name: str, append: Append) -> None:
        self.commit.submit(append, self.note(name))

    def note(self, name: str) -> Callable[[Outcome | CuebookError], None]:
        return lambda outcome: self.told.append((name, outcome))

    def kinds(self) -> list[tuple[str, str]]:
        return [(name, type(outcome).__name__) for name, outcome in self.told]


@pytest.fixture
async def bench() -> Bench:
    made = Bench()
    await made.store.take("w")
    return made


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to that")


async def test_what_arrives_while_a_commit_runs_is_the_next_batch(bench: Bench) -> None:
    bench.store.gate.clear()
    bench.submit("first", group(A, 0, deposited()))
    await until(lambda: len(bench.store.batches) == 1)
    for version in range(1, 6):
        bench.submit(str(version), group(A, version, deposited()))
    bench.store.gate.set()
    await bench.commit.drain()
    assert bench.store.batches == [(1, 0, 0), (5, 0, 0)]
    assert [name for name, _ in bench.told] == ["first", "1", "2", "3", "4", "5"]
    assert all(isinstance(outcome, Committed) for _, outcome in bench.told)
    statistics = bench.commit.statistics()
    assert (statistics.commits, statistics.groups, statistics.events, statistics.largest_batch, statistics.waiting) == (2, 6, 6, 5, 0)


async def ticks_at(told: list[int], count: Callable[[], int]) -> None:
    """Note what `count` says in every turn of the loop, until cancelled."""
    while True:
        told.append(count())
        await asyncio.sleep(0)


async def test_the_loop_turns_between_the_outcomes_of_a_large_batch(bench: Bench) -> None:
    """Whoever is told goes on at once: a thousand in a row would hold up every timer for as long as they take."""
    seen: list[int] = []
    for number in range(COMMIT_TURNS_MAX):
        bench.submit(str(number), group(A, number, deposited()))
    watching = asyncio.get_running_loop().create_task(ticks_at(seen, lambda: len(bench.told)))
    await bench.commit.drain()
    watching.cancel()
    seen.append(len(bench.told))
    assert max(after - before for before, after in pairwise(seen)) == OUTCOMES_AT_ONCE
    assert [name for name, _ in bench.told] == [str(number) for number in range(COMMIT_TURNS_MAX)]
    assert len(bench.store.batches) == 1


async def test_what_is_submitted_between_two_outcomes_of_a_batch_waits_for_the_next(bench: Bench) -> None:
    """Else it would be cut into small ones, an fsync each."""
    again = range(100)

    def submit_again(number: int) -> Callable[[Outcome | CuebookError], None]:
        return lambda _: bench.submit(f"again {number}", group(A, 100 + number, deposited()))

    for number in again:
        bench.commit.submit(group(A, number, deposited()), submit_again(number))
    await bench.commit.drain()
    assert [groups for groups, _, _ in bench.store.batches] == [100, 100]
    assert [name for name, _ in bench.told] == [f"again {number}" for number in again]


async def test_s18_a_worker_cancelled_between_outcomes_tells_the_rest_what_they_are(bench: Bench) -> None:
    """They are known: "unknown" would make each of them be looked up."""
    unknown: list[None] = []
    bench.commit = GroupCommit(bench.store, bench.spawn, lambda: unknown.append(None))
    count = 3 * OUTCOMES_AT_ONCE
    for number in range(count):
        bench.submit(str(number), group(A, number, deposited()))
    await until(lambda: len(bench.told) > 0)
    assert len(bench.told) == OUTCOMES_AT_ONCE
    bench.tasks[-1].cancel()
    await bench.commit.drain()
    assert bench.kinds() == [(str(number), "Committed") for number in range(count)]
    assert unknown == []


async def test_nobody_is_told_before_the_commit_has_ended(bench: Bench) -> None:
    bench.store.gate.clear()
    bench.submit("a", group(A, 0, deposited()))
    await until(lambda: bench.store.batches != [])
    await asyncio.sleep(0)
    assert bench.told == []
    bench.store.gate.set()
    await bench.commit.drain()
    assert bench.kinds() == [("a", "Committed")]


async def test_there_is_a_task_only_while_there_is_work(bench: Bench) -> None:
    """Design 6: no task for an idle actor, nor for an idle shard."""
    assert bench.tasks == []
    for round_ in range(3):
        bench.submit("a", group(A, round_, deposited()))
        await bench.commit.drain()
        assert len(bench.tasks) == round_ + 1
        assert all(task.done() for task in bench.tasks)
    await bench.commit.drain()


async def test_tells_groups_and_acknowledgements_share_a_commit(bench: Bench) -> None:
    bench.submit("send", group(A, 0, outbox=[OutboxEntry(receiver=REMOTE, method="m", args=b"{}", command_id=CommandId("s"))]))
    await bench.commit.drain()
    waiting = (await bench.store.unsent())[0]
    accepted = bench.commit.accept([arrival(A, "c1"), arrival(B, "c1")])
    acknowledged = bench.commit.acknowledge([(A, REMOTE, waiting.incarnation, waiting.n)])
    bench.submit("a", group(A, 0, deposited()))
    assert [result.result for result in await accepted] == ["taken", "taken"]
    await acknowledged
    assert bench.store.batches[1:] == [(1, 2, 1)]
    assert await bench.store.unsent() == []
    statistics = bench.commit.statistics()
    assert (statistics.arrivals, statistics.acknowledged) == (2, 1)


async def test_a_batch_is_bounded_in_turns_and_in_bytes(bench: Bench) -> None:
    """S12."""
    for number in range(COMMIT_TURNS_MAX + 5):
        bench.submit("n", group(A, number, deposited()))
    await bench.commit.drain()
    assert [groups for groups, _, _ in bench.store.batches] == [COMMIT_TURNS_MAX, 5]
    bench.store.batches.clear()
    big = NewEvent(type="a.b", payload=b'"' + b"x" * (EVENT_BYTES_MAX - 2) + b'"')
    fit = COMMIT_BYTES_MAX // EVENT_BYTES_MAX
    for number in range(fit + 1):
        bench.submit("b", group(B, number, big))
    await bench.commit.drain()
    assert [groups for groups, _, _ in bench.store.batches] == [fit, 1]
    assert all(isinstance(outcome, Committed) for _, outcome in bench.told)


async def test_many_tells_are_bounded_too_and_do_not_starve_groups(bench: Bench) -> None:
    many = [bench.commit.accept([arrival(A, f"{batch}-{n}") for n in range(400)]) for batch in range(4)]
    bench.submit("a", group(A, 0, deposited()))
    for accepted in many:
        assert len(await accepted) == 400
    await bench.commit.drain()
    assert [arrivals for _, arrivals, _ in bench.store.batches] == [1_200, 400]
    assert bench.kinds() == [("a", "Committed")]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.FULL, LogFullError), (Fault.TRANSIENT, TransientError), (Fault.SUPERSEDED, SupersededError),
        (Fault.UNKNOWN_LOST, AppendOutcomeUnknownError), (Fault.UNKNOWN_WRITTEN, AppendOutcomeUnknownError),
    ],
)  # fmt: skip
async def test_a_failed_commit_is_told_to_each_who_waited_for_it(bench: Bench, fault: Fault, error: type[CuebookError]) -> None:
    """S18."""
    bench.log.inject(0, fault)
    bench.submit("a", group(A, 0, deposited()))
    bench.submit("b", group(B, 0, deposited()))
    accepted = bench.commit.accept([arrival(A, "c1")])
    acknowledged = bench.commit.acknowledge([(A, REMOTE, "i", 1)])
    with pytest.raises(error):
        await accepted
    with pytest.raises(error):
        await acknowledged
    await bench.commit.drain()
    assert [(name, type(outcome)) for name, outcome in bench.told] == [("a", error), ("b", error)]
    assert bench.commit.statistics().errors == 1
    bench.submit("later", group(A, 0, deposited()))
    await bench.commit.drain()
    expected = {Fault.SUPERSEDED: SupersededError, Fault.UNKNOWN_WRITTEN: Conflict}.get(fault, Committed)
    assert type(bench.told[-1][1]) is expected


async def test_a_callback_that_raises_is_reported_and_harms_nobody(bench: Bench) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    def raising(_: object) -> None:
        raise RuntimeError("a bug")

    bench.commit.submit(group(A, 0, deposited()), raising)
    bench.submit("b", group(B, 0, deposited()))
    await bench.commit.drain()
    bench.submit("c", group(A, 1, deposited()))
    await bench.commit.drain()
    assert bench.kinds() == [("b", "Committed"), ("c", "Committed")]
    assert [str(context["exception"]) for context in reported] == ["a bug"]
    assert bench.commit.statistics().callback_errors == 1


async def test_an_unforeseen_failure_of_the_store_is_an_unknown_outcome(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    async def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(bench.store, "commit", broken)
    bench.submit("a", group(A, 0, deposited()))
    await bench.commit.drain()
    assert bench.kinds() == [("a", "AppendOutcomeUnknownError")]
    assert len(reported) == 1


async def test_a_callback_may_submit_the_next_group(bench: Bench) -> None:
    def chain(outcome: Outcome | CuebookError) -> None:
        assert isinstance(outcome, Committed)
        bench.told.append(("chained", outcome))
        if outcome.version < 5:
            bench.commit.submit(group(A, outcome.version, deposited()), chain)

    bench.commit.submit(group(A, 0, deposited()), chain)
    await bench.commit.drain()
    assert [outcome.version for _, outcome in bench.told if isinstance(outcome, Committed)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("turns", [0, 1, 5])
async def test_cancelling_the_worker_leaves_nobody_waiting(bench: Bench, turns: int) -> None:
    """What is under way is unknown, what still waits was not done; both hear it, even if the task never ran a step."""
    bench.store.gate.clear()
    bench.submit("under way", group(A, 0, deposited()))
    for _ in range(turns):
        await asyncio.sleep(0)
    bench.submit("queued", group(A, 1, deposited()))
    accepted: Awaitable[Sequence[Accepted]] = bench.commit.accept([arrival(A, "c1")])
    bench.tasks[-1].cancel()
    await bench.commit.drain()
    with pytest.raises(TransientError):
        await accepted
    expected = "TransientError" if turns == 0 else "AppendOutcomeUnknownError"
    assert bench.kinds() == [("under way", expected), ("queued", "TransientError")]
    bench.store.gate.set()
    head = await bench.store.head(A)
    bench.submit("later", group(A, head.version if head else 0, deposited()))
    await bench.commit.drain()
    assert bench.kinds()[-1] == ("later", "Committed")


async def test_a_spawner_that_is_shutting_down_answers_at_once(bench: Bench) -> None:
    def refusing(_: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        raise RuntimeError("shutting down")

    commit = GroupCommit(bench.store, refusing)
    commit.submit(group(A, 0, deposited()), bench.note("a"))
    assert bench.kinds() == [("a", "TransientError")]
    await commit.drain()


async def test_an_abandoned_wait_for_tells_takes_nothing_back(bench: Bench) -> None:
    """Cancelling a caller never cancels a commit."""
    accepted = asyncio.ensure_future(bench.commit.accept([arrival(A, "c1")]))
    accepted.cancel()
    await bench.commit.drain()
    assert [entry.command_id for entry in await bench.store.unfinished()] == ["c1"]


async def test_s30_no_floor_is_raised_under_a_commit(bench: Bench) -> None:
    first = bench.commit.floor(bench.log.clock.wall_us())
    assert first == bench.log.clock.wall_us()
    bench.store.gate.clear()
    bench.submit("one", group(A, 0, deposited()))
    await until(lambda: bench.store.batches != [])
    assert bench.commit.floor(first + 1_000_000) == first
    bench.store.gate.set()
    await bench.commit.drain()
    assert bench.commit.floor(first + 1_000_000) == first + 1_000_000
