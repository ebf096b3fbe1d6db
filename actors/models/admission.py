"""What a provider says to somebody who wants to call it."""

from typing import Any, Literal, TypeAlias

import msgspec


class Admitted(msgspec.Struct, frozen=True, kw_only=True, tag="admitted"):
    """Call after `delay_s`, then report under `permit`."""

    permit: str
    delay_s: float


class Queued(msgspec.Struct, frozen=True, kw_only=True, tag="queued"):
    """Stands in line under `permit`: ask for its `standing`, which is answered when its turn has come. ahead: how many go first."""

    permit: str
    ahead: int


class Held(msgspec.Struct, frozen=True, kw_only=True, tag="held"):
    """Not now, and not in line; ask again after `retry_s`. `reason`: ``open`` (breaker), ``rate``, ``busy`` (calls under way)."""

    reason: Literal["open", "rate", "busy"]
    retry_s: float


Stop = Literal["budget", "agent_budget", "run_budget", "call_budget"]


class Spare(msgspec.Struct, frozen=True, kw_only=True, tag="spent"):
    """No budget is left: of the provider's day, of the agent's day there, of the run; or the call alone may cost more than any may."""

    reason: Stop
    spent: int
    limit: int


Admission: TypeAlias = Admitted | Queued | Held | Spare


def is_lent(reply: Any) -> bool:
    """Whether an `Admission`, as decoded from JSON, gives its caller something to give back: a permit, or a place in line."""
    return isinstance(reply, dict) and reply.get("type") in {"admitted", "queued"}
