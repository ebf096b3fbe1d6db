"""Which worker should own which shard: a pure function that every worker computes alone, and from the same facts alike (S5, S6)."""

from collections.abc import Collection, Mapping

import msgspec


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker should do now; each in ascending order. take: free shards. stalled: shards to take over from stalled owners."""

    take: tuple[int, ...] = ()
    release: tuple[int, ...] = ()
    stalled: tuple[int, ...] = ()


def plan(
    me: str,
    live_workers: Collection[str],
    shards: Collection[int],
    owners: Mapping[int, str | None],
    *,
    idle: Collection[int] = (),
    pinned: Collection[int] = (),
    busy: Collection[int] = (),
    standby: Collection[str] = (),
) -> Plan:
    """The share of `me`: nobody holds two more than another, and no shard moves that need not.

    Shards without a live owner go to the least loaded workers, of equals to the first by name. A worker gives one of its own away only
    while another has at least two fewer. Workers beyond the number of shards get none (S6).

    Args:
        live_workers: all that are not stalled, with or without shards.
        owners: shard to worker id, None = nobody. An id that is not in `live_workers` is a stalled owner.
        idle: own shards that a voluntary move should pick first (S5).
        pinned: own shards that must not move now: a `once` step runs there (S5).
        busy: shards to leave alone, because it is not yet known who holds them.
        standby: live workers that get no further shards and are asked for none: draining, or unable to take some (S7).
    """
    members = sorted(set(live_workers) - set(standby))
    alive = set(live_workers)
    load = dict.fromkeys(members, 0)
    for shard in shards:
        owner = owners.get(shard)
        if owner in load:
            load[owner] += 1
    if me not in load:
        return Plan()
    take: list[int] = []
    stalled: list[int] = []
    for shard in sorted(set(shards) - set(busy)):
        owner = owners.get(shard)
        if owner in alive:
            continue
        taker = min(members, key=lambda member: (load[member], member))
        load[taker] += 1
        if taker == me:
            (take if owner is None else stalled).append(shard)
    # Who got an orphan above was a least loaded one, so it is never the one that has too many here.
    excess = 0
    while True:
        most = max(members, key=lambda member: (load[member], member))
        least = min(members, key=lambda member: (load[member], member))
        if load[most] - load[least] <= 1:
            break
        load[most] -= 1
        load[least] += 1
        excess += most == me
    mine = [shard for shard in shards if owners.get(shard) == me and shard not in pinned and shard not in busy]
    mine.sort(key=lambda shard: (shard not in idle, -shard))
    return Plan(take=tuple(take), release=tuple(sorted(mine[:excess])), stalled=tuple(stalled))
