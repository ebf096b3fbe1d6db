"""Money: what was spent and by whom, when to say that a budget is nearly used up, and when to stop.

Values only; `actors.models.provider` records them. A budget stops a call before it begins, by what it may cost at most: what calls under
way may cost counts as spent, so that a burst cannot overdraw.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Literal

import msgspec

from actors.models.admission import Spare, Stop
from actors.models.limits import ALERT_PERCENT, RUNS_KEPT
from actors.models.provider_state import Permit, ProviderState, Spent
from actors.models.records import Usage

MICRO = 1_000_000
Scope = Literal["agent", "run", "call"]


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """`name` has used `percent` of its budget: `ALERT_PERCENT`, or 100. Amounts in millionths of a dollar."""

    scope: Scope
    name: str
    percent: int
    spent: int
    limit: int


def day_of(now: datetime) -> str:
    """The UTC date that a day's budget belongs to."""
    return now.astimezone(UTC).date().isoformat()


def spend(state: ProviderState, agent: str, run: str, day: str, usage: Usage) -> None:
    """Book what a call has used up. Part of the fold."""
    if state.day != day:
        state.day, state.today, state.agents_today, state.agents_alerted = day, Spent(), {}, {}
    of_agent = (place.setdefault(agent, Spent()) for place in (state.agents, state.agents_today))
    for each in (state.today, state.total, *of_agent, state.runs.setdefault(run, Spent())):
        each.add(usage)
    # A number, not the order of the keys: a snapshot sorts them.
    state.runs_used[run] = state.total.calls
    while len(state.runs) > RUNS_KEPT:
        longest_ago = min(state.runs, key=lambda name: (state.runs_used.get(name, 0), name))
        del state.runs[longest_ago]
        state.runs_used.pop(longest_ago, None)
        state.runs_alerted.pop(longest_ago, None)


def note(state: ProviderState, alert: Alert) -> None:
    """Keep in mind what was said. Part of the fold."""
    if alert.scope == "agent":
        state.agents_alerted[alert.name] = alert.percent
    elif alert.scope == "run":
        state.runs_alerted[alert.name] = alert.percent


def spare(state: ProviderState, agent: str, run: str, reserve: int, day: str) -> Spare | None:
    """Why money says no to a call that may cost `reserve` at most; None: it does not."""
    limits, is_today = state.limits, state.day == day
    by_agent = state.agents_today.get(agent) if is_today else None
    budgets: tuple[tuple[Stop, float | None, Spent | None, Callable[[Permit], bool]], ...] = (
        ("call_budget", limits.call_budget_usd, None, lambda call: False),
        ("budget", limits.budget_usd, state.today if is_today else None, lambda call: True),
        ("agent_budget", limits.agent_budget_usd, by_agent, lambda call: call.agent == agent),
        ("run_budget", limits.run_budget_usd, state.runs.get(run), lambda call: call.run == run),
    )
    for reason, budget, used, counts in budgets:
        if budget is None:
            continue
        spent, limit = 0 if used is None else used.cost_micro_usd, round(budget * MICRO)
        if spent + reserve + sum(call.reserved for call in state.permits.values() if counts(call)) > limit:
            return Spare(reason=reason, spent=spent, limit=limit)
    return None


def percent_used(spent: int, budget_usd: float) -> int:
    """0 below `ALERT_PERCENT` of a budget, then that, and 100 once nothing of it is left."""
    limit = round(budget_usd * MICRO)
    return 100 if spent >= limit else ALERT_PERCENT if spent * 100 >= limit * ALERT_PERCENT else 0


def alerts(state: ProviderState, agent: str, run: str, permit: str, cost: int) -> Iterator[Alert]:
    """What is to be said, and was not yet, now that a call under `permit` is booked with `cost`."""
    limits, nothing = state.limits, Spent()
    by_agent, by_run = state.agents_today.get(agent, nothing), state.runs.get(run, nothing)
    budgets: tuple[tuple[Scope, str, float | None, int, int], ...] = (
        ("call", permit, limits.call_budget_usd, cost, 0),
        ("agent", agent, limits.agent_budget_usd, by_agent.cost_micro_usd, state.agents_alerted.get(agent, 0)),
        ("run", run, limits.run_budget_usd, by_run.cost_micro_usd, state.runs_alerted.get(run, 0)),
    )
    for scope, name, budget, spent, said in budgets:
        if budget is not None and (percent := percent_used(spent, budget)) > said:
            yield Alert(scope=scope, name=name, percent=percent, spent=spent, limit=round(budget * MICRO))
