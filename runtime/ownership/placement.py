"""Which worker should own which shard, and how a shard gets from one to the next (S1, S2, S5, S6).

Two halves. `plan` is a pure function from facts to what one worker should do; every worker computes it alone, and from the same facts they
all compute the same, so they normally do not race. `Placement` reads the facts from the lock files and takes and lets go of shards. Where
facts differ or change between look and deed, the locks decide who tries and the epoch inside the shard's file decides who writes (S3);
nothing here is needed for safety, only for progress. Knows no log: the caller bumps the epoch and tells it through `confirm`.

A holder records the epoch it took the shard with, 0 until then ("claims it"). Of two holders of one shard, the one with the higher epoch
owns it and the other, if it runs at all, lets go.

**Take a free shard.** Lock ``shard-n.lock`` with record and heartbeat, *then* look at ``shard-n.take``: held by somebody who is not
stalled = let go again. Bump the epoch, `confirm`.

**Take the shard of a stalled owner**, who still holds ``shard-n.lock``. Lock ``shard-n.take`` with record and heartbeat, *then* look at
``shard-n.lock`` again: owner beats again = let go. Bump the epoch; if the write lock is not free within 1 s, or at once if its holder is
stopped by a signal (`is_holder_stopped`), which lets go of nothing, `kill_stalled` and bump again;
where it may not, `release`, and the shard answers 503. `confirm`. From here ``.take`` is the proof of ownership, and each `observe` tries
to lock ``.lock`` too: that succeeds once the former owner has died or let go, and only then ``.take`` is let go.

**Wake after a stop.** A holder that others may have judged stalled (`Lease.in_doubt`) beats first and looks *then*: if another holds a file
of the shard by which it claims it or has a higher epoch, the shard is lost; else the caller compares the epoch in the shard's file with its
own and calls `confirm` or `release`. Until then it should not answer from memory.

Each of the three writes its own mark before it looks at the other's, so of two that overlap at least one sees the other. That both see each
other and both let go is allowed: the shard is then free, and the next plan names one worker for it.

Interleavings considered (tests/unit/runtime/test_placement_takeover.py has a test of each, and runs them in any order):

- *Two takers*: the second does not get ``.take``. If meanwhile the stopped owner died, it gets ``.lock``, sees ``.take`` and lets go.
- *The owner wakes before the taker has locked* ``.take``: the taker looks again, sees the heartbeat, lets go.
- *... after that, before the bump*: the owner is in doubt, sees ``.take`` held and gives the shard up; the taker goes on.
- *... after the bump*: the same, or it sees the higher epoch; an append of it that was under way is refused by the epoch.
- *The taker dies holding* ``.take``: the system frees it; the owner is as stalled as before, and the next taker bumps again.
- *The taker is stopped holding* ``.take``, owner gone: ``.lock`` is free and is taken as usual. The taker wakes and finds a higher epoch.
- *Owner and taker both stopped*: the one in the way of ``.take`` is killed, as S2 does with one in the way of the write lock.
- *A worker restarts under its old name*: its former locks are free, so it owns nothing and gets its share like any other. While its former
  process lives, even stopped, the name is in use and the start is refused.
- *A holder is stopped between lock and record*: the record is blank, or a dead one's. Nobody is stalled before it was *watched* without a
  sign of life (below), then the shard is taken by epoch; a blank record kills nobody, a dead one's pid is gone.
- *The watcher itself was stopped, or the whole host*: all heartbeats look old to whoever wakes first. So age is not enough: the same
  heartbeat must have been seen for `WATCHED_S` without a pause of one's own.
- *A lock file is removed by hand*: its holder finds the path leading elsewhere and gives the shard up.
"""

import time
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec
import structlog

from events.clock import Clock, SystemClock
from events.errors import ConfigurationError, TransientError
from runtime.ownership.heartbeat import Heartbeat
from runtime.ownership.lease import Lease, Record, is_free, is_stopped, kill_stalled, own_record, read_floor, read_record, remove_if_free
from runtime.ownership.local_disk import check_local_filesystem
from runtime.ownership.plan import Plan, plan
from runtime.ownership.survey import STANDBY, WORKER, Facts, ShardFacts, Watch, main_path, presence_path, survey, take_path

# A file that a neighbour is just about to remove is busy for microseconds.
_JOIN_ATTEMPTS, _JOIN_PAUSE_S = 20, 0.01

log = structlog.get_logger(__name__)


