"""Up to where the merged order is final (S30): nothing more will be recorded at or below the watermark, in any shard.

It is the lowest of the shards' floors. The floor of a shard is its last event's time, since the next one is later, or what its owner wrote
beside its heartbeat, if that is higher. A shard that nobody owns while others are owned holds the watermark at its last event: its next
owner may yet finish what was under way there. Where nobody owns anything (nothing runs, or a copy) all is final.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from events.clock import Clock, SystemClock
from events.selection import Selection
from events.store import LogReader
from runtime.ownership.survey import ShardFacts, survey
from runtime.past.merging import Positions, merged, position_at

WAIT_S: Final = 2.0
"""A running owner raises its floor twice a second."""
_LOOK_S: Final = 0.02
COUNTED_MAX: Final = 1_000


class Watermark(msgspec.Struct, frozen=True, kw_only=True):
    """time: logical time up to which the merged order is final, None = to the end. shard: one of those that hold it; why: ``no owner``, or
    the worker that owns it, and whether that is stalled."""

    time: int | None = None
    shard: int | None = None
    why: str = ""


FINAL: Final = Watermark()


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """Where a reader of the merged order stops: the last final position of each shard. watermark: what decided it; held: it had not passed
    what was recorded when the reader came."""

    positions: Mapping[int, int]
    watermark: Watermark
    held: bool


async def watermark_of(data: Path, reader: LogReader, *, clock: Clock | None = None) -> Watermark:
    """The watermark of the log in the deployment's folder `data`, by its lock files, as of now.

    Raises:
        TransientError: a lock file cannot be opened.
    """
    # Before the events: what was promised then can be read now.
    shards = survey(data, reader.shards, clock=clock or SystemClock()).shards
    if all(facts.owner is None for facts in shards):
        return FINAL
    floors = [await _floor(reader, facts) for facts in shards]
    time, shard, why = min(floors)
    return Watermark(time=time, shard=shard, why=why)


async def _floor(reader: LogReader, facts: ShardFacts) -> tuple[int, int, str]:
    time = (await reader.info(facts.shard)).time
    owner = facts.owner
    if owner is None:
        return time, facts.shard, "no owner"
    promised = 0 if owner.record is None else owner.record.floor
    return max(time, promised), facts.shard, f"{owner.worker} is stalled" if owner.stale else f"owned by {owner.worker}"


async def cut(
    reader: LogReader, look: Callable[[], Awaitable[Watermark]], *, wait_s: float = WAIT_S, clock: Clock | None = None
) -> Cut | None:
    """Where the final part of the log ends, so that it holds all that was recorded before the call: waits for that up to `wait_s`.

    Args:
        look: finds the watermark as of now.

    Returns:
        None if all is final.
    """
    clock = clock or SystemClock()
    wanted = max([(await reader.info(shard)).time for shard in range(reader.shards)])
    give_up = clock.monotonic() + wait_s
    while True:
        found = await look()
        if found.time is None or found.time >= wanted or clock.monotonic() >= give_up:
            break
        await asyncio.sleep(_LOOK_S)
    if found.time is None:
        return None
    positions: dict[int, int] = {}
    for shard in range(reader.shards):
        info = await reader.info(shard)
        positions[shard] = int(info.position)
        if info.time > found.time:
            positions[shard] = await position_at(reader, shard, positions[shard], found.time + 1)
    return Cut(positions=positions, watermark=found, held=found.time < wanted)


async def withheld(reader: LogReader, wanted: Selection, after: Positions) -> int:
    """How many events that `wanted` lets through stand behind a cut; at most 1,000 are counted."""
    found = 0
    async for _ in merged(reader, wanted, after=after):
        found += 1
        if found == COUNTED_MAX:
            break
    return found
