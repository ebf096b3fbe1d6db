"""Random histories against both adapters at once: they must agree with each other, and with a model of what the port promises."""

import asyncio
import os
import tempfile
from collections.abc import Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from events.envelope import NewEvent
from events.ids import CommandId, StreamId
from events.keeping.verify import verify
from events.store import Append, Arrival, Committed, Conflict, Duplicate, InboxStatus, LogReader, OutboxEntry, ShardStore
from tests.support.logs import MemoryLogUnderTest, SqliteLogUnderTest, command, deposited, group, stream_in

T = TypeVar("T")
SHARDS = 2
STREAMS = [stream_in(0, SHARDS, name) for name in "abc"]
REMOTE = stream_in(1, SHARDS, "r")

streams = st.sampled_from(STREAMS)
receivers = st.sampled_from([*STREAMS, REMOTE])
command_ids = st.sampled_from([f"c{n}" for n in range(6)])
statuses = st.sampled_from(list(InboxStatus))

# Some thousand transactions in one test: on a machine whose processors are busy with other things that takes its time, and a timeout
# that strikes inside Hypothesis is reported as a flaky strategy.
pytestmark = pytest.mark.timeout(300)


@st.composite
def steps(draw: st.DrawFn) -> dict[str, Any]:
    """A group still without its expected version: "right", or off by some."""
    return {
        "stream": draw(streams),
        "off": draw(st.sampled_from([0, 0, 0, 0, -1, 1])),
        "events": draw(st.lists(st.sampled_from(["good", "good", "good", "bad"]), max_size=3)),
        "command": draw(st.none() | st.tuples(command_ids, statuses, st.booleans(), st.booleans())),
        "sends": draw(st.lists(st.tuples(receivers, command_ids), max_size=2)),
    }


