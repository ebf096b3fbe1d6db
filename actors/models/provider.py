"""One provider of models as an actor: who may call it now, how it is doing, and what it has cost.

Nothing here touches the network. Agents ask `admit` before a call and `report` after it, each a short turn, so that breaker, rate, number
of calls and budget are one truth for all workers, survive restarts, and can be explained from the log. What is no longer known - a caller
that died between the two - expires by its lease, looked at when the next one asks: nothing runs beside.
"""

from datetime import UTC
from typing import Literal

import msgspec

from actors.actor import Actor, command, query
from actors.event import Event, State
from actors.models.admission import Admission, Admitted, Held, Spare
from actors.models.breaker import Breaker, Phase
from actors.models.limits import ALERT_PERCENT, BUSY_RETRY_S, LEASE_GRACE_S, RUNS_KEPT, TRIAL_AFTER_S, ProviderLimits
from actors.models.records import Usage

MICRO = 1_000_000


class Permit(msgspec.Struct, frozen=True, kw_only=True):
    """A call under way: whose it is, until when it counts, and what it may cost at most (millionths of a dollar)."""

    agent: str
    run: str
    expires_at: float
    reserved: int = 0


class Spent(msgspec.Struct, kw_only=True):
    """Calls that were answered, their tokens, their cost in millionths of a dollar."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_micro_usd: int = 0

    def add(self, usage: Usage) -> None:
        self.calls += 1
        self.input_tokens += usage.input_tokens
        self.output_tokens += usage.output_tokens
        self.cost_micro_usd += usage.cost_micro_usd


class ProviderState(State):
    """`next_free` is when the rate lets the next call begin, in seconds since the epoch; `day` the UTC date that `today` counts."""

    limits: ProviderLimits = ProviderLimits()
    breaker: Breaker = msgspec.field(default_factory=Breaker)
    permits: dict[str, Permit] = {}
    next_free: float = 0.0
    day: str = ""
    today: Spent = msgspec.field(default_factory=Spent)
    total: Spent = msgspec.field(default_factory=Spent)
    agents: dict[str, Spent] = {}
    runs: dict[str, Spent] = {}
    failures: dict[str, int] = {}
    alerted: str = ""


class LimitsSet(Event[ProviderState], tag="provider.limits_set"):
    """From here on these bounds and prices hold."""

    limits: ProviderLimits

    def apply(self, state: ProviderState) -> None:
        state.limits = self.limits


class CallAdmitted(Event[ProviderState], tag="provider.call_admitted"):
    """A call may begin, `next_free` says when the one after it may."""

    permit: str
    call: Permit
    next_free: float

    def apply(self, state: ProviderState) -> None:
        state.permits[self.permit] = self.call
        state.next_free = self.next_free


class PermitsLost(Event[ProviderState], tag="provider.permits_lost"):
    """Callers that never came back: nobody knows what became of their calls."""

    permits: list[str]

    def apply(self, state: ProviderState) -> None:
        for permit in self.permits:
            state.permits.pop(permit, None)


class CallAnswered(Event[ProviderState], tag="provider.call_answered"):
    """A call was answered and paid for."""

    permit: str
    agent: str
    run: str
    day: str
    usage: Usage

    def apply(self, state: ProviderState) -> None:
        _end(state, self.permit)
        if state.breaker.phase == "closed":
            state.breaker.failures = 0
        _spend(state, self.agent, self.run, self.day, self.usage)


class CallFailed(Event[ProviderState], tag="provider.call_failed"):
    """A call gave no answer. What was used up until then is paid all the same."""

    permit: str
    agent: str
    run: str
    day: str
    kind: Literal["transient", "permanent"]
    code: str
    usage: Usage

    def apply(self, state: ProviderState) -> None:
        _end(state, self.permit)
        state.failures[self.code] = state.failures.get(self.code, 0) + 1
        if self.kind == "transient" and state.breaker.phase == "closed":
            state.breaker.failures += 1
        if self.usage.cost_micro_usd or self.usage.input_tokens:
            _spend(state, self.agent, self.run, self.day, self.usage)


class BreakerOpened(Event[ProviderState], tag="provider.breaker_opened"):
    """No calls for a minute. `reason` is the code of the failure that did it."""

    at: float
    reason: str

    def apply(self, state: ProviderState) -> None:
        state.breaker = Breaker(phase="open", opened_at=self.at)


class BreakerTried(Event[ProviderState], tag="provider.breaker_tried"):
    """One call is let through to see whether the provider is back."""

    permit: str

    def apply(self, state: ProviderState) -> None:
        state.breaker.phase = "half_open"
        state.breaker.trial = self.permit


class BreakerClosed(Event[ProviderState], tag="provider.breaker_closed"):
    """The trial was answered: calls go through again."""

    def apply(self, state: ProviderState) -> None:
        state.breaker = Breaker()


class BudgetAlerted(Event[ProviderState], tag="provider.budget_alerted"):
    """Four fifths of the day's budget are spent, or all of it."""

    day: str
    percent: int
    spent: int
    limit: int

    def apply(self, state: ProviderState) -> None:
        state.alerted = f"{self.day} {self.percent}"


def _end(state: ProviderState, permit: str) -> None:
    state.permits.pop(permit, None)


