"""How a shard gets from one worker to the next: the interleavings listed in runtime/ownership/placement.py, in turn
and in any order (S1, S2).

All workers live in this process: a flock belongs to the open file, so they exclude each other as processes do. Time stands still unless
a test moves it. What only real processes show is in tests/fault/test_ownership_processes.py.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from events.errors import ConfigurationError
from events.limits import STALL_AFTER_S
from runtime.ownership.heartbeat import Heartbeat
from runtime.ownership.lease import RECORD_BYTES, Lease, Record, is_free, own_record, read_record
from runtime.ownership.placement import Placement
from runtime.ownership.survey import STANDBY, WATCHED_S, main_path, presence_path, survey, take_path
from tests.support.placement_world import SHARDS, STALL, Time, Worker, World


@pytest.fixture
def world(tmp_data: Path) -> Iterator[World]:
    world = World(tmp_data)
    yield world
    for worker in world.workers.values():
        worker.die()


def stalled_owner(world: World) -> tuple[Worker, Worker]:
    """A stopped owner of shard 0, and another worker that has watched it."""
    owner, taker = world.worker("owner"), world.worker("taker")
    assert owner.take(0)
    world.pass_time(1)
    owner.stop()
    world.pass_time(STALL)
    return owner, taker


def test_a_dead_owner_leaves_its_shard_free_at_once(world: World) -> None:
    """S1."""
    owner, taker = world.worker("owner"), world.worker("taker")
    assert owner.take(0)
    assert taker.placement.observe().owners == {0: "owner", 1: None}
    owner.die()
    facts = taker.placement.observe()
    assert facts.owners == {0: None, 1: None}
    assert facts.live == {"taker"}
    assert not presence_path(world.data, "owner").exists()
    assert taker.take(0)


def test_s30_a_promise_to_readers_binds_whoever_takes_the_shard(world: World) -> None:
    """Whichever of the two files it stands in; and an owner in doubt promises nothing."""
    owner, taker = stalled_owner(world)
    owner.placement.note_floor(0, 999)  # it has been stopped: the shard may be another's
    main = read_record(main_path(world.data, 0))
    assert main is not None
    assert main.floor == 0
    assert taker.take(0)
    taker.placement.note_floor(0, 500)
    record = read_record(take_path(world.data, 0))
    assert record is not None
    assert record.floor == 500
    owner.die()
    taker.die()
    third = world.worker("third")
    assert third.take(0)
    main = read_record(main_path(world.data, 0))
    assert main is not None
    assert (main.worker, main.floor) == ("third", 500)


def test_s30_the_floor_of_a_woken_owner_is_not_taken_for_that_of_its_successor(world: World) -> None:
    owner, taker = stalled_owner(world)
    assert taker.take(0)
    taker.placement.note_floor(0, 500)
    with main_path(world.data, 0).open("r+b") as file:
        file.seek(RECORD_BYTES + 8)
        file.write((800).to_bytes(8, "little"))  # by the stopped one, between its look and its deed
    owner.die()
    taker.placement.observe()
    main = read_record(main_path(world.data, 0))
    assert main is not None
    assert (main.worker, main.floor) == ("taker", 500)


def test_a_stalled_owner_is_replaced_while_its_lock_is_still_held(world: World) -> None:
    """S2."""
    owner, taker = stalled_owner(world)
    facts = taker.placement.observe()
    assert facts.stalled == {0}
    assert facts.live == {"taker"}
    assert taker.placement.plan(facts).stalled == (0,)
    assert taker.take(0)
    facts = taker.placement.observe()
    assert facts.owners[0] == "taker"
    assert facts.live == {"taker"}
    assert not facts.stalled
    assert world.killed == []
    assert owner.placement.held == (0,)


def test_nobody_is_stalled_before_five_seconds(world: World) -> None:
    owner, taker = world.worker("owner"), world.worker("taker")
    assert owner.take(0)
    owner.stop()
    world.pass_time(STALL_AFTER_S)
    assert taker.placement.try_take(0) is None
    world.pass_time(0.5)
    assert taker.placement.try_take(0) is not None


def test_of_two_takers_one_gets_the_shard(world: World) -> None:
    _, first = stalled_owner(world)
    second = world.worker("second")
    world.pass_time(STALL)
    assert first.placement.try_take(0) is not None
    assert second.placement.try_take(0) is None
    facts = second.placement.observe()
    assert facts.owners[0] == first.name, "a takeover under way counts as done, so nobody else plans one"
    assert not facts.stalled
    first.bump(0)
    assert first.confirm(0)
    assert second.placement.observe().owners[0] == first.name


def test_a_second_taker_lets_go_of_the_main_lock_when_the_owner_died_under_the_first(world: World) -> None:
    owner, first = stalled_owner(world)
    second = world.worker("second")
    world.pass_time(1)
    assert first.placement.try_take(0) is not None
    owner.die()
    assert second.placement.try_take(0) is None
    assert is_free(main_path(world.data, 0))


def test_an_owner_that_wakes_before_the_taker_locked_keeps_its_shard(world: World) -> None:
    owner, taker = stalled_owner(world)
    assert owner.wake().doubtful == (0,)
    assert taker.placement.try_take(0) is None
    assert is_free(take_path(world.data, 0))
    assert owner.confirm(0)
    assert owner.placement.observe().doubtful == ()


def test_a_taker_that_sees_a_heartbeat_after_it_locked_lets_go(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner wakes between the taker's first look and its lock."""
    owner, taker = stalled_owner(world)
    acquire = Lease.try_acquire

    def wake_then_acquire(path: Path, record: Record, clock: Time) -> Lease | None:
        if path == take_path(world.data, 0):
            owner.wake()
        return acquire(path, record, clock)

    monkeypatch.setattr(Lease, "try_acquire", wake_then_acquire)
    assert taker.placement.try_take(0) is None
    assert is_free(take_path(world.data, 0))
    assert owner.facts is not None
    assert owner.facts.lost == ()