class Adapters(RuleBasedStateMachine):
    """Runs every operation on both adapters and compares what comes back, but for ids, salts and hashes, which are random."""

    def __init__(self) -> None:
        super().__init__()
        # Bounds that a short history reaches too: flushes of heads, and entries into long streams.
        self.patches = [
            mock.patch("events.sqlite.heads.HEADS_FLUSH_EVENTS", 7),
            mock.patch("events.sqlite.append_sqlite.STREAM_PAGE_VERSIONS", 4),
            mock.patch("events.keeping.verify.STREAM_PAGE_VERSIONS", 4),
        ]
        # Whatever fails from here on, this step or a later one, gives back all of it: a shard left open is a thread left running.
        self.release = ExitStack()
        with self.release:
            for patch in self.patches:
                self.release.enter_context(patch)
            self.loop = asyncio.new_event_loop()
            self.release.callback(self.loop.close)
            self.directory = Path(self.release.enter_context(tempfile.TemporaryDirectory(prefix="cuebook-model-", dir=_memory())))
            self.memory_log = MemoryLogUnderTest(SHARDS)
            self.sqlite_log = SqliteLogUnderTest(SHARDS, self.directory / "log")
            self.release.callback(self.close)
            self.memory: ShardStore = self.run(self.memory_log.shard())
            self.sqlite: ShardStore = self.run(self.sqlite_log.shard())
            self.memory_reader: LogReader = self.run(self.memory_log.reader())
            self.sqlite_reader: LogReader = self.run(self.sqlite_log.reader())
            self.versions: dict[StreamId, int] = dict.fromkeys(STREAMS, 0)
            self.incarnations = (self.memory_log.log.incarnation, self.run(self.sqlite.info()).incarnation)
            self.release = self.release.pop_all()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coroutine)

    def close(self) -> None:
        self.run(self.sqlite_log.close())

    def teardown(self) -> None:
        with self.release:
            self.close()
            assert verify(self.directory / "log") == []

    def both(self, memory: Coroutine[Any, Any, T], sqlite: Coroutine[Any, Any, T]) -> T:
        left, right = self.run(memory), self.run(sqlite)
        assert self.plain(left) == self.plain(right)
        return left

    def plain(self, value: object) -> Any:
        text = msgspec.json.encode(value).decode()
        for incarnation in self.incarnations:
            text = text.replace(incarnation, "incarnation")
        plain = msgspec.json.decode(text)
        for record in _records(plain):
            for random in ("event_id", "salt", "hash", "reason"):
                record.pop(random, None)
        return plain

    @rule(batch=st.lists(steps(), min_size=1, max_size=4), seconds=st.sampled_from([0.0, 0.001, 5.0, -60.0]))
    def append(self, batch: list[dict[str, Any]], seconds: float) -> None:
        for log in (self.memory_log, self.sqlite_log):
            log.clock.advance(seconds)
        # The caller's view: groups build on each other, as pipelined turns do; a refused one makes those behind it conflict.
        assumed = dict(self.versions)
        groups = []
        for step in batch:
            made = self.group(step, assumed[step["stream"]])
            groups.append(made)
            assumed[step["stream"]] += len(made.events)
        outcomes = self.both(self.memory.append(groups), self.sqlite.append(groups))
        for made, step, outcome in zip(groups, batch, outcomes, strict=True):
            version = self.versions[made.stream]
            if isinstance(outcome, Committed):
                assert made.expected_version == version
                assert "bad" not in step["events"]
                self.versions[made.stream] = version + len(made.events)
            elif isinstance(outcome, Conflict):
                assert outcome.actual == version
                assert made.expected_version != version or "bad" in step["events"]
            else:
                assert isinstance(outcome, Duplicate)
                assert made.inbox is not None
                assert outcome.entry.command_id == made.inbox.command_id

    def group(self, step: dict[str, Any], version: int) -> Append:
        inbox = None
        if step["command"] is not None:
            command_id, status, explicit, other_args = step["command"]
            inbox = command(step["stream"], command_id, status, explicit=explicit, args=b"[1]" if other_args else b"{}")
        return group(
            step["stream"],
            max(0, version + step["off"]),
            *(deposited() if kind == "good" else NewEvent(type="a.b", payload=b"\xff") for kind in step["events"]),
            inbox=inbox,
            outbox=[OutboxEntry(receiver=receiver, method="m", args=b"{}", command_id=CommandId(id_)) for receiver, id_ in step["sends"]],
        )

    @rule(stream=streams, command_id=command_ids, n=st.integers(0, 4), time=st.integers(0, 2**51))
    def accept(self, stream: StreamId, command_id: str, n: int, time: int) -> None:
        offered = Arrival(
            entry=command(stream, command_id, InboxStatus.QUEUED),
            sender=REMOTE if n else None,
            n=n,
            incarnation="i" if n else "",
            time=time,
        )
        self.both(self.memory.accept([offered]), self.sqlite.accept([offered]))

    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        waiting = self.run(self.memory.unsent())
        if waiting:
            chosen = data.draw(st.sampled_from(list(waiting)))
            for store, incarnation in zip((self.memory, self.sqlite), self.incarnations, strict=True):
                self.run(store.acknowledge([(chosen.sender, chosen.entry.receiver, incarnation, chosen.n)]))

    @rule()
    def reopen(self) -> None:
        """A new owner, with nothing in memory."""
        self.memory = self.run(self.memory_log.shard())
        self.sqlite = self.run(self.sqlite_log.shard())

    @rule(command_id=command_ids, stream=streams)
    def look_up(self, command_id: str, stream: StreamId) -> None:
        self.both(self.memory.inbox(stream, CommandId(command_id)), self.sqlite.inbox(stream, CommandId(command_id)))

    @invariant()
    def they_hold_the_same(self) -> None:
        self.both(self.memory.unfinished(), self.sqlite.unfinished())
        self.both(self.memory.unsent(), self.sqlite.unsent())
        for stream in STREAMS:
            snapshot, events = self.both(self.memory.load(stream, "s"), self.sqlite.load(stream, "s"))
            assert snapshot is None
            assert [event.version for event in events] == list(range(1, self.versions[stream] + 1))

    @rule(stream=streams, after=st.integers(0, 12), limit=st.integers(1, 6))
    def read_a_page(self, stream: StreamId, after: int, limit: int) -> None:
        events = self.both(
            self.memory_reader.read_stream(stream, after=after, limit=limit),
            self.sqlite_reader.read_stream(stream, after=after, limit=limit),
        )
        assert [event.version for event in events] == list(range(after + 1, min(after + limit, self.versions[stream]) + 1))
        self.both(self.memory_reader.head(stream), self.sqlite_reader.head(stream))
        self.both(self.memory_reader.streams(), self.sqlite_reader.streams())


def _memory() -> str | None:
    """A folder in memory where there is one: thousands of commits that each wait for a shared disk are minutes."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None


def _records(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        return [value, *(record for inner in value.values() for record in _records(inner))]
    if isinstance(value, list):
        return [record for inner in value for record in _records(inner)]
    return []


TestAdapters = Adapters.TestCase
TestAdapters.settings = settings(
    max_examples=40, stateful_step_count=16, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
