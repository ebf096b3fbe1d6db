"""One provider of models as an actor: who may call it now, how it is doing, and what it has cost.

Nothing here touches the network. Agents ask `admit` before a call and `report` after it, each a short turn, so that breaker, rate, number
of calls and budget are one truth for all workers, survive restarts, and can be explained from the log. Who cannot begin at once stands in
line, first come first served, and asks for its `standing`, a query that is answered when its turn has come: nobody polls. What is no longer
known - a caller whose turn never goes on - expires by its lease, looked at when the next one asks or, while somebody waits, by a timer. A
turn that ends in between gives back what it holds (`actors.holding`).
"""

from typing import Any, Literal

import msgspec

from actors.actor import Actor, command, query
from actors.event import Event
from actors.holding import holds, settles
from actors.models.admission import Admission, Admitted, Held, Queued, is_lent
from actors.models.breaker import Breaker, Phase
from actors.models.budget import MICRO, Alert, alerts, day_of, note, percent_used, spare, spend
from actors.models.limits import (
    BUSY_RETRY_S,
    LEASE_GRACE_S,
    LINE_MAX,
    TRIAL_AFTER_S,
    ProviderLimits,
)
from actors.models.line import (
    InLine,
    first_of,
    is_shared,
    last_by_rate,
    leave_at_opening,
    look_again_at,
    next_free,
    not_before,
    others_share,
    too_late,
    under_way,
    who_share,
)
from actors.models.provider_state import Permit, ProviderState, Spent
from actors.models.records import Usage
from actors.patience import NotYet
from actors.recovery import DEADLINE
from actors.upcast import upcaster

_TIMER_LATE_S = 0.001
"""A timer is due this much behind its time, so that rounding never wakes it just before."""


class LimitsSet(Event[ProviderState], tag="provider.limits_set", version=2):
    """From here on these bounds and prices hold. Version 1 knew no budgets of agents and calls."""

    limits: ProviderLimits

    def apply(self, state: ProviderState) -> None:
        # What was said of another budget says nothing of this one.
        if state.limits.budget_usd != self.limits.budget_usd:
            state.alerted = ""
        if state.limits.agent_budget_usd != self.limits.agent_budget_usd:
            state.agents_alerted = {}
        if state.limits.run_budget_usd != self.limits.run_budget_usd:
            state.runs_alerted = {}
        state.limits = self.limits


@upcaster("provider.limits_set", 1)
def _without_budgets_of_agents_and_calls(payload: dict[str, Any]) -> dict[str, Any]:
    return payload


class CallAdmitted(Event[ProviderState], tag="provider.call_admitted", version=2):
    """A call may begin, `next_free` says when the one after it may. Version 1 knew no questions."""

    permit: str
    call: Permit
    next_free: float

    def apply(self, state: ProviderState) -> None:
        state.line.pop(self.permit, None)
        state.permits[self.permit] = self.call
        state.next_free = self.next_free


@upcaster("provider.call_admitted", 1)
def _without_a_question(payload: dict[str, Any]) -> dict[str, Any]:
    return payload


class CallQueued(Event[ProviderState], tag="provider.call_queued"):
    """A call waits in line for its permit."""

    permit: str
    caller: InLine

    def apply(self, state: ProviderState) -> None:
        state.line[self.permit] = self.caller
        state.places = self.caller.place


class CallersLeft(Event[ProviderState], tag="provider.callers_left"):
    """Callers who stand in line, or hold a permit, no more. reason: their ``deadline`` has passed, the breaker is ``open`` and they do not
    wait for the trial, there is no ``budget`` for them, or they have no end of a call to report (``given_up``): their turn ended before,
    or the call that failed was that of somebody who asked the same, and is reported by him."""

    permits: list[str]
    reason: Literal["deadline", "open", "budget", "given_up"]

    def apply(self, state: ProviderState) -> None:
        for permit in self.permits:
            state.line.pop(permit, None)
            state.permits.pop(permit, None)


class LineTimed(Event[ProviderState], tag="provider.line_timed"):
    """The line is looked at then, if nobody reports before."""

    at: float

    def apply(self, state: ProviderState) -> None:
        state.timer_at = self.at


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
        spend(state, self.agent, self.run, self.day, self.usage)


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
            spend(state, self.agent, self.run, self.day, self.usage)


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


class SpendingAlerted(Event[ProviderState], tag="provider.spending_alerted"):
    """Four fifths of the budget of an agent's day, of a run or of a call are spent, or all of it."""

    day: str
    alert: Alert

    def apply(self, state: ProviderState) -> None:
        note(state, self.alert)


