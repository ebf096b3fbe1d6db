"""Placement in any order of events: the same invariants hold as in the interleavings of test_placement_takeover.py (S1, S2)."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from runtime.ownership.lease import is_free
from runtime.ownership.survey import take_path
from tests.support.placement_world import SHARDS, STALL, Worker, World


class AnyOrder(RuleBasedStateMachine):
    """Workers stop, wake, die and start at any step of their work. In the end each shard has one owner, the one that its file names."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.world = World(Path(self.folder.name))
        self.work: dict[str, Iterator[None]] = {}
        for name in ("a", "b", "c"):
            self.start(name)

    def start(self, name: str) -> None:
        self.work[name] = self.ticks(self.world.worker(name))

    def ticks(self, worker: Worker) -> Iterator[None]:
        """What the node does each half second, with a yield wherever the process may be stopped."""
        placement = worker.placement
        while True:
            facts = placement.observe()
            yield
            for shard in facts.lost:
                worker.release(shard)
                yield
            for shard in facts.doubtful:
                if worker.epochs.get(shard) == self.world.epochs[shard]:
                    placement.confirm(shard, worker.epochs[shard])
                else:
                    worker.release(shard)
                yield
            planned = placement.plan(facts)
            for shard in planned.release:
                worker.release(shard)
                yield
            for shard in planned.take + planned.stalled:
                if placement.try_take(shard) is None:
                    continue
                yield
                worker.bump(shard)
                yield
                if not worker.confirm(shard):
                    worker.release(shard)
                yield
            # An append would find out: the epoch in the file is no longer ours (S3).
            for shard, epoch in list(worker.epochs.items()):
                if epoch != self.world.epochs[shard]:
                    worker.release(shard)
            yield

    def running(self) -> list[str]:
        return sorted(name for name, worker in self.world.workers.items() if worker.runs)

    @rule(data=st.data(), steps=st.integers(1, 12))
    def run(self, data: st.DataObject, steps: int) -> None:
        if self.running():
            name = data.draw(st.sampled_from(self.running()))
            for _ in range(steps):
                # A worker may be killed by another only while it is stopped, so not in here.
                next(self.work[name])

    @rule(data=st.data())
    def stop_or_wake(self, data: st.DataObject) -> None:
        alive = sorted(name for name, worker in self.world.workers.items() if worker.alive)
        if alive:
            worker = self.world.workers[data.draw(st.sampled_from(alive))]
            worker.runs = not worker.runs

    @rule(data=st.data())
    def die_or_start(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.world.workers)))
        if self.world.workers[name].alive:
            self.world.workers[name].die()
        else:
            self.start(name)

    @rule(seconds=st.sampled_from([0.5, 1.0, STALL]))
    def pass_time(self, seconds: float) -> None:
        self.beats(seconds)

    def beats(self, seconds: float, steps: int = 0) -> None:
        """Running workers beat, and do `steps` of their work each half second."""
        for _ in range(round(seconds * 2)):
            self.world.time.now += 0.5
            for name in self.running():
                self.world.workers[name].heartbeat.loop_turned()
                self.world.workers[name].heartbeat.beat()
                for _ in range(steps):
                    if self.world.workers[name].runs:
                        next(self.work[name])

    def teardown(self) -> None:
        try:
            for worker in self.world.workers.values():
                worker.runs = worker.alive
            if not self.running():
                self.start("a")
            self.beats(30, steps=10)
            held = {name: self.world.workers[name].placement.held for name in self.running()}
            note(f"{held} {self.world.epochs}")
            assert sorted(shard for shards in held.values() for shard in shards) == list(range(SHARDS))
            assert max(map(len, held.values())) - min(map(len, held.values())) <= 1
            for name, shards in held.items():
                worker = self.world.workers[name]
                assert all(worker.epochs[shard] == self.world.epochs[shard] for shard in shards)
                assert all(not worker.placement.is_in_doubt(shard) for shard in shards)
            assert all(is_free(take_path(self.world.data, shard)) for shard in range(SHARDS))
            epochs = list(self.world.epochs)
            self.beats(10, steps=10)
            assert self.world.epochs == epochs, "a balanced deployment went on moving shards"
        finally:
            for worker in self.world.workers.values():
                worker.die()
            self.folder.cleanup()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