def test_an_owner_that_wakes_before_the_bump_gives_its_shard_up(world: World) -> None:
    owner, taker = stalled_owner(world)
    assert taker.placement.try_take(0) is not None
    assert owner.placement.is_in_doubt(0)
    assert owner.wake().lost == (0,)
    owner.release(0)
    taker.bump(0)
    assert taker.confirm(0)
    assert owner.placement.observe().owners[0] == "taker"


@pytest.mark.parametrize("confirmed", [False, True])
def test_an_owner_that_wakes_after_the_bump_gives_its_shard_up(world: World, confirmed: bool) -> None:
    owner, taker = stalled_owner(world)
    assert taker.placement.try_take(0) is not None
    taker.bump(0)
    if confirmed:
        assert taker.confirm(0)
    assert owner.wake().lost == (0,)


def test_a_higher_epoch_wins_even_without_doubt(world: World) -> None:
    owner, taker = stalled_owner(world)
    assert taker.take(0)
    owner.runs = True
    owner.heartbeat.beat()
    owner.confirm(0)
    facts = owner.placement.observe()
    assert facts.lost == (0,)
    assert facts.owners[0] == "taker"


@pytest.mark.parametrize("how", ["dies", "wakes"])
def test_the_new_owner_gets_the_main_lock_once_the_former_one_is_gone(world: World, how: str) -> None:
    owner, taker = stalled_owner(world)
    assert taker.take(0)
    world.pass_time(STALL)
    if how == "dies":
        owner.die()
    else:
        assert owner.wake().lost == (0,)
        owner.release(0)
    assert taker.placement.observe().owners[0] == "taker"
    assert is_free(take_path(world.data, 0))
    record = read_record(main_path(world.data, 0))
    assert record is not None
    assert (record.worker, record.epoch) == ("taker", 2)
    world.pass_time(STALL)
    assert taker.facts is not None
    assert taker.facts.stalled == set()


def test_a_taker_that_dies_leaves_the_shard_to_the_next(world: World) -> None:
    owner, taker = stalled_owner(world)
    third = world.worker("third")
    world.pass_time(STALL)
    assert taker.placement.try_take(0) is not None
    taker.die()
    assert third.placement.observe().stalled == {0}
    assert third.take(0)
    assert owner.wake().lost == (0,)


def test_a_taker_stopped_before_its_bump_learns_that_the_shard_went_on(world: World) -> None:
    """The owner gave up and a third worker owns the shard by the main lock."""
    owner, taker = stalled_owner(world)
    third = world.worker("third")
    assert taker.take(0)
    world.pass_time(1)
    taker.stop()
    world.pass_time(STALL)
    owner.die()
    facts = third.placement.observe()
    assert facts.stalled == {0}
    assert third.take(0)
    assert third.placement.observe().owners[0] == "third"
    facts = taker.wake()
    assert facts.lost == (0,)
    assert facts.owners[0] == "third"


def test_a_stopped_taker_in_the_way_is_killed(world: World) -> None:
    """S2, extended: the owner is stopped too, so there is no other way to the shard."""
    _, taker = stalled_owner(world)
    third = world.worker("third")
    assert taker.placement.try_take(0) is not None
    world.pass_time(1)
    taker.stop()
    world.pass_time(STALL)
    assert third.placement.try_take(0) is None
    assert world.killed == ["taker"]
    assert third.take(0)


def test_only_who_is_stalled_at_that_moment_is_killed(world: World) -> None:
    """S2: the write lock was not free, but the owner beats again."""
    owner, taker = stalled_owner(world)
    assert taker.placement.try_take(0) is not None
    owner.wake()
    assert not taker.placement.kill_stalled(0)
    owner.stop()
    world.pass_time(STALL)
    assert taker.placement.kill_stalled(0)
    assert world.killed == ["owner"]