class Placement:
    """The leases of one worker: its presence and its shards. For one thread, the event loop's; no call waits for another process.

    Each lease held is beaten by `heartbeat` from `try_take` to `release`.
    """

    def __init__(
        self,
        data: Path,
        worker: str,
        shards: int,
        heartbeat: Heartbeat,
        *,
        clock: Clock | None = None,
        kill: Callable[[Record], bool] = kill_stalled,
    ) -> None:
        """
        Args:
            data: the deployment's folder, on a local file system.
            shards: number of shards of the log.
            kill: how a stalled process is ended; tells whether it was.

        Raises:
            ConfigurationError: `worker` is not a token.
        """
        self._data = data
        self._worker = worker
        self._shards = shards
        self._heartbeat = heartbeat
        self._clock = clock or SystemClock()
        self._kill = kill
        self._record = own_record(worker, WORKER)
        self._watch = Watch(self._clock)
        self._presence: Lease | None = None
        # The lease that proves ownership: of the main file, or of the .take file until the main one is free.
        self._leases: dict[int, Lease] = {}

    @property
    def held(self) -> tuple[int, ...]:
        """The shards whose lease this worker holds, ascending; with or without a confirmed epoch."""
        return tuple(sorted(self._leases))

    def join(self) -> None:
        """Become visible to the other workers. Blocks for up to 0.2 s.

        Raises:
            ConfigurationError: a network file system (S6), or another process lives under this worker id.
            TransientError: the folder cannot be written.
        """
        check_local_filesystem(self._data)
        path = presence_path(self._data, self._worker)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self._data / "log").mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise TransientError(f"{path.parent} cannot be made: {error.strerror}", path=str(path.parent)) from error
        for _ in range(_JOIN_ATTEMPTS):
            self._presence = Lease.try_acquire(path, self._record, self._clock)
            if self._presence is not None:
                self._heartbeat.add(self._presence)
                return
            time.sleep(_JOIN_PAUSE_S)
        other = read_record(path)
        raise ConfigurationError(
            f"a worker {self._worker} runs on {self._data} already" + ("" if other is None else f", process {other.pid}"),
            worker=self._worker,
        )

    def stand_by(self) -> None:
        """Ask for no further shards, keep those held: before draining (S5), or because the registry lacks a type (S7)."""
        if self._presence is not None:
            self._presence.update(purpose=STANDBY)

    def close(self) -> None:
        """Release all shards, then the presence. Idempotent."""
        for shard in self.held:
            self.release(shard)
        if self._presence is not None:
            self._heartbeat.remove(self._presence)
            self._presence.release(remove=True)
            self._presence = None

    def observe(self) -> Facts:
        """Look at all files, called each 0.5 s and on a hint. Own leases that were in doubt beat first, a takeover whose former owner is
        gone gets the main lock, and presence files of dead workers are removed.

        Raises:
            TransientError: a file cannot be opened; nothing is known then.
        """
        in_doubt = {shard for shard, lease in self._leases.items() if self._beat_if_in_doubt(lease)}
        if self._presence is not None and self._beat_if_in_doubt(self._presence):
            self._presence.settle()
        self._get_main_locks()
        facts = survey(self._data, self._shards, clock=self._clock, watch=self._watch)
        for path in (self._data / "workers").glob("*.lock"):
            if path.stem not in facts.workers and path.stem != self._worker:
                remove_if_free(path)
        lost = {shard for shard in self._leases if self._is_lost(facts.shards[shard], in_doubt=shard in in_doubt)}
        return msgspec.structs.replace(facts, lost=tuple(sorted(lost)), doubtful=tuple(sorted(in_doubt - lost)))

    def plan(self, facts: Facts, *, idle: Collection[int] = (), pinned: Collection[int] = ()) -> Plan:
        """`plan` for this worker. Nothing to do for one that has not joined or stands by."""
        return plan(
            self._worker,
            facts.live,
            range(self._shards),
            facts.owners,
            idle=idle,
            # Owned by the rules but not by a lease of ours: a former process of this name, or a file replaced by hand.
            pinned={*pinned, *(set(range(self._shards)) - set(self._leases))},
            busy=facts.busy,
            standby=facts.standby,
        )

    def try_take(self, shard: int) -> Lease | None:
        """The lease of a free shard, or of one whose owner is stalled; the caller bumps the epoch next, then calls `confirm` or `release`.

        A caller that was stopped in between would supersede whoever took the shard meanwhile: safe, but a needless move. So it asks
        `is_in_doubt` right before the bump.

        Returns:
            None if somebody else was faster, the owner lives, or a stalled taker is in the way: it was killed, or may not be.

        Raises:
            TransientError: a lock file cannot be written.
        """
        if shard in self._leases:
            return self._leases[shard]
        lease = self._take_free(shard) or self._take_stalled(shard)
        if lease is not None:
            # Whichever file the last owner held: what it promised to readers binds whoever comes next (S30).
            lease.note_floor(max(read_floor(main_path(self._data, shard)), read_floor(take_path(self._data, shard))))
            self._leases[shard] = lease
            self._heartbeat.add(lease)
        return lease

    def note_floor(self, shard: int, floor: int) -> None:
        """Nothing more is recorded in `shard` at or below the logical time `floor` (S30).

        Nothing if the shard is not owned, or not for sure: then it is not ours to promise.
        """
        lease = self._leases.get(shard)
        if lease is not None and lease.record.epoch > 0 and not lease.in_doubt:
            lease.note_floor(floor)

    def confirm(self, shard: int, epoch: int) -> bool:
        """The shard's file names this worker as owner with `epoch`: after the bump, and when a doubt is resolved.

        Returns:
            False if the shard was released meanwhile: the caller does not own it.
        """
        lease = self._leases.get(shard)
        if lease is None:
            return False
        if lease.record.epoch != epoch:
            lease.update(epoch=epoch)
        lease.settle()
        return True

    def is_in_doubt(self, shard: int) -> bool:
        """Whether this worker may have lost the shard without knowing: one clock read, for whoever answers from memory (S17).

        True also for a shard that is not held.
        """
        lease = self._leases.get(shard)
        return lease is None or lease.in_doubt

    def release(self, shard: int) -> None:
        """Let go of a shard, after its writer is closed; nothing if it is not held."""
        lease = self._leases.pop(shard, None)
        if lease is not None:
            self._heartbeat.remove(lease)
            lease.release()

    def kill_stalled(self, shard: int) -> bool:
        """SIGKILL whoever holds a file of `shard` and is still stalled now (S2): the write lock of the shard did not get free.

        Returns:
            Whether somebody was killed. False: nobody is stalled any more, or it may not be killed; `doctor` names it from `survey`.
        """
        mine = self._leases.get(shard)
        paths = {main_path(self._data, shard), take_path(self._data, shard)} - ({mine.path} if mine else set())
        killed = [path for path in paths if self._kill_holder(path)]
        return bool(killed)

    def is_holder_stopped(self, shard: int) -> bool:
        """Whether whoever holds a file of `shard`, and is stalled, is stopped by a signal: it lets go of no lock before it goes on."""
        mine = self._leases.get(shard)
        paths = {main_path(self._data, shard), take_path(self._data, shard)} - ({mine.path} if mine else set())
        records = [record for path in paths if not is_free(path) and (record := read_record(path)) is not None]
        return bool(records) and all(is_stopped(record) for record in records)

    def _take_free(self, shard: int) -> Lease | None:
        main = Lease.try_acquire(main_path(self._data, shard), self._record_for("owner"), self._clock)
        if main is not None and self._is_held_and_fresh(take_path(self._data, shard)):
            main.release()
            return None
        return main

    def _take_stalled(self, shard: int) -> Lease | None:
        path = main_path(self._data, shard)
        if is_free(path) or not self._watch.is_stale(path, read_record(path)):
            return None
        rival = take_path(self._data, shard)
        take = Lease.try_acquire(rival, self._record_for("takeover"), self._clock)
        if take is None:
            self._kill_holder(rival)
            return None
        # Again, now that a waking owner can see us: either it sees us and gives up, or we see its heartbeat here.
        if is_free(path) or not self._watch.is_stale(path, read_record(path)):
            take.release()
            return None
        return take

    def _get_main_locks(self) -> None:
        """Go over from ``.take`` to the main lock where that has become free. Both are held for a moment, so nobody sees a free shard."""
        for shard, lease in list(self._leases.items()):
            if lease.path != take_path(self._data, shard) or lease.record.epoch == 0 or lease.in_doubt:
                continue
            try:
                # With our own floor at once: the one in the file was promised by another, for its own events.
                record = msgspec.structs.replace(self._record_for("owner"), floor=lease.record.floor)
                main = Lease.try_acquire(main_path(self._data, shard), record, self._clock)
            except TransientError:
                continue  # .take goes on being the proof
            if main is not None:
                main.update(epoch=lease.record.epoch)
                self._heartbeat.add(main)
                self._leases[shard] = main
                self._heartbeat.remove(lease)
                lease.release()

    def _beat_if_in_doubt(self, lease: Lease) -> bool:
        if not lease.in_doubt:
            return False
        try:
            lease.beat()
        except OSError as error:
            # Stays in doubt. Others see us stalled, which we are if the disk takes no byte.
            log.warning("heartbeat_not_written", path=str(lease.path), reason=str(error))
        return True

    def _is_lost(self, shard: ShardFacts, *, in_doubt: bool) -> bool:
        lease = self._leases[shard.shard]
        if not lease.is_in_place():
            return True
        other = shard.take if lease.path == main_path(self._data, shard.shard) else shard.main
        if other is None:
            return False
        return other.epoch > lease.record.epoch > 0 or (in_doubt and other.epoch == 0)

    def _is_held_and_fresh(self, path: Path) -> bool:
        return not is_free(path) and not self._watch.is_stale(path, read_record(path))

    def _kill_holder(self, path: Path) -> bool:
        if is_free(path):
            return False
        record = read_record(path)
        if record is None or not self._watch.is_stale(path, record) or not self._kill(record):
            return False
        log.warning("stalled_worker_killed", worker=record.worker, pid=record.pid, path=str(path))
        return True

    def _record_for(self, purpose: str) -> Record:
        return msgspec.structs.replace(self._record, purpose=purpose)
