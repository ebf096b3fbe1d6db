"""How often a lookup was a hit, exactly: counted from the events that ended the steps, so from the log and not from anybody's memory."""

from collections.abc import Mapping

import msgspec

from projections.cache.values import Counts


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """Lookups of one namespace since the log began; a result that is empty counts like any other. rate: hits of all."""

    namespace: str
    hits: int
    misses: int
    rate: float


def tallies(counts: Mapping[str, Counts]) -> list[Tally]:
    """Of every namespace that was ever asked, by name."""
    return [
        Tally(namespace=name, hits=each.hits, misses=each.misses, rate=round(each.hits / (each.hits + each.misses), 4))
        for name, each in sorted(counts.items())
        if each.hits + each.misses
    ]
