"""What the processes of a deployment computed once and found again: their memos, and the tier of the step cache in each."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from events.log_directory import LOG_FILE, read_identity
from ops.exits import CommandError
from ops.finding import Finding
from ops.nats_connection import connection_of
from ops.settings import Settings
from ops.up_state import read_up

CALLS_MIN, RATE_POOR = 10_000, 0.5
"""From so many calls on, with fewer hits than that."""


class MemoTally(msgspec.Struct, frozen=True, kw_only=True):
    """One memo (`events.memo`), in all processes together since their start. rate: hits of all calls. entries, entries_max: of the process
    in which it is fullest."""

    memo: str
    processes: int
    hits: int
    misses: int
    rate: float
    entries: int
    entries_max: int


class RecentTally(msgspec.Struct, frozen=True, kw_only=True):
    """Lookups of one namespace of the step cache, in all workers together since their start: found in the process itself, found in the
    server, missed. rate: of all lookups, those that needed no server."""

    namespace: str
    recent: int
    served: int
    missed: int
    waited: int
    refused: int
    rate: float


class InProcess(msgspec.Struct, frozen=True, kw_only=True):
    """processes: how many answered; 0 where nothing runs."""

    processes: int
    memos: list[MemoTally]
    recent: list[RecentTally]

    @property
    def line(self) -> str | None:
        """Hits of all memos together, for people; None where there was no call."""
        hits, calls = sum(each.hits for each in self.memos), sum(each.hits + each.misses for each in self.memos)
        return f"memos {hits / calls:.0%} of {calls:,} calls" if calls else None


async def in_process(settings: Settings) -> InProcess:
    """Ask every process of the running deployment. One that does not answer within a second is left out."""
    from ops.nats_statistics import service_statistics

    data, up = Path(settings.data), read_up(Path(settings.data))
    if not (data / "log" / LOG_FILE).is_file() or (up is None and settings.nats_url is None):
        return InProcess(processes=0, memos=[], recent=[])
    try:
        connection = connection_of(data, url=settings.nats_url, credentials=settings.nats_credentials)
    except CommandError:
        return InProcess(processes=0, memos=[], recent=[])
    # An outside server does not say how many there are: whoever answers in time is counted.
    expected = 1_000 if up is None else max(1, len(up.processes))
    said = await service_statistics(connection.nats_options(), read_identity(data / "log").incarnation, expected)
    return InProcess(processes=len(said), memos=_memos(said), recent=_recent(said))


async def findings(settings: Settings) -> list[Finding]:
    """What `doctor` says of them: one that is full and seldom hits costs more than it spares."""
    found = await in_process(settings)
    if not found.processes:
        return []
    poor = [
        each for each in found.memos
        if each.entries == each.entries_max and each.hits + each.misses >= CALLS_MIN and each.rate < RATE_POOR
    ]  # fmt: skip
    said = [Finding(check="memos", ok=True, found=f"{found.line or 'no calls yet'}, in {found.processes} processes")]
    return said + [
        Finding(
            check=f"memo {each.memo}", ok=True,
            found=f"full ({each.entries_max:,}), and {each.rate:.0%} of {each.hits + each.misses:,} calls found what they wanted",
            remedy="so many different ones are in use: it spares little here, and costs little",
        )
        for each in poor
    ]  # fmt: skip


def _memos(said: Iterable[Mapping[str, Any]]) -> list[MemoTally]:
    found: dict[str, list[dict[str, int]]] = {}
    for process in said:
        for name, counts in (process.get("memos") or {}).items():
            found.setdefault(name, []).append(counts)
    return [
        MemoTally(
            memo=name, processes=len(each), hits=(hits := sum(one["hits"] for one in each)),
            misses=(misses := sum(one["misses"] for one in each)), rate=_rate(hits, misses),
            entries=max(one["entries"] for one in each), entries_max=max(one["entries_max"] for one in each),
        )
        for name, each in sorted(found.items())
    ]  # fmt: skip


def _recent(said: Iterable[Mapping[str, Any]]) -> list[RecentTally]:
    found: dict[str, dict[str, int]] = {}
    for process in said:
        for name, counts in ((process.get("step_cache") or {}).get("namespaces") or {}).items():
            total = found.setdefault(name, {})
            for field in ("recent", "served", "missed", "waited", "refused"):
                total[field] = total.get(field, 0) + counts.get(field, 0)
    return [
        RecentTally(namespace=name, rate=_rate(total["recent"], total["served"] + total["missed"]), **total)
        for name, total in sorted(found.items())
        if total["recent"] + total["served"] + total["missed"]
    ]


def _rate(hits: int, misses: int) -> float:
    return round(hits / (hits + misses), 4) if hits + misses else 0.0
