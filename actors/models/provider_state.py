"""What a provider actor remembers: its bounds, its breaker, who is admitted, who stands in line, and what was spent."""

import msgspec

from actors.event import State
from actors.models.breaker import Breaker
from actors.models.limits import ProviderLimits
from actors.models.line import InLine
from actors.models.records import Usage


class Permit(msgspec.Struct, frozen=True, kw_only=True):
    """A call under way: whose it is, until when it counts, what it may cost at most (millionths of a dollar), and what it asks where:
    permits of one question are one call at the provider, of which the first reserves the cost. Empty: nobody shares it."""

    agent: str
    run: str
    expires_at: float
    reserved: int = 0
    question: str = ""


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
    """`next_free` is when the rate lets the next call begin, in seconds since the epoch; `day` the UTC date that `today` and `agents_today`
    count. `line` are those who wait, by permit; `places` the last place given in it; `timer_at` when its timer is due. `agents_alerted`,
    `runs_alerted`: how many percent were said of today's agents, and of the runs. `runs_used`: how many calls there had been when the run
    last called."""

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
    line: dict[str, InLine] = {}
    places: int = 0
    timer_at: float = 0.0
    agents_today: dict[str, Spent] = {}
    agents_alerted: dict[str, int] = {}
    runs_used: dict[str, int] = {}
    runs_alerted: dict[str, int] = {}
