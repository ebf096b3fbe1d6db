"""Ownership among real processes that are killed, stopped, continued, blocked and raced (S1, S2, S4, S6).

The children share one clock that runs ten times as fast as the system's, so a stall is seen after half a second. Only they are signalled.
"""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from runtime.ownership.lease import Lease, is_free, is_stopped, kill_stalled, own_record, process_started, read_record
from runtime.ownership.survey import Facts, main_path, survey, take_path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc; pidfds")

SCALE = 10.0
SHARDS = 4

# Arguments: data folder, worker id, shards, scale of the clock, scale of the loop's clock.
CHILD = """
import asyncio, os, signal, sqlite3, sys
from contextlib import closing
from pathlib import Path
from runtime.ownership.heartbeat import Heartbeat
from runtime.ownership.placement import Placement
import time

data, name, shards, scale, loop_scale = Path(sys.argv[1]), sys.argv[2], *map(float, sys.argv[3:])

class Fast:
    def __init__(self, scale): self.scale = scale
    def monotonic(self): return time.monotonic() * self.scale
    def wall_us(self): return 0

heartbeat = Heartbeat(clock=Fast(loop_scale), every_s=1 / scale)
placement = Placement(data, name, int(shards), heartbeat, clock=Fast(scale))
epochs, working, greedy = {}, True, False

def connect(shard):
    return closing(sqlite3.connect(data / f"shard-{shard}.db", timeout=1 / scale, isolation_level=None))

def bump(shard):
    for _ in range(5):
        try:
            with connect(shard) as file:
                file.execute("BEGIN IMMEDIATE")
                epoch, = file.execute("UPDATE owner SET epoch = epoch + 1, worker = ? RETURNING epoch", (name,)).fetchone()
                file.execute("COMMIT")
                return epoch
        except sqlite3.OperationalError:
            placement.kill_stalled(shard)

def stored(shard):
    with connect(shard) as file:
        return file.execute("SELECT epoch FROM owner").fetchone()[0]

def release(shard):
    placement.release(shard)
    epochs.pop(shard, None)

def take(shard):
    if placement.try_take(shard) is not None:
        epoch = bump(shard)
        if epoch is None or not placement.confirm(shard, epoch):
            release(shard)
        else:
            epochs[shard] = epoch

def tick():
    facts = placement.observe()
    for shard in facts.lost:
        release(shard)
    for shard in facts.doubtful:
        if not (stored(shard) == epochs.get(shard) and placement.confirm(shard, epochs[shard])):
            release(shard)
    plan = placement.plan(facts)
    for shard in plan.release:
        release(shard)
    for shard in range(int(shards)) if greedy else plan.take + plan.stalled:
        take(shard)

def obey():
    global working, greedy
    word = sys.stdin.readline().strip()
    if word == "race":
        working = greedy = True
    elif word == "wait":
        working = False
    elif word == "block":
        sys.stdin.readline()  # the loop stands still until the next line
    elif word == "stop-writing":
        with connect(0) as file:
            file.execute("BEGIN IMMEDIATE")
            os.kill(os.getpid(), signal.SIGSTOP)
    elif not word:
        os._exit(0)

async def main():
    global working
    working = sys.stdin.readline().strip() != "wait"
    placement.join()
    heartbeat.start()
    asyncio.get_running_loop().add_reader(sys.stdin, obey)
    print("joined", flush=True)
    while True:
        heartbeat.loop_turned()
        if working:
            tick()
        await asyncio.sleep(0.5 / scale)

asyncio.run(main())
"""


class Fast:
    """The children's clock."""

    def monotonic(self) -> float:
        return time.monotonic() * SCALE

    def wall_us(self) -> int:
        return 0