def test_who_looks_knows_when_the_next_holder_would_be_stalled(world: World) -> None:
    """S1: so that a stall is seen when it is one, and not at the next look after."""
    owner, watcher = world.worker("owner"), world.worker("watcher")
    assert owner.take(0)
    assert watcher.placement.observe().stall_in_s == pytest.approx(STALL_AFTER_S)
    owner.stop()
    world.pass_time(STALL_AFTER_S - 0.5)
    facts = watcher.placement.observe()
    assert not facts.stalled
    assert facts.stall_in_s == pytest.approx(0.5)
    world.time.now += facts.stall_in_s + 0.001
    assert watcher.placement.observe().stalled == {0}


def test_a_restarted_worker_does_not_own_what_it_held_before(world: World) -> None:
    """S4."""
    first = world.worker("w")
    assert first.take(0)
    first.die()
    again = world.worker("w")
    assert again.placement.observe().owners == {0: None, 1: None}
    assert again.take(0)
    assert world.epochs[0] == 2


def test_a_name_in_use_is_refused_even_while_its_process_is_stopped(world: World) -> None:
    world.worker("w").stop()
    with pytest.raises(ConfigurationError, match=f"process {os.getpid()}"):
        Placement(world.data, "w", SHARDS, Heartbeat(clock=world.time), clock=world.time).join()


def test_a_watcher_that_was_stopped_itself_judges_nobody_by_age(world: World) -> None:
    """The whole host slept: whoever wakes first sees only old heartbeats."""
    owner, taker = world.worker("owner"), world.worker("taker")
    assert owner.take(0)
    world.pass_time(1)
    world.time.now += 3600
    assert taker.placement.try_take(0) is None
    assert taker.placement.observe().live == {"owner", "taker"}
    world.pass_time(WATCHED_S)
    assert taker.facts is not None
    assert taker.facts.owners[0] == "owner"


def test_a_newcomer_watches_before_it_judges(world: World) -> None:
    owner = world.worker("owner")
    assert owner.take(0)
    owner.stop()
    world.time.now += 3600
    newcomer = world.worker("newcomer")
    assert newcomer.placement.try_take(0) is None
    world.pass_time(WATCHED_S - 0.5)
    assert newcomer.placement.try_take(0) is None
    world.pass_time(0.5)
    assert newcomer.placement.try_take(0) is not None


def test_a_holder_stopped_before_it_wrote_its_record_is_waited_for_then_passed(world: World) -> None:
    """Nobody is killed: a blank record names nobody."""
    taker = world.worker("taker")
    nameless = Lease.try_acquire(main_path(world.data, 0), own_record("x", "owner"), world.time)
    assert nameless is not None
    main_path(world.data, 0).write_bytes(b" " * 520)
    facts = taker.placement.observe()
    assert facts.busy == {0}
    assert taker.placement.plan(facts).take == (1,)
    assert taker.placement.try_take(0) is None
    world.pass_time(STALL)
    assert taker.facts is not None
    assert taker.placement.plan(taker.facts).stalled == (0,)
    assert taker.take(0)
    assert world.killed == []
    nameless.release()
    assert taker.placement.observe().owners[0] == "taker"


def test_a_lock_file_removed_by_hand_costs_its_holder_the_shard(world: World) -> None:
    owner, other = world.worker("owner"), world.worker("other")
    assert owner.take(0)
    main_path(world.data, 0).unlink()
    assert other.take(0)
    assert owner.placement.observe().lost == (0,)


def test_a_voluntary_release_is_free_at_once(world: World) -> None:
    """S5."""
    owner, other = world.worker("owner"), world.worker("other")
    assert owner.take(0)
    assert owner.take(1)
    facts = owner.placement.observe()
    assert owner.placement.plan(facts, pinned={1}).release == (0,)
    owner.release(0)
    facts = other.placement.observe()
    assert other.placement.plan(facts).take == (0,)
    assert other.take(0)


def test_a_worker_that_stands_by_is_seen_to(world: World) -> None:
    """S5, S7."""
    old, new = world.worker("old"), world.worker("new")
    assert old.take(0)
    old.placement.stand_by()
    facts = new.placement.observe()
    assert facts.standby == {"old"}
    assert new.placement.plan(facts).take == (1,)
    assert facts.owners[0] == "old"
    record = facts.workers["old"].record
    assert record is not None
    assert record.purpose == STANDBY
    old.placement.close()
    old.placement.close()
    assert survey(world.data, SHARDS, clock=world.time).owners == {0: None, 1: None}
    assert not presence_path(world.data, "old").exists()


def test_status_needs_one_look(world: World) -> None:
    """design.md 9: pid, shards and epochs without being a worker; by age alone."""
    owner, _ = stalled_owner(world)
    facts = survey(world.data, SHARDS, clock=world.time)
    assert facts.stalled == {0}
    assert facts.live == {"taker"}
    main = facts.shards[0].main
    assert main is not None
    assert main.record is not None
    assert (main.record.worker, main.record.pid, main.epoch) == (owner.name, os.getpid(), 1)


def test_a_release_under_way_makes_a_late_confirm_say_so(world: World) -> None:
    owner = world.worker("owner")
    assert owner.placement.try_take(0) is not None
    owner.bump(0)
    owner.placement.release(0)
    assert not owner.confirm(0)
