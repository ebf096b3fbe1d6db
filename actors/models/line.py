"""The line before a provider: who waits for a permit, in which order, and when time alone lets somebody through.

Values only; `actors.models.provider` records who comes and goes.
"""

import math
from collections.abc import Mapping
from typing import Protocol

import msgspec

from actors.models.breaker import Breaker
from actors.models.limits import RATE_BURST_S, ProviderLimits


class InLine(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who waits. Times in seconds since the epoch, amounts in millionths of a dollar.

    place: a number that grows; lower goes first. until: its deadline, from which on it is never let through. lease_s: how long its call may
    take. stays: it waits for the trial of an open breaker; else it leaves when the breaker opens, because others stand in. question: as
    that of a permit; those who ask the same are let through together.
    """

    agent: str
    run: str
    place: int
    until: float
    lease_s: float
    reserve: int = 0
    stays: bool = True
    question: str = ""


class Leased(Protocol):
    """A call under way, as far as the line cares."""

    @property
    def expires_at(self) -> float: ...

    @property
    def question(self) -> str: ...


class Door(Protocol):
    """What of a provider's state decides who is let through."""

    @property
    def breaker(self) -> Breaker: ...

    @property
    def limits(self) -> ProviderLimits: ...

    @property
    def permits(self) -> Mapping[str, Leased]: ...

    @property
    def line(self) -> Mapping[str, InLine]: ...

    @property
    def next_free(self) -> float: ...


def first_of(line: Mapping[str, InLine]) -> str:
    """The permit of whoever is next. By place: a snapshot sorts its keys."""
    return min(line, key=lambda permit: line[permit].place)


def under_way(state: Door) -> int:
    """How many calls there are at the provider: those that share a question are one."""
    return len({call.question or permit for permit, call in state.permits.items()})


def is_shared(state: Door, question: str) -> bool:
    """Whether somebody is asking the same at this moment, so that one who joins makes no call of its own. Not beside a trial, which decides
    for everybody."""
    return bool(question) and state.breaker.phase == "closed" and any(call.question == question for call in state.permits.values())


def others_share(state: Door, permit: str) -> bool:
    """Whether others wait for the call of this permit as well."""
    question = state.permits[permit].question if permit in state.permits else ""
    return bool(question) and any(name != permit and call.question == question for name, call in state.permits.items())


def who_share(state: Door, question: str) -> list[str]:
    """Those in line who may join in this question now, in their order."""
    if not is_shared(state, question):
        return []
    same = [permit for permit, caller in state.line.items() if caller.question == question]
    return sorted(same, key=lambda permit: state.line[permit].place)


def too_late(line: Mapping[str, InLine], now: float) -> list[str]:
    """Those whose deadline has passed, in order of their permits."""
    return sorted(permit for permit, caller in line.items() if caller.until <= now)


def leave_at_opening(line: Mapping[str, InLine], trial_at: float) -> list[str]:
    """Those who do not wait until the trial: others stand in for the provider, or their time is up before it."""
    return sorted(permit for permit, caller in line.items() if not caller.stays or caller.until <= trial_at)


def not_before(state: Door, now: float) -> float:
    """When the next call may begin: `now` or earlier = at once; infinity = not by time alone, somebody has to report first."""
    breaker, limits = state.breaker, state.limits
    if breaker.phase == "half_open" or (limits.concurrency is not None and under_way(state) >= limits.concurrency):
        return math.inf
    # GCRA (ITU-T I.371): calls are spread evenly, and a tenth of a minute's worth may come at once.
    rate = now if limits.requests_per_minute is None else state.next_free - RATE_BURST_S
    return max(rate, now + breaker.wait_s(now))


def next_free(state: Door, now: float) -> float:
    """When the call after one that begins now is due by the rate."""
    rate = state.limits.requests_per_minute
    return now if rate is None else max(state.next_free, now) + 60.0 / rate


def last_by_rate(state: Door, now: float) -> float:
    """The earliest time at which the rate lets through one who joins the line now; calls under way are not counted."""
    rate = state.limits.requests_per_minute
    return now if rate is None else max(now, state.next_free - RATE_BURST_S + len(state.line) * 60.0 / rate)


def look_again_at(state: Door, now: float) -> float:
    """When to look at the line although nobody reports: a call may begin by time, or the lease of one under way has run out."""
    return min(not_before(state, now), min((call.expires_at for call in state.permits.values()), default=math.inf))
