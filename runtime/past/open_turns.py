"""Turns that are open at the end of a stream, and whether another program could run them again (S19, S32).

A turn that stands open when a deployment is upgraded runs again under the new code, so its method and its arguments must still be there.
Only looks: no handler is called.
"""

from typing import Any

import msgspec

from actors.errors import BadPayload, Unknown
from actors.journal import TURN_ENDS, TURN_STARTED, Started
from actors.registry import ActorType
from events.envelope import RecordedEvent


class OpenTurn(msgspec.Struct, frozen=True, kw_only=True):
    """A ``turn.started`` without an end. version: of that event. waits: names of what it waits for. problem: why it cannot run again."""

    command_id: str
    version: int
    method: str
    waits: list[str] = []
    problem: str | None = None


class _Open(msgspec.Struct, kw_only=True):
    event: RecordedEvent
    waits: dict[str, str]


class _Wait(msgspec.Struct, frozen=True, kw_only=True):
    name: str = ""
    wait_id: str = ""


class OpenTurns:
    """Fed with the events of one stream in order."""

    def __init__(self) -> None:
        self._open: dict[str | None, _Open] = {}

    def add(self, event: RecordedEvent) -> None:
        if event.type == TURN_STARTED:
            self._open[event.command_id] = _Open(event=event, waits={})
        elif event.type in TURN_ENDS:
            self._open.pop(event.command_id, None)
        elif event.type.startswith("wait.") and event.command_id in self._open:
            self._wait(self._open[event.command_id], event)

    def _wait(self, turn: _Open, event: RecordedEvent) -> None:
        try:
            wait = msgspec.json.decode(event.payload, type=_Wait)
        except msgspec.DecodeError:
            return  # only names what the turn waits for; `verify` finds damage
        if event.type == "wait.opened":
            turn.waits[wait.wait_id] = wait.name
        else:
            turn.waits.pop(wait.wait_id, None)

    def found(self, kind: ActorType[Any]) -> list[OpenTurn]:
        """What is open now, checked against `kind`, oldest first."""
        return [_checked(kind, turn) for turn in self._open.values()]


def _checked(kind: ActorType[Any], turn: _Open) -> OpenTurn:
    event = turn.event
    method, problem = "?", None
    try:
        started = msgspec.json.decode(event.payload, type=Started)
        method = started.command
        spec = kind.method(method)
        if spec.query:
            problem = f"{kind.name}.{method} is a query now: it cannot go on with a turn"
        else:
            spec.decode(bytes(started.arguments))
    except msgspec.DecodeError as error:
        problem = f"its beginning cannot be read: {error}"
    except Unknown as error:
        problem = error.message
    except BadPayload as error:
        problem = f"its recorded arguments do not fit: {error.message}"
    return OpenTurn(
        command_id=event.command_id or "", version=int(event.version), method=method, waits=list(turn.waits.values()), problem=problem
    )
