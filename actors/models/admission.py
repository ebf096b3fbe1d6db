"""What a provider says to somebody who wants to call it."""

from typing import Literal, TypeAlias

import msgspec


class Admitted(msgspec.Struct, frozen=True, kw_only=True, tag="admitted"):
    """Call after `delay_s`, then report under `permit`."""

    permit: str
    delay_s: float


class Held(msgspec.Struct, frozen=True, kw_only=True, tag="held"):
    """Not now; ask again after `retry_s`. `reason`: ``open`` (breaker), ``rate``, ``busy`` (calls under way)."""

    reason: Literal["open", "rate", "busy"]
    retry_s: float


class Spare(msgspec.Struct, frozen=True, kw_only=True, tag="spent"):
    """No budget is left: of the provider's day, or of the run."""

    reason: Literal["budget", "run_budget"]
    spent: int
    limit: int


Admission: TypeAlias = Admitted | Held | Spare
