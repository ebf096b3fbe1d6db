"""What the lock files of a deployment say at one moment: who lives, who owns what, who is stalled (S1, S2). Only looks.

`runtime.ownership.placement` says what each file means, and what follows from it.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from events.clock import Clock, SystemClock
from events.limits import PAUSE_NOTICED_S, STALL_AFTER_S
from runtime.ownership.heartbeat import BEAT_EVERY_S
from runtime.ownership.lease import Record, heartbeat_age, is_free, read_record

WATCHED_S: Final = PAUSE_NOTICED_S
if WATCHED_S < 2 * BEAT_EVERY_S:
    raise ValueError("runtime/ownership/survey.py: a healthy holder beats while it is watched")

WORKER, STANDBY = "worker", "standby"
UNKNOWN = "?"
"""Stands for the holder of a file whose record is blank; no worker id looks like this."""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A lock file that some process holds. record: None if blank. stale: the holder is stalled. stale_in_s: else, when it will be if it
    gives no sign of life."""

    record: Record | None
    age_s: float | None
    stale: bool
    stale_in_s: float = math.inf

    @property
    def epoch(self) -> int:
        return 0 if self.record is None else self.record.epoch

    @property
    def worker(self) -> str:
        return UNKNOWN if self.record is None else self.record.worker


class Watch:
    """Tells a stalled holder from one that this process has merely not looked at for a while. One per observing process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[Path, tuple[Record | None, float]] = {}
        self._last_look = clock.monotonic()

    def is_stale(self, path: Path, record: Record | None) -> bool:
        """Whether the holder of `path` has given no sign of life for `STALL_AFTER_S`, part of it under our eyes."""
        return self.stale_in_s(path, record) < 0

    def stale_in_s(self, path: Path, record: Record | None) -> float:
        """In how many seconds the holder of `path` is stalled if it gives no sign of life; below 0: it is."""
        if record is not None:
            record = msgspec.structs.replace(record, floor=0)  # says something of the log, not of its holder
        now = self._clock.monotonic()
        # A worker looks twice a second, at its own presence if at nothing else: a longer gap is a stop of its own, perhaps of the host.
        if now - self._last_look > PAUSE_NOTICED_S:
            self._seen.clear()
        self._last_look = now
        before = self._seen.get(path)
        if before is None or before[0] != record:
            before = self._seen[path] = (record, now)
        watched_s = now - before[1]
        if record is None:
            return STALL_AFTER_S - watched_s
        # A holder doubts itself as soon as its heartbeat is older than this bound: not a moment earlier is it stalled.
        left_s = STALL_AFTER_S - heartbeat_age(record, self._clock)
        return left_s if watched_s >= WATCHED_S else max(left_s, WATCHED_S - watched_s)

    def forget(self, path: Path) -> None:
        """Nobody holds `path`."""
        self._seen.pop(path, None)


class ShardFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds a shard. main: by ``shard-n.lock``. take: by ``shard-n.take``, during and after a takeover. None = nobody."""

    shard: int
    main: Held | None
    take: Held | None

    @property
    def owner(self) -> Held | None:
        """The holder to reckon with: of those that are not stalled the one with the highest epoch, unless that belongs to a stalled one;
        then whoever claims the shard; else the stalled one with the highest epoch."""
        held = [each for each in (self.main, self.take) if each is not None]
        newest = max((each.epoch for each in held), default=0)

        def rank(each: Held) -> int:
            if each.epoch == newest and newest > 0:
                return 1 if each.stale else 3
            return 2 if each.epoch == 0 and not each.stale else 0

        return max(held, key=rank, default=None)


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the lock files say, at one moment.

    workers: presence of each worker by id. Fields about shards of the observing worker itself, empty for others: lost: let go at once.
    doubtful: compare the epoch in the shard's file, then `Placement.confirm` or `Placement.release`.
    """

    workers: Mapping[str, Held]
    shards: tuple[ShardFacts, ...]
    lost: tuple[int, ...] = ()
    doubtful: tuple[int, ...] = ()

    @property
    def owners(self) -> dict[int, str | None]:
        """Shard to worker id; None = nobody holds it."""
        return {each.shard: None if each.owner is None else each.owner.worker for each in self.shards}

    @property
    def live(self) -> frozenset[str]:
        """Workers that are not stalled: by their presence, or by a shard that they hold and beat."""
        present = {worker for worker, held in self.workers.items() if not held.stale}
        working = {each.owner.worker for each in self.shards if each.owner is not None and not each.owner.stale}
        return frozenset((present | working) - {UNKNOWN})

    @property
    def standby(self) -> frozenset[str]:
        """Workers that asked for no further shards."""
        records = {worker: held.record for worker, held in self.workers.items()}
        return frozenset(worker for worker, record in records.items() if record is not None and record.purpose == STANDBY)

    @property
    def stalled(self) -> frozenset[int]:
        """Shards whose owner is stalled."""
        return frozenset(each.shard for each in self.shards if each.owner is not None and each.owner.stale)

    @property
    def stall_in_s(self) -> float:
        """In how many seconds the next worker or owner is stalled that gives no sign of life; infinite if each is already."""
        held = [*self.workers.values(), *(each for shard in self.shards for each in (shard.main, shard.take) if each is not None)]
        return min((each.stale_in_s for each in held if not each.stale), default=math.inf)

    @property
    def busy(self) -> frozenset[int]:
        """Shards that somebody has just locked, or is just letting go: no record, and no stall yet."""
        held = [(each.shard, each.owner) for each in self.shards]
        return frozenset(shard for shard, owner in held if owner is not None and owner.record is None and not owner.stale)


def main_path(data: Path, shard: int) -> Path:
    """The lock of a shard's owner."""
    return data / "log" / f"shard-{shard}.lock"


def take_path(data: Path, shard: int) -> Path:
    """The lock of who takes a shard over from a stalled owner."""
    return data / "log" / f"shard-{shard}.take"


def presence_path(data: Path, worker: str) -> Path:
    """The lock that a worker holds while it lives."""
    return data / "workers" / f"{worker}.lock"


def survey(data: Path, shards: int, *, clock: Clock | None = None, watch: Watch | None = None) -> Facts:
    """Read all lock files; for `status` and `doctor` too, which are no workers. Takes no lock, so it disturbs nobody.

    Args:
        watch: what decides who is stalled; None = by the age of the heartbeat alone, all that a single look can tell.

    Raises:
        TransientError: a file cannot be opened.
    """
    clock = clock or SystemClock()

    def look(path: Path) -> Held | None:
        # The lock first: a record read before it could be that of a former holder.
        if is_free(path):
            if watch is not None:
                watch.forget(path)
            return None
        record = read_record(path)
        age_s = None if record is None else heartbeat_age(record, clock)
        if watch is None:
            return Held(record=record, age_s=age_s, stale=age_s is not None and age_s > STALL_AFTER_S)
        stale_in_s = watch.stale_in_s(path, record)
        return Held(record=record, age_s=age_s, stale=stale_in_s < 0, stale_in_s=stale_in_s)

    present = {path.stem: look(path) for path in sorted((data / "workers").glob("*.lock"))}
    return Facts(
        workers={worker: held for worker, held in present.items() if held is not None},
        shards=tuple(
            ShardFacts(shard=shard, main=look(main_path(data, shard)), take=look(take_path(data, shard))) for shard in range(shards)
        ),
    )