def _spend(state: ProviderState, agent: str, run: str, day: str, usage: Usage) -> None:
    if state.day != day:
        state.day, state.today = day, Spent()
    for place in (state.today, state.total, state.agents.setdefault(agent, Spent()), state.runs.setdefault(run, Spent())):
        place.add(usage)
    while len(state.runs) > RUNS_KEPT:
        state.runs.pop(next(iter(state.runs)))


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How a provider is doing. Costs in millionths of a dollar."""

    breaker: Phase
    consecutive_failures: int
    under_way: int
    today: Spent
    total: Spent
    agents: dict[str, Spent]
    failures: dict[str, int]


class Provider(Actor[ProviderState], name="provider"):
    """Admission and book-keeping of one provider; the id is its name in the settings."""

    @command
    def configure(self, limits: ProviderLimits) -> None:
        """Use these bounds and prices from now on; nothing is recorded where they are the same."""
        if limits != self.state.limits:
            self.emit(LimitsSet(limits=limits))

    @command
    def admit(self, agent: str, run: str, reserve: int, deadline_s: float, limits: ProviderLimits | None = None) -> Admission:
        """Whether a call may begin.

        Args:
            agent: type of the calling actor. run: its correlation id.
            reserve: what the call may cost at most, in millionths of a dollar.
            deadline_s: how long the caller still has; a permit is lost `LEASE_GRACE_S` after that.
            limits: those of the caller's settings; they hold from here on.
        """
        if limits is not None:
            self.configure(limits)
        state, now = self.state, self.now().timestamp()
        lost = sorted(permit for permit, call in state.permits.items() if call.expires_at < now)
        if lost:
            trial_lost = state.breaker.phase == "half_open" and state.breaker.trial in lost
            self.emit(PermitsLost(permits=lost))
            if trial_lost:
                self.emit(BreakerOpened(at=now - TRIAL_AFTER_S, reason="lost"))
        if state.breaker.phase == "half_open":
            return Held(reason="open", retry_s=1.0)
        wait = state.breaker.wait_s(now)
        if wait > 0:
            return Held(reason="open", retry_s=max(wait, BUSY_RETRY_S[0]))
        spare = self._spare(run, reserve)
        if spare is not None:
            return spare
        limits = state.limits
        if limits.concurrency is not None and len(state.permits) >= limits.concurrency:
            shortest, longest = BUSY_RETRY_S
            return Held(reason="busy", retry_s=min(longest, max(shortest, limits.timeout_s / limits.concurrency / 20)))
        begin, next_free = now, now
        if limits.requests_per_minute is not None:
            # GCRA (ITU-T I.371): calls are spread evenly, and a tenth of a minute's worth may come at once.
            gap = 60.0 / limits.requests_per_minute
            begin = max(now, state.next_free - 6.0)
            if begin - now > deadline_s:
                return Held(reason="rate", retry_s=begin - now)
            next_free = max(state.next_free, now) + gap
        permit = self.new_id()
        expires = begin + deadline_s + LEASE_GRACE_S
        self.emit(
            CallAdmitted(permit=permit, call=Permit(agent=agent, run=run, expires_at=expires, reserved=reserve), next_free=next_free)
        )
        if state.breaker.phase == "open":
            self.emit(BreakerTried(permit=permit))
        return Admitted(permit=permit, delay_s=begin - now)

    @command
    def report(self, permit: str, agent: str, run: str, usage: Usage, failure: str = "", transient: bool = True) -> None:
        """How a call ended. `failure` is its code, empty where it was answered."""
        state, now = self.state, self.now()
        day = now.astimezone(UTC).date().isoformat()
        if failure:
            opens = transient and state.breaker.opens_with(permit)
            kind: Literal["transient", "permanent"] = "transient" if transient else "permanent"
            closes = not transient and state.breaker.closes_with(permit)
            self.emit(CallFailed(permit=permit, agent=agent, run=run, day=day, kind=kind, code=failure, usage=usage))
            if opens:
                self.emit(BreakerOpened(at=now.timestamp(), reason=failure))
        else:
            closes = state.breaker.closes_with(permit)
            self.emit(CallAnswered(permit=permit, agent=agent, run=run, day=day, usage=usage))
        # A refusal is an answer as well: the provider is there.
        if closes:
            self.emit(BreakerClosed())
        self._alert(day)

    @query
    def health(self) -> Health:
        """How the provider is doing."""
        state = self.state
        return Health(
            breaker=state.breaker.phase, consecutive_failures=state.breaker.failures, under_way=len(state.permits), today=state.today,
            total=state.total, agents=state.agents, failures=state.failures,
        )  # fmt: skip

    @query
    def run(self, run: str) -> Spent:
        """What one run has cost; zero for one that is not known (any more)."""
        return self.state.runs.get(run, Spent())

    def _spare(self, run: str, reserve: int) -> Spare | None:
        """Why money says no. What calls under way may cost counts as spent, so that a burst cannot overdraw."""
        state = self.state
        day = self.now().astimezone(UTC).date().isoformat()
        limits = state.limits
        if limits.budget_usd is not None:
            spent = state.today.cost_micro_usd if state.day == day else 0
            held = sum(call.reserved for call in state.permits.values())
            limit = round(limits.budget_usd * MICRO)
            if spent + held + reserve > limit:
                return Spare(reason="budget", spent=spent, limit=limit)
        if limits.run_budget_usd is not None:
            spent = state.runs[run].cost_micro_usd if run in state.runs else 0
            held = sum(call.reserved for call in state.permits.values() if call.run == run)
            limit = round(limits.run_budget_usd * MICRO)
            if spent + held + reserve > limit:
                return Spare(reason="run_budget", spent=spent, limit=limit)
        return None

    def _alert(self, day: str) -> None:
        budget = self.state.limits.budget_usd
        if budget is None or self.state.day != day:
            return
        limit = round(budget * MICRO)
        spent = self.state.today.cost_micro_usd
        percent = 100 if spent >= limit else ALERT_PERCENT if spent * 100 >= limit * ALERT_PERCENT else 0
        if percent and self.state.alerted not in {f"{day} {percent}", f"{day} 100"}:
            self.emit(BudgetAlerted(day=day, percent=percent, spent=spent, limit=limit))


