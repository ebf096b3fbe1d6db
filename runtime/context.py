"""The command whose turn is running, for log lines: one context variable instead of binding ids on every turn (limits.md 4)."""

from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any

from actors.turn import Command

current_turn: ContextVar[Command | None] = ContextVar("current_turn", default=None)


def add_turn(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: command and correlation id of the turn that wrote the line."""
    command = current_turn.get()
    if command is not None:
        event.setdefault("stream", command.stream)
        event.setdefault("command_id", command.command_id)
        event.setdefault("correlation_id", command.correlation_id)
    return event