def wait_until(holds: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Look until `holds`, at most `timeout_s`."""
    end = time.monotonic() + timeout_s
    pause = threading.Event()
    while not holds():
        assert time.monotonic() < end, "did not come to pass"
        pause.wait(0.01)


class Deployment:
    """Children on one folder, and what an outsider sees of them."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        data.mkdir()
        for shard in range(SHARDS):
            with contextlib.closing(sqlite3.connect(data / f"shard-{shard}.db", isolation_level=None)) as file:
                file.execute("CREATE TABLE owner (epoch INTEGER, worker TEXT)")
                file.execute("INSERT INTO owner VALUES (0, NULL)")

    def start(self, name: str, first: str = "work", *, scale: float = SCALE, loop_scale: float = SCALE) -> subprocess.Popen[bytes]:
        arguments = [str(self.data), name, str(SHARDS), str(scale), str(loop_scale)]
        process = subprocess.Popen([sys.executable, "-c", CHILD, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.children[name] = process
        self.tell(name, first)
        return process

    def wait_joined(self) -> None:
        for process in self.children.values():
            assert process.stdout is not None
            assert process.stdout.readline() == b"joined\n"

    def tell(self, name: str, word: str) -> None:
        pipe = self.children[name].stdin
        assert pipe is not None
        pipe.write(word.encode() + b"\n")
        pipe.flush()

    def stop(self, name: str) -> None:
        self.children[name].send_signal(signal.SIGSTOP)
        self.wait_stopped(name)

    def wait_stopped(self, name: str) -> None:
        stat = Path(f"/proc/{self.children[name].pid}/stat")
        wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")

    def wake(self, name: str) -> None:
        self.children[name].send_signal(signal.SIGCONT)

    def kill(self, name: str) -> None:
        self.children[name].kill()
        self.children[name].wait()

    def facts(self) -> Facts:
        return survey(self.data, SHARDS, clock=Fast())

    def stored(self) -> dict[int, tuple[int, str | None]]:
        """Epoch and owner as each shard's file has them."""
        found: dict[int, tuple[int, str | None]] = {}
        for shard in range(SHARDS):
            with contextlib.closing(sqlite3.connect(self.data / f"shard-{shard}.db")) as file:
                found[shard] = file.execute("SELECT epoch, worker FROM owner").fetchone()
        return found

    def settled(self, shares: dict[str, int]) -> bool:
        """Whether these workers, and no others, own so many shards each, by the lock files and by the shards' files alike."""
        facts, stored = self.facts(), self.stored()
        owners = [owner for owner in facts.owners.values() if owner is not None]
        agree = all(
            each.owner is not None and not each.owner.stale and (each.owner.epoch, each.owner.worker) == stored[each.shard]
            for each in facts.shards
        )
        return agree and {name: owners.count(name) for name in set(owners)} == shares

    def close(self) -> None:
        for process in self.children.values():
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()


@pytest.fixture
def deployment(tmp_data: Path) -> Iterator[Deployment]:
    deployment = Deployment(tmp_data)
    yield deployment
    deployment.close()


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A child that waits for the end of its input."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def beat_of(path: Path) -> int:
    record = read_record(path)
    return 0 if record is None else record.beat_ns


@pytest.mark.crash
def test_the_shards_of_a_killed_process_are_free_at_once(deployment: Deployment) -> None:
    """S1: no timeout is involved."""
    deployment.start("a")
    wait_until(lambda: deployment.settled({"a": 4}))
    deployment.kill("a")
    assert all(is_free(main_path(deployment.data, shard)) for shard in range(SHARDS))
    assert deployment.facts().live == set()
    lease = Lease.try_acquire(main_path(deployment.data, 0), own_record("me", "owner"))
    assert lease is not None
    lease.release()


def test_a_stopped_process_keeps_its_locks_and_grows_old_until_it_goes_on(deployment: Deployment) -> None:
    """S1: the record names who it is."""
    child = deployment.start("a")
    wait_until(lambda: deployment.settled({"a": 4}))
    deployment.stop("a")
    path = main_path(deployment.data, 0)
    last = beat_of(path)
    wait_until(lambda: deployment.facts().stalled == set(range(SHARDS)))
    assert beat_of(path) == last
    assert not is_free(path)
    record = read_record(path)
    assert record is not None
    assert (record.worker, record.pid, record.started) == ("a", child.pid, process_started(child.pid))
    deployment.wake("a")
    wait_until(lambda: beat_of(path) > last)
    wait_until(lambda: deployment.settled({"a": 4}))
    assert {epoch for epoch, _ in deployment.stored().values()} == {1}


def test_a_process_whose_loop_is_blocked_stops_beating_after_a_while(deployment: Deployment) -> None:
    """S1: the loop's clock runs sixty times as fast here, so 15 s are a quarter of a second."""
    deployment.start("a", loop_scale=60.0)
    wait_until(lambda: deployment.settled({"a": 4}))
    deployment.tell("a", "block")
    wait_until(lambda: deployment.facts().live == set())
    assert not is_free(main_path(deployment.data, 0))
    deployment.tell("a", "go on")
    wait_until(lambda: deployment.facts().live == {"a"})


def test_eight_processes_race_for_four_shards_and_each_gets_one_holder(deployment: Deployment) -> None:
    """S1: all try to take all, at once, whatever the plan says. The first bump of each shard is the only one."""
    names = [f"w{n}" for n in range(8)]
    for name in names:
        # At the system's pace: on a busy machine half a second without a heartbeat would be a stall, and a second bump.
        deployment.start(name, "wait", scale=1.0, loop_scale=1.0)
    deployment.wait_joined()
    for name in names:
        deployment.tell(name, "race")
    wait_until(lambda: None not in deployment.facts().owners.values())
    wait_until(lambda: all(worker == deployment.facts().owners[n] for n, (_, worker) in deployment.stored().items()))
    before = deployment.stored()
    for name in names:
        deployment.tell(name, "wait")
    assert {epoch for epoch, _ in before.values()} == {1}
    assert deployment.stored() == before


@pytest.mark.crash
def test_workers_beyond_the_shards_stand_by_and_replace_the_dead(deployment: Deployment) -> None:
    """S6, S1: of eight workers four own one shard each; the death of one moves its shard only."""
    for n in range(8):
        deployment.start(f"w{n}")
    wait_until(lambda: sorted(deployment.facts().live) == [f"w{n}" for n in range(8)])
    wait_until(lambda: len(set(deployment.facts().owners.values()) - {None}) == SHARDS)
    wait_until(lambda: all(worker == deployment.facts().owners[n] for n, (_, worker) in deployment.stored().items()))
    before = deployment.stored()
    dead = before[2][1]
    assert dead is not None
    deployment.kill(dead)
    wait_until(lambda: deployment.stored()[2][1] not in (dead, None))
    after = deployment.stored()
    assert after[2][0] == before[2][0] + 1
    assert len({worker for _, worker in after.values()}) == SHARDS


@pytest.mark.crash
def test_a_stopped_owner_is_replaced_then_gives_way_when_it_goes_on(deployment: Deployment) -> None:
    """S2: its locks are held all the while; the new owner gets them when it lets go, and the load is evened out again."""
    deployment.start("a")
    wait_until(lambda: deployment.settled({"a": 4}))
    deployment.stop("a")
    deployment.start("b")
    wait_until(lambda: deployment.settled({"b": 4}))
    assert not is_free(main_path(deployment.data, 0))
    assert not is_free(take_path(deployment.data, 0))
    deployment.wake("a")
    wait_until(lambda: deployment.settled({"a": 2, "b": 2}))
    wait_until(lambda: all(is_free(take_path(deployment.data, shard)) for shard in range(SHARDS)))


@pytest.mark.crash
def test_an_owner_stopped_inside_a_transaction_is_killed(deployment: Deployment) -> None:
    """S2: the write lock does not get free, so nobody could bump the epoch."""
    stuck = deployment.start("a")
    wait_until(lambda: deployment.settled({"a": 4}))
    deployment.tell("a", "stop-writing")
    deployment.wait_stopped("a")
    deployment.start("b")
    wait_until(lambda: deployment.settled({"b": 4}))
    assert stuck.wait(10) == -signal.SIGKILL
    wait_until(lambda: all(is_free(take_path(deployment.data, shard)) for shard in range(SHARDS)))


@pytest.mark.crash
def test_only_the_process_that_wrote_the_record_is_killed(sleeper: subprocess.Popen[bytes]) -> None:
    """S2: a later process with the same pid has another start time, boot or pid namespace."""
    own = own_record("w", "owner")
    record = msgspec.structs.replace(own, pid=sleeper.pid, started=process_started(sleeper.pid))
    for other in ({"started": record.started + 1}, {"boot": "another"}, {"pid_namespace": record.pid_namespace + 1}):
        assert not kill_stalled(msgspec.structs.replace(record, **other))
        assert sleeper.poll() is None
    assert kill_stalled(record)
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert not kill_stalled(record), "dead, though not reaped"
    assert sleeper.wait() == -signal.SIGKILL
    assert not kill_stalled(record)


def test_s2_only_the_process_that_wrote_the_record_counts_as_stopped(sleeper: subprocess.Popen[bytes]) -> None:
    own = own_record("w", "owner")
    record = msgspec.structs.replace(own, pid=sleeper.pid, started=process_started(sleeper.pid))
    assert not is_stopped(record)
    sleeper.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, sleeper.pid, os.WSTOPPED | os.WNOWAIT)
    assert is_stopped(record)
    for other in ({"started": record.started + 1}, {"boot": "another"}, {"pid_namespace": record.pid_namespace + 1}, {"pid": 2**22 + 1}):
        assert not is_stopped(msgspec.structs.replace(record, **other))
    sleeper.send_signal(signal.SIGCONT)
    os.waitid(os.P_PID, sleeper.pid, os.WCONTINUED | os.WNOWAIT)
    assert not is_stopped(record)


def test_a_process_that_may_not_be_signalled_stays(sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """S2: then the shard answers 503 and `doctor` names the process."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(signal, "pidfd_send_signal", refuse)
    record = msgspec.structs.replace(own_record("w", "owner"), pid=sleeper.pid, started=process_started(sleeper.pid))
    assert not kill_stalled(record)
    assert sleeper.poll() is None


def test_a_child_process_does_not_keep_the_lock_of_its_parent(tmp_path: Path) -> None:
    """A step may run a program that outlives the worker; the shard must not wait for it."""
    path = tmp_path / "shard-0.lock"
    lease = Lease.try_acquire(path, own_record("w", "owner"))
    assert lease is not None
    listing = "import json, os; print(json.dumps([os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') if n > '2']))"
    listing = listing.replace("os.readlink(", "os.path.realpath(")
    shown = subprocess.run([sys.executable, "-c", listing], capture_output=True, check=True, close_fds=False)
    assert str(path) not in json.loads(shown.stdout)
    lease.release()
