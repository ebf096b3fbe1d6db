"""What one provider is allowed, as settings say it."""

from typing import Annotated

import msgspec

Positive = Annotated[float, msgspec.Meta(gt=0)]
Dollars = Annotated[float, msgspec.Meta(ge=0)]

FAILURES_TO_OPEN = 5
"""Consecutive transient failures that open a breaker (the predecessor's, as it was built five weeks after it was planned)."""

TRIAL_AFTER_S = 60.0
ALERT_PERCENT = 80
RUNS_KEPT = 500
"""Runs whose costs a provider remembers one by one, those that called last; the others are in the totals."""

LEASE_GRACE_S = 30.0
"""A permit that nobody gave back counts as lost this long after the deadline of its call."""

RATE_BURST_S = 6.0
"""A rate lets this much of a minute come at once."""

LINE_MAX = 900
"""How many may wait for a permit of one provider; who comes then is told that it is busy, and asks again. One turn, which may record 1,000
events, can let all of them through."""

BUSY_RETRY_S = (0.05, 5.0)
ATTEMPTS_MAX = 8
FAIR_CHANCE_S = 5.0
"""A provider that gives no answer for so long has failed, though its caller's deadline was shorter than its timeout: else one that hangs
would be asked for ever by the impatient. What was cut off sooner says nothing: its caller had waited too long for the permit."""

BACKOFF_S = (0.5, 30.0)
REPAIRS_MAX = 1


class ProviderLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of one provider. None = no bound.

    requests_per_minute: spread evenly, with a burst of a tenth. concurrency: calls under way in the whole deployment. budget_usd: per day
    (UTC). agent_budget_usd: of each type of actor, per day. run_budget_usd: per run, which is the correlation id. call_budget_usd: what one
    call may cost at most. usd_per_million_*: prices, for the costs in the log. Whatever comes to 80 % of a budget, and to all of it, is
    an event of the provider; what would exceed one is not asked.
    """

    timeout_s: Positive = 120.0
    attempts: Annotated[int, msgspec.Meta(ge=1, le=ATTEMPTS_MAX)] = 4
    requests_per_minute: Positive | None = None
    concurrency: Annotated[int, msgspec.Meta(ge=1)] | None = None
    budget_usd: Dollars | None = None
    agent_budget_usd: Dollars | None = None
    run_budget_usd: Dollars | None = None
    call_budget_usd: Dollars | None = None
    usd_per_million_input: Dollars = 0.0
    usd_per_million_output: Dollars = 0.0

    def cost(self, input_tokens: int, output_tokens: int) -> int:
        """Millionths of a dollar, rounded up: a budget is never overdrawn by rounding."""
        exact = input_tokens * self.usd_per_million_input + output_tokens * self.usd_per_million_output
        return -int(-exact // 1)
