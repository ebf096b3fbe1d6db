"""What an agent author touches: actors, their events, and what a handler may ask for. No I/O outside a step; no runtime in here."""

from actors.actor import Actor, command, query
from actors.errors import ActorError, Rejected, StepFailed, WaitExpired
from actors.event import Event, State
from actors.recovery import idempotency_key
from actors.sensitive import Sensitive
from actors.upcast import upcaster

__all__ = [
    "Actor", "ActorError", "Event", "Rejected", "Sensitive", "State", "StepFailed", "WaitExpired", "command", "idempotency_key", "query",
    "upcaster",
]  # fmt: skip
