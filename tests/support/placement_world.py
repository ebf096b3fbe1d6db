"""Workers of one process that share lock files and a clock which a test moves."""

import os
from pathlib import Path

from events.limits import STALL_AFTER_S
from runtime.ownership.heartbeat import Heartbeat
from runtime.ownership.lease import Record
from runtime.ownership.placement import Placement
from runtime.ownership.survey import Facts

SHARDS = 2
STALL = STALL_AFTER_S + 1


class Time:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now

    def wall_us(self) -> int:
        return int(self.now * 1e6)


class World:
    """A deployment: its folder, its time, its workers, the epoch in each shard's file, and who was killed."""

    def __init__(self, data: Path) -> None:
        self.data, self.time = data, Time()
        self.epochs = [0] * SHARDS
        self.workers: dict[str, Worker] = {}
        self.killed: list[str] = []

    def worker(self, name: str) -> "Worker":
        self.workers[name] = Worker(self, name)
        return self.workers[name]

    def kill(self, record: Record) -> bool:
        self.killed.append(record.worker)
        self.workers[record.worker].die()
        return True

    def pass_time(self, seconds: float) -> None:
        """Running workers beat each second and look twice a second."""
        for _ in range(round(seconds * 2)):
            self.time.now += 0.5
            for worker in self.workers.values():
                if worker.runs:
                    worker.heartbeat.loop_turned()
                    worker.heartbeat.beat()
                    worker.facts = worker.placement.observe()


class Worker:
    """A worker that does nothing by itself, except beat and look while it runs and time passes."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name, self.runs, self.alive = world, name, True, True
        self.heartbeat = Heartbeat(clock=world.time)
        self.placement = Placement(world.data, name, SHARDS, self.heartbeat, clock=world.time, kill=world.kill)
        self.placement.join()
        self.facts: Facts | None = None
        self.epochs: dict[int, int] = {}

    def take(self, shard: int) -> bool:
        if self.placement.try_take(shard) is None:
            return False
        self.bump(shard)
        return self.confirm(shard)

    def bump(self, shard: int) -> None:
        self.world.epochs[shard] += 1
        self.epochs[shard] = self.world.epochs[shard]

    def confirm(self, shard: int) -> bool:
        return self.placement.confirm(shard, self.epochs[shard])

    def release(self, shard: int) -> None:
        self.placement.release(shard)
        self.epochs.pop(shard, None)

    def stop(self) -> None:
        self.runs = False

    def wake(self) -> Facts:
        """Run again and look at once, before any heartbeat of the thread."""
        self.runs = True
        self.facts = self.placement.observe()
        return self.facts

    def die(self) -> None:
        """As by SIGKILL: the system closes the files, nothing is written."""
        self.runs = self.alive = False
        presence = self.placement._presence
        for lease in [*self.placement._leases.values(), *([presence] if presence else [])]:
            if lease._descriptor is not None:
                os.close(lease._descriptor)
                lease._descriptor = None
        self.placement._leases.clear()
