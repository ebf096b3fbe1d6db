"""A circuit breaker as a value: folded from events, asked before a call, told after it.

Closed until `FAILURES_TO_OPEN` transient failures came one after another; then open: no calls for `TRIAL_AFTER_S`; then one trial, whose
end closes it or opens it anew (M. Nygard, Release It!, 2007). What fails for good says nothing of the provider's health and counts neither
way.
"""

from typing import Literal

import msgspec

from actors.models.limits import FAILURES_TO_OPEN, TRIAL_AFTER_S

Phase = Literal["closed", "open", "half_open"]


class Breaker(msgspec.Struct, kw_only=True):
    """`opened_at` in seconds since the epoch; `trial` is the permit of the one call that is let through."""

    phase: Phase = "closed"
    failures: int = 0
    opened_at: float = 0.0
    trial: str = ""

    def wait_s(self, now: float) -> float:
        """How long until a trial may begin; 0 = now, or closed."""
        return 0.0 if self.phase == "closed" else max(0.0, self.opened_at + TRIAL_AFTER_S - now)

    def opens_with(self, permit: str) -> bool:
        """Whether a transient failure under `permit` opens it. Late failures of calls from before it opened do not prolong that."""
        if self.phase == "half_open":
            return permit == self.trial
        return self.phase == "closed" and self.failures + 1 >= FAILURES_TO_OPEN

    def closes_with(self, permit: str) -> bool:
        """Whether an answer under `permit` closes it: only the trial's does."""
        return self.phase == "half_open" and permit == self.trial
