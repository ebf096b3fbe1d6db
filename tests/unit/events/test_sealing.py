"""Every field that a store is given is either sealed or named here as one that stays readable: a new one has to be decided about (S29)."""

import msgspec
import pytest

from events.envelope import NewEvent
from events.letters import Letter, StoppedActor, Supervision
from events.store import Append, InboxEntry, OutboxEntry, Snapshot, TimerEntry, WaitEntry

SEALED: dict[type[msgspec.Struct], set[str]] = {
    Append: {"events", "inbox", "outbox", "timers", "waits", "snapshot", "supervision"},
    NewEvent: {"payload", "summary", "error", "state_hash"},
    InboxEntry: {"args", "reply", "args_hash"},
    OutboxEntry: {"args", "args_hash"},
    TimerEntry: {"args"},
    WaitEntry: {"schema"},
    Snapshot: {"state"},
    Letter: {"args", "args_hash", "reason"},
    StoppedActor: {"message"},
    Supervision: {"letter", "revived", "stopped"},
}
READABLE = {
    # names, ids, versions, times, statuses and counts
    "attempts", "base", "branch", "causation_id", "code", "code_version", "command_id", "completed_at_us", "correlation_id", "deadline_ms",
    "due_us", "duration_us", "event_ids", "every_us", "expected_version", "expires_at_us", "explicit", "failed_at_us", "failures",
    "key_id", "kind", "letters_gone", "method", "name", "next_try_us", "opened_at_us", "parent", "received_at_us", "received_time",
    "receiver", "restarted", "schema_version", "sender", "set_at_us", "shape", "source", "state_code", "status", "stopped_at_us",
    "stream", "timer_id", "timers_gone", "traceparent", "type", "version", "wait_id", "waits_gone", "wall",
}  # fmt: skip
OTHERWISE = {(Letter, "state"), (StoppedActor, "reason")}
"""Readable although the word means content elsewhere: how far a letter is, and the code of an error."""


@pytest.mark.parametrize("struct", SEALED, ids=lambda struct: struct.__name__)
def test_s29_every_field_is_sealed_or_known_to_say_nothing(struct: type[msgspec.Struct]) -> None:
    undecided = {name for name in struct.__struct_fields__ if name not in SEALED[struct] | READABLE and (struct, name) not in OTHERWISE}
    assert undecided == set()
