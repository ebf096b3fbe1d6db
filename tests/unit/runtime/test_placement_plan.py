"""`plan`: a fair share for every worker, reached with as few moves as balance needs (S5, S6)."""

from hypothesis import given
from hypothesis import strategies as st

from runtime.ownership.plan import Plan, plan

Owners = dict[int, str | None]
SHARDS = st.integers(1, 16)
WORKERS = st.sets(st.sampled_from([f"w{n}" for n in range(9)]), min_size=1)


@st.composite
def starts(draw: st.DrawFn) -> tuple[set[str], Owners]:
    """Live workers, and owners among them, nobody, or workers that are no longer live."""
    live = draw(WORKERS)
    owner = st.sampled_from([None, "stopped-1", "stopped-2", *sorted(live)])
    return live, {shard: draw(owner) for shard in range(draw(SHARDS))}


def one_round(live: set[str], owners: Owners) -> Owners:
    """Every live worker does its plan, all from the same facts."""
    after = dict(owners)
    for me in sorted(live):
        mine = plan(me, live, owners.keys(), owners)
        for shard in mine.take + mine.stalled:
            assert after[shard] == owners[shard], "two workers were told to take one shard"
            after[shard] = me
        for shard in mine.release:
            assert owners[shard] == me
            after[shard] = None
    return after


def loads(live: set[str], owners: Owners) -> list[int]:
    return [sum(owner == worker for owner in owners.values()) for worker in live]


def balanced(live: set[str], owners: Owners) -> bool:
    found = loads(live, owners)
    return all(owner in live for owner in owners.values()) and max(found) - min(found) <= 1


@given(starts())
def test_any_start_is_balanced_after_two_rounds_and_stays_so(start: tuple[set[str], Owners]) -> None:
    """S5: one round to take and to let go, one to take what was let go."""
    live, owners = start
    settled = one_round(live, one_round(live, owners))
    assert balanced(live, settled)
    assert one_round(live, settled) == settled


@given(starts())
def test_each_worker_computes_its_plan_whatever_the_order_of_the_facts(start: tuple[set[str], Owners]) -> None:
    live, owners = start
    turned = dict(reversed(owners.items()))
    for me in live:
        assert plan(me, sorted(live), sorted(owners), owners) == plan(me, sorted(live, reverse=True), list(turned), turned)


@given(starts(), st.data())
def test_a_death_moves_only_the_shards_of_the_dead(start: tuple[set[str], Owners], data: st.DataObject) -> None:
    """S1: lock free = owner dead; from a balanced start nothing else needs to move."""
    live, owners = start
    if len(live) < 2:
        return
    settled = one_round(live, one_round(live, owners))
    dead = data.draw(st.sampled_from(sorted(live)))
    left = live - {dead}
    orphaned = {shard: None if owner == dead else owner for shard, owner in settled.items()}
    after = one_round(left, orphaned)
    assert balanced(left, after)
    assert all(after[shard] == owner for shard, owner in orphaned.items() if owner is not None)


@given(starts())
def test_a_stall_moves_what_a_death_would(start: tuple[set[str], Owners]) -> None:
    """S1: a stalled owner's shards go where a dead one's would, but by another way."""
    live, owners = start
    dead = {shard: owner if owner in live else None for shard, owner in owners.items()}
    assert one_round(live, owners) == one_round(live, dead)


@given(starts(), st.sampled_from(["a-newcomer", "z-newcomer"]))
def test_a_newcomer_gets_its_share_and_nothing_else_moves(start: tuple[set[str], Owners], newcomer: str) -> None:
    live, owners = start
    settled = one_round(live, one_round(live, owners))
    more = live | {newcomer}
    after = one_round(more, one_round(more, settled))
    moved = [shard for shard in settled if after[shard] != settled[shard]]
    assert all(after[shard] == newcomer for shard in moved)
    assert len(moved) == len(settled) // len(more)


@given(WORKERS, st.data())
def test_workers_beyond_the_shards_stand_by(live: set[str], data: st.DataObject) -> None:
    """S6."""
    shards = data.draw(st.integers(1, len(live)))
    after = one_round(live, dict.fromkeys(range(shards)))
    assert sorted(loads(live, after)) == [0] * (len(live) - shards) + [1] * shards


def test_three_one_one_is_evened_out_although_nobody_is_below_the_floor() -> None:
    owners: Owners = {0: "a", 1: "a", 2: "a", 3: "b", 4: "c"}
    assert plan("a", {"a", "b", "c"}, range(5), owners) == Plan(release=(2,))


def test_idle_shards_go_first() -> None:
    """S5."""
    owners: Owners = dict.fromkeys(range(4), "a")
    assert plan("a", {"a", "b"}, range(4), owners).release == (2, 3)
    assert plan("a", {"a", "b"}, range(4), owners, idle={0}).release == (0, 3)


def test_a_shard_with_a_running_once_step_does_not_move() -> None:
    """S5: rather fewer than planned."""
    owners: Owners = dict.fromkeys(range(4), "a")
    assert plan("a", {"a", "b"}, range(4), owners, idle={0}, pinned={0, 3}).release == (1, 2)
    assert plan("a", {"a", "b"}, range(4), owners, pinned={0, 1, 2}).release == (3,)
    assert plan("a", {"a", "b"}, range(4), owners, pinned=range(4)).release == ()


def test_a_shard_whose_holder_is_not_known_yet_is_left_alone() -> None:
    assert plan("a", {"a"}, range(2), {0: "?", 1: None}, busy={0}) == Plan(take=(1,))
    assert plan("a", {"a"}, range(2), {0: "?", 1: None}) == Plan(take=(1,), stalled=(0,))


def test_a_worker_on_standby_keeps_what_it_has_and_gets_no_more() -> None:
    """S5 draining, S7 a registry that lacks a type: alive, so nothing is taken from it by force."""
    owners: Owners = {0: "old", 1: "old", 2: None, 3: None}
    assert plan("old", {"old", "new"}, range(4), owners, standby={"old"}) == Plan()
    assert plan("new", {"old", "new"}, range(4), owners, standby={"old"}) == Plan(take=(2, 3))


def test_a_worker_that_others_do_not_count_does_nothing() -> None:
    assert plan("ghost", {"a"}, range(2), {0: None, 1: "ghost"}) == Plan()
