"""Events on a terminal: one line each, as they come, so that a tail never waits for a table; JSON Lines when piped."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from ops.output import cell, colour_wanted, print_json, progress, wants_json

if TYPE_CHECKING:
    from events.envelope import RecordedEvent
    from runtime.past.failures import Failure

_TEXT_CHARACTERS_MAX = 100
KEY_NOT_HERE = "sealed (key not here)"


class EventPrinter:
    """Prints events in the one record shape, or as lines under one heading."""

    def __init__(self, *, json: bool) -> None:
        self._json = wants_json(json)
        self._began = False
        self._said_sealed = False

    def print(self, event: "RecordedEvent") -> None:
        if self._json:
            print_json(event)
            self._said_sealed = self._said_sealed or note_sealed(event)
            return
        if not self._began:
            self._began = True
            print(f"{'time (UTC)':<15} {'position':>10}  {'stream':<28} {'version':>7}  {'type':<26} content", flush=True)
        print(line(event), flush=True)

    def print_failure(self, failure: "Failure") -> None:
        """A failed event, below it why it failed, and which turns led to it, nearest first."""
        if self._json:
            turns = [msgspec.structs.asdict(node) for node in failure.turns]
            for turn in turns:
                del turn["children"]
            told = {"reason": failure.reason, "because": [msgspec.structs.asdict(event) for event in failure.because], "turns": turns}
            print_json({**msgspec.structs.asdict(failure.event), **told})
            return
        self.print(failure.event)
        print(f"    {cell(failure.reason)}")
        for event in failure.because:
            print(f"    because {event.stream} {event.type} {event.shard}:{event.position}: {cell(event.error)}")
        chain = " < ".join(f"{node.stream} {node.method or node.command_id}" for node in failure.turns)
        print(f"    in {chain} < {failure.turns[-1].sender or 'client'}", flush=True)


def note_sealed(event: "RecordedEvent") -> bool:
    """Say on stderr that a record holds ciphertext, which it does itself by its key_id alone; whether it does."""
    if event.key_id is None or _unreadable(event) is None:
        return False
    progress(f"note: {event.shard}:{event.position} is {KEY_NOT_HERE}: its payload is ciphertext")
    return True


def _unreadable(event: "RecordedEvent") -> str | None:
    """Why there is nothing to be shown of what an event says; None if there is."""
    from events.errors import UnreadablePayloadError
    from events.sealed.sealing import require_readable

    try:
        require_readable(event)
    except UnreadablePayloadError:
        return "erased" if event.key_id is None else KEY_NOT_HERE
    return None


def _payload(event: "RecordedEvent") -> str:
    return _unreadable(event) or bytes(event.payload).decode(errors="replace")


def line(event: "RecordedEvent") -> str:
    """Time of day, place, stream, version, type, then what it says; an error is red where colour is wanted."""
    import sys

    at = datetime.fromtimestamp(event.recorded_at_us / 1_000_000, UTC).strftime("%H:%M:%S.%f")
    place = f"{event.shard}:{event.position}"
    said = event.error or event.summary or _payload(event)
    text = cell(said if len(said) <= _TEXT_CHARACTERS_MAX else said[: _TEXT_CHARACTERS_MAX - 1] + "…").replace("\n", " ")
    found = f"{at:<15} {place:>10}  {event.stream:<28} {event.version:>7}  {event.type:<26} {text}"
    return f"\x1b[31m{found}\x1b[0m" if event.error is not None and colour_wanted(sys.stdout) else found