def _end(state: ProviderState, permit: str) -> None:
    state.permits.pop(permit, None)


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How a provider is doing. Costs in millionths of a dollar."""

    breaker: Phase
    consecutive_failures: int
    under_way: int
    in_line: int
    today: Spent
    total: Spent
    agents: dict[str, Spent]
    agents_today: dict[str, Spent]
    failures: dict[str, int]


class Provider(Actor[ProviderState], name="provider"):
    """Admission and book-keeping of one provider; the id is its name in the settings."""

    @command
    def configure(self, limits: ProviderLimits) -> None:
        """Use these bounds and prices from now on; nothing is recorded where they are the same."""
        if limits != self.state.limits:
            self.emit(LimitsSet(limits=limits))
            self._move_up(self.now().timestamp())

    @command
    @holds("permit", release="leave", lent=is_lent)
    def admit(
        self, agent: str, run: str, reserve: int, deadline_s: float, limits: ProviderLimits | None = None, permit: str = "",
        patience_s: float = 0.0, stays: bool = True, question: str = "",
    ) -> Admission:  # fmt: skip
        """Whether a call may begin: at once, or as soon as everybody is through who came before.

        Args:
            agent: type of the calling actor. run: its correlation id.
            reserve: what the call may cost at most, in millionths of a dollar.
            deadline_s: how long the call itself may take; a permit is lost `LEASE_GRACE_S` after that.
            limits: those of the caller's settings; they hold from here on.
            permit: a fresh name under which the caller stands in line, asks for its `standing`, and reports. Empty: it does not stand in
                line, and gets a name if it is let through.
            patience_s: how long it would stand there.
            stays: whether it waits for the trial if the breaker is open.
            question: what is asked, and where its answer can be shared: one who asks what somebody else is asking there is let through with
                it, whatever the rate and the number of calls, because they are one call.
        """
        if limits is not None:
            self.configure(limits)
        state, now = self.state, self.now().timestamp()
        self._lose(now)
        self._move_up(now)
        if permit and (permit in state.permits or permit in state.line):
            return Admitted(permit=permit, delay_s=0.0) if permit in state.permits else Queued(permit=permit, ahead=len(state.line) - 1)
        queues = bool(permit) and len(state.line) < LINE_MAX
        down = state.breaker.phase == "half_open" or state.breaker.wait_s(now) > 0
        if down and not (queues and stays and state.breaker.wait_s(now) < patience_s):
            return self._refused(now)
        stop = spare(state, agent, run, reserve, day_of(self.now()))
        if stop is not None:
            return stop
        if is_shared(state, question) or (not state.line and not_before(state, now) <= now):
            permit, expires = permit or self.new_id(), now + deadline_s + LEASE_GRACE_S
            self._let_through(permit, Permit(agent=agent, run=run, expires_at=expires, reserved=reserve, question=question), now)
            return Admitted(permit=permit, delay_s=0.0)
        if not queues or last_by_rate(state, now) >= now + patience_s:
            return self._refused(now)
        caller = InLine(
            agent=agent, run=run, place=state.places + 1, until=now + patience_s, lease_s=deadline_s, reserve=reserve, stays=stays,
            question=question,
        )  # fmt: skip
        self.emit(CallQueued(permit=permit, caller=caller))
        self._set_timer(now)
        return Queued(permit=permit, ahead=len(state.line) - 1)

    @query
    def standing(self, permit: str) -> Admission:
        """What has become of one who stands in line: answered when it is let through or has left. Who has left may ask to be admitted anew,
        and then hears why if it is not."""
        state = self.state
        if permit in state.permits:
            return Admitted(permit=permit, delay_s=0.0)
        if permit in state.line:
            raise NotYet(lambda state: permit not in state.line)
        if state.breaker.phase != "closed":
            return self._refused(self.now().timestamp())
        return Held(reason="busy", retry_s=0.0)

    @command
    @settles("permit")
    def leave(self, permit: str) -> None:
        """Give back a permit, or a place in line, without a call that says something of the provider. Nothing if there is none of that
        name."""
        if permit not in self.state.permits and permit not in self.state.line:
            return
        now = self.now().timestamp()
        was_trial = self.state.breaker.phase == "half_open" and self.state.breaker.trial == permit
        self.emit(CallersLeft(permits=[permit], reason="given_up"))
        if was_trial:
            self.emit(BreakerOpened(at=now - TRIAL_AFTER_S, reason="given_up"))
        self._move_up(now)

    @command
    def move_up(self) -> None:
        """Look at the line because of the time: what its timer calls."""
        now = self.now().timestamp()
        self._lose(now)
        self._move_up(now, timed=False)

    @command
    @settles("permit")
    def report(self, permit: str, agent: str, run: str, usage: Usage, failure: str = "", transient: bool = True) -> None:
        """How a call ended. `failure` is its code, empty where it was answered."""
        state, now = self.state, self.now()
        day = day_of(now)
        if failure == DEADLINE and permit != state.breaker.trial and others_share(state, permit):
            self.leave(permit)  # the call goes on for others: what becomes of it, they report
            return
        if failure:
            opens = transient and state.breaker.opens_with(permit)
            kind: Literal["transient", "permanent"] = "transient" if transient else "permanent"
            closes = not transient and state.breaker.closes_with(permit)
            self.emit(CallFailed(permit=permit, agent=agent, run=run, day=day, kind=kind, code=failure, usage=usage))
            if opens:
                self.emit(BreakerOpened(at=now.timestamp(), reason=failure))
                if left := leave_at_opening(state.line, now.timestamp() + TRIAL_AFTER_S):
                    self.emit(CallersLeft(permits=left, reason="open"))
        else:
            closes = state.breaker.closes_with(permit)
            self.emit(CallAnswered(permit=permit, agent=agent, run=run, day=day, usage=usage))
        # A refusal is an answer as well: the provider is there.
        if closes:
            self.emit(BreakerClosed())
        self._alert(agent, run, permit, usage, day)
        self._move_up(now.timestamp())

    @query
    def health(self) -> Health:
        """How the provider is doing."""
        state = self.state
        return Health(
            breaker=state.breaker.phase, consecutive_failures=state.breaker.failures, under_way=under_way(state), in_line=len(state.line),
            today=state.today, total=state.total, agents=state.agents, agents_today=state.agents_today,
            failures=state.failures,
        )  # fmt: skip

    @query
    def run(self, run: str) -> Spent:
        """What one run has cost; zero for one that is not known (any more)."""
        return self.state.runs.get(run, Spent())

    def _refused(self, now: float) -> Held:
        """Why nobody is let through now, for one who does not stand in line."""
        state = self.state
        if state.breaker.phase == "half_open":
            return Held(reason="open", retry_s=1.0)
        shortest, longest = BUSY_RETRY_S
        if (wait := state.breaker.wait_s(now)) > 0:
            return Held(reason="open", retry_s=max(wait, shortest))
        limits = state.limits
        if limits.requests_per_minute is not None and (begin := last_by_rate(state, now)) > now:
            return Held(reason="rate", retry_s=begin - now)
        return Held(reason="busy", retry_s=min(longest, max(shortest, limits.timeout_s / (limits.concurrency or 1) / 20)))

    def _lose(self, now: float) -> None:
        """Forget those under way who have not come back in time."""
        state = self.state
        lost = sorted(permit for permit, call in state.permits.items() if call.expires_at < now)
        if lost:
            trial_lost = state.breaker.phase == "half_open" and state.breaker.trial in lost
            self.emit(PermitsLost(permits=lost))
            if trial_lost:
                self.emit(BreakerOpened(at=now - TRIAL_AFTER_S, reason="lost"))

    def _let_through(self, permit: str, call: Permit, now: float) -> None:
        if is_shared(self.state, call.question):
            self.emit(CallAdmitted(permit=permit, call=msgspec.structs.replace(call, reserved=0), next_free=self.state.next_free))
            return
        self.emit(CallAdmitted(permit=permit, call=call, next_free=next_free(self.state, now)))
        if self.state.breaker.phase == "open":
            self.emit(BreakerTried(permit=permit))

    def _move_up(self, now: float, *, timed: bool = True) -> None:
        """Let through, in their order, as many of the line as may begin now. timed: the timer that was set has not fired just now."""
        state = self.state
        if not state.line:
            return
        if late := too_late(state.line, now):
            self.emit(CallersLeft(permits=late, reason="deadline"))
        while state.line and not_before(state, now) <= now:
            first = first_of(state.line)
            question = state.line[first].question
            self._admit_from_line(first, now)
            for same in who_share(state, question):
                self._admit_from_line(same, now)
        self._set_timer(now, timed=timed)

    def _admit_from_line(self, permit: str, now: float) -> None:
        caller = self.state.line[permit]
        if spare(self.state, caller.agent, caller.run, caller.reserve, day_of(self.now())) is not None:
            self.emit(CallersLeft(permits=[permit], reason="budget"))
            return
        call = Permit(
            agent=caller.agent, run=caller.run, expires_at=now + min(caller.lease_s, caller.until - now) + LEASE_GRACE_S,
            reserved=caller.reserve, question=caller.question,
        )  # fmt: skip
        self._let_through(permit, call, now)

    def _set_timer(self, now: float, *, timed: bool = True) -> None:
        """Have the line looked at when time lets somebody through, or a lease runs out. One that is due earlier does as well."""
        state = self.state
        at = max(now, look_again_at(state, now)) + _TIMER_LATE_S
        if state.line and not (timed and now < state.timer_at <= at):
            self.emit(LineTimed(at=at))
            self.schedule(at - now, "move_up", timer_id="line")

    def _alert(self, agent: str, run: str, permit: str, usage: Usage, day: str) -> None:
        """Say what the cost of a call has used up."""
        state = self.state
        if not usage.cost_micro_usd or state.day != day:
            return
        budget, spent = state.limits.budget_usd, state.today.cost_micro_usd
        percent = 0 if budget is None else percent_used(spent, budget)
        if budget is not None and percent and state.alerted not in {f"{day} {percent}", f"{day} 100"}:
            self.emit(BudgetAlerted(day=day, percent=percent, spent=spent, limit=round(budget * MICRO)))
        for alert in list(alerts(state, agent, run, permit, usage.cost_micro_usd)):
            self.emit(SpendingAlerted(day=day, alert=alert))
